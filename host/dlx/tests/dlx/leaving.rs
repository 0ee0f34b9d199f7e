//! A client that leaves takes everything with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_dlx::{DlxConfig, Limits};
use http::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::*;

/// These clients leave so soon that they could have closed their sending sides only; that is not waited out here.
fn impatient() -> DlxConfig {
    DlxConfig {
        half_closed_timeout: Duration::from_millis(200),
        ..config()
    }
}

async fn hang(world: &World) {
    world.wakes.on("app", |_| std::future::pending());
}

#[tokio::test]
async fn its_place_its_demand_and_the_wake() {
    let world = World::with(DlxConfig {
        limits: Limits {
            held_per_resource: 1,
            ..Limits::default()
        },
        ..impatient()
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    hang(&world).await;
    let request = world.getting();
    world.until_held("app", 1).await;
    assert_eq!(world.wakes.running.load(Ordering::SeqCst), 1);
    assert_eq!(world.get().await.status, 429);
    request.abort();
    world.until_held("app", 0).await;
    eventually("nobody waits: the wake is dropped", || async {
        world.wakes.running.load(Ordering::SeqCst) == 0
    })
    .await;
    let next = world.getting();
    world.until_held("app", 1).await;
    next.abort();
}

#[tokio::test]
async fn even_with_a_body_that_nobody_reads() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    hang(&world).await;
    let mut client = TcpStream::connect(world.main).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    world.until_held("app", 1).await;
    drop(client);
    world.until_held("app", 0).await;
}

#[tokio::test]
async fn but_not_the_wake_that_others_wait_for() {
    let (world, pod) = (World::with(impatient()).await, Pod::named("here").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let accept = Arc::new(tokio::sync::Notify::new());
    let accepted = Arc::clone(&accept);
    world.wakes.on("app", move |_| {
        let accepted = Arc::clone(&accepted);
        async move {
            accepted.notified().await;
            Ok(())
        }
    });
    let first = world.getting();
    world.until_held("app", 1).await;
    let second = world.getting();
    world.until_held("app", 2).await;
    first.abort();
    world.until_held("app", 1).await;
    accept.notify_one();
    workload.awake(&[pod.address]);
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(world.wakes.calls("app"), 1);
}

#[tokio::test]
async fn on_http2_as_well() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    hang(&world).await;
    let (mut sender, _connection) = h2_client(world.main).await;
    let request = Request::get("http://a/").body(nothing()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    world.until_held("app", 1).await;
    response.abort();
    world.until_held("app", 0).await;
}

#[tokio::test]
async fn and_the_request_that_the_workload_is_answering() {
    struct Guard(Arc<std::sync::atomic::AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (world, cancelled) = (
        World::with(impatient()).await,
        Arc::<std::sync::atomic::AtomicUsize>::default(),
    );
    let count = Arc::clone(&cancelled);
    let pod = Pod::start(move |_| {
        let guard = Guard(Arc::clone(&count));
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
            Response::new(nothing())
        }
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let request = world.getting();
    eventually("it is in flight", || async {
        world.demand_of("app") == (0, 1, 0)
    })
    .await;
    request.abort();
    eventually("it is cancelled upstream", || async {
        cancelled.load(Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(world.demand_of("app"), (0, 0, 0));
}

#[tokio::test]
async fn a_client_that_dawdles_over_its_head_is_cut_off() {
    let world = World::with(DlxConfig {
        header_timeout: Duration::from_millis(100),
        ..config()
    })
    .await;
    let mut silent = TcpStream::connect(world.main).await.unwrap();
    let mut slow = TcpStream::connect(world.main).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    for client in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(
            Duration::from_secs(5),
            tokio::io::AsyncReadExt::read_to_end(client, &mut rest),
        )
        .await
        .expect("the connection ends");
    }
    eventually("no connection is left", || async {
        world.metric("dlx_connections") == 0
    })
    .await;
}
