//! A deleted Sleeper leaves nothing behind, whatever it was doing.

use dormouse_lifecycle::{DesiredState, Listed, Observation, Selector, Step, WaitReason};
use dormouse_model::Phase;
use rstest::rstest;

use crate::fixture::*;

fn deleted(phase: Phase, desired: DesiredState) -> Observation {
    Observation {
        deleting: true,
        ..seen(phase, desired)
    }
}

#[rstest]
fn what_is_diverted_wakes_first(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
    #[values(DesiredState::Observed, DesiredState::Asleep, DesiredState::Awake)] desired: DesiredState,
) {
    assert_eq!(
        rolls_back(&deleted(phase, desired)),
        "the Sleeper is being deleted"
    );
}

#[rstest]
fn what_is_awake_just_goes(
    #[values(DesiredState::Awake, DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState,
) {
    assert_eq!(steps(&deleted(Phase::Awake, desired)), [Step::RemoveFinalizer]);
}

#[test]
fn waking_restores_scales_and_fences_before_the_dlx_leaves() {
    let mut leaving = deleted(Phase::Waking, DesiredState::Awake);
    park(&mut leaving);
    leaving.services[0].listed = Listed::Nothing;
    leaving.workloads[0].replicas = 0;
    assert_eq!(
        steps(&leaving),
        [Step::RestoreSelector("web".into()), Step::Scale(web(), 3)]
    );

    leaving.services[0].selector = Some(Selector::Pods(labels()));
    leaving.workloads[0].replicas = 3;
    leaving.workloads[0].fence = None;
    leaving.services[0].fence = None;
    assert_eq!(
        steps(&leaving),
        [Step::Fence(web(), EPOCH), Step::FenceService("web".into(), EPOCH)]
    );

    leaving.services[0].fence = Some(EPOCH);
    leaving.workloads[0].fence = Some(EPOCH);
    assert_eq!(waits(&leaving), (WaitReason::NotListed, Some(in_secs(20))));

    leaving.services[0].listed = Listed::ReadyPods;
    leaving.ready_pod = false;
    assert_eq!(
        waits(&leaving),
        (WaitReason::NoReadyPod, Some(in_secs(20))),
        "those may be old ones"
    );

    leaving.ready_pod = true;
    assert_eq!(steps(&leaving), [Step::DeleteSlice("web".into())]);

    leaving.services[0].own_slice = None;
    assert_eq!(phase_after(&leaving), Phase::Awake);
}

/// The DLX closes its ports when the Sleeper has gone, and nodes take a moment to hear that it has left.
#[test]
fn it_stays_until_nodes_have_followed() {
    let mut left = deleted(Phase::Awake, DesiredState::Awake);
    left.state.since = Some(ago(4));
    assert_eq!(waits(&left), (WaitReason::Grace, Some(in_secs(1))));
    left.state.since = Some(ago(5));
    assert_eq!(steps(&left), [Step::RemoveFinalizer]);
    left.state.since = None;
    assert_eq!(steps(&left), [Step::RemoveFinalizer], "it was never away");

    let mut gone = deleted(Phase::Ready, DesiredState::Awake);
    gone.services[0].own_slice = None;
    gone.services[0].selector = None;
    assert_eq!(steps(&gone), [Step::RemoveFinalizer], "nobody is led anywhere");
}

#[test]
fn it_does_not_wait_for_ever_for_pods() {
    let mut leaving = deleted(Phase::Waking, DesiredState::Awake);
    leaving.services[0].listed = Listed::Nothing;
    leaving.state.since = Some(ago(29));
    assert_eq!(waits(&leaving), (WaitReason::NotListed, Some(in_secs(1))));
    leaving.ready_pod = false;
    assert_eq!(waits(&leaving), (WaitReason::NoReadyPod, Some(in_secs(1))));
    leaving.state.since = Some(ago(30));
    assert_eq!(steps(&leaving), [Step::DeleteSlice("web".into())]);
}

#[test]
fn only_services_with_pods_are_left_at_first() {
    let mut leaving = deleted(Phase::Waking, DesiredState::Awake);
    leaving.services.push(service("api", Selector::Pods(labels())));
    leaving.services[1].fence = Some(EPOCH);
    give_slice(&mut leaving);
    leaving.services[1].listed = Listed::Nothing;
    assert_eq!(steps(&leaving), [Step::DeleteSlice("web".into())]);
}

#[test]
fn ready_is_not_a_trap() {
    let mut leaving = deleted(Phase::Ready, DesiredState::Awake);
    assert_eq!(steps(&leaving), [Step::DeleteSlice("web".into())]);
    leaving.services[0].own_slice = None;
    assert_eq!(phase_after(&leaving), Phase::Awake);
    park(&mut leaving);
    assert_eq!(steps(&leaving), [Step::RestoreSelector("web".into())]);
}

#[rstest]
fn it_needs_no_dlx(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut leaving = deleted(phase, DesiredState::Asleep);
    leaving.dlx = dlx(&[]);
    rolls_back(&leaving);
}

#[test]
fn a_workload_that_was_at_zero_before_stays_there() {
    let mut leaving = deleted(Phase::Awake, DesiredState::Awake);
    leaving.workloads[0].replicas = 0;
    assert_eq!(steps(&leaving), [Step::RemoveFinalizer]);
}
