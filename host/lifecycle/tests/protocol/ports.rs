//! Which DLX port stands in for which Service port.

use std::collections::BTreeSet;

use dormouse_lifecycle::{Claim, DivertedPort, PortRange, PortsExhausted, allocate};
use jiff::Timestamp;
use proptest::prelude::*;

use crate::fixture::{ago, port};

const RANGE: PortRange = PortRange {
    first: 20_000,
    last: 20_009,
};

fn name(name: &str) -> (String, String) {
    ("default".to_owned(), name.to_owned())
}

fn claim(sleeper: &str, created: Option<Timestamp>, dlx_port: u16) -> Claim {
    Claim {
        sleeper: name(sleeper),
        created,
        dlx_port,
    }
}

/// The oldest claim of another Sleeper to a port.
fn of_others<'a>(me: &'a (String, String), claims: &'a [Claim]) -> impl Fn(u16) -> Option<Claim> + 'a {
    |port| {
        let claims = claims
            .iter()
            .filter(|claim| claim.dlx_port == port && claim.sleeper != *me);
        claims
            .min_by_key(|claim| (claim.created, claim.sleeper.clone()))
            .cloned()
    }
}

fn wanted(services: &[&str]) -> Vec<(String, String, u16)> {
    services
        .iter()
        .map(|service| ((*service).to_owned(), "http".to_owned(), 80))
        .collect()
}

fn numbers(ports: &[DivertedPort]) -> Vec<u16> {
    ports.iter().map(|port| port.dlx_port).collect()
}

#[test]
fn free_ports_from_where_the_seed_says() {
    let me = name("me");
    let others = [claim("other", None, 20_003), claim("other", None, 20_004)];
    let allocation = allocate(
        RANGE,
        (&me, None),
        &[],
        &wanted(&["a", "b", "c"]),
        of_others(&me, &others),
        13,
    )
    .unwrap();
    assert_eq!(numbers(&allocation.ports), [20_005, 20_006, 20_007]);
    assert_eq!(allocation.ports[1].service, "b");
    assert!(allocation.lost.is_empty());
    let round = allocate(
        RANGE,
        (&me, None),
        &[],
        &wanted(&["a", "b"]),
        of_others(&me, &[]),
        9,
    )
    .unwrap();
    assert_eq!(numbers(&round.ports), [20_009, 20_000], "it wraps");
}

#[test]
fn what_it_holds_it_keeps() {
    let me = name("me");
    let held = [port("a", 20_002), port("gone", 20_003)];
    let others = [claim("me", None, 20_002), claim("other", None, 20_005)];
    let allocation = allocate(
        RANGE,
        (&me, None),
        &held,
        &wanted(&["b", "a"]),
        of_others(&me, &others),
        2,
    )
    .unwrap();
    let mut ports = allocation.ports;
    ports.sort_by(|left, right| left.service.cmp(&right.service));
    assert_eq!(
        numbers(&ports),
        [20_002, 20_003],
        "its own claim is no obstacle, and what is not wanted is freed"
    );
}

#[test]
fn of_two_claims_the_older_wins() {
    let (old, new) = (name("old"), name("new"));
    let held = [port("a", 20_002)];
    let claims = [
        claim("old", Some(ago(100)), 20_002),
        claim("new", Some(ago(10)), 20_002),
    ];

    let kept = allocate(
        RANGE,
        (&old, Some(ago(100))),
        &held,
        &wanted(&["a"]),
        of_others(&old, &claims),
        2,
    )
    .unwrap();
    assert_eq!((numbers(&kept.ports), kept.lost), (vec![20_002], vec![]));

    let lost = allocate(
        RANGE,
        (&new, Some(ago(10))),
        &held,
        &wanted(&["a"]),
        of_others(&new, &claims),
        2,
    )
    .unwrap();
    assert_eq!((numbers(&lost.ports), lost.lost), (vec![20_003], vec![20_002]));
}

