//! Asleep, or anywhere on the way there, back to Awake.

use std::time::Duration;

use dormouse_lifecycle::{
    DesiredState, Dlx, Listed, Observation, Selector, Step, Undivertible, WaitReason, WakeFailure, Workload,
    Zero,
};
use dormouse_model::Phase;
use jiff::Timestamp;
use rstest::rstest;

use crate::fixture::*;

/// Right after a wake of a resource that was asleep.
fn woken() -> Observation {
    let mut woken = seen(Phase::Asleep, DesiredState::Asleep);
    woken.state.phase = Phase::Waking;
    woken.state.desired = DesiredState::Awake;
    // Woken so soon that nobody saw its pods go.
    (woken.state.pods_gone, woken.state.pods_gone_at) = (false, None);
    woken.pods_left = true;
    woken.state.wake_started = Some(ago(1));
    woken.state.since = Some(ago(1));
    woken
}

/// The same, and its pods were gone long before.
fn woken_late() -> Observation {
    let mut woken = woken();
    (woken.state.pods_gone, woken.state.pods_gone_at) = (true, Some(ago(90)));
    woken.pods_left = false;
    woken
}

#[test]
fn selectors_first_then_replicas_then_the_slices_turn() {
    let mut woken = woken_late();
    assert_eq!(
        steps(&woken),
        [Step::RestoreSelector("web".into()), Step::Scale(web(), 3)]
    );

    woken.services[0].selector = Some(Selector::Pods(labels()));
    woken.services[0].fence = Some(EPOCH);
    woken.workloads[0].replicas = 3;
    woken.workloads[0].fence = Some(EPOCH);
    assert_eq!(
        steps(&woken),
        [Step::WriteSlice("web".into())],
        "so that no late delete fits it"
    );

    give_slice(&mut woken);
    assert_eq!(
        woken.services[0].own_slice.as_ref().unwrap().generation,
        Some(2 * EPOCH)
    );
    assert_eq!(waits(&woken), (WaitReason::NoReadyPod, Some(in_secs(119))));
    woken.state.pods_gone = false;
    assert_eq!(
        waits(&woken),
        (WaitReason::NoReadyPod, Some(in_secs(9))),
        "when old pods would count, too"
    );

    woken.ready_pod = true;
    let state = written(&woken);
    assert_eq!((state.phase, state.wake_completed), (Phase::Ready, Some(now())));
}

// what was decided before the wake must not be carried out after it

#[test]
fn a_service_that_was_not_parked_yet_is_fenced() {
    let mut rolled = seen(Phase::Waking, DesiredState::Awake);
    rolled.services[0].fence = Some(EPOCH - 1);
    assert_eq!(steps(&rolled), [Step::FenceService("web".into(), EPOCH)]);
    rolled.services[0].fence = None;
    assert_eq!(steps(&rolled), [Step::FenceService("web".into(), EPOCH)]);
    rolled.services[0].selector = Some(Selector::Undivertible(Undivertible::Headless));
    assert_eq!(phase_after(&rolled), Phase::Ready, "nobody would park that");
}

#[rstest]
#[case::older(Some(EPOCH - 1), true)]
#[case::never(None, true)]
#[case::this(Some(EPOCH), false)]
#[case::newer(Some(EPOCH + 1), false)]
fn a_workload_that_was_not_scaled_down_yet_is_fenced(#[case] fence: Option<i64>, #[case] fences: bool) {
    let mut rolled = seen(Phase::Waking, DesiredState::Awake);
    rolled.workloads[0].fence = fence;
    if fences {
        assert_eq!(steps(&rolled), [Step::Fence(web(), EPOCH)]);
    } else {
        assert_eq!(phase_after(&rolled), Phase::Ready);
    }
}

#[test]
fn a_workload_that_was_never_to_be_scaled_down_needs_no_fence() {
    let mut looked_at = seen(Phase::Waking, DesiredState::Awake);
    looked_at.state.replicas.clear();
    looked_at.workloads[0].fence = None;
    assert_eq!(phase_after(&looked_at), Phase::Ready);
}

#[test]
fn zero_is_noted_before_it_is_undone() {
    let mut woken = woken();
    woken.state.zero_observed = false;
    let steps = steps(&woken);
    let [Step::SetState(state)] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert!(state.zero_observed, "pods of before may still look ready");
    assert_eq!(state.pods_gone_at, None);
    assert_eq!((state.phase, state.epoch), (Phase::Waking, EPOCH));
    woken.pods_left = false;
    assert_eq!(written(&woken).pods_gone_at, Some(now()), "in the same write");
}

// pods of before must not be listed while they go

