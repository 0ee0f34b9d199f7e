//! One run of one target: from its declaration to its report.

mod scale;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{Owner, Phase, Policy, ScaleEvent, ScaleEventKind, Target, TargetState};
use dormouse_plugin::types::FieldCondition;
use dormouse_readings::Meter;
use dormouse_scaling::{Seen, Standing, recommend};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::lifecycle::{DesiredState, SleeperState};
use dormouse_sleepers::{ConditionUpdate, DesiredStateError, Sleeper, StatusUpdate, StoodIn};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::act::{ActError, Actuator, Applied, Lifecycle, Platform};
use crate::config::{Clock, Config};
use crate::declare::declare;
use crate::gather::gather;
use crate::key::sleeper_key;
use crate::metrics::Metrics;
use crate::numbers::{self, Numbers, Remembered};
use crate::report::{self, Report};
use crate::sleepers::{is_going, state};
use crate::{Sleepers, Source};

/// How long what is left at zero is left alone before it is asked again whether it can be stood in for.
const ASK_AT_ZERO_AGAIN: SignedDuration = SignedDuration::from_secs(30);
const DISABLED_MEANS: &str =
    "somebody set it to zero replicas, and nothing changes that until somebody scales it up";
const TURNED_OFF_MEANS: &str = "somebody scaled it to zero replicas, and it is left so (dormouse.dev/at-zero, or --at-zero, is off): \
    no request wakes it; scale it up, or set dormouse.dev/at-zero to stand-in";

/// What all runs of a source need.
pub(crate) struct Context {
    pub owner: Owner,
    pub source: Arc<dyn Source>,
    pub sleepers: Arc<dyn Sleepers>,
    pub meter: Arc<dyn Meter>,
    pub config: Config,
    pub clock: Clock,
    pub metrics: Metrics,
    pub lifecycle: Lifecycle,
    pub platform: Platform,
    /// Writes under way at once, by runs that have their readings.
    pub writing: Arc<Semaphore>,
}

/// What is known of a target from its last run. Hints only: losing them costs one more question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// A field that its source wants watched. What counts is what the source says when it is listed again, so losing this loses the text of
    /// a failure at most.
    watched: Option<FieldCondition>,
    /// It is at zero without us, and when it was asked whether it can be stood in for.
    left_at_zero: Option<Timestamp>,
    /// What was recommended for its number of replicas.
    scaling: Option<Remembered>,
    /// When the number of replicas was last written. A source that remembers it knows it a moment later.
    resized: Option<Timestamp>,
}

/// How a run ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub memory: Memory,
    /// The moment at which the next run may see something else, if it is known.
    pub look_again: Option<Timestamp>,
    /// The phase of its Sleeper.
    pub seen: Option<Phase>,
}

/// Where a Sleeper stands.
fn stands(sleeper: &Sleeper) -> (DesiredState, Phase) {
    let state = state(sleeper);
    (state.desired, state.phase)
}

impl Context {
    /// Runs a target. The place is given back as soon as nothing but readings is waited for: however many wait, others run.
    pub async fn run(&self, target: &Target, mut memory: Memory, place: OwnedSemaphorePermit) -> Ended {
        let limit = self.config.round_limit;
        if !target.has_sleeper {
            drop(place);
            if self.run_without_sleeper(target, &mut memory).await.is_err() {
                return late(limit, target, memory);
            }
            return Ended {
                memory,
                ..Ended::default()
            };
        }
        let prepared = async {
            let sleeper = self.prepare(target, &mut memory).await?;
            let wakes = self.wake_when_due(target, &sleeper).await;
            Some((sleeper, wakes))
        };
        let prepared = tokio::time::timeout(limit, prepared).await;
        drop(place);
        let (sleeper, wakes) = match prepared {
            Ok(Some(prepared)) => prepared,
            Ok(None) => {
                return Ended {
                    memory,
                    ..Ended::default()
                };
            }
            Err(_) => return late(limit, target, memory),
        };
        let seen = Some(state(&sleeper).phase);
        let ended = if is_up(target, &sleeper) {
            self.decide(target, &sleeper, &mut memory).await
        } else if let Some(policy) = numbers::woken_by_demand(target, &sleeper) {
            self.scale_up_to_demand(target, policy, &sleeper, &mut memory)
                .await
        } else {
            Ok(None)
        };
        let Ok(look_again) = ended else {
            return late(limit, target, memory);
        };
        Ended {
            memory,
            look_again: [look_again, wakes].into_iter().flatten().min(),
            seen,
        }
    }

