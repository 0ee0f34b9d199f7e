//! Calls of a source's `set-scale`, for several targets at once.
//!
//! Whoever asks waits for the answer about its own target. What is asked within a moment for one reason goes in one call, and several
//! calls run at once: a guest writes to the API server for one target after the other, so a call must stay small to end within its
//! limits. When nobody waits for a call any more, because their shard was lost, it is dropped where it stands; targets of different
//! shards never share one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_model::{Shards, Target, TargetKey};
use dormouse_plugin::types::ScaleOutcome;
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{ActError, Applied};
use crate::metrics::Metrics;
use crate::{Source, SourceError};

/// Targets in one call.
const BATCH: usize = 32;
/// Calls of one source at once: half of what a plugin may have under way, so that wakes and listings find a place.
const CALLS: usize = 4;
/// How long the first of a call waits for others.
const TOGETHER: Duration = Duration::from_millis(20);

struct Ask {
    key: TargetKey,
    answer: oneshot::Sender<Result<ScaleOutcome, SourceError>>,
}

/// What may go in one call: the reason, and the namespace's shard.
type Group = (String, u32);

/// Calls of one source. What waits is bounded by its targets.
pub(crate) struct SetScale {
    source: Arc<dyn Source>,
    metrics: Metrics,
    shards: watch::Receiver<Shards>,
    waiting: Mutex<BTreeMap<Group, Vec<Ask>>>,
    places: Arc<Semaphore>,
}

impl SetScale {
    /// Calls of a source.
    pub fn new(source: Arc<dyn Source>, metrics: Metrics, shards: watch::Receiver<Shards>) -> Arc<Self> {
        Arc::new(Self {
            source,
            metrics,
            shards,
            waiting: Mutex::default(),
            places: Arc::new(Semaphore::new(CALLS)),
        })
    }

    /// Asks for a target to be put to sleep.
    pub async fn to_zero(self: &Arc<Self>, target: &Target, reason: &str) -> Result<Applied, ActError> {
        let (answer, answered) = oneshot::channel();
        let shard = self.shards.borrow().of_namespace(&target.key.namespace);
        let group = (reason.to_owned(), shard);
        let is_first = {
            let mut waiting = self.waiting();
            let asks = waiting.entry(group.clone()).or_default();
            asks.push(Ask {
                key: target.key.clone(),
                answer,
            });
            asks.len() == 1
        };
        if is_first {
            tokio::spawn(Arc::clone(self).carry(group));
        }
        let outcome = match answered.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                self.metrics.sleep(&target.key.owner, "error");
                return Err(ActError::SetScale(error));
            }
            Err(_) => {
                return Err(ActError::SetScale(SourceError {
                    code: "internal",
                    message: "the call of set-scale did not end".to_owned(),
                }));
            }
        };
        let label = label(&outcome);
        self.metrics.sleep(&target.key.owner, label);
        let (owner, resource) = (&target.key.owner, &target.key);
        if let ScaleOutcome::Failed(error) = outcome {
            tracing::warn!(%owner, %resource, "sleep failed: {error}");
            return Err(ActError::Refused(error.to_string()));
        }
        if let ScaleOutcome::Other(text) = outcome {
            let why = format!("its source says what this version does not know: {text}");
            return Err(ActError::Refused(why));
        }
        tracing::info!(%owner, %resource, outcome = label, "asked to sleep: {reason}");
        Ok(match outcome {
            ScaleOutcome::Watch(condition) => Applied::Watch(condition),
            ScaleOutcome::Accepted => Applied::Asked,
            ScaleOutcome::Done | ScaleOutcome::Failed(_) | ScaleOutcome::Other(_) => Applied::Unchanged,
        })
    }

    /// Makes calls until nobody of a group waits.
    async fn carry(self: Arc<Self>, group: Group) {
        tokio::time::sleep(TOGETHER).await;
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            let (batch, is_last) = self.take(&group);
            if !batch.is_empty() {
                tokio::spawn(Arc::clone(&self).call(batch, group.0.clone(), place));
            }
            if is_last {
                return;
            }
        }
    }

    /// Those of a group for the next call, and whether they are the last. After the last, whoever asks next is a first one.
    fn take(&self, group: &Group) -> (Vec<Ask>, bool) {
        let mut waiting = self.waiting();
        let Some(asks) = waiting.get_mut(group) else {
            return (Vec::new(), true);
        };
        asks.retain(|ask| !ask.answer.is_closed());
        let batch = asks.drain(..asks.len().min(BATCH)).collect();
        let is_last = asks.is_empty();
        if is_last {
            waiting.remove(group);
        }
        (batch, is_last)
    }

    async fn call(self: Arc<Self>, batch: Vec<Ask>, reason: String, _place: OwnedSemaphorePermit) {
        let (keys, mut answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|ask| (ask.key, ask.answer)).unzip();
        let outcomes = tokio::select! {
            outcomes = self.source.set_scale(&keys, 0, &reason) => outcomes,
            _ = join_all(answers.iter_mut().map(oneshot::Sender::closed)) => return,
        };
        match outcomes {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::warn!(
                    owner = %self.source.owner(),
                    resources = keys.len(),
                    code = error.code,
                    "set-scale failed: {error}"
                );
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<Group, Vec<Ask>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a metric label.
fn label(outcome: &ScaleOutcome) -> &'static str {
    match outcome {
        ScaleOutcome::Done => "done",
        ScaleOutcome::Accepted => "accepted",
        ScaleOutcome::Watch(_) => "watch",
        ScaleOutcome::Failed(_) => "failed",
        ScaleOutcome::Other(_) => "other",
    }
}
