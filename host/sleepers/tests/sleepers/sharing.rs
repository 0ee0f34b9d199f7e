//! Two Sleepers over one workload, and workloads of others behind a Service.

use std::time::Duration;

use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{DesiredStateError, Role, Sleeper, api::condition};

use dormouse_testing::traffic::request;
use dormouse_testing::{Dlx, PORT, World, phase, run_controller};

const CANARY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-canary, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: web, track: canary}}
  template:
    metadata: {labels: {app: web, track: canary}}
    spec:
      containers: [{name: web, image: none, ports: [{name: http, containerPort: 8080}]}]
";

fn writes(world: &World) -> usize {
    let requests = world.api.api_requests();
    let writes = |verb: &str| matches!(verb, "create" | "update" | "patch" | "delete");
    requests
        .iter()
        .filter(|request| writes(&request.verb) && !request.resource.contains("lease"))
        .count()
}

fn asleep(sleeper: &Sleeper) -> bool {
    let state = sleeper.status.clone().unwrap_or_default().state;
    state.phase == Phase::Asleep && state.zero_observed
}

fn undivertible(sleeper: &Sleeper, part: &str) -> bool {
    let conditions = sleeper.status.clone().unwrap_or_default().conditions;
    conditions.iter().any(|condition| {
        condition.type_ == condition::DIVERTIBLE
            && condition.status == "False"
            && condition.message.contains(part)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn author_01_two_plugins_on_one_workload_never_fight_and_the_other_takes_over() {
    let world = World::new().await;
    let younger = world.declare("younger").await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    world.until_of(&younger, "known", |_| true).await;
    for _ in 0..3 {
        world.request_sleep("idle").await;
        world.until_asleep().await;
        let refused = world.cluster.desired().request_sleep(&younger, "idle").await;
        assert!(
            matches!(&refused, Err(DesiredStateError::Unsupported(why)) if why.contains("web.workloads")),
            "{refused:?}"
        );
        // One that saw neither of the two being asked comes past the door. It goes no further.
        let desired = serde_json::json!({"status": {"wish": "Asleep"}});
        let sleepers = kube::Api::<Sleeper>::namespaced(world.cluster.client().clone(), "shop");
        let (params, patch) = (
            kube::api::PatchParams::default(),
            kube::api::Patch::Merge(&desired),
        );
        sleepers
            .patch_status(&younger.object_name(), &params, &patch)
            .await
            .unwrap();
        let loser = world
            .until_of(&younger, "left awake", |s| undivertible(s, "web.workloads"))
            .await;
        world
            .until_of(&younger, "awake", |s| {
                s.status
                    .as_ref()
                    .is_some_and(|s| s.state.desired == DesiredState::Awake)
            })
            .await;
        assert_eq!(phase(&loser), Phase::Awake);
        // Nobody pulls at anything.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = writes(&world);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(writes(&world) - before < 3, "{} writes", writes(&world) - before);
        for _ in 0..3 {
            assert_eq!(request(address).await, Ok(http::StatusCode::OK));
        }
        world.until_awake().await;
    }
    // The owner goes while it is asleep, and nobody edits anything.
    world.request_sleep("idle").await;
    world.until_asleep().await;
    world.cluster.declarations().retire(&world.key).await.unwrap();
    let begun = tokio::time::Instant::now();
    while world
        .cluster
        .desired()
        .request_sleep(&younger, "idle")
        .await
        .is_err()
    {
        assert!(
            begun.elapsed() < dormouse_testing::PATIENCE,
            "it does not take over"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let heir = world.until_of(&younger, "asleep", asleep).await;
    assert!(!undivertible(&heir, ""), "it says no more that it cannot");
    assert_eq!(request(address).await, Ok(http::StatusCode::OK));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_beside_a_sleeper_keeps_its_requests() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    world.request_sleep("idle").await;
    world.until_asleep().await;

    world.api.apply_yaml(CANARY).unwrap();
    world
        .until("woken, with the cause", |s| {
            undivertible(s, "Deployment web-canary")
        })
        .await;
    world.until_awake().await;
    let begun = tokio::time::Instant::now();
    loop {
        let refused = world.cluster.desired().request_sleep(&world.key, "idle").await;
        if matches!(&refused, Err(DesiredStateError::Unsupported(why)) if why.contains("Deployment web-canary"))
        {
            break;
        }
        assert!(begun.elapsed() < dormouse_testing::PATIENCE, "{refused:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        assert_eq!(request(address).await, Ok(http::StatusCode::OK));
    }
    world.until_restored().await;
}
