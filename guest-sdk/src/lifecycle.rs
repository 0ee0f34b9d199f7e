//! Sleep and wake, done safely: traffic is diverted before anything is scaled, and nothing is lost.
//!
//! Both functions record the desired state on the resource's Sleeper and return; the host carries it through. The operator has to
//! grant `lifecycle` to the plugin.

use jiff::Timestamp;

use crate::{ResourceId, host};

/// Why a desired state was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no Sleeper: the plugin never returned the resource.
    #[error("no Sleeper for {0}: the plugin never returned it from `resources`")]
    UnknownResource(ResourceId),
    /// It cannot be put to sleep this way.
    #[error("cannot be put to sleep: {0}")]
    Unsupported(String),
    /// A newer request won. Nothing to do: the host asks again when it is due.
    #[error("a newer request won: {0}")]
    Superseded(String),
    /// No answer before the deadline of the call.
    #[error("timed out: {0}")]
    Timeout(String),
    /// The API server cannot be reached or is overloaded.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Where a resource stands, coarsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves from its pods.
    Awake,
    /// It is on its way to sleep, or its traffic is looked at.
    GoingToSleep,
    /// It is at zero; the DLX holds whatever arrives.
    Asleep,
    /// It is on its way back.
    Waking,
}

/// What a Sleeper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Where it stands.
    pub phase: Phase,
    /// The same as the host says it, for people: `Draining`. Other versions may say it in other words.
    pub phase_text: String,
    /// Rises by one with every wake.
    pub epoch: u64,
    /// When the phase last changed.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// Asks that the resource goes to sleep: divert its Services, drain, scale its workloads to zero.
///
/// # Errors
/// [`Error`]; [`Error::Superseded`] when a wake is under way.
pub fn sleep(resource: &ResourceId, reason: &str) -> Result<(), Error> {
    host::sleep(resource, reason)
}

/// Asks that the resource wakes. Always wins over a sleep that has not finished.
///
/// # Errors
/// [`Error`].
pub fn wake(resource: &ResourceId, reason: &str) -> Result<(), Error> {
    host::wake(resource, reason)
}

/// What the resource's Sleeper says, or none.
///
/// # Errors
/// [`Error`].
pub fn state(resource: &ResourceId) -> Result<Option<Sleeper>, Error> {
    host::state(resource)
}
