//! An embedded cluster with one workload behind one Service, and a DLX of a few lines.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dormouse_embedded::{EmbeddedCluster, Options};
use dormouse_kubernetes::{ServicePort, client_from_kubeconfig};
use dormouse_model::{ObjectRef, Phase};
use dormouse_sleepers::lifecycle::{LookPolicy, Timings, Wish};
use dormouse_sleepers::wire::{PROBE_ANSWER_HEADER, PROBE_PATH};
use dormouse_sleepers::{
    Cluster, Config, Declared, DemandEntry, DemandReport, Driver, Role, Sleeper, SleeperKey, SleeperSpec, crd,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest that anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PORT: u16 = 8080;

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: dormouse}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: none, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {team: front}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}]
";

pub struct World {
    pub api: EmbeddedCluster,
    pub cluster: Cluster,
    pub key: SleeperKey,
}

pub fn workload() -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: "web".into(),
    }
}

pub fn config() -> Config {
    Config {
        dlx_service: Some(("dormouse".into(), "dlx".into())),
        readiness_timeout: Duration::from_secs(10),
        timings: Timings {
            drain_grace: Duration::from_millis(50),
            outage_grace: Duration::ZERO,
            give_up: Duration::from_secs(10),
            dlx_absence: Duration::from_millis(300),
            farewell: Duration::from_secs(5),
            relist: Duration::from_millis(200),
            unproven: Duration::from_secs(2),
            port_grace: Duration::from_secs(60),
            look: LookPolicy {
                settle: Duration::from_millis(10),
                longest: Duration::from_secs(1),
            },
        },
        ..Config::default()
    }
}

