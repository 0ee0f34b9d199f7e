//! MemHpas that ask for sleep, on a cluster: what is seen of their workloads, and when it is looked at anew.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use dormouse_autoscaler::Source;
use dormouse_model::{Target, TargetState};
use dormouse_sources::memhpa::{MemHpa, MemHpaConfig, MemHpaSource, USAGE, yaml};
use dormouse_testing::{PATIENCE, Setup, World, found};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

/// So often that nothing waits for it, or so seldom that nothing comes of it.
const SELDOM: Duration = Duration::from_secs(3600);

struct Fixture {
    world: World,
    source: Arc<MemHpaSource>,
    _ends: DropGuard,
}

fn memhpa(name: &str, workload: &str, kind: &str) -> String {
    json!({
        "apiVersion": "xinhuang.com/v1", "kind": "MemHpa",
        "metadata": {
            "name": name, "namespace": "shop", "annotations": {"dormouse.dev/sleep-after": "15m"},
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": workload},
            "minReplicas": 0, "maxReplicas": 5,
        },
    })
    .to_string()
}

fn service(name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
    .to_string()
}

fn deployment(name: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    })
    .to_string()
}

impl Fixture {
    async fn new(manifests: &[String]) -> Self {
        let setup = Setup {
            replicas: 1,
            manifests: format!("{}\n---\n{}", yaml().unwrap(), manifests.join("\n---\n")),
            ..Setup::default()
        };
        let world = setup.start().await;
        let cancel = CancellationToken::new();
        let config = MemHpaConfig {
            server: "main".to_owned(),
            query: USAGE.to_owned(),
            scale_interval: SELDOM,
        };
        let source = MemHpaSource::start(&world.cluster, config, cancel.clone());
        Self {
            world,
            source,
            _ends: cancel.drop_guard(),
        }
    }

    async fn target(&self, name: &str) -> Arc<Target> {
        let targets = self.source.targets().await.unwrap();
        let named = targets.into_iter().find(|target| target.key.name == name);
        named.unwrap()
    }

    /// Lists when the source says that something has changed, until a target is so.
    async fn until(&self, name: &str, is: impl Fn(&Target) -> bool) -> Arc<Target> {
        let mut changes = self.source.changes();
        let wait = async {
            loop {
                let target = self.target(name).await;
                if is(&target) {
                    return target;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_found_by_the_pods_that_they_select() {
    let fixture = Fixture::new(&[memhpa("by-memory", "web", "Deployment")]).await;
    let target = fixture.target("by-memory").await;
    assert!(target.has_sleeper && target.is_observed(), "{target:?}");
    assert_eq!(
        (target.state, &*target.wake_on),
        (TargetState::Awake, &["web".to_owned()][..])
    );
    fixture.world.api.apply_yaml(&service("admin")).unwrap();
    let both = fixture
        .until("by-memory", |target| target.wake_on.len() == 2)
        .await;
    assert_eq!(both.wake_on, ["admin", "web"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_comes_later_is_noticed() {
    let manifests = [
        memhpa("early", "late", "Deployment"),
        memhpa("wrong", "late", "Farm"),
    ];
    let fixture = Fixture::new(&manifests).await;
    let (early, wrong) = (fixture.target("early").await, fixture.target("wrong").await);
    assert!(
        !early.has_sleeper && !wrong.has_sleeper,
        "there is nothing to sleep"
    );
    fixture.world.api.apply_yaml(&deployment("late")).unwrap();
    let target = fixture.until("early", |target| target.has_sleeper).await;
    assert_eq!(target.state, TargetState::Asleep);
    assert!(target.triggers[0].query.is_err(), "no Service leads to it");
    let wrong = fixture.target("wrong").await;
    assert!(!wrong.has_sleeper, "nobody knows its kind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_seen_with_the_next_listing() {
    let fixture = Fixture::new(&[memhpa("by-memory", "web", "Deployment")]).await;
    assert_eq!(fixture.target("by-memory").await.state, TargetState::Awake);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    Api::<Deployment>::namespaced(fixture.world.cluster.client().clone(), "shop")
        .patch("web", &PatchParams::default(), &none)
        .await
        .unwrap();
    found("a workload at zero", || async {
        let target = fixture.target("by-memory").await;
        (target.state == TargetState::Asleep).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_annotation_may_come_and_go() {
    let fixture = Fixture::new(&[memhpa("by-memory", "web", "Deployment")]).await;
    assert!(fixture.target("by-memory").await.has_sleeper);
    for (value, sleeps) in [(json!(null), false), (json!("5m"), true)] {
        let api = Api::<MemHpa>::namespaced(fixture.world.cluster.client().clone(), "shop");
        let annotation = json!({"metadata": {"annotations": {"dormouse.dev/sleep-after": value}}});
        api.patch("by-memory", &PatchParams::default(), &Patch::Merge(annotation))
            .await
            .unwrap();
        fixture
            .until("by-memory", |target| target.has_sleeper == sleeps)
            .await;
    }
}
