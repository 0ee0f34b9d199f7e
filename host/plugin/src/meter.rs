//! How much CPU time a call takes.
//!
//! The engine's ticks alone would charge a guest for waiting: after each host call that takes longer than a tick, the
//! deadline has passed. Wall time inside `poll` would charge it for a busy or throttled machine. So the meter reads the
//! CPU clock of the thread around each poll of the call's future, and a tick is merely the moment to look at it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Nanoseconds spent, and the thread's clock when the poll that is under way began. Only the thread that polls writes,
/// so relaxed ordering will do; moving a task to another thread synchronises by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuMeter {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    spent: AtomicU64,
    polled: AtomicU64,
}

/// CPU time of this thread in nanoseconds.
fn thread_clock() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(time.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(part(time.tv_nsec))
}

impl CpuMeter {
    /// Time spent so far, from inside the future that is measured.
    pub(crate) fn spent_now(&self) -> Duration {
        let poll = thread_clock().saturating_sub(self.inner.polled.load(Relaxed));
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
            let began = thread_clock();
            self.inner.polled.store(began, Relaxed);
            let poll = future.as_mut().poll(context);
            self.inner
                .spent
                .fetch_add(thread_clock().saturating_sub(began), Relaxed);
            poll
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(span: Duration) {
        let until = thread_clock() + u64::try_from(span.as_nanos()).unwrap();
        while thread_clock() < until {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn computing_is_charged_and_waiting_is_not() {
        let meter = CpuMeter::default();
        let inside = meter
            .charge(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                compute(Duration::from_millis(5));
                // Not running although polled, as on a machine that has better to do.
                std::thread::park_timeout(Duration::from_millis(100));
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
