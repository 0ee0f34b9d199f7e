//! The metrics APIs: values, nothing, and everything that can go wrong on the way.

use std::time::Duration;

use dormouse_kubernetes::{ClusterError, MetricError};
use dormouse_model::ObjectRef;
use http::Method;
use serde_json::{Value, json};

use crate::cluster;
use crate::mock::{Mock, failure};

const SECOND: Duration = Duration::from_secs(1);
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue_depth";
const USAGE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods";
const SCALE: &str = "/apis/apps/v1/namespaces/shop/deployments/web/scale";
const PODS: &str = "/api/v1/namespaces/shop/pods";

fn web() -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: "web".into(),
    }
}

fn external(values: &[&str]) -> Value {
    let items: Vec<_> = values
        .iter()
        .map(|value| json!({"metricName": "queue_depth", "metricLabels": {}, "value": value}))
        .collect();
    json!({"kind": "ExternalMetricValueList", "items": items})
}

#[tokio::test(start_paused = true)]
async fn external_metrics_have_a_value_for_each_series() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    mock.put(EXTERNAL, external(&["3", "1500m"]));
    let read = async |selector| {
        cluster
            .metrics_api()
            .external_metric("shop", "queue_depth", selector, SECOND)
            .await
    };
    assert_eq!(read(Some("queue in (a, b)")).await.unwrap(), ["3", "1500m"]);
    assert_eq!(
        mock.count(&Method::GET, "queue_depth?labelSelector=queue+in+%28a%2C+b%29"),
        1
    );
    mock.put(EXTERNAL, external(&[]));
    assert!(read(None).await.unwrap().is_empty());
    // A metric that nobody knows has no values; that is no failure.
    let unknown = cluster
        .metrics_api()
        .external_metric("shop", "unknown", None, SECOND)
        .await;
    assert!(unknown.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_is_an_error_and_never_an_empty_list() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    type Check = fn(&MetricError) -> bool;
    let cases: [(u16, Value, Check); 5] = [
        (403, failure(403, "Forbidden"), |error| {
            matches!(error, MetricError::Cluster(ClusterError::Forbidden { .. }))
        }),
        (503, failure(503, "ServiceUnavailable"), |error| {
            matches!(error, MetricError::Cluster(ClusterError::Unavailable { .. }))
                && error.to_string().contains("kubectl get apiservices")
        }),
        (400, failure(400, "BadRequest"), |error| {
            matches!(error, MetricError::Cluster(ClusterError::Invalid { .. }))
        }),
        (200, json!({"kind": "Welcome"}), |error| {
            matches!(error, MetricError::Cluster(ClusterError::Other { .. }))
        }),
        (200, json!("<html>"), |error| {
            matches!(error, MetricError::Cluster(ClusterError::Other { .. }))
        }),
    ];
    for (code, body, expected) in cases {
        let answer = body.clone();
        mock.rule(move |_, path, _| path.contains("metrics.k8s.io").then(|| (code, answer.clone())));
        let read = cluster
            .metrics_api()
            .external_metric("shop", "queue_depth", None, SECOND)
            .await;
        let error = read.expect_err("external");
        assert!(expected(&error), "external {code} {body}: {error:?}");
        let read = cluster.metrics_api().pod_usage("shop", "app=web", SECOND).await;
        let error = read.expect_err("usage");
        assert!(expected(&error), "usage {code} {body}: {error:?}");
    }
    mock.rule(|_, path, _| {
        path.contains("metrics.k8s.io")
            .then(|| (404, failure(404, "NotFound")))
    });
    let error = cluster
        .metrics_api()
        .pod_usage("shop", "app=web", SECOND)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is metrics-server installed?"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn usage_is_told_for_each_container() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    mock.put(
        USAGE,
        json!({"kind": "PodMetricsList", "items": [
            {"metadata": {"name": "web-1"}, "timestamp": "2026-01-01T00:00:00Z", "window": "15s", "containers": [
                {"name": "a", "usage": {"cpu": "1200n", "memory": "10Ki"}}, {"name": "b", "usage": {"cpu": 0}}]},
            {"metadata": {"name": "web-2"}, "containers": []},
        ]}),
    );
    let usage = cluster
        .metrics_api()
        .pod_usage("shop", "app=web", SECOND)
        .await
        .unwrap();
    assert_eq!(mock.count(&Method::GET, "pods?labelSelector=app%3Dweb"), 1);
    let (first, second) = (&usage[0], &usage[1]);
    assert_eq!(first.measured.unwrap().to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(first.window, SECOND * 15);
    assert_eq!(first.containers[0].name, "a");
    assert_eq!(first.containers[0].usage["cpu"], "1200n");
    assert_eq!(first.containers[1].usage["cpu"], "0");
    assert!(second.measured.is_none() && second.containers.is_empty());
    assert_eq!(second.window, Duration::ZERO);
}

