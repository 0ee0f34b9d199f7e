//! When to look at traffic again.

use std::collections::BTreeSet;
use std::time::Duration;

use dormouse_lifecycle::{Look, LookPolicy, SleeperState, Wish, request_wake};
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
fn those_that_woke_as_often_do_not_look_at_once() {
    let first_looks: BTreeSet<_> = (0..20_u64)
        .map(|number| {
            let mut ready = seen(Phase::Ready, Wish::Awake);
            ready.services[0].own_slice = None;
            // As far apart as hashes of names.
            ready.seed = number.wrapping_mul(0x5851_F42D_4C95_7F2D);
            written(&ready).look.not_before
        })
        .collect();
    assert!(first_looks.len() > 10, "{first_looks:?}");

    let observing = state(Phase::Observing, Wish::Observed);
    let disturbed = |seed| {
        request_wake(&observing, now(), "a request", policy(), seed)
            .unwrap()
            .look
    };
    assert_ne!(disturbed(1), disturbed(2));
    let again = SleeperState {
        epoch: observing.epoch + 1,
        ..observing.clone()
    };
    let once_more = request_wake(&again, now(), "a request", policy(), 1)
        .unwrap()
        .look;
    assert_ne!(disturbed(1), once_more, "and not always the same one first");
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
