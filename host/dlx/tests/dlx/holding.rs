//! Holding, waking, releasing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_dlx::{EndpointsView, FailedWake, Limits, ReleaseRamp};
use http::Response;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::support::*;

#[tokio::test]
async fn a_request_for_a_sleeping_workload_is_held_and_answered_when_it_is_awake() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| async { Ok(()) });
    let request = world.getting();
    world.until_held("app", 1).await;
    assert_eq!(world.metric("dlx_held_requests"), 1);
    workload.awake(&[pod.address]);
    let reply = request.await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "here"));
    assert_eq!(world.wakes.calls("app"), 1);
    eventually("nothing is left", || async {
        world.demand_of("app") == (0, 0, 0)
    })
    .await;
    assert_eq!(world.metric("dlx_held_requests"), 0);
    assert_eq!(world.metric("dlx_held_bytes"), 0);
}

#[tokio::test]
async fn an_accepted_wake_opens_the_gate_to_pods_that_are_still_there() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload(
        "app",
        EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        },
    );
    world.route(&workload);
    world.wakes.on("app", |_| async { Ok(()) });
    assert_eq!(world.get().await.status, 200);
    assert_eq!(world.wakes.calls("app"), 1);
}

#[tokio::test]
async fn nothing_reaches_a_diverted_pod_before_the_wake_is_accepted() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload(
        "app",
        EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        },
    );
    world.route(&workload);
    let accept = Arc::new(Notify::new());
    let accepted = Arc::clone(&accept);
    world.wakes.on("app", move |_| {
        let accepted = Arc::clone(&accepted);
        async move {
            accepted.notified().await;
            Ok(())
        }
    });
    let request = world.getting();
    eventually("the waker was asked", || async { world.wakes.calls("app") == 1 }).await;
    assert_eq!(pod.connections.load(Ordering::SeqCst), 0);
    accept.notify_one();
    assert_eq!(request.await.unwrap().status, 200);
}

#[tokio::test]
async fn one_wake_serves_200_concurrent_requests() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| async {
        sleep(Duration::from_millis(20)).await;
        Ok(())
    });
    let requests: Vec<_> = (0..200).map(|_| world.getting()).collect();
    world.until_held("app", 200).await;
    workload.awake(&[pod.address]);
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(world.wakes.calls("app"), 1);
}

#[tokio::test]
async fn a_burst_does_not_dial_all_at_once() {
    let world = World::with(dormouse_dlx::DlxConfig {
        release: ReleaseRamp {
            initial: 4,
            maximum: 64,
            pause: Duration::from_secs(5),
        },
        ..config()
    })
    .await;
    let pod = Pod::named("here").await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let requests: Vec<_> = (0..200).map(|_| world.getting()).collect();
    world.until_held("app", 200).await;
    workload.awake(&[pod.address]);
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    let dialled = pod.connections.load(Ordering::SeqCst);
    assert!(
        dialled < 100,
        "connections are used again: {dialled} for 200 requests"
    );
}

