//! Activity: above the activation value, cooldowns, idle replicas, pauses.

use std::time::Duration;

use dormouse_scaling::{
    ActivationPolicy, ActivationSeen, ActivationTrigger, Activity, Bounds, LimitKind, Pause, Sample,
    ScaleDecision, activate,
};
use rstest::rstest;

use crate::fixture::{MINUTE, ago, backlog, now, round};
use dormouse_scaling::hpa::MetricReading;

fn policy(min: i32) -> ActivationPolicy {
    ActivationPolicy {
        bounds: Bounds { min, max: 10 },
        idle_replicas: None,
        cooldown: 5 * MINUTE,
        initial_cooldown: Duration::ZERO,
        forced: false,
        fallback: None,
        pause: None,
    }
}

fn seen(replicas: i32) -> ActivationSeen {
    ActivationSeen {
        replicas,
        created: Some(ago(60 * MINUTE)),
        last_active: Some(ago(10 * MINUTE)),
        now: now(),
    }
}

/// Triggers that activate above 5: `6`, `none` or `error`.
fn triggers(readings: &[&str]) -> Vec<ActivationTrigger> {
    let triggers = readings.iter().map(|reading| ActivationTrigger {
        name: "backlog".into(),
        sample: match *reading {
            "none" => Sample::NoData("no series".into()),
            "error" => Sample::Error("refused".into()),
            value => Sample::Value(value.parse().unwrap()),
        },
        activation: 5.into(),
    });
    triggers.collect()
}

fn limits(decision: &ScaleDecision) -> Vec<LimitKind> {
    decision.limits.iter().map(|limit| limit.kind).collect()
}

#[rstest]
#[case::the_activation_value_itself_does_not_activate(&["5"], Activity::Inactive, Some(0))]
#[case::a_little_more_does(&["5001m"], Activity::Active, Some(1))]
#[case::one_of_several_is_enough(&["0", "error", "6"], Activity::Active, Some(1))]
#[case::an_error_is_not_inactive(&["0", "error"], Activity::Unknown, None)]
#[case::no_data_is_not_inactive(&["0", "none"], Activity::Unknown, None)]
#[case::no_trigger_is_not_inactive(&[], Activity::Unknown, None)]
fn activity_follows_from_the_triggers(
    #[case] readings: &[&str],
    #[case] activity: Activity,
    #[case] from_zero: Option<i32>,
) {
    let decision = activate(&policy(0), &triggers(readings), &seen(0));
    assert_eq!((decision.activity, decision.replicas), (activity, from_zero));
}

#[rstest]
#[case::a_minimum_of_zero_starts_with_one(0, None, 0, "6", 1)]
#[case::another_minimum_starts_with_that(3, None, 0, "6", 3)]
#[case::between_the_bounds_it_stays(0, None, 7, "6", 7)]
#[case::idle_replicas_are_left_for_the_minimum(3, Some(1), 1, "6", 3)]
#[case::inactive_it_goes_to_zero_from_any_number(0, None, 7, "0", 0)]
#[case::or_to_its_idle_replicas(3, Some(1), 7, "0", 1)]
#[case::below_its_idle_replicas_it_stays(3, Some(2), 1, "0", 1)]
#[case::with_a_minimum_activity_does_not_matter(3, None, 7, "0", 7)]
#[case::but_the_minimum_does(3, None, 2, "0", 3)]
fn the_number_follows_from_activity(
    #[case] min: i32,
    #[case] idle_replicas: Option<i32>,
    #[case] current: i32,
    #[case] reading: &str,
    #[case] replicas: i32,
) {
    let policy = ActivationPolicy {
        idle_replicas,
        ..policy(min)
    };
    let decision = activate(&policy, &triggers(&[reading]), &seen(current));
    assert_eq!(decision.replicas, Some(replicas), "{decision}");
}

