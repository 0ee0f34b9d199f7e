//! Awake to Asleep.

use dormouse_lifecycle::{
    Demand, DesiredState, Dlx, KeptSelector, Listed, Observation, Selector, Service, Step, Undivertible,
    WaitReason, WorkloadReplicas,
};
use dormouse_model::Phase;
use rstest::rstest;

use crate::fixture::*;

// Awake

#[test]
fn awake_and_wished_awake_is_settled() {
    assert!(settled(&seen(Phase::Awake, DesiredState::Awake)));
}

#[test]
fn awake_takes_back_what_came_too_late() {
    let mut late = seen(Phase::Awake, DesiredState::Awake);
    late.services[0].own_slice = Some(stale_slice());
    assert_eq!(steps(&late), [Step::DeleteSlice("web".into())]);

    late.services[0].listed = Listed::Nothing;
    assert_eq!(
        waits(&late).0,
        WaitReason::NotListed,
        "it stays until pods are listed"
    );

    park(&mut late);
    let state = written(&late);
    assert_eq!(
        (state.phase, state.since, state.epoch),
        (Phase::Ready, Some(now()), EPOCH)
    );
    late.state = state;
    give_slice(&mut late);
    assert_eq!(
        steps(&late),
        [Step::RestoreSelector("web".into())],
        "and the DLX stays until pods are listed"
    );
}

#[rstest]
fn a_wish_begins_with_ports(#[values(DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState) {
    let mut awake = seen(Phase::Awake, desired);
    awake.services[0].ports = vec![("http".into(), 80), ("grpc".into(), 90)];
    let wanted = [
        ("web".to_owned(), "http".to_owned(), 80),
        ("web".to_owned(), "grpc".to_owned(), 90),
    ];
    assert_eq!(steps(&awake), [Step::AllocatePorts(wanted.to_vec())]);

    awake.state.ports = vec![port("web", 20_000)];
    assert_eq!(
        steps(&awake),
        [Step::AllocatePorts(wanted[1..].to_vec())],
        "only what is missing"
    );

    awake.services[0].ports.pop();
    let state = written(&awake);
    assert_eq!(
        (state.phase, state.desired, state.epoch),
        (Phase::Diverting, desired, EPOCH)
    );
    assert_eq!(state.since, Some(now()));
}

#[rstest]
#[case(Undivertible::Headless, "headless")]
#[case(Undivertible::ExternalName, "ExternalName")]
#[case(Undivertible::NoSelector, "no selector")]
#[case(Undivertible::NotTcp, "not TCP")]
#[case(Undivertible::NodeLocal, "internalTrafficPolicy")]
fn a_service_that_cannot_be_diverted_keeps_it_awake(#[case] why: Undivertible, #[case] text: &str) {
    let mut awake = seen(Phase::Awake, DesiredState::Asleep);
    awake.services.push(service("odd", Selector::Undivertible(why)));
    let state = written(&awake);
    assert_eq!(
        (state.desired, state.phase, state.epoch),
        (DesiredState::Awake, Phase::Awake, EPOCH)
    );
    assert!(
        state.reason.contains("Service odd") && state.reason.contains(text),
        "{}",
        state.reason
    );
}

#[rstest]
fn a_service_that_turns_undivertible_rolls_back(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut diverted = seen(phase, DesiredState::Asleep);
    diverted.services[0].selector = Some(Selector::Undivertible(Undivertible::Headless));
    assert!(rolls_back(&diverted).contains("headless"));
}

#[test]
fn without_a_dlx_nothing_begins() {
    let mut awake = seen(Phase::Awake, DesiredState::Asleep);
    awake.dlx = dlx(&[]);
    assert_eq!(waits(&awake), (WaitReason::NoDlx, None));

    awake.services[0].own_slice = Some(stale_slice());
    assert_eq!(
        steps(&awake),
        [Step::DeleteSlice("web".into())],
        "nothing points at a DLX that is not there"
    );
}

