//! Resources whose platform scales them by itself: their Sleepers mirror what it says.

use dormouse_model::Phase;
use dormouse_plugin::types::{FieldCondition, Resource, ResourceState, ScaleOutcome};

use crate::fakes::Answer;
use crate::harness::*;

fn function(state: ResourceState) -> Resource {
    Resource {
        workloads: vec![],
        services: vec![],
        state,
        ..resource("shop", "hello", vec![custom("calls", 10, "0")])
    }
}

fn state_field() -> FieldCondition {
    FieldCondition {
        object: deployment("hello"),
        path: "status.state".into(),
        ready_values: vec!["scaledToZero".into()],
        failed_values: vec!["error".into()],
    }
}

const CALLS: &str = "apps/Deployment/shop/calls_per_10m";

#[tokio::test(start_paused = true)]
async fn its_sleeper_follows_the_platform() {
    let mut world = World::new();
    let plugin = world.plugin("functions", vec![function(ResourceState::Awake)]);
    plugin.answer(|_| ScaleOutcome::Watch(state_field()));
    world.api.says(CALLS, Answer::Values(vec![("hello", "0")]));
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "hello");
    assert_eq!(plugin.slept(), ["shop/hello"]);
    let watch = "dormouse_autoscaler_sleeps_requested_total{owner=\"functions\",owner_kind=\"Plugin\",plugin=\"functions\",outcome=\"watch\"}";
    assert_eq!(world.metric(watch).as_deref(), Some("1"));
    assert_eq!(
        *world.cluster.events.lock().unwrap(),
        [("shop/hello".to_owned(), "SleepRequested".to_owned())]
    );

    for (state, phase) in [
        (ResourceState::Changing, Phase::Draining),
        (ResourceState::Asleep, Phase::Asleep),
        (ResourceState::Changing, Phase::Waking),
        (ResourceState::Changing, Phase::Waking),
        (ResourceState::Awake, Phase::Awake),
    ] {
        plugin.list(vec![function(state)]);
        world.api.says(CALLS, Answer::Values(vec![("hello", "9")]));
        minutes(1).await;
        assert_eq!(world.cluster.state(&key).phase, phase, "{state:?}");
    }
    assert_eq!(world.cluster.written("mirror"), 4, "only what changed");
    assert_eq!(plugin.slept().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_fails_is_shown() {
    let mut world = World::new();
    let plugin = world.plugin("functions", vec![function(ResourceState::Awake)]);
    plugin.answer(|_| ScaleOutcome::Watch(state_field()));
    world.api.says(CALLS, Answer::Values(vec![("hello", "0")]));
    world.run(&[&plugin]);
    minutes(1).await;
    plugin.list(vec![function(ResourceState::Changing)]);
    let key = plugin.key("shop", "hello");
    let field = "shop/hello:status.state".to_owned();
    world
        .cluster
        .fields
        .lock()
        .unwrap()
        .insert(field.clone(), "waiting".into());
    minutes(2).await;
    assert_eq!(world.cluster.condition(&key, "PluginHealthy"), None);

    world.cluster.fields.lock().unwrap().insert(field, "error".into());
    minutes(5).await;
    let (_, reason, message) = world.cluster.condition(&key, "PluginHealthy").unwrap();
    assert_eq!(
        (&*reason, &*message),
        ("SleepFailed", "status.state is \"error\"")
    );
    assert_eq!(world.cluster.written("conditions"), 1, "once");

    plugin.list(vec![function(ResourceState::Asleep)]);
    minutes(1).await;
    assert_eq!(world.cluster.condition(&key, "PluginHealthy").unwrap().0, "True");
}
