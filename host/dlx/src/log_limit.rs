//! A limit on lines of the log about what clients can cause as often as they like.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock;

/// One line in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lines about one thing.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    last: Option<Instant>,
    /// Since then.
    left_out: u64,
}

impl LogLimit {
    /// If one more may be written: how many were left out since the last one.
    pub(crate) fn allow(&self) -> Option<u64> {
        let mut written = lock(&self.0);
        if written.last.is_some_and(|at| at.elapsed() < INTERVAL) {
            written.left_out += 1;
            return None;
        }
        written.last = Some(Instant::now());
        Some(std::mem::take(&mut written.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_counted_in_the_next_line() {
        let limit = LogLimit::default();
        assert_eq!(limit.allow(), Some(0));
        assert_eq!([limit.allow(), limit.allow()], [None, None]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limit.allow(), Some(2));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limit.allow(), Some(0));
    }
}
