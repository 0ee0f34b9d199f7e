//! The data plane as a whole: the way of a request through the phases, and the life of the process.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Client, Connections, Door};
use crate::admit::{Admission, head_bytes};
use crate::connect::{Lease, Wire, connect, reuse};
use crate::demand::{Counted, DemandReport, Ledger, Stage, Waker};
use crate::forward::headers::{self, PROBE, PROBE_PATH, SLEEPER};
use crate::forward::{self, Answer, Body, Busy, Failure, Release, Tunnel, Upload};
use crate::gate::Gate;
use crate::negotiate::{Waiting, negotiate};
use crate::pick::{Turn, pick};
use crate::rescue::Rescue;
use crate::route::{self, Routed};
use crate::{DlxConfig, EndpointsView, Metrics, RouteTable, Routes, Target};

/// How often a request is sent at most, the first time included.
const MOST_ATTEMPTS: u32 = 4;
/// After the drain limit: how long the last responses may take to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the DLX cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The main listener cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// The data plane.
#[derive(Clone)]
pub struct Dlx {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: DlxConfig,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<Connections>,
    /// Places for client connections.
    pub(crate) places: Arc<Semaphore>,
    /// Client connections.
    pub(crate) tasks: TaskTracker,
    waker: Arc<dyn Waker>,
    ledger: Ledger,
    admission: Admission,
    /// Upgraded connections; they end last.
    tunnels: TaskTracker,
    draining: AtomicBool,
    /// Draining has lasted long enough: held requests are refused.
    drained: CancellationToken,
    /// Upgraded connections are closed.
    closed: CancellationToken,
}

impl Dlx {
    /// A data plane that routes by `routes` and wakes by `waker`. Targets in the routes must be written in its
    /// [`ledger`](Self::ledger).
    pub fn new(config: DlxConfig, routes: Arc<RouteTable>, waker: Arc<dyn Waker>, metrics: Metrics) -> Self {
        let metrics = Arc::new(metrics);
        let inner = Inner {
            routes,
            waker,
            ledger: Ledger::default(),
            admission: Admission::new(config.limits, Arc::clone(&metrics)),
            metrics,
            connections: Arc::default(),
            places: Arc::new(Semaphore::new(
                config.limits.connections.min(Semaphore::MAX_PERMITS),
            )),
            tasks: TaskTracker::new(),
            tunnels: TaskTracker::new(),
            draining: AtomicBool::new(false),
            drained: CancellationToken::new(),
            closed: CancellationToken::new(),
            config,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Where demand is written down.
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Who needs what right now.
    pub fn demand(&self) -> DemandReport {
        self.inner.ledger.report()
    }

    /// The same of a single Sleeper.
    pub fn demand_of(&self, namespace: &str, sleeper: &str) -> DemandReport {
        self.inner.ledger.report_of(namespace, sleeper)
    }

    /// Opens the main listener.
    ///
    /// # Errors
    /// [`ServeError::Listen`]. DLX ports are opened later and are tried again when they cannot be.
    pub fn bind(&self) -> Result<Server, ServeError> {
        let address = self.inner.config.listen_address;
        let listener = accept::bind(address).map_err(|source| ServeError::Listen { address, source })?;
        let local = listener
            .local_addr()
            .map_err(|source| ServeError::Listen { address, source })?;
        Ok(Server {
            inner: Arc::clone(&self.inner),
            listener,
            local,
        })
    }

    /// Serves until `shutdown`, then drains: [`bind`](Self::bind) and [`Server::run`].
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn serve(&self, shutdown: CancellationToken) -> Result<(), ServeError> {
        self.bind()?.run(shutdown).await;
        Ok(())
    }
}

/// A data plane whose main listener is open.
pub struct Server {
    inner: Arc<Inner>,
    listener: TcpListener,
    local: SocketAddr,
}

impl Server {
    /// Address of the main listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `shutdown`, then drains: nothing new is accepted, what is in flight or held goes on until it is done
    /// or the drain limit is over, then held requests are refused with 503, and upgraded connections are closed last.
    ///
    /// Whoever calls this must have stopped being ready before, so that nobody sends new connections.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            inner,
            listener,
            local,
        } = self;
        tracing::info!(address = %local, "the DLX listens");
        let stop = shutdown.child_token();
        tokio::join!(
            accept::accept(Arc::clone(&inner), listener, Door::Main, stop.clone()),
            accept::keep_ports(Arc::clone(&inner), stop),
        );
        inner.drain().await;
        tracing::info!("the DLX has drained");
    }
}

