use dormouse_embedded::{EmbeddedCluster, Fault};
use dormouse_kubernetes::{Leadership, LeadershipConfig, Outages, Scope, client_from_kubeconfig};
use dormouse_sleepers::crd;
use dormouse_sleepers::lifecycle::Timings;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const NAMESPACES: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n\
    {apiVersion: v1, kind: Namespace, metadata: {name: dormouse}}\n";

/// A cluster on which Dormouse was, and is not running any more.
struct World {
    api: EmbeddedCluster,
    client: Client,
    config: Config,
}

impl World {
    async fn new() -> Self {
        let api = EmbeddedCluster::start(dormouse_embedded::Options::default())
            .await
            .unwrap();
        let client = client_from_kubeconfig(&api.kubeconfig()).await.unwrap();
        api.apply_yaml(NAMESPACES).unwrap();
        let config = Config {
            scope: Scope::All,
            dlx_service: Some(("dormouse".into(), "dormouse-dlx".into())),
            ingresses: false,
            timings: Timings {
                finalize: Duration::from_secs(1),
                drain_grace: Duration::from_millis(50),
                endpoints_lag: Duration::from_millis(50),
                relist: Duration::from_millis(50),
                unproven: Duration::from_millis(50),
                ..Timings::default()
            },
            ..Config::default()
        };
        Self { api, client, config }
    }

    async fn with_crd() -> Self {
        let world = Self::new().await;
        crd::install(&world.client, "test", Duration::from_secs(20))
            .await
            .unwrap();
        world
    }

    /// A workload with its Service, both as they are while it sleeps.
    fn asleep(&self, name: &str, deployment: bool) {
        if deployment {
            self.api
                .apply_yaml(
                    &json!({
                        "apiVersion": "apps/v1", "kind": "Deployment",
                        "metadata": {"name": name, "namespace": "shop"},
                        "spec": {
                            "replicas": 0,
                            "selector": {"matchLabels": {"app": name}},
                            "template": {
                                "metadata": {"labels": {"app": name}},
                                "spec": {"containers": [{"name": "c", "image": "none", "ports": [{"containerPort": 8080}]}]},
                            },
                        },
                    })
                    .to_string(),
                )
                .unwrap();
        }
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "annotations": {
                "dormouse.dev/parked-selector": json!({"app": name, "tier": "web"}).to_string(),
            }},
            "spec": {
                "selector": {"dormouse.dev/parked": format!("{name}.workloads")},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-dormouse"), "namespace": "shop", "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "dormouse.dev",
            }},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 20001, "protocol": "TCP"}],
        });
        self.api.apply_yaml(&format!("{service}\n---\n{slice}")).unwrap();
    }

    async fn sleeper(&self, name: &str, status: Value) {
        let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let sleeper = json!({
            "apiVersion": "dormouse.dev/v1alpha1", "kind": "Sleeper",
            "metadata": {
                "name": format!("{name}.workloads"), "namespace": "shop",
                "finalizers": ["dormouse.dev/restore"],
            },
            "spec": {
                "plugin": "workloads", "resource": name, "object": workload,
                "workloads": [workload], "services": [name],
            },
        });
        let api: Api<Sleeper> = Api::namespaced(self.client.clone(), "shop");
        let made: Sleeper = serde_json::from_value(sleeper).unwrap();
        let mut made = api.create(&PostParams::default(), &made).await.unwrap();
        made.status = Some(serde_json::from_value(status).unwrap());
        api.replace_status(&made.name_any(), &PostParams::default(), &made)
            .await
            .unwrap();
    }

    async fn sleeping(&self, name: &str, deployment: bool) {
        self.asleep(name, deployment);
        self.sleeper(name, sleeping_status(name)).await;
    }

    /// A DLX that is ready, as its own Service shows it.
    fn dlx(&self) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "dormouse-dlx-1", "namespace": "dormouse", "labels": {
                "kubernetes.io/service-name": "dormouse-dlx",
            }},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}}],
        });
        self.api.apply_yaml(&slice.to_string()).unwrap();
    }

    async fn leader_saw_an_outage(&self, last: Timestamp) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "dormouse-autoscaler", "annotations": {"dormouse.dev/last-outage": last.to_string()}},
            "spec": {},
        });
        let lease: Lease = serde_json::from_value(lease).unwrap();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "dormouse");
        leases.create(&PostParams::default(), &lease).await.unwrap();
    }

    async fn restore(&self, seconds: u64) -> Result<()> {
        let lease = "dormouse/dormouse-autoscaler".parse::<Namespaced>().unwrap();
        let patience = Patience {
            deadline: Duration::from_secs(seconds),
            wake_limit: Duration::from_millis(1500),
            settle: Duration::from_millis(200),
        };
        let shutdown = CancellationToken::new();
        restore(
            self.client.clone(),
            self.config.clone(),
            Some(&lease),
            patience,
            &shutdown,
        )
        .await
    }

    fn service(&self, name: &str) -> Value {
        self.api.get("services", "shop", name).unwrap()
    }

    fn assert_untouched(&self, name: &str) {
        let service = self.service(name);
        assert_eq!(
            service["spec"]["selector"],
            json!({"app": name, "tier": "web"}),
            "{service}"
        );
        let annotations = service["metadata"]["annotations"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        assert!(
            !annotations.keys().any(|key| key.starts_with("dormouse.dev")),
            "{service}"
        );
    }

    fn slices_of_ours(&self) -> usize {
        let of_ours = |slice: &Value| {
            slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "dormouse.dev"
        };
        self.api
            .list("endpointslices.discovery.k8s.io", "shop")
            .iter()
            .filter(|slice| of_ours(slice))
            .count()
    }

    fn sleepers(&self) -> usize {
        self.api.list("sleepers.dormouse.dev", "shop").len()
    }

    async fn holder(&self) -> String {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), "dormouse");
        let lease = api.get("dormouse-autoscaler").await.unwrap();
        lease.spec.unwrap().holder_identity.unwrap_or_default()
    }
}

