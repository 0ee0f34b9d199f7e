//! Protocols that are not HTTP, through a DLX port.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dormouse_dlx::{AppProtocol, DlxConfig, TcpLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::*;

const SOON: Duration = Duration::from_secs(20);

/// A DLX port with a workload behind it whose pod is this listener.
struct Behind {
    world: World,
    workload: Workload,
    pod: TcpListener,
    at: SocketAddr,
}

async fn behind(protocol: AppProtocol, sleeps: bool, change: impl FnOnce(&mut DlxConfig)) -> Behind {
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config();
    change(&mut config);
    let world = World::with(config).await;
    let view = if sleeps {
        asleep()
    } else {
        awake(&[pod.local_addr().unwrap()])
    };
    let workload = world.workload_with("app", view, |spec| spec.protocol = protocol);
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Behind {
        world,
        workload,
        pod,
        at,
    }
}

impl Behind {
    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    async fn accepted(&self) -> TcpStream {
        timeout(SOON, self.pod.accept())
            .await
            .expect("a pod is connected")
            .unwrap()
            .0
    }

    fn wake_up(&self) {
        self.workload.awake(&[self.pod.local_addr().unwrap()]);
    }

    fn rescues(&self, reason: &str) -> i64 {
        self.world
            .metric(&format!("dlx_rescues_total{{reason=\"{reason}\"}}"))
    }
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    timeout(SOON, stream.read_exact(&mut read))
        .await
        .expect("bytes come")
        .unwrap();
    assert_eq!(read, bytes, "{}", read.escape_ascii());
}

async fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(rest, b"", "{}", rest.escape_ascii());
}