/// The wake has scaled it up again, and the DLX has turned its slice.
fn scaled_up(woken: &mut Observation) {
    woken.workloads[0].replicas = 3;
    woken.workloads[0].fence = Some(EPOCH);
    give_slice(woken);
}

#[test]
fn a_selector_stays_parked_while_pods_of_before_are_left() {
    let mut woken = woken();
    assert_eq!(steps(&woken), [Step::Scale(web(), 3)], "the wake goes on");

    scaled_up(&mut woken);
    assert_eq!(waits(&woken), (WaitReason::NoReadyPod, Some(in_secs(9))));
    woken.ready_pod = true;
    assert_eq!(
        waits(&woken),
        (WaitReason::PodsLeaving, Some(in_secs(9))),
        "the DLX forwards meanwhile"
    );
    woken.deleting = true;
    assert_eq!(waits(&woken), (WaitReason::PodsLeaving, Some(in_secs(9))));
    woken.state.wake_started = Some(ago(10));
    assert_eq!(
        steps(&woken),
        [Step::RestoreSelector("web".into())],
        "they were kept"
    );
}

#[rstest]
#[case::just_now(ago(0), 3)]
#[case::a_second_ago(ago(1), 2)]
#[case::by_a_clock_that_is_ahead(in_secs(600), 9)]
fn a_selector_stays_parked_until_whoever_writes_slices_knows_that_they_are_gone(
    #[case] gone: Timestamp,
    #[case] seconds: i64,
) {
    let mut woken = woken_late();
    woken.state.pods_gone_at = Some(gone);
    assert_eq!(steps(&woken), [Step::Scale(web(), 3)]);
    scaled_up(&mut woken);
    woken.ready_pod = true;
    assert_eq!(waits(&woken), (WaitReason::PodsLeaving, Some(in_secs(seconds))));
    woken.state.pods_gone_at = Some(ago(3));
    assert_eq!(steps(&woken), [Step::RestoreSelector("web".into())]);
}

#[test]
fn a_wake_notes_when_pods_of_before_are_gone_and_waits_from_then_on() {
    let mut woken = woken();
    woken.pods_left = false;
    let steps = steps(&woken);
    let [Step::Scale(..), Step::SetState(state)] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(
        state.pods_gone_at,
        Some(now()),
        "with the scale-up, not before it"
    );
    scaled_up(&mut woken);
    woken.state = written(&woken);
    woken.ready_pod = true;
    assert_eq!(waits(&woken), (WaitReason::PodsLeaving, Some(in_secs(3))));
}

#[test]
fn where_no_dlx_stands_in_a_pod_that_goes_is_better_than_nobody() {
    let mut woken = woken();
    woken.services[0].own_slice = None;
    assert_eq!(steps(&woken)[0], Step::RestoreSelector("web".into()));
    give_slice(&mut woken);
    woken.services[0].own_slice.as_mut().unwrap().generation = None;
    assert_eq!(
        steps(&woken)[0],
        Step::RestoreSelector("web".into()),
        "it leads to a DLX that knows another Sleeper"
    );
    give_slice(&mut woken);
    woken.dlx = dlx(&[]);
    assert_eq!(steps(&woken)[0], Step::RestoreSelector("web".into()));
}

#[test]
fn a_selector_goes_back_after_a_scale_down_that_is_under_way_can_not_land_any_more() {
    let mut woken = woken();
    woken.state.zero_observed = false;
    woken.workloads[0].replicas = 3;
    woken.workloads[0].fence = None;
    let mut steps = steps(&woken);
    let Some(Step::SetState(state)) = steps.pop() else {
        panic!("{steps:?}")
    };
    assert_eq!(
        steps,
        [Step::Fence(web(), EPOCH), Step::RestoreSelector("web".into())],
        "in this order: one that fails ends it"
    );
    assert_eq!(state.slept, None, "the last of them says that it has lost");
}

// which replicas come back

#[rstest]
#[case::recorded(None, None, Some(3), 3)]
#[case::hpa_minimum(None, Some(2), Some(3), 2)]
#[case::hpa_minimum_of_zero(None, Some(0), Some(3), 1)]
#[case::fixed(Some(5), Some(2), Some(3), 5)]
#[case::fixed_at_zero(Some(0), None, None, 1)]
#[case::unknown(None, None, None, 1)]
fn replicas(
    #[case] fixed: Option<i32>,
    #[case] minimum: Option<i32>,
    #[case] recorded: Option<i32>,
    #[case] expected: i32,
) {
    let mut woken = woken();
    woken.services.clear();
    woken.restore_replicas = fixed;
    woken.workloads[0].autoscaler_minimum = minimum;
    match recorded {
        Some(replicas) => woken.state.replicas[0].replicas = replicas,
        None => woken.state.replicas.clear(),
    }
    assert_eq!(steps(&woken), [Step::Scale(web(), expected)]);
}