#[rstest]
#[case::none(vec![])]
#[case::missing(vec![Service { selector: None, ..service("web", Selector::Pods(labels())) }])]
fn without_services_no_dlx_is_needed(#[case] services: Vec<Service>) {
    let mut seen = seen(Phase::Awake, DesiredState::Asleep);
    seen.services = services;
    seen.dlx = dlx(&[]);
    for (phase, then) in [
        (Phase::Awake, Phase::Diverting),
        (Phase::Diverting, Phase::Observing),
        (Phase::Observing, Phase::Draining),
        (Phase::Draining, Phase::Asleep),
    ] {
        seen.state.phase = phase;
        seen.demand = Demand::Unknown;
        assert_eq!(
            phase_after(&seen),
            then,
            "a DLX that serves no Service need not be asked"
        );
    }
}

// Diverting: answers, slices, selectors, endpoints

fn diverting() -> Observation {
    let mut diverting = seen(Phase::Diverting, DesiredState::Asleep);
    diverting.services.push(service("api", Selector::Pods(labels())));
    diverting.state.selectors.push(KeptSelector {
        service: "api".into(),
        labels: labels(),
    });
    diverting.state.ports.push(port("api", 20_001));
    for service in &mut diverting.services {
        service.selector = Some(Selector::Pods(labels()));
        service.listed = Listed::ReadyPods;
        service.own_slice = None;
    }
    diverting
}

#[test]
fn every_dlx_answers_and_joins_then_the_selectors_are_parked_then_the_pods_leave() {
    let mut seen = diverting();
    seen.services
        .iter_mut()
        .for_each(|service| service.answers.clear());
    assert_eq!(
        waits(&seen).0,
        WaitReason::Probe("Service web: 127.0.9.1 was not asked".into()),
        "nobody joins unasked"
    );

    seen.services
        .iter_mut()
        .for_each(|service| answer(service, &[1, 2]));
    refuse(&mut seen.services[1], 2);
    assert_eq!(
        steps(&seen),
        [Step::WriteSlice("web".into()), Step::WriteSlice("api".into())]
    );
    let joined = |seen: &Observation, index: usize| seen.wanted_slice(&seen.services[index]).addresses;
    assert_eq!(joined(&seen, 0), dlx(&[1, 2]).ready);
    assert_eq!(joined(&seen, 1), dlx(&[1]).ready, "who refuses does not join");

    give_slice(&mut seen);
    let reason = WaitReason::Probe("Service api: 127.0.9.2 refused".into());
    assert_eq!(
        waits(&seen),
        (reason, Some(in_secs(50))),
        "given up a minute after it began"
    );

    answer(&mut seen.services[1], &[2]);
    assert_eq!(steps(&seen), [Step::WriteSlice("api".into())]);

    give_slice(&mut seen);
    assert_eq!(
        steps(&seen),
        [Step::ParkSelector("web".into()), Step::ParkSelector("api".into())]
    );

    park(&mut seen);
    seen.services[0].answers.clear();
    assert_eq!(
        waits(&seen),
        (WaitReason::EndpointsLeaving, Some(in_secs(50))),
        "of parked Services nobody need be asked again"
    );

    seen.services
        .iter_mut()
        .for_each(|service| service.listed = Listed::Nothing);
    let state = written(&seen);
    assert_eq!((state.phase, state.since), (Phase::Observing, Some(now())));
}

#[test]
fn only_what_is_left_is_parked() {
    let mut seen = diverting();
    give_slice(&mut seen);
    seen.services[0].selector = Some(Selector::Parked(labels()));
    assert_eq!(steps(&seen), [Step::ParkSelector("api".into())]);
}

#[test]
fn a_slice_of_an_earlier_turn_is_written_again() {
    let mut seen = diverting();
    give_slice(&mut seen);
    let slice = seen.services[0].own_slice.as_mut().unwrap();
    slice.generation = slice.generation.map(|generation| generation - 2);
    assert_eq!(steps(&seen), [Step::WriteSlice("web".into())]);
}