impl World {
    /// The cluster with a declared, awake Sleeper.
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    /// The same with other settings.
    pub async fn with(config: Config) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let api = EmbeddedCluster::start(Options::default()).await.unwrap();
        let client = client_from_kubeconfig(&api.kubeconfig()).await.unwrap();
        crd::install(&client, "dormouse", PATIENCE).await.unwrap();
        api.apply_yaml(MANIFEST).unwrap();
        api.wait_for_ready_pods("shop", "app=web", 2, PATIENCE)
            .await
            .unwrap();
        // Ready pods are listed before the Service leads to them.
        let address = api.service_address("shop", "web", PORT).unwrap();
        let begun = tokio::time::Instant::now();
        while request(address).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the Service does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cluster = Cluster::connect(client, config).await.unwrap();
        let key = SleeperKey::of_plugin("workloads", "shop", "web");
        let world = Self { api, cluster, key };
        world.declare("workloads").await;
        world
    }

    /// Declares the Sleeper that a plugin wants for the workload and its Service.
    pub async fn declare(&self, plugin: &str) -> SleeperKey {
        let key = SleeperKey::of_plugin(plugin, "shop", "web");
        let spec = SleeperSpec {
            owner: Some(dormouse_model::Owner::plugin(plugin)),
            resource: "web".into(),
            object: workload(),
            workloads: vec![workload()],
            services: vec!["web".into()],
            ..SleeperSpec::default()
        };
        let declared = Declared {
            key: key.clone(),
            spec,
        };
        self.cluster.declare(&declared).await.unwrap();
        key
    }

    /// Removes the Sleeper as somebody in a hurry does: without its finalizer.
    pub async fn remove_by_force(&self) {
        let api = kube::Api::<Sleeper>::namespaced(self.cluster.client().clone(), "shop");
        let name = self.key.object_name();
        let none = serde_json::json!({"metadata": {"finalizers": null}});
        api.patch(
            &name,
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(&none),
        )
        .await
        .unwrap();
        api.delete(&name, &kube::api::DeleteParams::default())
            .await
            .unwrap();
        let begun = tokio::time::Instant::now();
        while self.cluster.sleeper(&self.key).is_some() {
            assert!(begun.elapsed() < PATIENCE, "it is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the Service and its workload are as they were before Dormouse touched them.
    pub async fn until_restored(&self) {
        let begun = tokio::time::Instant::now();
        while self.replicas() != 2 || self.service()["spec"]["selector"] != serde_json::json!({"app": "web"})
        {
            assert!(begun.elapsed() < PATIENCE, "{:#}", self.service());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for an answer of the Service; refusals do not count.
    pub async fn until_answered(&self) {
        let address = self.api.service_address("shop", "web", PORT).unwrap();
        let begun = tokio::time::Instant::now();
        while request(address).await != Ok(StatusCode::OK) {
            assert!(begun.elapsed() < PATIENCE, "{:#}", self.service());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Another process on the same cluster.
    pub async fn another_process(&self) -> Cluster {
        let client = client_from_kubeconfig(&self.api.kubeconfig()).await.unwrap();
        Cluster::connect(client, config()).await.unwrap()
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
        let mut changes = self.cluster.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Some(sleeper) = self.cluster.sleeper(key).filter(|sleeper| is(sleeper)) {
                    return sleeper;
                }
                changes.changed().await.unwrap();
            }
        };
        let Ok(sleeper) = tokio::time::timeout(PATIENCE, wait).await else {
            let now = self.cluster.sleeper(key).map(|sleeper| sleeper.status.clone());
            panic!("not {what}: {now:#?}");
        };
        sleeper
    }

    pub async fn until_asleep(&self) -> Arc<Sleeper> {
        self.until("asleep", |s| {
            phase(s) == Phase::Asleep && s.status.as_ref().is_some_and(|s| s.state.at_zero)
        })
        .await
    }

    /// Asleep, and the last note of that is written.
    pub async fn until_without_pods(&self) -> Arc<Sleeper> {
        self.until("without pods", |s| {
            phase(s) == Phase::Asleep && s.status.as_ref().is_some_and(|s| s.state.pods_gone)
        })
        .await
    }

    pub async fn until_awake(&self) -> Arc<Sleeper> {
        self.until("awake", |s| {
            phase(s) == Phase::Awake && s.status.as_ref().is_some_and(|s| s.state.wish == Wish::Awake)
        })
        .await
    }

    pub fn replicas(&self) -> i64 {
        self.api.get("deployments.apps", "shop", "web").unwrap()["spec"]["replicas"]
            .as_i64()
            .unwrap()
    }

    pub fn service(&self) -> Value {
        self.api.get("services", "shop", "web").unwrap()
    }

    pub fn own_slice(&self) -> Option<Value> {
        self.api
            .get("endpointslices.discovery.k8s.io", "shop", "web-dormouse")
    }

    /// Addresses that a new connection to the Service may get.
    pub fn behind_the_service(&self) -> Vec<String> {
        let slices = self.api.list("endpointslices.discovery.k8s.io", "shop");
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        endpoints
            .filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
            .filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned))
            .collect()
    }

    pub async fn until_behind_the_service(&self, wanted: &[String]) {
        let begun = tokio::time::Instant::now();
        while self.behind_the_service() != wanted {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.behind_the_service());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
        assert_eq!(service["spec"]["selector"], serde_json::json!({"app": "web"}));
        assert!(
            service["metadata"]["annotations"]["dormouse.dev/parked-selector"].is_null(),
            "{service}"
        );
        let mut labels = service["metadata"]["labels"].clone();
        if let Some(labels) = labels.as_object_mut() {
            labels.remove(dormouse_sleepers::api::FENCE_LABEL);
        }
        assert_eq!(labels, serde_json::json!({"team": "front"}));
        assert_eq!(self.own_slice(), None);
        assert_eq!(self.replicas(), 2);
    }
}

pub fn phase(sleeper: &Sleeper) -> Phase {
    sleeper.status.clone().unwrap_or_default().state.phase
}

/// A driver that works until this is dropped.
pub fn drive(cluster: &Cluster, role: Role) -> DropGuard {
    let shutdown = CancellationToken::new();
    tokio::spawn(Driver::new(cluster.clone(), role).run(shutdown.clone()));
    shutdown.drop_guard()
}

/// A DLX: answers probes on the allocated ports, holds requests, wakes, forwards, and tells of demand.
pub struct Dlx {
    pub address: Ipv4Addr,
    admin: u16,
    pub held: Arc<AtomicU64>,
    learnt: CancellationToken,
    _guard: DropGuard,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

#[derive(Clone)]
struct Shared {
    cluster: Cluster,
    key: SleeperKey,
    held: Arc<AtomicU64>,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Dlx {
    /// Starts one on an address of its own and lists it as the only endpoint of the DLX's Service.
    pub async fn start(world: &World) -> Self {
        let dlx = Self::begin(world, 0).await;
        dlx.learn();
        dlx.list_with(world, &[]);
        dlx
    }

    /// Starts one more, which is not listed and knows no Sleeper before it learns.
    pub async fn another(&self, world: &World) -> Self {
        Self::begin(world, self.admin).await
    }

    async fn begin(world: &World, admin: u16) -> Self {
        let address = Ipv4Addr::new(
            127,
            40,
            std::process::id().to_le_bytes()[0],
            NEXT.fetch_add(1, Ordering::SeqCst),
        );
        let admin = TcpListener::bind((address, admin)).await.unwrap();
        let port = admin.local_addr().unwrap().port();
        let (shutdown, learnt) = (CancellationToken::new(), CancellationToken::new());
        let shared = Shared {
            cluster: world.another_process().await,
            key: world.key.clone(),
            held: Arc::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        tokio::spawn(serve(admin, shared.clone(), shutdown.clone()));
        tokio::spawn(listen(address, shared.clone(), learnt.clone(), shutdown.clone()));
        Self {
            address,
            admin: port,
            held: Arc::clone(&shared.held),
            learnt,
            _guard: shutdown.drop_guard(),
        }
    }

    /// From now on it knows of Sleepers.
    pub fn learn(&self) {
        self.learnt.cancel();
    }

    /// Lists it as an endpoint of the DLX's Service, with others.
    pub fn list_with(&self, world: &World, others: &[Ipv4Addr]) {
        let all: Vec<IpAddr> = std::iter::once(&self.address)
            .chain(others)
            .copied()
            .map(IpAddr::from)
            .collect();
        world.api.apply_yaml(&manifest(&all, self.admin)).unwrap();
    }

    /// Takes it off the Service of the DLX and ends it.
    pub fn vanish(self, world: &World) {
        world.api.apply_yaml(&manifest(&[], 1)).unwrap();
    }
}

fn manifest(addresses: &[IpAddr], port: u16) -> String {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|a| format!("{{addresses: [\"{a}\"], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: dlx, namespace: dormouse}}
spec:
  ports: [{{name: admin, port: {port}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: dlx-1, namespace: dormouse, labels: {{kubernetes.io/service-name: dlx}}}}
addressType: IPv4
endpoints: [{}]
ports: [{{name: admin, port: {port}, protocol: TCP}}]
",
        endpoints.join(", ")
    )
}

/// Listens on every port that is allocated, once it has learnt of them.
async fn listen(address: Ipv4Addr, shared: Shared, learnt: CancellationToken, shutdown: CancellationToken) {
    learnt.cancelled().await;
    let mut changes = shared.cluster.changes();
    let listening = Mutex::new(BTreeMap::new());
    loop {
        changes.borrow_and_update();
        for sleeper in shared.cluster.sleepers() {
            for port in sleeper.status.clone().unwrap_or_default().state.ports {
                let socket = SocketAddr::from((address, port.dlx_port));
                if listening.lock().unwrap().insert(socket, ()).is_none() {
                    let listener = TcpListener::bind(socket).await.unwrap();
                    let key = SleeperKey::of(&sleeper);
                    let shared = Shared {
                        key,
                        ..shared.clone()
                    };
                    tokio::spawn(serve(listener, shared, shutdown.clone()));
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = changes.changed() => {}
        }
    }
}

async fn serve(listener: TcpListener, shared: Shared, shutdown: CancellationToken) {
    loop {
        let (stream, _) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap(),
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(shared.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let sleeper = shared.cluster.sleeper(&shared.key);
    if request.uri().path() == PROBE_PATH {
        let uid = sleeper
            .and_then(|sleeper| sleeper.metadata.uid.clone())
            .unwrap_or_default();
        return Ok(Response::builder()
            .header(PROBE_ANSWER_HEADER, uid)
            .body(Full::default())
            .unwrap());
    }
    if request.uri().path() == "/demand" {
        let entry = DemandEntry {
            namespace: shared.key.namespace.clone(),
            sleeper: shared.key.object_name(),
            held: shared.held.load(Ordering::SeqCst),
            ..DemandEntry::default()
        };
        let report = DemandReport {
            sleepers: vec![entry],
        };
        return Ok(Response::new(Full::from(serde_json::to_vec(&report).unwrap())));
    }
    shared.held.fetch_add(1, Ordering::SeqCst);
    let answered = tokio::time::timeout(PATIENCE, forward(&shared, request.uri().path())).await;
    shared.held.fetch_sub(1, Ordering::SeqCst);
    Ok(answered.ok().flatten().unwrap_or_else(|| {
        let mut failed = Response::new(Full::default());
        *failed.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        failed
    }))
}

async fn forward(shared: &Shared, path: &str) -> Option<Response<Full<Bytes>>> {
    shared.cluster.wish_wake(&shared.key, "a request").await.ok()?;
    let mut changes = shared.cluster.changes();
    loop {
        changes.borrow_and_update();
        let endpoints = shared
            .cluster
            .endpoints("shop", "web", &ServicePort::Number(PORT));
        for pod in endpoints.ready {
            let request = Request::get(format!("http://{}{path}", pod.address))
                .body(Full::default())
                .unwrap();
            if let Ok(response) = shared.client.request(request).await {
                let (parts, body) = response.into_parts();
                let body = body.collect().await.ok()?.to_bytes();
                return Some(Response::from_parts(parts, Full::from(body)));
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

/// A request to the Service, on a new connection.
pub async fn request(address: SocketAddr) -> Result<StatusCode, String> {
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    let request = Request::get(format!("http://{address}/"))
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = tokio::time::timeout(PATIENCE, client.request(request))
        .await
        .map_err(|_| "timeout".to_owned())?;
    let response = response.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    response
        .into_body()
        .collect()
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok(status)
}
