//! The way of a request through the phases.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::{Admission, AdmissionPermit, head_bytes};
use crate::client::{Addresses, AtAddress, Client, ConnectionPermits, Connections, ListenerKind};
use crate::connect::{Backoff, Lease, Wire, connect, reuse};
use crate::demand_counters::{Counted, DemandCounters, Stage};
use crate::forward::headers::{self, Outgoing, PROBE, PROBE_PATH, SLEEPER};
use crate::forward::{
    self, Answer, Body, Busy, ForwardError, Outcome, Release, Tunnel, authority, max_forwards, upgrades,
};
use crate::gate::Gate;
use crate::hop::HopKey;
use crate::log_limit::LogLimit;
use crate::negotiate::{Waiting, negotiate};
use crate::observe::End;
use crate::pick::{Turn, pick};
use crate::pool::Endpoint;
use crate::rescue::{REASON, Rescue};
use crate::retry::{self, Lost, PodHistory, RequestKind, RetryLimit};
use crate::route::{self, Routed};
use crate::upload::{Fault, Upload, UploadPatience};
use crate::waker::Waker;
use crate::{DlxConfig, EndpointsView, Metrics, Preferences, RouteTable, RouteTarget, Routes};

/// After the drain limit: how long the last responses may take to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What every request shares.
pub(crate) struct Inner {
    pub(crate) config: DlxConfig,
    preferences: ArcSwap<Preferences>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<Connections>,
    /// ConnectionPermits for client connections.
    pub(crate) places: ConnectionPermits,
    /// Held requests of each address.
    held_by: Addresses,
    /// On lines about accepting that fails, for all listeners together.
    pub(crate) accept_failures_logged: LogLimit,
    /// Client connections.
    pub(crate) tasks: TaskTracker,
    waker: Arc<dyn Waker>,
    hop_key: HopKey,
    demand_counters: DemandCounters,
    admission: Admission,
    /// Upgraded connections; they end last.
    tunnels: TaskTracker,
    draining: AtomicBool,
    /// Draining has lasted long enough: held requests are refused.
    drained: CancellationToken,
    /// Upgraded connections are closed.
    closed: CancellationToken,
}

impl Inner {
    pub(crate) fn new(
        config: DlxConfig,
        routes: Arc<RouteTable>,
        waker: Arc<dyn Waker>,
        metrics: Metrics,
    ) -> Self {
        let metrics = Arc::new(metrics);
        let (limits, upstreams) = config.limits.within_descriptors();
        if limits.connections < config.limits.connections {
            tracing::info!(
                connections = limits.connections,
                descriptors = config.limits.descriptors,
                "fewer connections than configured, so that descriptors are left for the rest"
            );
        }
        let config = DlxConfig { limits, ..config };
        Self {
            routes,
            waker,
            hop_key: HopKey::default(),
            demand_counters: DemandCounters::new(upstreams),
            admission: Admission::new(limits, Arc::clone(&metrics)),
            places: ConnectionPermits::new(&limits, &metrics.connections),
            held_by: Addresses::new(limits.held_per_client),
            accept_failures_logged: LogLimit::default(),
            metrics,
            connections: Arc::default(),
            tasks: TaskTracker::new(),
            tunnels: TaskTracker::new(),
            draining: AtomicBool::new(false),
            drained: CancellationToken::new(),
            closed: CancellationToken::new(),
            preferences: ArcSwap::from_pointee(Preferences::from(&config)),
            config,
        }
    }

    pub(crate) fn prefer(&self, preferences: Preferences) {
        self.preferences.store(Arc::new(preferences));
    }