    /// Wakes what fell asleep before the moment from which on its source wants it awake. The answer is that moment, if it is still to come.
    async fn wake_when_due(&self, target: &Target, sleeper: &Sleeper) -> Option<Timestamp> {
        let wake_at = target.wake_at?;
        let now = self.clock.now();
        if now < wake_at {
            return Some(wake_at);
        }
        let state = state(sleeper);
        let slept_before = state.slept.is_none_or(|slept| slept < wake_at);
        if target.is_platform() || state.desired == DesiredState::Awake || !slept_before || is_going(sleeper)
        {
            return None;
        }
        let reason = target.reason.clone();
        let reason = reason.unwrap_or_else(|| format!("its source wants it awake from {wake_at} on"));
        let _place = self.writing.acquire().await;
        if let Err(error) = self.sleepers.wake(&sleeper_key(&target.key), &reason).await {
            tracing::warn!(resource = %target.key, "not woken at {wake_at}: {error}");
        }
        None
    }

    /// Everything before the readings. None: it has no Sleeper, so there is nothing to decide.
    async fn prepare(&self, target: &Target, memory: &mut Memory) -> Option<Arc<Sleeper>> {
        let sleeper = match declare(&*self.sleepers, target).await {
            Ok(sleeper) => sleeper,
            Err(error) => {
                tracing::warn!(owner = %self.owner, resource = %target.key, "no Sleeper: {error}");
                return None;
            }
        };
        // What is still diverted goes by the protocol until it is restored, whatever its source says.
        if target.is_platform() && sleeper.spec.scales_itself() {
            self.platform.mirror(target, &sleeper).await;
        }
        self.stand_in(target, &sleeper, memory).await;
        self.watch(target, &sleeper, memory).await;
        if !is_up(target, &sleeper) && target.state != TargetState::Changing {
            // Nothing is decided about it now; others say it with their decision.
            self.report(target, ConditionUpdate::good(condition::PLUGIN))
                .await;
        }
        Some(sleeper)
    }

    /// Zero is zero, whoever made it: what is at zero without us is put to sleep, so that a request wakes it; or its Sleeper says
    /// why not.
    async fn stand_in(&self, target: &Target, sleeper: &Sleeper, memory: &mut Memory) {
        let now = self.clock.now();
        if never_sleeps(target) {
            if is_at_zero_without_us(target, sleeper) {
                let update =
                    ConditionUpdate::bad(condition::SCALING_ACTIVE, "ScalingDisabled", DISABLED_MEANS);
                self.report(target, update).await;
            }
            return;
        }
        if !is_at_zero_without_us(target, sleeper) {
            memory.left_at_zero = None;
            // What was turned on again, or is asleep by the protocol, can be woken.
            if says_turned_off(sleeper) {
                self.report(target, ConditionUpdate::good(condition::WAKEABLE))
                    .await;
            }
            return;
        }
        let is_early = |asked: &Timestamp| now.duration_since(*asked) < ASK_AT_ZERO_AGAIN;
        if memory.left_at_zero.as_ref().is_some_and(is_early) {
            return;
        }
        memory.left_at_zero = None;
        let update = match self.sleepers.stand_in(&sleeper_key(&target.key)).await {
            Ok(StoodIn::TurnedOff) => {
                ConditionUpdate::bad(condition::WAKEABLE, "TurnedOff", TURNED_OFF_MEANS)
            }
            Err(DesiredStateError::Unsupported(why) | DesiredStateError::Denied(why)) => {
                let message = format!("it is at zero replicas, and nothing stands in for it: {why}");
                ConditionUpdate::bad(condition::DIVERTIBLE, "Undivertible", message)
            }
            Ok(StoodIn::Requested(_) | StoodIn::NotAtZero)
            | Err(DesiredStateError::Superseded | DesiredStateError::Unknown(_)) => return,
            Err(DesiredStateError::Cluster(error)) => {
                tracing::warn!(resource = %target.key, "at zero, and nothing stands in yet: {error}");
                return;
            }
        };
        memory.left_at_zero = Some(now);
        self.warn(target, sleeper, &update).await;
        self.report(target, update).await;
    }

