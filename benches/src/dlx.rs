//! The DLX's warm path beside a minimal hyper proxy, and what a held request costs.
//!
//! Every part is a process of its own (this binary again, with a role), so that the CPU time of a proxy can be read from
//! `/proc/<pid>/stat` and nothing else is in it. The proxies take turns in short passes, because a machine is never equally
//! quiet for long; the medians are what counts.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dormouse_dlx::{
    AppProtocol, Dlx, DlxConfig, EndpointsView, HostPath, Limits, Metrics, PathMatch, RouteTable, Routes,
    Target, TargetKey, TargetSpec, WakeError, Waker,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::cpu;

/// Options of `bench dlx`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Keep-alive connections of the load generator.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of one pass.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Passes for each proxy.
    #[arg(long, default_value_t = 5)]
    passes: usize,
    /// Requests that are held at once, to see what one costs.
    #[arg(long, default_value_t = 2000)]
    held: usize,
    /// Threads of each proxy.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// What this process is; set by the bench itself.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Address of the backend or proxy, for a role that needs one.
    #[arg(long, hide = true)]
    to: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Backend,
    Minimal,
    Dlx,
    Holding,
    Load,
}

/// Runs the bench, or one of its parts.
///
/// # Errors
/// A part that cannot be started, or a request that was not answered.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match args.role {
        None => bench(args),
        Some(role) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(args.threads.max(1))
                .enable_all()
                .build()?;
            runtime.block_on(part(role, args))
        }
    }
}

fn bench(args: &Args) -> anyhow::Result<()> {
    println!(
        "backend, load and proxies in processes of their own; {} thread(s) each",
        args.threads
    );
    println!(
        "{} keep-alive connections, GET, 64 bytes back, {} passes of {} s\n",
        args.connections, args.passes, args.seconds
    );
    let backend = Part::start(Role::Backend, args, None)?;
    let minimal = Part::start(Role::Minimal, args, Some(backend.address))?;
    let dlx = Part::start(Role::Dlx, args, Some(backend.address))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    println!(
        "{:>4}  {:>22}  {:>22}  {:>9}  {:>9}",
        "pass", "minimal hyper", "DLX", "CPU ratio", "req/s"
    );
    // One pass to warm up, which does not count.
    for pass in 0..=args.passes {
        let pair = if pass % 2 == 0 {
            let first = measure(&minimal, args)?;
            (first, measure(&dlx, args)?)
        } else {
            let first = measure(&dlx, args)?;
            (measure(&minimal, args)?, first)
        };
        if pass == 0 {
            continue;
        }
        let (reference, own) = pair;
        println!(
            "{pass:>4}  {reference:>22}  {own:>22}  {:>9.2}  {:>9.2}",
            own.micros / reference.micros,
            own.rate / reference.rate
        );
        theirs.push(reference);
        ours.push(own);
    }
    let median_of = |passes: &[Pass], value: fn(&Pass) -> f64| median(passes.iter().map(value).collect());
    let ratios = ours
        .iter()
        .zip(&theirs)
        .map(|(own, reference)| own.micros / reference.micros)
        .collect();
    println!("\nmedians");
    for (name, passes) in [("minimal hyper", &theirs), ("DLX", &ours)] {
        let (micros, rate) = (
            median_of(passes, |pass| pass.micros),
            median_of(passes, |pass| pass.rate),
        );
        println!("  {name:<14} {micros:>7.1} us CPU/request  {rate:>9.0} req/s");
    }
    println!("  CPU ratio      {:>7.2}   (aim: at most 1.25)", median(ratios));
    drop((minimal, dlx));
    held(args)
}

/// Memory of held requests: resident size before and while they are held.
fn held(args: &Args) -> anyhow::Result<()> {
    let proxy = Part::start(Role::Holding, args, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let before = proxy.resident()?;
    let clients = runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..args.held {
            let mut client = TcpStream::connect(proxy.address).await?;
            client
                .write_all(
                    b"GET / HTTP/1.1\r\nhost: bench.example\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
                )
                .await?;
            clients.push(client);
        }
        // The proxy has to have read them all; its size settles when it has.
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = proxy.resident()?;
            if now == last {
                break;
            }
            last = now;
        }
        anyhow::Ok(clients)
    })?;
    let after = proxy.resident()?;
    let each = (after.saturating_sub(before)) as f64 / args.held as f64 / 1024.0;
    println!(
        "\n{} held requests: {:.1} MB more, {each:.1} KB each (aim: at most 16)",
        args.held,
        (after - before) as f64 / 1e6
    );
    drop(clients);
    Ok(())
}

