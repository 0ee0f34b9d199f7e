//! A small language for the tests: a workload, a waker, a DLX between them, and clients.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_dlx::{
    AppProtocol, DemandCounters, Dlx, DlxConfig, EndpointsView, Metrics, PortRoute, RouteTable, RouteTarget,
    RouteTargetKey, RouteTargetSpec, Routes, WakeError, Waker,
};
use dormouse_sleepers::{DemandEntry, DemandReport};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use dormouse_testing::traffic::*;
pub use dormouse_testing::{eventually, soon};

/// What a waker answers, and how often it was asked.
pub struct Script {
    answer: Box<dyn Fn(usize) -> futures::future::BoxFuture<'static, Result<(), WakeError>> + Send + Sync>,
    calls: AtomicUsize,
}

/// A waker that follows a script for each resource.
#[derive(Default)]
pub struct Scripts {
    scripts: Mutex<HashMap<String, Arc<Script>>>,
    pub running: Arc<AtomicUsize>,
}

impl Scripts {
    /// `answer` gets the number of the call, from 0.
    pub fn on<F, R>(&self, resource: &str, answer: F)
    where
        F: Fn(usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), WakeError>> + Send + 'static,
    {
        let answer =
            Box::new(move |call| -> futures::future::BoxFuture<'static, _> { Box::pin(answer(call)) });
        let script = Script {
            answer,
            calls: AtomicUsize::new(0),
        };
        self.scripts
            .lock()
            .unwrap()
            .insert(resource.into(), Arc::new(script));
    }

    pub fn calls(&self, resource: &str) -> usize {
        self.scripts
            .lock()
            .unwrap()
            .get(resource)
            .map_or(0, |script| script.calls.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Waker for Scripts {
    async fn wake(&self, target: &RouteTarget, _reason: &str) -> Result<(), WakeError> {
        struct Running(Arc<AtomicUsize>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let script = self.scripts.lock().unwrap().get(&target.resource).cloned();
        let Some(script) = script else { return Ok(()) };
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.running));
        let call = script.calls.fetch_add(1, Ordering::SeqCst);
        (script.answer)(call).await
    }
}

pub fn failed(cause: &str) -> Result<(), WakeError> {
    Err(WakeError::Failed(cause.into()))
}

/// A target that the test moves about.
pub struct Workload {
    pub target: Arc<RouteTarget>,
    pub view: watch::Sender<Arc<EndpointsView>>,
}

impl Workload {
    pub fn show(&self, view: EndpointsView) {
        self.view.send_replace(Arc::new(view));
    }

    pub fn awake(&self, ready: &[SocketAddr]) {
        self.show(awake(ready));
    }
}

pub fn asleep() -> EndpointsView {
    EndpointsView {
        asleep: true,
        ..EndpointsView::default()
    }
}

pub fn awake(ready: &[SocketAddr]) -> EndpointsView {
    EndpointsView {
        ready: ready.to_vec(),
        epoch: 1,
        ..EndpointsView::default()
    }
}

/// A DLX and everything around it.
pub struct World {
    pub dlx: Dlx,
    pub main: SocketAddr,
    pub wakes: Arc<Scripts>,
    pub routes: Arc<RouteTable>,
    pub demand_counters: DemandCounters,
    pub registry: prometheus_client::registry::Registry,
    pub shutdown: CancellationToken,
    pub serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub fn config() -> DlxConfig {
    DlxConfig {
        listen_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        readiness_timeout: Duration::from_secs(20),
        drain_limit: Duration::from_secs(20),
        ..DlxConfig::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: DlxConfig) -> Self {
        let (routes, wakes) = (Arc::<RouteTable>::default(), Arc::<Scripts>::default());
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        let waker: Arc<dyn Waker> = wakes.clone();
        let dlx = Dlx::new(config, Arc::clone(&routes), waker, metrics);
        let demand_counters = dlx.demand_counters().clone();
        let server = dlx.bind().unwrap();
        let (main, shutdown) = (server.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(server.run(shutdown.clone()));
        Self {
            dlx,
            main,
            wakes,
            routes,
            demand_counters,
            registry,
            shutdown,
            serving,
        }
    }

    pub fn workload(&self, name: &str, view: EndpointsView) -> Workload {
        self.workload_with(name, view, |_| {})
    }

    pub fn workload_with(
        &self,
        name: &str,
        view: EndpointsView,
        change: impl FnOnce(&mut RouteTargetSpec),
    ) -> Workload {
        let (sender, endpoints) = watch::channel(Arc::new(view));
        let key = RouteTargetKey {
            namespace: "ns".into(),
            sleeper: name.into(),
            uid: format!("uid-{name}"),
            service: name.into(),
            port: 80,
        };
        let mut spec = RouteTargetSpec {
            key,
            owner: dormouse_model::Owner::plugin("test"),
            wake: dormouse_sleepers::Wake::Lifecycle,
            resource: name.into(),
            readiness_timeout: None,
            protocol: AppProtocol::Http1,
            connection_idle: None,
            endpoints,
        };
        change(&mut spec);
        Workload {
            target: RouteTarget::new(&self.demand_counters, spec),
            view: sender,
        }
    }

    /// Every request of the main listener goes to this workload.
    pub fn route(&self, workload: &Workload) {
        let mut routes = Routes::default();
        let at = dormouse_dlx::HostPath {
            host: String::new(),
            path: "/".into(),
            kind: dormouse_dlx::PathMatch::Prefix,
        };
        routes.add_host(at, Arc::clone(&workload.target), None);
        self.routes.publish(routes);
    }

    /// A DLX port for each workload; waits until they are open.
    pub async fn open_ports(&self, workloads: &[(u16, &Workload)]) {
        let mut routes = Routes::default();
        for (port, workload) in workloads {
            routes.add_port(
                *port,
                PortRoute {
                    target: Arc::clone(&workload.target),
                },
            );
        }
        self.routes.publish(routes);
        for (port, _) in workloads {
            eventually("the port is open", || async {
                TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.is_ok()
            })
            .await;
        }
    }

    pub fn demand_of(&self, name: &str) -> (u64, u64, u64) {
        let DemandReport { sleepers } = self.dlx.demand();
        let found = sleepers.into_iter().find(|sleeper| sleeper.sleeper == name);
        found.map_or(
            (0, 0, 0),
            |DemandEntry {
                 held,
                 in_flight,
                 upgraded,
                 ..
             }| (held, in_flight, upgraded),
        )
    }

    /// Waits until this many requests of the workload are held.
    pub async fn until_held(&self, name: &str, count: u64) {
        eventually(&format!("{count} requests of {name} are held"), || async {
            self.demand_of(name).0 == count
        })
        .await;
    }

    /// The value of a series, named without the prefix `dormouse_`.
    pub fn metric(&self, line: &str) -> i64 {
        let line = format!("dormouse_{line}");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let found = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(&line)?.strip_prefix(' '));
        found
            .unwrap_or_else(|| panic!("no {line} in\n{text}"))
            .parse()
            .unwrap()
    }

    pub async fn get(&self) -> Reply {
        get(self.main, "/").await
    }

    /// A request that goes on while the test does something else.
    pub fn getting(&self) -> JoinHandle<Reply> {
        tokio::spawn(get(self.main, "/"))
    }
}
