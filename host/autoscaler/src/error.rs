//! Why a source failed.

use thiserror::Error;

/// Why a source did not do what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SourceError {
    /// A stable short name, in snake case: metric label, condition reason, log field.
    pub code: &'static str,
    /// For people.
    pub message: String,
}