    pub(crate) fn demand_counters(&self) -> &DemandCounters {
        &self.demand_counters
    }

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
            readiness_timeout: self.preferences.load().readiness_timeout,
            waker: &self.waker,
            metrics: &self.metrics,
            drained: &self.drained,
        }
    }

    /// Counts one that is held among those of its client.
    pub(crate) fn held_by(&self, peer: IpAddr) -> Result<Option<AtAddress>, Rescue> {
        self.held_by.enter(peer).map_err(|()| Rescue::QueueFull)
    }

    /// Waits until connections that are copied byte for byte are to be closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Ends: what is under way goes on until it is done or the drain limit is over.
    pub(crate) async fn drain(&self) {
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
        let announced = request.body().size_hint().exact().unwrap_or(0);
        client.idleness.work(announced);
        let busy = Busy(Arc::clone(&client.idleness));
        let grpc = headers::is_grpc(request.headers());
        let stall = client.stall();
        let mut line = Line::of(&request);
        let mut prepared = self.prepare(&client, request, grpc);
        async move {
            let sent = match &mut prepared {
                Ok(Prepared::Exchange(exchange)) => Some(self.send(&client, exchange).await),
                _ => None,
            };
            if let (Some(line), Ok(Prepared::Exchange(exchange))) = (&mut line, &prepared) {
                line.went_to(exchange);
            }
            let outcome = match (prepared, sent) {
                (Ok(Prepared::Exchange(exchange)), Some(Ok(answer))) => {
                    self.conclude(&client, exchange, answer)
                }
                (Ok(Prepared::Here(response)), _) => Ok(Proxied::Here(response)),
                (Err(rescue), _) | (_, Some(Err(rescue))) => Err(rescue),
                (Ok(Prepared::Exchange(_)), None) => Err(Rescue::BadAnswer),
            };
            let failed = outcome.as_ref().err().map(Rescue::status);
            let response = match outcome {
                Ok(Proxied::Forwarded(response, release)) => {
                    response.map(|body| Body::streaming(body, release, &self.metrics, busy, stall))
                }
                Ok(Proxied::Here(response)) => {
                    response.map(|()| Body::text(bytes::Bytes::new(), busy, stall))
                }
                Err(rescue) => {
                    self.metrics.rescued(&rescue);
                    rescue.response(grpc).map(|text| Body::text(text, busy, stall))
                }
            };
            // A failure is one for a gRPC client, too, whose status says 200.
            self.metrics.answered(failed.unwrap_or(response.status()));
            if let Some(line) = line {
                line.write(&client, &response);
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
        if client.http1.is_none() && self.config.limits.refuse(&head) {
            return Err(Rescue::HeadTooLarge);
        }
        authority::check(&head)?;
        let Routed {
            target,
            companion,
            path,
        } = {
            let routes = self.routes.load();
            if let ListenerKind::Port(port) = client.listener
                && head.uri.path() == PROBE_PATH
                && let Some(uid) = head.headers.get(PROBE)
            {
                return probe(&routes, port, uid).map(Prepared::Here);
            }
            match client.listener {
                ListenerKind::Port(port) => route::by_port(&routes, port)?,
                ListenerKind::Main => {
                    let preferred = self.preferences.load();
                    let routed =
                        route::by_request(&routes, &head, preferred.names.as_ref(), preferred.strategy);
                    match routed {
                        // A plugin that is not loaded yet may know better.
                        Err(Rescue::NoRoute) if !preferred.complete => return Err(Rescue::Starting),
                        routed => routed?,
                    }
                }
            }
        };
        if let Some(answer) = max_forwards::check(&mut head)? {
            return Ok(Prepared::Here(answer));
        }
        let marks = target.marks(&self.hop_key);
        let pass = marks.pass(&head.headers)?;
        if let Some(companion) = companion {
            self.wake_companion(&companion);
        }

        let wire = headers::wire(&head, client.listener, &target, grpc);
        let version = head.version;
        let asked = upgrades::asked(&head);
        let bytes = if target.view().open() {
            None
        } else {
            Some(head_bytes(&head))
        };
        let has_unsized_body = !incoming.is_end_stream() && incoming.size_hint().exact().is_none();
        let Waiting::Hold = negotiate(&head, &target);
        let outgoing = Outgoing {
            path,
            wire,
            has_unsized_body,
            upgrade: asked.clone(),
            client: &client.address,
            trusted: client.trusted,
            forwarding: &self.config.forwarding,
            marks,
            pass,
        };
        headers::rewrite_request(&mut head, outgoing)?;
        // HTTP/1.0 needs no Host, HTTP/1.1 does: the name that such a client would have used.
        if wire == Wire::H1 && !head.headers.contains_key(HOST) {
            let host = format!("{}.{}.svc", target.key.service, target.key.namespace);
            if let Ok(host) = HeaderValue::from_str(&host) {
                head.headers.insert(HOST, host);
            }
        }
        // The pauses of a gRPC stream are its own affair.
        let patience = (!grpc).then_some(UploadPatience {
            limit: self.config.body_timeout,
            until_answered: client.http1.is_none(),
        });
        let mut request = Request::from_parts(head, Upload::new(incoming, &self.metrics, patience));
        let switch = asked.map(|asked| (asked, Tunnel::client(&mut request)));
        if wire == Wire::H1 {
            // What stays is how the client wrote the names of its fields.
            request.extensions_mut().remove::<OnUpgrade>();
        } else {
            request.extensions_mut().clear();
        }
        let counted = target.state.enter(Stage::InFlight, &self.metrics);
        Ok(Prepared::Exchange(Exchange {
            target,
            wire,
            version,
            request: Some(request),
            switch,
            counted,
            bytes,
            tries: Tries::default(),
        }))
    }

    /// Sends the request, at first over what is at hand, and again where the table of [`retry`] says so.
    async fn send(self: &Arc<Self>, client: &Client, exchange: &mut Exchange) -> Result<Answer, Rescue> {
        let limit = self.config.response_timeout;
        let patience = self.patience(&exchange.target);
        loop {
            let lease = match self.at_once(exchange).await {
                Some(lease) => lease,
                None => {
                    exchange.counted.advance(Stage::Held);
                    let (lease, turn) = Box::pin(self.hold(client, exchange)).await?;
                    exchange.counted.advance(Stage::InFlight);
                    exchange.tries.turn = Some(turn);
                    lease
                }
            };
            let (endpoint, kept) = (Arc::clone(&lease.load.0), lease.reused);
            let Some((kind, sent)) = exchange.begin(lease, limit) else {
                return Err(Rescue::BadAnswer);
            };
            // On the heap: a request that is held has no space for what comes after it.
            let lost = match Box::pin(sent).await {
                Ok(answer) => return Ok(answer),
                Err((failure, turn)) => {
                    exchange.tries.turn = turn;
                    match failure {
                        ForwardError::Unsent(unsent) => {
                            exchange.request = Some(*unsent);
                            Lost::Unsent
                        }
                        ForwardError::Refused => Lost::Refused,
                        ForwardError::Closed if kept => Lost::Kept,
                        ForwardError::Closed => Lost::New,
                        ForwardError::Bad => return Err(Rescue::BadAnswer),
                        ForwardError::TimedOut => return Err(Rescue::NoAnswer),
                        ForwardError::Client(Fault::Malformed) => {
                            return Err(Rescue::Malformed(
                                "the body of the request is malformed or ends too early",
                            ));
                        }
                        ForwardError::Client(Fault::Slow) => return Err(Rescue::SlowBody),
                        ForwardError::Client(Fault::Gone) => return Err(Rescue::ClientLeft),
                    }
                }
            };
            let pod = if endpoint.is_young(patience) {
                PodHistory::Young
            } else {
                PodHistory::Served
            };
            let pause = exchange
                .tries
                .again(lost, pod, kind, patience)
                .ok_or(Rescue::BadAnswer)?;
            self.metrics.sent_again(lost);
            exchange.tries.failed = Some(endpoint);
            if !pause.is_zero() {
                // On the heap, too.
                Box::pin(self.rest(pause)).await?;
            }
        }
    }

    /// Waits before a request is sent again.
    async fn rest(&self, pause: Duration) -> Result<(), Rescue> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.drained.cancelled() => Err(Rescue::Draining),
        }
    }

    fn patience(&self, target: &RouteTarget) -> Duration {
        self.gate().patience(target)
    }

    /// Everything after the last wait: make the head that the client gets to see.
    fn conclude(&self, client: &Client, exchange: Exchange, answer: Answer) -> Result<Proxied, Rescue> {
        let Exchange {
            target,
            version,
            switch,
            mut counted,
            ..
        } = exchange;
        let Answer {
            mut response,
            load,
            sender,
        } = answer;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some((_, on_upgrade)) =
                switch.filter(|(asked, _)| upgrades::granted(asked, response.headers()))
            else {
                return Err(Rescue::BadAnswer);
            };
            headers::rewrite_switch(response.headers_mut());
            if let Some(socket) = &client.http1 {
                socket.give_up_after(None);
            }
            let activity = counted.open(target.counts_for(&self.config.tcp));
            let tunnel = Tunnel::new(on_upgrade, &mut response, activity, self.config.tcp.timeouts());
            self.tunnels
                .spawn(tunnel.run(counted, load, Arc::clone(&client.place), self.closed.clone()));
            return Ok(Proxied::Here(response.map(|_| ())));
        }
        headers::rewrite_response(response.headers_mut(), version)?;
        *response.version_mut() = version.max(Version::HTTP_11);
        if matches!(client.listener, ListenerKind::Port(_)) && target.view().direct {
            close_connection(client, version, &mut response);
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
    async fn at_once(&self, exchange: &Exchange) -> Option<Lease> {
        let (target, wire) = (&exchange.target, exchange.wire);
        let view: Arc<EndpointsView> = target.view();
        if !view.open() {
            return None;
        }
        let endpoints = target.endpoints_of(&view, &self.config.limits);
        let endpoint = pick(&endpoints, exchange.tries.failed.as_ref())?;
        let fresh = exchange.tries.failed.is_some();
        if !fresh && let Some(lease) = reuse(endpoint, wire) {
            return Some(lease);
        }
        match Box::pin(connect(endpoint, wire, self.config.connect_timeout, fresh)).await {
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
    async fn hold(&self, client: &Client, exchange: &mut Exchange) -> Result<(Lease, Turn), Rescue> {
        let again = exchange.tries.held || exchange.tries.failed.is_some();
        if self.is_draining() && !again && !exchange.target.view().open() {
            return Err(Rescue::Draining);
        }
        let deadline = exchange.tries.deadline(self.patience(&exchange.target));
        let (turn, failed) = (exchange.tries.turn.take(), exchange.tries.failed.clone());
        let sent_before = failed.is_some();
        let target = &exchange.target;
        let request = exchange.request.as_ref();
        let bytes = exchange
            .bytes
            .or_else(|| request.map(|request| request_bytes(request.headers())))
            .unwrap_or_default();
        let _of_client = self.held_by(client.peer)?;
        let mut place = if again {
            self.admission.readmit(&target.state.queue, bytes)
        } else {
            self.admission.admit(&target.state.queue, bytes)?
        };
        exchange.tries.held = true;
        let gate = self.gate();
        // In one place: each await that it was moved into would keep space for it.
        let mut pass = pin!(gate.pass(target, exchange.wire, deadline, turn, failed));
        let passed = if client.http1.is_none() {
            pass.await
        } else {
            tokio::select! {
                passed = &mut pass => passed,
                rescue = self.half_closed(client, &mut place) => Err(rescue),
            }
        };
        match passed {
            // It was ready, and did not answer.
            Err(Rescue::NotReady(_)) if sent_before => Err(Rescue::BadAnswer),
            passed => passed,
        }
    }

    /// Ends the hold of a client that has closed its sending side and may be gone: after a time, or when others need its place.
    async fn half_closed(&self, client: &Client, place: &mut AdmissionPermit) -> Rescue {
        client.idleness.half_closed().await;
        Box::pin(self.held_half_closed(place)).await
    }

    /// How the hold of a client that has closed its sending side ends, if nothing else ends it.
    pub(crate) async fn held_half_closed(&self, place: &mut AdmissionPermit) -> Rescue {
        let limit = self.config.half_closed_timeout;
        tokio::select! {
            () = place.offered() => {
                self.metrics.ended(End::HalfClosedReplaced);
                Rescue::QueueFull
            }
            () = tokio::time::sleep(limit) => {
                self.metrics.ended(End::HalfClosedTimeout);
                Rescue::HalfClosed(limit)
            }
        }
    }

    /// Raises the wake of the target that was not chosen. Nobody waits for it, and its failure is nobody's.
    fn wake_companion(&self, target: &Arc<RouteTarget>) {
        let view = target.view();
        if !view.asleep && view.failure.is_none() {
            return;
        }
        let patience = self.patience(target);
        if let Some(flight) =
            target
                .state
                .wake_in_background(target, view.epoch, &self.waker, patience, &self.metrics)
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
    target: Arc<RouteTarget>,
    wire: Wire,
    version: Version,
    /// What is to be sent; while it is under way, a copy if it may be sent again.
    request: Option<Request<Upload>>,
    /// The protocols that the client asked to change to, and its side of the connection.
    switch: Option<(HeaderValue, OnUpgrade)>,
    counted: Counted,
    /// Size of the head as it was received, if it was clear from the start that the request has to wait.
    bytes: Option<usize>,
    tries: Tries,
}

/// What a request brings along when it is sent again.
#[derive(Default)]
struct Tries {
    /// When it is given up, however often it is held. Counted from when it first had to wait.
    deadline: Option<Instant>,
    /// It had a place in the queue.
    held: bool,
    /// The turn that it had: it does not queue for another one.
    turn: Option<Turn>,
    /// The endpoint that failed it last.
    failed: Option<Arc<Endpoint>>,
    /// How often it was sent again after a pod may have seen it.
    again: u32,
    backoff: Backoff,
}

impl Tries {
    fn deadline(&mut self, patience: Duration) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + patience)
    }

    /// The pause until it is sent again; None: it is not. What a connection from before has cost is made good at once.
    fn again(
        &mut self,
        lost: Lost,
        pod: PodHistory,
        kind: RequestKind,
        patience: Duration,
    ) -> Option<Duration> {
        let more = match retry::again(lost, pod, kind) {
            RetryLimit::UntilReady => Instant::now() < self.deadline(patience),
            RetryLimit::Once => self.again == 0,
            RetryLimit::Never => false,
        };
        let first = self.failed.is_none();
        if lost != Lost::Unsent {
            self.again += 1;
        }
        more.then(|| {
            if first && matches!(lost, Lost::Kept | Lost::Unsent) {
                Duration::ZERO
            } else {
                self.backoff.next()
            }
        })
    }
}

impl Exchange {
    /// Gives the request to a connection, and keeps a copy of one without body.
    fn begin(
        &mut self,
        lease: Lease,
        limit: Option<Duration>,
    ) -> Option<(RequestKind, impl Future<Output = Outcome> + Send + use<>)> {
        let request = self.request.take()?;
        self.request = forward::copy(&request);
        let kind = RequestKind::of(request.method(), self.request.is_none());
        Some((kind, forward::send(lease, request, self.tries.turn.take(), limit)))
    }
}

/// A line of the access log.
struct Line {
    method: Method,
    host: String,
    path: String,
    began: Instant,
    target: Option<Arc<RouteTarget>>,
    held: bool,
}

impl Line {
    /// None unless somebody wants to read it.
    fn of(request: &Request<Incoming>) -> Option<Box<Self>> {
        tracing::enabled!(target: "dormouse_dlx::access", tracing::Level::DEBUG).then(|| {
            let host = request.uri().authority().map(ToString::to_string).or_else(|| {
                let host = request.headers().get(http::header::HOST)?;
                Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
            });
            Box::new(Self {
                method: request.method().clone(),
                host: host.unwrap_or_default(),
                // The path only: queries hold secrets more often than one thinks.
                path: request.uri().path().to_owned(),
                began: Instant::now(),
                target: None,
                held: false,
            })
        })
    }

    fn went_to(&mut self, exchange: &Exchange) {
        self.target = Some(Arc::clone(&exchange.target));
        self.held = exchange.tries.held;
    }

    /// When the head of the answer goes out.
    fn write(&self, client: &Client, response: &Response<Body>) {
        let Self {
            method,
            host,
            path,
            held,
            ..
        } = self;
        let key = self.target.as_ref().map(|target| &target.key);
        tracing::debug!(
            target: "dormouse_dlx::access",
            client = %client.peer,
            listener = ?client.listener,
            %method,
            host,
            path,
            status = response.status().as_u16(),
            reason = response.headers().get(REASON).and_then(|reason| reason.to_str().ok()),
            namespace = key.map(|key| key.namespace.as_str()),
            sleeper = key.map(|key| key.sleeper.as_str()),
            held,
            millis = self.began.elapsed().as_millis(),
        );
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

/// Closes the connection of a client after this response: the workload is served by its pods again, and the next connection leads
/// there.
fn close_connection(client: &Client, version: Version, response: &mut Response<Incoming>) {
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
