//! Two Sleepers that name one thing: who owns it, and what the other one does, in every phase.

use dormouse_lifecycle::{Claimant, DesiredState, Precedence, Rival, Selector, Step, WaitReason, owner};
use dormouse_model::{ObjectRef, Phase};
use proptest::prelude::*;
use rstest::rstest;

use crate::fixture::*;

fn claimant(name: &str, created: i64, phase: Phase, services: &[&str]) -> Claimant {
    Claimant {
        name: name.into(),
        created: Some(ago(created)),
        phase,
        deleting: false,
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        workloads: Vec::new(),
    }
}

fn owned_by(me: &Claimant, others: &[Claimant]) -> Option<String> {
    owner(me, others).map(|rival| rival.sleeper)
}

#[test]
fn field_a_the_older_of_two_that_are_awake_owns() {
    let older = claimant("z", 20, Phase::Awake, &["web"]);
    let younger = claimant("a", 10, Phase::Awake, &["web", "api"]);
    let all = [older.clone(), younger.clone()];
    assert_eq!(owned_by(&older, &all), None);
    let rival = owner(&younger, &all).unwrap();
    assert_eq!(
        rival.explain(),
        "Service web belongs to Sleeper z, which is older"
    );
}

#[test]
fn of_two_of_one_second_the_name_decides() {
    let one = claimant("a", 10, Phase::Awake, &["web"]);
    let other = claimant("b", 10, Phase::Awake, &["web"]);
    assert_eq!(owned_by(&one, std::slice::from_ref(&other)), None);
    assert_eq!(owned_by(&other, &[one]).as_deref(), Some("a"));
}

#[rstest]
fn who_holds_it_keeps_it_from_an_older_one_until_it_is_awake(
    #[values(
        Phase::Diverting,
        Phase::Observing,
        Phase::Draining,
        Phase::Asleep,
        Phase::Waking,
        Phase::Ready
    )]
    phase: Phase,
    #[values(false, true)] deleting: bool,
) {
    let older = claimant("old", 20, Phase::Awake, &["web"]);
    let mut younger = claimant("young", 10, phase, &["web"]);
    younger.deleting = deleting;
    let rival = owner(&older, std::slice::from_ref(&younger)).unwrap();
    assert_eq!(rival.because, Precedence::Holds);
    assert!(rival.explain().contains("taken it before"), "{}", rival.explain());
    younger.phase = Phase::Awake;
    assert_eq!(owned_by(&older, &[younger]), None);
}

#[test]
fn one_that_goes_and_holds_nothing_stands_in_nobodys_way() {
    let mut older = claimant("old", 20, Phase::Awake, &["web"]);
    older.deleting = true;
    assert_eq!(
        owned_by(&claimant("young", 10, Phase::Awake, &["web"]), &[older]),
        None
    );
}

#[test]
fn author_01_one_workload_of_two_plugins_has_one_owner_whatever_its_services() {
    let deployment = |version: &str| ObjectRef {
        api_version: version.into(),
        ..web()
    };
    let mut older = claimant("web.one", 20, Phase::Awake, &["web"]);
    older.workloads = vec![deployment("apps/v1")];
    let mut younger = claimant("web.two", 10, Phase::Awake, &["other"]);
    younger.workloads = vec![deployment("apps/v1beta2")];
    let rival = owner(&younger, std::slice::from_ref(&older)).unwrap();
    assert_eq!(
        (rival.sleeper.as_str(), rival.what.as_str()),
        ("web.one", "Deployment web")
    );
    younger.workloads = vec![deployment("example.com/v1")];
    assert_eq!(
        owned_by(&younger, &[older]),
        None,
        "another kind of the same name"
    );
}

#[test]
fn one_that_is_refused_stands_in_nobodys_way() {
    let first = claimant("1", 30, Phase::Awake, &["a"]);
    let second = claimant("2", 20, Phase::Awake, &["a", "b"]);
    let third = claimant("3", 10, Phase::Awake, &["b"]);
    let all = [first.clone(), second.clone(), third.clone()];
    assert_eq!(owned_by(&first, &all), None);
    assert_eq!(owned_by(&second, &all).as_deref(), Some("1"));
    assert_eq!(owned_by(&third, &all), None);
    assert_eq!(
        owned_by(&third, &all[1..]).as_deref(),
        Some("2"),
        "the first has gone"
    );
}

fn any_claimant(index: usize) -> impl Strategy<Value = Claimant> {
    let phase = prop::sample::select(vec![Phase::Awake, Phase::Diverting, Phase::Asleep, Phase::Waking]);
    let services = prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..=3);
    (0_i64..3, phase, services, any::<bool>()).prop_map(move |(created, phase, services, deleting)| {
        Claimant {
            deleting,
            ..claimant(&format!("s{index}"), created, phase, &services)
        }
    })
}

