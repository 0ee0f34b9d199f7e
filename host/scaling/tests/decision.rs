//! The idle decision, clause by clause.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Duration;

use dormouse_model::{Quantity, ScaleEvent, ScaleEventKind};
use dormouse_scaling::{Decision, Input, KeepReason, Rule, Sample, Verdict, decide};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rstest::rstest;

const MINUTE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn ago(span: Duration) -> Timestamp {
    now() - SignedDuration::try_from(span).unwrap()
}

fn rule(metric: &str, window: Duration, threshold: &str) -> Rule {
    Rule {
        metric: metric.into(),
        window,
        threshold: threshold.parse().unwrap(),
    }
}

fn read(text: &str) -> Sample {
    match text {
        "none" => Sample::NoData("no series".into()),
        "error" => Sample::Error("503 from the metrics API".into()),
        value => Sample::Value(value.parse().unwrap()),
    }
}

fn input(metric: &str, window: Duration, threshold: &str, reading: &str) -> Input {
    Input {
        rule: rule(metric, window, threshold),
        sample: read(reading),
        observed: false,
        changes_at: None,
    }
}

/// Rules that share a window of ten minutes: (threshold, reading).
fn inputs(rules: &[(&str, &str)]) -> Vec<Input> {
    let named = rules.iter().enumerate();
    named
        .map(|(i, (threshold, reading))| input(&format!("m{i}"), 10 * MINUTE, threshold, reading))
        .collect()
}

// idle iff ALL rules are at or below the threshold; missing data or an error keeps it awake; no rules are never idle

#[rstest]
#[case::at_the_threshold(&[("0", "0")], "Idle")]
#[case::below(&[("5", "4999m")], "Idle")]
#[case::equal_in_other_units(&[("1", "1000m")], "Idle")]
#[case::above(&[("0", "1n")], "InUse")]
#[case::milli_units_are_not_units(&[("1", "500m")], "Idle")]
#[case::units_are_not_milli_units(&[("1", "2")], "InUse")]
#[case::binary_suffix(&[("1000", "1Ki")], "InUse")]
#[case::exponent(&[("1e3", "1000")], "Idle")]
#[case::negative(&[("0", "-1")], "Idle")]
#[case::all_of_two(&[("0", "0"), ("10", "10")], "Idle")]
#[case::first_of_two_in_use(&[("0", "1"), ("10", "10")], "InUse")]
#[case::second_of_two_in_use(&[("0", "0"), ("10", "11")], "InUse")]
#[case::no_data(&[("0", "none")], "NoData")]
#[case::no_data_beside_idle(&[("0", "0"), ("0", "none")], "NoData")]
#[case::error(&[("0", "error")], "Error")]
#[case::error_beside_idle(&[("0", "error"), ("0", "0")], "Error")]
#[case::error_is_named_before_no_data(&[("0", "none"), ("0", "error")], "Error")]
#[case::in_use_is_named_before_error(&[("0", "error"), ("0", "1")], "InUse")]
#[case::no_rules(&[], "NoRules")]
fn readings(#[case] rules: &[(&str, &str)], #[case] outcome: &str) {
    assert_eq!(decide(&inputs(rules), &[], now()).outcome(), outcome);
}

// debounce by the largest window after an update or a wake

#[rstest]
#[case::just_updated(ScaleEventKind::ResourceUpdated, 0, "Debounced")]
#[case::last_moment(ScaleEventKind::ResourceUpdated, 3_599, "Debounced")]
#[case::the_window_has_passed(ScaleEventKind::ResourceUpdated, 3_600, "Idle")]
#[case::wake_started(ScaleEventKind::ScaleFromZeroStarted, 3_599, "Debounced")]
#[case::wake_started_long_ago(ScaleEventKind::ScaleFromZeroStarted, 3_600, "Idle")]
#[case::wake_completed(ScaleEventKind::ScaleFromZeroCompleted, 3_599, "Debounced")]
#[case::wake_completed_long_ago(ScaleEventKind::ScaleFromZeroCompleted, 3_600, "Idle")]
#[case::sleep_started(ScaleEventKind::ScaleToZeroStarted, 0, "Idle")]
#[case::sleep_completed(ScaleEventKind::ScaleToZeroCompleted, 0, "Idle")]
fn debounce(#[case] kind: ScaleEventKind, #[case] seconds_ago: u64, #[case] outcome: &str) {
    // The largest of three windows counts, wherever it stands.
    let rules = [
        input("a", 10 * MINUTE, "0", "0"),
        input("b", 60 * MINUTE, "0", "0"),
        input("c", MINUTE, "0", "0"),
    ];
    let event = ScaleEvent {
        kind,
        at: Some(ago(Duration::from_secs(seconds_ago))),
    };
    assert_eq!(decide(&rules, &[event], now()).outcome(), outcome);
}

