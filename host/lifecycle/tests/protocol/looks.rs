//! When to look at traffic again.

use std::time::Duration;

use dormouse_lifecycle::{Look, LookPolicy, Wish, request_wake};
use dormouse_model::Phase;
use jiff::SignedDuration;
use proptest::prelude::*;

use crate::fixture::*;

fn policy() -> LookPolicy {
    timings().look
}

fn wait(look: Look) -> Duration {
    Duration::try_from(look.not_before.unwrap().duration_since(now())).unwrap()
}

#[test]
fn each_disturbed_look_doubles_the_wait_up_to_the_longest() {
    let mut look = Look::default();
    for disturbed in 1..40_u32 {
        look = policy().disturbed(look, now(), 3);
        assert_eq!(look.disturbed, disturbed);
        let doubled = (policy().settle * 2_u32.pow(disturbed.min(20))).min(policy().longest);
        assert!(
            wait(look) >= doubled * 8 / 10 && wait(look) <= doubled * 12 / 10,
            "{disturbed}: {:?}",
            wait(look)
        );
    }
}

#[test]
fn a_look_that_was_disturbed_waits_and_a_sleep_starts_over() {
    let mut observing = state(Phase::Observing, Wish::Observed);
    observing.look.disturbed = 3;
    let disturbed = request_wake(&observing, now(), "a request", policy(), 0).unwrap();
    assert_eq!(disturbed.look.disturbed, 4);
    assert!(wait(disturbed.look) > Duration::from_secs(100));

    let mut asleep = state(Phase::Asleep, Wish::Asleep);
    asleep.look = disturbed.look;
    let woken = request_wake(&asleep, now(), "a request", policy(), 0).unwrap();
    assert_eq!(woken.look, Look::default());
}

#[test]
fn the_first_look_after_a_wake_waits_until_things_have_settled() {
    let mut ready = seen(Phase::Ready, Wish::Awake);
    ready.services[0].own_slice = None;
    let look = written(&ready).look;
    assert_eq!(look.disturbed, 0);
    assert!(wait(look) >= Duration::from_secs(8) && wait(look) <= Duration::from_secs(12));

    ready.state.look = Look {
        disturbed: 2,
        not_before: Some(in_secs(33)),
    };
    assert_eq!(
        written(&ready).look,
        ready.state.look,
        "a back-off that is under way goes on"
    );
}

proptest! {
    #[test]
    fn the_wait_is_within_a_fifth_and_never_overflows(disturbed: u32, seed: u64) {
        let look = policy().disturbed(Look { disturbed, not_before: None }, now(), seed);
        let longest = policy().longest;
        prop_assert!(wait(look) <= longest * 12 / 10);
        prop_assert!(wait(look) >= policy().settle * 16 / 10);
        prop_assert_eq!(look.disturbed, disturbed.saturating_add(1));
    }

    #[test]
    fn seeds_spread_the_waits(seed in 0_u64..1_000_000) {
        let waits: std::collections::BTreeSet<_> =
            (seed..seed + 20).map(|seed| policy().settled(now(), seed).not_before).collect();
        prop_assert!(waits.len() > 10, "only {} of 20 differ", waits.len());
    }

    #[test]
    fn the_end_of_time_is_no_problem(seed: u64) {
        let policy = LookPolicy { settle: Duration::MAX, longest: Duration::MAX };
        let end = jiff::Timestamp::MAX - SignedDuration::from_secs(1);
        prop_assert!(policy.settled(end, seed).not_before.unwrap() >= end);
    }
}