proptest! {
    /// Whatever is named has at most one owner, whatever the order in which the Sleepers are listed; and who owns nothing is told of
    /// somebody who does own.
    #[test]
    fn nothing_has_two_owners(
        all in (0_usize..6).prop_flat_map(|count| (0..count).map(any_claimant).collect::<Vec<_>>()),
    ) {
        let mut reversed = all.clone();
        reversed.reverse();
        let mut owned = std::collections::BTreeSet::new();
        for one in &all {
            prop_assert_eq!(owner(one, &all), owner(one, &reversed));
            match owner(one, &all) {
                None if one.deleting && one.phase == Phase::Awake => {}
                None => for service in &one.services {
                    prop_assert!(owned.insert(service.clone()), "{} has two owners", service);
                },
                Some(rival) => {
                    let rival = all.iter().find(|other| other.name == rival.sleeper).expect("it exists");
                    prop_assert_eq!(owner(rival, &all), None);
                }
            }
        }
    }
}

// what it does about it

fn rival() -> Rival {
    Rival {
        sleeper: "web.other".into(),
        what: "Service web".into(),
        because: Precedence::Older,
    }
}

#[rstest]
fn field_a_the_loser_turns_back_wherever_it_stands(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut seen = seen(phase, DesiredState::Asleep);
    seen.rival = Some(rival());
    assert!(rolls_back(&seen).contains("web.other"));
}

#[rstest]
fn author_02_what_left_its_grant_turns_back_wherever_it_stands(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut seen = seen(phase, DesiredState::Asleep);
    seen.denied = Some("plugin workloads is not granted to".into());
    assert!(rolls_back(&seen).contains("is not granted"));
}

#[rstest]
fn field_a_a_wish_of_the_loser_is_refused_with_the_owner(
    #[values(DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState,
) {
    let mut seen = seen(Phase::Awake, desired);
    seen.rival = Some(rival());
    let state = written(&seen);
    assert_eq!((state.phase, state.desired), (Phase::Awake, DesiredState::Awake));
    assert!(state.reason.contains("web.other"), "{}", state.reason);
}

/// What the other one holds: parked, with its slice in it, its workload at zero.
fn hold(seen: &mut dormouse_lifecycle::Observation) {
    seen.services[0].held_by = Some("web.other".into());
    seen.services[0].selector = Some(Selector::Parked(labels()));
    seen.services[0].own_slice = Some(stale_slice());
    seen.workloads[0].held_by = Some("web.other".into());
    seen.workloads[0].replicas = 0;
    seen.workloads[0].noted = Some(3);
}

#[rstest]
fn field_a_nobody_writes_what_another_one_holds(
    #[values(
        Phase::Awake,
        Phase::Diverting,
        Phase::Observing,
        Phase::Draining,
        Phase::Asleep,
        Phase::Waking,
        Phase::Ready
    )]
    phase: Phase,
    #[values(DesiredState::Awake, DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState,
    #[values(false, true)] loses: bool,
    #[values(false, true)] deleting: bool,
) {
    let mut seen = seen(phase, desired);
    hold(&mut seen);
    seen.rival = loses.then(rival);
    seen.deleting = deleting;
    if let dormouse_lifecycle::Next::Act(steps) = dormouse_lifecycle::next(&seen, &timings()) {
        let touched = |step: &Step| !matches!(step, Step::SetState(_) | Step::RemoveFinalizer);
        assert!(!steps.iter().any(touched), "{steps:?}");
    }
}

#[test]
fn field_a_the_loser_that_is_awake_is_settled_beside_what_another_one_parked() {
    let mut seen = seen(Phase::Awake, DesiredState::Awake);
    hold(&mut seen);
    seen.rival = Some(rival());
    assert!(settled(&seen));
}

#[test]
fn the_owner_waits_for_what_the_other_one_gives_back() {
    let mut seen = seen(Phase::Diverting, DesiredState::Asleep);
    hold(&mut seen);
    assert!(matches!(waits(&seen), (WaitReason::Held(what), Some(_)) if what.contains("web.other")));
    seen.state.since = Some(ago(60));
    assert!(rolls_back(&seen).contains("web.other"), "but not for ever");
}

#[rstest]
fn a_service_with_pods_of_somebody_else_is_not_taken_from_them(
    #[values(Phase::Diverting, Phase::Observing, Phase::Draining, Phase::Asleep)] phase: Phase,
) {
    let mut diverted = seen(phase, DesiredState::Asleep);
    diverted.services[0].foreign = Some("Deployment web-canary".into());
    assert!(rolls_back(&diverted).contains("Deployment web-canary"));
    let mut begins = seen(Phase::Awake, DesiredState::Asleep);
    begins.services[0].foreign = Some("Deployment web-canary".into());
    assert!(written(&begins).reason.contains("Deployment web-canary"));
}
