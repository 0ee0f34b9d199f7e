//! What is wrong with a time zone or a time in it.

/// Why a time could not be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The database of time zones has no zone of this name.
    #[error("there is no time zone {0:?}; write one of the IANA database, such as Europe/Vienna")]
    UnknownZone(String),
    /// No calendar has such a date.
    #[error("{0}")]
    OutOfRange(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
