use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{from_value, json};

use crate::support::{refusal, start, web};

fn unready(n: i32) -> String {
    web("web", n, &json!({ "embedded.dormouse.dev/never-ready": "true" }))
}

#[tokio::test]
async fn a_scale_is_a_view_of_its_parent() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&unready(0)).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client);
    cluster
        .wait_for("deployments.apps", "default", crate::support::SOON, |l| {
            l[0]["status"]["observedGeneration"] == 1
        })
        .await
        .unwrap();
    let d = api.get("web").await.unwrap();
    let s = api.get_scale("web").await.unwrap();
    assert_eq!(s.metadata.uid, d.metadata.uid);
    assert_eq!(s.metadata.resource_version, d.metadata.resource_version);
    assert_eq!(s.spec.unwrap().replicas.unwrap_or(0), 0);
    assert_eq!(s.status.unwrap().selector.as_deref(), Some("app=web"));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_scale_is_a_compare_and_set_when_it_carries_a_version() {
    let (cluster, client) = start().await;
    let mut manifest = unready(0);
    manifest.truncate(manifest.find("---").unwrap());
    cluster.apply_yaml(&manifest).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client);
    cluster
        .wait_for("deployments.apps", "default", crate::support::SOON, |l| {
            l[0]["status"]["conditions"]
                .as_array()
                .is_some_and(|c| c.len() == 2)
        })
        .await
        .unwrap();
    let before = api.get_scale("web").await.unwrap();
    let put = async |s: &Scale| api.replace_scale("web", &PostParams::default(), s).await;
    let mut to = before.clone();
    to.spec.as_mut().unwrap().replicas = Some(0);
    let unchanged = put(&to).await.unwrap();
    assert_eq!(
        unchanged.metadata.resource_version, before.metadata.resource_version,
        "a no-op is not a write"
    );

    to.spec.as_mut().unwrap().replicas = Some(1);
    let scaled = put(&to).await.unwrap();
    assert_eq!(scaled.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(refusal(&put(&to).await.unwrap_err()), (409, "Conflict".into()));
    assert_eq!(api.get("web").await.unwrap().metadata.generation, Some(2));

    let stale = Patch::Merge(json!({
        "metadata": { "resourceVersion": before.metadata.resource_version }, "spec": { "replicas": 3 },
    }));
    assert_eq!(
        refusal(
            &api.patch_scale("web", &PatchParams::default(), &stale)
                .await
                .unwrap_err()
        )
        .0,
        409
    );
    let free = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    api.patch_scale("web", &PatchParams::default(), &free)
        .await
        .unwrap();
    assert_eq!(api.get("web").await.unwrap().spec.replicas, Some(3));
    let negative = Patch::Merge(json!({ "spec": { "replicas": -1 } }));
    assert_eq!(
        refusal(
            &api.patch_scale("web", &PatchParams::default(), &negative)
                .await
                .unwrap_err()
        )
        .0,
        422
    );
    let json_patch = Patch::<()>::Json(
        from_value(json!([{ "op": "replace", "path": "/spec/replicas", "value": 0 }])).unwrap(),
    );
    api.patch_scale("web", &PatchParams::default(), &json_patch)
        .await
        .unwrap();
    assert_eq!(api.get("web").await.unwrap().spec.replicas, Some(0));
    cluster.shutdown().await;
}