#[test]
fn the_slice_names_every_dlx_and_port_in_order() {
    let mut seen = seen(Phase::Diverting, DesiredState::Asleep);
    seen.dlx.ready.reverse();
    seen.state.ports = vec![port("web", 20_000), port("other", 20_001)];
    let wanted = seen.wanted_slice(&seen.services[0]);
    assert_eq!(wanted.addresses, dlx(&[1, 2]).ready);
    assert_eq!(wanted.ports, [("http".to_owned(), 20_000)]);
    assert_eq!(wanted.generation, Some(2 * EPOCH + 1));
}

#[rstest]
#[case::ports(|seen: &mut Observation| seen.state.ports.clear(), "ports")]
#[case::slices(|seen: &mut Observation| seen.services[0].own_slice = None, "slices")]
#[case::answers(|seen: &mut Observation| { refuse(&mut seen.services[0], 2); give_slice(seen); }, "does not answer")]
#[case::selectors(|_: &mut Observation| (), "parked")]
#[case::endpoints(park, "endpoints do not leave")]
fn diverting_is_given_up(#[case] change: fn(&mut Observation), #[case] text: &str) {
    let mut seen = diverting();
    give_slice(&mut seen);
    change(&mut seen);
    seen.state.since = Some(ago(59));
    assert_ne!(
        dormouse_lifecycle::next(&seen, &timings()),
        dormouse_lifecycle::next(&late(&seen), &timings())
    );
    let reason = rolls_back(&late(&seen));
    assert!(reason.contains("given up") && reason.contains(text), "{reason}");
}

fn late(seen: &Observation) -> Observation {
    let mut late = seen.clone();
    late.state.since = Some(ago(60));
    late
}

#[test]
fn what_is_complete_goes_on_however_late() {
    let mut complete = seen(Phase::Diverting, DesiredState::Asleep);
    complete.state.since = Some(ago(10_000));
    assert_eq!(
        phase_after(&complete),
        Phase::Observing,
        "the process was down for a while"
    );
}

// Observing

#[test]
fn a_look_stays_in_observing_and_a_sleep_goes_on() {
    assert!(settled(&seen(Phase::Observing, DesiredState::Observed)));
    let state = written(&seen(Phase::Observing, DesiredState::Asleep));
    assert_eq!(
        (state.phase, state.since, state.desired),
        (Phase::Draining, Some(now()), DesiredState::Asleep)
    );
}

// while diverted

#[rstest]
fn slices_follow_the_dlx(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
    #[values(&[1][..], &[2, 3], &[1, 2, 3])] ready: &[u8],
) {
    let mut diverted = seen(phase, DesiredState::Asleep);
    diverted.dlx = dlx(ready);
    assert_eq!(steps(&diverted), [Step::WriteSlice("web".into())]);
}

#[rstest]
fn who_does_not_answer_joins_later(#[values(Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase) {
    let mut diverted = seen(phase, DesiredState::Asleep);
    let before = dormouse_lifecycle::next(&diverted, &timings());
    diverted.dlx = dlx(&[1, 2, 3]);
    refuse(&mut diverted.services[0], 3);
    assert_eq!(
        dormouse_lifecycle::next(&diverted, &timings()),
        before,
        "there are others, so everything goes on"
    );

    diverted.dlx = dlx(&[1, 3]);
    assert_eq!(steps(&diverted), [Step::WriteSlice("web".into())]);
    let wanted = diverted.wanted_slice(&diverted.services[0]);
    assert_eq!(
        wanted.addresses,
        dlx(&[1]).ready,
        "who is gone leaves all the same"
    );

    answer(&mut diverted.services[0], &[3]);
    let wanted = diverted.wanted_slice(&diverted.services[0]);
    assert_eq!(wanted.addresses, dlx(&[1, 3]).ready);
}