impl Inner {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Where requests and connections are held.
    pub(crate) fn gate(&self) -> Gate<'_> {
        Gate {
            config: &self.config,
            waker: &self.waker,
            metrics: &self.metrics,
            drained: &self.drained,
        }
    }

    /// Waits until connections that are copied byte for byte are to be closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.tasks.close();
        self.tunnels.close();
        self.connections.drain(|_| true);
        let limit = Instant::now() + self.config.drain_limit;
        let quiet = async {
            self.tasks.wait().await;
            self.tunnels.wait().await;
        };
        if tokio::time::timeout_at(limit, quiet).await.is_err() {
            self.drained.cancel();
            let _ = tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await;
            self.closed.cancel();
            self.connections.cut();
            let _ = tokio::time::timeout(LAST_WORDS, self.tunnels.wait()).await;
            let _ = tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await;
        }
    }

    /// A response to every request.
    ///
    /// Not an `async fn`: what can be done at once is done before the future exists, so that a held request does not
    /// carry the space that this took.
    pub(crate) fn answer(
        self: Arc<Self>,
        client: Arc<Client>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send {
        client.idleness.work();
        let busy = Busy(Arc::clone(&client.idleness));
        let grpc = headers::is_grpc(request.headers());
        let line = Line::of(&request);
        let mut prepared = self.prepare(&client, request, grpc);
        async move {
            let sent = match &mut prepared {
                Ok(Prepared::Exchange(exchange)) => Some(self.send(&client, exchange).await),
                _ => None,
            };
            let outcome = match (prepared, sent) {
                (Ok(Prepared::Exchange(exchange)), Some(Ok(answer))) => {
                    self.conclude(&client, exchange, answer)
                }
                (Ok(Prepared::Here(response)), _) => Ok(Proxied::Here(response)),
                (Err(rescue), _) | (_, Some(Err(rescue))) => Err(rescue),
                (Ok(Prepared::Exchange(_)), None) => Err(Rescue::BadAnswer),
            };
            let response = match outcome {
                Ok(Proxied::Forwarded(response, release)) => {
                    response.map(|body| Body::streaming(body, release, &self.metrics, busy))
                }
                Ok(Proxied::Here(response)) => response.map(|()| Body::text(bytes::Bytes::new(), busy)),
                Err(rescue) => {
                    self.metrics.rescued(&rescue);
                    rescue.response(grpc).map(|text| Body::text(text, busy))
                }
            };
            self.metrics.answered(response.status());
            if let Some(line) = line {
                line.write(client.door, response.status());
            }
            response
        }
    }

    /// Everything up to the first wait: route, and make the head that the workload gets to see.
    fn prepare(
        self: &Arc<Self>,
        client: &Client,
        request: Request<Incoming>,
        grpc: bool,
    ) -> Result<Prepared, Rescue> {
        let (mut head, incoming) = request.into_parts();
        headers::check(&head)?;
        let Routed {
            target,
            companion,
            path,
        } = {
            let routes = self.routes.load();
            if let Door::Port(port) = client.door
                && head.uri.path() == PROBE_PATH
                && let Some(uid) = head.headers.get(PROBE)
            {
                return probe(&routes, port, uid).map(Prepared::Here);
            }
            match client.door {
                Door::Port(port) => route::by_port(&routes, port)?,
                Door::Main => {
                    route::by_request(&routes, &head, self.config.names.as_ref(), self.config.strategy)?
                }
            }
        };
        let mark = target.mark(&self.config.instance);
        if headers::looped(&head.headers, mark) {
            return Err(Rescue::Loop);
        }
        if let Some(companion) = companion {
            self.wake_companion(&companion);
        }

        let wire = headers::wire(&head, &target, grpc);
        let version = head.version;
        let protocol = headers::upgrade(&head);
        let bytes = if target.view().open() {
            None
        } else {
            Some(head_bytes(&head))
        };
        let switching = protocol.is_some();
        let unsized_body = !incoming.is_end_stream() && incoming.size_hint().exact().is_none();
        let Waiting::Hold = negotiate(&head, &target);
        headers::rewrite_request(
            &mut head,
            path,
            wire,
            unsized_body,
            protocol,
            &client.address,
            mark.clone(),
        )?;
        let mut request = Request::from_parts(head, Upload::new(incoming, &self.metrics));
        let on_upgrade = switching.then(|| Tunnel::client(&mut request));
        request.extensions_mut().clear();
        let counted = target.state.enter(Stage::InFlight, &self.metrics);
        Ok(Prepared::Exchange(Exchange {
            target,
            wire,
            version,
            request: Some(request),
            on_upgrade,
            counted,
            bytes,
        }))
    }

    /// Sends the request, at first over what is at hand, and again where that is safe.
    async fn send(self: &Arc<Self>, client: &Client, exchange: &mut Exchange) -> Result<Answer, Rescue> {
        let limit = self.config.response_timeout;
        for attempt in 1..=MOST_ATTEMPTS {
            let (lease, turn) = match self.at_once(&exchange.target, exchange.wire, attempt > 1).await {
                Some(lease) => (lease, None),
                None => {
                    exchange.counted.advance(Stage::Held);
                    let (lease, turn) = Box::pin(self.hold(client, exchange)).await?;
                    exchange.counted.advance(Stage::InFlight);
                    (lease, Some(turn))
                }
            };
            let Some(sent) = exchange.begin(lease, turn, limit, attempt < MOST_ATTEMPTS) else {
                break;
            };
            match sent.await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Unsent(unsent)) => exchange.request = Some(*unsent),
                Err(Failure::Closed) if exchange.request.is_some() => {}
                Err(Failure::Closed | Failure::Bad) => return Err(Rescue::BadAnswer),
                Err(Failure::TimedOut) => return Err(Rescue::NoAnswer),
            }
        }
        Err(Rescue::BadAnswer)
    }

    /// Everything after the last wait: make the head that the client gets to see.
    fn conclude(&self, client: &Client, exchange: Exchange, answer: Answer) -> Result<Proxied, Rescue> {
        let Exchange {
            target,
            version,
            on_upgrade,
            mut counted,
            ..
        } = exchange;
        let Answer {
            mut response,
            load,
            sender,
        } = answer;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(on_upgrade) = on_upgrade else {
                return Err(Rescue::BadAnswer);
            };
            headers::rewrite_response(response.headers_mut(), true);
            let activity = counted.open(self.config.tcp.counts_for(&target));
            let tunnel = Tunnel::new(on_upgrade, &mut response, activity, self.config.tcp.patience());
            self.tunnels
                .spawn(tunnel.run(counted, load, Arc::clone(&client.place), self.closed.clone()));
            return Ok(Proxied::Here(response.map(|_| ())));
        }
        headers::rewrite_response(response.headers_mut(), false);
        *response.version_mut() = version.max(Version::HTTP_11);
        if matches!(client.door, Door::Port(_)) && target.view().direct {
            show_out(client, version, &mut response);
        }
        let release = Release {
            load,
            sender,
            counted,
        };
        Ok(Proxied::Forwarded(response, release))
    }

    /// A connection without waiting: the target is awake, and an endpoint accepts at the first attempt. One that fails leads
    /// to the queue, where it is repeated until the deadline.
    async fn at_once(&self, target: &Arc<Target>, wire: Wire, fresh: bool) -> Option<Lease> {
        let view: Arc<EndpointsView> = target.view();
        if !view.open() {
            return None;
        }
        let endpoints = target.endpoints_of(&view, &self.config.limits);
        let endpoint = pick(&endpoints, None)?;
        if !fresh && let Some(lease) = reuse(endpoint, wire) {
            return Some(lease);
        }
        match Box::pin(connect(endpoint, wire, self.config.connect_timeout)).await {
            Ok(lease) => {
                if !lease.reused {
                    self.metrics.connects.inc();
                }
                Some(lease)
            }
            Err(error) => {
                tracing::debug!(%error, address = %endpoint.address, "connecting failed");
                self.metrics.connect_retries.inc();
                None
            }
        }
    }

    /// Waits in the queue until the target can take the request.
    async fn hold(&self, client: &Client, exchange: &Exchange) -> Result<(Lease, Turn), Rescue> {
        let target = &exchange.target;
        if self.is_draining() && !target.view().open() {
            return Err(Rescue::Draining);
        }
        let request = exchange.request.as_ref();
        let bytes = exchange
            .bytes
            .or_else(|| request.map(|request| request_bytes(request.headers())));
        let _place = self.admission.admit(&target.state, bytes.unwrap_or_default())?;
        let gate = self.gate();
        let unread = request.is_some_and(|request| !request.body().is_end_stream());
        match client.socket.clone().filter(|_| unread) {
            None => gate.pass(target, exchange.wire).await,
            Some(socket) => tokio::select! {
                passed = gate.pass(target, exchange.wire) => passed,
                () = accept::left(socket) => Err(Rescue::ClientLeft),
            },
        }
    }

    /// Raises the wake of the target that was not chosen. Nobody waits for it, and its failure is nobody's.
    fn wake_companion(&self, target: &Arc<Target>) {
        let view = target.view();
        if !view.asleep && view.failure.is_none() {
            return;
        }
        let patience = target.readiness_timeout.unwrap_or(self.config.readiness_timeout);
        if let Some(flight) =
            target
                .state
                .wake_aside(target, view.epoch, &self.waker, patience, &self.metrics)
        {
            tokio::spawn(flight);
        }
    }
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "lives for a moment, on the stack")]
enum Prepared {
    /// It is forwarded.
    Exchange(Exchange),
    /// It was answered here.
    Here(Response<()>),
}

