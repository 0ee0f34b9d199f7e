//! What the processes of the bench do.

use std::convert::Infallible;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dormouse_dlx::{
    AppProtocol, Dlx, DlxConfig, EndpointsView, HostPath, Limits, Metrics, PathMatch, PortRoute, RouteTable,
    RouteTarget, RouteTargetKey, RouteTargetSpec, Routes, Server, WakeError, Waker,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Stdin};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::process::{free, listens};
use super::{Args, Role};

/// Plays a role until it is killed, or its work is done.
pub async fn part(role: Role, args: &Args) -> anyhow::Result<()> {
    let to = || args.to.context("--to is missing");
    let startup = Duration::from_millis(args.startup_millis);
    match role {
        Role::Backend => backend(|| Bytes::from_static(&[b'x'; 64])).await,
        Role::Stamped => backend(|| Bytes::from(now().to_string())).await,
        Role::Echo => echo().await,
        Role::Minimal => minimal(to()?, Holds::Nothing).await,
        Role::MinimalHolding => minimal(to()?, Holds::UntilTold).await,
        Role::MinimalSleeping => minimal(to()?, Holds::UntilStarted(startup)).await,
        Role::Dlx => {
            let front = Front::new(ready(to()?, 0), AppProtocol::Http1, None, args);
            front.bind()?.run(CancellationToken::new()).await;
            Ok(())
        }
        Role::DlxHolding => dlx_holding(to()?, args).await,
        Role::DlxSleeping => dlx_sleeping(to()?, startup, args).await,
        Role::DlxTcp => dlx_tcp(to()?, args).await,
        Role::Load => load(to()?, args).await,
        Role::TcpLoad => tcp_load(to()?, args).await,
    }
}

/// Microseconds by the clock of the machine, which all processes share.
pub fn now() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
    let _ = std::io::stdout().flush();
}

/// The words that this process is given.
struct Words(Lines<BufReader<Stdin>>);

impl Words {
    fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()).lines())
    }

    /// Waits for the next one. Whoever says nothing more has ended.
    async fn next(&mut self) -> anyhow::Result<()> {
        self.0.next_line().await?.context("nobody says anything more")?;
        Ok(())
    }
}

/// A workload that answers everything with what `answer` makes.
async fn backend(answer: fn() -> Bytes) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|_: Request<Incoming>| {
                let body = answer();
                async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A workload that says what it is told.
async fn echo() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

/// What the minimal proxy waits for.
#[derive(Clone, Copy)]
enum Holds {
    Nothing,
    /// The word, once and for all.
    UntilTold,
    /// A workload that takes so long; then it sleeps again at the word.
    UntilStarted(Duration),
}

/// The gate of the minimal proxy.
struct Gate {
    holds: Holds,
    open: Notify,
    asleep: AtomicBool,
    stamps: Stamps,
}

impl Gate {
    async fn pass(self: &Arc<Self>) {
        let started = match self.holds {
            Holds::Nothing => return,
            Holds::UntilTold => None,
            Holds::UntilStarted(startup) => self.asleep.swap(false, Ordering::AcqRel).then_some(startup),
        };
        let opened = self.open.notified();
        if let Some(startup) = started {
            self.stamps.ask();
            let gate = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(startup).await;
                gate.stamps.ready();
                gate.open.notify_waiters();
            });
        }
        opened.await;
    }
}

/// When a workload was asked for, and when it was ready, in microseconds.
#[derive(Default)]
struct Stamps {
    asked: AtomicU64,
    ready: AtomicU64,
}

impl Stamps {
    fn ask(&self) {
        self.asked.store(now() as u64, Ordering::Release);
    }

    fn ready(&self) {
        self.ready.store(now() as u64, Ordering::Release);
    }

    fn say(&self) {
        let [asked, ready] = [&self.asked, &self.ready].map(|stamp| stamp.load(Ordering::Acquire));
        say(format!("{asked} {ready}"));
    }
}

