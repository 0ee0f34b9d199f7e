//! A DLX: answers probes on the allocated ports, holds requests, wakes, forwards, and tells of demand.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use dormouse_kubernetes::ServicePort;
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::wire::{PROBE_ANSWER_HEADER, PROBE_PATH};
use dormouse_sleepers::{Cluster, DemandEntry, DemandReport, SleeperKey};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::PATIENCE;
use crate::traffic::{Reply, try_get};
use crate::world::{PORT, World};

static NEXT: AtomicU8 = AtomicU8::new(1);

/// A running DLX; it ends when this is dropped.
pub struct Dlx {
    /// Where it listens.
    pub address: Ipv4Addr,
    admin: u16,
    /// Requests that wait or are being forwarded.
    pub held: Arc<AtomicU64>,
    learnt: CancellationToken,
    _guard: DropGuard,
}

#[derive(Clone)]
struct Shared {
    cluster: Cluster,
    key: SleeperKey,
    held: Arc<AtomicU64>,
}

impl Shared {
    fn sleeps(&self) -> bool {
        let sleeper = self.cluster.caches().sleeper(&self.key);
        let status = sleeper.as_ref().and_then(|sleeper| sleeper.status.as_ref());
        status.is_some_and(|status| status.state.desired == DesiredState::Asleep)
    }
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
        let process = std::process::id().to_le_bytes()[0];
        let address = Ipv4Addr::new(127, 40, process, NEXT.fetch_add(1, Ordering::SeqCst));
        let admin = TcpListener::bind((address, admin)).await.unwrap();
        let port = admin.local_addr().unwrap().port();
        let (shutdown, learnt) = (CancellationToken::new(), CancellationToken::new());
        let shared = Shared {
            cluster: world.another_process().await,
            key: world.key.clone(),
            held: Arc::default(),
        };
        let held = Arc::clone(&shared.held);
        tokio::spawn(serve(admin, shared.clone(), shutdown.clone()));
        tokio::spawn(listen(address, shared, learnt.clone(), shutdown.clone()));
        Self {
            address,
            admin: port,
            held,
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
        let mut all = vec![self.address];
        all.extend(others);
        world.api.apply_yaml(&dlx_service(&all, self.admin)).unwrap();
    }

    /// Takes it off the Service of the DLX and ends it.
    pub fn vanish(self, world: &World) {
        world.api.apply_yaml(&dlx_service(&[], 1)).unwrap();
    }
}

/// The Service of the DLX, with these endpoints.
pub fn dlx_service(addresses: &[Ipv4Addr], admin: u16) -> String {
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
  ports: [{{name: admin, port: {admin}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: dlx-1, namespace: dormouse, labels: {{kubernetes.io/service-name: dlx}}}}
addressType: IPv4
endpoints: [{}]
ports: [{{name: admin, port: {admin}, protocol: TCP}}]
",
        endpoints.join(", ")
    )
}

/// Listens on every port that is allocated, once it has learnt of them.
async fn listen(address: Ipv4Addr, shared: Shared, learnt: CancellationToken, shutdown: CancellationToken) {
    learnt.cancelled().await;
    let mut changes = shared.cluster.signals().revision();
    let mut listening = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        for sleeper in shared.cluster.caches().sleepers.all() {
            for port in sleeper.status.clone().unwrap_or_default().state.ports {
                if listening.insert(port.dlx_port) {
                    let socket = SocketAddr::from((address, port.dlx_port));
                    let listener = TcpListener::bind(socket).await.unwrap();
                    let shared = Shared {
                        key: SleeperKey::of(&sleeper),
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
    let router = Router::new()
        .route(PROBE_PATH, get(probe))
        .route("/demand", get(demand))
        .fallback(hold)
        .with_state(shared);
    tokio::select! {
        () = shutdown.cancelled() => {}
        served = async { axum::serve(listener, router).await } => served.unwrap(),
    }
}

async fn probe(State(shared): State<Shared>) -> Response {
    let sleeper = shared.cluster.caches().sleeper(&shared.key);
    let uid = sleeper.and_then(|sleeper| sleeper.metadata.uid.clone());
    [(PROBE_ANSWER_HEADER, uid.unwrap_or_default())].into_response()
}

async fn demand(State(shared): State<Shared>) -> Json<DemandReport> {
    let entry = DemandEntry {
        namespace: shared.key.namespace.clone(),
        sleeper: shared.key.object_name(),
        held: shared.held.load(Ordering::SeqCst),
        ..DemandEntry::default()
    };
    Json(DemandReport {
        sleepers: vec![entry],
    })
}

async fn hold(State(shared): State<Shared>, request: Request) -> Response {
    shared.held.fetch_add(1, Ordering::SeqCst);
    let answered = tokio::time::timeout(PATIENCE, forward(&shared, request.uri().path())).await;
    shared.held.fetch_sub(1, Ordering::SeqCst);
    match answered {
        Ok(Some(reply)) => {
            let code = StatusCode::from_u16(reply.status).unwrap();
            (code, reply.body).into_response()
        }
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn forward(shared: &Shared, path: &str) -> Option<Reply> {
    let mut changes = shared.cluster.signals().revision();
    let desired = shared.cluster.desired();
    let mut asked = false;
    loop {
        changes.borrow_and_update();
        // What was asked of a Sleeper that is lost, or says nothing yet, is asked again.
        if !asked || shared.sleeps() {
            desired.request_wake(&shared.key, "a request").await.ok()?;
            asked = true;
        }
        let port = ServicePort::Number(PORT);
        for pod in shared.cluster.endpoints().get("shop", "web", &port).ready {
            if let Ok(reply) = try_get(pod.address, path).await {
                return Some(reply);
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}
