//! What is checked at the door is checked all the time: the same repairs in every phase.

use dormouse_lifecycle::{
    DesiredState, DivertedPort, Family, Listed, Observation, Selector, Step, Undivertible, WaitReason,
    WorkloadReplicas, Zero,
};
use dormouse_model::Phase;
use rstest::rstest;

use crate::fixture::*;

const AWAY: [Phase; 4] = [Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep];

/// As [`seen`], but a wake has not brought a pod yet.
fn seen_without_pods(phase: Phase) -> Observation {
    let desired = if AWAY.contains(&phase) {
        DesiredState::Asleep
    } else {
        DesiredState::Awake
    };
    let mut seen = seen(phase, desired);
    seen.ready_pod = false;
    seen.services[0].listed = Listed::Nothing;
    seen
}

// ports

#[rstest]
#[case::diverting(Phase::Diverting)]
#[case::observing(Phase::Observing)]
#[case::draining(Phase::Draining)]
#[case::asleep(Phase::Asleep)]
#[case::waking(Phase::Waking)]
#[case::ready(Phase::Ready)]
fn chaos_2_a_port_renamed_or_added_in_any_phase_gets_its_dlx_port(#[case] phase: Phase) {
    let mut renamed = seen_without_pods(phase);
    renamed.services[0].ports = vec![("web".into(), 80), ("more".into(), 81)];
    let [Step::AllocatePorts(missing)] = &steps(&renamed)[..] else {
        panic!("{:?}", steps(&renamed));
    };
    assert_eq!(missing.len(), 2);

    let port = |name: &str, port, dlx_port| DivertedPort {
        service: "web".into(),
        name: name.into(),
        port,
        dlx_port,
    };
    renamed.state.ports = vec![port("web", 80, 20_000), port("more", 81, 20_001)];
    renamed.services[0].answers.clear();
    assert!(
        !renamed.to_ask(&renamed.services[0]).is_empty(),
        "a DLX that does not listen there yet must not be led to"
    );
    for last in [1, 2] {
        refuse(&mut renamed.services[0], last);
    }
    // While diverting it waits for answers before it parks a Service; this one is parked.
    if !matches!(phase, Phase::Ready | Phase::Diverting) {
        assert!(
            matches!(waits(&renamed).0, WaitReason::Probe(_)),
            "nothing else tells when it listens: {:?}",
            waits(&renamed)
        );
    }
    answer(&mut renamed.services[0], &[1, 2]);
    assert_eq!(steps(&renamed), [Step::WriteSlice("web".into())]);
}

#[rstest]
#[case::diverting(Phase::Diverting)]
#[case::observing(Phase::Observing)]
#[case::draining(Phase::Draining)]
#[case::asleep(Phase::Asleep)]
fn chaos_2_a_port_for_which_no_dlx_port_is_left_wakes_with_the_cause(#[case] phase: Phase) {
    let mut renamed = seen_without_pods(phase);
    renamed.services[0].ports = vec![("web".into(), 80)];
    renamed.no_port = Some("all DLX ports are taken".into());
    assert!(rolls_back(&renamed).contains("all DLX ports are taken"));
    let mut waking = seen_without_pods(Phase::Waking);
    waking.services[0].ports = vec![("web".into(), 80)];
    waking.no_port = Some("all DLX ports are taken".into());
    assert!(
        matches!(waits(&waking).0, WaitReason::NoReadyPod),
        "and the wake goes on"
    );
}

#[test]
fn chaos_2_no_dlx_port_that_is_left_holds_up_a_wake_that_is_over() {
    let mut renamed = seen(Phase::Waking, DesiredState::Awake);
    renamed.services[0].ports = vec![("web".into(), 80)];
    assert_eq!(phase_after(&renamed), Phase::Ready);
}

#[test]
fn chaos_2_a_deleted_sleeper_follows_its_services_too() {
    let mut renamed = seen_without_pods(Phase::Waking);
    renamed.deleting = true;
    renamed.services[0].ports = vec![("web".into(), 80)];
    assert!(matches!(&steps(&renamed)[..], [Step::AllocatePorts(_)]));
}

// Services

