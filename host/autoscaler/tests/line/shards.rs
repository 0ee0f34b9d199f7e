//! A process looks after the namespaces of the shards that it holds, and after no other.

use std::time::Duration;

use dormouse_model::Shards;
use dormouse_sleepers::lifecycle::DesiredState;

use crate::fakes::Answer;
use crate::harness::*;

// Of two shards, `default` is in the first and `shop` in the second.
const NAMESPACES: [&str; 2] = ["default", "shop"];

fn world() -> (World, std::sync::Arc<crate::fakes::Plugin>) {
    let mut world = World::new();
    let rules = || vec![custom("requests", 10, "0")];
    let resources = NAMESPACES.map(|namespace| resource(namespace, "web", rules()));
    let plugin = world.plugin("workloads", resources.to_vec());
    for namespace in NAMESPACES {
        let call = format!("apps/Deployment/{namespace}/requests_per_10m");
        world.api.says(&call, Answer::Values(vec![("web", "0")]));
    }
    (world, plugin)
}

#[tokio::test(start_paused = true)]
async fn only_what_is_held_is_declared_decided_and_retired() {
    let (world, plugin) = world();
    world.shards.send_replace(Shards::of(2, [1]));
    let first = world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(world.cluster.keys(), [plugin.key("shop", "web")]);
    assert_eq!(plugin.slept(), ["shop/web"]);
    first.abort();

    world.shards.send_replace(Shards::of(2, [0]));
    plugin.list(vec![]);
    world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(world.cluster.keys().len(), 1, "it is somebody else's to retire");
    plugin.fail(error("wall_timeout"));
    minutes(2).await;
    let condition = world
        .cluster
        .condition(&plugin.key("shop", "web"), "PluginHealthy");
    assert_eq!(condition, None, "and to say what is wrong");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_gained_is_taken_up_at_once() {
    let (world, plugin) = world();
    world.shards.send_replace(Shards::of(2, [1]));
    world.run(&[&plugin]);
    minutes(1).await;
    world.shards.send_replace(Shards::all(2));
    pass(Duration::from_secs(1)).await;
    assert_eq!(plugin.slept(), ["shop/web", "default/web"]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_lost_is_dropped_before_the_next_write() {
    let (world, plugin) = world();
    world.shards.send_replace(Shards::all(2));
    *world.api.slow.lock().unwrap() = Duration::from_secs(8);
    world.run(&[&plugin]);
    // The readings of both are under way.
    pass(Duration::from_secs(7)).await;
    assert_eq!((world.cluster.keys().len(), plugin.slept().len()), (2, 0));
    world.shards.send_replace(Shards::of(2, [0]));
    minutes(2).await;
    assert_eq!(plugin.slept(), ["default/web"]);
    assert_eq!(
        world.cluster.state(&plugin.key("shop", "web")).desired,
        DesiredState::Awake
    );
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "web")), "");
}

#[tokio::test(start_paused = true)]
async fn a_set_scale_under_way_for_a_lost_shard_is_dropped() {
    let (world, plugin) = world();
    world.shards.send_replace(Shards::all(2));
    *plugin.slow_set_scale.lock().unwrap() = Duration::from_secs(5);
    world.run(&[&plugin]);
    pass(Duration::from_secs(7)).await;
    assert_eq!(
        plugin.slept().len(),
        2,
        "both calls have begun, apart from each other"
    );
    world.shards.send_replace(Shards::of(2, [1]));
    pass(Duration::from_secs(10)).await;
    assert_eq!(
        world.cluster.state(&plugin.key("default", "web")).desired,
        DesiredState::Awake
    );
    assert_eq!(
        world.cluster.state(&plugin.key("shop", "web")).desired,
        DesiredState::Asleep
    );
}
