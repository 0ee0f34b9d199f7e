use dormouse_embedded::Fault;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{SOON, refusal, start, web};

#[tokio::test]
async fn a_refused_scale_write_like_a_quota() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 0, &json!({}))).unwrap();
    cluster.inject(Fault {
        verb: "write".into(),
        resource: "deployments.apps/scale".into(),
        name: "web".into(),
        times: 1,
        status: 403,
        message: "exceeded quota".into(),
        ..Fault::default()
    });
    let api: Api<Deployment> = Api::default_namespaced(client);
    let up = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    let e = api
        .patch_scale("web", &PatchParams::default(), &up)
        .await
        .unwrap_err();
    assert_eq!(refusal(&e), (403, "Forbidden".into()));
    api.patch_scale("web", &PatchParams::default(), &up)
        .await
        .unwrap();
    let writes: Vec<(u16, i64)> = cluster
        .api_requests()
        .into_iter()
        .filter(|r| r.resource == "deployments.apps/scale" && r.verb == "patch")
        .map(|r| (r.status, r.body["spec"]["replicas"].as_i64().unwrap()))
        .collect();
    assert_eq!(writes, [(403, 1), (200, 1)], "the log tells both");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_write_that_happened_without_the_client_knowing() {
    let (cluster, client) = start().await;
    let fault = Fault {
        verb: "patch".into(),
        resource: "configmaps".into(),
        times: 1,
        status: 500,
        after: true,
        ..Fault::default()
    };
    cluster.inject(fault);
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let body =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "k": "v" } });
    let e = api
        .patch("c", &PatchParams::apply("me"), &Patch::Apply(&body))
        .await
        .unwrap_err();
    assert_eq!(refusal(&e).0, 500);
    assert_eq!(api.get("c").await.unwrap().data.unwrap()["k"], "v");
    cluster.inject(Fault {
        verb: "get".into(),
        resource: "configmaps".into(),
        times: 1,
        hang_up: true,
        ..Fault::default()
    });
    assert!(
        !matches!(api.get("c").await, Ok(_) | Err(kube::Error::Api(_))),
        "the connection broke"
    );
    api.get("c").await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn pods_that_cannot_be_created_are_reported_and_tried_again() {
    let (cluster, _client) = start().await;
    cluster.inject(Fault {
        verb: "create".into(),
        resource: "pods".into(),
        times: 1,
        status: 403,
        message: "exceeded quota".into(),
        ..Fault::default()
    });
    cluster.apply_yaml(&web("web", 1, &json!({}))).unwrap();
    cluster
        .wait_for("events", "default", SOON, |l| {
            l.iter().any(|e| e["reason"] == "FailedCreate")
        })
        .await
        .unwrap();
    cluster
        .wait_for_ready_pods("default", "app=web", 1, SOON)
        .await
        .unwrap();
    cluster.shutdown().await;
}

/// kube's client tries 429, 503 and 504 again by itself: such a fault must last longer to be seen.
#[tokio::test]
async fn the_client_outlasts_a_short_overload() {
    let (cluster, client) = start().await;
    cluster.inject(Fault {
        verb: "get".into(),
        resource: "configmaps".into(),
        times: 1,
        status: 503,
        ..Fault::default()
    });
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    cluster
        .wait_for("configmaps", "default", SOON, |l| !l.is_empty())
        .await
        .unwrap();
    api.get("kube-root-ca.crt").await.unwrap();
    let answers: Vec<u16> = cluster
        .api_requests()
        .iter()
        .filter(|r| r.resource == "configmaps")
        .map(|r| r.status)
        .collect();
    assert_eq!(answers, [503, 200]);
    cluster.shutdown().await;
}
