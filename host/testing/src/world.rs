//! An embedded cluster with one workload behind one Service.

use std::sync::Arc;
use std::time::Duration;

use dormouse_embedded::{EmbeddedCluster, Options};
use dormouse_kubernetes::client_from_kubeconfig;
use dormouse_model::{ObjectRef, Owner, Phase};
use dormouse_sleepers::lifecycle::{DesiredState, SleeperState, Timings, TrafficCheckPolicy};
use dormouse_sleepers::{Cluster, Config, Declared, Requested, Role, Sleeper, SleeperKey, SleeperSpec, crd};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::traffic::try_get;
use crate::{PATIENCE, eventually, soon};

/// Port of the Service and of the pods.
pub const PORT: u16 = 8080;

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: dormouse}
";

/// The Deployment `web` and its Service.
fn manifest(replicas: usize) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers: [{{name: web, image: none, ports: [{{name: http, containerPort: {PORT}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop, labels: {{team: front}}}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: {PORT}, targetPort: http}}]
"
    )
}

/// The Deployment.
pub fn workload() -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: "web".into(),
    }
}

/// Settings under which everything takes milliseconds.
pub fn config() -> Config {
    Config {
        dlx_service: Some(("dormouse".into(), "dlx".into())),
        readiness_timeout: Duration::from_secs(10),
        timings: Timings {
            drain_grace: Duration::from_millis(50),
            outage_grace: Duration::ZERO,
            give_up: Duration::from_secs(10),
            dlx_absence: Duration::from_millis(300),
            finalize: Duration::from_secs(5),
            endpoints_lag: Duration::from_millis(100),
            relist: Duration::from_millis(200),
            unproven: Duration::from_secs(2),
            decision_limit: Duration::from_secs(30),
            port_grace: Duration::from_secs(60),
            traffic_check: TrafficCheckPolicy {
                settle: Duration::from_millis(10),
                longest: Duration::from_secs(1),
            },
        },
        ..Config::default()
    }
}

/// Shows what `RUST_LOG` asks for.
fn log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

/// How a world is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Of the process under test.
    pub config: Config,
    /// Pods of the workload; the world begins when they are ready and the Service answers.
    pub replicas: usize,
    /// What is there besides.
    pub manifests: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: config(),
            replicas: 2,
            manifests: String::new(),
        }
    }
}

impl Setup {
    /// The cluster with the workload, and without any Sleeper.
    pub async fn start(self) -> World {
        log();
        let api = EmbeddedCluster::start(Options::default()).await.unwrap();
        let client = client_from_kubeconfig(&api.kubeconfig()).await.unwrap();
        crd::install(&client, "dormouse", PATIENCE).await.unwrap();
        for manifests in [NAMESPACES, &manifest(self.replicas), &self.manifests] {
            api.apply_yaml(manifests).unwrap();
        }
        if self.replicas > 0 {
            api.wait_for_ready_pods("shop", "app=web", self.replicas, PATIENCE)
                .await
                .unwrap();
            // Ready pods are listed before the Service leads to them.
            let address = api.service_address("shop", "web", PORT).unwrap();
            eventually("the Service answers", || async {
                try_get(address, "/").await.is_ok()
            })
            .await;
        }
        let cluster = Cluster::connect(client, self.config).await.unwrap();
        let key = SleeperKey::of_plugin("workloads", "shop", "web");
        World { api, cluster, key }
    }
}

/// The cluster, and a process on it.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub api: EmbeddedCluster,
    /// The process under test.
    pub cluster: Cluster,
    /// Of the Sleeper that the plugin `workloads` wants.
    pub key: SleeperKey,
}

impl World {
    /// With a declared, awake Sleeper.
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    /// The same with other settings.
    pub async fn with(config: Config) -> Self {
        let setup = Setup {
            config,
            ..Setup::default()
        };
        let world = setup.start().await;
        world.declare("workloads").await;
        world
    }

    /// Declares the Sleeper that a plugin wants for the workload and its Service.
    pub async fn declare(&self, plugin: &str) -> SleeperKey {
        self.declare_more(plugin, SleeperSpec::default()).await
    }

