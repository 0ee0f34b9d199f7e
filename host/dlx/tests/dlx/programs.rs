//! Real servers and real clients through a DLX port: straight to the server, through the DLX while it looks on, and asleep.
//! `cargo xtask test programs` runs what is installed and names what is not.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dormouse_dlx::{AppProtocol, EndpointsView};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::support::*;

const SOON: Duration = Duration::from_secs(60);
/// Times that a workload falls asleep and is woken under load.
const TURNS: usize = 20;
/// As in the protocol: what has been let through connects before its pod goes.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// Where a program is. `cargo xtask test programs` puts the places of Debian's servers into PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|place| place.join(name))
        .find(|path| path.is_file())
}

/// A command that ends with the test.
fn command(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap_or_else(|| panic!("{name} is not installed")));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// What a client prints. It must succeed.
async fn run(command: &mut Command) -> String {
    let output = timeout(SOON, command.output())
        .await
        .expect("a client comes to its end")
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

/// A command that runs as somebody who is not root, as PostgreSQL demands.
fn unprivileged(name: &str, dir: &Path) -> Command {
    let program = find(name).unwrap();
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command.kill_on_drop(true).stdin(Stdio::null()).current_dir(dir);
    command
}

/// A server that can be started and ended.
struct Server {
    start: Box<dyn Fn(SocketAddr) -> Command + Send + Sync>,
    /// Whether it serves.
    ready: Box<dyn Fn(SocketAddr) -> Command + Send + Sync>,
    end: Signal,
}

impl Server {
    async fn up(&self, at: SocketAddr) -> Child {
        let child = (self.start)(at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the server is ready", || async {
            let status = (self.ready)(at)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.await.unwrap().success()
        })
        .await;
        child
    }

    async fn down(&self, mut child: Child) {
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), self.end).unwrap();
        timeout(SOON, child.wait())
            .await
            .expect("the server ends")
            .unwrap();
    }
}

/// Nothing but an accepted connection.
fn accepts(at: SocketAddr) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec 3<>/dev/tcp/{}/{}", at.ip(), at.port())]);
    command
}

/// A workload whose pod is a process, behind a DLX that knows nothing of its protocol.
struct Real {
    world: World,
    body: Arc<Body>,
    dlx: SocketAddr,
}

struct Body {
    server: Server,
    pod: SocketAddr,
    running: Mutex<Option<Child>>,
    view: watch::Sender<Arc<EndpointsView>>,
    epoch: AtomicI64,
    /// Whether whoever asks is to be woken for.
    wakes: AtomicU64,
}

impl Body {
    async fn wake(&self) {
        let mut running = self.running.lock().await;
        if running.is_none() {
            *running = Some(self.server.up(self.pod).await);
            self.wakes.fetch_add(1, Ordering::SeqCst);
        }
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.view.send_replace(Arc::new(EndpointsView {
            epoch,
            fresh: true,
            ..awake(&[self.pod])
        }));
    }
}

impl Real {
    /// It sleeps.
    async fn new(server: Server) -> Self {
        let world = World::new().await;
        let workload = world.workload_with("app", asleep(), |spec| spec.protocol = AppProtocol::Unknown);
        let port = free_address().await.port();
        world.open_ports(&[(port, &workload)]).await;
        let body = Arc::new(Body {
            server,
            pod: free_address().await,
            running: Mutex::new(None),
            view: workload.view,
            epoch: AtomicI64::new(1),
            wakes: AtomicU64::new(0),
        });
        let waking = Arc::clone(&body);
        world.wakes.on("app", move |_| {
            let waking = Arc::clone(&waking);
            async move {
                waking.wake().await;
                Ok(())
            }
        });
        Self {
            world,
            body,
            dlx: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        }
    }

    /// Takes the traffic, lets what is open end, and stops the server: whoever comes from now on waits, and wakes it.
    async fn sleep(&self) {
        let mut running = self.body.running.lock().await;
        let epoch = self.body.epoch.load(Ordering::SeqCst);
        self.body
            .view
            .send_replace(Arc::new(EndpointsView { epoch, ..asleep() }));
        tokio::time::sleep(DRAIN_GRACE).await;
        eventually("what is open has ended", || async {
            self.world.demand_of("app").2 == 0
        })
        .await;
        if let Some(child) = running.take() {
            self.body.server.down(child).await;
        }
    }

