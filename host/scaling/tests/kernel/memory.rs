//! What a decision about memory says.

use dormouse_model::Quantity;
use dormouse_scaling::memory::{MemoryOutcome, MemoryPod, MemorySample, MemorySeen, MemorySpec};
use dormouse_scaling::{Bounds, LimitKind};

use crate::fixture::{MINUTE, ago, now};

/// Pods with a limit of 100 bytes and what they use.
fn decide(current: i32, used: &[u64]) -> MemoryOutcome {
    let name = |index: usize| format!("web-{index}");
    let pods: Vec<_> = (0..used.len())
        .map(|index| MemoryPod {
            name: name(index),
            ready: true,
            limits: vec![Some(Quantity::from(100))],
        })
        .collect();
    let samples: Vec<_> = used
        .iter()
        .enumerate()
        .map(|(index, used)| MemorySample {
            pod: name(index),
            used: Quantity::from(*used),
        })
        .collect();
    let spec = MemorySpec {
        min_replicas: Some(1),
        max_replicas: 10,
        target_utilization: Some(50),
    };
    spec.corrected().0.decide(&MemorySeen {
        spec_replicas: current,
        status_replicas: current,
        pods: &pods,
        samples: Ok(&samples),
        last_scale: Some(ago(4 * MINUTE)),
        now: now(),
    })
}

#[test]
fn a_decision_about_memory_says_what_it_follows_from() {
    assert_eq!(
        decide(1, &[500]).decision.to_string(),
        "scale from 1 to 4: memory is 500%, target 50% of limits, proposes 10; \
         limited from 10 to 4 by the scale-up policies"
    );
    assert_eq!(
        decide(2, &[10, 10]).decision.to_string(),
        "stay at 2: memory is 10%, target 50% of limits, proposes 1; \
         limited from 1 to 2 by the time that must pass after a rescale"
    );
    assert_eq!(
        decide(2, &[]).decision.to_string(),
        "hold at 2: memory is error (there are no samples of memory), target 50% of limits"
    );
}

#[test]
fn a_tenth_above_the_target_is_too_far() {
    let outcome = decide(2, &[55, 55]);
    assert_eq!(outcome.decision.replicas, Some(3));
    let within = decide(2, &[54, 54]);
    assert_eq!(within.decision.limits[0].kind, LimitKind::Tolerance);
}

#[test]
fn what_is_declared_wrongly_is_corrected_aloud() {
    let spec = MemorySpec {
        min_replicas: Some(0),
        max_replicas: -1,
        target_utilization: Some(101),
    };
    let (policy, corrections) = spec.corrected();
    assert_eq!(
        (policy.bounds, policy.target_utilization),
        (Bounds { min: 1, max: 5 }, 80)
    );
    let said: Vec<_> = corrections.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "minReplicas is taken for 1, because it is not at least 1",
            "maxReplicas is taken for 5, because it is below the minimum",
            "targetUtilizationPercentage is taken for 80, because it is not in 1 to 100",
        ]
    );
}

#[test]
fn a_minimum_that_is_the_maximum_is_no_mistake() {
    let spec = MemorySpec {
        min_replicas: Some(3),
        max_replicas: 3,
        target_utilization: Some(100),
    };
    assert_eq!(spec.corrected().1, []);
}
