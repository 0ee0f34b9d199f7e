//! When bytes last moved on a connection, for its limits and for the demand that it counts as.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Written by the connection with plain atomics whenever bytes have moved, read by its timer and by whoever asks for demand.
#[derive(Debug)]
pub(crate) struct Activity {
    born: Instant,
    /// Milliseconds since `born` at which bytes last moved.
    last: AtomicU64,
    /// How long it counts as demand after that.
    counts_for: Duration,
    answered: AtomicBool,
    answer: Notify,
}

impl Activity {
    pub(crate) fn new(counts_for: Duration) -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            last: AtomicU64::new(0),
            counts_for,
            answered: AtomicBool::new(false),
            answer: Notify::new(),
        })
    }

    /// Bytes have moved.
    pub(crate) fn moved(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Bytes have come from the workload.
    pub(crate) fn workload_spoke(&self) {
        if !self.answered.load(Ordering::Relaxed) && !self.answered.swap(true, Ordering::AcqRel) {
            self.answer.notify_one();
        }
    }

    /// Waits for the first bytes of the workload. For one caller.
    pub(crate) async fn answered(&self) {
        if !self.answered.load(Ordering::Acquire) {
            self.answer.notified().await;
        }
    }

    /// When bytes last moved.
    pub(crate) fn last(&self) -> Instant {
        self.born + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether it is demand: bytes have moved not long ago.
    pub(crate) fn counts(&self) -> bool {
        self.last().elapsed() < self.counts_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_counts_for_as_long_after_its_last_bytes_as_was_said() {
        let activity = Activity::new(Duration::from_secs(300));
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(activity.counts(), "a new one has moved, so to speak");
        activity.moved();
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(activity.counts());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!activity.counts());
        activity.moved();
        assert!(activity.counts(), "and again when it is used again");
    }
}
