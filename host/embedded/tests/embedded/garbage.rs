use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, from_value, json};

use crate::support::{SOON, refusal, start, web};

fn owned(name: &str, owner: Option<&ConfigMap>) -> ConfigMap {
    let owners: Vec<Value> = owner
        .iter()
        .map(|o| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": o.name_any(), "uid": o.uid(), "blockOwnerDeletion": true })
        })
        .collect();
    from_value(json!({ "metadata": { "name": name, "ownerReferences": owners } })).unwrap()
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let mut c = owned("c", None);
    c.metadata.finalizers = Some(vec!["dormouse.dev/restore".into()]);
    api.create(&PostParams::default(), &c).await.unwrap();
    let left = api
        .delete("c", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(left.metadata.deletion_timestamp.is_some());
    let again = api
        .delete("c", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(
        again.resource_version(),
        left.resource_version(),
        "deleting twice changes nothing"
    );
    let more =
        Patch::Merge(json!({ "metadata": { "finalizers": ["dormouse.dev/restore", "example.com/other"] } }));
    assert_eq!(
        refusal(&api.patch("c", &PatchParams::default(), &more).await.unwrap_err()).0,
        422
    );
    let done = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("c", &PatchParams::default(), &done).await.unwrap();
    assert!(api.get_opt("c").await.unwrap().is_none());
    cluster.shutdown().await;
}

#[tokio::test]
async fn dependents_follow_their_owners() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let a = api
        .create(&PostParams::default(), &owned("a", None))
        .await
        .unwrap();
    let b = api
        .create(&PostParams::default(), &owned("b", None))
        .await
        .unwrap();
    api.create(&PostParams::default(), &owned("of-a", Some(&a)))
        .await
        .unwrap();
    let mut both = owned("of-both", Some(&a));
    both.metadata
        .owner_references
        .as_mut()
        .unwrap()
        .extend(owned("x", Some(&b)).metadata.owner_references.unwrap());
    api.create(&PostParams::default(), &both).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let names = |l: &[Value]| {
        l.iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    cluster
        .wait_for("configmaps", "kube-public", SOON, |l| {
            !names(l).contains(&"of-a".to_owned())
        })
        .await
        .unwrap();
    let left = cluster
        .wait_for("configmaps", "kube-public", SOON, |l| {
            l.iter().any(|o| {
                o["metadata"]["name"] == "of-both"
                    && o["metadata"]["ownerReferences"]
                        .as_array()
                        .is_some_and(|r| r.len() == 1)
            })
        })
        .await
        .unwrap();
    assert!(names(&left).contains(&"b".to_owned()));
    // Owned by something that never was.
    let mut ghost = owned("ghost", Some(&b));
    ghost.metadata.owner_references.as_mut().unwrap()[0].uid = "00000000-0000-4000-8000-000000000000".into();
    api.create(&PostParams::default(), &ghost).await.unwrap();
    cluster
        .wait_for("configmaps", "kube-public", SOON, |l| {
            !names(l).contains(&"ghost".to_owned())
        })
        .await
        .unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn orphan_and_foreground() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let a = api
        .create(&PostParams::default(), &owned("a", None))
        .await
        .unwrap();
    api.create(&PostParams::default(), &owned("of-a", Some(&a)))
        .await
        .unwrap();
    api.delete("a", &DeleteParams::orphan()).await.unwrap();
    cluster
        .wait_for("configmaps", "kube-public", SOON, |l| {
            l.iter().all(|o| o["metadata"]["name"] != "a")
        })
        .await
        .unwrap();
    assert!(api.get("of-a").await.unwrap().owner_references().is_empty());

    let b = api
        .create(&PostParams::default(), &owned("b", None))
        .await
        .unwrap();
    let mut held = owned("of-b", Some(&b));
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    api.delete("b", &DeleteParams::foreground()).await.unwrap();
    cluster
        .wait_for("configmaps", "kube-public", SOON, |l| {
            l.iter()
                .any(|o| o["metadata"]["name"] == "of-b" && o["metadata"].get("deletionTimestamp").is_some())
        })
        .await
        .unwrap();
    assert!(
        api.get_opt("b").await.unwrap().is_some(),
        "waits for its dependent"
    );
    let done = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("of-b", &PatchParams::default(), &done).await.unwrap();
    cluster
        .wait_for("configmaps", "kube-public", SOON, |l| {
            l.iter().all(|o| o["metadata"]["name"] != "b")
        })
        .await
        .unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn deleting_a_deployment_takes_everything_with_it() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 2, &json!({}))).unwrap();
    cluster
        .wait_for_ready_pods("default", "app=web", 2, SOON)
        .await
        .unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    cluster
        .wait_for("replicasets.apps", "default", SOON, <[Value]>::is_empty)
        .await
        .unwrap();
    cluster
        .wait_for("pods", "default", SOON, <[Value]>::is_empty)
        .await
        .unwrap();
    let rs: Api<ReplicaSet> = Api::default_namespaced(client.clone());
    assert!(rs.list(&ListParams::default()).await.unwrap().items.is_empty());
    let pods: Api<Pod> = Api::default_namespaced(client);
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
    cluster.shutdown().await;
}