/// One pass over one proxy.
#[derive(Clone, Copy, Debug)]
struct Pass {
    micros: f64,
    rate: f64,
}

impl std::fmt::Display for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.1} us {:.0} req/s", self.micros, self.rate))
    }
}

fn measure(proxy: &Part, args: &Args) -> anyhow::Result<Pass> {
    let mut load = Part::start(Role::Load, args, Some(proxy.address))?;
    let before = proxy.cpu()?;
    let said = load.finish()?;
    let after = proxy.cpu()?;
    let mut words = said.split_whitespace().map(str::parse::<f64>);
    let (count, seconds) = (
        words.next().context("no count")??,
        words.next().context("no time")??,
    );
    ensure!(count > 0.0, "no request was answered");
    Ok(Pass {
        micros: (after - before) * 1e6 / count,
        rate: count / seconds,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A process of the bench. Ends with this one.
struct Part {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Part {
    fn start(role: Role, args: &Args, to: Option<SocketAddr>) -> anyhow::Result<Self> {
        let role = clap::ValueEnum::to_possible_value(&role).context("a role without name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("dlx")
            .args(["--role", role.get_name(), "--threads", &args.threads.to_string()]);
        command.args([
            "--connections",
            &args.connections.to_string(),
            "--seconds",
            &args.seconds.to_string(),
        ]);
        command.args(["--held", &args.held.to_string()]);
        if let Some(to) = to {
            command.args(["--to", &to.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("{} said {line:?}", role.get_name()))?;
        Ok(Self {
            child,
            input,
            output,
            address,
        })
    }

    /// Lets it go and waits for its last line.
    fn finish(&mut self) -> anyhow::Result<String> {
        if let Some(input) = &mut self.input {
            input.write_all(b"go\n")?;
        }
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// CPU seconds that it has used.
    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        cpu::seconds(&stat)
    }

    /// Resident bytes.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn part(role: Role, args: &Args) -> anyhow::Result<()> {
    let to = || args.to.context("--to is missing");
    match role {
        Role::Backend => backend().await,
        Role::Minimal => minimal(to()?).await,
        Role::Dlx => {
            dlx(
                EndpointsView {
                    ready: vec![to()?],
                    ..EndpointsView::default()
                },
                args,
            )
            .await
        }
        Role::Holding => {
            dlx(
                EndpointsView {
                    asleep: true,
                    ..EndpointsView::default()
                },
                args,
            )
            .await
        }
        Role::Load => load(to()?, args).await,
    }
}

fn announce(address: SocketAddr) {
    println!("{address}");
}

async fn backend() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let answer = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 64]))))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

/// The least that can be called a reverse proxy with hyper.
async fn minimal(to: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    announce(listener.local_addr()?);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let authority: hyper::http::uri::Authority = to.to_string().parse()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, authority) = (client.clone(), authority.clone());
        tokio::spawn(async move {
            let forward = service_fn(move |mut request: Request<Incoming>| {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                parts.scheme = Some(hyper::http::uri::Scheme::HTTP);
                parts.authority = Some(authority.clone());
                *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
                client.request(request)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), forward)
                .await;
        });
    }
}

struct Nobody;

#[async_trait::async_trait]
impl Waker for Nobody {
    async fn wake(&self, _target: &Target, _reason: &str) -> Result<(), WakeError> {
        Ok(())
    }
}

async fn dlx(view: EndpointsView, args: &Args) -> anyhow::Result<()> {
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
    let dlx = Dlx::new(config, Arc::clone(&routes), Arc::new(Nobody), Metrics::default());
    let (_view, endpoints) = tokio::sync::watch::channel(Arc::new(view));
    let key = TargetKey {
        namespace: "default".into(),
        sleeper: "bench".into(),
        uid: "bench".into(),
        service: "bench".into(),
        port: 80,
    };
    let target = Target::new(
        dlx.ledger(),
        TargetSpec {
            key,
            owner: dormouse_model::Owner::plugin("bench"),
            wake: dormouse_sleepers::Wake::Lifecycle,
            resource: "bench".into(),
            readiness_timeout: None,
            protocol: AppProtocol::Http1,
            connection_idle: None,
            endpoints,
        },
    );
    let mut table = Routes::default();
    let at = HostPath {
        host: "bench.example".into(),
        path: "/".into(),
        kind: PathMatch::Prefix,
    };
    table.add_host(at, target, None);
    routes.publish(table);
    let server = dlx.bind()?;
    announce(server.local_addr());
    server.run(tokio_util::sync::CancellationToken::new()).await;
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
    announce(to);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
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
    println!(
        "{} {}",
        count.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
