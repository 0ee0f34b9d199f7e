//! Sleepers of objects of other kinds: found by their kind, and never in the way of their own object.

use dormouse_model::{Owner, OwnerKind};
use dormouse_sleepers::api::ScalingStatus;
use dormouse_sleepers::{Declared, SleeperKey, SleeperSpec, StatusUpdate};
use dormouse_testing::{World, eventually, workload};

fn owner(name: &str) -> Owner {
    Owner {
        kind: OwnerKind::MemHpa,
        name: name.to_owned(),
        uid: Some(format!("uid of {name}")),
    }
}

fn key(name: &str) -> SleeperKey {
    SleeperKey::new(owner(name), "shop", name)
}

/// A Sleeper of a MemHpa, whose number of replicas was decided.
async fn declare(world: &World, name: &str) {
    let key = key(name);
    let spec = SleeperSpec {
        owner: Some(owner(name)),
        resource: name.to_owned(),
        object: workload(),
        workloads: vec![workload()],
        ..SleeperSpec::default()
    };
    let declared = Declared {
        key: key.clone(),
        spec,
    };
    world.cluster.declarations().declare(&declared).await.unwrap();
    let update = StatusUpdate {
        scaling: Some(ScalingStatus {
            desired_replicas: Some(2),
            ..ScalingStatus::default()
        }),
        ..StatusUpdate::default()
    };
    world.cluster.status().record(&key, &update).await.unwrap();
    world
        .until_of(&key, "its number is decided", |sleeper| {
            let status = sleeper.status.as_ref();
            status.is_some_and(|status| status.scaling.is_some())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleepers_of_all_objects_of_a_kind_are_found_together() {
    let world = World::new().await;
    declare(&world, "one").await;
    declare(&world, "other").await;
    let of = |owner: &Owner| {
        let found = world.cluster.caches().sleepers_of(owner);
        let mut names: Vec<_> = found
            .iter()
            .map(|sleeper| sleeper.spec.resource.clone())
            .collect();
        names.sort();
        names
    };
    assert_eq!(of(&Owner::all_of(OwnerKind::MemHpa)), ["one", "other"]);
    assert_eq!(of(&owner("one")), ["one"]);
    assert_eq!(of(&Owner::plugin("workloads")), ["web"]);
    assert!(of(&Owner::all_of(OwnerKind::ScaledJob)).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_lost_its_sleeper_is_not_told_that_it_is_another() {
    let world = World::new().await;
    declare(&world, "one").await;
    let scalers = world.cluster.scalers();
    let caches = world.cluster.caches();
    eventually("HorizontalPodAutoscalers are known", || async {
        caches.autoscalers.synced()
    })
    .await;
    assert_eq!(scalers.other(&key("one"), false, &workload()), None);
    let other = scalers.other(&key("other"), false, &workload()).unwrap();
    assert!(other.contains("MemHpa one scales Deployment web too"), "{other}");
}