#[tokio::test]
async fn held_requests_are_released_in_order() {
    let world = World::with(dormouse_dlx::DlxConfig {
        release: ReleaseRamp {
            initial: 1,
            maximum: 1,
            pause: Duration::from_secs(5),
        },
        ..config()
    })
    .await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let pod = Pod::start(move |request| {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        async { Response::new(text("ok")) }
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let mut requests = Vec::new();
    for n in 0..20 {
        let main = world.main;
        requests.push(tokio::spawn(async move { get(main, &format!("/{n:02}")).await }));
        world.until_held("app", n + 1).await;
    }
    workload.awake(&[pod.address]);
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    let order = order.lock().unwrap();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(order.len(), 20);
}

/// Lets ten requests go to a pod that answers none before it has all ten. How long that took.
async fn release_ten_that_are_answered_together(release: ReleaseRamp) -> Duration {
    let world = World::with(dormouse_dlx::DlxConfig { release, ..config() }).await;
    let all_in = Arc::new(tokio::sync::Barrier::new(10));
    let pod = Pod::start(move |_| {
        let all_in = Arc::clone(&all_in);
        async move {
            all_in.wait().await;
            Response::new(text("ok"))
        }
    })
    .await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let requests: Vec<_> = (0..10).map(|_| world.getting()).collect();
    world.until_held("app", 10).await;
    let begun = Instant::now();
    workload.awake(&[pod.address]);
    for request in requests {
        assert_eq!(
            request.await.unwrap().status,
            200,
            "all ten were in the workload together"
        );
    }
    begun.elapsed()
}

#[tokio::test]
async fn slow_answers_do_not_hold_up_the_others() {
    release_ten_that_are_answered_together(ReleaseRamp {
        initial: 1,
        maximum: 1,
        pause: Duration::from_millis(1),
    })
    .await;
}

#[tokio::test]
async fn a_workload_that_does_not_answer_is_not_met_by_more_and_more() {
    let pause = Duration::from_millis(50);
    let took = release_ten_that_are_answered_together(ReleaseRamp {
        initial: 1,
        maximum: 64,
        pause,
    })
    .await;
    assert!(
        took >= pause * 9,
        "one went after each pause; had a pause counted as an answer, all would be through after four: {took:?}"
    );
}

#[tokio::test]
async fn a_failed_wake_is_503_with_its_cause_and_is_not_cached() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload(
        "app",
        EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        },
    );
    world.route(&workload);
    world.wakes.on("app", |call| async move {
        if call == 0 {
            failed("quota exceeded")
        } else {
            Ok(())
        }
    });
    let reply = world.get().await;
    assert_eq!((reply.status, reply.reason()), (503, "wake-failed"));
    assert_eq!(reply.body, "the workload could not be woken: quota exceeded\n");
    assert!(reply.headers.contains_key("retry-after"));
    let began = Instant::now();
    assert_eq!(world.get().await.status, 200, "the very next request tries again");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(world.wakes.calls("app"), 2);
}

#[tokio::test]
async fn a_wake_that_fails_for_now_is_tried_again_while_its_requests_are_held() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload(
        "app",
        EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        },
    );
    world.route(&workload);
    world.wakes.on("app", |call| async move {
        if call < 3 {
            Err(dormouse_dlx::WakeError::Transient(
                "the API server does not answer".into(),
            ))
        } else {
            Ok(())
        }
    });
    let requests: Vec<_> = (0..5).map(|_| world.getting()).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(world.wakes.calls("app"), 4);
}

#[tokio::test]
async fn a_failed_wake_fails_all_who_wait_for_it() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let fail = Arc::new(Notify::new());
    let wait = Arc::clone(&fail);
    world.wakes.on("app", move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            failed("no")
        }
    });
    let requests: Vec<_> = (0..5).map(|_| world.getting()).collect();
    world.until_held("app", 5).await;
    fail.notify_one();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 503);
    }
    assert_eq!(world.wakes.calls("app"), 1);
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_not_hammered() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| async { failed("no") });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        assert_eq!(world.get().await.status, 503);
    }
    let calls = world.wakes.calls("app");
    assert!(
        (2..=6).contains(&calls),
        "back-off, and yet it is asked again: {calls}"
    );
}

fn cause(cause: &str) -> FailedWake {
    FailedWake {
        cause: cause.into(),
        at: jiff::Timestamp::now(),
    }
}

#[tokio::test]
async fn a_failure_that_the_cluster_reports_reaches_those_who_wait() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", asleep());
    world.route(&workload);
    world.wakes.on("app", |_| async { Ok(()) });
    let request = world.getting();
    world.until_held("app", 1).await;
    let failure = EndpointsView {
        failure: Some(cause("no pod became ready within 3 s")),
        ..awake(&[])
    };
    workload.show(failure);
    let reply = request.await.unwrap();
    assert_eq!((reply.status, reply.reason()), (503, "wake-failed"));
    assert!(reply.body.contains("no pod became ready within 3 s"));
    let late = world.getting();
    eventually("the next one asks again", || async {
        world.wakes.calls("app") == 2
    })
    .await;
    assert_eq!(world.demand_of("app").0, 1, "and waits");
    workload.awake(&[pod.address]);
    assert_eq!(
        late.await.unwrap().status,
        200,
        "an old failure is not the next request's"
    );
}

