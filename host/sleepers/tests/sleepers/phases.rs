//! What is edited while a workload sleeps.

use std::time::Duration;

use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::{DesiredState, PortRange, Undivertible};
use dormouse_sleepers::{Config, Role};
use serde_json::{Value, json};

use crate::lost::patch;
use crate::{step, step_until};
use dormouse_testing::{Dlx, World, config, run_controller};

fn complaint(sleeper: &dormouse_sleepers::Sleeper) -> String {
    let status = sleeper.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.into_iter();
    let divertible =
        conditions.find(|condition| condition.type_ == "Divertible" && condition.status == "False");
    divertible.map(|condition| condition.message).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_2_a_port_for_which_no_dlx_port_is_left_wakes_and_says_so() {
    let one = PortRange {
        first: 20_000,
        last: 20_000,
    };
    let world = World::with(Config {
        ports: one,
        ..config()
    })
    .await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;
    let ports = json!([
        {"name": "http", "port": 8080, "targetPort": "http"},
        {"name": "more", "port": 8081, "targetPort": "http"},
    ]);
    patch(&world, "services", "web", json!({"spec": {"ports": ports}})).await;
    let sleeper = world.until_awake().await;
    assert!(
        complaint(&sleeper).contains("--dlx-ports"),
        "{:?}",
        sleeper.status
    );
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_16_a_family_that_the_dlx_has_not_wakes_and_says_so() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;
    patch(
        &world,
        "services",
        "web",
        json!({"spec": {"ipFamilies": ["IPv6"]}}),
    )
    .await;
    let sleeper = world.until_awake().await;
    assert!(
        complaint(&sleeper).contains(Undivertible::Family.explain()),
        "{:?}",
        sleeper.status
    );
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_16_a_parked_service_that_lost_its_selector_too_is_restored() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    {
        let _leader = run_controller(&world.cluster, Role::Leader);
        world.request_sleep("idle").await;
        world.until_asleep().await;
    }
    let both = json!({
        "metadata": {"annotations": {"dormouse.dev/parked-selector": null}},
        "spec": {"internalTrafficPolicy": "Local"},
    });
    patch(&world, "services", "web", both).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    let sleeper = world.until_awake().await;
    assert!(
        complaint(&sleeper).contains("internalTrafficPolicy"),
        "{:?}",
        sleeper.status
    );
    world.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_is_left_alone() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    let writes = || {
        let requests = world.api.api_requests();
        let reads = ["get", "list", "watch"];
        requests
            .iter()
            .filter(|request| request.namespace == "shop" && request.resource != "events")
            .filter(|request| !reads.contains(&request.verb.as_str()))
            .map(|request| format!("{} {} {}", request.verb, request.resource, request.status))
            .collect::<Vec<_>>()
    };
    world.request_sleep("idle").await;
    world.until_without_pods().await;
    // A request is listed a moment after what it did is seen.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = writes();
    assert!(!before.is_empty(), "nothing is counted");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(writes(), before, "asleep");
    world.request_wake("somebody").await;
    world.until_awake().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = writes();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(writes(), before, "awake");
}

/// Edits of a Service, of the workload, and of Dormouse's slice: kind, name and patch.
fn edits() -> Vec<(&'static str, &'static str, Value)> {
    let http = json!({"name": "http", "port": 8080, "targetPort": "http"});
    let ports = |more: Value| json!({"spec": {"ports": [http, more]}});
    vec![
        (
            "services",
            "web",
            ports(json!({"name": "more", "port": 8081, "targetPort": "http"})),
        ),
        (
            "services",
            "web",
            ports(json!({"name": "dns", "port": 53, "protocol": "UDP"})),
        ),
        (
            "services",
            "web",
            json!({"spec": {"ports": [{"name": "renamed", "port": 8080, "targetPort": "http"}]}}),
        ),
        (
            "services",
            "web",
            json!({"spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 8080}]}}),
        ),
        (
            "services",
            "web",
            json!({"spec": {"internalTrafficPolicy": "Local"}}),
        ),
        ("services", "web", json!({"spec": {"ipFamilies": ["IPv6"]}})),
        (
            "services",
            "web",
            json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}),
        ),
        (
            "services",
            "web",
            json!({"spec": {"sessionAffinity": "ClientIP", "publishNotReadyAddresses": true}}),
        ),
        (
            "services",
            "web",
            json!({"spec": {"selector": {"app": "web", "dormouse.dev/parked": null}}}),
        ),
        ("deployments", "web", json!({"spec": {"replicas": 0}})),
        ("deployments", "web", json!({"spec": {"replicas": 2}})),
        ("deployments", "web", json!({"spec": {"paused": true}})),
        ("deployments", "web", json!({"metadata": {"annotations": null}})),
    ]
}

/// As far as it comes on its way to a phase, one step after the other.
async fn bring_to(world: &World, goal: Phase) {
    world.request_sleep("idle").await;
    let wakes = matches!(goal, Phase::Waking | Phase::Ready);
    let first = if wakes { Phase::Asleep } else { goal };
    step_until(world, &[&world.cluster], Role::Leader, first, |_| {}).await;
    if wakes {
        // Down to zero first.
        for _ in 0..2 {
            step(world, &world.cluster, Role::Leader).await;
        }
        world.request_wake("a request").await;
        step(world, &world.cluster, Role::Leader).await;
        if goal == Phase::Ready {
            step_until(world, &[&world.cluster], Role::Leader, goal, |_| {}).await;
        }
    }
}

/// In each phase, each edit in a cluster of its own: whoever asks is answered, and it ends awake with nothing in the way.
async fn edited_while(phase: Phase) {
    for (plural, name, edit) in edits() {
        let world = World::new().await;
        let _dlx = Dlx::start(&world).await;
        bring_to(&world, phase).await;
        patch(&world, plural, name, edit.clone()).await;
        let _leader = run_controller(&world.cluster, Role::Leader);
        let restored = async {
            // The request to sleep may still be under way; then a request ends it.
            loop {
                world.until_answered().await;
                let sleeper = world.cluster.caches().sleeper(&world.key).unwrap();
                let unparked = world.service()["spec"]["selector"] == json!({"app": "web"});
                let awake = dormouse_testing::phase(&sleeper) == Phase::Awake;
                let state = sleeper.status.clone().unwrap_or_default().state;
                if awake && state.desired == DesiredState::Awake && unparked && world.own_slice().is_none() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(15), restored).await;
        assert!(
            ended.is_ok() && world.replicas() > 0,
            "{plural} {edit} while {phase:?}: {:#} {:#?}",
            world.service(),
            world.cluster.caches().sleeper(&world.key)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_edited_in_any_phase_ends_awake_and_answered() {
    let phases = [
        Phase::Diverting,
        Phase::Observing,
        Phase::Draining,
        Phase::Asleep,
        Phase::Waking,
        Phase::Ready,
    ];
    futures::future::join_all(phases.map(edited_while)).await;
}
