//! What is known of the wakes of one Sleeper.

use std::time::Duration;

use futures::future::{BoxFuture, Shared, WeakShared};
use thiserror::Error;
use tokio::time::Instant;

/// First back-off after a failed wake; doubles with each failure in a row.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest back-off after a failed wake.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// How long an accepted wake stands in for another one of the same epoch: as long as the news of it may take to come
/// round through the API server.
pub(crate) const ACCEPTED_FOR: Duration = Duration::from_secs(1);

/// Why a wake did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WakeError {
    /// It was refused or failed. The text is shown to clients: no secrets.
    #[error("{0}")]
    Failed(String),
    /// It failed for now, as when the API server does not answer: it is tried again for as long as requests may be held.
    #[error("{0}")]
    Transient(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

/// How long whoever wakes is left alone after that many failures in a row and one more.
pub(crate) fn backoff(failures: u32) -> Duration {
    crate::backoff::pause(failures, FIRST_BACKOFF, LONGEST_BACKOFF)
}

/// A wake that is under way, shared by all who wait for it.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<(), WakeError>>>;

/// The wakes of one Sleeper: the one that is under way, and what became of the last.
#[derive(Default)]
pub(crate) struct Wakes {
    /// The wake that is under way, as long as anybody waits for it.
    pub(crate) flight: Option<WeakShared<BoxFuture<'static, Result<(), WakeError>>>>,
    /// Epoch that the last accepted wake started from, and when. An accepted wake raises the epoch, so a later sleep
    /// is never mistaken for this one.
    accepted: Option<(i64, Instant)>,
    /// Failures in a row.
    failures: u32,
    /// Whoever wakes is left alone until then.
    pub(crate) not_before: Option<Instant>,
}

impl Wakes {
    pub(crate) fn under_way(&self) -> Option<Flight> {
        self.flight
            .as_ref()
            .and_then(WeakShared::upgrade)
            .filter(|flight| flight.peek().is_none())
    }

    /// Whether one for this epoch was accepted a moment ago.
    pub(crate) fn accepted_lately(&self, epoch: i64) -> bool {
        self.failures == 0
            && self
                .accepted
                .is_some_and(|(accepted, at)| accepted == epoch && at.elapsed() < ACCEPTED_FOR)
    }

    pub(crate) fn landed(&mut self, epoch: i64, ok: bool) {
        if ok {
            self.accepted = Some((epoch, Instant::now()));
            self.failures = 0;
            self.not_before = None;
        } else {
            self.accepted = None;
            self.not_before = Some(Instant::now() + backoff(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

impl std::fmt::Debug for Wakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakes")
            .field("accepted", &self.accepted)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