#[test]
fn each_workload_by_itself() {
    let mut woken = woken();
    woken.services.clear();
    woken.workloads = vec![
        workload("up", 2),
        workload("web", 0),
        Workload {
            exists: false,
            ..workload("gone", 0)
        },
        workload("unrecorded", 0),
    ];
    let unrecorded = workload("unrecorded", 0).object;
    assert_eq!(steps(&woken), [Step::Scale(web(), 3), Step::Scale(unrecorded, 1)]);
}

#[test]
fn without_any_workload_there_is_nothing_to_wait_for() {
    let mut gone = seen(Phase::Waking, DesiredState::Awake);
    gone.workloads[0].exists = false;
    gone.ready_pod = false;
    assert_eq!(phase_after(&gone), Phase::Ready);
    gone.state.phase = Phase::Ready;
    gone.services[0].listed = Listed::Nothing;
    assert_eq!(steps(&gone), [Step::DeleteSlice("web".into())]);
}

// readiness timeout

#[test]
fn a_wake_that_takes_too_long_is_noted_once_and_goes_on() {
    let mut slow = seen(Phase::Waking, DesiredState::Awake);
    slow.ready_pod = false;
    slow.readiness_timeout = Duration::from_millis(90_500);
    slow.state.wake_started = Some(ago(60));
    assert_eq!(waits(&slow).0, WaitReason::NoReadyPod);
    let until = waits(&slow).1.unwrap();
    assert_eq!(until.duration_since(now()).as_millis(), 30_500);

    slow.state.wake_started = Some(ago(91));
    let state = written(&slow);
    let failure = WakeFailure {
        epoch: EPOCH,
        message: "no pod became ready within 90.5 s".into(),
        at: now(),
    };
    assert_eq!(state.wake_failure, Some(failure));
    assert_eq!(
        (state.phase, state.desired, state.epoch),
        (Phase::Waking, DesiredState::Awake, EPOCH)
    );
    assert!(state.current_wake_failure().is_some());

    slow.state = state;
    assert_eq!(waits(&slow), (WaitReason::NoReadyPod, None), "once");

    slow.ready_pod = true;
    let state = written(&slow);
    assert_eq!(
        (state.phase, &state.wake_failure),
        (Phase::Ready, &None),
        "it came after all"
    );
}

#[test]
fn the_failure_of_an_older_wake_is_history() {
    let mut slow = seen(Phase::Waking, DesiredState::Awake);
    slow.ready_pod = false;
    slow.state.wake_started = Some(ago(1_000));
    slow.state.wake_failure = Some(WakeFailure {
        epoch: EPOCH - 1,
        message: "then".into(),
        at: ago(2_000),
    });
    assert!(slow.state.current_wake_failure().is_none());
    assert_eq!(written(&slow).wake_failure.unwrap().epoch, EPOCH);
}

// which pods count

#[rstest]
#[case::just_woken(true, 0, true)]
#[case::still(true, 9, true)]
#[case::what_is_still_there_was_kept(true, 10, false)]
#[case::nobody_has_looked_yet(false, 0, true)]
fn pods_from_before_the_wake(#[case] zero_observed: bool, #[case] seconds: i64, #[case] ignored: bool) {
    let mut state = state(Phase::Waking, DesiredState::Awake);
    state.zero_observed = zero_observed;
    let started = "2026-03-01T12:00:00.9Z".parse().unwrap();
    state.wake_started = Some(started);
    let later = started + jiff::SignedDuration::from_secs(seconds);
    assert_eq!(
        state.pods_since(later),
        ignored.then(now),
        "in whole seconds, as pods note their creation"
    );
}

// Ready

#[test]
fn the_dlx_leaves_each_service_once_its_pods_are_listed() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.services.push(service("api", Selector::Pods(labels())));
    ready.state.ports.push(port("api", 20_001));
    ready.services[1].own_slice = Some(stale_slice());
    assert_eq!(
        steps(&ready),
        [Step::WriteSlice("api".into())],
        "it follows the DLX to the end"
    );

    give_slice(&mut ready);
    ready.services[1].listed = Listed::Nothing;
    assert_eq!(steps(&ready), [Step::DeleteSlice("web".into())]);

    ready.services[0].own_slice = None;
    assert_eq!(waits(&ready), (WaitReason::NotListed, None));

    ready.services[1].listed = Listed::ReadyPods;
    assert_eq!(steps(&ready), [Step::DeleteSlice("api".into())]);
}

