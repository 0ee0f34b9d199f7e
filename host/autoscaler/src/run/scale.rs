//! The part of a run that is about the number of replicas.

use dormouse_model::{MetricsPolicy, Target};
use dormouse_scaling::{ScaleDecision, Scaled, Seen, recommend, to_demand};
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
        let now = self.clock.now();
        let (known, resized) = (memory.scaling.as_ref(), memory.resized);
        gatherer.gather(target, sleeper, known, resized, now).await
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
            self.say(target, sleeper, Report::of(update, self.clock.now()))
                .await;
        };
        tokio::time::timeout(self.config.round_limit, work).await?;
        Ok(Some(self.clock.now() + ASK_FOR_DEMAND_AGAIN))
    }

    /// Writes a number of replicas that was decided, and notes it in what is said. None: somebody else was first, so it was not decided.
    pub(super) async fn scale(
        &self,
        target: &Target,
        sleeper: &Sleeper,
        scaled: &Scaled,
        numbers: &Numbers,
        memory: &mut Memory,
        update: &mut StatusUpdate,
    ) -> Option<NumberDecided> {
        let state = Some(state(sleeper));
        let Resized { able, written } = self.resize(target, state, &scaled.decision, numbers).await?;
        memory.resized = written.or(memory.resized);
        update.conditions.extend(numbers::active(scaled));
        if able.status {
            let now = self.clock.now();
            update.scaling = numbers::status(sleeper, scaled, written, &mut memory.scaling, now);
        }
        update.conditions.push(able);
        let decision = scaled.decision.clone();
        Some(NumberDecided { decision, written })
    }

    /// Writes a number of replicas, if it is another one. None: somebody else was first, so it is decided anew, and that it was decided now
    /// changes nothing.
    async fn resize(
        &self,
        target: &Target,
        state: Option<&SleeperState>,
        decision: &ScaleDecision,
        numbers: &Numbers,
    ) -> Option<Resized> {
        let mut resized = Resized {
            able: ConditionUpdate::good(condition::ABLE_TO_SCALE),
            written: None,
        };
        // What is decided on the pods that there are may be on its way already, or more of it.
        let wanted = decision
            .replicas
            .filter(|replicas| decision.rescales() && !numbers.is_under_way(decision.current, *replicas));
        let Some(replicas) = wanted else {
            return Some(resized);
        };
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
                resized.written = Some(self.clock.now());
            }
            Ok(false) => return None,
            Err(why) => resized.able = why,
        }
        Some(resized)
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
            let mut report = match gathered {
                Ok(None) => return,
                Ok(Some(numbers)) => match self.scale_without_sleeper(target, &numbers).await {
                    None => return,
                    Some(report) => report,
                },
                Err(why) => Report::of(why, self.clock.now()),
            };
            let written = report.scaled.as_ref().and_then(|scaled| scaled.written);
            memory.resized = written.or(memory.resized);
            report.last_scale = memory.resized;
            let _place = self.writing.acquire().await;
            self.source.report(vec![(target.key.clone(), report)]).await;
        };
        tokio::time::timeout(self.config.round_limit, work).await
    }

    /// Decides, writes, and reports both. None: somebody else was first, and it is decided anew.
    async fn scale_without_sleeper(&self, target: &Target, numbers: &Numbers) -> Option<Report> {
        let (readings, now) = (numbers.readings(), self.clock.now());
        let scaled = recommend(target, &Seen::of_scale(numbers.seen(&readings), now)).scaled?;
        let active = numbers::active(&scaled);
        let decision = scaled.decision;
        tracing::debug!(resource = %target.key, "{decision}");
        let Resized { able, written } = self.resize(target, None, &decision, numbers).await?;
        let update = StatusUpdate {
            conditions: active.into_iter().chain([able]).collect(),
            ..StatusUpdate::default()
        };
        Some(Report {
            scaled: Some(NumberDecided { decision, written }),
            ..Report::of(update, now)
        })
    }
}

/// What became of a number of replicas.
struct Resized {
    /// Whether it could be written, where it had to be.
    able: ConditionUpdate,
    /// When it was, if it was just now.
    written: Option<Timestamp>,
}
