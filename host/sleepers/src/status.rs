//! The status of Sleepers beside the protocol: decisions, conditions, failed wakes, and the phase of resources that their platform
//! scales.

use std::sync::Arc;

use dormouse_kubernetes::{ClusterError, EventType};
use dormouse_lifecycle::{DesiredState, SleeperState, WakeFailure};
use dormouse_model::Phase;
use jiff::{SignedDuration, Timestamp};

use crate::api::{LastDecision, ScalingStatus, Sleeper, SleeperStatus, condition};
use crate::caches::Caches;
use crate::conditions::{self, ConditionUpdate};
use crate::events::SleeperEvents;
use crate::writer::{Edit, SleeperWriter};
use crate::{Metrics, SleeperKey};

/// A failed wake with the same text is recorded again no sooner than this. A request that begins to wait needs a failure that is
/// newer than its wait.
const FAILURE_REFRESH: SignedDuration = SignedDuration::from_secs(1);

/// What the autoscaler has to say about a Sleeper.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusUpdate {
    /// Whether it is idle, if that was decided.
    pub decision: Option<LastDecision>,
    /// How many replicas it should have, if that was decided.
    pub scaling: Option<ScalingStatus>,
    /// Nothing decides how many replicas it should have any more.
    pub clears_scaling: bool,
    /// What holds for it, and what does not.
    pub conditions: Vec<ConditionUpdate>,
}

impl From<ConditionUpdate> for StatusUpdate {
    fn from(condition: ConditionUpdate) -> Self {
        Self {
            conditions: vec![condition],
            ..Self::default()
        }
    }
}

impl StatusUpdate {
    /// Whether its decisions say something new.
    pub fn is_news(&self, known: &SleeperStatus) -> bool {
        let outcome = |decision: &LastDecision| {
            let last = known.last_decision.as_ref();
            last.is_none_or(|last| last.outcome != decision.outcome)
        };
        let number = |scaling: &ScalingStatus| {
            let last = known.scaling.as_ref();
            last.is_none_or(|last| !last.is_same(scaling))
        };
        self.decision.as_ref().is_some_and(outcome)
            || self.scaling.as_ref().is_some_and(number)
            || (self.clears_scaling && known.scaling.is_some())
    }

    fn write(&self, status: &mut SleeperStatus) {
        if let Some(decision) = &self.decision {
            status.last_decision = Some(decision.clone());
        }
        if self.clears_scaling {
            status.scaling = None;
        }
        if let Some(scaling) = &self.scaling {
            status.scaling = Some(scaling.clone());
        }
    }
}

/// Records in the status of Sleepers. Cheap to clone.
#[derive(Clone)]
pub struct StatusRecorder {
    caches: Arc<Caches>,
    writer: SleeperWriter,
    events: SleeperEvents,
    metrics: Metrics,
}

impl StatusRecorder {
    pub(crate) fn new(
        caches: Arc<Caches>,
        writer: SleeperWriter,
        events: SleeperEvents,
        metrics: Metrics,
    ) -> Self {
        Self {
            caches,
            writer,
            events,
            metrics,
        }
    }

    /// Records what the autoscaler decided and what holds, if something about it is new.
    ///
    /// # Errors
    /// What the API server says. A missing Sleeper is no error.
    pub async fn record(&self, key: &SleeperKey, update: &StatusUpdate) -> Result<(), ClusterError> {
        self.writer
            .edit(key, true, |sleeper| {
                let (mut status, changed) = with_conditions(sleeper, &update.conditions, Timestamp::now());
                if !changed && !update.is_news(&status) {
                    return Ok::<_, ClusterError>(Edit::Keep(()));
                }
                update.write(&mut status);
                Ok(Edit::Write(Box::new(status), ()))
            })
            .await
            .map(|_| ())
    }

