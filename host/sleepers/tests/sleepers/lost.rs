//! What Dormouse wrote and reads back is taken away, edited or replaced by garbage.

use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{Role, Sleeper, api};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{step, step_until};
use dormouse_testing::traffic::request;
use dormouse_testing::{Dlx, PORT, World, phase, run_controller};

pub async fn patch(world: &World, plural: &str, name: &str, patch: Value) {
    use kube::api::{DynamicObject, Patch, PatchParams};
    let (group, version, kind) = match plural {
        "services" => ("", "v1", "Service"),
        "endpointslices" => ("discovery.k8s.io", "v1", "EndpointSlice"),
        "deployments" => ("apps", "v1", "Deployment"),
        _ => ("dormouse.dev", "v1alpha1", "Sleeper"),
    };
    let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
    let resource = kube::core::ApiResource::from_gvk(&gvk);
    let client = world.cluster.client().clone();
    let api = kube::Api::<DynamicObject>::namespaced_with(client, "shop", &resource);
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

fn epoch(sleeper: &Sleeper) -> i64 {
    sleeper.status.clone().unwrap_or_default().state.epoch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_1_a_new_sleeper_goes_on_where_one_that_was_removed_by_force_was() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    for _ in 0..2 {
        world.request_sleep("idle").await;
        let before = epoch(&*world.until_asleep().await);
        let uid = world
            .cluster
            .caches()
            .sleeper(&world.key)
            .unwrap()
            .metadata
            .uid
            .clone();
        world.remove_by_force().await;
        world.declare("workloads").await;
        let anew = |s: &Sleeper| s.metadata.uid != uid && epoch(s) > before && phase(s) == Phase::Asleep;
        let sleeper = world.until("asleep again", anew).await;
        let state = sleeper.status.clone().unwrap().state;
        assert_eq!(state.replicas[0].replicas, 2, "as the workload itself tells");
        world.until_answered().await;
        world.until_awake().await;
        world.until_restored().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_1_in_no_phase_is_a_service_left_to_nobody() {
    for goal in [
        Phase::Diverting,
        Phase::Observing,
        Phase::Draining,
        Phase::Asleep,
        Phase::Waking,
    ] {
        let world = World::new().await;
        let _dlx = Dlx::start(&world).await;
        world.request_sleep("idle").await;
        let first = if goal == Phase::Waking {
            Phase::Asleep
        } else {
            goal
        };
        step_until(&world, &[&world.cluster], Role::Leader, first, |_| {}).await;
        if goal == Phase::Waking {
            for _ in 0..2 {
                step(&world, &world.cluster, Role::Leader).await;
            }
            world.request_wake("a request").await;
            step(&world, &world.cluster, Role::Leader).await;
        }
        world.remove_by_force().await;
        world.declare("workloads").await;
        let _leader = run_controller(&world.cluster, Role::Leader);
        world.until_answered().await;
        world.until_awake().await;
        world.until_restored().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_1_what_nobody_declares_anew_is_restored_all_the_same() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_asleep().await;
    world.remove_by_force().await;
    world.until_restored().await;
    world.until_answered().await;
    let deployment = world.api.get("deployments.apps", "shop", "web").unwrap();
    assert!(deployment["metadata"]["annotations"][api::ASLEEP].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_1_a_status_that_was_wiped_is_derived_again() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.request_sleep("idle").await;
    world.until_without_pods().await;
    let name = world.key.object_name();
    let sleepers = kube::Api::<Sleeper>::namespaced(world.cluster.client().clone(), "shop");
    let mut wiped = sleepers.get(&name).await.unwrap();
    wiped.status = Some(Default::default());
    sleepers
        .replace_status(&name, &Default::default(), &wiped)
        .await
        .unwrap();
    world
        .until("asleep again", |s| epoch(s) > 0 && phase(s) == Phase::Asleep)
        .await;
    world.until_answered().await;
    world.until_awake().await;
    world.until_restored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_18_a_parked_annotation_that_is_lost_is_written_again_and_a_request_wakes() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    let address = world.api.service_address("shop", "web", PORT).unwrap();
    for garbage in [Value::Null, json!("odd"), json!("{}"), json!("[]")] {
        world.request_sleep("idle").await;
        world.until_asleep().await;
        let annotations = json!({"metadata": {"annotations": {api::PARKED_SELECTOR: garbage}}});
        patch(&world, "services", "web", annotations.clone()).await;
        let kept = world
            .api
            .wait_for("services", "shop", crate::PATIENCE, |services| {
                services
                    .iter()
                    .any(|s| s["metadata"]["annotations"][api::PARKED_SELECTOR] == r#"{"app":"web"}"#)
            });
        kept.await.unwrap();
        // Even at the very moment of a request.
        patch(&world, "services", "web", annotations).await;
        assert_eq!(request(address).await, Ok(StatusCode::OK), "{garbage}");
        world.until_awake().await;
        world.until_restored().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_18_without_any_copy_the_workload_tells_which_pods() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    world.request_sleep("idle").await;
    step_until(&world, &[&world.cluster], Role::Leader, Phase::Observing, |_| {}).await;
    let name = world.key.object_name();
    let sleepers = kube::Api::<Sleeper>::namespaced(world.cluster.client().clone(), "shop");
    let mut edited = sleepers.get(&name).await.unwrap();
    edited.status.as_mut().unwrap().state.selectors.clear();
    sleepers
        .replace_status(&name, &Default::default(), &edited)
        .await
        .unwrap();
    patch(
        &world,
        "services",
        "web",
        json!({"metadata": {"annotations": {api::PARKED_SELECTOR: null}}}),
    )
    .await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    world.until_asleep().await;
    world.until_answered().await;
    world.until_awake().await;
    world.until_restored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_is_edited_while_it_sleeps_a_request_wakes_it() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let _leader = run_controller(&world.cluster, Role::Leader);
    let sleeper = world.key.object_name();
    let edits = [
        (
            "services",
            "web",
            json!({"metadata": {"annotations": {api::FENCE: "odd", api::PARKED_WORKLOADS: null}, "labels": {api::FENCE_LABEL: "odd"}}}),
        ),
        (
            "endpointslices",
            "web-dormouse",
            json!({"metadata": {"annotations": {api::GENERATION: "odd"}}}),
        ),
        (
            "endpointslices",
            "web-dormouse",
            json!({"endpoints": [], "ports": []}),
        ),
        (
            "endpointslices",
            "web-dormouse",
            json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": null}}}),
        ),
        (
            "endpointslices",
            "web-dormouse",
            json!({"metadata": {"labels": {"kubernetes.io/service-name": null}}}),
        ),
        (
            "deployments",
            "web",
            json!({"metadata": {"annotations": {api::ASLEEP: "odd", api::FENCE: "odd"}}}),
        ),
        (
            "deployments",
            "web",
            json!({"metadata": {"annotations": {api::ASLEEP: null, api::FENCE: null}}}),
        ),
        (
            "sleepers",
            sleeper.as_str(),
            json!({"metadata": {"finalizers": null}}),
        ),
    ];
    for (plural, name, edit) in edits {
        world.request_sleep("idle").await;
        world.until_asleep().await;
        patch(&world, plural, name, edit.clone()).await;
        world.until_answered().await;
        world
            .until("awake", |s| {
                let state = s.status.clone().unwrap_or_default().state;
                (state.phase, state.desired) == (Phase::Awake, DesiredState::Awake)
            })
            .await;
        world.until_restored().await;
    }
}
