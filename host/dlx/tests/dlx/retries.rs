//! Which requests are sent again: docs/retries.md.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dormouse_dlx::{AppProtocol, DlxConfig, EndpointsView};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::*;

/// A server that reads a request and drops it without a word, the first `shy` times; then it answers.
struct Shy {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Shy {
    async fn start(shy: usize, last_words: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if count.fetch_add(1, Ordering::SeqCst) < shy {
                        let _ = stream.write_all(last_words).await;
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                });
            }
        }));
        Self {
            address,
            asked,
            _serving: serving,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn request(method: &str) -> Request<Payload> {
    let request = Request::builder().method(method).uri("/").header("host", "a");
    request.header("content-length", "0").body(nothing()).unwrap()
}

#[tokio::test]
async fn field_11_a_pod_that_accepts_and_closes_at_first_is_asked_again_after_a_wake() {
    let (world, shy) = (World::new().await, Shy::start(12, b"").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let held = world.getting();
    world.until_held("app", 1).await;
    workload.awake(&[shy.address]);
    let reply = held.await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    assert_eq!(shy.asked(), 13);
    let retries = world.metric("dlx_request_retries_total{reason=\"closed-new\"}");
    assert_eq!(retries, 12);
}

#[tokio::test]
async fn field_11_who_comes_while_a_pod_starts_is_asked_again_too() {
    let (world, shy) = (World::new().await, Shy::start(8, b"").await);
    let view = EndpointsView {
        fresh: true,
        ..awake(&[shy.address])
    };
    let workload = world.workload("app", view);
    world.route(&workload);
    let all = futures::future::join_all((0..4).map(|_| world.get())).await;
    assert!(all.iter().all(|reply| reply.status == 200), "{all:?}");
}

#[tokio::test]
async fn field_11_a_server_that_closes_at_once_without_reading_is_waited_for() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if connection < 10 {
                continue;
            }
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        }
    }));
    let held = world.getting();
    world.until_held("app", 1).await;
    workload.awake(&[address]);
    assert_eq!(held.await.unwrap().status, 200);
}

#[tokio::test]
async fn f08_what_a_pod_that_has_served_drops_on_a_new_connection_is_sent_once() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"] {
        let (world, shy) = (World::new().await, Shy::start(usize::MAX, b"").await);
        let workload = world.workload("app", awake(&[shy.address]));
        world.route(&workload);
        let reply = h1(world.main, request(method)).await;
        assert_eq!((reply.status, reply.reason()), (502, "bad-answer"), "{method}");
        assert_eq!(shy.asked(), 1, "{method}");
    }
}

#[tokio::test]
async fn f08_a_young_pod_gets_what_may_not_be_repeated_once_and_put_and_delete_twice() {
    for (method, times) in [("POST", 1), ("PATCH", 1), ("PUT", 2), ("DELETE", 2)] {
        let (world, shy) = (World::new().await, Shy::start(usize::MAX, b"").await);
        let view = EndpointsView {
            fresh: true,
            ..awake(&[shy.address])
        };
        let workload = world.workload("app", view);
        world.route(&workload);
        assert_eq!(h1(world.main, request(method)).await.status, 502, "{method}");
        assert_eq!(shy.asked(), times, "{method}");
    }
}

#[tokio::test]
async fn f08_an_answer_that_has_begun_is_not_asked_for_again() {
    for words in [
        &b"H"[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        let (world, shy) = (World::new().await, Shy::start(1, words).await);
        let view = EndpointsView {
            fresh: true,
            ..awake(&[shy.address])
        };
        let workload = world.workload("app", view);
        world.route(&workload);
        assert_eq!(
            world.get().await.status,
            502,
            "{}",
            String::from_utf8_lossy(words)
        );
        assert_eq!(shy.asked(), 1);
    }
}

#[tokio::test]
async fn f08_all_tries_share_one_deadline() {
    let world = World::with(DlxConfig {
        readiness_timeout: Duration::from_millis(700),
        ..config()
    })
    .await;
    let shy = Shy::start(usize::MAX, b"").await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let began = std::time::Instant::now();
    let held = world.getting();
    world.until_held("app", 1).await;
    workload.awake(&[shy.address]);
    let reply = held.await.unwrap();
    assert_eq!((reply.status, reply.reason()), (502, "bad-answer"));
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "{:?}",
        began.elapsed()
    );
    // The last try may have been given up before it arrived.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = shy.asked();
    assert!((3..=40).contains(&asked), "again, with pauses: {asked} times");
    // It is no longer young: whoever comes now does not wait for it once more.
    assert_eq!(world.get().await.status, 502);
    assert_eq!(shy.asked(), asked + 1);
}

