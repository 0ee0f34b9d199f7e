use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::discovery::{Discovery, Scope};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, from_value, json};

use crate::support::{refusal, start};

fn config_map(name: &str, labels: &Value) -> ConfigMap {
    from_value(json!({ "metadata": { "name": name, "labels": labels }, "data": { "k": "v" } })).unwrap()
}

#[tokio::test]
async fn a_full_discovery_finds_the_kinds_and_their_subresources() {
    let (cluster, client) = start().await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let d = Discovery::new(client).run().await.unwrap();
    let apps = d.get("apps").unwrap();
    let (ar, caps) = apps.recommended_kind("Deployment").unwrap();
    assert_eq!(ar.plural, "deployments");
    assert_eq!(caps.scope, Scope::Namespaced);
    assert!(
        caps.subresources
            .iter()
            .any(|(r, _)| r.plural == "scale" || r.plural == "deployments/scale")
    );
    for (group, kind) in [
        ("", "Pod"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("coordination.k8s.io", "Lease"),
        ("networking.k8s.io", "Ingress"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("events.k8s.io", "Event"),
    ] {
        assert!(
            d.get(group).and_then(|g| g.recommended_kind(kind)).is_some(),
            "{group} {kind}"
        );
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn create_read_update_delete() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let made = api
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    let again = api
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .unwrap_err();
    assert_eq!(refusal(&again), (409, "AlreadyExists".into()));

    let mut changed = made.clone();
    changed.data.as_mut().unwrap().insert("k".into(), "w".into());
    let second = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(second.resource_version(), made.resource_version());
    // `changed` still carries the first version.
    let stale = api
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap_err();
    assert_eq!(refusal(&stale), (409, "Conflict".into()));
    // A write that changes nothing is not a write.
    let same = api.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.resource_version(), second.resource_version());

    let wrong = Preconditions {
        uid: Some("other".into()),
        resource_version: None,
    };
    let refused = api
        .delete(
            "a",
            &DeleteParams {
                preconditions: Some(wrong),
                ..DeleteParams::default()
            },
        )
        .await;
    assert_eq!(refusal(&refused.unwrap_err()).0, 409);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(
        refusal(&api.get("a").await.unwrap_err()),
        (404, "NotFound".into())
    );
    assert!(api.get_opt("a").await.unwrap().is_none());
    cluster.shutdown().await;
}

#[tokio::test]
async fn lists_select_and_page_from_one_version() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    for (n, tier) in [("a", "front"), ("b", "back"), ("c", "front"), ("d", "front")] {
        api.create(&PostParams::default(), &config_map(n, &json!({ "tier": tier })))
            .await
            .unwrap();
    }
    let names =
        |l: &kube::api::ObjectList<ConfigMap>| l.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>();
    let front = api
        .list(&ListParams::default().labels("tier in (front),tier!=back"))
        .await
        .unwrap();
    assert_eq!(names(&front), ["a", "c", "d"]);
    let one = api
        .list(&ListParams::default().fields("metadata.name=b"))
        .await
        .unwrap();
    assert_eq!(names(&one), ["b"]);
    let first = api
        .list(&ListParams::default().labels("tier=front").limit(2))
        .await
        .unwrap();
    assert_eq!(names(&first), ["a", "c"]);
    let token = first.metadata.continue_.clone().unwrap();
    api.create(
        &PostParams::default(),
        &config_map("e", &json!({ "tier": "front" })),
    )
    .await
    .unwrap();
    let rest = api
        .list(
            &ListParams::default()
                .labels("tier=front")
                .limit(2)
                .continue_token(&token),
        )
        .await
        .unwrap();
    assert_eq!(names(&rest), ["d"], "pages show the version of the first page");
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
    cluster.compact();
    let expired = api
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap_err();
    assert_eq!(refusal(&expired).0, 410);
    let bad = api
        .list(&ListParams::default().fields("data.k=v"))
        .await
        .unwrap_err();
    assert_eq!(refusal(&bad).0, 400);
    cluster.shutdown().await;
}

#[tokio::test]
async fn namespaces_gate_their_content() {
    let (cluster, client) = start().await;
    let inside: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    let missing = inside
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .unwrap_err();
    assert_eq!(refusal(&missing).0, 404);
    let all: Api<Namespace> = Api::all(client);
    let ns: Namespace = from_value(json!({ "metadata": { "name": "team" } })).unwrap();
    all.create(&PostParams::default(), &ns).await.unwrap();
    inside
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .unwrap();
    let held = config_map("held", &json!({}));
    let mut held = inside.create(&PostParams::default(), &held).await.unwrap();
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    inside
        .replace("held", &PostParams::default(), &held)
        .await
        .unwrap();
    let gone = all.delete("team", &DeleteParams::default()).await.unwrap();
    let phase = gone.left().and_then(|n| n.status).and_then(|s| s.phase);
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let late = inside
        .create(&PostParams::default(), &config_map("b", &json!({})))
        .await
        .unwrap_err();
    assert_eq!(refusal(&late), (403, "Forbidden".into()));
    cluster
        .wait_for("configmaps", "team", crate::support::SOON, |l| l.len() == 1)
        .await
        .unwrap();
    held = inside.get("held").await.unwrap();
    held.metadata.finalizers = None;
    inside
        .replace("held", &PostParams::default(), &held)
        .await
        .unwrap();
    cluster
        .wait_for("namespaces", "", crate::support::SOON, |l| {
            l.iter().all(|n| n["metadata"]["name"] != "team")
        })
        .await
        .unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn services_get_an_address_and_slices_are_validated() {
    let (cluster, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let make = |v: Value| from_value::<Service>(v).unwrap();
    let svc = make(json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80 }] } }));
    let s = services.create(&PostParams::default(), &svc).await.unwrap();
    let spec = s.spec.clone().unwrap();
    assert!(spec.cluster_ip.unwrap().starts_with("127."));
    let headless = make(
        json!({ "metadata": { "name": "h" }, "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } }),
    );
    let h = services.create(&PostParams::default(), &headless).await.unwrap();
    assert_eq!(h.spec.unwrap().cluster_ips.unwrap(), ["None"]);
    let two =
        make(json!({ "metadata": { "name": "t" }, "spec": { "ports": [{ "port": 80 }, { "port": 81 }] } }));
    assert_eq!(
        refusal(&services.create(&PostParams::default(), &two).await.unwrap_err()),
        (422, "Invalid".into())
    );
    let mut moved = s;
    moved.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.1".into());
    assert_eq!(
        refusal(
            &services
                .replace("s", &PostParams::default(), &moved)
                .await
                .unwrap_err()
        )
        .0,
        422
    );

    let slices: Api<EndpointSlice> = Api::default_namespaced(client);
    let slice = |address: &str, kind: &str| -> EndpointSlice {
        from_value(json!({
            "metadata": { "generateName": "s-", "labels": { "kubernetes.io/service-name": "s" } },
            "addressType": kind,
            "endpoints": [{ "addresses": [address] }],
            "ports": [{ "name": "http", "port": 80 }],
        }))
        .unwrap()
    };
    for (address, kind) in [
        ("nonsense", "IPv4"),
        ("169.254.0.1", "IPv4"),
        ("127.0.0.1", "IPv6"),
        ("127.0.0.1", "Ip"),
    ] {
        let refused = slices
            .create(&PostParams::default(), &slice(address, kind))
            .await
            .unwrap_err();
        assert_eq!(refusal(&refused), (422, "Invalid".into()), "{address} {kind}");
    }
    let made = slices
        .create(&PostParams::default(), &slice("127.0.0.1", "IPv4"))
        .await
        .unwrap();
    assert!(made.name_any().starts_with("s-") && made.name_any().len() == 7);
    assert_eq!(made.metadata.generation, Some(1));
    cluster.shutdown().await;
}

#[tokio::test]
async fn leases_are_never_overwritten_blindly() {
    let (cluster, client) = start().await;
    let api: Api<Lease> = Api::default_namespaced(client);
    let lease: Lease = from_value(json!({
        "metadata": { "name": "leader" },
        "spec": { "holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2025-01-01T00:00:00.000000Z" },
    }))
    .unwrap();
    let made = api.create(&PostParams::default(), &lease).await.unwrap();
    // Without a version, replacing a Lease is refused.
    assert_eq!(
        refusal(
            &api.replace("leader", &PostParams::default(), &lease)
                .await
                .unwrap_err()
        )
        .0,
        422
    );
    let (mut b, mut c) = (made.clone(), made);
    b.spec.as_mut().unwrap().holder_identity = Some("b".into());
    c.spec.as_mut().unwrap().holder_identity = Some("c".into());
    api.replace("leader", &PostParams::default(), &b).await.unwrap();
    assert_eq!(
        refusal(
            &api.replace("leader", &PostParams::default(), &c)
                .await
                .unwrap_err()
        )
        .0,
        409
    );
    assert_eq!(
        api.get("leader")
            .await
            .unwrap()
            .spec
            .unwrap()
            .holder_identity
            .as_deref(),
        Some("b")
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn events_have_two_faces() {
    let (cluster, client) = start().await;
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(client.clone());
    let event = from_value(json!({
        "metadata": { "name": "e1" },
        "regarding": { "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "default", "name": "web" },
        "reason": "Slept", "action": "Sleep", "note": "it sleeps", "type": "Normal",
        "reportingController": "dormouse.dev", "reportingInstance": "one", "eventTime": "2025-01-01T00:00:00.000000Z",
    }))
    .unwrap();
    new.create(&PostParams::default(), &event).await.unwrap();
    let old: Api<Event> = Api::default_namespaced(client);
    let about_web = ListParams::default().fields("involvedObject.name=web,reason=Slept");
    let found = old.list(&about_web).await.unwrap();
    assert_eq!(found.items[0].message.as_deref(), Some("it sleeps"));
    assert_eq!(found.items[0].involved_object.kind.as_deref(), Some("Deployment"));
    let elsewhere: Event = from_value(json!({
        "metadata": { "name": "e2" }, "involvedObject": { "namespace": "kube-system", "name": "x" },
    }))
    .unwrap();
    assert_eq!(
        refusal(&old.create(&PostParams::default(), &elsewhere).await.unwrap_err()).0,
        422
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn secrets_dry_runs_collections_and_metadata() {
    let (cluster, client) = start().await;
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let s: Secret = from_value(json!({ "metadata": { "name": "s" }, "stringData": { "k": "v" } })).unwrap();
    let dry = PostParams {
        dry_run: true,
        field_manager: None,
    };
    secrets.create(&dry, &s).await.unwrap();
    assert!(secrets.get_opt("s").await.unwrap().is_none());
    let made = secrets.create(&PostParams::default(), &s).await.unwrap();
    assert_eq!(made.data.unwrap()["k"].0, b"v");

    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for n in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(n, &json!({ "mine": "yes" })))
            .await
            .unwrap();
    }
    let meta = maps
        .list_metadata(&ListParams::default().labels("mine=yes"))
        .await
        .unwrap();
    assert_eq!(meta.items.len(), 2);
    maps.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("mine=yes"),
    )
    .await
    .unwrap();
    assert!(
        maps.list(&ListParams::default().labels("mine=yes"))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(maps.get_metadata("kube-root-ca.crt").await.is_ok(), "others stay");
    cluster.shutdown().await;
}

#[tokio::test]
async fn what_is_refused_on_the_way_is_a_status_too() {
    let (cluster, client) = start().await;
    let large = vec![b' '; 3 * 1024 * 1024 + 1];
    for (method, path, body, code, reason) in [
        (
            "GET",
            "/apis/nothing.example/v1/things",
            Vec::new(),
            404,
            "NotFound",
        ),
        ("GET", "/nothing", Vec::new(), 404, "NotFound"),
        ("POST", "/version", Vec::new(), 405, "MethodNotAllowed"),
        ("PUT", "/api/v1/nodes", Vec::new(), 405, "MethodNotAllowed"),
        (
            "GET",
            "/api/v1/nodes?labelSelector=a%20in%20(b",
            Vec::new(),
            400,
            "BadRequest",
        ),
        ("POST", "/api/v1/namespaces", large, 413, "RequestEntityTooLarge"),
    ] {
        let request = http::Request::builder().method(method).uri(path).body(body);
        let refused = client.request::<Value>(request.unwrap()).await.unwrap_err();
        assert_eq!(refusal(&refused), (code, reason.into()), "{method} {path}");
    }
    let decoded = http::Request::get("/api/v1/nodes/embedd%65d").body(Vec::new());
    let node = client.request::<Value>(decoded.unwrap()).await.unwrap();
    assert_eq!(node["metadata"]["name"], "embedded");
    cluster.shutdown().await;
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let options = dormouse_embedded::Options {
        bind: "0.0.0.0:0".parse().unwrap(),
        ..Default::default()
    };
    let refused = dormouse_embedded::EmbeddedCluster::start(options)
        .await
        .unwrap_err();
    assert!(matches!(refused, dormouse_embedded::Error::NotLoopback(_)));
}