#[test]
fn what_is_listed_right_after_a_wake_may_be_about_to_go() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.state.since = Some(now());
    assert_eq!(waits(&ready), (WaitReason::NotListed, Some(in_secs(3))));
    ready.services[0].relisted = true;
    assert_eq!(
        waits(&ready),
        (WaitReason::NotListed, Some(in_secs(1))),
        "there is proof"
    );
    ready.state.since = Some(ago(1));
    assert_eq!(steps(&ready), [Step::DeleteSlice("web".into())]);
    ready.services[0].relisted = false;
    ready.state.since = Some(ago(3));
    assert_eq!(
        steps(&ready),
        [Step::DeleteSlice("web".into())],
        "it never came to proof"
    );
    ready.state.since = Some(now());
    ready.services[0].own_slice = None;
    assert_eq!(
        phase_after(&ready),
        Phase::Awake,
        "without the DLX there is nothing to wait for"
    );
}

#[test]
fn the_slice_of_a_service_that_is_gone_goes_too() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.services[0].selector = None;
    ready.services[0].listed = Listed::Nothing;
    assert_eq!(steps(&ready), [Step::DeleteSlice("web".into())]);
}

#[test]
fn a_selector_that_was_parked_too_late_is_restored() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    park(&mut ready);
    assert_eq!(steps(&ready), [Step::RestoreSelector("web".into())]);
}

#[test]
fn who_turned_it_off_is_not_waited_for() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.workloads[0].replicas = 0;
    ready.workloads[0].zero = Zero::Off;
    ready.services[0].listed = Listed::Nothing;
    assert_eq!(steps(&ready), [Step::DeleteSlice("web".into())]);
}

#[test]
fn awake_forgets_what_it_remembered() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.services[0].own_slice = None;
    let state = written(&ready);
    assert_eq!(
        (state.phase, state.since, state.desired),
        (Phase::Awake, Some(now()), DesiredState::Awake)
    );
    assert!(state.replicas.is_empty() && !state.zero_observed);
    assert_eq!(
        state.ports, ready.state.ports,
        "late connections still find their target"
    );
    assert_eq!(state.epoch, EPOCH);
}

#[rstest]
fn while_it_wakes_the_slices_follow_the_dlx(#[values(Phase::Waking, Phase::Ready)] phase: Phase) {
    let mut waking = seen(phase, DesiredState::Awake);
    waking.ready_pod = false;
    waking.services[0].listed = Listed::Nothing;
    waking.dlx = dlx(&[3]);
    assert_eq!(steps(&waking), [Step::WriteSlice("web".into())]);
    waking.dlx = Dlx::default();
    assert!(
        matches!(waits(&waking).0, WaitReason::NoReadyPod | WaitReason::NotListed),
        "never to nobody"
    );
}

#[test]
fn an_awake_one_gives_its_ports_back_once_no_node_can_lead_to_them() {
    let mut awake = seen(Phase::Awake, DesiredState::Awake);
    awake.state.ports = vec![port("web", 20_001)];
    awake.state.since = Some(ago(10));
    assert_eq!(waits(&awake), (WaitReason::Settled, Some(in_secs(290))));
    awake.state.since = Some(ago(299));
    awake.last_outage = Some(ago(20));
    let caught_up = in_secs(100);
    assert_eq!(waits(&awake), (WaitReason::Settled, Some(caught_up)));
    awake.last_outage = None;
    awake.state.since = Some(ago(301));
    let state = written(&awake);
    assert!(state.ports.is_empty() && state.phase == Phase::Awake, "{state:?}");
    // What is about to be diverted keeps them.
    awake.state.desired = DesiredState::Observed;
    assert!(!written(&awake).ports.is_empty());
    // So does what a DLX is still behind.
    awake.state.desired = DesiredState::Awake;
    give_slice(&mut awake);
    assert!(!steps(&awake).iter().any(|step| matches!(step, Step::SetState(_))));
}

#[test]
fn pods_of_a_sleep_whose_scale_down_has_lost_are_as_good_as_any() {
    let mut woken = woken();
    woken.state.zero_observed = false;
    woken.state.slept = Some(now());
    woken.state.wake_completed = None;
    woken.workloads[0].replicas = 3;
    woken.workloads[0].fence = Some(EPOCH);
    give_slice(&mut woken);
    woken.services[0].selector = Some(Selector::Pods(labels()));
    woken.services[0].fence = Some(EPOCH);
    assert!(woken.state.pods_since(now()).is_some(), "nobody has looked yet");
    let state = written(&woken);
    assert_eq!((state.slept, state.pods_since(now())), (None, None));

    woken.state.slept = Some(ago(100));
    woken.state.wake_completed = Some(ago(50));
    assert_eq!(woken.state.pods_since(now()), None, "that sleep is over");
}