#[tokio::test]
async fn f08_one_that_is_sent_again_is_not_refused_for_those_who_came_later() {
    let mut config = config();
    config.limits.held_per_resource = 1;
    let (world, shy) = (World::with(config).await, Shy::start(1, b"").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let first = world.getting();
    world.until_held("app", 1).await;
    workload.awake(&[shy.address]);
    eventually("it was asked", || async { shy.asked() >= 1 }).await;
    workload.show(EndpointsView {
        epoch: 1,
        ..EndpointsView::default()
    });
    let second = world.getting();
    let outcome = futures::future::join(first, second);
    workload.awake(&[shy.address]);
    let (first, _) = outcome.await;
    assert_eq!(first.unwrap().status, 200);
}

/// An HTTP/2 server that refuses the first streams of each connection with an error, and then answers.
async fn refusing(
    refusals: usize,
    reason: h2::Reason,
) -> (SocketAddr, Arc<AtomicUsize>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let serving = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if count.fetch_add(1, Ordering::SeqCst) < refusals {
                        respond.send_reset(reason);
                        continue;
                    }
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            });
        }
    }));
    (address, asked, serving)
}

#[tokio::test]
async fn f08_what_an_http2_workload_has_not_looked_at_is_sent_once_more() {
    for (refusals, reason, method, status, times) in [
        (1, h2::Reason::REFUSED_STREAM, "POST", 200, 2),
        (2, h2::Reason::REFUSED_STREAM, "GET", 502, 2),
        (1, h2::Reason::INTERNAL_ERROR, "GET", 502, 1),
        (1, h2::Reason::CANCEL, "POST", 502, 1),
    ] {
        let world = World::new().await;
        let (address, asked, _serving) = refusing(refusals, reason).await;
        let workload = world.workload_with("app", awake(&[address]), |spec| spec.protocol = AppProtocol::H2c);
        world.route(&workload);
        let request = Request::builder()
            .method(method)
            .uri("http://a/")
            .body(nothing())
            .unwrap();
        let reply = crate::support::h2(world.main, request).await;
        assert_eq!(reply.status, status, "{reason:?} {method}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "{reason:?} {method}");
    }
}

/// A connection that is closed while a request is on its way to it.
#[tokio::test]
async fn f08_a_kept_connection_that_closes_costs_one_repetition_on_a_new_one() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let workload = world.workload("app", awake(&[listener.local_addr().unwrap()]));
    world.route(&workload);
    let dropped = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&dropped);
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = stream.write_all(answer).await;
                if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    }));
    // Several connections are kept: each of them would fail a repetition that used it.
    let all = futures::future::join_all((0..8).map(|_| world.get())).await;
    assert!(all.iter().all(|reply| reply.status == 200), "{all:?}");
    for _ in 0..4 {
        assert_eq!(world.get().await.status, 200);
    }
    assert!(dropped.load(Ordering::SeqCst) >= 1, "the case did happen");
}

/// A client's half of a test that must not leave a connection behind.
#[tokio::test]
async fn f08_a_client_that_leaves_between_two_tries_is_not_sent_again_for() {
    let (world, shy) = (World::new().await, Shy::start(usize::MAX, b"").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let mut client = TcpStream::connect(world.main).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    world.until_held("app", 1).await;
    workload.awake(&[shy.address]);
    eventually("it is tried", || async { shy.asked() >= 3 }).await;
    drop(client);
    eventually("it has gone", || async { world.demand_of("app") == (0, 0, 0) }).await;
    let asked = shy.asked();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(shy.asked() <= asked + 1, "{} after {asked}", shy.asked());
}
