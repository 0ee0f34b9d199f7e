//! A small language for the tests: a workload, a waker, a DLX between them, and clients.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_dlx::{
    AppProtocol, Dlx, DlxConfig, EndpointsView, Ledger, Metrics, PortRoute, RouteTable, Routes, Target,
    TargetKey, TargetSpec, WakeError, Waker,
};
use dormouse_sleepers::{DemandEntry, DemandReport};
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub type Payload = BoxBody<Bytes, hyper::Error>;

pub fn text(text: impl Into<Bytes>) -> Payload {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub fn nothing() -> Payload {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A workload's pod: an HTTP/1 and h2c server on loopback.
pub struct Pod {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

impl Pod {
    pub async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Payload>> + Send + 'static,
    {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer).await
    }

    pub async fn on<F, R>(address: SocketAddr, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Payload>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            connections,
            _serving: tokio_util::task::AbortOnDropHandle::new(serving),
        }
    }

    /// Answers every request with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_request| async move { Response::new(text(name)) }).await
    }
}

/// An address that refuses connections until somebody listens on it.
pub async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

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
    async fn wake(&self, target: &Target, _reason: &str) -> Result<(), WakeError> {
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
    pub target: Arc<Target>,
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
    pub ledger: Ledger,
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
        let ledger = dlx.ledger().clone();
        let server = dlx.bind().unwrap();
        let (main, shutdown) = (server.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(server.run(shutdown.clone()));
        Self {
            dlx,
            main,
            wakes,
            routes,
            ledger,
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
        change: impl FnOnce(&mut TargetSpec),
    ) -> Workload {
        let (sender, endpoints) = watch::channel(Arc::new(view));
        let key = TargetKey {
            namespace: "ns".into(),
            sleeper: name.into(),
            uid: format!("uid-{name}"),
            service: name.into(),
            port: 80,
        };
        let mut spec = TargetSpec {
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
            target: Target::new(&self.ledger, spec),
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

/// What a client got.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    pub fn reason(&self) -> &str {
        self.headers
            .get("dormouse-reason")
            .map_or("", |reason| reason.to_str().unwrap())
    }
}

pub async fn get(address: SocketAddr, path: &str) -> Reply {
    let host = address.to_string();
    h1(
        address,
        Request::get(path).header("host", host).body(nothing()).unwrap(),
    )
    .await
}

/// One request on a connection of its own.
pub async fn h1(address: SocketAddr, request: Request<Payload>) -> Reply {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let reply = reply(sender.send_request(request).await.unwrap()).await;
    drop(sender);
    let _ = connection.await;
    reply
}

pub type H2 = hyper::client::conn::http2::SendRequest<Payload>;

pub async fn h2_client(address: SocketAddr) -> (H2, JoinHandle<Result<(), hyper::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    (sender, tokio::spawn(connection))
}

pub async fn h2(address: SocketAddr, request: Request<Payload>) -> Reply {
    let (mut sender, _connection) = h2_client(address).await;
    reply(sender.send_request(request).await.unwrap()).await
}

pub async fn reply(response: Response<Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        trailers,
    }
}

/// Waits for something that must happen soon; says what did not.
pub async fn eventually<F, R>(what: &str, holds: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    assert!(soon(holds).await, "never: {what}");
}

/// Whether it happens soon.
pub async fn soon<F, R>(mut holds: F) -> bool
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let began = tokio::time::Instant::now();
    while !holds().await {
        if began.elapsed() > Duration::from_secs(10) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}
