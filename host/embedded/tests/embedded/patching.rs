use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, from_value, json};

use crate::support::{refusal, start, web};

async fn config_map(api: &Api<ConfigMap>) -> ConfigMap {
    let c: ConfigMap =
        from_value(json!({ "metadata": { "name": "c" }, "data": { "a": "1", "b": "2" } })).unwrap();
    api.create(&PostParams::default(), &c).await.unwrap()
}

#[tokio::test]
async fn merge_patches_honour_the_version_they_carry() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let c = config_map(&api).await;
    let rv = c.resource_version();
    let patch = |rv: Option<&String>, v: Value| {
        Patch::Merge(json!({ "metadata": { "resourceVersion": rv }, "data": v }))
    };
    let p = PatchParams::default();
    let after = api
        .patch("c", &p, &patch(rv.as_ref(), json!({ "a": null, "c": "3" })))
        .await
        .unwrap();
    let data = after.data.unwrap();
    assert!(!data.contains_key("a") && data["c"] == "3" && data["b"] == "2");
    let stale = api
        .patch("c", &p, &patch(rv.as_ref(), json!({ "d": "4" })))
        .await
        .unwrap_err();
    assert_eq!(refusal(&stale), (409, "Conflict".into()));
    let none = api
        .patch("nobody", &p, &Patch::Merge(json!({})))
        .await
        .unwrap_err();
    assert_eq!(refusal(&none).0, 404);
    cluster.shutdown().await;
}

#[tokio::test]
async fn json_patches_test_first() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    config_map(&api).await;
    let patch = |v: Value| Patch::<()>::Json(from_value(v).unwrap());
    let p = PatchParams::default();
    let done = api
        .patch(
            "c",
            &p,
            &patch(json!([
                { "op": "test", "path": "/data/a", "value": "1" },
                { "op": "replace", "path": "/data/a", "value": "9" },
            ])),
        )
        .await
        .unwrap();
    assert_eq!(done.data.unwrap()["a"], "9");
    let failed = json!([
        { "op": "remove", "path": "/data/b" },
        { "op": "test", "path": "/data/a", "value": "1" },
    ]);
    assert_eq!(
        refusal(&api.patch("c", &p, &patch(failed)).await.unwrap_err()),
        (422, "Invalid".into())
    );
    assert_eq!(
        api.get("c").await.unwrap().data.unwrap()["b"],
        "2",
        "all or nothing"
    );
    let missing = json!([{ "op": "remove", "path": "/data/zzz" }]);
    assert_eq!(
        refusal(&api.patch("c", &p, &patch(missing)).await.unwrap_err()).0,
        422
    );
    let stale = json!([{ "op": "replace", "path": "/metadata/resourceVersion", "value": "1" }]);
    assert_eq!(
        refusal(&api.patch("c", &p, &patch(stale)).await.unwrap_err()).0,
        409
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn strategic_patches_merge_containers_by_name() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 0, &json!({}))).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client);
    let patch = json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "web", "env": [{ "name": "K", "value": "v" }] },
        { "name": "side", "image": "embedded/http:1" },
    ] } } } });
    let d = api
        .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    let containers = d.spec.template.spec.unwrap().containers;
    assert_eq!(containers.len(), 2);
    let web = containers.iter().find(|c| c.name == "web").unwrap();
    assert_eq!(web.image.as_deref(), Some("embedded/http:1"));
    assert_eq!(web.env.as_ref().unwrap()[0].name, "K");
    assert_eq!(web.ports.as_ref().unwrap()[0].container_port, 8080);
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_apply_removes_what_it_no_longer_says() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let apply = |data: Value| {
        Patch::Apply(
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": data }),
        )
    };
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let made = api
        .patch("c", &one, &apply(json!({ "a": "1", "shared": "s" })))
        .await
        .unwrap();
    assert_eq!(made.managed_fields()[0].manager.as_deref(), Some("one"));
    api.patch("c", &two, &apply(json!({ "b": "2", "shared": "s" })))
        .await
        .unwrap();
    let same = api
        .patch("c", &two, &apply(json!({ "b": "2", "shared": "s" })))
        .await
        .unwrap();
    let again = api
        .patch("c", &two, &apply(json!({ "b": "2", "shared": "s" })))
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        again.resource_version(),
        "applying the same is not a write"
    );
    // `one` gives up everything: `a` was its alone, `shared` is still wanted by `two`.
    let after = api.patch("c", &one, &apply(json!({}))).await.unwrap();
    let data = after.data.unwrap();
    assert!(!data.contains_key("a"), "{data:?}");
    assert_eq!((data["b"].as_str(), data["shared"].as_str()), ("2", "s"));
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_apply_overrules_and_leaves_what_others_added() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 1, &json!({}))).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client);
    let by_hand = json!({ "metadata": { "labels": { "team": "front" } }, "spec": { "replicas": 2 } });
    let p = PatchParams::default();
    api.patch("web", &p, &Patch::Merge(by_hand)).await.unwrap();
    let body = |labels: Value| {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "labels": labels }, "spec": { "replicas": 5 } })
    };
    let gitops = PatchParams::apply("gitops");
    for (labels, left) in [(json!({ "by": "gitops" }), 2), (json!({}), 1)] {
        let applied = Patch::Apply(body(labels));
        let after = api.patch("web", &gitops, &applied).await.unwrap();
        assert_eq!(after.spec.replicas, Some(5));
        assert_eq!(after.labels().len(), left, "{:?}", after.labels());
        assert_eq!(after.labels()["team"], "front");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn status_and_spec_do_not_touch_each_other() {
    let (cluster, client) = start().await;
    let mut manifest = web("web", 1, &json!({ "embedded.dormouse.dev/never-ready": "true" }));
    manifest.truncate(manifest.find("---").unwrap());
    cluster.apply_yaml(&manifest).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client);
    let p = PatchParams::default();
    let d = api
        .patch(
            "web",
            &p,
            &Patch::Merge(json!({ "status": { "collisionCount": 9 } })),
        )
        .await
        .unwrap();
    assert_eq!(d.status.and_then(|s| s.collision_count), None);
    let both = json!({ "spec": { "replicas": 7 }, "status": { "collisionCount": 9 } });
    let d = api.patch_status("web", &p, &Patch::Merge(both)).await.unwrap();
    assert_eq!(d.spec.replicas, Some(1));
    assert_eq!(d.status.unwrap().collision_count, Some(9));
    cluster.shutdown().await;
}

/// What parking a selector needs: the whole map replaced in one write that carries a precondition.
#[tokio::test]
async fn a_selector_is_replaced_whole() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 0, &json!({}))).unwrap();
    let api: Api<Service> = Api::default_namespaced(client);
    let s = api.get("web").await.unwrap();
    let patch = json!([
        { "op": "test", "path": "/metadata/resourceVersion", "value": s.resource_version() },
        { "op": "replace", "path": "/spec/selector", "value": { "dormouse.dev/parked": "web" } },
    ]);
    let patch = Patch::<()>::Json(from_value(patch).unwrap());
    let parked = api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    let selector = parked.spec.unwrap().selector.unwrap();
    assert_eq!(
        selector.into_iter().collect::<Vec<_>>(),
        [("dormouse.dev/parked".to_owned(), "web".to_owned())]
    );
    assert_eq!(
        refusal(
            &api.patch("web", &PatchParams::default(), &patch)
                .await
                .unwrap_err()
        )
        .0,
        422
    );
    cluster.shutdown().await;
}
