//! Metrics and behavior in the JSON of a HorizontalPodAutoscaler.

use dormouse_model::{Behavior, MetricSpec, MetricTarget, SelectPolicy};
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[case::resource(
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}),
    "resource cpu", "80% of requests", false
)]
#[case::container_resource(
    json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "app", "target": {"type": "AverageValue", "averageValue": "64Mi"}}}),
    "memory of container app", "64Mi per pod", false
)]
#[case::pods(
    json!({"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "1500m"}}}),
    "pods metric qps", "1500m per pod", false
)]
#[case::object(
    json!({"type": "Object", "object": {"describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}, "metric": {"name": "hits"}, "target": {"type": "Value", "value": "2k"}}}),
    "metric hits of Ingress main", "2k", true
)]
#[case::external(
    json!({"type": "External", "external": {"metric": {"name": "backlog", "selector": {"matchLabels": {"queue": "a"}, "matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]}}, "target": {"type": "Value", "value": "5"}}}),
    "external metric backlog", "5", true
)]
fn a_metric_is_read_and_written(
    #[case] written: Value,
    #[case] name: &str,
    #[case] target: &str,
    #[case] works_at_zero: bool,
) {
    let metric: MetricSpec = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(metric.to_string(), name);
    assert_eq!(metric.target().to_string(), target);
    assert_eq!(metric.works_at_zero(), works_at_zero);
    assert_eq!(serde_json::to_value(&metric).unwrap(), written);
}

#[rstest]
#[case(json!({"type": "Value", "averageValue": "5"}), "type Value needs value")]
#[case(json!({"type": "AverageValue", "value": "5"}), "type AverageValue needs averageValue")]
#[case(json!({"type": "Utilization", "value": "5"}), "type Utilization needs averageUtilization")]
fn a_target_needs_the_value_of_its_type(#[case] written: Value, #[case] why: &str) {
    let error = serde_json::from_value::<MetricTarget>(written).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn behavior_is_read_and_written() {
    let written = json!({
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Disabled",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
            "tolerance": "50m",
        },
        "scaleDown": {},
    });
    let behavior: Behavior = serde_json::from_value(written.clone()).unwrap();
    let scale_up = behavior.scale_up.as_ref().unwrap();
    assert_eq!(scale_up.select_policy, Some(SelectPolicy::Disabled));
    assert_eq!(serde_json::to_value(&behavior).unwrap(), written);
}