#[rstest]
#[case::observing(Phase::Observing)]
#[case::draining(Phase::Draining)]
#[case::asleep(Phase::Asleep)]
fn field_02_a_service_that_appears_is_diverted_like_the_others(#[case] phase: Phase) {
    let mut two = seen(phase, DesiredState::Asleep);
    let mut second = service("second", Selector::Pods(labels()));
    second.listed = Listed::Nothing;
    two.services.push(second);
    two.state = written(&two);
    assert_eq!(two.state.selectors.len(), 2, "before it can get lost");
    assert!(matches!(&steps(&two)[..], [Step::AllocatePorts(missing)] if missing[0].0 == "second"));
    two.state.ports.push(port("second", 20_009));
    assert_eq!(
        steps(&two),
        [
            Step::WriteSlice("second".into()),
            Step::ParkSelector("second".into())
        ]
    );
}

#[test]
fn field_02_a_service_that_appears_during_a_wake_leads_to_the_dlx_until_there_are_pods() {
    let mut two = seen_without_pods(Phase::Waking);
    let mut second = service("second", Selector::Pods(labels()));
    second.listed = Listed::Nothing;
    second.fence = Some(EPOCH);
    two.services.push(second);
    assert!(matches!(&steps(&two)[..], [Step::AllocatePorts(missing)] if missing[0].0 == "second"));
    two.state.ports.push(port("second", 20_009));
    assert_eq!(steps(&two), [Step::WriteSlice("second".into())]);

    two.services[1].listed = Listed::ReadyPods;
    assert_eq!(
        waits(&two).0,
        WaitReason::NoReadyPod,
        "its pods are there already"
    );
}

// undivertible while parked

#[rstest]
#[case::diverting(Phase::Diverting)]
#[case::observing(Phase::Observing)]
#[case::draining(Phase::Draining)]
#[case::asleep(Phase::Asleep)]
fn field_16_what_cannot_be_diverted_any_more_wakes_with_the_cause(#[case] phase: Phase) {
    for why in UNDIVERTIBLE {
        let mut edited = seen(phase, DesiredState::Asleep);
        for selector in [Selector::Stranded(labels(), why), Selector::Undivertible(why)] {
            edited.services[0].selector = Some(selector);
            assert!(rolls_back(&edited).contains(why.explain()));
        }
    }
}

#[test]
fn field_16_a_stranded_selector_is_restored_by_the_wake() {
    let mut edited = seen(Phase::Waking, DesiredState::Awake);
    edited.services[0].selector = Some(Selector::Stranded(labels(), Undivertible::NotTcp));
    assert_eq!(steps(&edited), [Step::RestoreSelector("web".into())]);
}

#[rstest]
#[case(Undivertible::ExternalName)]
#[case(Undivertible::NoSelector)]
fn field_16_the_dlx_does_not_wait_in_a_service_that_will_never_list_pods(#[case] why: Undivertible) {
    let mut edited = seen(Phase::Ready, DesiredState::Awake);
    edited.services[0].selector = Some(Selector::Undivertible(why));
    edited.services[0].listed = Listed::Nothing;
    edited.services[0].relisted = true;
    assert_eq!(steps(&edited), [Step::DeleteSlice("web".into())]);
}

#[test]
fn field_16_only_addresses_of_its_family_stand_in_for_a_service() {
    let mut seen = seen(Phase::Asleep, DesiredState::Asleep);
    seen.dlx.ready.push("fd00::1".parse().unwrap());
    seen.services[0]
        .answers
        .insert("fd00::1".parse().unwrap(), Ok(()));
    seen.services[0].family = Some(Family::V6);
    assert_eq!(
        seen.wanted_slice(&seen.services[0]).addresses,
        ["fd00::1".parse::<std::net::IpAddr>().unwrap()]
    );
    seen.services[0].family = Some(Family::V4);
    assert!(
        seen.wanted_slice(&seen.services[0])
            .addresses
            .iter()
            .all(std::net::IpAddr::is_ipv4)
    );
    assert!(settled(&seen), "the other family is not asked about");
}

// the age of pods