#[test]
fn of_two_claims_of_one_age_the_first_name_wins() {
    let held = [port("a", 20_002)];
    let when = Some(ago(5));
    let claims = [claim("x", when, 20_002), claim("y", when, 20_002)];
    let (x, y) = (name("x"), name("y"));
    let x = allocate(
        RANGE,
        (&x, when),
        &held,
        &wanted(&["a"]),
        of_others(&x, &claims),
        0,
    )
    .unwrap();
    let y = allocate(
        RANGE,
        (&y, when),
        &held,
        &wanted(&["a"]),
        of_others(&y, &claims),
        0,
    )
    .unwrap();
    assert_eq!((x.lost.len(), y.lost.len()), (0, 1));
}

#[test]
fn an_exhausted_range_says_what_to_do() {
    let others: Vec<_> = (20_000..=20_009).map(|port| claim("other", None, port)).collect();
    let me = name("me");
    let error = allocate(
        RANGE,
        (&me, None),
        &[],
        &wanted(&["a"]),
        of_others(&me, &others),
        0,
    )
    .unwrap_err();
    assert_eq!(error, PortsExhausted { range: RANGE });
    assert_eq!(
        error.to_string(),
        "all DLX ports from 20000 to 20009 are taken; widen the range (--dlx-ports)"
    );
    assert!(
        allocate(
            RANGE,
            (&me, None),
            &[],
            &wanted(&["a"]),
            of_others(&me, &others[1..]),
            7
        )
        .is_ok(),
        "the last one is found"
    );
}

#[test]
fn a_whole_range_up_to_the_last_port_there_is() {
    let range = PortRange {
        first: u16::MAX,
        last: u16::MAX,
    };
    let me = name("me");
    let allocation = allocate(
        range,
        (&me, None),
        &[],
        &wanted(&["a"]),
        of_others(&me, &[]),
        u64::MAX,
    )
    .unwrap();
    assert_eq!(numbers(&allocation.ports), [u16::MAX]);
}

proptest! {
    #[test]
    fn ports_are_distinct_in_range_and_nobody_elses(
        seed: u64,
        held in prop::collection::vec((0_usize..6, 20_000_u16..20_010), 0..4),
        others in prop::collection::vec((prop::option::of(0_i64..100), 20_000_u16..20_010), 0..5),
        count in 0_usize..5,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut taken = BTreeSet::new();
        let held: Vec<_> = held
            .iter()
            .filter(|(_, dlx_port)| taken.insert(*dlx_port))
            .map(|(service, dlx_port)| port(names[*service], *dlx_port))
            .collect();
        let others: Vec<_> =
            others.iter().enumerate().map(|(i, (age, port))| claim(&format!("o{i}"), age.map(ago), *port)).collect();
        let (me, created) = (name("me"), Some(ago(50)));
        let wanted = wanted(&names[..count]);
        let allocation = allocate(RANGE, (&me, created), &held, &wanted, of_others(&me, &others), seed).unwrap();
        prop_assert_eq!(allocation.ports.len(), count);
        let distinct: BTreeSet<_> = numbers(&allocation.ports).into_iter().collect();
        prop_assert_eq!(distinct.len(), count);
        for given in &allocation.ports {
            prop_assert!((RANGE.first..=RANGE.last).contains(&given.dlx_port));
            let older = |claim: &&Claim| (claim.created, &claim.sleeper) < (created, &me);
            let claims = others.iter().filter(|claim| claim.dlx_port == given.dlx_port);
            prop_assert_eq!(claims.filter(older).count(), 0, "an older claim holds {}", given.dlx_port);
            let kept = held.iter().any(|h| h.service == given.service && h.dlx_port == given.dlx_port);
            let claimed = others.iter().any(|claim| claim.dlx_port == given.dlx_port);
            prop_assert!(kept || !claimed, "{} is new and somebody else's", given.dlx_port);
        }
        for lost in &allocation.lost {
            prop_assert!(held.iter().any(|held| held.dlx_port == *lost));
            prop_assert!(!distinct.contains(lost));
        }
    }
}
