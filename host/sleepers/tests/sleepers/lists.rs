//! Lists that are kept up to date by a watch.

use dormouse_kubernetes::objects::ListQuery;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use dormouse_testing::{PATIENCE, World};

fn annotated() -> ListQuery {
    ListQuery {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        annotation_prefix: Some("dormouse.dev/sleep".into()),
        fields: vec!["metadata.annotations".into(), "spec.replicas".into()],
        ..ListQuery::default()
    }
}

async fn listed(world: &World) -> Vec<Value> {
    let texts = world.cluster.objects().list(&annotated()).await.unwrap();
    texts
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

async fn annotate(world: &World, sleep_after: &Value) {
    let kind = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
    let api = kube::Api::<DynamicObject>::namespaced_with(world.cluster.client().clone(), "shop", &kind);
    let patch = json!({"metadata": {"annotations": {"dormouse.dev/sleep-after": sleep_after}}});
    api.patch("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_annotated_is_told_at_once_and_listed() {
    let world = World::new().await;
    let mut changes = world.cluster.owner_changes().subscribe();
    assert!(listed(&world).await.is_empty());
    // Whatever is told from here on came by the watch.
    for (sleep_after, count) in [
        (json!("5m"), 1),
        (json!("6m"), 1),
        (Value::Null, 0),
        (json!("7m"), 1),
    ] {
        changes.mark_unchanged();
        annotate(&world, &sleep_after).await;
        tokio::time::timeout(PATIENCE, changes.changed())
            .await
            .expect("told")
            .unwrap();
        let found = listed(&world).await;
        assert_eq!(found.len(), count, "{found:?}");
        if let Some(object) = found.first() {
            assert_eq!(
                object["metadata"]["annotations"]["dormouse.dev/sleep-after"],
                sleep_after
            );
            assert_eq!(
                (&object["kind"], &object["apiVersion"]),
                (&json!("Deployment"), &json!("apps/v1"))
            );
            assert_eq!(object["metadata"]["managedFields"], Value::Null);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_listed_and_are_no_change_of_what_there_is() {
    let world = World::new().await;
    annotate(&world, &json!("5m")).await;
    assert_eq!(listed(&world).await[0]["spec"]["replicas"], 2);
    let changes = world.cluster.owner_changes().subscribe();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let api = kube::Api::<DynamicObject>::namespaced_with(world.cluster.client().clone(), "shop", &kind);
    let scale = json!({"spec": {"replicas": 3}});
    api.patch("web", &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .unwrap();
    let begun = tokio::time::Instant::now();
    while listed(&world).await[0]["spec"]["replicas"] != 3 {
        assert!(begun.elapsed() < PATIENCE, "the list does not follow");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!(!changes.has_changed().unwrap());
}
