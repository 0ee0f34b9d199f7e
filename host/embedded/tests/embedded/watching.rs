use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{from_value, json};
use tokio::time::timeout;

use dormouse_embedded::Options;

use crate::support::{SOON, start, start_with};

fn config_map(name: &str, tier: &str) -> ConfigMap {
    from_value(json!({ "metadata": { "name": name, "labels": { "tier": tier } } })).unwrap()
}

#[tokio::test]
async fn a_watch_from_a_version_sees_every_later_write() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let first = api
        .create(&PostParams::default(), &config_map("a", "x"))
        .await
        .unwrap();
    api.patch(
        "a",
        &PatchParams::default(),
        &Patch::Merge(json!({ "data": { "k": "v" } })),
    )
    .await
    .unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let from = first.resource_version().unwrap();
    let mut stream = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let mut seen = Vec::new();
    for _ in 0..2 {
        match timeout(SOON, stream.try_next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Modified(o) => seen.push(format!("modified {}", o.name_any())),
            WatchEvent::Deleted(o) => {
                assert_ne!(o.resource_version(), first.resource_version());
                seen.push(format!("deleted {}", o.name_any()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["modified a", "deleted a"]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_objects_come_and_go() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let params = WatchParams::default().labels("tier=front");
    let mut stream = api.watch(&params, "0").await.unwrap().boxed();
    api.create(&PostParams::default(), &config_map("a", "back"))
        .await
        .unwrap();
    let label = |t: &str| Patch::Merge(json!({ "metadata": { "labels": { "tier": t } } }));
    api.patch("a", &PatchParams::default(), &label("front"))
        .await
        .unwrap();
    api.patch("a", &PatchParams::default(), &label("back"))
        .await
        .unwrap();
    let mut next = async || timeout(SOON, stream.try_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(next().await, WatchEvent::Added(_)));
    let WatchEvent::Deleted(last) = next().await else {
        panic!("expected it to leave")
    };
    assert_eq!(last.labels()["tier"], "front", "the last state that matched");
    assert_eq!(
        last.resource_version(),
        api.get("a").await.unwrap().resource_version()
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn old_versions_are_gone() {
    let (cluster, client) = start_with(Options {
        watch_history: 5,
        ..Options::default()
    })
    .await;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let first = api
        .create(&PostParams::default(), &config_map("a", "x"))
        .await
        .unwrap();
    for i in 0..10 {
        let p = Patch::Merge(json!({ "data": { "i": i.to_string() } }));
        api.patch("a", &PatchParams::default(), &p).await.unwrap();
    }
    let from = first.resource_version().unwrap();
    let mut stream = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let WatchEvent::Error(e) = timeout(SOON, stream.try_next()).await.unwrap().unwrap().unwrap() else {
        panic!("expected an error event")
    };
    assert_eq!((e.code, e.reason.as_str()), (410, "Expired"));
    cluster.shutdown().await;
}

#[tokio::test]
async fn bookmarks_advance_idle_watches() {
    let options = Options {
        bookmark_interval: Duration::from_millis(20),
        ..Options::default()
    };
    let (cluster, client) = start_with(options).await;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let mut stream = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    // A write to something else moves the version on.
    let other: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    let written = other
        .create(&PostParams::default(), &config_map("b", "x"))
        .await
        .unwrap();
    let want: u64 = written.resource_version().unwrap().parse().unwrap();
    let reached = async {
        loop {
            if let Some(WatchEvent::Bookmark(b)) = stream.try_next().await.unwrap()
                && b.metadata.resource_version.parse::<u64>().unwrap() >= want
            {
                return;
            }
        }
    };
    timeout(SOON, reached).await.unwrap();
    cluster.shutdown().await;
}

/// Both ways in which kube's watcher begins, and what it does after 410.
#[tokio::test]
async fn reflectors_follow_and_recover() {
    let (cluster, client) = start().await;
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
        api.create(&PostParams::default(), &config_map("a", "x"))
            .await
            .unwrap();
        let (store, writer) = reflector::store();
        let stream = watcher(api.clone(), config)
            .default_backoff()
            .reflect(writer)
            .touched_objects();
        let task = tokio::spawn(async move { stream.for_each(|_| std::future::ready(())).await });
        timeout(SOON, store.wait_until_ready()).await.unwrap().unwrap();
        let has = |n: &str| store.state().iter().any(|o| o.name_any() == n);
        assert!(has("a"));
        api.create(&PostParams::default(), &config_map("b", "x"))
            .await
            .unwrap();
        crate::support::eventually("b appears", async || has("b").then_some(())).await;
        cluster.compact();
        api.delete("a", &DeleteParams::default()).await.unwrap();
        api.delete("b", &DeleteParams::default()).await.unwrap();
        crate::support::eventually("both disappear", async || (!has("a") && !has("b")).then_some(())).await;
        task.abort();
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn metadata_watches_carry_metadata_only() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    api.create(&PostParams::default(), &config_map("a", "x"))
        .await
        .unwrap();
    let metas: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client, "kube-public");
    let mut stream = watcher(metas, watcher::Config::default())
        .applied_objects()
        .boxed();
    let found = async {
        loop {
            let o = stream.try_next().await.unwrap().unwrap();
            if o.name_any() == "a" {
                return o;
            }
        }
    };
    let o = timeout(SOON, found).await.unwrap();
    assert_eq!(o.labels()["tier"], "x");
    cluster.shutdown().await;
}

#[tokio::test]
async fn watches_end_with_the_cluster() {
    let (cluster, client) = start().await;
    let api: Api<ConfigMap> = Api::all(client);
    let mut stream = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    cluster.shutdown().await;
    let drained = async { while let Some(Ok(_)) = stream.next().await {} };
    timeout(SOON, drained).await.unwrap();
}