/// A request on its way. Kept in one place: each layer of the path borrows it, because an `async fn` keeps a copy of
/// the space of whatever is moved into it, for as long as the request is held.
struct Exchange {
    target: Arc<Target>,
    wire: Wire,
    version: Version,
    /// What is to be sent; while it is under way, a copy if it may be sent again.
    request: Option<Request<Upload>>,
    on_upgrade: Option<OnUpgrade>,
    counted: Counted,
    /// Size of the head as it was received, if it was clear from the start that the request has to wait.
    bytes: Option<usize>,
}

impl Exchange {
    /// Gives the request to a connection, and keeps a copy of what may be sent again: a connection that idled too long, or a
    /// pod that is just being ended, may close without an answer.
    fn begin(
        &mut self,
        lease: Lease,
        turn: Option<Turn>,
        limit: Option<Duration>,
        again: bool,
    ) -> Option<impl Future<Output = Result<Answer, Failure>> + Send + use<>> {
        let request = self.request.take()?;
        if again {
            self.request = forward::replay(&request);
        }
        Some(forward::send(lease, request, turn, limit))
    }
}

/// A line of the access log.
struct Line {
    method: Method,
    path: String,
    began: Instant,
}

impl Line {
    /// None unless somebody wants to read it.
    fn of(request: &Request<Incoming>) -> Option<Box<Self>> {
        tracing::enabled!(target: "dormouse_dlx::access", tracing::Level::DEBUG).then(|| {
            // The path only: queries hold secrets more often than one thinks.
            let path = request.uri().path().to_owned();
            Box::new(Self {
                method: request.method().clone(),
                path,
                began: Instant::now(),
            })
        })
    }