    /// The same, and the Sleeper says more.
    pub async fn declare_more(&self, plugin: &str, more: SleeperSpec) -> SleeperKey {
        let declared = Declared {
            key: SleeperKey::of_plugin(plugin, "shop", "web"),
            spec: SleeperSpec {
                owner: Some(Owner::plugin(plugin)),
                resource: "web".into(),
                object: workload(),
                workloads: vec![workload()],
                services: vec!["web".into()],
                ..more
            },
        };
        self.cluster.declarations().declare(&declared).await.unwrap();
        declared.key
    }

    /// Asks that the resource goes to sleep.
    pub async fn request_sleep(&self, reason: &str) {
        self.cluster
            .desired()
            .request_sleep(&self.key, reason)
            .await
            .unwrap();
    }

    /// Asks that the resource wakes.
    pub async fn request_wake(&self, reason: &str) -> Requested {
        let requested = self.cluster.desired().request_wake(&self.key, reason).await;
        requested.unwrap()
    }

    /// Another process on the same cluster.
    pub async fn another_process(&self) -> Cluster {
        let client = client_from_kubeconfig(&self.api.kubeconfig()).await.unwrap();
        Cluster::connect(client, config()).await.unwrap()
    }

    /// Removes the Sleeper as somebody in a hurry does: without its finalizer.
    pub async fn remove_by_force(&self) {
        let api = Api::<Sleeper>::namespaced(self.cluster.client().clone(), "shop");
        let name = self.key.object_name();
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        api.patch(&name, &PatchParams::default(), &none).await.unwrap();
        api.delete(&name, &DeleteParams::default()).await.unwrap();
        eventually("it is gone", || async {
            self.cluster.caches().sleeper(&self.key).is_none()
        })
        .await;
    }

    /// What the process under test knows of the Sleeper.
    pub fn state(&self) -> SleeperState {
        let sleeper = self.cluster.caches().sleeper(&self.key).unwrap();
        sleeper.status.clone().unwrap_or_default().state
    }

    /// Waits until the Sleeper is so.
    pub async fn until(&self, what: &str, is: impl Fn(&Sleeper) -> bool) -> Arc<Sleeper> {
        self.until_of(&self.key, what, is).await
    }

