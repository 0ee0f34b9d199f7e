//! The protocol carried out on a cluster: the embedded one, which speaks real HTTP and has real controllers.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise, its helpers too"
)]

mod lists;
mod lost;
mod owners;
mod permission;
mod phases;
mod sharing;
mod upgrade;

use std::time::Duration;

use dormouse_embedded::Fault;
use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::Step;
use dormouse_sleepers::{Cluster, ReconcileOutcome, Role, StepOutcome};
use dormouse_testing::traffic::request;
use dormouse_testing::{Dlx, PATIENCE, PORT, World, phase, run_controller, workload};

/// Reconciles the Sleeper, and executes one step at most.
async fn step(world: &World, by: &Cluster, role: Role) -> ReconcileOutcome {
    by.reconciler().reconcile(&world.key, role, 1).await.unwrap()
}

/// Steps, until the Sleeper is in this phase. `check` is asked after each.
async fn step_until(world: &World, by: &[&Cluster], role: Role, goal: Phase, check: impl Fn(&World)) {
    let begun = tokio::time::Instant::now();
    for turn in 0.. {
        assert!(begun.elapsed() < PATIENCE, "{goal:?} was not reached");
        let outcome = step(world, by[turn % by.len()], role).await;
        check(world);
        if let ReconcileOutcome::Waiting { .. } = outcome {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let now = world
            .api
            .get("sleepers.dormouse.dev", "shop", &world.key.object_name())
            .unwrap();
        if now["status"]["phase"] == format!("{goal:?}") {
            return;
        }
    }
}

fn somebody_is_behind_the_service(world: &World) {
    assert!(
        !world.behind_the_service().is_empty(),
        "nobody is behind the Service: {:#}",
        world.service()
    );
}

/// Somebody comes, and wakers carry it out in turn, up to this phase. At no moment is nobody behind the Service.
async fn somebody_comes(world: &World, by: &[&Cluster], goal: Phase) {
    world.request_wake("somebody came").await;
    step_until(world, by, Role::Waker, goal, somebody_is_behind_the_service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_goes_to_sleep_and_is_woken() {
    let world = World::new().await;
    let dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    let sleeper = world.until_asleep().await;
    assert_eq!(world.replicas(), 0);
    let service = world.service();
    assert_eq!(
        service["spec"]["selector"],
        serde_json::json!({"dormouse.dev/parked": "web.workloads"})
    );
    assert_eq!(
        service["metadata"]["annotations"]["dormouse.dev/parked-selector"],
        r#"{"app":"web"}"#
    );
    let slice = world.own_slice().unwrap();
    assert_eq!(
        slice["endpoints"][0]["addresses"],
        serde_json::json!([dlx.address.to_string()])
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Sleeper");
    let state = sleeper.status.clone().unwrap().state;
    assert_eq!(slice["ports"][0]["port"], u64::from(state.ports[0].dlx_port));
    assert_eq!(state.replicas[0].replicas, 2);

    world.request_wake("somebody came").await;
    let sleeper = world.until_awake().await;
    world.assert_restored();
    let state = sleeper.status.clone().unwrap().state;
    assert!(state.wake_completed.is_some() && state.replicas.is_empty() && state.epoch == 1);

    // On the Sleeper and on the Deployment.
    let told = world.api.wait_for("events", "shop", PATIENCE, |events| {
        let about = |kind: &str, reason: &str| {
            events
                .iter()
                .any(|e| e["involvedObject"]["kind"] == kind && e["reason"] == reason)
        };
        about("Deployment", "Asleep") && about("Deployment", "Woken") && about("Sleeper", "Woken")
    });
    told.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_process_goes_on_where_another_died_between_two_steps() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let other = world.another_process().await;
    let both = [&world.cluster, &other];
    for _ in 0..2 {
        world.request_sleep("idle").await;
        step_until(
            &world,
            &both,
            Role::Leader,
            Phase::Asleep,
            somebody_is_behind_the_service,
        )
        .await;
        while world.replicas() > 0 {
            step(&world, &other, Role::Leader).await;
        }
        somebody_comes(&world, &both, Phase::Awake).await;
        world.assert_restored();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_turns_round_a_sleep_at_every_step() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    // The further it gets, the more there is to undo.
    for steps in 0..14 {
        world.request_sleep("idle").await;
        let mut left = steps;
        while left > 0 {
            match step(&world, &world.cluster, Role::Leader).await {
                ReconcileOutcome::Acted { .. } => left -= 1,
                ReconcileOutcome::Waiting { until: None, .. } => break,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        somebody_comes(&world, &[&world.cluster], Phase::Awake).await;
        world.assert_restored();
        world.until_awake().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_wakers_make_one_write_from_zero() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let other = world.another_process().await;
    // So slow that both have decided to scale up before the first of them has.
    world.api.inject(Fault {
        verb: "update".into(),
        resource: "deployments.apps/scale".into(),
        latency_ms: 100,
        ..Fault::default()
    });
    for cycle in 1..=3 {
        let leader = run_controller(&world.cluster, Role::Leader);
        world.request_sleep("idle").await;
        world.until_asleep().await;
        drop(leader);
        let _wakers = (
            run_controller(&world.cluster, Role::Waker),
            run_controller(&other, Role::Waker),
        );
        let (one, two) = tokio::join!(
            world.cluster.desired().request_wake(&world.key, "one"),
            other.desired().request_wake(&world.key, "two"),
        );
        assert_eq!(
            (one.unwrap().epoch, two.unwrap().epoch),
            (cycle, cycle),
            "they agree on one wake"
        );
        world.until_awake().await;
        let ups = world
            .scale_writes()
            .into_iter()
            .filter(|replicas| *replicas > 0)
            .count();
        assert_eq!(i64::try_from(ups).unwrap(), cycle, "{:?}", world.scale_writes());
        world.assert_restored();
    }
    let requests = world.api.api_requests();
    let lost = requests
        .iter()
        .filter(|r| r.resource == "deployments.apps/scale" && r.status == 409)
        .count();
    assert!(lost > 0, "they never met, so this has shown nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_down_and_a_parking_that_come_after_a_wake_lose() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    world.request_sleep("idle").await;
    let name = world.key.object_name();
    let mut parking = None;
    let begun = tokio::time::Instant::now();
    // A leader that stalls for ever with these decisions in its hand:
    let mut down = loop {
        assert!(begun.elapsed() < PATIENCE);
        let seen = world.cluster.observer().observe("shop", &name).await.unwrap();
        let phase = seen.observation().state.phase;
        if phase == Phase::Diverting && world.own_slice().is_some() {
            parking = Some(seen);
        } else if phase == Phase::Asleep {
            break seen;
        }
        step(&world, &world.cluster, Role::Leader).await;
    };
    assert_eq!(world.replicas(), 2, "it was about to scale down");
    somebody_comes(&world, &[&world.cluster], Phase::Ready).await;
    let late = world
        .cluster
        .executor()
        .execute(&mut down, &Step::Scale(workload(), 0))
        .await
        .unwrap();
    assert_eq!((late, world.replicas()), (StepOutcome::Conflicted, 2));
    step_until(
        &world,
        &[&world.cluster],
        Role::Waker,
        Phase::Awake,
        somebody_is_behind_the_service,
    )
    .await;
    let late = world
        .cluster
        .executor()
        .execute(&mut parking.unwrap(), &Step::ParkSelector("web".into()))
        .await
        .unwrap();
    assert_eq!(late, StepOutcome::Conflicted);
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_that_is_retired_leaves_everything_as_it_was() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;
    world.cluster.declarations().retire(&world.key).await.unwrap();
    world
        .api
        .wait_for("sleepers.dormouse.dev", "shop", PATIENCE, |sleepers| {
            sleepers.is_empty()
        })
        .await
        .unwrap();
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_scale_up_is_told_and_the_wake_goes_on_when_it_is_allowed() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;
    world.api.inject(Fault {
        verb: "update".into(),
        resource: "deployments.apps/scale".into(),
        status: 403,
        message: "exceeded quota".into(),
        ..Fault::default()
    });
    let requested = world.request_wake("somebody came").await;
    let sleeper = world
        .until("failed", |s| {
            s.status
                .as_ref()
                .is_some_and(|s| s.state.current_wake_failure().is_some())
        })
        .await;
    let status = sleeper.status.clone().unwrap();
    let failure = status.state.wake_failure.unwrap();
    assert_eq!(failure.epoch, requested.epoch);
    assert!(failure.message.contains("exceeded quota"), "{}", failure.message);
    let condition = status.conditions.iter().find(|c| c.type_ == "Wakeable").unwrap();
    assert_eq!(condition.status, "False");
    world.api.clear_faults();
    world.request_wake("again").await;
    let sleeper = world.until_awake().await;
    let status = sleeper.status.clone().unwrap();
    assert_eq!(status.state.wake_failure, None);
    assert_eq!(
        status
            .conditions
            .iter()
            .find(|c| c.type_ == "Wakeable")
            .unwrap()
            .status,
        "True"
    );
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_a_sleeping_service_are_all_answered() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let waker = world.another_process().await;
    let _controllers = (
        run_controller(&world.cluster, Role::Leader),
        run_controller(&waker, Role::Waker),
    );
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    for _ in 0..3 {
        world.request_sleep("idle").await;
        world.until_asleep().await;
        let requests: Vec<_> = (0..30).map(|_| tokio::spawn(request(address))).collect();
        for answer in requests {
            assert_eq!(answer.await.unwrap().unwrap(), 200);
        }
        world.until_awake().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_it_goes_to_sleep_and_wakes() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _controller = run_controller(&world.cluster, Role::Leader);
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    let cluster = world.cluster.clone();
    let key = world.key.clone();
    // Whenever it is awake, somebody asks that it sleeps; every request that comes to the DLX wakes it.
    let cycles = tokio::spawn(async move {
        let mut sleeps = 0;
        while sleeps < 8 {
            if cluster
                .caches()
                .sleeper(&key)
                .is_some_and(|sleeper| phase(&sleeper) == Phase::Awake)
                && cluster
                    .desired()
                    .request_sleep(&key, "idle")
                    .await
                    .is_ok_and(|requested| requested.changed)
            {
                sleeps += 1;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answers = Vec::new();
    while !cycles.is_finished() {
        answers.push(tokio::spawn(request(address)));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = answers.len();
    let mut lost = Vec::new();
    for answer in answers {
        match answer.await.unwrap() {
            Ok(status) if status == 200 => {}
            other => lost.push(other),
        }
    }
    assert!(lost.is_empty(), "{} of {sent} were lost: {lost:?}", lost.len());
    // The last request may have found nobody.
    world.request_wake("the end").await;
    world.until_awake().await;
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_dlx_what_sleeps_is_woken() {
    let world = World::new().await;
    let dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;
    dlx.vanish(&world);
    let sleeper = world.until_awake().await;
    assert_eq!(sleeper.status.clone().unwrap().state.reason, "no DLX is ready");
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_leads_to_a_dlx_that_is_gone_is_repaired_without_a_leader() {
    let world = World::new().await;
    let first = Dlx::start(&world).await;
    {
        let _leader = run_controller(&world.cluster, Role::Leader);
        world.request_sleep("idle").await;
        world.until_asleep().await;
    }
    assert_eq!(world.behind_the_service(), [first.address.to_string()]);
    drop(first);
    let second = Dlx::start(&world).await;
    let waker = world.another_process().await;
    let _controller = run_controller(&waker, Role::Waker);
    let begun = tokio::time::Instant::now();
    world
        .until_behind_the_service(&[second.address.to_string()])
        .await;
    let sleeper = world.until_asleep().await;
    assert_eq!(
        phase(&sleeper),
        Phase::Asleep,
        "nothing else is done without a leader"
    );
    // The node's proxy follows a moment later.
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    while !matches!(request(address).await, Ok(status) if status == 200) {
        assert!(begun.elapsed() < PATIENCE, "nobody answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_one_that_leads_to_some_that_are_gone() {
    let world = World::new().await;
    let dlx = Dlx::start(&world).await;
    let second = dlx.another(&world).await;
    second.learn();
    let only = [dlx.address.to_string()];
    let both = [only[0].clone(), second.address.to_string()];
    {
        let _leader = run_controller(&world.cluster, Role::Leader);
        world.request_sleep("idle").await;
        world.until_asleep().await;
        dlx.list_with(&world, &[second.address]);
        world.until_behind_the_service(&both).await;
    }
    dlx.list_with(&world, &[]);
    let waker = world.another_process().await;
    let _controller = run_controller(&waker, Role::Waker);
    world.until_behind_the_service(&only).await;
    let sleeper = world.until_asleep().await;
    assert_eq!(phase(&sleeper), Phase::Asleep);

    // A replica that is missing is the leader's business.
    dlx.list_with(&world, &[second.address]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.behind_the_service(), only);
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.until_behind_the_service(&both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leads_to_a_dlx_that_does_not_know_the_sleeper() {
    let world = World::new().await;
    let dlx = Dlx::start(&world).await;
    let late = dlx.another(&world).await;
    dlx.list_with(&world, &[late.address]);
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until("diverting", |s| phase(s) == Phase::Diverting).await;
    let begun = tokio::time::Instant::now();
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    while begun.elapsed() < Duration::from_secs(1) {
        let behind = world.behind_the_service();
        assert!(!behind.contains(&late.address.to_string()), "{behind:?}");
        assert_eq!(request(address).await.unwrap(), 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    late.learn();
    // A request that the DLX answered has turned it round.
    world.until("awake", |s| phase(s) == Phase::Awake).await;
    world.request_sleep("idle").await;
    world.until_asleep().await;
    let mut both = [dlx.address, late.address];
    both.sort_unstable();
    world
        .until_behind_the_service(&both.map(|address| address.to_string()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_who_is_left_answers_it_wakes() {
    let world = World::new().await;
    let dlx = Dlx::start(&world).await;
    let deaf = dlx.another(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;

    // The only one that is ready does not know the Sleeper, and never will.
    deaf.list_with(&world, &[]);
    drop(dlx);
    let woken = world.until_awake().await;
    let reason = woken.status.clone().unwrap().state.reason;
    assert_eq!(reason, "no DLX answers for Service web");
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demand_at_the_last_moment_keeps_it_awake() {
    let world = World::new().await;
    let dlx = Dlx::start(&world).await;
    dlx.held.store(3, std::sync::atomic::Ordering::SeqCst);
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world
        .until("woken", |s| s.status.as_ref().is_some_and(|s| s.state.epoch == 1))
        .await;
    world.until_awake().await;
    assert_eq!(world.scale_writes(), Vec::<i64>::new(), "it was never scaled");
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_neither_lost_nor_done_twice() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    for skip in 0..12 {
        for after in [true, false] {
            world.api.inject(Fault {
                verb: "write".into(),
                namespace: "shop".into(),
                skip,
                times: 1,
                status: 500,
                after,
                ..Fault::default()
            });
        }
        // The request itself may be hit; it is asked again as the autoscaler would.
        while world
            .cluster
            .desired()
            .request_sleep(&world.key, "idle")
            .await
            .is_err()
        {}
        world.until_asleep().await;
        while world
            .cluster
            .desired()
            .request_wake(&world.key, "somebody came")
            .await
            .is_err()
        {}
        world.until_awake().await;
        world.api.clear_faults();
        world.assert_restored();
    }
}