#[rstest]
fn while_nobody_answers_the_slice_stays_as_it_is(#[values(Phase::Observing, Phase::Asleep)] phase: Phase) {
    let mut astray = seen(
        phase,
        if phase == Phase::Asleep {
            DesiredState::Asleep
        } else {
            DesiredState::Observed
        },
    );
    astray.dlx = dlx(&[3]);
    refuse(&mut astray.services[0], 3);
    astray.unanswered_since = Some(ago(4));
    let polled = (
        WaitReason::Probe("no DLX answers for Service web".into()),
        Some(in_secs(1)),
    );
    assert_eq!(waits(&astray), polled);

    astray.services[0].selector = Some(Selector::Pods(labels()));
    assert_eq!(waits(&astray), polled, "pods are not taken out for nobody");
    astray.services[0].own_slice = None;
    assert_eq!(waits(&astray), polled, "nobody is not joined");

    answer(&mut astray.services[0], &[3]);
    let both = [Step::WriteSlice("web".into()), Step::ParkSelector("web".into())];
    assert_eq!(steps(&astray), both);
}

#[rstest]
fn when_nobody_answers_for_long_it_wakes(
    #[values(Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut astray = seen(phase, DesiredState::Asleep);
    astray.dlx = dlx(&[3]);
    refuse(&mut astray.services[0], 3);
    astray.unanswered_since = Some(ago(5));
    assert_eq!(rolls_back(&astray), "no DLX answers for Service web");

    // One that is ready and led to is enough.
    astray.dlx = dlx(&[1, 3]);
    assert_eq!(steps(&astray), [Step::WriteSlice("web".into())]);
    let mut gone = astray.clone();
    gone.services[0].selector = None;
    gone.dlx = dlx(&[3]);
    assert_eq!(gone.unanswered(), None, "a Service that is gone needs nobody");
}

#[rstest]
fn only_those_are_asked_whose_answer_matters(
    #[values(Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let asked = |seen: &Observation| seen.to_ask(&seen.services[0]);
    let mut seen = seen(phase, DesiredState::Asleep);
    assert_eq!(asked(&seen), dlx(&[]).ready, "all are in the slice");
    seen.dlx = dlx(&[2, 3]);
    assert_eq!(asked(&seen), dlx(&[3]).ready);
    seen.state.ports[0].dlx_port += 1;
    assert_eq!(asked(&seen), dlx(&[2, 3]).ready, "on another port");

    seen.state.phase = Phase::Diverting;
    seen.state.ports[0].dlx_port -= 1;
    assert_eq!(asked(&seen), dlx(&[3]).ready);
    seen.services[0].selector = Some(Selector::Pods(labels()));
    assert_eq!(
        asked(&seen),
        dlx(&[2, 3]).ready,
        "all, before the pods are taken out"
    );

    for waking in [Phase::Waking, Phase::Ready] {
        seen.state.phase = waking;
        seen.dlx = dlx(&[2, 3]);
        assert_eq!(asked(&seen), dlx(&[]).ready, "there is somebody");
        seen.dlx = dlx(&[3]);
        assert_eq!(asked(&seen), dlx(&[3]).ready);
    }
    seen.services[0].own_slice = None;
    assert_eq!(asked(&seen), dlx(&[]).ready, "nobody joins any more");
    seen.state.phase = Phase::Awake;
    assert_eq!(asked(&seen), dlx(&[]).ready);
    seen.state.phase = phase;
    assert_eq!(asked(&seen), dlx(&[3]).ready);
    seen.deleting = true;
    assert_eq!(asked(&seen), dlx(&[]).ready);
}

#[rstest]
fn a_selector_that_gitops_put_back_is_parked_again(
    #[values(Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut reverted = seen(phase, DesiredState::Asleep);
    reverted.services[0].selector = Some(Selector::Pods(labels()));
    assert_eq!(steps(&reverted), [Step::ParkSelector("web".into())]);

    reverted.services[0].own_slice = None;
    let both = [Step::WriteSlice("web".into()), Step::ParkSelector("web".into())];
    assert_eq!(steps(&reverted), both, "the slice first");
}

#[rstest]
fn a_new_service_port_gets_a_dlx_port(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut grown = seen(phase, DesiredState::Asleep);
    grown.services[0].ports.push(("metrics".into(), 9_090));
    assert_eq!(
        steps(&grown),
        [Step::AllocatePorts(vec![("web".into(), "metrics".into(), 9_090)])]
    );
}