    /// Waits until another Sleeper is so.
    pub async fn until_of(
        &self,
        key: &SleeperKey,
        what: &str,
        is: impl Fn(&Sleeper) -> bool,
    ) -> Arc<Sleeper> {
        let mut changes = self.cluster.signals().revision();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Some(sleeper) = self.cluster.caches().sleeper(key).filter(|sleeper| is(sleeper)) {
                    return sleeper;
                }
                changes.changed().await.unwrap();
            }
        };
        let Ok(sleeper) = tokio::time::timeout(PATIENCE, wait).await else {
            let now = self
                .cluster
                .caches()
                .sleeper(key)
                .map(|sleeper| sleeper.status.clone());
            panic!("not {what}: {now:#?}");
        };
        sleeper
    }

    async fn until_state(&self, what: &str, is: impl Fn(&SleeperState) -> bool) -> Arc<Sleeper> {
        self.until(what, |sleeper| {
            sleeper.status.as_ref().is_some_and(|status| is(&status.state))
        })
        .await
    }

    /// Waits until it is asleep.
    pub async fn until_asleep(&self) -> Arc<Sleeper> {
        let asleep = |state: &SleeperState| state.phase == Phase::Asleep && state.zero_observed;
        self.until_state("asleep", asleep).await
    }

    /// Asleep, and the last note of that is written.
    pub async fn until_without_pods(&self) -> Arc<Sleeper> {
        let without = |state: &SleeperState| state.phase == Phase::Asleep && state.pods_gone;
        self.until_state("without pods", without).await
    }

    /// Waits until it is awake and is to stay so.
    pub async fn until_awake(&self) -> Arc<Sleeper> {
        let awake =
            |state: &SleeperState| state.phase == Phase::Awake && state.desired == DesiredState::Awake;
        self.until_state("awake", awake).await
    }

    /// Waits until the Service and its workload are as they were before Dormouse touched them.
    pub async fn until_restored(&self) {
        let restored =
            async || self.replicas() == 2 && self.service()["spec"]["selector"] == json!({"app": "web"});
        assert!(soon(restored).await, "{}", self.story());
    }

    /// Waits for an answer of the Service; refusals do not count.
    pub async fn until_answered(&self) {
        let address = self.address();
        let answered = async || try_get(address, "/").await.is_ok_and(|reply| reply.status == 200);
        assert!(soon(answered).await, "{}", self.story());
    }

    /// All that tells why a Service is not answered, for a test that fails.
    fn story(&self) -> String {
        let service = self.service();
        let workload = self.api.get("deployments.apps", "shop", "web");
        let slices = self.api.list("endpointslices.discovery.k8s.io", "shop");
        let pods = self.api.list("pods", "shop");
        let sleeper = self.cluster.caches().sleeper(&self.key);
        format!("{sleeper:#?}\n{service:#}\n{workload:#?}\n{slices:#?}\n{pods:#?}")
    }

    /// Waits until exactly these addresses are behind the Service.
    pub async fn until_behind_the_service(&self, wanted: &[String]) {
        let there = async || self.behind_the_service() == wanted;
        assert!(soon(there).await, "{:?}", self.behind_the_service());
    }

    /// Where the Service answers.
    pub fn address(&self) -> std::net::SocketAddr {
        self.api.service_address("shop", "web", PORT).unwrap()
    }

    /// Wanted replicas of the workload.
    pub fn replicas(&self) -> i64 {
        let workload = self.api.get("deployments.apps", "shop", "web").unwrap();
        workload["spec"]["replicas"].as_i64().unwrap()
    }

    /// The Service.
    pub fn service(&self) -> Value {
        self.api.get("services", "shop", "web").unwrap()
    }

    /// The slice that leads the Service to the DLX.
    pub fn own_slice(&self) -> Option<Value> {
        self.api
            .get("endpointslices.discovery.k8s.io", "shop", "web-dormouse")
    }

    /// Addresses that a new connection to the Service may get.
    pub fn behind_the_service(&self) -> Vec<String> {
        let slices = self.api.list("endpointslices.discovery.k8s.io", "shop");
        slices
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
            .filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned))
            .collect()
    }

    /// Successful writes to the workload's scale, as replicas.
    pub fn scale_writes(&self) -> Vec<i64> {
        let requests = self.api.api_requests();
        requests
            .iter()
            .filter(|r| r.resource == "deployments.apps/scale" && r.verb == "update" && r.status == 200)
            .filter_map(|r| r.body["spec"]["replicas"].as_i64())
            .collect()
    }

    /// What an awake workload must look like: nothing of Dormouse is left but the fences.
    pub fn assert_restored(&self) {
        let service = self.service();
        assert_eq!(service["spec"]["selector"], json!({"app": "web"}));
        let parked = &service["metadata"]["annotations"]["dormouse.dev/parked-selector"];
        assert!(parked.is_null(), "{service}");
        let mut labels = service["metadata"]["labels"].clone();
        if let Some(labels) = labels.as_object_mut() {
            labels.remove(dormouse_sleepers::api::FENCE_LABEL);
        }
        assert_eq!(labels, json!({"team": "front"}));
        assert_eq!(self.own_slice(), None);
        assert_eq!(self.replicas(), 2);
    }
}

/// A controller of a process, which works until this is dropped.
pub fn run_controller(cluster: &Cluster, role: Role) -> DropGuard {
    let shutdown = CancellationToken::new();
    tokio::spawn(cluster.controller(role).run(shutdown.clone()));
    shutdown.drop_guard()
}

/// The phase of a Sleeper.
pub fn phase(sleeper: &Sleeper) -> Phase {
    sleeper.status.clone().unwrap_or_default().state.phase
}
