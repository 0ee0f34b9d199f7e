//! Trailers, h2c, gRPC, upgrades.

use bytes::Bytes;
use dormouse_dlx::AppProtocol;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

fn with_trailer(body: &'static str, name: &'static str) -> Payload {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, "0".parse().unwrap());
    let frames = [
        Frame::data(Bytes::from_static(body.as_bytes())),
        Frame::trailers(trailers),
    ];
    BodyExt::boxed(StreamBody::new(
        futures::stream::iter(frames).map(Ok::<_, hyper::Error>),
    ))
}

#[tokio::test]
async fn trailers_pass_from_http1_to_http1() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        let sent = request.into_body().collect().await.unwrap();
        assert_eq!(sent.trailers().unwrap()["x-sum"], "0");
        Response::builder()
            .header("trailer", "x-sum")
            .body(with_trailer("hello", "x-sum"))
            .unwrap()
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let request = Request::post("/")
        .header("host", "a")
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(with_trailer("hi", "x-sum"))
        .unwrap();
    let reply = h1(world.main, request).await;
    assert_eq!(reply.body, "hello");
    assert_eq!(reply.trailers.unwrap()["x-sum"], "0");
}

#[tokio::test]
async fn http2_comes_in_and_http1_goes_out_by_default() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        Response::new(text(format!("{:?} {} {host}", request.version(), request.uri())))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let reply = h2(
        world.main,
        Request::get("http://name.example/p?q").body(nothing()).unwrap(),
    )
    .await;
    assert_eq!(reply.body, "HTTP/1.1 /p?q name.example");
}

#[tokio::test]
async fn http2_goes_out_where_the_service_says_so() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        Response::new(text(format!("{:?} {}", request.version(), request.uri())))
    })
    .await;
    let workload = world.workload_with("app", awake(&[pod.address]), |spec| {
        spec.protocol = AppProtocol::H2c
    });
    world.route(&workload);
    let request = || Request::get("http://name.example/p").body(nothing()).unwrap();
    assert_eq!(
        h2(world.main, request()).await.body,
        "HTTP/2.0 http://name.example/p"
    );
    for _ in 0..10 {
        assert_eq!(h2(world.main, request()).await.status, 200);
    }
    assert_eq!(
        pod.connections.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "one connection for all"
    );
    assert!(get(world.main, "/").await.body.starts_with("HTTP/1.1"));
}

#[tokio::test]
async fn a_held_grpc_call_streams_both_ways_with_its_status_at_the_end() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        let said = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(said, "ping");
        Response::builder()
            .header("content-type", "application/grpc")
            .body(with_trailer("pong", "grpc-status"))
            .unwrap()
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let request = Request::post("http://a/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(text("ping"))
        .unwrap();
    let main = world.main;
    let call = tokio::spawn(async move { h2(main, request).await });
    world.until_held("app", 1).await;
    workload.awake(&[pod.address]);
    let reply = call.await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "pong"));
    assert_eq!(reply.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_grpc_call_that_cannot_be_served_gets_a_grpc_status() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| async { failed("no quota") });
    let request = Request::post("http://a/s/m")
        .header("content-type", "application/grpc")
        .body(text("x"))
        .unwrap();
    let reply = h2(world.main, request).await;
    assert_eq!(
        (reply.status, reply.headers["grpc-status"].to_str().unwrap()),
        (200, "14")
    );
    assert_eq!(
        reply.headers["grpc-message"],
        "the workload could not be woken: no quota"
    );
}

async fn echo_pod() -> Pod {
    Pod::start(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                io.write_all(&buffer[..count]).await.unwrap();
            }
        });
        Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(nothing())
            .unwrap()
    })
    .await
}

pub async fn open_websocket(address: std::net::SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
        "{head}"
    );
    client
}

#[tokio::test]
async fn an_upgraded_connection_is_passed_through_and_counted() {
    let (world, pod) = (World::new().await, echo_pod().await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = open_websocket(world.main).await;
    for word in [&b"hello"[..], b"again"] {
        client.write_all(word).await.unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, word);
    }
    assert_eq!(world.demand_of("app"), (0, 0, 1));
    assert_eq!(world.metric("dlx_upgraded_connections"), 1);
    drop(client);
    eventually("it is counted out", || async {
        world.demand_of("app") == (0, 0, 0)
    })
    .await;
    assert_eq!(world.metric("dlx_upgraded_connections"), 0);
}

#[tokio::test]
async fn an_upgrade_is_held_like_any_other_request() {
    let (world, pod) = (World::new().await, echo_pod().await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let main = world.main;
    let opening = tokio::spawn(async move { open_websocket(main).await });
    world.until_held("app", 1).await;
    workload.awake(&[pod.address]);
    let mut client = opening.await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn an_upgrade_that_the_workload_declines_is_a_response_like_any_other() {
    let (world, pod) = (World::new().await, Pod::named("no").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let request = Request::get("/")
        .header("host", "a")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(nothing())
        .unwrap();
    let reply = h1(world.main, request).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "no"));
}