#[rstest]
fn without_a_dlx_it_wakes_after_a_moment(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut alone = seen(phase, DesiredState::Asleep);
    alone.dlx = Dlx {
        ready: vec![],
        absent_since: Some(ago(4)),
    };
    assert_eq!(waits(&alone), (WaitReason::NoDlx, Some(in_secs(1))));
    alone.dlx.absent_since = Some(ago(5));
    assert_eq!(rolls_back(&alone), "no DLX is ready");
    alone.dlx.absent_since = None;
    assert_eq!(
        waits(&alone),
        (WaitReason::NoDlx, Some(in_secs(5))),
        "unknown since when: from now"
    );
}

// Draining

#[rstest]
#[case::grace(4, Listed::Nothing, Demand::None, Err((WaitReason::Grace, Some(1))))]
#[case::grace_even_with_demand(4, Listed::Nothing, Demand::Some(1), Err((WaitReason::Grace, Some(1))))]
#[case::endpoints_again(4, Listed::ReadyPods, Demand::None, Err((WaitReason::EndpointsLeaving, Some(61))))]
#[case::endpoints_never_leave(65, Listed::ReadyPods, Demand::None, Ok("endpoints do not leave"))]
#[case::demand(5, Listed::Nothing, Demand::Some(2), Ok("2 requests or connections"))]
#[case::unknown(5, Listed::Nothing, Demand::Unknown, Err((WaitReason::DemandUnknown, Some(60))))]
#[case::unknown_for_too_long(65, Listed::Nothing, Demand::Unknown, Ok("demand is unknown"))]
fn draining(
    #[case] seconds: i64,
    #[case] listed: Listed,
    #[case] demand: Demand,
    #[case] expected: Result<&str, (WaitReason, Option<i64>)>,
) {
    let mut draining = seen(Phase::Draining, DesiredState::Asleep);
    draining.state.since = Some(ago(seconds));
    draining.services[0].listed = listed;
    draining.demand = demand;
    match expected {
        Ok(text) => assert!(rolls_back(&draining).contains(text)),
        Err((reason, seconds)) => assert_eq!(waits(&draining), (reason, seconds.map(in_secs))),
    }
}

#[test]
fn nothing_is_taken_away_before_nodes_have_caught_up_with_an_outage() {
    let mut awake = seen(Phase::Awake, DesiredState::Asleep);
    let mut parking = diverting();
    give_slice(&mut parking);
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    for seen in [&mut awake, &mut parking, &mut ready] {
        seen.last_outage = Some(ago(119));
    }
    let until = Some(in_secs(1));
    for seen in [&awake, &parking, &ready] {
        assert_eq!(waits(seen), (WaitReason::CatchingUp, until));
    }
    let mut alone = ready.clone();
    alone.dlx = dlx(&[]);
    assert_eq!(
        steps(&alone),
        [Step::DeleteSlice("web".into())],
        "a slice that leads to nobody goes all the same"
    );

    for seen in [&mut awake, &mut parking, &mut ready] {
        seen.last_outage = Some(ago(120));
    }
    assert!(matches!(steps(&awake)[..], [Step::AllocatePorts(_)]));
    assert!(steps(&parking).contains(&Step::ParkSelector("web".into())));
    assert_eq!(steps(&ready), [Step::DeleteSlice("web".into())]);
}

#[test]
fn pods_stay_until_nodes_have_caught_up_with_an_outage() {
    let mut draining = seen(Phase::Draining, DesiredState::Asleep);
    draining.state.since = Some(ago(100));
    draining.last_outage = Some(ago(119));
    assert_eq!(waits(&draining), (WaitReason::CatchingUp, Some(in_secs(1))));
    draining.last_outage = Some(ago(120));
    assert_eq!(phase_after(&draining), Phase::Asleep);

    draining.demand = Demand::Unknown;
    let reason = (WaitReason::DemandUnknown, Some(in_secs(60)));
    assert_eq!(waits(&draining), reason, "given up a minute after that");

    draining.last_outage = Some(ago(1));
    draining.demand = Demand::None;
    draining.services.clear();
    assert_eq!(phase_after(&draining), Phase::Asleep, "nothing leads to its pods");
}