    fn write(&self, door: Door, status: StatusCode) {
        let (method, path, status) = (&self.method, &self.path, status.as_u16());
        let millis = self.began.elapsed().as_millis();
        tracing::debug!(target: "dormouse_dlx::access", %method, path, status, millis, ?door);
    }
}

enum Proxied {
    /// A workload's response.
    Forwarded(Response<Incoming>, Release),
    /// A response without body that was made here.
    Here(Response<()>),
}

fn request_bytes(headers: &http::HeaderMap) -> usize {
    headers.iter().fold(32, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + 4
    })
}

/// The workload is served by its pods again: the client's next connection will lead there.
fn show_out(client: &Client, version: Version, response: &mut Response<Incoming>) {
    if version == Version::HTTP_2 {
        client.signal.drain();
    } else {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Says whether this port stands in for the Sleeper that is asked for. No demand: it is Dormouse that asks.
fn probe(routes: &Routes, port: u16, uid: &HeaderValue) -> Result<Response<()>, Rescue> {
    let here = &routes.port(port).ok_or(Rescue::NoRoute)?.target.key.uid;
    let mut response = Response::new(());
    if uid.as_bytes() != here.as_bytes() {
        *response.status_mut() = StatusCode::CONFLICT;
    }
    if let Ok(here) = HeaderValue::from_str(here) {
        response.headers_mut().insert(SLEEPER, here);
    }
    Ok(response)
}
