//! What is known of the pods behind a target.

use std::net::SocketAddr;

use jiff::Timestamp;

/// What is known of a target's endpoints at a moment. Immutable; a new one is sent when something changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointsView {
    /// Addresses of pods that may get requests. Only these are ever dialled.
    pub ready: Vec<SocketAddr>,
    /// A wake must have been accepted before anything is forwarded, even to a ready address.
    pub asleep: bool,
    /// The Service leads to its pods again: clients are shown out gently.
    pub direct: bool,
    /// The pods came back from zero in this epoch: none of them has served before.
    pub fresh: bool,
    /// Epoch of the Sleeper. Connections from before a wake are not used after it.
    pub epoch: i64,
    /// The failure of the wake of this epoch, as the cluster knows it.
    pub failure: Option<FailedWake>,
}

/// A wake that failed after it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedWake {
    /// What went wrong, in words for people. Shown to clients: no secrets.
    pub cause: String,
    /// When it was noticed. A failure with another time is another one: those who wait hear of it.
    pub at: Timestamp,
}

impl EndpointsView {
    /// Whether a request may go through without waiting for anything.
    pub(crate) fn open(&self) -> bool {
        !self.asleep && !self.ready.is_empty()
    }
}