#[tokio::test]
async fn a_workload_that_is_not_ready_in_time_is_504() {
    let world = World::new().await;
    let workload = world.workload_with("app", asleep(), |spec| {
        spec.readiness_timeout = Some(Duration::from_millis(50))
    });
    world.route(&workload);
    let reply = world.get().await;
    assert_eq!((reply.status, reply.reason()), (504, "not-ready"));
    assert_eq!(reply.body, "the workload was not ready within 0.05 s\n");
    assert_eq!(world.demand_of("app"), (0, 0, 0));
}

#[tokio::test]
async fn a_wake_that_hangs_does_not_hang_the_next_request() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload_with(
        "app",
        EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        },
        |spec| {
            spec.readiness_timeout = Some(Duration::from_secs(1));
        },
    );
    world.route(&workload);
    world.wakes.on("app", |call| async move {
        if call == 0 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    assert!(matches!(world.get().await.status, 503 | 504));
    assert_eq!(world.get().await.status, 200);
}

#[tokio::test]
async fn a_full_queue_is_429_for_its_resource_only() {
    let limits = Limits {
        held_per_resource: 2,
        held: 3,
        ..Limits::default()
    };
    let world = World::with(dormouse_dlx::DlxConfig { limits, ..config() }).await;
    let (one, two) = (world.workload("one", asleep()), world.workload("two", asleep()));
    let mut routes = dormouse_dlx::Routes::default();
    for (path, workload) in [("/one", &one), ("/two", &two)] {
        let at = dormouse_dlx::HostPath {
            host: String::new(),
            path: path.into(),
            kind: dormouse_dlx::PathMatch::Prefix,
        };
        routes.add_host(at, Arc::clone(&workload.target), None);
    }
    world.routes.publish(routes);
    let main = world.main;
    let held: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { get(main, "/one").await }))
        .collect();
    world.until_held("one", 2).await;
    let reply = get(main, "/one").await;
    assert_eq!((reply.status, reply.reason()), (429, "queue-full"));
    assert!(reply.headers.contains_key("retry-after"));
    let third = tokio::spawn(async move { get(main, "/two").await });
    world.until_held("two", 1).await;
    let reply = get(main, "/two").await;
    assert_eq!((reply.status, reply.reason()), (503, "overloaded"));
    let pod = Pod::named("here").await;
    one.awake(&[pod.address]);
    two.awake(&[pod.address]);
    for request in held.into_iter().chain([third]) {
        assert_eq!(request.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_for_a_while_is_tried_again() {
    let world = World::new().await;
    let address = free_address().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let request = world.getting();
    world.until_held("app", 1).await;
    workload.awake(&[address]);
    eventually("connecting was tried", || async {
        world.metric("dlx_connect_retries_total") >= 3
    })
    .await;
    let _pod = Pod::on(address, |_| async { Response::new(text("late")) }).await;
    assert_eq!(request.await.unwrap().body, "late");
}

#[tokio::test]
async fn an_endpoint_that_refuses_does_not_spoil_the_other() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload("app", awake(&[free_address().await, pod.address]));
    world.route(&workload);
    for _ in 0..20 {
        assert_eq!(world.get().await.status, 200);
    }
}

#[tokio::test]
async fn a_target_that_goes_away_frees_those_who_wait_for_it() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    let request = world.getting();
    world.until_held("app", 1).await;
    drop(workload.view);
    let reply = request.await.unwrap();
    assert_eq!((reply.status, reply.reason()), (503, "gone"));
}

#[tokio::test]
async fn a_workload_that_falls_asleep_again_is_woken_again() {
    let (world, pod) = (World::new().await, Pod::named("here").await);
    let workload = world.workload(
        "app",
        EndpointsView {
            ready: vec![pod.address],
            ..asleep()
        },
    );
    world.route(&workload);
    world.wakes.on("app", |_| async { Ok(()) });
    assert_eq!(world.get().await.status, 200);
    // No pause: an accepted wake must not stand in for one that a later sleep needs.
    workload.show(EndpointsView {
        ready: vec![pod.address],
        epoch: 1,
        ..asleep()
    });
    assert_eq!(world.get().await.status, 200);
    assert_eq!(world.wakes.calls("app"), 2);
}
