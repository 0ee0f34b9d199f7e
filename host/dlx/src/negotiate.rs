//! How a client is kept waiting while its workload wakes.
//!
//! A browser could be shown a page, a probe could be answered from a file. Today everybody is held; this is the seam
//! where another answer will be chosen, before the request takes a place in the queue.

use http::request::Parts;

use crate::RouteTarget;

/// How a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The request is held until the workload is there.
    Hold,
}

/// Chooses how this client waits for this target.
pub fn negotiate(_request: &Parts, _target: &RouteTarget) -> Waiting {
    Waiting::Hold
}
