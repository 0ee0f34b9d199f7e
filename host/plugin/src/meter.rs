//! How long a call occupies a worker thread.
//!
//! The engine's ticks alone would charge a guest for waiting: after each host call that takes longer than a tick, the
//! deadline has passed. So the meter counts only the time inside `poll` of the call's future, and a tick is merely the
//! moment to look at it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Nanoseconds spent, and when the poll that is under way began. Only the thread that polls writes, so relaxed
/// ordering will do; moving a task to another thread synchronises by itself.
#[derive(Clone, Debug)]
pub(crate) struct CpuMeter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: Instant,
    spent: AtomicU64,
    polled: AtomicU64,
}

impl CpuMeter {
    pub(crate) fn new() -> CpuMeter {
        CpuMeter {
            inner: Arc::new(Inner {
                base: Instant::now(),
                spent: 0.into(),
                polled: 0.into(),
            }),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.inner.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Time spent so far, from inside the future that is measured.
    pub(crate) fn spent_now(&self) -> Duration {
        let poll = self.now().saturating_sub(self.inner.polled.load(Relaxed));
        Duration::from_nanos(self.inner.spent.load(Relaxed).saturating_add(poll))
    }

    /// Time spent so far, from outside.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.inner.spent.load(Relaxed))
    }

    /// Runs `future` and charges each of its polls.
    pub(crate) async fn charge<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let began = self.now();
            self.inner.polled.store(began, Relaxed);
            let poll = future.as_mut().poll(context);
            self.inner
                .spent
                .fetch_add(self.now().saturating_sub(began), Relaxed);
            poll
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupy(span: Duration) {
        let began = Instant::now();
        while began.elapsed() < span {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn waiting_is_free_and_computing_is_not() {
        let meter = CpuMeter::new();
        let inside = meter
            .charge(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                occupy(Duration::from_millis(5));
                meter.spent_now()
            })
            .await;
        assert!(inside >= Duration::from_millis(5), "{inside:?}");
        assert!(meter.spent() >= inside);
        assert!(
            meter.spent() < Duration::from_millis(90),
            "waiting was charged: {:?}",
            meter.spent()
        );
    }
}