#[rstest]
#[case::within_the_cooldown(Some(4 * MINUTE), 60 * MINUTE, 2)]
#[case::at_its_end(Some(5 * MINUTE), 60 * MINUTE, 2)]
#[case::after_it(Some(5 * MINUTE + Duration::from_millis(1)), 60 * MINUTE, 0)]
#[case::never_active_within_the_initial_cooldown(None, 20 * MINUTE, 2)]
#[case::never_active_after_it(None, 21 * MINUTE, 0)]
fn it_goes_down_only_after_its_cooldown(
    #[case] last_active: Option<Duration>,
    #[case] age: Duration,
    #[case] replicas: i32,
) {
    let policy = ActivationPolicy {
        initial_cooldown: 20 * MINUTE,
        ..policy(0)
    };
    let seen = ActivationSeen {
        created: Some(ago(age)),
        last_active: last_active.map(ago),
        ..seen(2)
    };
    let decision = activate(&policy, &triggers(&["0"]), &seen);
    assert_eq!(decision.replicas, Some(replicas));
    assert_eq!(limits(&decision).contains(&LimitKind::Cooldown), replicas == 2);
}

#[test]
fn a_target_of_unknown_age_that_was_never_active_stays_up() {
    let seen = ActivationSeen {
        created: None,
        last_active: None,
        ..seen(2)
    };
    let decision = activate(&policy(0), &triggers(&["0"]), &seen);
    assert_eq!(decision.replicas, Some(2));
}

#[rstest]
#[case(Pause::AtCurrent, None)]
#[case(Pause::At(0), Some(0))]
#[case(Pause::At(5), Some(5))]
fn a_pause_beats_everything(#[case] pause: Pause, #[case] replicas: Option<i32>) {
    let policy = ActivationPolicy {
        forced: true,
        pause: Some(pause),
        ..policy(0)
    };
    let decision = activate(&policy, &triggers(&["6"]), &seen(2));
    assert_eq!(decision.replicas, replicas);
    assert_eq!(limits(&decision), [LimitKind::Pause]);
}

#[test]
fn failing_triggers_lead_to_the_fallback_unless_another_is_active() {
    let policy = ActivationPolicy {
        fallback: Some(4),
        ..policy(0)
    };
    let failing = activate(&policy, &triggers(&["error"]), &seen(2));
    assert_eq!(
        (failing.replicas, limits(&failing)),
        (Some(4), vec![LimitKind::Fallback])
    );
    let active = activate(&policy, &triggers(&["error", "6"]), &seen(2));
    assert_eq!(active.replicas, Some(2));
}

#[test]
fn a_forced_target_is_active_without_any_trigger() {
    let policy = ActivationPolicy {
        forced: true,
        ..policy(0)
    };
    assert_eq!(activate(&policy, &[], &seen(0)).replicas, Some(1));
}

#[test]
fn an_active_target_has_as_many_replicas_as_its_metrics_ask_for() {
    let metrics = [backlog("5")];
    let scaling = round((1, 10), None, 2, &metrics, &[MetricReading::Values(&[15_000])]).decision;
    let decision = activate(&policy(0), &triggers(&["6"]), &seen(2)).refined_by(scaling);
    assert_eq!(decision.replicas, Some(3));
    assert_eq!(
        decision.to_string(),
        "scale from 2 to 3: backlog is 6, activation 5, active; \
         external metric backlog is 7500m, target 5 per pod, proposes 3"
    );
}

#[test]
fn an_inactive_target_at_zero_stays_there_whatever_its_metrics_ask_for() {
    let metrics = [backlog("5")];
    let scaling = round((1, 10), None, 2, &metrics, &[MetricReading::Values(&[50_000])]).decision;
    let decision = activate(&policy(0), &triggers(&["0"]), &seen(0)).refined_by(scaling);
    assert_eq!(decision.replicas, Some(0));
}

#[rstest]
#[case::on_its_way_to_zero(policy(0), &["0"], Some(0))]
#[case::paused(ActivationPolicy { pause: Some(Pause::AtCurrent), ..policy(0) }, &["6"], None)]
#[case::at_its_fallback(ActivationPolicy { fallback: Some(2), ..policy(0) }, &["error"], Some(2))]
#[case::at_its_idle_replicas(ActivationPolicy { idle_replicas: Some(2), ..policy(5) }, &["0"], Some(2))]
fn what_activity_decides_metrics_do_not_change(
    #[case] policy: ActivationPolicy,
    #[case] readings: &[&str],
    #[case] replicas: Option<i32>,
) {
    let metrics = [backlog("5")];
    let scaling = round((1, 10), None, 2, &metrics, &[MetricReading::Values(&[50_000])]).decision;
    assert!(scaling.rescales());
    let decision = activate(&policy, &triggers(readings), &seen(2)).refined_by(scaling);
    assert_eq!(decision.replicas, replicas, "{decision}");
}