    /// Reads the field that the source wanted watched. Only a failure is news: success shows in the target's state.
    async fn watch(&self, target: &Target, sleeper: &Sleeper, memory: &mut Memory) {
        if target.state != TargetState::Changing {
            memory.watched = None;
        }
        let Some(watched) = &memory.watched else { return };
        match self.sleepers.field(&target.key.namespace, watched).await {
            Ok(Some(value)) if watched.ready_values.contains(&value) => memory.watched = None,
            Ok(Some(value)) if watched.failed_values.contains(&value) => {
                let message = format!("{} is {value:?}", watched.path);
                let update = ConditionUpdate::bad(condition::PLUGIN, "SleepFailed", message);
                memory.watched = None;
                self.warn(target, sleeper, &update).await;
                self.report(target, update).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(resource = %target.key, "the watched field was not read: {error}");
            }
        }
    }

    /// Reads, recommends, acts and reports. The answer is when to look again.
    async fn decide(
        &self,
        target: &Target,
        sleeper: &Sleeper,
        memory: &mut Memory,
    ) -> Result<Option<Timestamp>, tokio::time::error::Elapsed> {
        let state = state(sleeper);
        let meter = &*self.meter;
        let (inputs, numbers) = futures::join!(
            gather(target, state, meter, &self.metrics, self.clock.now()),
            self.numbers(target, Some(sleeper), memory)
        );
        let (numbers, unscaled) = match numbers {
            Ok(numbers) => (numbers, None),
            Err(update) => (None, Some(update)),
        };
        let readings = numbers.as_ref().map(Numbers::readings).unwrap_or_default();
        let now = self.clock.now();
        let current = self.sleepers.get(&sleeper_key(&target.key));
        if current.is_none_or(|current| stands(&current) != stands(sleeper)) {
            // It moved while it was read for, so the readings are about something else.
            return Ok(Some(now));
        }
        let recommended = recommend(
            target,
            &Seen {
                inputs: &inputs,
                standing: standing(state),
                since: state.since,
                wakes: &wakes(state),
                observe_not_before: state.traffic_check.not_before,
                settle: self.config.settle,
                scale: numbers.as_ref().map(|numbers| numbers.seen(&readings)),
                now,
            },
        );
        let (desired, decision) = (recommended.desired, &recommended.decision);
        tracing::debug!(resource = %target.key, ?desired, "{decision}");
        self.metrics.decision(&self.owner, decision.outcome());
        let acted = async {
            let (mut update, mut number) = (StatusUpdate::default(), None);
            let actuator: &dyn Actuator = if target.is_platform() {
                &self.platform
            } else {
                &self.lifecycle
            };
            let applied = actuator.apply(target, desired, &recommended.reason).await;
            match applied {
                Ok(Applied::Watch(field)) => memory.watched = Some(field),
                Ok(Applied::Observed) => update
                    .conditions
                    .push(ConditionUpdate::good(condition::DIVERTIBLE)),
                Ok(Applied::Unchanged | Applied::Asked | Applied::Awake) => {}
                Err(error) => update
                    .conditions
                    .extend(error_condition(&self.owner, target, &error)),
            }
            let mut readings = report::readings(&inputs);
            match (&recommended.scaled, &numbers, unscaled) {
                (Some(scaled), Some(numbers), _) => {
                    number = self
                        .scale(target, sleeper, scaled, numbers, memory, &mut update)
                        .await;
                    if readings.status && matches!(target.policy, Policy::Metrics(_)) {
                        readings = numbers::failed_metric(scaled).unwrap_or(readings);
                    }
                }
                (_, _, Some(unscaled)) => update.conditions.push(unscaled),
                _ if target.policy == Policy::Idle => {
                    update.clears_scaling = true;
                    update.conditions.extend(numbers::undecided());
                    memory.scaling = None;
                }
                _ => {}
            }
            // Without a trigger nothing is read to learn whether it is idle, and nothing has to be said about it.
            if !target.triggers.is_empty() || target.policy == Policy::Idle {
                update.decision = Some(report::last_decision(decision, &inputs, target, now));
            }
            update.conditions.push(readings);
            if !update
                .conditions
                .iter()
                .any(|known| known.kind == condition::PLUGIN)
            {
                update.conditions.push(report::described(target));
            }
            let report = Report {
                scaled: number,
                last_scale: memory.resized,
                ..Report::of(update, now)
            };
            self.say(target, sleeper, report).await;
        };
        tokio::time::timeout(self.config.round_limit, acted).await?;
        Ok(recommended.look_again)
    }
}

