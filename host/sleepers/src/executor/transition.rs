//! What a transition of a Sleeper reports: conditions, Events and metrics.

use std::time::Duration;

use dormouse_kubernetes::EventType;
use dormouse_lifecycle::{DesiredState, SleeperState};
use dormouse_model::Phase;

use crate::api::condition;
use crate::conditions::ConditionUpdate;

/// The conditions, the Event and the counts that go with a change of state.
#[derive(Debug, Default)]
pub(super) struct TransitionReport {
    pub(super) conditions: Vec<ConditionUpdate>,
    pub(super) event: Option<(EventType, &'static str, String)>,
    pub(super) slept: bool,
    pub(super) woken: Option<Duration>,
    pub(super) wake_failed: bool,
}

impl TransitionReport {
    /// `obstacle` says which Service cannot be diverted, if so.
    pub(super) fn of(old: &SleeperState, new: &SleeperState, obstacle: Option<&str>) -> Self {
        let mut report = Self::default();
        if let Some(failure) = new
            .wake_failure
            .as_ref()
            .filter(|_| new.wake_failure != old.wake_failure)
        {
            report.wake_failed = true;
            report.conditions.push(ConditionUpdate::bad(
                condition::WAKEABLE,
                "WakeFailed",
                &failure.message,
            ));
            report.event = Some((EventType::Warning, "WakeFailed", failure.message.clone()));
        }
        if old.desired != DesiredState::Awake
            && new.desired == DesiredState::Awake
            && new.phase == Phase::Awake
        {
            report.conditions.push(ConditionUpdate::bad(
                condition::DIVERTIBLE,
                "Undivertible",
                &new.reason,
            ));
            report.event = Some((EventType::Warning, "Refused", new.reason.clone()));
        }
        // A Service was diverted and cannot be any more, so the resource wakes.
        if let Some(why) = obstacle.filter(|_| old.phase.is_away() && new.phase == Phase::Waking) {
            report
                .conditions
                .push(ConditionUpdate::bad(condition::DIVERTIBLE, "Undivertible", why));
            report.event = Some((EventType::Warning, "Undivertible", why.to_owned()));
        }
        match (old.phase, new.phase) {
            (Phase::Diverting, Phase::Observing) => report
                .conditions
                .push(ConditionUpdate::good(condition::DIVERTIBLE)),
            (Phase::Draining, Phase::Asleep) => {
                report.slept = true;
                report.event = Some((EventType::Normal, "Asleep", new.reason.clone()));
            }
            (Phase::Waking, Phase::Ready) => {
                let span = new
                    .wake_started
                    .zip(new.wake_completed)
                    .map(|(from, to)| to.duration_since(from));
                let took = span
                    .and_then(|span| Duration::try_from(span).ok())
                    .unwrap_or_default();
                report.conditions.push(ConditionUpdate::good(condition::WAKEABLE));
                // Nothing was scaled to zero: the end of an observation, or of a sleep that was rolled back, is no Event.
                if !new.replicas.is_empty() {
                    report.woken = Some(took);
                    let text = format!("awake after {} ms: {}", took.as_millis(), new.reason);
                    report.event = Some((EventType::Normal, "Woken", text));
                }
            }
            _ => {}
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_model::ObjectRef;
    use jiff::Timestamp;

    #[test]
    fn a_wake_from_zero_is_news_and_a_look_that_ended_is_not() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let waking = SleeperState {
            phase: Phase::Waking,
            wake_started: Some(at(1)),
            ..SleeperState::default()
        };
        let ready = SleeperState {
            phase: Phase::Ready,
            wake_completed: Some(at(3)),
            ..waking.clone()
        };
        assert!(TransitionReport::of(&waking, &ready, None).woken.is_none());
        let recorded = vec![dormouse_lifecycle::WorkloadReplicas {
            workload: ObjectRef::default(),
            replicas: 2,
        }];
        let (waking, ready) = (
            SleeperState {
                replicas: recorded.clone(),
                ..waking
            },
            SleeperState {
                replicas: recorded,
                ..ready
            },
        );
        assert_eq!(
            TransitionReport::of(&waking, &ready, None).woken,
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn a_refusal_names_its_cause() {
        let requested = SleeperState {
            desired: DesiredState::Asleep,
            ..SleeperState::default()
        };
        let refused = SleeperState {
            desired: DesiredState::Awake,
            reason: "Service web is headless".into(),
            ..requested.clone()
        };
        let report = TransitionReport::of(&requested, &refused, None);
        assert_eq!(
            report.event.map(|(_, reason, text)| (reason, text)),
            Some(("Refused", refused.reason))
        );
        assert_eq!(report.conditions[0].kind, condition::DIVERTIBLE);
    }

    #[test]
    fn field_16_a_wake_for_a_service_that_cannot_be_diverted_any_more_names_it() {
        let asleep = SleeperState {
            phase: Phase::Asleep,
            desired: DesiredState::Asleep,
            ..SleeperState::default()
        };
        let waking = SleeperState {
            phase: Phase::Waking,
            ..SleeperState::default()
        };
        let report = TransitionReport::of(&asleep, &waking, Some("Service web is headless"));
        assert_eq!(report.conditions[0].kind, condition::DIVERTIBLE);
        assert!(!report.conditions[0].status);
        assert_eq!(report.event.map(|(_, reason, _)| reason), Some("Undivertible"));
        assert!(TransitionReport::of(&asleep, &waking, None).event.is_none());
    }
}
