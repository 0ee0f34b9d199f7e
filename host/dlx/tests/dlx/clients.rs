//! Clients that leave, half-close, do not read or do not send.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dormouse_dlx::{DlxConfig, Limits};
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.main).await.unwrap()
}

/// Everything that the DLX sends until it closes.
async fn rest(mut client: TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(20), client.read_to_end(&mut rest))
        .await
        .expect("the connection ends");
    String::from_utf8_lossy(&rest).into_owned()
}

fn reset(client: TcpStream) {
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
}

/// Nobody is there, and nobody comes.
async fn asleep_for_ever(config: DlxConfig) -> (World, Workload) {
    let world = World::with(config).await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| std::future::pending());
    (world, workload)
}

#[tokio::test]
async fn f03_a_client_that_resets_is_gone_whatever_it_sent_behind_its_request() {
    let (world, _workload) = asleep_for_ever(config()).await;
    for behind in [&b""[..], b"\r\n", b"x", GET] {
        let mut client = connect(&world).await;
        client.write_all(&[GET, behind].concat()).await.unwrap();
        world.until_held("app", 1).await;
        reset(client);
        world.until_held("app", 0).await;
        eventually("the wake is dropped", || async {
            world.wakes.running.load(Ordering::SeqCst) == 0
        })
        .await;
    }
    eventually("no connection is left", || async {
        world.metric("dlx_connections") == 0
    })
    .await;
}

#[tokio::test]
async fn f03_a_client_that_gives_up_is_gone_whatever_it_sent_behind_its_request() {
    let (world, _workload) = asleep_for_ever(DlxConfig {
        half_closed_timeout: Duration::from_secs(600),
        ..config()
    })
    .await;
    let mut clients = Vec::new();
    for behind in [&b""[..], b"\r\n", b"x", GET] {
        let mut client = connect(&world).await;
        client.write_all(&[GET, behind].concat()).await.unwrap();
        clients.push(client);
    }
    world.until_held("app", 4).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    drop(clients);
    world.until_held("app", 0).await;
    assert_eq!(world.metric("dlx_clients_ended_total{reason=\"left\"}"), 4);
}

#[tokio::test]
async fn f03_a_crowd_of_ghosts_does_not_cost_an_honest_client_its_place() {
    let (world, workload) = asleep_for_ever(DlxConfig {
        half_closed_timeout: Duration::from_secs(600),
        limits: Limits {
            held_per_resource: 50,
            held: 60,
            ..Limits::default()
        },
        ..config()
    })
    .await;
    for _ in 0..4 {
        let ghosts = (0..50).map(|_| async {
            let mut client = connect(&world).await;
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n\r\n")
                .await
                .unwrap();
        });
        join_all(ghosts).await;
    }
    eventually("the queue is full of ghosts", || async {
        world.metric("dlx_half_closed_requests") == 50
    })
    .await;
    let honest: Vec<_> = (0..10).map(|_| world.getting()).collect();
    eventually("ten ghosts gave up their places", || async {
        world.metric("dlx_half_closed_requests") == 40 && world.demand_of("app").0 == 50
    })
    .await;
    let pod = Pod::named("here").await;
    world.wakes.on("app", |_| async { Ok(()) });
    workload.awake(&[pod.address]);
    for honest in honest {
        assert_eq!(honest.await.unwrap().status, 200);
    }
    eventually("nothing is left", || async {
        world.metric("dlx_held_requests") == 0 && world.metric("dlx_connections") == 0
    })
    .await;
    assert_eq!(world.metric("dlx_half_closed_requests"), 0);
}

