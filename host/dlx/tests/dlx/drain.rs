//! The end of a DLX: nobody is cut off who could be served.

use std::sync::Arc;
use std::time::Duration;

use dormouse_dlx::DlxConfig;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::protocols::open_websocket;
use crate::support::*;

#[tokio::test]
async fn held_and_in_flight_requests_are_finished() {
    let mut world = World::new().await;
    let go = Arc::new(Notify::new());
    let gone = Arc::clone(&go);
    let pod = Pod::start(move |request| {
        let gone = Arc::clone(&gone);
        async move {
            if request.uri().path() == "/slow" {
                gone.notified().await;
            }
            Response::new(text("done"))
        }
    })
    .await;
    let (slow, sleeping) = (
        world.workload("slow", awake(&[pod.address])),
        world.workload("sleeping", asleep()),
    );
    let mut routes = dormouse_dlx::Routes::default();
    for (path, workload) in [("/slow", &slow), ("/held", &sleeping)] {
        let at = dormouse_dlx::HostPath {
            host: String::new(),
            path: path.into(),
            kind: dormouse_dlx::PathMatch::Exact,
        };
        routes.add_host(at, Arc::clone(&workload.target), None);
    }
    world.routes.publish(routes);
    let main = world.main;
    let in_flight = tokio::spawn(async move { get(main, "/slow").await });
    let held = tokio::spawn(async move { get(main, "/held").await });
    world.until_held("sleeping", 1).await;
    eventually("it is in flight", || async {
        world.demand_of("slow") == (0, 1, 0)
    })
    .await;

    world.shutdown.cancel();
    eventually("nothing new is accepted", || async {
        TcpStream::connect(main).await.is_err()
    })
    .await;
    sleeping.awake(&[pod.address]);
    let reply = held.await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "done"));
    assert_eq!(reply.headers["connection"], "close");
    go.notify_one();
    assert_eq!(in_flight.await.unwrap().status, 200);
    timeout(Duration::from_secs(5), &mut world.serving)
        .await
        .expect("it ends when everybody has gone")
        .unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_end() {
    let (mut world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let stream = TcpStream::connect(world.main).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Payload>(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
    assert_eq!(
        reply(sender.send_request(request).await.unwrap()).await.status,
        200
    );
    let _silent = TcpStream::connect(world.main).await.unwrap();
    let (_h2, _connection) = h2_client(world.main).await;
    world.shutdown.cancel();
    timeout(Duration::from_secs(5), &mut world.serving)
        .await
        .expect("it ends at once")
        .unwrap();
}

#[tokio::test]
async fn who_still_waits_at_the_limit_is_told_to_come_again() {
    let mut world = World::with(DlxConfig {
        drain_limit: Duration::from_millis(200),
        ..config()
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let held = world.getting();
    world.until_held("app", 1).await;
    let began = Instant::now();
    world.shutdown.cancel();
    let reply = held.await.unwrap();
    assert_eq!((reply.status, reply.reason()), (503, "draining"));
    assert!(reply.headers.contains_key("retry-after"));
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "not before the limit"
    );
    timeout(Duration::from_secs(5), &mut world.serving)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn upgraded_connections_are_closed_last() {
    let mut world = World::with(DlxConfig {
        drain_limit: Duration::from_millis(300),
        ..config()
    })
    .await;
    let pod = Pod::start(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut byte = [0];
            while io.read_exact(&mut byte).await.is_ok() {
                let _ = io.write_all(&byte).await;
            }
        });
        let switch = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        switch.body(nothing()).unwrap()
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let mut client = open_websocket(world.main).await;
    world.shutdown.cancel();
    eventually("nothing new is accepted", || async {
        TcpStream::connect(world.main).await.is_err()
    })
    .await;
    client.write_all(b"!").await.unwrap();
    assert_eq!(
        client.read_u8().await.unwrap(),
        b'!',
        "it still works while draining"
    );
    timeout(Duration::from_secs(5), &mut world.serving)
        .await
        .unwrap()
        .unwrap();
    assert!(client.read_u8().await.is_err(), "and is closed at the end");
}

#[tokio::test]
async fn requests_are_not_lost_when_a_dlx_goes_under_load() {
    let (mut world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let main = world.main;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    // Refused: the DLX has gone, which clients of a Service are not shown.
                    let Ok(stream) = TcpStream::connect(main).await else {
                        return answered;
                    };
                    let shaken =
                        hyper::client::conn::http1::handshake::<_, Payload>(TokioIo::new(stream)).await;
                    let (mut sender, connection) = shaken.unwrap();
                    let connection = tokio::spawn(connection);
                    while sender.ready().await.is_ok() {
                        let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
                        match sender.try_send_request(request).await {
                            Ok(response) => {
                                let close = response.headers().contains_key("connection");
                                assert_eq!(reply(response).await.status, 200);
                                answered += 1;
                                if close {
                                    break;
                                }
                            }
                            // Closed while idle, before anything was written: any client repeats this.
                            Err(mut error) => {
                                assert!(
                                    answered > 0 || error.take_message().is_some(),
                                    "{}",
                                    error.into_error()
                                );
                                break;
                            }
                        }
                    }
                    drop(sender);
                    let _ = connection.await;
                }
            })
        })
        .collect();
    eventually("traffic flows", || async {
        world.metric("dlx_responses_total{class=\"2xx\"}") > 500
    })
    .await;
    world.shutdown.cancel();
    timeout(Duration::from_secs(10), &mut world.serving)
        .await
        .unwrap()
        .unwrap();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}
