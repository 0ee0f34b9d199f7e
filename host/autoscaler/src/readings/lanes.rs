//! Calls that run at once, bounded for each source.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_model::window_name;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Policy;
use crate::metrics::Metrics;

/// Many may wait for it.
pub(super) type Answer<T> = Shared<BoxFuture<'static, Arc<Result<T, String>>>>;

/// The places of each source. A Prometheus server is a source of its own.
pub(crate) struct Lanes {
    policy: Policy,
    metrics: Metrics,
    places: HashMap<(&'static str, String), Arc<Semaphore>>,
}

impl Lanes {
    pub fn new(policy: Policy, metrics: Metrics) -> Self {
        Self {
            policy,
            metrics,
            places: HashMap::new(),
        }
    }

    /// Asks as soon as there is a place. The deadline holds for the wait and again for the answer.
    pub(super) fn start<T: Send + Sync + 'static>(
        &mut self,
        source: &'static str,
        server: &str,
        ask: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Answer<T> {
        let Policy { concurrency, timeout } = self.policy;
        let places = self.places.entry((source, server.to_owned()));
        let places = Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(concurrency.max(1)))));
        let metrics = self.metrics.clone();
        shared(async move {
            let Ok(_place) = tokio::time::timeout(timeout, places.acquire()).await else {
                return Err(format!(
                    "{concurrency} other calls took longer than {}",
                    window_name(timeout)
                ));
            };
            let begun = Instant::now();
            let answer = tokio::time::timeout(timeout, ask)
                .await
                .unwrap_or_else(|_| Err(late(timeout)));
            metrics.reading_took(source, begun.elapsed());
            answer
        })
    }
}

fn late(timeout: Duration) -> String {
    format!("no answer within {}", window_name(timeout))
}

/// Runs by itself and can be awaited by many; ends when nobody is interested any more.
fn shared<T: Send + Sync + 'static>(
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Answer<T> {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    async move {
        Arc::new(
            task.await
                .unwrap_or_else(|error| Err(format!("the reading did not end: {error}"))),
        )
    }
    .boxed()
    .shared()
}
