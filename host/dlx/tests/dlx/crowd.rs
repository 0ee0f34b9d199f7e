//! A DLX in a process of its own that may have 1024 descriptors, and crowds of clients that misbehave.
//!
//! ```sh
//! DORMOUSE_SOAK_MINUTES=30 cargo test -p dormouse-dlx --test dlx crowd::soak -- --ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dormouse_dlx::{DlxConfig, Limits, descriptors};
use http::{Request, Response};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::*;

const DESCRIPTORS: u64 = 1024;
const POD: &str = "DORMOUSE_TEST_POD";

/// The process: a workload that is awake, one that never becomes ready, one that nobody asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other half of the tests below, which start it as a process"]
async fn child() {
    let Ok(pod) = std::env::var(POD) else { return };
    let limit = Rlimit {
        current: Some(DESCRIPTORS / 2),
        maximum: Some(DESCRIPTORS),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(descriptors::raise(), DESCRIPTORS, "up to the hard limit");
    let world = Arc::new(
        World::with(DlxConfig {
            readiness_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(2),
            send_timeout: Duration::from_secs(3),
            body_timeout: Duration::from_secs(3),
            half_closed_timeout: Duration::from_secs(3),
            limits: Limits {
                descriptors: Some(DESCRIPTORS),
                ..Limits::default()
            },
            ..config()
        })
        .await,
    );
    let open = world.workload("open", awake(&[pod.parse().unwrap()]));
    let (never, other) = (
        world.workload("never", asleep()),
        world.workload("other", asleep()),
    );
    world.wakes.on("never", |_| async { Ok(()) });
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push(free_address().await.port());
    }
    world
        .open_ports(&[(ports[0], &open), (ports[1], &never), (ports[2], &other)])
        .await;
    // As the admin endpoint does: it shares the table of descriptors.
    let asked = Arc::clone(&world);
    let admin = Pod::start(move |request| {
        let world = Arc::clone(&asked);
        async move { Response::new(text(page(&world, request.uri().path()))) }
    })
    .await;
    println!(
        "READY {} {} {} {}",
        ports[0],
        ports[1],
        ports[2],
        admin.address.port()
    );
    let mut rest = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut rest).await;
    std::process::exit(0);
}

fn page(world: &World, path: &str) -> String {
    match path {
        "/demand" => serde_json::to_string(&world.dlx.demand()).unwrap(),
        "/stats" => {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let rss = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .unwrap();
            let rss = rss.trim().trim_end_matches(" kB").trim();
            format!(
                "{fds} {rss} {} {} {}",
                world.metric("dlx_connections"),
                world.metric("dlx_held_requests"),
                world.wakes.calls("other"),
            )
        }
        _ => {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
            text
        }
    }
}

struct Dlx {
    _process: Child,
    _pod: Pod,
    open: SocketAddr,
    never: SocketAddr,
    admin: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Stats {
    fds: u64,
    rss_kib: u64,
    connections: u64,
    held: u64,
    woken: u64,
}

impl Dlx {
    async fn start() -> Self {
        descriptors::raise();
        let pod = Pod::start(|request: Request<hyper::body::Incoming>| async move {
            match request.uri().path() {
                "/long" => Response::new(text(vec![b'x'; 8 << 20])),
                _ => {
                    let _ = http_body_util::BodyExt::collect(request.into_body()).await;
                    Response::new(text("here"))
                }
            }
        })
        .await;
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crowd::child",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(POD, pod.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ports: Vec<u16> = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("the process says where it listens");
            if let Some((_, ports)) = line.split_once("READY ") {
                break ports.split(' ').map(|port| port.parse().unwrap()).collect();
            }
        };
        let on = |index: usize| SocketAddr::from(([127, 0, 0, 1], ports[index]));
        Self {
            _process: process,
            _pod: pod,
            open: on(0),
            never: on(1),
            admin: on(3),
        }
    }

