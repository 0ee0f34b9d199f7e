//! What should become of a target: the policy of idle targets, clause by clause.

use std::time::Duration;

use dormouse_model::{Quantity, QuerySource, Scale, ScaleEvent, ScaleEventKind, Target, Trigger};
use dormouse_scaling::{Desired, Input, Rule, Sample, Seen, Standing, recommend};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::fixture::{self, now};

const WINDOW: Duration = Duration::from_secs(600);

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn target(scale: Scale, sources: &[QuerySource]) -> Target {
    let triggers = sources.iter().map(|source| Trigger {
        name: "requests".into(),
        source: *source,
        query: Err("not asked here".into()),
        window: WINDOW,
        threshold: Quantity::ZERO,
    });
    Target {
        scale,
        wake_on: vec!["web".into()],
        triggers: triggers.collect(),
        ..fixture::target()
    }
}

fn observed() -> Target {
    target(Scale::Workloads(vec![]), &[QuerySource::ObservedTraffic])
}

fn input(sample: &str, observed: bool) -> Input {
    Input {
        rule: Rule {
            metric: "requests".into(),
            window: WINDOW,
            threshold: Quantity::ZERO,
        },
        sample: match sample {
            "none" => Sample::NoData("not observed yet".into()),
            "error" => Sample::Error("503".into()),
            value => Sample::Value(value.parse().unwrap()),
        },
        observed,
        changes_at: None,
    }
}

fn seen(inputs: &[Input], standing: Standing) -> Seen<'_> {
    Seen {
        inputs,
        standing,
        since: Some(after(-3600)),
        wakes: &[],
        observe_not_before: None,
        settle: Duration::from_secs(10),
        scale: None,
        now: now(),
    }
}

const BEGUN: bool = true;

#[rstest]
#[case::idle("0", Standing::Awake, Desired::Zero)]
#[case::idle_and_observed("0", Standing::Observed { begun: BEGUN }, Desired::Zero)]
#[case::idle_and_asked_already("0", Standing::Asleep { begun: false }, Desired::Hold)]
#[case::idle_on_its_way("0", Standing::Asleep { begun: BEGUN }, Desired::Hold)]
#[case::in_use("1", Standing::Awake, Desired::Hold)]
#[case::in_use_while_observed("1", Standing::Observed { begun: BEGUN }, Desired::Activate)]
#[case::in_use_on_its_way("1", Standing::Asleep { begun: BEGUN }, Desired::Activate)]
#[case::in_use_and_nothing_begun("1", Standing::Asleep { begun: false }, Desired::Hold)]
#[case::unknown("none", Standing::Awake, Desired::Observe)]
#[case::unknown_while_observed("none", Standing::Observed { begun: BEGUN }, Desired::Hold)]
#[case::unknown_while_waking("none", Standing::Waking, Desired::Hold)]
#[case::failed("error", Standing::Awake, Desired::Hold)]
#[case::failed_on_its_way("error", Standing::Asleep { begun: BEGUN }, Desired::Hold)]
fn observed_traffic(#[case] sample: &str, #[case] standing: Standing, #[case] desired: Desired) {
    let inputs = [input(sample, true)];
    assert_eq!(recommend(&observed(), &seen(&inputs, standing)).desired, desired);
}

#[test]
fn a_platform_is_asked_to_sleep_and_nothing_else() {
    let platform = target(Scale::Platform, &[QuerySource::Custom]);
    for (sample, desired) in [
        ("0", Desired::Zero),
        ("1", Desired::Hold),
        ("none", Desired::Hold),
    ] {
        let inputs = [input(sample, false)];
        let standing = Standing::Asleep { begun: BEGUN };
        assert_eq!(
            recommend(&platform, &seen(&inputs, standing)).desired,
            desired,
            "{sample}"
        );
    }
}

#[test]
fn observing_stops_when_no_trigger_asks_for_it() {
    let other = target(Scale::Workloads(vec![]), &[QuerySource::Custom]);
    let inputs = [input("none", false)];
    let standing = Standing::Observed { begun: BEGUN };
    assert_eq!(
        recommend(&other, &seen(&inputs, standing)).desired,
        Desired::StopObserving
    );
}

#[rstest]
#[case::at_once(None, 3600, Desired::Observe)]
#[case::not_before(Some(1), 3600, Desired::Hold)]
#[case::from_then_on(Some(0), 3600, Desired::Observe)]
#[case::just_declared(None, 9, Desired::Hold)]
#[case::settled(None, 10, Desired::Observe)]
fn observing_waits_for_its_time(#[case] not_before: Option<i64>, #[case] age: i64, #[case] desired: Desired) {
    let inputs = [input("none", true)];
    let seen = Seen {
        observe_not_before: not_before.map(after),
        since: Some(after(-age)),
        ..seen(&inputs, Standing::Awake)
    };
    assert_eq!(recommend(&observed(), &seen).desired, desired);
}

#[test]
fn the_moment_to_look_again_is_the_end_of_the_last_window_that_is_open() {
    let at = |seconds| Input {
        changes_at: Some(after(seconds)),
        ..input("none", true)
    };
    let standing = Standing::Observed { begun: BEGUN };
    let moment = |inputs: &[Input]| recommend(&observed(), &seen(inputs, standing)).look_again;
    assert_eq!(moment(&[at(5)]), Some(after(5)));
    assert_eq!(moment(&[at(5), at(9), input("0", false)]), Some(after(9)));
    assert_eq!(
        moment(&[at(5), input("1", false)]),
        None,
        "nobody knows until when it is used"
    );
    assert_eq!(
        moment(&[at(-1)]),
        None,
        "what has passed is no moment to wait for"
    );
    assert_eq!(moment(&[input("0", false)]), None);
}

#[test]
fn after_a_wake_it_is_the_end_of_the_largest_window() {
    let wakes = [ScaleEvent {
        kind: ScaleEventKind::ScaleFromZeroCompleted,
        at: Some(after(-60)),
    }];
    let inputs = [input("0", false)];
    let seen = Seen {
        wakes: &wakes,
        ..seen(&inputs, Standing::Awake)
    };
    let recommended = recommend(&observed(), &seen);
    assert_eq!(recommended.desired, Desired::Hold);
    assert_eq!(recommended.look_again, Some(after(540)));
}