fn pod(name: &str, phase: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": name}, "spec": {"containers": []},
        "status": {"phase": phase, "podIP": "10.0.0.1",
                   "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_namespace_are_read_page_by_page_and_those_that_go_are_marked() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    let mut leaving = pod("leaving", "Running", true);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut on_node = pod("on-node", "Running", true);
    on_node["spec"]["hostNetwork"] = json!(true);
    on_node["metadata"]["labels"] = json!({"app": "web"});
    let first = json!({"metadata": {"continue": "token"}, "items": [
        pod("ready", "Running", true),
        pod("starting", "Pending", false),
        pod("done", "Succeeded", false),
    ]});
    let second = json!({"kind": "PodList", "items": [pod("failed", "Failed", false), leaving, on_node]});
    mock.rule(move |_, path, _| {
        let page = if path.contains("continue=token") {
            &second
        } else {
            &first
        };
        path.starts_with(PODS).then(|| (200, page.clone()))
    });
    let found = cluster
        .metrics_api()
        .namespace_pods("shop", SECOND)
        .await
        .unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|pod| {
            (
                pod.name.as_str(),
                pod.is_current(),
                pod.is_running(),
                pod.ready,
                pod.host_network,
                pod.labels.len(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("ready", true, true, true, false, 0),
            ("starting", true, false, false, false, 0),
            ("done", false, false, false, false, 0),
            ("failed", false, false, false, false, 0),
            ("leaving", false, false, false, false, 0),
            ("on-node", true, true, true, true, 1),
        ]
    );
    assert_eq!(mock.count(&Method::GET, "pods?limit=500"), 2);
}

/// What scaling needs to know of a pod beside that.
#[tokio::test(start_paused = true)]
async fn a_pod_tells_since_when_it_is_ready_and_what_it_requests() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    mock.put(
        PODS,
        json!({"kind": "PodList", "items": [{
            "metadata": {"name": "web-1"},
            "spec": {
                "containers": [{"name": "app", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}}],
                "initContainers": [
                    {"name": "setup"}, {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "10m"}}}],
                "overhead": {"cpu": "5m"},
            },
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                       "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:30Z"}]},
        }]}),
    );
    let pods = cluster
        .metrics_api()
        .namespace_pods("shop", SECOND)
        .await
        .unwrap();
    let [pod] = &pods[..] else { panic!("{pods:?}") };
    assert_eq!(pod.started.unwrap().to_string(), "2026-01-01T00:00:00Z");
    let (status, since) = pod.ready_condition.clone().unwrap();
    assert_eq!(
        (status.as_str(), since.to_string().as_str()),
        ("False", "2026-01-01T00:00:30Z")
    );
    assert_eq!(pod.containers[0].requests["cpu"], "250m");
    assert_eq!(pod.containers[0].limits["memory"], "64Mi");
    let [setup, proxy] = &pod.init_containers[..] else {
        panic!("{pod:?}")
    };
    assert!(!setup.sidecar && setup.requests.is_empty());
    assert!(proxy.sidecar && proxy.requests["cpu"] == "10m");
    assert_eq!(pod.overhead["cpu"], "5m");
}

#[tokio::test(start_paused = true)]
async fn a_workload_whose_pods_nobody_knows_is_an_error() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    let read = async || {
        cluster
            .metrics_api()
            .workload_selector("shop", &web(), SECOND)
            .await
    };
    // No such workload.
    assert!(matches!(
        read().await,
        Err(MetricError::Cluster(ClusterError::NotFound { .. }))
    ));
    // An empty selector would mean every pod of the namespace.
    for scale in [
        json!({"status": {"replicas": 2, "selector": ""}}),
        json!({"status": {"replicas": 2}}),
        json!({}),
    ] {
        mock.put(SCALE, scale);
        assert!(matches!(read().await, Err(MetricError::NoSelector { .. })));
    }
    mock.put(
        SCALE,
        json!({"status": {"replicas": 2, "selector": "app in web"}}),
    );
    assert!(matches!(read().await, Err(MetricError::WrongSelector { .. })));
    mock.put(SCALE, json!({"status": {"replicas": 2, "selector": "app=web"}}));
    assert_eq!(read().await.unwrap(), "app=web".parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_selector_of_a_custom_metric_is_that_of_its_labels() {
    let mock = Mock::default();
    mock.put(
        "/apis/apps",
        json!({"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}),
    );
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/*/rps_per_1m";
    mock.put(
        path,
        json!({"items": [{"describedObject": {"name": "web"}, "value": "1"}]}),
    );
    let cluster = cluster(&mock).await;
    let wanted = dormouse_kubernetes::CustomMetric {
        selector: Some("verb=GET,code!=500"),
        ..crate::metric("rps_per_1m")
    };
    assert_eq!(
        cluster
            .metrics_api()
            .custom_metric(wanted, SECOND)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        mock.count(
            &Method::GET,
            "rps_per_1m?metricLabelSelector=verb%3DGET%2Ccode%21%3D500"
        ),
        1
    );
}
