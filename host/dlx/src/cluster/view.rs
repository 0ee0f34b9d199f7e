//! From a Sleeper's state and its pods to what the data plane may do with them.

use std::time::Duration;

use dormouse_kubernetes::PodEndpoint;
use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::{Answers, SleeperState};
use jiff::Timestamp;

use crate::{EndpointsView, FailedWake};

/// What is known of a target's endpoints.
///
/// | phase | wake first | pods |
/// |---|---|---|
/// | Awake | no, and the Service leads to them | all |
/// | Diverting, Observing, Draining | yes; then at once | all |
/// | Asleep | yes | none: what is still there is going |
/// | Waking, Ready | no | after zero, those that are younger than the wake; otherwise all, from Ready on |
///
/// A wake from other than zero does not use pods before it has fenced their workload: until then a scale-down that was
/// decided earlier may still take them away.
pub(super) fn view(
    state: &SleeperState,
    pods: &[PodEndpoint],
    now: Timestamp,
    drain_grace: Duration,
) -> EndpointsView {
    let (asleep, direct) = match state.phase {
        Phase::Awake => (false, true),
        Phase::Waking | Phase::Ready => (false, false),
        Phase::Diverting | Phase::Observing | Phase::Draining | Phase::Asleep => (true, false),
    };
    let answers = answers(state, now, drain_grace);
    let counts = |pod: &&PodEndpoint| match state.phase {
        Phase::Asleep => false,
        Phase::Waking if !state.zero_observed => false,
        _ => answers.is_none_or(|answers| answers.include(pod.created)),
    };
    EndpointsView {
        ready: pods.iter().filter(counts).map(|pod| pod.address).collect(),
        asleep,
        direct,
        fresh: answers.is_some(),
        epoch: state.epoch,
        failure: state.current_wake_failure().map(|failure| FailedWake {
            cause: failure.message.clone(),
            at: failure.at,
        }),
    }
}

/// Which pods count, if that depends on their age: only while a workload comes back from zero.
pub(super) fn answers(state: &SleeperState, now: Timestamp, drain_grace: Duration) -> Option<Answers> {
    let answers = Answers::of(state, now, drain_grace);
    let comes_back = matches!(state.phase, Phase::Waking | Phase::Ready);
    (comes_back && answers.depend_on_age()).then_some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_sleepers::lifecycle::WakeFailure;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pods() -> Vec<PodEndpoint> {
        [(1, 50), (2, 100)]
            .map(|(n, created)| PodEndpoint {
                address: ([127, 0, 0, n], 80).into(),
                pod: n.to_string(),
                uid: n.to_string(),
                created: Some(at(created)),
            })
            .to_vec()
    }

    fn state(phase: Phase, zero_observed: bool) -> SleeperState {
        SleeperState {
            phase,
            zero_observed,
            epoch: 7,
            wake_started: Some(at(100)),
            ..SleeperState::default()
        }
    }

    #[test]
    fn each_phase_has_its_rules() {
        let table = [
            (Phase::Awake, false, (false, true, 2)),
            (Phase::Diverting, false, (true, false, 2)),
            (Phase::Observing, false, (true, false, 2)),
            (Phase::Draining, false, (true, false, 2)),
            (Phase::Asleep, false, (true, false, 0)),
            (Phase::Asleep, true, (true, false, 0)),
            (Phase::Waking, false, (false, false, 0)),
            (Phase::Waking, true, (false, false, 1)),
            (Phase::Ready, true, (false, false, 1)),
        ];
        for (phase, zero_observed, expected) in table {
            let seen = view(&state(phase, zero_observed), &pods(), at(101), Duration::ZERO);
            assert_eq!(
                (seen.asleep, seen.direct, seen.ready.len()),
                expected,
                "{phase:?} {zero_observed}"
            );
            assert_eq!(seen.epoch, 7);
        }
    }

    #[test]
    fn field_11_pods_that_come_back_from_zero_are_fresh() {
        for (phase, zero_observed, fresh) in [
            (Phase::Waking, true, true),
            (Phase::Ready, true, true),
            (Phase::Waking, false, false),
            (Phase::Awake, true, false),
            (Phase::Observing, true, false),
        ] {
            let seen = view(&state(phase, zero_observed), &pods(), at(101), Duration::ZERO);
            assert_eq!(seen.fresh, fresh, "{phase:?} {zero_observed}");
        }
    }

    #[test]
    fn a_failure_of_this_wake_is_shown_and_an_old_one_is_not() {
        let failed = |epoch| SleeperState {
            wake_failure: Some(WakeFailure {
                epoch,
                message: "no image".into(),
                at: at(1),
            }),
            ..state(Phase::Waking, true)
        };
        let cause = |state| {
            view(&state, &[], at(101), Duration::ZERO)
                .failure
                .map(|failure| failure.cause)
        };
        assert_eq!(cause(failed(7)).as_deref(), Some("no image"));
        assert_eq!(cause(failed(6)), None);
    }
}
