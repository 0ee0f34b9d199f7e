//! The part of a run that is about the number of replicas.

use std::borrow::Cow;
use std::sync::Arc;

use dormouse_model::{MemoryPolicy, MetricsPolicy, Policy, Target};
use dormouse_scaling::{ScaleDecision, Scaled, Seen, Standing, recommend, to_demand};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::lifecycle::SleeperState;
use dormouse_sleepers::{ConditionUpdate, Sleeper, StatusUpdate};
use jiff::{SignedDuration, Timestamp};
use tokio::time::error::Elapsed;

use super::{Context, Memory};
use crate::numbers::{self, Gatherer, Numbers};
use crate::report::{NumberDecided, Report};
use crate::sleepers::state;

/// How long after a look at the requests that wait for what wakes the next one follows.
const ASK_FOR_DEMAND_AGAIN: SignedDuration = SignedDuration::from_secs(1);

impl Context {
    /// Everything that its number of replicas follows from; None: nothing decides it, or not now. An error says why it cannot be decided.
    pub(super) async fn numbers(
        &self,
        target: &Target,
        sleeper: Option<&Sleeper>,
        memory: &Memory,
    ) -> Result<Option<Numbers>, ConditionUpdate> {
        let gatherer = Gatherer {
            sleepers: &*self.sleepers,
            meter: &*self.meter,
            metrics: &self.metrics,
            settings: &self.config.scaling,
        };
        let (known, now) = (memory.scaling.as_ref(), self.clock.now());
        gatherer.gather(target, sleeper, known, now).await
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
            match self.numbers(target, Some(sleeper), memory).await {
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
        let resized = match self
            .resize(target, Some(state(sleeper)), &scaled.decision, numbers)
            .await
        {
            Resized::Superseded => return,
            Resized::Done(resized) => Ok(resized),
            Resized::Failed(why) => Err(why),
        };
        update.conditions.extend(numbers::active(scaled));
        match resized {
            Ok(at) => {
                let now = self.clock.now();
                update.scaling = numbers::status(sleeper, scaled, at, &mut memory.scaling, now);
                update
                    .conditions
                    .push(ConditionUpdate::good(condition::ABLE_TO_SCALE));
            }
            Err(why) => update.conditions.push(why),
        }
    }

    /// Writes a number of replicas, if it is another one.
    async fn resize(
        &self,
        target: &Target,
        state: Option<&SleeperState>,
        decision: &ScaleDecision,
        numbers: &Numbers,
    ) -> Resized {
        let Some(replicas) = decision.replicas.filter(|_| decision.rescales()) else {
            return Resized::Done(None);
        };
        // What is decided on the pods that there are may be on its way already, or more of it.
        if numbers.is_under_way(decision.current, replicas) {
            return Resized::Done(None);
        }
        let place = self.writing.acquire().await;
        let written = numbers.resize(&*self.sleepers, state, replicas).await;
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
                Resized::Done(Some(self.clock.now()))
            }
            Ok(false) => Resized::Superseded,
            Err(why) => Resized::Failed(why),
        }
    }

    /// Runs a target without a Sleeper: it is only scaled while it is up, and its source remembers for it.
    pub(super) async fn run_without_sleeper(
        &self,
        target: &Target,
        memory: &mut Memory,
    ) -> Result<(), Elapsed> {
        let gathered = match &target.problem {
            Some(problem) => Err(ConditionUpdate::bad(
                condition::ABLE_TO_SCALE,
                "InvalidDescription",
                problem,
            )),
            None => self.numbers(target, None, memory).await,
        };
        let work = async {
            let mut report = Report {
                at: self.clock.now(),
                update: StatusUpdate::default(),
                scaled: None,
                last_scale: None,
            };
            match gathered {
                Ok(None) => return,
                Ok(Some(numbers)) => {
                    let target = remembering(target, memory.resized);
                    if !self.scale_without_sleeper(&target, &numbers, &mut report).await {
                        return;
                    }
                }
                Err(why) => report.update.conditions.push(why),
            }
            let written = report.scaled.as_ref().and_then(|scaled| scaled.written);
            memory.resized = written.or(memory.resized);
            report.last_scale = memory.resized;
            let _place = self.writing.acquire().await;
            self.source.report(vec![(target.key.clone(), report)]).await;
        };
        tokio::time::timeout(self.config.round_limit, work).await
    }

    /// Decides, writes, and notes both in the report. False: somebody else was first, and it is decided anew.
    async fn scale_without_sleeper(&self, target: &Target, numbers: &Numbers, report: &mut Report) -> bool {
        let readings = numbers.readings();
        let recommended = recommend(
            target,
            &Seen {
                inputs: &[],
                standing: Standing::Awake,
                since: None,
                wakes: &[],
                observe_not_before: None,
                settle: self.config.settle,
                scale: Some(numbers.seen(&readings)),
                now: report.at,
            },
        );
        let Some(scaled) = recommended.scaled else {
            return false;
        };
        let conditions = &mut report.update.conditions;
        conditions.extend(numbers::active(&scaled));
        let decision = scaled.decision;
        tracing::debug!(resource = %target.key, "{decision}");
        let written = match self.resize(target, None, &decision, numbers).await {
            Resized::Superseded => return false,
            Resized::Done(written) => {
                conditions.push(ConditionUpdate::good(condition::ABLE_TO_SCALE));
                written
            }
            Resized::Failed(why) => {
                conditions.push(why);
                None
            }
        };
        report.scaled = Some(NumberDecided { decision, written });
        true
    }
}

/// The target as its source describes it once it has heard of what was written last.
fn remembering(target: &Target, resized: Option<Timestamp>) -> Cow<'_, Target> {
    match &target.policy {
        Policy::Memory(policy) if policy.last_scale < resized => Cow::Owned(Target {
            policy: Policy::Memory(Arc::new(MemoryPolicy {
                last_scale: resized,
                ..(**policy).clone()
            })),
            ..target.clone()
        }),
        _ => Cow::Borrowed(target),
    }
}

/// What became of a number of replicas.
enum Resized {
    /// It is so; and since when, if it was written just now.
    Done(Option<Timestamp>),
    /// Somebody else was first: it is decided anew, and that it was decided now changes nothing.
    Superseded,
    /// It could not be written.
    Failed(ConditionUpdate),
}