    /// Records why the wake of an epoch does not succeed. Cleared by the protocol when it does. A wake of another epoch is not touched.
    ///
    /// # Errors
    /// What the API server says. A missing Sleeper is no error.
    pub async fn record_wake_failure(
        &self,
        key: &SleeperKey,
        epoch: i64,
        message: &str,
    ) -> Result<(), ClusterError> {
        let update = ConditionUpdate::bad(condition::WAKEABLE, "WakeFailed", message);
        let first = self
            .writer
            .edit(key, false, |sleeper| {
                let now = Timestamp::now();
                let (mut status, _) = with_conditions(sleeper, std::slice::from_ref(&update), now);
                let state = &mut status.state;
                if state.epoch != epoch || state.phase != Phase::Waking {
                    return Ok::<_, ClusterError>(Edit::Keep(false));
                }
                let known = state
                    .wake_failure
                    .as_ref()
                    .filter(|f| f.epoch == epoch && f.message == message);
                if known.is_some_and(|failure| now.duration_since(failure.at) < FAILURE_REFRESH) {
                    return Ok(Edit::Keep(false));
                }
                let first = known.is_none();
                state.wake_failure = Some(WakeFailure {
                    epoch,
                    message: message.to_owned(),
                    at: now,
                });
                Ok(Edit::Write(Box::new(status), first))
            })
            .await?;
        if first == Some(true) {
            self.metrics.wake_failed();
            if let Some(sleeper) = self.caches.sleeper(key) {
                self.events
                    .publish(&sleeper, EventType::Warning, "WakeFailed", message);
            }
        }
        Ok(())
    }

    /// Shows the phase of a resource whose platform scales it by itself (no workloads and no Services in its spec).
    ///
    /// # Errors
    /// What the API server says. A missing Sleeper is no error.
    pub async fn mirror_phase(
        &self,
        key: &SleeperKey,
        phase: Phase,
        reason: &str,
    ) -> Result<(), ClusterError> {
        self.writer
            .edit(key, true, |sleeper| {
                let status = sleeper.status.clone().unwrap_or_default();
                Ok::<_, ClusterError>(match mirrored(&status.state, phase, reason, Timestamp::now()) {
                    None => Edit::Keep(()),
                    Some(state) => Edit::Write(Box::new(SleeperStatus { state, ..status }), ()),
                })
            })
            .await
            .map(|_| ())
    }
}

/// The status with these conditions, and whether that changed any.
fn with_conditions(sleeper: &Sleeper, updates: &[ConditionUpdate], now: Timestamp) -> (SleeperStatus, bool) {
    let mut status = sleeper.status.clone().unwrap_or_default();
    let changed = conditions::apply(&mut status.conditions, updates, sleeper.metadata.generation, now);
    (status, changed)
}

/// The state of a resource that is scaled by its platform, or none when there is nothing new.
fn mirrored(state: &SleeperState, phase: Phase, reason: &str, now: Timestamp) -> Option<SleeperState> {
    if state.phase == phase {
        return None;
    }
    let mut next = SleeperState {
        phase,
        since: Some(now),
        reason: reason.to_owned(),
        ..state.clone()
    };
    let was_up = matches!(state.phase, Phase::Awake | Phase::Ready | Phase::Waking);
    let is_up = matches!(phase, Phase::Awake | Phase::Ready | Phase::Waking);
    next.desired = if is_up {
        DesiredState::Awake
    } else {
        DesiredState::Asleep
    };
    if is_up && !was_up {
        next.epoch += 1;
        next.wake_started = Some(now);
    }
    match phase {
        Phase::Awake => {
            next.wake_completed = Some(now);
            next.wake_failure = None;
        }
        Phase::Asleep => next.slept = Some(now),
        _ => {}
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirroring_keeps_epochs_and_desired_states_in_step() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let awake = SleeperState::default();
        assert_eq!(mirrored(&awake, Phase::Awake, "same", at(1)), None);
        let asleep = mirrored(&awake, Phase::Asleep, "idle", at(1)).unwrap();
        assert_eq!(
            (asleep.desired, asleep.epoch, asleep.slept),
            (DesiredState::Asleep, 0, Some(at(1)))
        );
        let waking = mirrored(&asleep, Phase::Waking, "request", at(2)).unwrap();
        assert_eq!(
            (waking.desired, waking.epoch, waking.wake_started),
            (DesiredState::Awake, 1, Some(at(2)))
        );
        let awake = mirrored(&waking, Phase::Awake, "up", at(3)).unwrap();
        assert_eq!((awake.epoch, awake.wake_completed), (1, Some(at(3))));
    }
}
