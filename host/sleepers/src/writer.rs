//! Conditional writes to Sleepers: a compare-and-set on the resourceVersion that was read.

use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{ApiServer, Backoff, ClusterError, optional};
use kube::ResourceExt;
use tokio::time::Instant;

use crate::api::{Sleeper, SleeperStatus};
use crate::caches::Caches;
use crate::requeue::Requeues;
use crate::{Metrics, SleeperKey};

/// What to do with a Sleeper that was read, and what to return.
pub(crate) enum Edit<T> {
    /// Write nothing.
    Keep(T),
    /// Replace its status.
    Write(Box<SleeperStatus>, T),
}

/// Reads Sleepers from the API server and replaces their status. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SleeperWriter {
    server: ApiServer,
    caches: Arc<Caches>,
    metrics: Metrics,
    requeues: Requeues,
}

impl SleeperWriter {
    pub(crate) fn new(server: ApiServer, caches: Arc<Caches>, metrics: Metrics, requeues: Requeues) -> Self {
        Self {
            server,
            caches,
            metrics,
            requeues,
        }
    }

    /// A Sleeper, straight from the API server.
    pub(crate) async fn fetch(&self, namespace: &str, name: &str) -> Result<Sleeper, ClusterError> {
        let api = self.server.api::<Sleeper>(namespace);
        self.server.ask(|| format!("Sleeper {name}"), api.get(name)).await
    }

    /// Replaces the status of a Sleeper, if it is still the version that was read.
    pub(crate) async fn put_status(
        &self,
        read: &Sleeper,
        status: SleeperStatus,
    ) -> Result<Sleeper, ClusterError> {
        let (namespace, name) = (read.namespace().unwrap_or_default(), read.name_any());
        let mut next = read.clone();
        next.status = Some(status);
        let (api, params) = (self.server.api::<Sleeper>(&namespace), self.server.post_params());
        let replaced = api.replace_status(&name, &params, &next);
        let written = self.server.ask(|| format!("Sleeper {name}"), replaced).await;
        if matches!(written, Err(ClusterError::Conflict { .. })) {
            self.metrics.conflict();
        }
        written
    }

    /// Reads a Sleeper, changes its status and writes it if it is still the one that was read; on a conflict, again. `None`
    /// when there is no such Sleeper. With `cached`, the first attempt is made on the reflector's copy: a stale copy can only
    /// lose, and never means that there is nothing to do.
    pub(crate) async fn edit<T, E: From<ClusterError>>(
        &self,
        key: &SleeperKey,
        cached: bool,
        change: impl Fn(&Sleeper) -> Result<Edit<T>, E>,
    ) -> Result<Option<T>, E> {
        let (namespace, name) = (key.namespace.as_str(), key.object_name());
        let mut retry = Retry::new(self.server.request_timeout());
        if let Some(known) = self.caches.sleeper(key).filter(|_| cached)
            && let Ok(Edit::Write(status, value)) = change(&known)
            && let moved = moves(&known, &status)
            && self.put_status(&known, *status).await.is_ok()
        {
            if moved {
                self.requeues.moved(namespace, &name);
            }
            return Ok(Some(value));
        }
        loop {
            let Some(sleeper) = optional(self.fetch_patiently(namespace, &name, &mut retry).await)? else {
                return Ok(None);
            };
            if SleeperKey::of(&sleeper) != *key {
                return Ok(None);
            }
            let (status, value) = match change(&sleeper)? {
                Edit::Keep(value) => return Ok(Some(value)),
                Edit::Write(status, value) => (status, value),
            };
            let moved = moves(&sleeper, &status);
            match self.put_status(&sleeper, *status).await {
                Ok(_) => {
                    if moved {
                        self.requeues.moved(namespace, &name);
                    }
                    return Ok(Some(value));
                }
                Err(error) if error.is_transient() && retry.again().await => {}
                Err(ClusterError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn fetch_patiently(
        &self,
        namespace: &str,
        name: &str,
        retry: &mut Retry,
    ) -> Result<Sleeper, ClusterError> {
        loop {
            match self.fetch(namespace, name).await {
                Err(error) if error.is_transient() && retry.again().await => {}
                other => return other,
            }
        }
    }
}

/// Whether a change gives the controller something to do. A recorded failure or decision does not.
fn moves(read: &Sleeper, next: &SleeperStatus) -> bool {
    let before = read
        .status
        .as_ref()
        .map(|status| (status.state.desired, status.state.phase))
        .unwrap_or_default();
    before != (next.state.desired, next.state.phase)
}

/// Pauses between attempts to write a Sleeper.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(500));

/// Attempts with short, growing, jittered pauses, until a deadline.
pub(crate) struct Retry {
    deadline: Instant,
    failures: u32,
}

impl Retry {
    pub(crate) fn new(request_timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + request_timeout * 4,
            failures: 0,
        }
    }

    /// Waits a moment. False when the deadline is over.
    pub(crate) async fn again(&mut self) -> bool {
        let pause = PAUSES.jittered(self.failures);
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        self.failures = self.failures.saturating_add(1);
        true
    }
}