/// The least that can be called a reverse proxy with hyper, and the least that can hold a request.
async fn minimal(to: SocketAddr, holds: Holds) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(listener.local_addr()?);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut builder = Client::builder(TokioExecutor::new());
    if let Holds::UntilStarted(_) = holds {
        // A workload that was asleep has no connections from before.
        builder.pool_max_idle_per_host(0);
    }
    let client: Client<_, Incoming> = builder.build(connector);
    let authority: hyper::http::uri::Authority = to.to_string().parse()?;
    let gate = Arc::new(Gate {
        holds,
        open: Notify::new(),
        asleep: AtomicBool::new(true),
        stamps: Stamps::default(),
    });
    tokio::spawn(told(Arc::clone(&gate)));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, authority, gate) = (client.clone(), authority.clone(), Arc::clone(&gate));
        tokio::spawn(async move {
            let forward = service_fn(move |mut request: Request<Incoming>| {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                parts.scheme = Some(hyper::http::uri::Scheme::HTTP);
                parts.authority = Some(authority.clone());
                *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
                let (client, gate) = (client.clone(), Arc::clone(&gate));
                async move {
                    gate.pass().await;
                    client.request(request).await
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), forward)
                .await;
        });
    }
}

/// Does what the minimal proxy is told.
async fn told(gate: Arc<Gate>) {
    let mut words = Words::new();
    while words.next().await.is_ok() {
        match gate.holds {
            Holds::Nothing => {}
            Holds::UntilTold => gate.open.notify_waiters(),
            Holds::UntilStarted(_) => {
                gate.asleep.store(true, Ordering::Release);
                gate.stamps.say();
            }
        }
    }
}

fn asleep(epoch: i64) -> Arc<EndpointsView> {
    Arc::new(EndpointsView {
        asleep: true,
        epoch,
        ..EndpointsView::default()
    })
}

fn ready(at: SocketAddr, epoch: i64) -> Arc<EndpointsView> {
    Arc::new(EndpointsView {
        ready: vec![at],
        fresh: epoch > 0,
        epoch,
        ..EndpointsView::default()
    })
}

/// Wakes a workload that takes its time. Without one, nobody comes.
struct Scripted {
    to: Option<(SocketAddr, Duration)>,
    view: watch::Sender<Arc<EndpointsView>>,
    stamps: Arc<Stamps>,
}

#[async_trait::async_trait]
impl Waker for Scripted {
    async fn wake(&self, _target: &RouteTarget, _reason: &str) -> Result<(), WakeError> {
        if let Some((to, startup)) = self.to {
            self.stamps.ask();
            let (view, stamps) = (self.view.clone(), Arc::clone(&self.stamps));
            tokio::spawn(async move {
                tokio::time::sleep(startup).await;
                let epoch = view.borrow().epoch + 1;
                stamps.ready();
                view.send_replace(ready(to, epoch));
            });
        }
        Ok(())
    }
}

/// A DLX in front of one target.
struct Front {
    dlx: Dlx,
    routes: Arc<RouteTable>,
    target: Arc<RouteTarget>,
    view: watch::Sender<Arc<EndpointsView>>,
    stamps: Arc<Stamps>,
}

impl Front {
    fn new(
        view: Arc<EndpointsView>,
        protocol: AppProtocol,
        wakes: Option<(SocketAddr, Duration)>,
        args: &Args,
    ) -> Self {
        let limits = Limits {
            held: args.held * 2,
            held_per_resource: args.held * 2,
            ..Limits::default()
        };
        let config = DlxConfig {
            listen_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            limits,
            ..DlxConfig::default()
        };
        let routes = Arc::<RouteTable>::default();
        let (view, endpoints) = watch::channel(view);
        let stamps = Arc::<Stamps>::default();
        let waker = Scripted {
            to: wakes,
            view: view.clone(),
            stamps: Arc::clone(&stamps),
        };
        let dlx = Dlx::new(config, Arc::clone(&routes), Arc::new(waker), Metrics::default());
        let key = RouteTargetKey {
            namespace: "default".into(),
            sleeper: "bench".into(),
            uid: "bench".into(),
            service: "bench".into(),
            port: 80,
        };
        let target = RouteTarget::new(
            dlx.demand_counters(),
            RouteTargetSpec {
                key,
                owner: dormouse_model::Owner::plugin("bench"),
                wake: dormouse_sleepers::Wake::Lifecycle,
                resource: "bench".into(),
                readiness_timeout: None,
                protocol,
                connection_idle: None,
                endpoints,
            },
        );
        Self {
            dlx,
            routes,
            target,
            view,
            stamps,
        }
    }