    /// The client of the program straight at its server, while the DLX looks on, and asleep.
    async fn in_every_state(&self, client: impl AsyncFn(SocketAddr)) {
        self.body.wake().await;
        client(self.body.pod).await;
        client(self.dlx).await;
        self.sleep().await;
        let before = self.body.wakes.load(Ordering::SeqCst);
        client(self.dlx).await;
        assert_eq!(
            self.body.wakes.load(Ordering::SeqCst),
            before + 1,
            "its client has woken it"
        );
    }

    /// Sleeps again and again, while clients come without end.
    async fn turns(&self) {
        for turn in 0..TURNS {
            let before = self.body.wakes.load(Ordering::SeqCst);
            self.sleep().await;
            eventually(&format!("turn {turn}: it is awake again"), || async {
                self.body.wakes.load(Ordering::SeqCst) > before
            })
            .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn redis(dir: &TempDir) -> Server {
    let dir = dir.path().to_owned();
    Server {
        start: Box::new(move |at| {
            let mut redis = command("redis-server");
            redis.args(["--port", &at.port().to_string(), "--bind", &at.ip().to_string()]);
            // What was counted is there after a sleep.
            redis.args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "no",
                "--dir",
            ]);
            redis.arg(&dir);
            redis
        }),
        ready: Box::new(|at| {
            let mut ping = Command::new("bash");
            let port = at.port();
            ping.args(["-c", &format!("redis-cli -p {port} ping | grep -q PONG")]);
            ping
        }),
        end: Signal::TERM,
    }
}

fn redis_cli(at: SocketAddr) -> Command {
    let mut client = command("redis-cli");
    client.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers and clients of other projects; `cargo xtask test programs` runs it"]
async fn redis_is_served_awake_observed_and_asleep_and_no_command_is_lost_in_twenty_turns() {
    let dir = tempfile::tempdir().unwrap();
    let real = Real::new(redis(&dir)).await;
    real.in_every_state(async |at| {
        assert_eq!(
            run(redis_cli(at).args(["set", "key", "value"])).await.trim(),
            "OK"
        );
        assert_eq!(run(redis_cli(at).args(["get", "key"])).await.trim(), "value");
        // A value that fills many buffers, back and forth.
        let large = run(redis_cli(at).args(["eval", "return string.rep('x', 3000000)", "0"])).await;
        assert_eq!(large.trim().len(), 3_000_000);
    })
    .await;
    let (counted, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let at = real.dlx;
    let count = async |client: usize| {
        while !over.load(Ordering::SeqCst) {
            // Half of them as a program does it, half of them without one in between.
            if client.is_multiple_of(2) {
                run(redis_cli(at).args(["incr", "n"])).await;
            } else {
                let mut stream = BufReader::new(TcpStream::connect(at).await.unwrap());
                stream
                    .write_all(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
                    .await
                    .unwrap();
                let mut line = String::new();
                timeout(SOON, stream.read_line(&mut line)).await.unwrap().unwrap();
                assert!(line.starts_with(':'), "{line}");
            }
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    let turning = async {
        real.turns().await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(turning, count(0), count(1), count(2), count(3));
    let n: u64 = run(redis_cli(at).args(["get", "n"]))
        .await
        .trim()
        .parse()
        .unwrap();
    let counted = counted.into_inner();
    println!("{counted} commands on connections of their own, {TURNS} turns");
    assert_eq!(n, counted, "none was lost, and none was sent twice");
    assert!(counted > TURNS as u64, "there was load");
    assert_eq!(real.world.metric("dlx_tcp_broken_total"), 0);
}

async fn postgres(dir: &TempDir) -> Server {
    let data = dir.path().join("data");
    if geteuid().is_root() {
        let id = run(Command::new("id").args(["-u", "postgres"])).await;
        chown(dir.path(), Some(id.trim().parse().unwrap()), None).unwrap();
    }
    let mut init = unprivileged("initdb", dir.path());
    init.arg("-D").arg(&data);
    run(init.args([
        "-A",
        "trust",
        "-U",
        "postgres",
        "--no-sync",
        "-E",
        "UTF8",
        "--no-locale",
    ]))
    .await;
    let dir = dir.path().to_owned();
    Server {
        start: Box::new(move |at| {
            let mut server = unprivileged("postgres", &dir);
            server.arg("-D").arg(&data).arg("-k").arg(&dir);
            server.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
            server.args(["-c", "fsync=off", "-c", "shared_buffers=16MB"]);
            server
        }),
        ready: Box::new(|at| {
            let mut ready = command("pg_isready");
            ready.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
            ready
        }),
        end: Signal::INT,
    }
}

fn postgres_client(name: &str, at: SocketAddr) -> Command {
    let mut client = command(name);
    client.args([
        "-h",
        &at.ip().to_string(),
        "-p",
        &at.port().to_string(),
        "-U",
        "postgres",
    ]);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers and clients of other projects; `cargo xtask test programs` runs it"]
async fn postgresql_is_served_awake_observed_and_asleep_and_no_transaction_is_lost_in_twenty_turns() {
    let dir = tempfile::tempdir().unwrap();
    let real = Real::new(postgres(&dir).await).await;
    real.in_every_state(async |at| {
        let query = "select string_agg(i::text, '') from generate_series(1, 100000) i";
        let rows = run(postgres_client("psql", at).args(["-At", "-c", query])).await;
        assert_eq!(rows.trim().len(), 488_895);
        // The server is asked for TLS first, and says that it has none.
        let mut psql = postgres_client("psql", at);
        psql.env("PGSSLMODE", "prefer");
        assert_eq!(run(psql.args(["-At", "-c", "select 1"])).await.trim(), "1");
    })
    .await;
    let at = real.dlx;
    run(postgres_client("pgbench", at).args(["-i", "-q", "-s", "1", "postgres"])).await;
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let load = async || {
        while !over.load(Ordering::SeqCst) {
            // A connection for each transaction.
            let mut pgbench = postgres_client("pgbench", at);
            let report = run(pgbench.args(["-n", "-C", "-c", "2", "-j", "2", "-t", "5", "postgres"])).await;
            assert!(report.contains("actually processed: 10/10"), "{report}");
            done.fetch_add(10, Ordering::SeqCst);
        }
    };
    let turning = async {
        real.turns().await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(turning, load());
    let count = "select count(*) from pgbench_history";
    let rows = run(postgres_client("psql", at).args(["-At", "-c", count, "postgres"])).await;
    let done = done.into_inner();
    println!("{done} transactions on connections of their own, {TURNS} turns");
    assert_eq!(
        rows.trim(),
        done.to_string(),
        "none was lost, and none was made twice"
    );
    assert_eq!(real.world.metric("dlx_tcp_broken_total"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers and clients of other projects; `cargo xtask test programs` runs it"]
async fn tls_passes_through_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (key, cert) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let mut req = command("openssl");
    req.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    req.args([
        "-days",
        "2",
        "-subj",
        "/CN=app",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]);
    run(req.arg("-keyout").arg(&key).arg("-out").arg(&cert)).await;
    let server = |how: &'static str| {
        let (key, cert) = (key.clone(), cert.clone());
        Server {
            start: Box::new(move |at| {
                let mut server = command("openssl");
                server.args(["s_server", "-accept", &at.to_string(), "-quiet", how]);
                server.arg("-key").arg(&key).arg("-cert").arg(&cert);
                server
            }),
            ready: Box::new(accepts),
            end: Signal::TERM,
        }
    };
    // HTTP inside of TLS is none of the DLX's business.
    let real = Real::new(server("-www")).await;
    real.in_every_state(async |at| {
        let mut curl = command("curl");
        curl.args(["-sS", "--max-time", "30", "--cacert"]).arg(&cert);
        let page = run(curl.arg(format!("https://{at}/"))).await;
        assert!(page.contains("s_server"), "{page}");
    })
    .await;
    assert!(real.world.metric("dlx_tcp_connections_total") >= 2);
    // A client that verifies the pod's own certificate, and says something.
    let real = Real::new(server("-rev")).await;
    real.in_every_state(async |at| {
        let mut client = command("openssl");
        client.args([
            "s_client",
            "-connect",
            &at.to_string(),
            "-quiet",
            "-verify_return_error",
        ]);
        client.arg("-CAfile").arg(&cert);
        let mut child = client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"dormouse\n").await.unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        timeout(SOON, stdout.read_line(&mut line)).await.unwrap().unwrap();
        assert_eq!(line.trim(), "esuomrod");
        drop(stdin);
        child.kill().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers and clients of other projects; `cargo xtask test programs` runs it"]
async fn mqtt_is_served_awake_observed_and_asleep() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mosquitto.conf");
    let server = Server {
        start: Box::new(move |at| {
            let user = if geteuid().is_root() { "user root\n" } else { "" };
            let text = format!(
                "listener {} {}\nallow_anonymous true\npersistence false\n{user}",
                at.port(),
                at.ip()
            );
            std::fs::write(&file, text).unwrap();
            let mut server = command("mosquitto");
            server.arg("-c").arg(&file);
            server
        }),
        ready: Box::new(accepts),
        end: Signal::TERM,
    };
    let real = Real::new(server).await;
    real.in_every_state(async |at| {
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        let mut publish = command("mosquitto_pub");
        run(publish.args([
            "-h", &host, "-p", &port, "-t", "a/b", "-q", "1", "-r", "-m", "kept",
        ]))
        .await;
        let mut subscribe = command("mosquitto_sub");
        subscribe.args([
            "-h", &host, "-p", &port, "-t", "a/#", "-q", "1", "-C", "1", "-W", "20",
        ]);
        assert_eq!(run(&mut subscribe).await.trim(), "kept");
    })
    .await;
}

/// A mail server that speaks first and knows enough for one letter at a time.
async fn mail_server(listener: TcpListener, letters: Arc<Mutex<Vec<String>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let letters = Arc::clone(&letters);
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            stream.write_all(b"220 mail.example ESMTP\r\n").await?;
            let (mut line, mut letter, mut data) = (String::new(), String::new(), false);
            while {
                line.clear();
                stream.read_line(&mut line).await? > 0
            } {
                let answer = if data && line == ".\r\n" {
                    data = false;
                    letters.lock().await.push(std::mem::take(&mut letter));
                    "250 kept\r\n"
                } else if data {
                    letter.push_str(&line);
                    continue;
                } else if line.starts_with("DATA") {
                    data = true;
                    "354 go on\r\n"
                } else if line.starts_with("QUIT") {
                    stream.write_all(b"221 bye\r\n").await?;
                    break;
                } else {
                    "250 yes\r\n"
                };
                stream.write_all(answer.as_bytes()).await?;
            }
            Ok::<_, std::io::Error>(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers and clients of other projects; `cargo xtask test programs` runs it"]
async fn a_letter_is_delivered_where_the_server_speaks_first() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("letter");
    std::fs::write(&text, "Subject: hello\r\n\r\nIt sleeps.\r\n").unwrap();
    let letters = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pod = listener.local_addr().unwrap();
    let serving = tokio::spawn(mail_server(listener, Arc::clone(&letters)));
    let world = World::new().await;
    let workload = world.workload_with("app", asleep(), |spec| spec.protocol = AppProtocol::Unknown);
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let view = workload.view.clone();
    world.wakes.on("app", move |_| {
        view.send_replace(Arc::new(awake(&[pod])));
        async { Ok(()) }
    });
    let dlx = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for (at, wakes) in [(pod, 0), (dlx, 1), (dlx, 1)] {
        let mut curl = command("curl");
        curl.args([
            "-sS",
            "--max-time",
            "30",
            "--mail-from",
            "a@example.com",
            "--mail-rcpt",
            "b@example.com",
        ]);
        run(curl.arg("-T").arg(&text).arg(format!("smtp://{at}/me.example"))).await;
        assert_eq!(world.wakes.calls("app"), wakes);
    }
    // A dialogue by hand, of a client that waits to be spoken to.
    let mut client = TcpStream::connect(dlx).await.unwrap();
    let mut greeting = [0; 24];
    timeout(SOON, client.read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&greeting, b"220 mail.example ESMTP\r\n");
    client.write_all(b"EHLO a\r\nQUIT\r\n").await.unwrap();
    let mut rest = String::new();
    timeout(SOON, client.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "250 yes\r\n221 bye\r\n");
    let letters = letters.lock().await;
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| letter.contains("It sleeps.")));
    serving.abort();
}