fn sleeping_status(name: &str) -> Value {
    json!({
        "phase": "Asleep", "wish": "Asleep", "epoch": 3, "reason": "idle", "atZero": true,
        "since": "2026-01-01T00:00:00Z",
        "replicas": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "replicas": 2}],
        "ports": [{"service": name, "name": "http", "port": 80, "dlxPort": 20001}],
    })
}

#[tokio::test]
async fn nothing_is_left_although_neither_autoscaler_nor_dlx_runs() {
    let world = World::with_crd().await;
    world.sleeping("web", true).await;
    world.sleeping("api", true).await;
    world.sleeping("gone", false).await;
    world.asleep("orphan", true);
    // Somebody took its selector away by hand while it was parked.
    let bare = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "bare", "namespace": "shop", "annotations": {
            "dormouse.dev/parked-selector": "{\"app\":\"bare\"}",
            "dormouse.dev/parked-workloads": "[]",
        }},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    world.api.apply_yaml(&bare.to_string()).unwrap();
    world.restore(30).await.unwrap();
    for name in ["web", "api", "gone", "orphan"] {
        world.assert_untouched(name);
    }
    let left = world.service("bare")["metadata"]["annotations"].to_string();
    assert!(!left.contains("dormouse.dev/parked"), "{left}");
    for name in ["web", "api"] {
        let deployment = world.api.get("deployments.apps", "shop", name).unwrap();
        assert_eq!(deployment["spec"]["replicas"], 2, "{deployment}");
        assert!(
            deployment["metadata"]["annotations"]["dormouse.dev/epoch"].is_null(),
            "{deployment}"
        );
    }
    assert_eq!((world.sleepers(), world.slices_of_ours()), (0, 0));
    assert!(
        world.holder().await.starts_with("restore-"),
        "{}",
        world.holder().await
    );
}

/// Nodes that are behind may hear that the DLX has left before they hear that the pods are there.
#[tokio::test]
async fn the_dlx_leaves_only_after_nodes_have_caught_up_with_an_outage() {
    let mut world = World::with_crd().await;
    let grace = Duration::from_secs(8);
    world.config.timings.outage_grace = grace;
    world.dlx();
    world.sleeping("web", true).await;
    let last = Timestamp::now();
    world.leader_saw_an_outage(last).await;
    let (outcome, left) = tokio::join!(world.restore(30), async {
        while world.slices_of_ours() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Timestamp::now()
    });
    outcome.unwrap();
    assert!(left >= last + grace, "{left}, {last}");
    world.assert_untouched("web");
}

#[tokio::test]
async fn one_that_refuses_is_named_with_what_undoes_it_and_delays_nobody() {
    let world = World::with_crd().await;
    for name in ["bad", "good"] {
        world.sleeping(name, true).await;
    }
    world.api.inject(Fault {
        verb: "update".into(),
        resource: "deployments.apps/scale".into(),
        name: "bad".into(),
        status: 403,
        message: "a webhook says no".into(),
        ..Fault::default()
    });
    let error = world.restore(6).await.unwrap_err().to_string();
    // Its epoch stays: Dormouse does too.
    assert_eq!(
        world.service("good")["spec"]["selector"],
        json!({"app": "good", "tier": "web"})
    );
    assert_eq!(world.sleepers(), 1);
    for part in [
        "Sleeper shop/bad.workloads",
        "a webhook says no",
        "kubectl -n shop scale deployment bad --replicas=2",
        "kubectl -n shop delete sleeper bad.workloads",
    ] {
        assert!(error.contains(part), "{part} is not in:\n{error}");
    }
    assert!(!error.contains("good"), "{error}");
    assert_eq!(world.holder().await, "", "the autoscaler may go on");
}

