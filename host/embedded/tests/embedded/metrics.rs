use std::time::Duration;

use dormouse_embedded::{CustomMetric, Fault, Options};
use http::Request;
use serde_json::Value;

use crate::support::{refusal, start, start_with};

fn path(version: &str, rest: &str) -> Request<Vec<u8>> {
    Request::get(format!(
        "/apis/custom.metrics.k8s.io/{version}/namespaces/default/{rest}"
    ))
    .body(Vec::new())
    .unwrap()
}

fn sample(name: &str, value: &str) -> CustomMetric {
    CustomMetric {
        resource: "deployments.apps".into(),
        namespace: "default".into(),
        name: name.into(),
        metric: "requests_per_5m".into(),
        value: Some(value.into()),
        ..CustomMetric::default()
    }
}

#[tokio::test]
async fn values_are_served_in_both_versions() {
    let (cluster, client) = start().await;
    cluster.set_custom_metric(sample("a", "0"));
    cluster.set_custom_metric(CustomMetric {
        more: vec!["7".into()],
        ..sample("b", "250m")
    });
    let all: Value = client
        .request(path("v1beta2", "deployments.apps/*/requests_per_5m"))
        .await
        .unwrap();
    assert_eq!(all["kind"], "MetricValueList");
    let values: Vec<(&str, &str)> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            (
                i["describedObject"]["name"].as_str().unwrap(),
                i["value"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(values, [("a", "0"), ("b", "250m"), ("b", "7")]);
    assert_eq!(all["items"][0]["metric"]["name"], "requests_per_5m");
    let one: Value = client
        .request(path("v1beta1", "deployments.apps/a/requests_per_5m"))
        .await
        .unwrap();
    assert_eq!(one["items"][0]["metricName"], "requests_per_5m");
    for missing in ["deployments.apps/*/other", "deployments.apps/c/requests_per_5m"] {
        let e = client
            .request::<Value>(path("v1beta2", missing))
            .await
            .unwrap_err();
        assert_eq!(refusal(&e), (404, "NotFound".into()), "{missing}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn faults_break_them_and_make_them_slow() {
    let (cluster, client) = start().await;
    cluster.set_custom_metric(CustomMetric {
        resource: "Deployment.apps".into(),
        ..sample("a", "3")
    });
    let url = "deployments.apps/*/requests_per_5m";
    let fault = Fault {
        resource: "custom.metrics.k8s.io".into(),
        name: "requests_per_5m".into(),
        ..Fault::default()
    };
    cluster.inject(Fault {
        status: 500,
        times: 1,
        ..fault.clone()
    });
    let e = client.request::<Value>(path("v1beta2", url)).await.unwrap_err();
    assert_eq!(refusal(&e), (500, "InternalError".into()));
    let all: Value = client.request(path("v1beta2", url)).await.unwrap();
    assert_eq!(all["items"][0]["value"], "3");
    cluster.inject(Fault {
        latency_ms: 60_000,
        ..fault
    });
    let slow = client.request::<Value>(path("v1beta2", url));
    let slow = tokio::time::timeout(Duration::from_millis(50), slow).await;
    assert!(slow.is_err(), "the delay is there");
    cluster.shutdown().await;
}

#[tokio::test]
async fn without_an_adapter_the_api_is_not_there() {
    let (cluster, client) = start_with(Options {
        custom_metrics_versions: Vec::new(),
        ..Options::default()
    })
    .await;
    let e = client
        .request::<Value>(path("v1beta2", "deployments.apps/*/x"))
        .await
        .unwrap_err();
    assert_eq!(refusal(&e).0, 404);
    assert!(
        client
            .list_api_groups()
            .await
            .unwrap()
            .groups
            .iter()
            .all(|g| g.name != "custom.metrics.k8s.io")
    );
    cluster.shutdown().await;
}
