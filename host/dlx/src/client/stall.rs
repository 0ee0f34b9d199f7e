//! HTTP/2 streams whose clients take nothing: a window that stays shut is as good as a client that does not read, and the socket
//! shows nothing of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::observe::End;
use crate::{Metrics, lock};

/// Whether the client of a stream takes what is given to it.
#[derive(Debug)]
pub(crate) struct Stall {
    born: Instant,
    /// Milliseconds since `born`, and one, since when something waits to be taken; 0: nothing does.
    since: AtomicU64,
}

impl Stall {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            since: AtomicU64::new(0),
        })
    }

    /// Whether something waits to be taken from now on.
    pub(crate) fn set(&self, waits: bool) {
        let now = || u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.since.store(if waits { now() } else { 0 }, Ordering::Relaxed);
    }

    /// When something will have waited for this long.
    fn due(&self, limit: Duration) -> Option<Instant> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + Duration::from_millis(since) + limit)
    }
}

/// Runs the streams of one connection, and ends those that stall: what is dropped is reset.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    next: Arc<Mutex<Option<Arc<Stall>>>>,
    limit: Duration,
    metrics: Arc<Metrics>,
}

impl Streams {
    pub(crate) fn new(limit: Duration, metrics: &Arc<Metrics>) -> Self {
        Self {
            next: Arc::default(),
            limit,
            metrics: Arc::clone(metrics),
        }
    }

    /// For the request that has just come. hyper gives its stream to the executor before it asks for the next.
    pub(crate) fn begin(&self) -> Arc<Stall> {
        let stall = Stall::new();
        *lock(&self.next) = Some(Arc::clone(&stall));
        stall
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let stall = lock(&self.next).take();
        let (limit, metrics) = (self.limit, Arc::clone(&self.metrics));
        let mut stream = Box::pin(stream);
        tokio::spawn(async move {
            let Some(stall) = stall else {
                stream.await;
                return;
            };
            loop {
                let until = stall.due(limit).unwrap_or_else(|| Instant::now() + limit);
                if tokio::time::timeout_at(until, &mut stream).await.is_ok() {
                    return;
                }
                if stall.due(limit).is_some_and(|due| Instant::now() >= due) {
                    metrics.ended(End::Send);
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn f05_a_stream_that_is_not_taken_from_is_ended_and_one_that_waits_for_its_workload_is_not() {
        let limit = Duration::from_secs(60);
        let streams = Streams::new(limit, &Arc::default());
        let (kept, mut ended) = oneshot::channel::<()>();
        let stall = streams.begin();
        streams.execute(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            stall.set(true);
            tokio::time::sleep(Duration::from_secs(50)).await;
            stall.set(false);
        }
        assert!(
            ended.try_recv() == Err(oneshot::error::TryRecvError::Empty),
            "it was always taken in time"
        );
        stall.set(true);
        tokio::time::sleep(Duration::from_secs(121)).await;
        assert!(ended.await.is_err(), "dropped");
    }
}
