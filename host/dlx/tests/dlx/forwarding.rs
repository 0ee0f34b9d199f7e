//! Bodies, headers, retries, and workloads that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dormouse_dlx::DlxConfig;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

const CHUNK: usize = 64 << 10;
/// Ten megabytes.
const CHUNKS: usize = 160;
/// More than all the kernel buffers on the way hold together.
const MANY: usize = 1000;

fn body_of(chunks: usize, taken: &Arc<AtomicUsize>) -> Payload {
    let taken = Arc::clone(taken);
    let chunks = futures::stream::iter(0..chunks).map(move |_| {
        taken.fetch_add(1, Ordering::SeqCst);
        Ok::<_, hyper::Error>(Frame::data(Bytes::from(vec![b'x'; CHUNK])))
    });
    BodyExt::boxed(StreamBody::new(chunks))
}

#[tokio::test]
async fn ten_megabytes_stream_both_ways() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move { Response::new(request.into_body().boxed()) }).await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let request = Request::post("/")
        .header("host", "a")
        .body(body_of(CHUNKS, &Arc::default()))
        .unwrap();
    let reply = h1(world.main, request).await;
    assert_eq!(reply.body.len(), CHUNK * CHUNKS);
    assert_eq!(
        world.metric("dlx_body_bytes_total{direction=\"in\"}"),
        (CHUNK * CHUNKS) as i64
    );
    assert_eq!(
        world.metric("dlx_body_bytes_total{direction=\"out\"}"),
        (CHUNK * CHUNKS) as i64
    );
}

#[tokio::test]
async fn a_body_waits_in_the_socket_while_its_request_is_held() {
    let world = World::new().await;
    let taken = Arc::<AtomicUsize>::default();
    let pod = Pod::start(|request| async move {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::new(text(length.to_string()))
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let (main, body) = (world.main, body_of(MANY, &taken));
    let request = Request::post("/").header("host", "a").body(body).unwrap();
    let sending = tokio::spawn(async move { h1(main, request).await });
    world.until_held("app", 1).await;
    let mut before = usize::MAX;
    eventually("the client is stuck", || {
        let now = taken.load(Ordering::SeqCst);
        let stuck = std::mem::replace(&mut before, now) == now && now > 0;
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stuck
        }
    })
    .await;
    let stuck_at = taken.load(Ordering::SeqCst);
    assert!(
        stuck_at < MANY,
        "the kernel's buffers hold less than all of it: {stuck_at}"
    );
    assert_eq!(world.metric("dlx_body_bytes_total{direction=\"in\"}"), 0);
    workload.awake(&[pod.address]);
    assert_eq!(sending.await.unwrap().body, (CHUNK * MANY).to_string());
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_workload() {
    let world = World::new().await;
    let taken = Arc::<AtomicUsize>::default();
    let produced = Arc::clone(&taken);
    let pod = Pod::start(move |_| {
        let body = body_of(MANY, &produced);
        async move { Response::new(body) }
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut client = socket.connect(world.main).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut before = usize::MAX;
    eventually("the workload is stuck", || {
        let now = taken.load(Ordering::SeqCst);
        let stuck = std::mem::replace(&mut before, now) == now && now > 0;
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stuck
        }
    })
    .await;
    assert!(taken.load(Ordering::SeqCst) < MANY);
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert!(all.len() > CHUNK * MANY);
}

#[tokio::test]
async fn a_client_is_told_to_continue_only_when_somebody_is_there() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        assert!(!request.headers().contains_key("expect"), "answered at once");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(text(body))
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let mut client = TcpStream::connect(world.main).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    world.until_held("app", 1).await;
    let mut buffer = [0; 25];
    let early = tokio::time::timeout(Duration::from_millis(100), client.read(&mut buffer)).await;
    assert!(early.is_err(), "silence while it is held");
    workload.awake(&[pod.address]);
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hi").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("hi"),
        "{rest}"
    );
}

/// A workload that says `answer` to whatever arrives, and closes.
async fn rude(answer: &'static [u8]) -> (std::net::SocketAddr, tokio_util::task::AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer).await;
        }
    });
    (address, tokio_util::task::AbortOnDropHandle::new(serving))
}