#[test]
fn chaos_3_pods_that_come_after_there_were_none_need_no_age() {
    let mut asleep = seen(Phase::Asleep, DesiredState::Asleep);
    asleep.state.pods_gone = false;
    asleep.pods_left = true;
    assert!(settled(&asleep), "pods of before may be on their way out");
    asleep.pods_left = false;
    let mut state = written(&asleep);
    assert!(state.zero_observed && state.pods_gone);
    assert_eq!(state.pods_gone_at, Some(now()));

    // Scaled up by hand within the second before the wake.
    state.phase = Phase::Waking;
    state.wake_started = Some(now());
    assert_eq!(
        state.pods_since(now()),
        Some(ago(100)),
        "all but those from before the sleep, of whose end one may not have heard"
    );
    assert_eq!(state.pods_since(in_secs(3)), None, "every pod counts");
    state.pods_gone = false;
    assert_eq!(
        state.pods_since(now()),
        Some(now()),
        "woken before they were gone"
    );
}

// zero without us

#[test]
fn field_04_what_was_at_zero_without_us_is_recorded_as_zero_and_woken_to_one() {
    let mut drained = seen(Phase::Draining, DesiredState::Asleep);
    drained.workloads[0].replicas = 0;
    let state = written(&drained);
    assert_eq!((state.phase, state.replicas[0].replicas), (Phase::Asleep, 0));

    let mut woken = seen(Phase::Waking, DesiredState::Awake);
    woken.state.replicas = state.replicas;
    woken.workloads[0].replicas = 0;
    assert_eq!(steps(&woken), [Step::Scale(web(), 1)]);
    woken.workloads[0].autoscaler_minimum = Some(2);
    assert_eq!(steps(&woken), [Step::Scale(web(), 2)]);
}

#[rstest]
#[case::ours(3, true)]
#[case::not_ours(0, false)]
fn field_04_an_uninstall_scales_up_only_what_we_scaled_down(#[case] recorded: i32, #[case] revives: bool) {
    let mut leaving = seen(Phase::Waking, DesiredState::Awake);
    leaving.deleting = true;
    leaving.workloads[0].replicas = 0;
    leaving.state.replicas = vec![WorkloadReplicas {
        workload: web(),
        replicas: recorded,
    }];
    let scales = steps(&leaving).contains(&Step::Scale(web(), 3));
    assert_eq!(scales, revives);
}

#[test]
fn field_04_turned_off_stays_off() {
    // Stood in for, and then the setting changed.
    let mut asleep = seen(Phase::Asleep, DesiredState::Asleep);
    asleep.workloads[0].zero = Zero::Off;
    assert!(
        settled(&asleep),
        "what we put to sleep ourselves is not turned off"
    );
    asleep.state.replicas[0].replicas = 0;
    assert!(rolls_back(&asleep).contains("turned off"));

    let mut waking = seen(Phase::Waking, DesiredState::Awake);
    waking.workloads[0].replicas = 0;
    waking.workloads[0].zero = Zero::Off;
    waking.state.replicas[0].replicas = 0;
    waking.ready_pod = false;
    waking.services[0].listed = Listed::Nothing;
    assert_eq!(phase_after(&waking), Phase::Ready, "nothing to wait for");
    waking.state.phase = Phase::Ready;
    waking.services[0].relisted = true;
    assert_eq!(steps(&waking), [Step::DeleteSlice("web".into())]);
}

#[test]
fn field_04_scaled_to_zero_while_waking_comes_back_for_those_who_wait() {
    let mut waking = seen(Phase::Waking, DesiredState::Awake);
    waking.workloads[0].replicas = 0;
    assert_eq!(steps(&waking), [Step::Scale(web(), 3)]);
}

#[test]
fn field_04_scaled_to_zero_before_the_dlx_has_left_it_stays() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.workloads[0].replicas = 0;
    let state = written(&ready);
    assert_eq!(
        (state.phase, state.desired),
        (Phase::Diverting, DesiredState::Asleep)
    );
    ready.workloads[0].zero = Zero::Off;
    ready.services[0].relisted = true;
    assert_eq!(steps(&ready), [Step::DeleteSlice("web".into())]);
}