    /// What the house asks, within the time that a probe has.
    async fn ask(&self, path: &str) -> Option<String> {
        let asked = timeout(Duration::from_secs(5), get(self.admin, path)).await;
        asked.ok().map(|reply| reply.body)
    }

    async fn stats(&self) -> Option<Stats> {
        let text = self.ask("/stats").await?;
        let [fds, rss_kib, connections, held, woken] = text
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect::<Vec<u64>>()
            .try_into()
            .ok()?;
        Some(Stats {
            fds,
            rss_kib,
            connections,
            held,
            woken,
        })
    }

    /// An honest request; the time that it took.
    async fn honest(&self) -> Option<Duration> {
        let began = Instant::now();
        let answer = timeout(Duration::from_secs(15), async {
            let mut client = TcpStream::connect(self.open).await.ok()?;
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await
                .ok()?;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        });
        answer.await.ok()??;
        Some(began.elapsed())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_more_clients_than_descriptors_shut_out_neither_the_house_nor_other_workloads() {
    let dlx = Dlx::start().await;
    let before = dlx.stats().await.unwrap();
    let mut crowd = JoinSet::new();
    for _ in 0..1400 {
        let to = dlx.never;
        crowd.spawn(async move {
            let Ok(mut client) = TcpStream::connect(to).await else {
                return;
            };
            let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
        });
    }
    let mut most = before;
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let stats = dlx.stats().await.expect("the house is answered");
        assert!(dlx.ask("/demand").await.expect("so is demand").contains("never"));
        assert!(
            dlx.honest().await.is_some(),
            "so is a client of another workload: {stats:?}"
        );
        most.fds = most.fds.max(stats.fds);
        most.held = most.held.max(stats.held);
        assert_eq!(stats.woken, 0, "nobody is woken who was not asked for");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(most.held > 100, "it was a crowd: {most:?}");
    assert!(most.fds < DESCRIPTORS - 50, "some are left: {most:?}");
    drop(crowd);
    let mut after = dlx.stats().await.unwrap();
    for _ in 0..200 {
        if after.connections == 0 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
        after = dlx.stats().await.unwrap();
    }
    assert_eq!((after.connections, after.held), (0, 0), "nothing is left behind");
}

/// How a kind of client misbehaves: once, from connecting to the end.
type Kind = fn(SocketAddr, SocketAddr) -> futures::future::BoxFuture<'static, std::io::Result<()>>;

async fn say(to: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect(to).await?;
    client.write_all(bytes).await?;
    Ok(client)
}

async fn until_closed(mut client: TcpStream, most: u64) {
    let mut rest = vec![0; 4096];
    let read = async { while matches!(client.read(&mut rest).await, Ok(1..)) {} };
    let _ = timeout(Duration::from_secs(most), read).await;
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 connection that sends the same frame again and again.
async fn flood(to: SocketAddr, frame: &[u8]) -> std::io::Result<()> {
    let client = say(to, &[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).await?;
    let (mut reading, mut writing) = client.into_split();
    let mut rest = vec![0; 65536];
    let reading = async { while matches!(reading.read(&mut rest).await, Ok(1..)) {} };
    let frames = frame.repeat(200);
    let writing = async {
        for _ in 0..500 {
            if writing.write_all(&frames).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(Duration::from_secs(15), futures::future::join(reading, writing)).await;
    Ok(())
}

/// Streams that are opened with a window of nothing, and pings that keep the connection.
async fn shut_window(to: SocketAddr) -> std::io::Result<()> {
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let mut hello = [PREFACE, &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]].concat();
    for stream in 0u8..20 {
        // :method GET, :scheme http, :path /long, :authority a
        let block = [&[0x82, 0x86, 0x04, 5][..], b"/long", &[0x41, 1], b"a"].concat();
        hello.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 2 * stream + 1]);
        hello.extend(block);
    }
    let client = say(to, &hello).await?;
    let (mut reading, mut writing) = client.into_split();
    let mut rest = vec![0; 65536];
    let reading = async { while matches!(reading.read(&mut rest).await, Ok(1..)) {} };
    let writing = async {
        for _ in 0..10 {
            sleep(Duration::from_secs(1)).await;
            let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
            if writing.write_all(&ping).await.is_err() {
                break;
            }
        }
    };
    futures::future::join(reading, writing).await;
    Ok(())
}

fn kinds() -> Vec<(&'static str, usize, Kind)> {
    use futures::FutureExt as _;
    vec![
        ("ghosts", 20, |_, never| {
            async move {
                drop(say(never, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n\r\n").await?);
                sleep(Duration::from_millis(100)).await;
                Ok(())
            }
            .boxed()
        }),
        ("slow heads", 60, |_, never| {
            async move {
                let mut client = say(never, b"GET / HTTP/1.1\r\n").await?;
                for _ in 0..60 {
                    sleep(Duration::from_millis(300)).await;
                    client.write_all(b"a: b\r\n").await?;
                }
                Ok(())
            }
            .boxed()
        }),
        ("silent", 60, |open, _| {
            async move {
                until_closed(TcpStream::connect(open).await?, 30).await;
                Ok(())
            }
            .boxed()
        }),
        ("half a head behind", 10, |open, _| {
            async move {
                until_closed(say(open, &[GET, b"GET / HT"].concat()).await?, 30).await;
                Ok(())
            }
            .boxed()
        }),
        ("do not read", 10, |open, _| {
            async move {
                let client = say(open, b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").await?;
                sleep(Duration::from_secs(10)).await;
                drop(client);
                Ok(())
            }
            .boxed()
        }),
        ("trickle a body", 10, |open, _| {
            async move {
                let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";
                let mut client = say(open, head).await?;
                for _ in 0..20 {
                    sleep(Duration::from_millis(500)).await;
                    client.write_all(b"x").await?;
                }
                Ok(())
            }
            .boxed()
        }),
        ("never send a body", 10, |open, _| {
            async move {
                let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";
                until_closed(say(open, head).await?, 30).await;
                Ok(())
            }
            .boxed()
        }),
        ("half-close, held", 20, |_, never| {
            async move {
                let mut client = say(never, GET).await?;
                client.shutdown().await?;
                until_closed(client, 30).await;
                Ok(())
            }
            .boxed()
        }),
        ("reset", 20, |_, never| {
            async move {
                let client = say(never, &[GET, b"x"].concat()).await?;
                sleep(Duration::from_millis(100)).await;
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
                Ok(())
            }
            .boxed()
        }),
        ("leave after 1 s", 100, |_, never| {
            async move {
                let client = say(never, &[GET, b"\r\n"].concat()).await?;
                sleep(Duration::from_secs(1)).await;
                drop(client);
                Ok(())
            }
            .boxed()
        }),
        ("wait for ever", 400, |_, never| {
            async move {
                until_closed(say(never, GET).await?, 20).await;
                sleep(Duration::from_millis(500)).await;
                Ok(())
            }
            .boxed()
        }),
        ("shut windows", 2, |open, _| shut_window(open).boxed()),
        ("SETTINGS", 1, |open, _| {
            flood(open, &[0, 0, 0, 4, 0, 0, 0, 0, 0]).boxed()
        }),
        ("PING", 1, |open, _| {
            flood(open, &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).boxed()
        }),
        ("PRIORITY", 1, |open, _| {
            flood(open, &[0, 0, 5, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 16]).boxed()
        }),
        ("WINDOW_UPDATE", 1, |open, _| {
            flood(open, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]).boxed()
        }),
    ]
}

async fn misbehave(dlx: &Dlx, time: Duration) {
    let until = Instant::now() + time;
    let counts: Arc<Mutex<BTreeMap<&str, (u64, u64)>>> = Arc::default();
    let mut crowd = JoinSet::new();
    let (open, never) = (dlx.open, dlx.never);
    for (name, many, kind) in kinds() {
        for _ in 0..many {
            let counts = Arc::clone(&counts);
            crowd.spawn(async move {
                while Instant::now() < until {
                    let done = kind(open, never).await;
                    {
                        let mut counts = counts.lock().unwrap();
                        let count = counts.entry(name).or_default();
                        match done {
                            Ok(()) => count.0 += 1,
                            Err(_) => count.1 += 1,
                        }
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    let failed = AtomicU64::new(0);
    let mut took = Vec::new();
    let mut seen: Vec<Stats> = Vec::new();
    let mut sampled = Instant::now();
    while Instant::now() < until {
        match dlx.honest().await {
            Some(time) => took.push(time),
            None => _ = failed.fetch_add(1, Ordering::Relaxed),
        }
        if sampled.elapsed() > Duration::from_secs(1) {
            sampled = Instant::now();
            seen.push(dlx.stats().await.expect("the house is answered"));
            assert!(dlx.ask("/demand").await.is_some(), "so is demand");
        }
        sleep(Duration::from_millis(100)).await;
    }
    crowd.shutdown().await;
    let mut after = dlx.stats().await.unwrap();
    for _ in 0..400 {
        if after.connections == 0 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
        after = dlx.stats().await.unwrap();
    }

    took.sort_unstable();
    let at = |share: usize| took.get((took.len().max(1) - 1) * share / 100);
    println!("| client | ended | broken off |\n|---|---|---|");
    for (name, (ended, broken)) in &*counts.lock().unwrap() {
        println!("| {name} | {ended} | {broken} |");
    }
    println!("\n| honest | failed | p50 | p99 | max |\n|---|---|---|---|---|");
    let failed = failed.into_inner();
    println!(
        "| {} | {failed} | {:?} | {:?} | {:?} |",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
    println!("\n| part | descriptors | RSS MiB | connections | held |\n|---|---|---|---|---|");
    let part = seen.len().div_ceil(6).max(1);
    let most = |part: &[Stats], of: fn(&Stats) -> u64| part.iter().map(of).max().unwrap_or(0);
    for (index, part) in seen.chunks(part).enumerate() {
        println!(
            "| {} | {} | {} | {} | {} |",
            index + 1,
            most(part, |stats| stats.fds),
            most(part, |stats| stats.rss_kib) / 1024,
            most(part, |stats| stats.connections),
            most(part, |stats| stats.held),
        );
    }
    println!(
        "| after | {} | {} | {} | {} |",
        after.fds,
        after.rss_kib / 1024,
        after.connections,
        after.held
    );
    let metrics = dlx.ask("/metrics").await.unwrap();
    metrics
        .lines()
        .filter(|line| {
            line.starts_with("dormouse_dlx_clients_ended_total")
                || line.starts_with("dormouse_dlx_rescues_total")
        })
        .for_each(|line| println!("{line}"));

    assert_eq!(failed, 0, "honest clients are answered");
    assert_eq!(after.woken, 0, "nobody is woken who was not asked for");
    assert_eq!((after.connections, after.held), (0, 0), "nothing is left behind");
    assert!(
        most(&seen, |stats| stats.fds) < DESCRIPTORS - 50,
        "descriptors are left"
    );
    let half = seen.len() / 2;
    let (first, second) = (
        most(&seen[..half], |s| s.rss_kib),
        most(&seen[half..], |s| s.rss_kib),
    );
    assert!(
        second < first + first / 2 + 32 * 1024,
        "memory is flat: {first} then {second} KiB"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_a_crowd_of_all_kinds_at_once_for_a_few_seconds() {
    let dlx = Dlx::start().await;
    misbehave(&dlx, Duration::from_secs(12)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as DORMOUSE_SOAK_MINUTES says, 30 by default"]
async fn soak() {
    let minutes = std::env::var("DORMOUSE_SOAK_MINUTES").map_or(30, |minutes| minutes.parse().unwrap());
    let dlx = Dlx::start().await;
    misbehave(&dlx, Duration::from_secs(60 * minutes)).await;
}
