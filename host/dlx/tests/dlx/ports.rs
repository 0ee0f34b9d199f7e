//! DLX ports: opened, closed, probed, and left again.

use std::net::{Ipv4Addr, SocketAddr};

use dormouse_dlx::{EndpointsView, Routes};
use http::Request;
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

fn on(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn probe(uid: &str) -> Request<Payload> {
    Request::get("/.well-known/dormouse/probe")
        .header("host", "a")
        .header("dormouse-probe", uid)
        .body(nothing())
        .unwrap()
}

#[tokio::test]
async fn a_port_names_the_workload_whatever_the_host() {
    let world = World::new().await;
    let (one, two) = (Pod::named("one").await, Pod::named("two").await);
    let (a, b) = (
        world.workload("a", awake(&[one.address])),
        world.workload("b", awake(&[two.address])),
    );
    let (port_a, port_b) = (free_address().await.port(), free_address().await.port());
    world.open_ports(&[(port_a, &a), (port_b, &b)]).await;
    assert_eq!(get(on(port_a), "/").await.body, "one");
    assert_eq!(get(on(port_b), "/").await.body, "two");
    assert_eq!(world.metric("dlx_ports_open"), 2);
}

#[tokio::test]
async fn a_port_closes_when_its_route_goes() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    world.routes.publish(Routes::default());
    eventually("it refuses", || async {
        TcpStream::connect(on(port)).await.is_err()
    })
    .await;
    eventually("the metric knows", || async {
        world.metric("dlx_ports_open") == 0
    })
    .await;
    world.open_ports(&[(port, &workload)]).await;
    assert_eq!(get(on(port), "/").await.body, "here");
}

#[tokio::test]
async fn a_port_that_is_taken_is_opened_once_it_is_free() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut routes = Routes::default();
    routes.add_port(
        port,
        dormouse_dlx::PortRoute {
            target: std::sync::Arc::clone(&workload.target),
        },
    );
    world.routes.publish(routes);
    eventually("it is reported", || async {
        world.metric("dlx_ports_failed") == 1
    })
    .await;
    drop(taken);
    eventually("it opens", || async {
        TcpStream::connect(on(port)).await.is_ok()
    })
    .await;
    assert_eq!(get(on(port), "/").await.body, "here");
    assert_eq!(world.metric("dlx_ports_failed"), 0);
}

#[tokio::test]
async fn a_probe_is_answered_without_waking_anybody() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let reply = h1(on(port), probe("uid-app")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["dormouse-sleeper"], "uid-app");
    let reply = h1(on(port), probe("another")).await;
    assert_eq!(reply.status, 409);
    assert_eq!(reply.headers["dormouse-sleeper"], "uid-app");
    assert_eq!(world.wakes.calls("app"), 0);
    assert_eq!(world.demand_of("app"), (0, 0, 0));
}

#[tokio::test]
async fn clients_are_shown_out_once_the_service_leads_to_its_pods_again() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[pod.address]));
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let reply = get(on(port), "/").await;
    assert!(
        !reply.headers.contains_key("connection"),
        "while diverted, connections are kept"
    );
    let (mut h2, connection) = h2_client(on(port)).await;
    workload.show(EndpointsView {
        direct: true,
        ..awake(&[pod.address])
    });
    let reply_h1 = get(on(port), "/").await;
    assert_eq!(
        (reply_h1.status, reply_h1.headers["connection"].to_str().unwrap()),
        (200, "close")
    );
    let request = Request::get("http://a/").body(nothing()).unwrap();
    assert_eq!(reply_of(&mut h2, request).await, 200);
    connection.await.unwrap().unwrap();
}

async fn reply_of(client: &mut H2, request: Request<Payload>) -> u16 {
    reply(client.send_request(request).await.unwrap()).await.status
}
