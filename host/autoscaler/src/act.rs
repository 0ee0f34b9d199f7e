//! Carries decisions out and tells what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_plugin::types::{FieldCondition, ResourceId, ScaleOutcome};
use dormouse_scaling::{Decision, Input};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, SleeperKey, WishError};
use futures::StreamExt;
use jiff::Timestamp;

use crate::decide::{Action, reason};
use crate::metrics::Metrics;
use crate::status::{camel, is_news, is_worth_writing, last_decision, readings};
use crate::target::{Target, scales_itself};
use crate::{CONCURRENCY, Sleepers, Source};

/// Resources in one call of a source.
const BATCH: usize = 256;

/// A target about which a decision was made.
pub(crate) struct Decided {
    pub target: Target,
    pub inputs: Vec<Input>,
    pub decision: Decision,
    pub action: Action,
}

/// Who carries out.
pub(crate) struct Actor<'a> {
    pub source: &'a Arc<dyn Source>,
    pub sleepers: &'a Arc<dyn Sleepers>,
    pub metrics: &'a Metrics,
}

impl Actor<'_> {
    /// Acts on decisions, then records them. Returns the fields that the source wants watched.
    pub async fn act(&self, decided: &[Decided], now: Timestamp) -> Vec<(ResourceId, FieldCondition)> {
        let owner = &self.source.owner();
        for one in decided {
            self.metrics.decision(owner, one.decision.outcome());
        }
        let (mut news, watched) = self.sleep(decided).await;
        self.look(decided, &mut news).await;
        self.record(decided, news, now).await;
        watched
    }

    /// Asks the source to put everything that is idle to sleep, in one call for each reason.
    async fn sleep(&self, decided: &[Decided]) -> (News, Vec<(ResourceId, FieldCondition)>) {
        let (mut news, mut watched) = (News::default(), Vec::new());
        let mut batches: BTreeMap<String, Vec<&Decided>> = BTreeMap::new();
        for one in decided.iter().filter(|one| one.action == Action::Sleep) {
            batches.entry(reason(&one.inputs)).or_default().push(one);
        }
        for (reason, batch) in &batches {
            for batch in batch.chunks(BATCH) {
                self.sleep_batch(reason, batch, &mut news, &mut watched).await;
            }
        }
        (news, watched)
    }

    async fn sleep_batch(
        &self,
        reason: &str,
        batch: &[&Decided],
        news: &mut News,
        watched: &mut Vec<(ResourceId, FieldCondition)>,
    ) {
        let owner = &self.source.owner();
        let ids: Vec<_> = batch.iter().map(|one| one.target.resource.id.clone()).collect();
        let outcomes = match self.source.set_scale(&ids, 0, reason).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::warn!(
                    %owner,
                    resources = ids.len(),
                    code = error.code,
                    "set-scale failed: {error}"
                );
                for one in batch {
                    self.metrics.sleep(owner, "error");
                    let update =
                        ConditionUpdate::bad(condition::PLUGIN, camel(error.code), error.to_string());
                    self.warn(one, &update).await;
                    news.add(&one.target.key, update);
                }
                return;
            }
        };
        for (one, outcome) in batch.iter().zip(outcomes) {
            let label = match &outcome {
                ScaleOutcome::Done => "done",
                ScaleOutcome::Accepted => "accepted",
                ScaleOutcome::Watch(_) => "watch",
                ScaleOutcome::Failed(_) => "failed",
            };
            self.metrics.sleep(owner, label);
            let update = match &outcome {
                ScaleOutcome::Failed(error) => {
                    ConditionUpdate::bad(condition::PLUGIN, "SleepFailed", error.to_string())
                }
                ScaleOutcome::Done | ScaleOutcome::Accepted | ScaleOutcome::Watch(_) => {
                    ConditionUpdate::good(condition::PLUGIN)
                }
            };
            if update.status {
                tracing::info!(%owner, resource = %one.target.resource.id, outcome = label, "asked to sleep: {reason}");
                // Sleepers that the protocol carries out tell their own story.
                if scales_itself(&one.target.resource) && label != "done" {
                    self.tell(one, false, "SleepRequested", reason).await;
                }
            } else {
                tracing::warn!(%owner, resource = %one.target.resource.id, "sleep failed: {}", update.message);
                self.warn(one, &update).await;
            }
            news.add(&one.target.key, update);
            if let ScaleOutcome::Watch(condition) = outcome {
                watched.push((one.target.resource.id.clone(), condition));
            }
        }
    }

    /// Steps into the traffic of some and out of that of others.
    async fn look(&self, decided: &[Decided], news: &mut News) {
        let owner = &self.source.owner();
        let mut looks = Vec::new();
        for one in decided
            .iter()
            .filter(|one| matches!(one.action, Action::Look | Action::StepOut))
        {
            looks.push(async move {
                let key = &one.target.key;
                let (label, wished) = if one.action == Action::Look {
                    (
                        "begun",
                        self.sleepers
                            .observe(key, "looking whether anybody needs it")
                            .await,
                    )
                } else {
                    (
                        "disturbed",
                        self.sleepers.wake(key, &format!("{}", one.decision)).await,
                    )
                };
                (one, label, wished)
            });
        }
        let mut results = futures::stream::iter(looks).buffer_unordered(CONCURRENCY);
        while let Some((one, label, wished)) = results.next().await {
            let key = &one.target.key;
            match wished {
                Ok(changed) => {
                    if changed {
                        self.metrics.look(owner, label);
                    }
                    if one.action == Action::Look {
                        news.add(key, ConditionUpdate::good(condition::DIVERTIBLE));
                    }
                }
                Err(WishError::Denied(why)) => {
                    let update = ConditionUpdate::bad(condition::DIVERTIBLE, "Denied", why);
                    self.warn(one, &update).await;
                    news.add(key, update);
                }
                Err(WishError::Unsupported(why)) => {
                    let update = ConditionUpdate::bad(condition::DIVERTIBLE, "Undivertible", why);
                    self.warn(one, &update).await;
                    news.add(key, update);
                }
                // Somebody else's wish came first. Asked again in the next round.
                Err(WishError::Superseded | WishError::Unknown(_)) => {}
                Err(error @ WishError::Cluster(_)) => {
                    tracing::warn!(%owner, resource = %one.target.resource.id, "a look failed: {error}");
                }
            }
        }
    }

    async fn record(&self, decided: &[Decided], mut news: News, now: Timestamp) {
        let writes: Vec<_> = decided
            .iter()
            .filter_map(|one| {
                let mut conditions = news.0.remove(&one.target.key).unwrap_or_default();
                conditions.push(readings(&one.target.resource.rules, &one.inputs));
                if !conditions.iter().any(|update| update.kind == condition::PLUGIN) {
                    conditions.push(described(&one.target));
                }
                let last = last_decision(&one.decision, &one.inputs, now);
                is_worth_writing(&one.target.sleeper, &last, &conditions, now)
                    .then_some((one, last, conditions))
            })
            .collect();
        futures::stream::iter(writes)
            .for_each_concurrent(CONCURRENCY, |(one, last, conditions)| async move {
                let unread = conditions.iter().find(|update| update.kind == condition::READINGS && !update.status);
                if let Some(update) = unread.filter(|update| update.reason == "ReadingFailed") {
                    self.warn_at(one, update, now).await;
                }
                if let Err(error) = self.sleepers.record(&one.target.key, last, &conditions).await {
                    let owner = &self.source.owner();
                    tracing::warn!(%owner, resource = %one.target.resource.id, "a decision was not recorded: {error}");
                }
            })
            .await;
    }

    async fn warn_at(&self, one: &Decided, update: &ConditionUpdate, now: Timestamp) {
        if is_news(&one.target.sleeper, update, now) {
            self.warn(one, update).await;
        }
    }

    async fn warn(&self, one: &Decided, update: &ConditionUpdate) {
        self.tell(one, true, &update.reason, &update.message).await;
    }

    async fn tell(&self, one: &Decided, warning: bool, reason: &str, message: &str) {
        let resource = &one.target.resource;
        self.sleepers
            .tell(&resource.id.namespace, &resource.object, warning, reason, message)
            .await;
    }
}

/// Whether the plugin describes a resource in a way that can be used.
fn described(target: &Target) -> ConditionUpdate {
    match &target.resource.problem {
        Some(problem) => ConditionUpdate::bad(condition::PLUGIN, "InvalidDescription", problem),
        None => ConditionUpdate::good(condition::PLUGIN),
    }
}

/// Conditions that changed while acting.
#[derive(Default)]
struct News(BTreeMap<SleeperKey, Vec<ConditionUpdate>>);

impl News {
    fn add(&mut self, key: &SleeperKey, update: ConditionUpdate) {
        self.0.entry(key.clone()).or_default().push(update);
    }
}