async fn expect_reset(stream: &mut TcpStream) {
    let error = timeout(SOON, stream.read_u8())
        .await
        .expect("it is told")
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn f01_a_client_that_does_not_speak_http_reaches_its_pod_whatever_the_port_is_said_to_be() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for protocol in [
        AppProtocol::Unknown,
        AppProtocol::Http1,
        AppProtocol::H2c,
        AppProtocol::Tcp,
    ] {
        for sleeps in [false, true] {
            let behind = behind(protocol, sleeps, |_| {}).await;
            let mut client = behind.client().await;
            client.write_all(hello).await.unwrap();
            if sleeps {
                behind.world.until_held("app", 1).await;
                assert_eq!(
                    behind.world.wakes.calls("app"),
                    0,
                    "no script, so it is not counted"
                );
                behind.wake_up();
            }
            let mut pod = behind.accepted().await;
            expect(&mut pod, hello).await;
            pod.write_all(b"\x16\x03\x03").await.unwrap();
            expect(&mut client, b"\x16\x03\x03").await;
            assert_eq!(behind.world.demand_of("app"), (0, 0, 1));
            // Each direction ends by itself.
            client.shutdown().await.unwrap();
            expect_end(&mut pod).await;
            pod.write_all(b"still answering").await.unwrap();
            pod.shutdown().await.unwrap();
            expect(&mut client, b"still answering").await;
            expect_end(&mut client).await;
            eventually("it is forgotten", || async {
                behind.world.demand_of("app") == (0, 0, 0)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn first_bytes_may_come_one_at_a_time() {
    // Slow enough for each byte to be read by itself, and within the pause.
    let patient = |config: &mut DlxConfig| config.tcp.silence = SOON;
    let behind = behind(AppProtocol::Unknown, false, patient).await;
    for (bytes, http) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], true),
        (b"GET key\r\n", false),
        (b"SSH-2.0-x\r\n", false),
    ] {
        let mut client = behind.client().await;
        client.set_nodelay(true).unwrap();
        for byte in bytes {
            client.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut pod = behind.accepted().await;
        let mut read = vec![0; bytes.len()];
        timeout(SOON, pod.read_exact(&mut read)).await.unwrap().unwrap();
        // As HTTP it gets a field of the DLX's; otherwise it is what it was.
        assert_eq!(read != bytes, http, "{}", read.escape_ascii());
    }
}

#[tokio::test]
async fn http_is_http_on_a_port_of_which_nothing_is_said() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload_with("app", awake(&[pod.address]), |spec| {
        spec.protocol = AppProtocol::Unknown;
    });
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(get(at, "/").await.body, "here");
    let request = http::Request::get("http://a/").body(nothing()).unwrap();
    assert_eq!(h2(at, request).await.body, "here");
    assert_eq!(world.metric("dlx_tcp_connections_total"), 0);
}

#[tokio::test]
async fn a_request_line_that_http_libraries_refuse_reaches_the_pod_as_it_is() {
    let behind = behind(AppProtocol::Http1, false, |_| {}).await;
    let request = b"GET /s?q=<b>\xe9 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = behind.client().await;
    client.write_all(request).await.unwrap();
    let mut pod = behind.accepted().await;
    expect(&mut pod, request).await;
}

#[tokio::test]
async fn a_probe_of_a_tcp_port_is_answered_and_is_no_demand() {
    for sleeps in [false, true] {
        let behind = behind(AppProtocol::Tcp, sleeps, |_| {}).await;
        let probe = http::Request::get("/.well-known/dormouse/probe")
            .header("host", "a")
            .header("dormouse-probe", "uid-app")
            .body(nothing())
            .unwrap();
        let reply = h1(behind.at, probe).await;
        assert_eq!(
            (reply.status, reply.headers["dormouse-sleeper"].to_str().unwrap()),
            (200, "uid-app")
        );
        assert!(behind.world.dlx.demand().sleepers.is_empty());
    }
}

#[tokio::test]
async fn a_silent_client_is_connected_where_a_server_may_speak_first() {
    for protocol in [AppProtocol::Unknown, AppProtocol::Tcp] {
        for sleeps in [false, true] {
            let behind = behind(protocol, sleeps, |_| {}).await;
            let mut client = behind.client().await;
            if sleeps {
                behind.world.until_held("app", 1).await;
                behind.wake_up();
            }
            let mut pod = behind.accepted().await;
            pod.write_all(b"220 ready\r\n").await.unwrap();
            expect(&mut client, b"220 ready\r\n").await;
            client.write_all(b"EHLO a\r\n").await.unwrap();
            expect(&mut pod, b"EHLO a\r\n").await;
        }
    }
}

#[tokio::test]
async fn a_silent_client_of_an_http_port_wakes_nobody() {
    let behind = behind(AppProtocol::Http1, true, |config| {
        config.header_timeout = Duration::from_secs(1);
    })
    .await;
    let mut client = behind.client().await;
    expect_end(&mut client).await;
    assert!(behind.world.dlx.demand().sleepers.is_empty());
}

#[tokio::test]
async fn a_client_that_says_nothing_and_leaves_is_no_demand() {
    let behind = behind(AppProtocol::Unknown, true, |config| config.tcp.silence = SOON).await;
    drop(behind.client().await);
    eventually("it is gone", || async {
        behind.world.metric("dlx_connections") == 0
    })
    .await;
    assert!(behind.world.dlx.demand().sleepers.is_empty());
}

/// Ends it with a reset.
fn cut(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

#[tokio::test]
async fn a_held_client_that_leaves_gives_up_its_place() {
    let behind = behind(AppProtocol::Tcp, true, |_| {}).await;
    behind.world.wakes.on("app", |_| std::future::pending());
    let silent = behind.client().await;
    let reset = behind.client().await;
    let mut speaking = behind.client().await;
    speaking.write_all(b"PING\r\n").await.unwrap();
    let mut staying = behind.client().await;
    staying.write_all(b"PONG\r\n").await.unwrap();
    behind.world.until_held("app", 4).await;
    assert_eq!(behind.world.wakes.calls("app"), 1, "one wake for all");
    drop(silent);
    behind.world.until_held("app", 3).await;
    cut(reset);
    behind.world.until_held("app", 2).await;
    // Long after what it said: it was tired of waiting.
    tokio::time::sleep(Duration::from_millis(700)).await;
    drop(speaking);
    behind.world.until_held("app", 1).await;
    assert_eq!(behind.rescues("client-left"), 3);
    assert_eq!(behind.world.metric("dlx_clients_ended_total{reason=\"left\"}"), 3);
    behind.wake_up();
    let mut pod = behind.accepted().await;
    expect(&mut pod, b"PONG\r\n").await;
}

#[tokio::test]
async fn when_the_last_client_leaves_nobody_is_woken_for_it() {
    let behind = behind(AppProtocol::Tcp, true, |_| {}).await;
    behind.world.wakes.on("app", |_| std::future::pending());
    let client = behind.client().await;
    behind.world.until_held("app", 1).await;
    cut(client);
    eventually("nobody waits for the wake", || async {
        behind
            .world
            .wakes
            .running
            .load(std::sync::atomic::Ordering::SeqCst)
            == 0
    })
    .await;
    assert_eq!(behind.world.demand_of("app"), (0, 0, 0));
    assert_eq!(behind.world.metric("dlx_held_requests"), 0);
}

#[tokio::test]
async fn a_client_that_ends_its_direction_behind_what_it_says_gets_its_answer() {
    let behind = behind(AppProtocol::Tcp, true, |_| {}).await;
    let mut client = behind.client().await;
    client.write_all(b"PING\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    behind.world.until_held("app", 1).await;
    behind.wake_up();
    let mut pod = behind.accepted().await;
    expect(&mut pod, b"PING\r\n").await;
    expect_end(&mut pod).await;
    pod.write_all(b"+PONG\r\n").await.unwrap();
    drop(pod);
    expect(&mut client, b"+PONG\r\n").await;
    expect_end(&mut client).await;
}

#[tokio::test]
async fn ghosts_that_close_behind_what_they_said_are_held_for_a_bounded_time_and_replaced_first() {
    let behind = behind(AppProtocol::Tcp, true, |config| {
        config.half_closed_timeout = Duration::from_secs(3);
        config.limits.held_per_resource = 4;
    })
    .await;
    behind.world.wakes.on("app", |_| std::future::pending());
    for _ in 0..4 {
        let mut ghost = behind.client().await;
        ghost.write_all(b"boo").await.unwrap();
        ghost.shutdown().await.unwrap();
        // The socket stays, so no reset tells that nobody is there.
        std::mem::forget(ghost);
    }
    eventually("they may be gone", || async {
        behind.world.metric("dlx_half_closed_requests") == 4
    })
    .await;
    let mut honest = behind.client().await;
    honest.write_all(b"PING\r\n").await.unwrap();
    eventually("one of them was replaced", || async {
        behind
            .world
            .metric("dlx_clients_ended_total{reason=\"half-closed-replaced\"}")
            == 1
    })
    .await;
    behind.world.until_held("app", 1).await;
    assert_eq!(behind.rescues("half-closed"), 3);
    behind.wake_up();
    let mut pod = behind.accepted().await;
    expect(&mut pod, b"PING\r\n").await;
}

#[tokio::test]
async fn a_burst_before_there_is_a_pod_waits_in_the_socket_and_comes_in_order() {
    let behind = behind(AppProtocol::Tcp, true, |_| {}).await;
    let client = behind.client().await;
    let (mut from_pod, mut to_pod) = client.into_split();
    let sending = tokio::spawn(async move {
        let mut number = 0_u32;
        for _ in 0..2048 {
            let mut block = Vec::with_capacity(16 << 10);
            while block.len() < 16 << 10 {
                block.extend_from_slice(&number.to_be_bytes());
                number += 1;
            }
            to_pod.write_all(&block).await.unwrap();
        }
        to_pod.shutdown().await.unwrap();
        number
    });
    behind.world.until_held("app", 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sending.is_finished(), "who sends is stopped");
    let held = behind.world.metric("dlx_held_bytes");
    assert!(held <= 8 << 10, "{held} bytes are kept here");
    behind.wake_up();
    let mut pod = tokio::io::BufReader::new(behind.accepted().await);
    let count = timeout(SOON, async {
        let mut count = 0;
        while let Ok(number) = pod.read_u32().await {
            assert_eq!(number, count, "in order");
            count += 1;
        }
        count
    })
    .await
    .unwrap();
    assert_eq!(count, sending.await.unwrap());
    pod.write_all(b"all").await.unwrap();
    let mut answer = [0; 3];
    timeout(SOON, from_pod.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn who_does_not_read_stops_who_writes_and_nothing_grows() {
    for pod_writes in [false, true] {
        let behind = behind(AppProtocol::Tcp, false, |_| {}).await;
        let mut client = behind.client().await;
        client.write_all(b"!").await.unwrap();
        let mut pod = behind.accepted().await;
        expect(&mut pod, b"!").await;
        let (mut writer, mut reader) = if pod_writes { (pod, client) } else { (client, pod) };
        let (block, mut sent) = (vec![7; 256 << 10], 0);
        while let Ok(written) = timeout(Duration::from_secs(1), writer.write(&block)).await {
            sent += written.unwrap();
            assert!(sent < 64 << 20, "nobody reads, and it is taken nevertheless");
        }
        // The other direction is free.
        reader.write_all(b"still here").await.unwrap();
        expect(&mut writer, b"still here").await;
        drop(writer);
        let mut got = 0;
        let mut space = vec![0; 256 << 10];
        while let Ok(read @ 1..) = timeout(SOON, reader.read(&mut space)).await.unwrap() {
            got += read;
        }
        assert_eq!(got, sent, "all of it came, behind it the end");
    }
}

#[tokio::test]
async fn a_client_that_says_a_part_of_a_line_and_waits_is_connected_where_nothing_is_said_of_the_port() {
    for (protocol, connected) in [(AppProtocol::Unknown, true), (AppProtocol::Http1, false)] {
        let behind = behind(protocol, true, |config| {
            config.header_timeout = Duration::from_secs(1);
        })
        .await;
        let mut client = behind.client().await;
        client.write_all(b"G").await.unwrap();
        if connected {
            behind.world.until_held("app", 1).await;
            behind.wake_up();
            let mut pod = behind.accepted().await;
            client.write_all(b"ET key\r\n").await.unwrap();
            expect(&mut pod, b"GET key\r\n").await;
        } else {
            expect_end(&mut client).await;
            assert!(behind.world.dlx.demand().sleepers.is_empty());
        }
    }
}

#[tokio::test]
async fn a_proxy_protocol_line_before_http_reaches_the_pod_with_what_comes_behind_it() {
    for (protocol, before) in [
        (AppProtocol::Unknown, &b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"[..]),
        (
            AppProtocol::Http1,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02",
        ),
    ] {
        let behind = behind(protocol, false, |_| {}).await;
        let bytes = [before, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let mut client = behind.client().await;
        client.write_all(&bytes).await.unwrap();
        let mut pod = behind.accepted().await;
        expect(&mut pod, &bytes).await;
    }
}

#[tokio::test]
async fn one_address_holds_and_opens_as_many_as_it_may() {
    let behind = behind(AppProtocol::Tcp, true, |config| {
        config.limits.held_per_client = Some(2);
        config.limits.connections_per_client = Some(4);
    })
    .await;
    behind.world.wakes.on("app", |_| std::future::pending());
    // Those that only looked whether the port is open.
    eventually("nobody is there", || async {
        behind.world.metric("dlx_connections") == 0
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = behind.client().await;
        client.write_all(b"a").await.unwrap();
        held.push(client);
    }
    behind.world.until_held("app", 2).await;
    let mut third = behind.client().await;
    third.write_all(b"b").await.unwrap();
    expect_reset(&mut third).await;
    assert_eq!(behind.rescues("queue-full"), 1);
    assert_eq!(behind.world.metric("dlx_held_requests"), 2);
    held.into_iter().for_each(cut);
    behind.world.until_held("app", 0).await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken_to_the_pod_on_a_port_of_which_nothing_is_said() {
    let world = World::new().await;
    let pod = Pod::start(|request: http::Request<hyper::body::Incoming>| async move {
        http::Response::new(text(format!("{:?}", request.version())))
    })
    .await;
    let workload = world.workload_with("app", asleep(), |spec| {
        spec.protocol = AppProtocol::Unknown;
    });
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let asking = tokio::spawn(async move {
        let request = http::Request::get("http://a/").body(nothing()).unwrap();
        h2(at, request).await.body
    });
    world.until_held("app", 1).await;
    workload.awake(&[pod.address]);
    assert_eq!(asking.await.unwrap(), "HTTP/2.0");
    assert_eq!(get(at, "/").await.body, "HTTP/1.1");
}

#[tokio::test]
async fn a_wake_that_fails_or_takes_too_long_resets_its_clients() {
    let behind = behind(AppProtocol::Unknown, true, |config| {
        config.readiness_timeout = Duration::from_secs(1);
    })
    .await;
    behind.world.wakes.on("app", |call| async move {
        if call == 0 { failed("no quota") } else { Ok(()) }
    });
    let mut client = behind.client().await;
    client.write_all(b"PING\r\n").await.unwrap();
    expect_reset(&mut client).await;
    assert_eq!(behind.rescues("wake-failed"), 1);
    let mut client = behind.client().await;
    client.write_all(b"PING\r\n").await.unwrap();
    expect_reset(&mut client).await;
    assert_eq!(behind.rescues("not-ready"), 1);
    eventually("nothing is left", || async {
        behind.world.metric("dlx_connections") == 0
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_refuses_at_first_is_tried_until_it_accepts() {
    let behind = behind(AppProtocol::Tcp, true, |_| {}).await;
    let late = free_address().await;
    let mut client = behind.client().await;
    client.write_all(b"PING\r\n").await.unwrap();
    behind.world.until_held("app", 1).await;
    behind.workload.awake(&[late]);
    eventually("it is refused", || async {
        behind.world.metric("dlx_connect_retries_total") > 1
    })
    .await;
    let pod = TcpListener::bind(late).await.unwrap();
    let (mut pod, _) = timeout(SOON, pod.accept()).await.unwrap().unwrap();
    expect(&mut pod, b"PING\r\n").await;
}

#[tokio::test]
async fn a_full_queue_refuses_connections_as_it_refuses_requests() {
    let behind = behind(AppProtocol::Tcp, true, |config| {
        config.limits.held_per_resource = 1
    })
    .await;
    behind.world.wakes.on("app", |_| std::future::pending());
    let mut first = behind.client().await;
    first.write_all(b"a").await.unwrap();
    behind.world.until_held("app", 1).await;
    let mut second = behind.client().await;
    second.write_all(b"b").await.unwrap();
    expect_reset(&mut second).await;
    assert_eq!(behind.rescues("queue-full"), 1);
}

#[tokio::test]
async fn a_reset_passes_both_ways() {
    for from_pod in [true, false] {
        let behind = behind(AppProtocol::Tcp, false, |_| {}).await;
        let mut client = behind.client().await;
        client.write_all(b"hello").await.unwrap();
        let mut pod = behind.accepted().await;
        expect(&mut pod, b"hello").await;
        let (from, mut to) = if from_pod { (pod, client) } else { (client, pod) };
        cut(from);
        expect_reset(&mut to).await;
        eventually("it is counted", || async {
            behind.world.metric("dlx_tcp_broken_total") == 1
        })
        .await;
    }
}

#[tokio::test]
async fn an_idle_connection_stays_open_and_is_no_demand_until_bytes_move_again() {
    let tcp = TcpLimits {
        connection_idle: Duration::from_millis(300),
        ..TcpLimits::default()
    };
    let behind = behind(AppProtocol::Tcp, false, |config| config.tcp = tcp).await;
    let mut client = behind.client().await;
    client.write_all(b"PING\r\n").await.unwrap();
    let mut pod = behind.accepted().await;
    expect(&mut pod, b"PING\r\n").await;
    eventually("it is idle", || async {
        behind.world.demand_of("app") == (0, 0, 0)
    })
    .await;
    let report = behind.world.dlx.demand_of("ns", "app");
    assert_eq!(report.sleepers[0].idle, 1);
    assert!(
        report.sleepers[0].idle_millis.unwrap() >= 300,
        "since its last bytes"
    );
    pod.write_all(b"+PONG\r\n").await.unwrap();
    expect(&mut client, b"+PONG\r\n").await;
    // Asleep, its pod ends and closes it: the client hears of it, and its next connection wakes.
    behind.workload.show(asleep());
    drop(pod);
    expect_end(&mut client).await;
    let _next = behind.client().await;
    behind.world.until_held("app", 1).await;
}

#[tokio::test]
async fn a_target_may_say_itself_how_long_idle_connections_count() {
    let (world, pod) = (
        World::new().await,
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let workload = world.workload_with("app", awake(&[pod.local_addr().unwrap()]), |spec| {
        spec.protocol = AppProtocol::Tcp;
        spec.connection_idle = Some(Duration::ZERO);
    });
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (mut accepted, _) = timeout(SOON, pod.accept()).await.unwrap().unwrap();
    expect(&mut accepted, b"x").await;
    eventually("it is open and no demand", || async {
        world
            .dlx
            .demand_of("ns", "app")
            .sleepers
            .first()
            .is_some_and(|it| it.idle == 1 && it.upgraded == 0)
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_that_is_idle_is_no_demand_either() {
    let behind = behind(AppProtocol::Http1, false, |config| {
        config.tcp.connection_idle = Duration::from_millis(300);
    })
    .await;
    let mut client = behind.client().await;
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        .await
        .unwrap();
    let mut pod = behind.accepted().await;
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(timeout(SOON, pod.read_u8()).await.unwrap().unwrap());
    }
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    pod.write_all(switched).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(SOON, client.read_u8()).await.unwrap().unwrap());
    }
    eventually("it is idle", || async {
        behind.world.demand_of("app") == (0, 0, 0)
    })
    .await;
    client.write_all(b"ping").await.unwrap();
    expect(&mut pod, b"ping").await;
    assert_eq!(behind.world.demand_of("app"), (0, 0, 1), "open all the while");
}

#[tokio::test]
async fn a_crowd_of_silent_clients_causes_one_wake_and_each_gets_a_connection_of_its_own() {
    const CROWD: usize = 300;
    let behind = behind(AppProtocol::Unknown, true, |_| {}).await;
    behind.world.wakes.on("app", |_| async { Ok(()) });
    let mut clients = Vec::new();
    for _ in 0..CROWD {
        clients.push(behind.client().await);
    }
    behind.world.until_held("app", CROWD as u64).await;
    assert_eq!(behind.world.wakes.calls("app"), 1);
    behind.wake_up();
    let mut pods = Vec::new();
    for number in 0..CROWD {
        let mut pod = behind.accepted().await;
        pod.write_u32(u32::try_from(number).unwrap()).await.unwrap();
        pods.push(pod);
    }
    let mut numbers = Vec::new();
    for client in &mut clients {
        numbers.push(timeout(SOON, client.read_u32()).await.unwrap().unwrap());
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), CROWD);
    drop(clients);
    for pod in &mut pods {
        expect_end(pod).await;
    }
    drop(pods);
    eventually("nothing is left", || async {
        behind.world.demand_of("app") == (0, 0, 0) && behind.world.metric("dlx_connections") == 0
    })
    .await;
}

#[tokio::test]
async fn much_goes_both_ways_unchanged() {
    const SIZE: usize = 64 << 20;
    let behind = behind(AppProtocol::Tcp, false, |_| {}).await;
    let client = behind.client().await;
    let (mut from_client, mut to_pod) = client.into_split();
    to_pod.write_all(b"!").await.unwrap();
    let mut pod = behind.accepted().await;
    expect(&mut pod, b"!").await;
    let (mut from_pod, mut to_client) = pod.into_split();
    let send = |mut to: tokio::net::tcp::OwnedWriteHalf, seed: u32| async move {
        let (mut sum, mut state, mut sent) = (Sum::default(), seed, 0);
        let mut block = vec![0_u8; 50_021];
        while sent < SIZE {
            for byte in &mut block {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = state.to_be_bytes()[0];
            }
            let part = block.len().min(SIZE - sent);
            to.write_all(&block[..part]).await.unwrap();
            sum.add(&block[..part]);
            sent += part;
        }
        to.shutdown().await.unwrap();
        (sum, to)
    };
    async fn receive(from: &mut tokio::net::tcp::OwnedReadHalf) -> (Sum, usize) {
        let (mut sum, mut count, mut block) = (Sum::default(), 0, vec![0; 30_011]);
        loop {
            let read = from.read(&mut block).await.unwrap();
            if read == 0 {
                return (sum, count);
            }
            sum.add(&block[..read]);
            count += read;
        }
    }
    let _ = (&mut to_pod, &mut to_client);
    let (there, back, (got_there, there_len), (got_back, back_len)) =
        timeout(Duration::from_secs(120), async {
            tokio::join!(
                send(to_pod, 1),
                send(to_client, 2),
                receive(&mut from_pod),
                receive(&mut from_client)
            )
        })
        .await
        .expect("it comes to its end");
    assert_eq!((there_len, back_len), (SIZE, SIZE));
    assert_eq!((there.0, back.0), (got_there, got_back));
}

/// Fletcher's sum over 64 bits: changes with every byte and with their order.
#[derive(Default, Debug, PartialEq, Eq)]
struct Sum(u64, u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(u64::from(*byte)).wrapping_add(1);
            self.1 = self.1.wrapping_add(self.0);
        }
    }
}

#[tokio::test]
async fn a_drain_lets_connections_end_and_closes_what_is_left() {
    let behind = behind(AppProtocol::Tcp, false, |config| {
        config.drain_limit = Duration::from_millis(500)
    })
    .await;
    let mut client = behind.client().await;
    client.write_all(b"x").await.unwrap();
    let mut pod = behind.accepted().await;
    expect(&mut pod, b"x").await;
    behind.world.shutdown.cancel();
    pod.write_all(b"during the drain").await.unwrap();
    expect(&mut client, b"during the drain").await;
    expect_reset(&mut client).await;
}