    /// Routed by a host, at the main listener.
    fn bind(&self) -> anyhow::Result<Server> {
        let mut table = Routes::default();
        let at = HostPath {
            host: "bench.example".into(),
            path: "/".into(),
            kind: PathMatch::Prefix,
        };
        table.add_host(at, Arc::clone(&self.target), None);
        self.routes.publish(table);
        let server = self.dlx.bind()?;
        say(server.local_addr());
        Ok(server)
    }
}

/// Holds everything until the word.
async fn dlx_holding(to: SocketAddr, args: &Args) -> anyhow::Result<()> {
    let front = Front::new(asleep(0), AppProtocol::Http1, None, args);
    let server = front.bind()?;
    tokio::spawn(server.run(CancellationToken::new()));
    let mut words = Words::new();
    loop {
        words.next().await?;
        front.view.send_replace(ready(to, 1));
    }
}

/// Sleeps, is woken by the first request, and sleeps again at the word.
async fn dlx_sleeping(to: SocketAddr, startup: Duration, args: &Args) -> anyhow::Result<()> {
    let front = Front::new(asleep(0), AppProtocol::Http1, Some((to, startup)), args);
    let server = front.bind()?;
    tokio::spawn(server.run(CancellationToken::new()));
    let mut words = Words::new();
    loop {
        words.next().await?;
        let epoch = front.view.borrow().epoch + 1;
        front.view.send_replace(asleep(epoch));
        front.stamps.say();
    }
}

/// A DLX port of a workload that is awake and does not speak HTTP.
async fn dlx_tcp(to: SocketAddr, args: &Args) -> anyhow::Result<()> {
    let front = Front::new(ready(to, 0), AppProtocol::Tcp, None, args);
    let address = free()?;
    let mut table = Routes::default();
    let target = Arc::clone(&front.target);
    table.add_port(address.port(), PortRoute { target });
    front.routes.publish(table);
    let server = tokio::spawn(front.dlx.bind()?.run(CancellationToken::new()));
    tokio::task::spawn_blocking(move || listens(address)).await??;
    say(address);
    server.await?;
    Ok(())
}

/// Connects, waits for the word, and asks as fast as it is answered.
async fn load(to: SocketAddr, args: &Args) -> anyhow::Result<()> {
    let mut senders = Vec::new();
    for _ in 0..args.connections {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    say(to);
    Words::new().next().await?;
    let count = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(args.seconds);
    let asking: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                while Instant::now() < end {
                    sender.ready().await?;
                    let request = Request::get("/")
                        .header("host", "bench.example")
                        .header("user-agent", "bench");
                    let response = sender.send_request(request.body(Empty::new())?).await?;
                    ensure!(response.status() == 200, "{}", response.status());
                    response.into_body().collect().await?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for one in asking {
        one.await??;
    }
    say(format!(
        "{} {}",
        count.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// One connection after the other, and the median time of one in microseconds.
async fn tcp_load(to: SocketAddr, args: &Args) -> anyhow::Result<()> {
    say(to);
    Words::new().next().await?;
    let sent = vec![7; args.bytes];
    let mut times = Vec::with_capacity(args.rounds);
    let mut back = vec![0; 64 << 10];
    for _ in 0..args.rounds {
        let began = Instant::now();
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (mut from, mut into) = stream.split();
        let write = async {
            into.write_all(&sent).await?;
            into.shutdown().await
        };
        let read = async {
            let mut total = 0;
            loop {
                let count = from.read(&mut back).await?;
                if count == 0 {
                    return Ok(total);
                }
                total += count;
            }
        };
        let ((), total) = tokio::try_join!(write, read)?;
        ensure!(total == args.bytes, "{total} of {} bytes came back", args.bytes);
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    say(super::report::median(times));
    Ok(())
}