/// Somebody may have put a selector back just before the outage.
#[test]
fn nothing_is_scaled_down_before_nodes_have_caught_up_with_an_outage() {
    let mut asleep = seen(Phase::Asleep, DesiredState::Asleep);
    asleep.workloads[0].replicas = 3;
    asleep.state.zero_observed = false;
    asleep.last_outage = Some(ago(119));
    assert_eq!(waits(&asleep), (WaitReason::CatchingUp, Some(in_secs(1))));
    asleep.last_outage = Some(ago(120));
    assert_eq!(steps(&asleep), [Step::Scale(web(), 0)]);
}

#[test]
fn asleep_records_what_to_restore() {
    let mut drained = seen(Phase::Draining, DesiredState::Asleep);
    drained.state.since = Some(ago(5));
    drained.workloads = vec![
        workload("web", 3),
        workload("off", 0),
        dormouse_lifecycle::Workload {
            autoscaler_minimum: Some(2),
            ..workload("scaled", 9)
        },
        dormouse_lifecycle::Workload {
            exists: false,
            ..workload("gone", 4)
        },
    ];
    let state = written(&drained);
    assert_eq!(
        (state.phase, state.slept, state.zero_observed),
        (Phase::Asleep, Some(now()), false)
    );
    let recorded: Vec<_> = state
        .replicas
        .iter()
        .map(|r| (r.workload.name.as_str(), r.replicas))
        .collect();
    assert_eq!(
        recorded,
        [("web", 3), ("off", 0), ("scaled", 2)],
        "zero only for what was at zero without us; what is gone is not recorded"
    );
}

// Asleep

#[test]
fn asleep_scales_down_then_notes_zero_then_rests() {
    let mut asleep = seen(Phase::Asleep, DesiredState::Asleep);
    asleep.state.zero_observed = false;
    asleep.workloads[0].replicas = 3;
    assert_eq!(steps(&asleep), [Step::Scale(web(), 0)]);

    asleep.workloads[0].replicas = 0;
    let state = written(&asleep);
    assert!(state.zero_observed && state.phase == Phase::Asleep);

    asleep.state = state;
    assert!(settled(&asleep));
}

#[test]
fn a_workload_that_appears_is_recorded_before_it_is_scaled_down() {
    let mut asleep = seen(Phase::Asleep, DesiredState::Asleep);
    asleep.state.zero_observed = false;
    asleep.workloads.push(workload("new", 4));
    let state = written(&asleep);
    let new = WorkloadReplicas {
        workload: workload("new", 0).object,
        replicas: 4,
    };
    assert_eq!(
        state.replicas[1..],
        [new],
        "or a wake could neither restore nor fence it"
    );

    asleep.state = state;
    assert_eq!(steps(&asleep), [Step::Scale(workload("new", 0).object, 0)]);
}

#[test]
fn who_scales_it_up_by_hand_wakes_it() {
    let mut scaled = seen(Phase::Asleep, DesiredState::Asleep);
    scaled.workloads[0].replicas = 1;
    assert_eq!(
        rolls_back(&scaled),
        "Deployment web was scaled up by somebody else"
    );

    scaled.dlx = dlx(&[]);
    assert!(
        rolls_back(&scaled).contains("somebody else"),
        "whatever else is wrong"
    );

    scaled.workloads[0].exists = false;
    scaled.dlx = dlx(&[1, 2]);
    assert!(settled(&scaled), "what is being deleted counts for nobody");
}

// desired states and phases that do not go together

#[rstest]
fn a_wish_for_awake_that_was_edited_by_hand_is_a_wake(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    assert_eq!(
        rolls_back(&seen(phase, DesiredState::Awake)),
        "the desired state was set to Awake"
    );
}

#[rstest]
fn a_wish_to_sleep_that_was_edited_into_a_wake_loses(
    #[values(Phase::Waking, Phase::Ready)] phase: Phase,
    #[values(DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState,
) {
    let edited = seen(phase, desired);
    let state = written(&edited);
    assert_eq!(
        (state.desired, state.phase, state.epoch),
        (DesiredState::Awake, phase, EPOCH)
    );
}