#[tokio::test]
async fn a_workload_that_answers_badly_is_502() {
    let world = World::new().await;
    for answer in [
        &b""[..],
        b"HELLO\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        let (address, _serving) = rude(answer).await;
        let workload = world.workload("app", awake(&[address]));
        world.route(&workload);
        let reply = world.get().await;
        assert_eq!(
            (reply.status, reply.reason()),
            (502, "bad-answer"),
            "{}",
            String::from_utf8_lossy(answer)
        );
        assert!(!reply.body.contains("127."), "no addresses: {}", reply.body);
    }
}

#[tokio::test]
async fn a_workload_that_does_not_answer_is_504() {
    let world = World::with(DlxConfig {
        response_timeout: Some(Duration::from_millis(50)),
        ..config()
    })
    .await;
    let pod = Pod::start(|_| std::future::pending()).await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let reply = world.get().await;
    assert_eq!((reply.status, reply.reason()), (504, "no-answer"));
}

#[tokio::test]
async fn a_pooled_connection_that_the_workload_has_just_closed_costs_no_request() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let workload = world.workload("app", awake(&[listener.local_addr().unwrap()]));
    world.route(&workload);
    // Each connection answers once, reads the head of a second request, and closes without a word.
    let closes = Arc::<AtomicUsize>::default();
    let closed = Arc::clone(&closes);
    let _serving = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let closed = Arc::clone(&closed);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                let _ = stream.read(&mut buffer).await;
                closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    }));
    for _ in 0..10 {
        assert_eq!(world.get().await.status, 200);
    }
    assert!(closes.load(Ordering::SeqCst) >= 5, "the case did happen");
    let post = || {
        Request::post("/")
            .header("host", "a")
            .header("content-length", "0")
            .body(nothing())
            .unwrap()
    };
    let statuses = [
        h1(world.main, post()).await.status,
        h1(world.main, post()).await.status,
    ];
    assert!(
        statuses.contains(&502),
        "a POST may have been carried out, so it is not repeated: {statuses:?}"
    );
}

#[tokio::test]
async fn connections_are_used_again() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    for _ in 0..50 {
        assert_eq!(world.get().await.status, 200);
    }
    assert!(
        pod.connections.load(Ordering::SeqCst) <= 3,
        "{}",
        pod.connections.load(Ordering::SeqCst)
    );
}

#[tokio::test]
async fn a_connection_from_before_a_wake_is_not_used_after_it() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    assert_eq!(world.get().await.status, 200);
    let before = pod.connections.load(Ordering::SeqCst);
    workload.show(dormouse_dlx::EndpointsView {
        epoch: 2,
        ..awake(&[pod.address])
    });
    assert_eq!(world.get().await.status, 200);
    assert_eq!(pod.connections.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn two_lengths_do_not_smuggle_a_request() {
    let world = World::new().await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let pod = Pod::start(move |request| {
        let log = Arc::clone(&log);
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let lengths = (
                request.headers().contains_key("content-length"),
                request.headers().contains_key("transfer-encoding"),
            );
            let body = request.into_body().collect().await.unwrap().to_bytes();
            log.lock().unwrap().push((line, lengths, body));
            Response::new(text("ok"))
        }
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let smuggler = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut client = TcpStream::connect(world.main).await.unwrap();
    client.write_all(smuggler.as_bytes()).await.unwrap();
    let mut all = String::new();
    let _ = client.read_to_string(&mut all).await;
    for (line, (length, chunked), body) in seen.lock().unwrap().iter() {
        assert!(!(*length && *chunked), "{line}: one length at most");
        assert!(
            !body.windows(3).any(|window| window == b"GET"),
            "{line}: {body:?}"
        );
    }
    for wrong in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(world.main).await.unwrap();
        client.write_all(wrong.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 400", "{wrong}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = TcpStream::connect(world.main).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let _ = client.write_all(head.as_bytes()).await;
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move { Response::new(request.into_body().boxed()) }).await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = TcpStream::connect(world.main).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert!(all.contains("hi"), "{all}");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let stream = TcpStream::connect(world.main).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Payload>(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..20 {
        sender.ready().await.unwrap();
        let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
        assert_eq!(
            reply(sender.send_request(request).await.unwrap()).await.body,
            "here"
        );
    }
    assert_eq!(world.metric("dlx_responses_total{class=\"2xx\"}"), 20);
}