#[tokio::test]
async fn f03_a_ghost_is_held_for_a_bounded_time() {
    let (world, _workload) = asleep_for_ever(DlxConfig {
        half_closed_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let mut client = connect(&world).await;
    client.write_all(GET).await.unwrap();
    client.shutdown().await.unwrap();
    let answer = rest(client).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("dormouse-reason: half-closed"), "{answer}");
    world.until_held("app", 0).await;
    assert_eq!(
        world.metric("dlx_clients_ended_total{reason=\"half-closed-timeout\"}"),
        1
    );
}

#[tokio::test]
async fn field_10_a_half_closed_client_gets_its_answer_asleep_and_awake() {
    let world = World::new().await;
    let pod = Pod::start(|request: Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await;
        Response::new(text(if body.is_ok() { "here" } else { "broken" }))
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| async { Ok(()) });
    let bodies = [
        GET.to_vec(),
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello".to_vec(),
        [
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30000\r\n\r\n".as_slice(),
            &[b'x'; 30_000],
        ]
        .concat(),
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
    ];
    for request in &bodies {
        workload.show(asleep());
        let mut client = connect(&world).await;
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        world.until_held("app", 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        workload.awake(&[pod.address]);
        let answer = rest(client).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"),
            "asleep: {answer}"
        );

        let mut client = connect(&world).await;
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = rest(client).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"),
            "awake: {answer}"
        );
    }
    eventually("no connection is left", || async {
        world.metric("dlx_connections") == 0
    })
    .await;
}