#[tokio::test]
async fn a_service_whose_original_selector_is_lost_is_named() {
    let world = World::with_crd().await;
    world.asleep("web", true);
    let patch = json!({"metadata": {"annotations": {"dormouse.dev/parked-selector": null}}});
    let api: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(world.client.clone(), "shop");
    let patch = kube::api::Patch::Merge(&patch);
    api.patch("web", &kube::api::PatchParams::default(), &patch)
        .await
        .unwrap();
    let error = world.restore(3).await.unwrap_err().to_string();
    assert!(
        error.contains("Service shop/web") && error.contains("from your manifests"),
        "{error}"
    );
}

#[tokio::test]
async fn without_the_definition_there_is_nothing_to_do() {
    World::new().await.restore(10).await.unwrap();
}

#[tokio::test]
async fn a_leader_stops_when_its_lease_is_taken_and_goes_on_when_it_is_given_back() {
    let world = World::new().await;
    let election = LeadershipConfig {
        retry: Duration::from_millis(50),
        ..LeadershipConfig::new("dormouse", "dormouse-autoscaler", "leader")
    };
    let stop = CancellationToken::new();
    let leader = Leadership::start(world.client.clone(), election, Outages::default(), stop.clone());
    let until = async |wanted: bool| {
        let mut leads = leader.watch();
        let changed = leads.wait_for(|leads| *leads == wanted);
        tokio::time::timeout(Duration::from_secs(10), changed)
            .await
            .unwrap()
            .unwrap();
    };
    until(true).await;
    let lease = "dormouse/dormouse-autoscaler".parse::<Namespaced>().unwrap();
    let (lasts, deadline) = (Duration::from_secs(60), Instant::now() + Duration::from_secs(10));
    let seized = Seized::take(world.client.clone(), &lease, "job", lasts, deadline)
        .await
        .unwrap();
    assert!(seized.had_leader());
    until(false).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!leader.leads());
    seized.give_back().await;
    until(true).await;
    stop.cancel();
    leader.finished().await;
}

#[tokio::test]
async fn while_the_lease_cannot_be_taken_everything_is_restored_all_the_same() {
    let world = World::with_crd().await;
    world.sleeping("web", true).await;
    world.api.inject(Fault {
        resource: "leases.coordination.k8s.io".into(),
        status: 403,
        ..Fault::default()
    });
    world.restore(30).await.unwrap();
    world.assert_untouched("web");
    assert_eq!(world.sleepers(), 0);
}

#[rstest]
#[case(json!({"phase": "Asleep", "wish": "Asleep"}), false, Wanted::Wake)]
#[case(json!({"phase": "Draining", "wish": "Asleep"}), false, Wanted::Wake)]
#[case(json!({"phase": "Observing", "wish": "Observed"}), false, Wanted::Wake)]
#[case(json!({"phase": "Awake", "wish": "Asleep"}), false, Wanted::Wake)]
#[case(json!({"phase": "Waking", "wish": "Awake"}), false, Wanted::Nothing)]
#[case(json!({"phase": "Ready", "wish": "Awake"}), false, Wanted::Nothing)]
#[case(json!({"phase": "Waking", "wish": "Awake"}), true, Wanted::Go)]
#[case(json!({"phase": "Awake", "wish": "Awake"}), false, Wanted::Go)]
fn a_sleeper_wakes_before_it_goes(#[case] status: Value, #[case] overdue: bool, #[case] expected: Wanted) {
    let mut sleeper = Sleeper::default();
    sleeper.spec.services = vec!["web".into()];
    sleeper.status = Some(serde_json::from_value(status).unwrap());
    assert_eq!(wanted(&sleeper, overdue), expected);
    sleeper.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(wanted(&sleeper, overdue), Wanted::Nothing);
}

#[test]
fn what_its_own_platform_scales_is_only_let_go() {
    let sleeper = Sleeper {
        status: Some(serde_json::from_value(json!({"phase": "Asleep", "wish": "Asleep"})).unwrap()),
        ..Sleeper::default()
    };
    assert_eq!(wanted(&sleeper, false), Wanted::Go);
}
