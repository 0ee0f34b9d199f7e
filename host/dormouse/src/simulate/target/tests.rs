use rstest::rstest;

use super::*;

fn manifest(spec: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec: {spec}\n"
    )
}

/// A Deployment with these annotations.
fn workload(annotations: &str) -> String {
    let annotations = if annotations.starts_with('{') {
        annotations.to_owned()
    } else {
        format!("{{{annotations}}}")
    };
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: shop, annotations: {annotations}}}\n\
         spec: {{replicas: 3, template: {{spec: {{containers: [{{name: app, resources: {{requests: {{cpu: 250m}}, limits: {{memory: 1Gi}}}}}}]}}}}}}\n"
    )
}

fn declared(target: &Target) -> &model::Target {
    match &target.declared {
        Declared::Target(target) => target,
        Declared::Hpa(_) => panic!("{target:?}"),
    }
}

#[test]
fn a_manifest_without_metrics_is_about_cpu() {
    let target = Target::parse(&manifest(
        "{scaleTargetRef: {kind: Deployment, name: web}, maxReplicas: 5}",
    ))
    .unwrap();
    assert_eq!((target.min_replicas, target.max_replicas), (1, Some(5)));
    let Declared::Hpa(hpa) = target.declared else {
        panic!("{target:?}")
    };
    assert_eq!(hpa.metrics.iter().map(column).collect::<Vec<_>>(), ["cpu"]);
}

#[rstest]
#[case::another_kind(
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n",
    "Service of v1 cannot be simulated"
)]
#[case::no_manifest("- a\n", "no Kubernetes manifest")]
#[case::nothing("---\n---\n", "it is empty")]
#[case::several_of_other_kinds(
    "apiVersion: v1\nkind: Service\nmetadata: {name: web, annotations: {dormouse.dev/parked-selector: '{}'}}\n---\n\
     apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
    "Service of v1, Deployment of apps/v1 cannot be simulated; a HorizontalPodAutoscaler of autoscaling/v2, a MemHpa"
)]
#[case::several_targets(
    &format!("{}---\n{}", manifest("{maxReplicas: 3}"), workload("dormouse.dev/sleep-after: 15m")),
    "it has 2 targets (HorizontalPodAutoscaler web, Deployment shop), and one is simulated"
)]
#[case::an_annotation_that_is_wrong(&workload("dormouse.dev/sleep-after: 15"), "`15` has no unit after `15`")]
#[case::paused(&workload("{dormouse.dev/sleep-after: 15m, dormouse.dev/paused: 'true'}"), "dormouse.dev/paused is `true`")]
#[case::a_behavior_that_only_the_host_checks(
    &workload("{dormouse.dev/max-replicas: '3', dormouse.dev/targets: '[{\"source\": \"resource\", \"resource\": \"cpu\", \"utilization\": 50}]',
        dormouse.dev/behavior: '{\"scaleUp\": {\"stabilizationWindowSeconds\": -1}}'}"),
    "the behavior: "
)]
#[case::a_memhpa_of_nothing(
    "apiVersion: xinhuang.com/v1\nkind: MemHpa\nmetadata: {name: web}\nspec: {maxReplicas: 3}\n",
    "spec.scaleTargetRef.kind is missing"
)]
#[case::a_wrong_type(&manifest("{maxReplicas: many}"), "spec.maxReplicas")]
#[case::bounds_that_cross(&manifest("{minReplicas: 5, maxReplicas: 2}"), "the least is more than the most")]
#[case::no_room(&manifest("{maxReplicas: 0}"), "at least 1")]
#[case::one_column_for_two(
    &manifest("{maxReplicas: 3, metrics: [{type: External, external: {metric: {name: lag}, target: {type: Value, value: 1}}},
        {type: External, external: {metric: {name: lag}, target: {type: AverageValue, averageValue: 1}}}]}"),
    "two metrics are called lag"
)]
fn what_cannot_be_simulated_says_why(#[case] text: &str, #[case] says: &str) {
    let error = format!("{:#}", Target::parse(text).unwrap_err());
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_workload_is_what_its_annotations_say_and_its_pods_what_its_template_says() {
    let text = workload(
        "{dormouse.dev/sleep-after: 15m, dormouse.dev/min-replicas: '2', dormouse.dev/max-replicas: '9', dormouse.dev/replicas: '4',
            dormouse.dev/targets: '[{\"source\": \"dlx-concurrency\", \"average\": \"10\"}]'}",
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    let target = Target::parse(&format!("{service}---\n{text}")).unwrap();
    assert_eq!(
        (&*target.name, target.replicas, target.restores()),
        ("shop", Some(3), Some(4))
    );
    assert_eq!((target.min_replicas, target.max_replicas), (2, Some(9)));
    assert!(target.has_rules() && !target.is_scaled_by_memory());
    assert_eq!(declared(&target).triggers[0].name, "observed traffic");
    let pod = target.pod.unwrap();
    assert_eq!(pod.containers[0].requests["cpu"].to_string(), "250m");
}

#[test]
fn a_memhpa_is_corrected_and_finds_its_pods_in_the_same_file() {
    let memhpa = "apiVersion: xinhuang.com/v1\nkind: MemHpa\nmetadata: {name: web, namespace: a}\n\
        spec: {scaleTargetRef: {kind: Deployment, name: shop}, minReplicas: 0, maxReplicas: 3, targetUtilizationPercentage: 50}\n";
    let plain = workload("{}");
    let target = Target::parse(&format!("{memhpa}---\n{plain}")).unwrap();
    assert_eq!(
        (target.min_replicas, target.max_replicas, target.replicas),
        (1, Some(3), Some(3))
    );
    assert_eq!(
        target.corrections,
        ["minReplicas is taken for 1, because it is not at least 1"]
    );
    assert!(target.is_scaled_by_memory());
    assert_eq!(
        target.pod.unwrap().containers[0].limits["memory"].to_string(),
        "1Gi"
    );
}

#[rstest]
#[case("dormouse.dev/sleep-after: '15'")]
#[case("dormouse.dev/sleep-affter: 15m")]
#[case(
    "{dormouse.dev/sleep-after: 15m, dormouse.dev/rules: '[{\"metric\": \"a\", \"treshold\": 1}]', dormouse.dev/replicas: '0'}"
)]
#[case("dormouse.dev/max-replicas: '3'")]
fn a_wrong_annotation_says_what_its_event_would_say(#[case] annotations: &str) {
    use dormouse_sdk::Scaler as _;

    let text = workload(annotations);
    let host = dormouse_sdk::testing::Host::new();
    let mut object: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    object["metadata"]["namespace"] = "default".into();
    host.add(object);
    assert_eq!(workloads::Workloads.resources().unwrap(), []);
    let events: Vec<_> = host.events().into_iter().map(|event| event.message).collect();
    assert!(!events.is_empty());
    assert_eq!(Target::parse(&text).unwrap_err().to_string(), events.join("\n"));
}

