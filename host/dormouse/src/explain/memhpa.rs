//! What a MemHpa tells.

use dormouse_sources::memhpa::{MemHpa, MemHpaStatus, is_resting};
use jiff::Timestamp;
use kube::ResourceExt;

use super::lines::{Lines, ago};

/// What it scales, to how many replicas, why, and what is wrong.
pub(super) fn tell(object: &MemHpa, now: Timestamp) -> String {
    let target = &object.spec.scale_target_ref;
    let default = MemHpaStatus::default();
    let status = object.status.as_ref().unwrap_or(&default);
    let mut lines = Lines::default();
    lines.title(&format!(
        "MemHpa {} of {}: scales {} {}",
        object.name_any(),
        object.namespace().unwrap_or_default(),
        target.kind,
        target.name
    ));
    if let Some(decision) = &status.decision {
        lines.add("replicas", &format!("{} wanted", status.desired_replicas));
        lines.add("because", decision);
    }
    if let Some(changed) = &status.last_scale_time {
        lines.add("changed", &format!("{} ago", ago(changed.0, now)));
    }
    let mut conditions = status.conditions.iter();
    let rests = conditions.any(|known| is_resting(&known.type_, &known.reason));
    let problems = status.conditions.iter();
    lines.add_problems(problems.filter(|known| !is_resting(&known.type_, &known.reason)));
    let next = if status.observed_generation.is_none() {
        "an autoscaler that looks after MemHpas (--memhpa)"
    } else if status.observed_generation != object.metadata.generation {
        "a decision about its latest change"
    } else if rests {
        "its workload to be up; what its Sleeper waits for is told there"
    } else {
        "its next decision, within half a minute"
    };
    lines.add("waits for", next);
    lines.text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_tells_what_was_decided_and_what_is_wrong() {
        let object = json!({
            "apiVersion": "xinhuang.com/v1", "kind": "MemHpa",
            "metadata": {"namespace": "shop", "name": "demo", "generation": 2},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 5},
            "status": {
                "observedGeneration": 2, "currentReplicas": 1, "desiredReplicas": 2,
                "decision": "scale from 1 to 2: memory is 100%, target 50% of limits, proposes 2",
                "lastScaleTime": "2026-03-01T12:00:00Z",
                "conditions": [{
                    "type": "AbleToScale", "status": "False", "reason": "OtherScaler",
                    "message": "HorizontalPodAutoscaler web scales it", "lastTransitionTime": "2026-03-01T12:00:00Z",
                }],
            },
        });
        let object = serde_json::from_value(object).unwrap();
        assert_eq!(
            tell(&object, "2026-03-01T12:01:30Z".parse().unwrap()),
            "MemHpa demo of shop: scales Deployment web\n\
             \x20 replicas   2 wanted\n\
             \x20 because    scale from 1 to 2: memory is 100%, target 50% of limits, proposes 2\n\
             \x20 changed    1m 30s ago\n\
             \x20 problem    AbleToScale (OtherScaler): HorizontalPodAutoscaler web scales it\n\
             \x20 waits for  its next decision, within half a minute\n"
        );
    }

    #[test]
    fn one_whose_workload_sleeps_has_no_problem() {
        let object = json!({
            "apiVersion": "xinhuang.com/v1", "kind": "MemHpa",
            "metadata": {"namespace": "shop", "name": "demo", "generation": 2},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 5},
            "status": {
                "observedGeneration": 2, "currentReplicas": 0, "desiredReplicas": 0,
                "decision": "it sleeps: nobody needs it",
                "conditions": [{
                    "type": "ScalingActive", "status": "False", "reason": "Asleep",
                    "message": "it sleeps: nobody needs it", "lastTransitionTime": "2026-03-01T12:00:00Z",
                }],
            },
        });
        let object = serde_json::from_value(object).unwrap();
        assert_eq!(
            tell(&object, "2026-03-01T12:01:30Z".parse().unwrap()),
            "MemHpa demo of shop: scales Deployment web\n\
             \x20 replicas   0 wanted\n\
             \x20 because    it sleeps: nobody needs it\n\
             \x20 waits for  its workload to be up; what its Sleeper waits for is told there\n"
        );
    }
}
