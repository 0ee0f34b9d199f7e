//! When to check traffic again.

use std::collections::BTreeSet;
use std::time::Duration;

use dormouse_lifecycle::{DesiredState, SleeperState, TrafficCheck, TrafficCheckPolicy, request_wake};
use dormouse_model::Phase;
use jiff::SignedDuration;
use proptest::prelude::*;

use crate::fixture::*;

fn policy() -> TrafficCheckPolicy {
    timings().traffic_check
}

fn wait(check: TrafficCheck) -> Duration {
    Duration::try_from(check.not_before.unwrap().duration_since(now())).unwrap()
}

#[test]
fn each_disturbed_check_doubles_the_wait_up_to_the_longest() {
    let mut check = TrafficCheck::default();
    for disturbed in 1..40_u32 {
        check = policy().disturbed(check, now(), 3);
        assert_eq!(check.disturbed, disturbed);
        let doubled = (policy().settle * 2_u32.pow(disturbed.min(20))).min(policy().longest);
        assert!(
            wait(check) >= doubled * 8 / 10 && wait(check) <= doubled * 12 / 10,
            "{disturbed}: {:?}",
            wait(check)
        );
    }
}

#[test]
fn a_check_that_was_disturbed_waits_and_a_sleep_starts_over() {
    let mut observing = state(Phase::Observing, DesiredState::Observed);
    observing.traffic_check.disturbed = 3;
    let disturbed = request_wake(&observing, now(), "a request", policy(), 0).unwrap();
    assert_eq!(disturbed.traffic_check.disturbed, 4);
    assert!(wait(disturbed.traffic_check) > Duration::from_secs(100));

    let mut asleep = state(Phase::Asleep, DesiredState::Asleep);
    asleep.traffic_check = disturbed.traffic_check;
    let woken = request_wake(&asleep, now(), "a request", policy(), 0).unwrap();
    assert_eq!(woken.traffic_check, TrafficCheck::default());
}

#[test]
fn those_that_woke_as_often_are_not_checked_at_once() {
    let first_checks: BTreeSet<_> = (0..20_u64)
        .map(|number| {
            let mut ready = seen(Phase::Ready, DesiredState::Awake);
            ready.services[0].own_slice = None;
            // As far apart as hashes of names.
            ready.seed = number.wrapping_mul(0x5851_F42D_4C95_7F2D);
            written(&ready).traffic_check.not_before
        })
        .collect();
    assert!(first_checks.len() > 10, "{first_checks:?}");

    let observing = state(Phase::Observing, DesiredState::Observed);
    let disturbed = |seed| {
        request_wake(&observing, now(), "a request", policy(), seed)
            .unwrap()
            .traffic_check
    };
    assert_ne!(disturbed(1), disturbed(2));
    let again = SleeperState {
        epoch: observing.epoch + 1,
        ..observing.clone()
    };
    let once_more = request_wake(&again, now(), "a request", policy(), 1)
        .unwrap()
        .traffic_check;
    assert_ne!(disturbed(1), once_more, "and not always the same one first");
}

#[test]
fn the_first_check_after_a_wake_waits_until_things_have_settled() {
    let mut ready = seen(Phase::Ready, DesiredState::Awake);
    ready.services[0].own_slice = None;
    let check = written(&ready).traffic_check;
    assert_eq!(check.disturbed, 0);
    assert!(wait(check) >= Duration::from_secs(8) && wait(check) <= Duration::from_secs(12));

    ready.state.traffic_check = TrafficCheck {
        disturbed: 2,
        not_before: Some(in_secs(33)),
    };
    assert_eq!(
        written(&ready).traffic_check,
        ready.state.traffic_check,
        "a back-off that is under way goes on"
    );
}

proptest! {
    #[test]
    fn the_wait_is_within_a_fifth_and_never_overflows(disturbed: u32, seed: u64) {
        let check = policy().disturbed(TrafficCheck { disturbed, not_before: None }, now(), seed);
        let longest = policy().longest;
        prop_assert!(wait(check) <= longest * 12 / 10);
        prop_assert!(wait(check) >= policy().settle * 16 / 10);
        prop_assert_eq!(check.disturbed, disturbed.saturating_add(1));
    }

    #[test]
    fn seeds_spread_the_waits(seed in 0_u64..1_000_000) {
        let waits: std::collections::BTreeSet<_> =
            (seed..seed + 20).map(|seed| policy().settled(now(), seed).not_before).collect();
        prop_assert!(waits.len() > 10, "only {} of 20 differ", waits.len());
    }

    #[test]
    fn the_end_of_time_is_no_problem(seed: u64) {
        let policy = TrafficCheckPolicy { settle: Duration::MAX, longest: Duration::MAX };
        let end = jiff::Timestamp::MAX - SignedDuration::from_secs(1);
        prop_assert!(policy.settled(end, seed).not_before.unwrap() >= end);
    }
}