#[tokio::test]
async fn f10_a_ghost_that_was_forwarded_is_cancelled_after_a_time() {
    let world = World::with(DlxConfig {
        half_closed_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let pod = Pod::start(|_| std::future::pending::<Response<Payload>>()).await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = connect(&world).await;
    client.write_all(&[GET, b"\r\n"].concat()).await.unwrap();
    drop(client);
    eventually("it was in flight", || async {
        world.metric("dlx_clients_ended_total{reason=\"half-closed-timeout\"}") == 1
    })
    .await;
    assert_eq!(world.demand_of("app"), (0, 0, 0));
}

#[tokio::test]
async fn f10_a_half_closed_client_gets_a_slow_and_long_answer() {
    let world = World::new().await;
    let pod = Pod::start(|_| async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Response::new(text(vec![b'x'; 3 << 20]))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = connect(&world).await;
    client.write_all(GET).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(rest(client).await.len() > 3 << 20);
}

#[tokio::test]
async fn f05_a_client_that_does_not_read_is_ended_and_is_no_demand() {
    let world = World::with(DlxConfig {
        send_timeout: Duration::from_millis(500),
        ..config()
    })
    .await;
    let pod = Pod::start(|_| async { Response::new(text(vec![b'x'; 64 << 20])) }).await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = connect(&world).await;
    client.write_all(GET).await.unwrap();
    eventually("it is in flight", || async {
        world.demand_of("app") == (0, 1, 0)
    })
    .await;
    eventually("it is ended", || async {
        world.demand_of("app") == (0, 0, 0) && world.metric("dlx_connections") == 0
    })
    .await;
    drop(client);
}

#[tokio::test]
async fn f05_an_http2_stream_with_a_shut_window_is_ended_and_the_others_go_on() {
    let world = World::with(DlxConfig {
        send_timeout: Duration::from_millis(500),
        ..config()
    })
    .await;
    let pod = Pod::start(|request: Request<hyper::body::Incoming>| async move {
        let size = if request.uri().path() == "/long" {
            16 << 20
        } else {
            10
        };
        Response::new(text(vec![b'x'; size]))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let (mut sender, _connection) = h2_client(world.main).await;
    let request = |path: &str| Request::get(format!("http://a{path}")).body(nothing()).unwrap();
    let unread = sender.send_request(request("/long")).await.unwrap();
    eventually("it is in flight", || async {
        world.demand_of("app") == (0, 1, 0)
    })
    .await;
    eventually("it is ended", || async { world.demand_of("app") == (0, 0, 0) }).await;
    assert_eq!(
        world.metric("dlx_clients_ended_total{reason=\"send-timeout\"}"),
        1
    );
    let other = reply(sender.send_request(request("/")).await.unwrap()).await;
    assert_eq!(other.status, 200);
    assert!(
        unread.into_body().collect().await.is_err(),
        "its stream was reset"
    );
}

#[tokio::test]
async fn f05_a_client_that_does_not_send_its_body_gets_408() {
    let world = World::with(DlxConfig {
        body_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let pod = Pod::start(|request: Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await;
        Response::new(text(body.map_or(0, |body| body.to_bytes().len()).to_string()))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n";
    let mut never = connect(&world).await;
    never.write_all(head).await.unwrap();
    let mut slow = connect(&world).await;
    slow.write_all(head).await.unwrap();
    for _ in 0..10 {
        slow.write_all(&[b'x'; 10]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200", "it never paused for long");
    let answer = rest(never).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("dormouse-reason: slow-body"), "{answer}");
    eventually("it is no demand", || async {
        world.demand_of("app") == (0, 0, 0)
    })
    .await;
    assert_eq!(
        world.metric("dlx_clients_ended_total{reason=\"body-timeout\"}"),
        1
    );
}

#[tokio::test]
async fn f05_half_a_head_behind_a_request_has_the_time_of_a_head() {
    let world = World::with(DlxConfig {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(600),
        ..config()
    })
    .await;
    let pod = Pod::named("here").await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = connect(&world).await;
    client.write_all(&[GET, b"GET / HT"].concat()).await.unwrap();
    assert!(rest(client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn f04_when_places_are_short_idle_connections_give_theirs_up() {
    let world = World::with(DlxConfig {
        limits: Limits {
            connections: 8,
            ..Limits::default()
        },
        ..config()
    })
    .await;
    let pod = Pod::named("here").await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect(&world).await);
    }
    let reply = timeout(Duration::from_secs(8), world.get())
        .await
        .expect("it is served");
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn f04_one_address_has_its_share_of_connections_and_of_held_requests() {
    let (world, _workload) = asleep_for_ever(DlxConfig {
        limits: Limits {
            connections_per_client: Some(3),
            held_per_client: Some(2),
            ..Limits::default()
        },
        ..config()
    })
    .await;
    let held: Vec<_> = (0..2).map(|_| world.getting()).collect();
    world.until_held("app", 2).await;
    let reply = world.get().await;
    assert_eq!((reply.status, reply.reason()), (429, "queue-full"));
    eventually("the third has gone", || async {
        world.metric("dlx_connections") == 2
    })
    .await;
    let _third = connect(&world).await;
    eventually("the third is there", || async {
        world.metric("dlx_connections") == 3
    })
    .await;
    // The reset may come before `connect` returns.
    if let Ok(mut fourth) = TcpStream::connect(world.main).await {
        let mut nothing = [0];
        assert!(!matches!(fourth.read(&mut nothing).await, Ok(1..)), "no answer");
    }
    assert!(world.metric("dlx_clients_ended_total{reason=\"per-address\"}") >= 1);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn f16_idle_ports_hold_no_places() {
    let world = World::with(DlxConfig {
        limits: Limits {
            connections: 8,
            ..Limits::default()
        },
        ..config()
    })
    .await;
    let pod = Pod::named("here").await;
    let workload = world.workload("app", awake(&[pod.address]));
    let mut ports = Vec::new();
    for _ in 0..20 {
        ports.push((free_address().await.port(), &workload));
    }
    world.open_ports(&ports).await;
    for (port, _) in ports {
        let reply = get((std::net::Ipv4Addr::LOCALHOST, port).into(), "/").await;
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test]
async fn f04_connections_to_pods_are_bounded_and_who_finds_none_waits() {
    let world = World::with(DlxConfig {
        limits: Limits {
            // 64 are kept back: 10 for clients, 10 for pods.
            descriptors: Some(84),
            ..Limits::default()
        },
        ..config()
    })
    .await;
    let pod = Pod::start(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Response::new(
            Full::new(Bytes::from_static(b"here"))
                .map_err(|never| match never {})
                .boxed(),
        )
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let (sender, _connection) = h2_client(world.main).await;
    let requests = (0..15).map(|_| {
        let mut sender = sender.clone();
        async move {
            let request = Request::get("http://a/").body(nothing()).unwrap();
            reply(sender.send_request(request).await.unwrap()).await.status
        }
    });
    let answers = join_all(requests).await;
    let refused = answers.iter().filter(|status| **status == 429).count();
    assert!(
        answers.iter().all(|status| [200, 429].contains(status)),
        "{answers:?}"
    );
    assert!(refused < 5, "{answers:?}");
    assert!(pod.connections.load(Ordering::SeqCst) <= 10);
}
