//! What holds for every input.

use std::time::Duration;

use dormouse_model::{MetricSpec, MetricTarget, Quantity, ResourceMetric, ScalingRules};
use dormouse_scaling::hpa::{
    Autoscaler, Condition, Conditions, ContainerUsage, History, MetricReading, Observed, ObservedScale,
    PodSample, PodValue, Settings, compute, default_metrics, limit_rate, normalize, reconcile, with_defaults,
};
use dormouse_scaling::memory::{MemoryPod, MemorySample, MemorySeen, MemorySpec};
use dormouse_scaling::{
    ActivationPolicy, ActivationSeen, ActivationTrigger, Activity, Bounds, Pause, Sample, activate,
};
use jiff::SignedDuration;
use proptest::option;
use proptest::prelude::*;

use crate::anything::{
    behavior, calculator, duration, extreme_i32, history, metric, moment, name, pod, quantity, readings,
    ready_pods, status, tolerance,
};
use crate::fixture::{backlog, now};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No input panics, and what is decided is within the bounds, or as far outside of them as it was.
    #[test]
    fn a_round_ends_within_the_bounds(
        (min, max) in (option::of(extreme_i32()), extreme_i32()),
        metrics in proptest::collection::vec(metric(), 0..4),
        declared in option::of(behavior()),
        (spec_replicas, status_replicas, desired_replicas) in (extreme_i32(), extreme_i32(), extreme_i32()),
        pods in proptest::collection::vec(pod(), 0..4),
        readings in readings(),
        scaled_to_zero in option::of(status()),
        (tolerance, downscale_stabilization, cpu, delay) in (tolerance(), duration(), duration(), duration()),
        (has_selector, scale_to_zero) in (prop::bool::weighted(0.9), any::<bool>()),
        (history, now) in (history(), moment()),
    ) {
        let conditions = Conditions {
            scaled_to_zero: scaled_to_zero.map(|status| Condition {
                status,
                reason: "ScaledToZero".into(),
                message: String::new(),
            }),
            ..Conditions::default()
        };
        let read: Vec<_> = metrics.iter().map(|metric| readings.of(metric)).collect();
        let autoscaler = Autoscaler {
            min_replicas: min,
            max_replicas: max,
            metrics: &metrics,
            behavior: declared.as_ref(),
        };
        let settings = Settings {
            tolerance,
            downscale_stabilization,
            cpu_initialization_period: cpu,
            initial_readiness_delay: delay,
            scale_to_zero,
        };
        let observed = Observed {
            scale: ObservedScale { spec_replicas, status_replicas, has_selector },
            pods: &pods,
            readings: &read,
            conditions: &conditions,
            desired_replicas,
            now,
        };
        let round = reconcile(&autoscaler, &settings, &observed, history);
        prop_assert!(!round.decision.to_string().is_empty());
        let min = min.unwrap_or(1);
        if let Some(replicas) = round.decision.replicas && round.decision.rescales() && min <= max && spec_replicas != 0 {
            prop_assert!((min..=max).contains(&replicas), "{}", round.decision);
        }
    }

    /// More of what is measured in total never means fewer replicas.
    #[test]
    fn a_larger_total_never_asks_for_less(
        current in 0..50_i32,
        target in 1..5_000_i64,
        (less, more) in (0..200_000_i64, 0..200_000_i64),
    ) {
        let pods = ready_pods(current);
        let calculator = calculator(&pods);
        let (less, more) = (less.min(more), less.max(more));
        let of = |value: i64| (
            calculator.object_value(current, target, value).map(|proposal| proposal.replicas).ok(),
            calculator.object_average(current, target, value).map(|proposal| proposal.replicas).ok(),
            calculator.external_average(current, target, &[value, 0]).map(|proposal| proposal.replicas).ok(),
        );
        let ((a, b, c), (x, y, z)) = (of(less), of(more));
        prop_assert!(a <= x && b <= y && c <= z);
    }

    /// More usage of one pod never means fewer replicas, as long as there are as many pods as replicas and all of them have a sample.
    #[test]
    fn more_usage_never_asks_for_less(
        usages in proptest::collection::vec(0..3_000_i64, 1..10),
        more in 0..3_000_i64,
        target in 1..150_i32,
    ) {
        let pods = ready_pods(i32::try_from(usages.len()).unwrap());
        let calculator = calculator(&pods);
        let ask = |usages: &[i64]| {
            let samples: Vec<_> = usages.iter().zip(&pods).map(|(usage, pod)| PodSample {
                pod: pod.name.clone(),
                timestamp: now(),
                window: Duration::from_secs(60),
                containers: vec![ContainerUsage {
                    name: "main".into(),
                    usage: [("cpu".to_owned(), Quantity::from_millis(*usage))].into(),
                }],
            }).collect();
            let current = i32::try_from(usages.len()).unwrap();
            let proposal = calculator.resource_utilization(current, target, "cpu", None, &samples).unwrap();
            proposal.replicas
        };
        let mut larger = usages.clone();
        larger[0] += more;
        prop_assert!(ask(&usages) <= ask(&larger));
    }

    /// A sample that is missing never makes a change larger than the pods with samples alone would.
    #[test]
    fn a_missing_sample_makes_a_change_smaller(
        usages in proptest::collection::vec(0..3_000_i64, 1..10),
        missing in 1..5_i32,
        target in 1..2_000_i64,
    ) {
        let known = i32::try_from(usages.len()).unwrap();
        let current = known + missing;
        let pods = ready_pods(current);
        let values: Vec<_> = usages.iter().zip(&pods).map(|(value, pod)| PodValue {
            pod: pod.name.clone(),
            value: *value,
        }).collect();
        let with_missing = calculator(&pods).pods_average(current, target, &values).unwrap().replicas;
        let everywhere = usages.iter().sum::<i64>() / i64::from(known);
        let all: Vec<_> = pods.iter().map(|pod| PodValue { pod: pod.name.clone(), value: everywhere }).collect();
        let complete = calculator(&pods).pods_average(current, target, &all).unwrap().replicas;
        prop_assert!(
            (current <= with_missing && with_missing <= complete) || (complete <= with_missing && with_missing <= current),
            "{with_missing} of {current}, {complete} if all were alike"
        );
    }

    /// Windows, policies and bounds keep the order of what is asked for, and policies never turn its direction.
    #[test]
    fn more_that_is_asked_for_never_becomes_less(
        declared in option::of(behavior()),
        history in history(),
        min in 0..10_i32,
        (max, current) in (0..30_i32, 0..30_i32),
        (less, more) in (0..60_i32, 0..60_i32),
    ) {
        let bounds = Bounds { min, max: min + max };
        let current = current.clamp(bounds.min, bounds.max);
        let (less, more) = (less.min(more), less.max(more));
        let rules = declared.as_ref().map(with_defaults);
        let done = |desired| {
            let mut history = history.clone();
            normalize(rules.as_ref(), &mut history, bounds, current, desired, Duration::from_secs(300), now())
        };
        prop_assert!(done(less).replicas <= done(more).replicas);
        for desired in [less, more] {
            let (replicas, limit) = limit_rate(rules.as_ref(), &history, bounds, current, desired, now());
            let (asked, done) = (desired - current, replicas - current);
            prop_assert!(asked.signum() * done.signum() >= 0);
            prop_assert_eq!(limit.is_some(), replicas != desired);
        }
    }

    /// However long it goes on, no more is remembered than the windows and periods can hold.
    #[test]
    fn what_is_remembered_stays_small(declared in option::of(behavior()), asked in proptest::collection::vec(0..40_i32, 200)) {
        let rules = declared.as_ref().map(with_defaults);
        let longest = |rules: &ScalingRules| {
            let periods = rules.policies.iter().map(|policy| policy.period_seconds);
            periods.chain(rules.stabilization_window_seconds).max().unwrap_or(0)
        };
        let longest = rules.as_ref().map_or(0, |rules| longest(&rules.scale_up).max(longest(&rules.scale_down)));
        // One entry a minute, the first one, and those that expire at the very moment.
        let most = usize::try_from(longest.max(300) / 60 + 3).unwrap();
        let bounds = Bounds { min: 0, max: 40 };
        let (mut history, mut current, mut moment) = (History::default(), 5, now());
        for desired in asked {
            moment += SignedDuration::from_secs(60);
            history.begin(current, moment);
            let replicas = normalize(rules.as_ref(), &mut history, bounds, current, desired, Duration::from_secs(300), moment).replicas;
            if let Some(rules) = &rules && replicas != current {
                rules.record(&mut history, current, replicas, moment);
            }
            current = replicas;
        }
        for length in [history.recommendations.len(), history.scale_ups.len(), history.scale_downs.len()] {
            prop_assert!(length <= most, "{length} entries in {longest} s");
        }
    }

    /// MemHpa: no input panics, a decision is within the bounds, and an error holds.
    #[test]
    fn memory_ends_within_the_bounds(
        (min_replicas, max_replicas, target_utilization) in (option::of(extreme_i32()), extreme_i32(), option::of(extreme_i32())),
        (spec_replicas, status_replicas) in (extreme_i32(), extreme_i32()),
        pods in proptest::collection::vec((name(), any::<bool>(), proptest::collection::vec(option::weighted(0.9, quantity()), 0..3)), 0..4),
        samples in proptest::collection::vec((name(), quantity()), 0..5),
        (last_scale, now) in (option::of(moment()), moment()),
    ) {
        let pods: Vec<_> = pods.into_iter().map(|(name, ready, limits)| MemoryPod { name, ready, limits }).collect();
        let samples: Vec<_> = samples.into_iter().map(|(pod, used)| MemorySample { pod, used }).collect();
        let (policy, _) = MemorySpec { min_replicas, max_replicas, target_utilization }.corrected();
        prop_assert!(policy.bounds.min >= 1 && policy.bounds.min <= policy.bounds.max);
        prop_assert!((1..=100).contains(&policy.target_utilization));
        let outcome = policy.decide(&MemorySeen {
            spec_replicas,
            status_replicas,
            pods: &pods,
            samples: Ok(&samples),
            last_scale,
            now,
        });
        prop_assert_eq!(outcome.decision.replicas.is_none(), matches!(outcome.utilization, Some(Err(_))));
        if outcome.decision.rescales() {
            let replicas = outcome.decision.replicas.unwrap_or_default();
            prop_assert!((policy.bounds.min..=policy.bounds.max).contains(&replicas));
        }
    }

    /// Nothing goes down by activity while an input is unknown, or within a cooldown.
    #[test]
    fn only_values_and_a_cooldown_lower_the_replicas(
        readings in proptest::collection::vec(option::weighted(0.8, quantity()), 0..4),
        activation in quantity(),
        (min, idle_replicas, replicas) in (0..5_i32, option::of(0..3_i32), extreme_i32()),
        (cooldown, initial_cooldown) in (duration(), duration()),
        (created, last_active, now) in (option::of(moment()), option::of(moment()), moment()),
        (forced, fallback) in (prop::bool::weighted(0.1), option::of(0..5_i32)),
        paused in prop::bool::weighted(0.1),
    ) {
        let triggers: Vec<_> = readings.iter().map(|reading| ActivationTrigger {
            name: "backlog".into(),
            sample: reading.map_or(Sample::NoData("no series".into()), Sample::Value),
            activation,
        }).collect();
        let policy = ActivationPolicy {
            bounds: Bounds { min, max: 10 },
            idle_replicas,
            cooldown,
            initial_cooldown,
            forced,
            fallback,
            pause: paused.then_some(Pause::AtCurrent),
        };
        let seen = ActivationSeen { replicas, created, last_active, now };
        let decision = activate(&policy, &triggers, &seen);
        prop_assert!(!decision.to_string().is_empty());
        let lowered = decision.replicas.is_some_and(|after| after < replicas);
        if lowered && decision.activity != Activity::Unknown {
            prop_assert_eq!(decision.activity, Activity::Inactive);
            prop_assert!(!triggers.is_empty() && readings.iter().all(Option::is_some));
            prop_assert!(last_active.is_none_or(|active| active < now));
        }
        if lowered && decision.activity == Activity::Unknown {
            prop_assert_eq!(decision.replicas, fallback);
        }
    }

    /// The same metric twice asks for no more than once.
    #[test]
    fn a_metric_that_is_declared_twice_asks_once(values in proptest::collection::vec(0..50_000_i64, 1..4), current in 1..10_i32) {
        let reading = MetricReading::Values(&values);
        let scale = ObservedScale { spec_replicas: current, status_replicas: current, has_selector: true };
        let pods = ready_pods(current);
        let calculator = calculator(&pods);
        let once = compute(&calculator, scale, &[backlog("5")], &[reading]);
        let twice = compute(&calculator, scale, &[backlog("5"), backlog("5")], &[reading, reading]);
        prop_assert_eq!(once.replicas, twice.replicas);
    }
}

#[test]
fn without_metrics_an_autoscaler_looks_at_the_cpu() {
    let metrics = default_metrics();
    let expected = MetricSpec::Resource {
        resource: ResourceMetric {
            name: "cpu".into(),
            target: MetricTarget::Utilization(80),
        },
    };
    assert_eq!(metrics, [expected]);
}