#[test]
fn an_event_in_the_future_counts_as_now() {
    let event = ScaleEvent {
        kind: ScaleEventKind::ResourceUpdated,
        at: Some(now() + SignedDuration::from_hours(9)),
    };
    assert_eq!(
        decide(&inputs(&[("0", "0")]), &[event], now()).outcome(),
        "Debounced"
    );
}

#[rstest]
fn an_event_without_a_time_keeps_awake_if_its_kind_debounces(
    #[values(
        ScaleEventKind::ResourceUpdated,
        ScaleEventKind::ScaleFromZeroStarted,
        ScaleEventKind::ScaleFromZeroCompleted,
        ScaleEventKind::ScaleToZeroStarted,
        ScaleEventKind::ScaleToZeroCompleted
    )]
    kind: ScaleEventKind,
) {
    let decision = decide(&inputs(&[("0", "0")]), &[ScaleEvent { kind, at: None }], now());
    if kind.debounces() {
        assert_eq!(decision, Decision::Keep(KeepReason::UndatedEvent { event: kind }));
    } else {
        assert!(decision.is_idle());
    }
}

#[test]
fn of_several_events_the_latest_is_named_and_each_counts() {
    let event = |kind, minutes| ScaleEvent {
        kind,
        at: Some(ago(minutes * MINUTE)),
    };
    let rules = inputs(&[("0", "0")]);
    let old = event(ScaleEventKind::ResourceUpdated, 90);
    let started = event(ScaleEventKind::ScaleFromZeroStarted, 8);
    let completed = event(ScaleEventKind::ScaleFromZeroCompleted, 7);
    assert_eq!(
        decide(&rules, &[old, completed, started], now()),
        Decision::Keep(KeepReason::Debounced {
            event: ScaleEventKind::ScaleFromZeroCompleted,
            at: ago(7 * MINUTE),
            window: 10 * MINUTE
        })
    );
    assert!(decide(&rules, &[old], now()).is_idle());
}

#[test]
fn a_window_without_end_never_ends() {
    let rules = [input("a", Duration::MAX, "0", "0")];
    let event = ScaleEvent {
        kind: ScaleEventKind::ResourceUpdated,
        at: Some(Timestamp::MIN),
    };
    assert_eq!(decide(&rules, &[event], now()).outcome(), "Debounced");
    assert!(decide(&rules, &[], now()).is_idle());
}

// the reason names rule and reading, for people

#[rstest]
#[case(&[("0", "0"), ("2", "1500m")], &[], "idle: m0 over 10m is 0; m1 over 10m is 1500m")]
#[case(&[("0", "0"), ("2", "3")], &[], "awake: m1 over 10m is 3, above the threshold 2")]
#[case(&[("0", "none")], &[], "awake: m0 over 10m has no data: no series")]
#[case(&[("0", "error")], &[], "awake: m0 over 10m cannot be read: 503 from the metrics API")]
#[case(&[], &[], "awake: it has no rules, so nothing says that it is idle")]
#[case(
    &[("0", "0")],
    &[ScaleEvent { kind: ScaleEventKind::ResourceUpdated, at: Some(now()) }],
    "awake: resourceUpdated at 2026-03-01T12:00:00Z is less than 10m ago"
)]
#[case(
    &[("0", "0")],
    &[ScaleEvent { kind: ScaleEventKind::ScaleFromZeroStarted, at: None }],
    "awake: scaleFromZeroStarted at an unknown time, which may have been just now"
)]
fn said_to_people(#[case] rules: &[(&str, &str)], #[case] events: &[ScaleEvent], #[case] text: &str) {
    assert_eq!(decide(&inputs(rules), events, now()).to_string(), text);
}

#[rstest]
#[case("3", "requests over 1m30s: 3, threshold 500m")]
#[case("none", "requests over 1m30s: no data (no series), threshold 500m")]
#[case(
    "error",
    "requests over 1m30s: error (503 from the metrics API), threshold 500m"
)]
fn an_input_is_one_line(#[case] reading: &str, #[case] line: &str) {
    assert_eq!(
        input("requests", Duration::from_secs(90), "500m", reading).to_string(),
        line
    );
}

#[test]
fn event_names_are_those_of_v3io() {
    for kind in ScaleEventKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
    }
    assert!("scaled".parse::<ScaleEventKind>().is_err());
}

// the same sentence for whatever input

