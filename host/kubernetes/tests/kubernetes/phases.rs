//! What is edited while a workload sleeps.

use std::time::Duration;

use dormouse_kubernetes::lifecycle::{PortRange, Undivertible};
use dormouse_kubernetes::{Config, Role};
use serde_json::json;

use crate::fixture::{Dlx, World, config, drive};
use crate::lost::patch;

fn complaint(sleeper: &dormouse_kubernetes::Sleeper) -> String {
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
    let _leader = drive(&world.cluster, Role::Leader);
    world.cluster.wish_sleep(&world.key, "idle").await.unwrap();
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
    let _leader = drive(&world.cluster, Role::Leader);
    world.cluster.wish_sleep(&world.key, "idle").await.unwrap();
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
        let _leader = drive(&world.cluster, Role::Leader);
        world.cluster.wish_sleep(&world.key, "idle").await.unwrap();
        world.until_asleep().await;
    }
    let both = json!({
        "metadata": {"annotations": {"dormouse.dev/parked-selector": null}},
        "spec": {"internalTrafficPolicy": "Local"},
    });
    patch(&world, "services", "web", both).await;
    let _leader = drive(&world.cluster, Role::Leader);
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
    let _leader = drive(&world.cluster, Role::Leader);
    let writes = || {
        let requests = world.api.api_requests();
        let reads = ["get", "list", "watch"];
        requests
            .iter()
            .filter(|request| request.namespace == "shop" && request.resource != "events")
            .filter(|request| !reads.contains(&request.verb.as_str()))
            .count()
    };
    world.cluster.wish_sleep(&world.key, "idle").await.unwrap();
    world.until_without_pods().await;
    let before = writes();
    assert!(before > 0, "nothing is counted");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(writes(), before, "asleep");
    world.cluster.wish_wake(&world.key, "somebody").await.unwrap();
    world.until_awake().await;
    let before = writes();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(writes(), before, "awake");
}
