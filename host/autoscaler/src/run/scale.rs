//! The part of a run that is about the number of replicas.

use dormouse_model::{MetricsPolicy, Policy, Target};
use dormouse_scaling::{Scaled, to_demand};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, Sleeper, StatusUpdate};
use jiff::{SignedDuration, Timestamp};
use tokio::time::error::Elapsed;

use super::{Context, Memory};
use crate::key::sleeper_key;
use crate::numbers::{self, Gatherer, Numbers};
use crate::sleepers::state;

/// How long after a look at the requests that wait for what wakes the next one follows.
const ASK_FOR_DEMAND_AGAIN: SignedDuration = SignedDuration::from_secs(1);

impl Context {
    /// Everything that its number of replicas follows from; None: nothing decides it, or not now. An error says why it cannot be decided.
    pub(super) async fn numbers(
        &self,
        target: &Target,
        sleeper: &Sleeper,
        memory: &Memory,
    ) -> Result<Option<Numbers>, ConditionUpdate> {
        let Policy::Metrics(policy) = &target.policy else {
            return Ok(None);
        };
        let gatherer = Gatherer {
            sleepers: &*self.sleepers,
            meter: &*self.meter,
            metrics: &self.metrics,
            settings: &self.config.scaling,
        };
        let (known, now) = (memory.scaling.as_ref(), self.clock.now());
        gatherer.gather(target, policy, sleeper, known, now).await
    }

    /// Raises the number of replicas of what wakes to what the requests that wait for it need.
    pub(super) async fn scale_up_to_demand(
        &self,
        target: &Target,
        policy: &MetricsPolicy,
        sleeper: &Sleeper,
        memory: &mut Memory,
    ) -> Result<Option<Timestamp>, Elapsed> {
        let work = async {
            let mut update = StatusUpdate::default();
            match self.numbers(target, sleeper, memory).await {
                Ok(None) => return,
                Ok(Some(numbers)) => {
                    let readings = numbers.readings();
                    let scaled = to_demand(policy, &numbers.seen(&readings), self.clock.now());
                    self.scale(target, sleeper, &scaled, &numbers, memory, &mut update)
                        .await;
                }
                Err(unscaled) => update.conditions.push(unscaled),
            }
            self.say(target, sleeper, update, self.clock.now()).await;
        };
        tokio::time::timeout(self.config.round_limit, work).await?;
        Ok(Some(self.clock.now() + ASK_FOR_DEMAND_AGAIN))
    }

    /// Writes a number of replicas that was decided, and notes it in what is said.
    pub(super) async fn scale(
        &self,
        target: &Target,
        sleeper: &Sleeper,
        scaled: &Scaled,
        numbers: &Numbers,
        memory: &mut Memory,
        update: &mut StatusUpdate,
    ) {
        let decision = &scaled.decision;
        let mut able = ConditionUpdate::good(condition::ABLE_TO_SCALE);
        let mut resized = None;
        if let Some(replicas) = decision.replicas.filter(|_| decision.rescales()) {
            let key = sleeper_key(&target.key);
            let place = self.writing.acquire().await;
            let written = numbers
                .resize(&*self.sleepers, &key, state(sleeper), replicas)
                .await;
            drop(place);
            match written {
                Ok(true) => {
                    let (from, resource) = (decision.current, &target.key);
                    tracing::info!(owner = %self.owner, %resource, "{decision}");
                    self.metrics.resized(&self.owner, from, replicas);
                    let (namespace, text) = (&target.key.namespace, decision.to_string());
                    self.sleepers
                        .tell(namespace, &target.object, false, "SuccessfulRescale", &text)
                        .await;
                    resized = Some(self.clock.now());
                }
                // It is decided anew; that it was decided now changes nothing.
                Ok(false) => return,
                Err(failed) => able = failed,
            }
        }
        update.conditions.extend(numbers::active(scaled));
        if able.status {
            let now = self.clock.now();
            update.scaling = numbers::status(sleeper, scaled, resized, &mut memory.scaling, now);
        }
        update.conditions.push(able);
    }
}