/// What a failure says about its target, if it says anything.
fn error_condition(owner: &Owner, target: &Target, error: &ActError) -> Option<ConditionUpdate> {
    if let ActError::Cluster(error) = error {
        tracing::warn!(%owner, resource = %target.key, "a desired state was not written: {error}");
    }
    error.condition()
}

fn late(limit: Duration, target: &Target, memory: Memory) -> Ended {
    tracing::error!(resource = %target.key, "a run did not end within {limit:?}");
    Ended {
        memory,
        ..Ended::default()
    }
}

/// Whether there is anything to decide: it is up, and nothing is about to change that but us.
fn is_up(target: &Target, sleeper: &Sleeper) -> bool {
    target.state == TargetState::Awake
        && !is_going(sleeper)
        && (target.is_platform()
            || matches!(
                stands(sleeper),
                (DesiredState::Awake, Phase::Awake)
                    | (
                        DesiredState::Observed | DesiredState::Asleep,
                        Phase::Awake | Phase::Diverting | Phase::Observing | Phase::Draining
                    )
            ))
}

/// Whether it is only scaled while it is up: nothing puts it to sleep, and no traffic would wake it.
fn never_sleeps(target: &Target) -> bool {
    target.policy != Policy::Idle && target.triggers.is_empty() && target.wake_on.is_empty()
}

/// Whether it is at zero without us: its source calls it asleep, but the protocol did not put it to sleep. What is scaled by
/// its platform is not meant.
fn is_at_zero_without_us(target: &Target, sleeper: &Sleeper) -> bool {
    let (desired, phase) = stands(sleeper);
    target.state == TargetState::Asleep
        && !target.is_platform()
        && !is_going(sleeper)
        && desired != DesiredState::Asleep
        && matches!(phase, Phase::Awake | Phase::Diverting | Phase::Observing)
}

fn says_turned_off(sleeper: &Sleeper) -> bool {
    let status = sleeper.status.iter();
    let mut conditions = status.flat_map(|status| &status.conditions);
    conditions.any(|known| {
        known.type_ == condition::WAKEABLE && known.status == "False" && known.reason == "TurnedOff"
    })
}

fn standing(state: &SleeperState) -> Standing {
    let begun = state.phase != Phase::Awake;
    match state.desired {
        DesiredState::Awake if begun => Standing::Waking,
        DesiredState::Awake => Standing::Awake,
        DesiredState::Observed => Standing::Observed { begun },
        DesiredState::Asleep => Standing::Asleep { begun },
    }
}

/// The wakes that a Sleeper remembers.
fn wakes(state: &SleeperState) -> Vec<ScaleEvent> {
    [
        (ScaleEventKind::ScaleFromZeroStarted, state.wake_started),
        (ScaleEventKind::ScaleFromZeroCompleted, state.wake_completed),
    ]
    .into_iter()
    .filter_map(|(kind, at)| Some(ScaleEvent { kind, at: Some(at?) }))
    .collect()
}
