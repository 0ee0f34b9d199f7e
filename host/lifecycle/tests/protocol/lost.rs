//! State that is lost is derived again from what is left on the objects.

use dormouse_lifecycle::{
    DesiredState, Next, Observation, Selector, SleeperState, Step, WaitReason, WorkloadReplicas, next,
};
use dormouse_model::Phase;
use rstest::rstest;

use crate::fixture::*;

/// A new Sleeper beside what a phase of the old one left.
fn anew(phase: Phase) -> Observation {
    let mut seen = seen(phase, DesiredState::Asleep);
    seen.state = SleeperState::default();
    seen.carried = EPOCH;
    seen.workloads[0].fence = None;
    seen.services[0].fence = None;
    // Slices go with their Sleeper.
    seen.services[0].own_slice = None;
    if phase == Phase::Asleep {
        seen.workloads[0].noted = Some(3);
    }
    seen
}

fn to_restore() -> Vec<WorkloadReplicas> {
    vec![WorkloadReplicas {
        workload: web(),
        replicas: 3,
    }]
}

#[test]
fn chaos_1_a_new_sleeper_goes_on_sleeping() {
    let state = written(&anew(Phase::Asleep));
    assert_eq!(
        (state.phase, state.desired),
        (Phase::Asleep, DesiredState::Asleep)
    );
    assert!(state.epoch > EPOCH, "nothing of before fits this generation");
    assert_eq!(state.replicas, to_restore());
    assert!(state.zero_observed);
    assert_eq!(state.selectors[0].labels, labels());
}

#[test]
fn chaos_1_without_its_note_at_least_one_replica_comes_back() {
    let mut seen = anew(Phase::Asleep);
    seen.workloads[0].noted = None;
    assert_eq!(written(&seen).replicas[0].replicas, 1);
    seen.workloads[0].autoscaler_minimum = Some(2);
    assert_eq!(written(&seen).replicas[0].replicas, 2);
}

#[test]
fn chaos_1_what_had_begun_to_wake_wakes() {
    let mut seen = anew(Phase::Asleep);
    seen.services[0].selector = Some(Selector::Pods(labels()));
    let state = written(&seen);
    assert_eq!((state.phase, state.desired), (Phase::Waking, DesiredState::Awake));
    assert!(state.epoch > EPOCH);
    assert_eq!(state.replicas, to_restore());
    assert_eq!(state.wake_started, Some(now()));
}

#[rstest]
fn chaos_1_what_was_diverted_only_is_given_back(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining)] phase: Phase,
) {
    let state = written(&anew(phase));
    assert_eq!(state.phase, Phase::Ready);
    assert!(state.epoch >= EPOCH);
}

#[rstest]
fn chaos_1_a_status_that_was_wiped_is_no_different(
    #[values(DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState,
) {
    let mut seen = anew(Phase::Asleep);
    give_slice(&mut seen);
    seen.state.desired = desired;
    assert_eq!(phase_after(&seen), Phase::Asleep);
}

#[test]
fn chaos_1_a_sleeper_that_goes_at_once_restores_what_an_earlier_one_left() {
    let mut seen = anew(Phase::Asleep);
    seen.deleting = true;
    seen.services[0].selector = Some(Selector::Pods(labels()));
    let state = written(&seen);
    assert_eq!(state.phase, Phase::Waking);
    seen.state = state;
    assert!(steps(&seen).contains(&Step::Scale(web(), 3)));
}

#[test]
fn chaos_1_zero_without_any_mark_is_somebody_elses() {
    let mut seen = seen(Phase::Awake, DesiredState::Awake);
    seen.workloads[0].replicas = 0;
    assert!(settled(&seen));
}

#[test]
fn the_epoch_does_not_begin_below_what_objects_carry() {
    let mut seen = seen(Phase::Awake, DesiredState::Asleep);
    seen.state.ports = vec![port("web", 20_000)];
    seen.carried = EPOCH + 7;
    let state = written(&seen);
    assert_eq!((state.phase, state.epoch), (Phase::Diverting, EPOCH + 7));
}

// selectors

#[rstest]
fn field_18_a_selector_that_is_known_from_elsewhere_is_kept_again(
    #[values(Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut seen = seen(phase, DesiredState::Asleep);
    seen.services[0].kept = false;
    assert_eq!(steps(&seen), [Step::ParkSelector("web".into())]);
}

#[test]
fn field_18_selectors_are_recorded_before_they_are_parked() {
    let mut seen = seen(Phase::Awake, DesiredState::Asleep);
    seen.state.ports = vec![port("web", 20_000)];
    assert_eq!(written(&seen).selectors[0].labels, labels());
    let mut asleep = crate::fixture::seen(Phase::Asleep, DesiredState::Asleep);
    asleep.state.selectors.clear();
    assert_eq!(
        written(&asleep).selectors[0].service,
        "web",
        "one that an older version left"
    );
}

#[rstest]
fn field_18_what_cannot_be_derived_wakes_with_what_to_do(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut seen = seen(phase, DesiredState::Asleep);
    seen.services[0].selector = Some(Selector::Lost);
    assert!(rolls_back(&seen).contains("set the selector by hand"));
}

#[test]
fn chaos_4_replicas_return_and_whoever_waits_is_told_at_once() {
    let mut seen = seen(Phase::Asleep, DesiredState::Asleep);
    seen.services[0].selector = Some(Selector::Lost);
    seen.state.phase = Phase::Waking;
    seen.state.desired = DesiredState::Awake;
    seen.state.wake_started = Some(now());
    assert_eq!(steps(&seen), [Step::Scale(web(), 3)]);
    seen.workloads[0].replicas = 3;
    seen.workloads[0].fence = Some(EPOCH);
    give_slice(&mut seen);
    let state = written(&seen);
    let failure = state.current_wake_failure().unwrap();
    assert!(
        failure.message.contains("set the selector by hand"),
        "{}",
        failure.message
    );
    seen.state = state;
    assert_eq!(waits(&seen), (WaitReason::Lost, None), "no endless writes");
    seen.now = in_secs(5);
    assert_eq!(
        written(&seen).wake_failure.map(|failure| failure.at),
        Some(in_secs(5)),
        "whoever begins to wait later is told too"
    );
    seen.services[0].selector = Some(Selector::Pods(labels()));
    seen.services[0].fence = Some(EPOCH);
    seen.ready_pod = true;
    assert_eq!(phase_after(&seen), Phase::Ready, "somebody has set it by hand");
}

#[rstest]
fn a_selector_that_is_lost_is_never_passed_over_in_silence(
    #[values(Phase::Awake, Phase::Ready, Phase::Waking)] phase: Phase,
    #[values(false, true)] deleting: bool,
) {
    let mut seen = seen(phase, DesiredState::Awake);
    seen.deleting = deleting;
    seen.services[0].selector = Some(Selector::Lost);
    for _ in 0..4 {
        match next(&seen, &timings()) {
            Next::Act(steps) => match &steps[..] {
                [Step::SetState(state)] => seen.state = (**state).clone(),
                others => panic!("{others:?}"),
            },
            Next::Wait { reason, .. } => {
                assert_eq!(reason, WaitReason::Lost);
                assert!(seen.state.current_wake_failure().is_some());
                return;
            }
        }
    }
    panic!("{:?}", seen.state);
}

// ports

#[rstest]
fn a_port_of_an_older_claim_is_replaced(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut seen = seen(phase, DesiredState::Asleep);
    seen.lost_ports = vec![20_000];
    assert_eq!(
        steps(&seen),
        [Step::AllocatePorts(vec![("web".into(), "http".into(), 80)])]
    );
}