#[test]
fn every_reading_that_an_annotation_can_name_crosses_to_the_kernel() {
    let rules = r#"[{"source": "observed-traffic"}, {"metric": "jobs", "selector": "a=b", "window": "10m"}, {"source": "external", "metric": "queue"},
        {"source": "resource", "resource": "cpu", "threshold": "50m"}, {"source": "prometheus", "server": "main", "query": "sum(up{a='{name}'})"},
        {"source": "pods", "port": 9090, "metric": "sessions", "labels": {"kind": "ws"}}]"#;
    let targets = r#"[{"source": "dlx-concurrency", "average": "10"}, {"metric": "jobs", "value": 3, "window": "1m"},
        {"source": "resource", "resource": "cpu", "utilization": 50}, {"source": "pods", "port": 9090, "metric": "sessions", "average": 5}]"#;
    let text = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "shop", "annotations": {
            "dormouse.dev/sleep-after": "15m", "dormouse.dev/rules": rules,
            "dormouse.dev/targets": targets, "dormouse.dev/max-replicas": "9",
        }},
    });
    let target = Target::parse(&text.to_string()).unwrap();
    let declared = declared(&target);
    let asked = declared
        .triggers
        .iter()
        .map(|trigger| trigger.query.clone().unwrap());
    let asked: Vec<_> = asked.map(|query| format!("{query:?}")).collect();
    for (asked, part) in asked.iter().zip([
        "Traffic",
        "jobs_per_10m",
        "queue",
        "cpu",
        "sum(up{a='shop'})",
        "sessions",
    ]) {
        assert!(asked.contains(part), "{asked}");
    }
    let Policy::Metrics(policy) = &declared.policy else {
        panic!("{declared:?}")
    };
    let specs: Vec<_> = policy
        .metrics
        .iter()
        .map(|metric| metric.spec.to_string())
        .collect();
    assert_eq!(
        specs,
        [
            "external metric dlx-concurrency",
            "metric jobs of StatefulSet shop",
            "resource cpu",
            "pods metric sessions"
        ]
    );
    assert_eq!(asked.len(), 6);
}
