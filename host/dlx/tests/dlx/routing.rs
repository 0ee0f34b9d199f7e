//! Which workload answers, and what a client cannot choose.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dormouse_dlx::{DlxConfig, NameHeaders, Routes, Strategy};
use http::{Request, Response};

use crate::support::*;

fn by_name(strategy: Strategy) -> DlxConfig {
    let names = NameHeaders {
        name: "x-target".parse().unwrap(),
        path: Some("x-path".parse().unwrap()),
    };
    DlxConfig {
        names: Some(names),
        strategy,
        ..config()
    }
}

fn name(world: &World, workloads: &[(&str, &Workload)]) {
    let mut routes = Routes::default();
    for (name, workload) in workloads {
        routes.add_name("ns", name, Arc::clone(&workload.target));
    }
    world.routes.publish(routes);
}

async fn ask(world: &World, target: &str) -> Reply {
    let request = Request::get("/")
        .header("host", "a")
        .header("x-target", target)
        .body(nothing())
        .unwrap();
    h1(world.main, request).await
}

#[tokio::test]
async fn two_targets_of_which_one_cannot_be_woken_are_answered_by_strategy() {
    // v3io's DLX dies of this request.
    for (strategy, expected) in [(Strategy::Primary, 503), (Strategy::Canary, 200)] {
        let (world, pod) = (World::with(by_name(strategy)).await, Pod::named("slow").await);
        let (bad, slow) = (world.workload("bad", asleep()), world.workload("slow", asleep()));
        name(&world, &[("bad", &bad), ("slow", &slow)]);
        world.wakes.on("bad", |_| async { failed("it cannot") });
        world.wakes.on("slow", |_| async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            Ok(())
        });
        slow.show(dormouse_dlx::EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        });
        let reply = ask(&world, "bad,slow").await;
        assert_eq!(reply.status, expected, "{strategy:?}: {}", reply.body);
        eventually("both are woken", || async {
            world.wakes.calls("bad") == 1 && world.wakes.calls("slow") == 1
        })
        .await;
        assert_eq!(ask(&world, "slow").await.status, 200, "and the process lives on");
    }
}

#[tokio::test]
async fn the_other_of_two_targets_is_never_waited_for() {
    let (world, pod) = (
        World::with(by_name(Strategy::Primary)).await,
        Pod::named("one").await,
    );
    let (one, two) = (
        world.workload("one", awake(&[pod.address])),
        world.workload("two", asleep()),
    );
    name(&world, &[("one", &one), ("two", &two)]);
    world.wakes.on("two", |_| std::future::pending());
    for _ in 0..10 {
        assert_eq!(ask(&world, "one,two").await.body, "one");
    }
    assert_eq!(world.wakes.calls("two"), 1, "and its wakes do not pile up");
}

#[tokio::test]
async fn the_path_header_is_put_before_the_path() {
    let world = World::with(by_name(Strategy::Random)).await;
    let pod = Pod::start(|request| async move { Response::new(text(request.uri().to_string())) }).await;
    let workload = world.workload("app", awake(&[pod.address]));
    name(&world, &[("app", &workload)]);
    let request = Request::get("/b?q=1")
        .header("host", "a")
        .header("x-target", "ns/app")
        .header("x-path", "/a")
        .body(nothing())
        .unwrap();
    assert_eq!(h1(world.main, request).await.body, "/a/b?q=1");
}

#[tokio::test]
async fn wrong_names_are_400_and_unknown_ones_404() {
    let world = World::with(by_name(Strategy::Random)).await;
    assert_eq!(ask(&world, "a,b,c").await.status, 400);
    assert_eq!(ask(&world, "nobody").await.status, 404);
    assert_eq!(world.get().await.status, 404);
}

#[tokio::test]
async fn headers_that_steer_v3ios_dlx_choose_no_address() {
    let (world, victim) = (
        World::with(by_name(Strategy::Random)).await,
        Pod::named("victim").await,
    );
    let port = victim.address.port().to_string();
    let trio = |extra: Option<&'static str>| {
        let mut request = Request::get("/")
            .header("host", victim.address.to_string())
            .header("x-forwarded-host", "127.0.0.1")
            .header("x-forwarded-port", &port)
            .header("x-resource-name", "app")
            .header("x-original-uri", "/secret");
        if let Some(target) = extra {
            request = request.header("x-target", target);
        }
        request.body(nothing()).unwrap()
    };
    assert_eq!(
        h1(world.main, trio(None)).await.status,
        404,
        "nobody owns that host"
    );

    let pod = Pod::start(|request| async move {
        let shown: Vec<_> = ["x-forwarded-host", "x-forwarded-port", "x-resource-name"]
            .iter()
            .map(|name| request.headers()[*name].to_str().unwrap().to_owned())
            .collect();
        Response::new(text(format!("app {} {}", request.uri(), shown.join(" "))))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    name(&world, &[("app", &workload)]);
    let reply = h1(world.main, trio(Some("app"))).await;
    assert_eq!(
        reply.body,
        format!("app / 127.0.0.1 {port} app"),
        "they are data for the workload, no more"
    );
    let absolute = format!("http://{}/", victim.address);
    let request = Request::get(absolute)
        .header("x-target", "app")
        .header("host", "x")
        .body(nothing())
        .unwrap();
    let request = {
        let (mut head, body) = request.into_parts();
        for name in ["x-forwarded-host", "x-forwarded-port", "x-resource-name"] {
            head.headers.insert(name, "127.0.0.1".parse().unwrap());
        }
        Request::from_parts(head, body)
    };
    assert!(
        h1(world.main, request).await.body.starts_with("app / "),
        "nor does the request line"
    );
    assert_eq!(victim.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_that_comes_back_is_508() {
    let world = World::new().await;
    let workload = world.workload("app", awake(&[world.main]));
    world.route(&workload);
    let reply = world.get().await;
    // The reason is that of the second pass, which is a workload for the first one, so it does not go on.
    assert_eq!((reply.status, reply.reason()), (508, ""));
    assert_eq!(world.metric("dlx_rescues_total{reason=\"loop\"}"), 1);
}

#[tokio::test]
async fn a_route_that_changes_does_not_disturb_those_who_are_held() {
    let (world, pod) = (World::new().await, Pod::named("old").await);
    let workload = world.workload("old", asleep());
    world.route(&workload);
    let request = world.getting();
    world.until_held("old", 1).await;
    world.routes.publish(Routes::default());
    assert_eq!(world.get().await.status, 404);
    workload.awake(&[pod.address]);
    assert_eq!(request.await.unwrap().body, "old");
}