fn any_reading() -> impl Strategy<Value = Sample> {
    prop_oneof![
        4 => (0_u64..4).prop_map(|value| Sample::Value(Quantity::from(value))),
        1 => Just(Sample::NoData("".into())),
        1 => Just(Sample::Error("broken".into())),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    (any_reading(), 0_u64..4, 0_u64..20).prop_map(|(reading, threshold, minutes)| Input {
        rule: Rule {
            metric: "m".into(),
            window: Duration::from_secs(60 * minutes),
            threshold: Quantity::from(threshold),
        },
        sample: reading,
        observed: false,
        changes_at: None,
    })
}

fn any_event() -> impl Strategy<Value = ScaleEvent> {
    let at = prop_oneof![
        Just(None),
        (-5_i64..30).prop_map(|minutes| Some(now() - SignedDuration::from_mins(minutes))),
    ];
    (prop::sample::select(&ScaleEventKind::ALL[..]), at).prop_map(|(kind, at)| ScaleEvent { kind, at })
}

proptest! {
    #[test]
    fn idle_means_the_whole_sentence(
        inputs in prop::collection::vec(any_input(), 0..5),
        events in prop::collection::vec(any_event(), 0..3),
    ) {
        let largest = inputs.iter().map(|input| input.rule.window).max();
        let all_at_or_below = inputs.iter().all(|input| match &input.sample {
            Sample::Value(value) => *value <= input.rule.threshold,
            Sample::NoData(_) | Sample::Error(_) => false,
        });
        let left_alone = events.iter().any(|event| {
            event.kind.debounces()
                && event.at.is_none_or(|at| {
                    now().duration_since(at) < SignedDuration::try_from(largest.unwrap_or_default()).unwrap()
                })
        });
        let expected = !inputs.is_empty() && all_at_or_below && !left_alone;
        prop_assert_eq!(decide(&inputs, &events, now()).is_idle(), expected);
    }

    #[test]
    fn more_rules_or_events_never_make_it_idle(
        inputs in prop::collection::vec(any_input(), 1..5),
        events in prop::collection::vec(any_event(), 0..3),
        more in any_input(),
        event in any_event(),
    ) {
        let before = decide(&inputs, &events, now()).is_idle();
        let more_rules: Vec<_> = inputs.iter().cloned().chain([more]).collect();
        let more_events: Vec<_> = events.iter().copied().chain([event]).collect();
        prop_assert!(before || !decide(&more_rules, &events, now()).is_idle());
        prop_assert!(before || !decide(&inputs, &more_events, now()).is_idle());
    }

    #[test]
    fn the_order_of_rules_does_not_matter(
        (left, right) in prop::collection::vec(any_input(), 0..5)
            .prop_flat_map(|inputs| (Just(inputs.clone()), Just(inputs).prop_shuffle())),
        events in prop::collection::vec(any_event(), 0..3),
    ) {
        let outcome = |inputs: &[Input]| decide(inputs, &events, now()).outcome();
        prop_assert_eq!(outcome(&left), outcome(&right));
    }

    #[test]
    fn time_alone_ends_the_debounce(inputs in prop::collection::vec(any_input(), 1..4), event in any_event()) {
        prop_assume!(event.at.is_some());
        let later = now() + SignedDuration::from_hours(2);
        let without = decide(&inputs, &[], later);
        prop_assert_eq!(decide(&inputs, &[event], later), without);
    }

    #[test]
    fn the_reason_names_a_rule_that_is_there(inputs in prop::collection::vec(any_input(), 0..5)) {
        match decide(&inputs, &[], now()) {
            Decision::Idle { inputs: named } => prop_assert_eq!(named, inputs),
            Decision::Keep(KeepReason::InUse { rule, value }) => {
                prop_assert!(value > rule.threshold);
                let named = Input { rule, sample: Sample::Value(value), observed: false, changes_at: None };
                prop_assert!(inputs.contains(&named));
            }
            Decision::Keep(KeepReason::Error { rule, .. }) => {
                prop_assert!(inputs.iter().any(|i| i.rule == rule && i.verdict() == Verdict::Error));
                prop_assert!(inputs.iter().all(|i| i.verdict() != Verdict::InUse));
            }
            Decision::Keep(KeepReason::NoData { rule, .. }) => {
                prop_assert!(inputs.iter().any(|i| i.rule == rule && i.verdict() == Verdict::NoData));
            }
            Decision::Keep(KeepReason::NoRules) => prop_assert!(inputs.is_empty()),
            Decision::Keep(other) => prop_assert!(false, "{other:?} without an event"),
        }
    }
}
