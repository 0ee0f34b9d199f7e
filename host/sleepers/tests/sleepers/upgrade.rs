//! What a version before left behind, and what it can still read.

use dormouse_model::Owner;
use dormouse_sleepers::{Declared, Route, Sleeper, SleeperSpec, Wake, api, crd};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use dormouse_testing::{World, workload};

fn spec() -> SleeperSpec {
    SleeperSpec {
        owner: Some(Owner::plugin("workloads")),
        plugin: Some("workloads".into()),
        resource: "web".into(),
        object: workload(),
        workloads: vec![workload()],
        services: vec!["web".into()],
        wake: Some(Wake::Lifecycle),
        route: Some(Route {
            service: "web".into(),
            port: None,
        }),
        ..SleeperSpec::default()
    }
}

async fn stored(world: &World) -> Sleeper {
    let sleepers = Api::<Sleeper>::namespaced(world.cluster.client().clone(), "shop");
    sleepers.get(&world.key.object_name()).await.unwrap()
}

async fn declare(world: &World) -> Option<String> {
    let declared = Declared {
        key: world.key.clone(),
        spec: spec(),
    };
    world.cluster.declarations().declare(&declared).await.unwrap();
    stored(world).await.metadata.resource_version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_of_the_version_before_is_the_same_sleeper() {
    let world = World::new().await;
    let client = world.cluster.client().clone();
    let sleepers = Api::<Sleeper>::namespaced(client, "shop");
    let name = world.key.object_name();
    let before = json!({"spec": {"owner": null, "wake": null, "route": null, "plugin": "workloads"}});
    let params = PatchParams::default();
    let older = sleepers
        .patch(&name, &params, &Patch::Merge(&before))
        .await
        .unwrap();
    assert_eq!(older.spec.owner, None);
    assert_eq!(
        (older.spec.owner(), older.spec.wake()),
        (Owner::plugin("workloads"), Wake::Lifecycle)
    );

    declare(&world).await;
    let newer = stored(&world).await;
    assert_eq!(newer.metadata.uid, older.metadata.uid);
    assert_eq!(newer.spec, spec());
    assert_eq!(newer.status, older.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_cuts_off_what_is_new_is_not_written_to_again_and_again() {
    let world = World::new().await;
    let mut older = serde_json::to_value(crd::sleeper()).unwrap();
    let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for new in ["owner", "wake", "route"] {
        assert!(
            schema["properties"]
                .as_object_mut()
                .unwrap()
                .remove(new)
                .is_some(),
            "{new}"
        );
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(world.cluster.client().clone());
    let params = PatchParams::apply("dormouse").force();
    definitions
        .patch("sleepers.dormouse.dev", &params, &Patch::Apply(&older))
        .await
        .unwrap();
    let first = declare(&world).await;
    let cut = stored(&world).await;
    assert_eq!(
        (cut.spec.owner.clone(), cut.spec.owner()),
        (None, Owner::plugin("workloads"))
    );
    assert!(
        cut.metadata
            .finalizers
            .unwrap()
            .contains(&api::FINALIZER.to_owned())
    );
    for _ in 0..3 {
        assert_eq!(declare(&world).await, first);
    }
}
