//! Only the leader acts, and whoever dies leaves nothing behind.

use std::time::Duration;

use dormouse_sleepers::lifecycle::DesiredState;

use crate::fakes::Answer;
use crate::harness::*;

const REQUESTS: &str = "apps/Deployment/shop/requests_per_10m";

#[tokio::test(start_paused = true)]
async fn a_follower_does_nothing() {
    let mut world = World::new();
    let plugin = world.plugin(
        "workloads",
        vec![resource("shop", "web", vec![custom("requests", 10, "0")])],
    );
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.leads(false);
    world.run(&[&plugin]);
    minutes(30).await;
    assert_eq!(plugin.rounds(), 0);
    assert!(world.cluster.writes.lock().unwrap().is_empty());

    world.leads(true);
    minutes(1).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_lead_stops_at_once() {
    let mut world = World::new();
    let plugin = world.plugin(
        "workloads",
        vec![resource("shop", "web", vec![custom("requests", 10, "0")])],
    );
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    // In the middle of a round: the reading is under way.
    *world.api.slow.lock().unwrap() = Duration::from_secs(8);
    world.run(&[&plugin]);
    pass(Duration::from_secs(7)).await;
    assert_eq!((plugin.rounds(), world.api.calls().len()), (1, 1));
    world.leads(false);
    world.cluster.forget_writes();
    minutes(30).await;
    assert!(plugin.slept().is_empty(), "what it was about to do is not done");
    assert!(world.cluster.writes.lock().unwrap().is_empty());
    assert_eq!(plugin.rounds(), 1);

    world.leads(true);
    minutes(1).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_on_shutdown_even_if_a_plugin_hangs() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![]);
    plugin.hang("resources");
    let running = world.run(&[&plugin]);
    minutes(1).await;
    world.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(1), running)
        .await
        .expect("at once")
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_ends_on_shutdown_while_it_does_not_lead() {
    let world = World::new();
    world.leads(false);
    let running = world.run(&[]);
    minutes(1).await;
    world.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(1), running)
        .await
        .expect("at once")
        .unwrap();
}

/// Killed at any moment of its first round, and started again: everything ends as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_moment_is_continued() {
    for moment in 0..40_u64 {
        let mut world = World::new();
        *world.cluster.latency.lock().unwrap() = Duration::from_millis(10);
        *world.api.slow.lock().unwrap() = Duration::from_millis(10);
        world.config.overrides.scale_interval = Some(Duration::from_millis(100));
        let names = ["a", "b", "busy"];
        let listed = |names: &[&str]| {
            names
                .iter()
                .map(|name| resource("shop", name, vec![custom("requests", 10, "0")]))
                .collect()
        };
        let plugin = world.plugin("workloads", listed(&["gone", "a"]));
        let first = world.run(&[&plugin]);
        pass(Duration::from_millis(150)).await;
        first.abort();
        world.api.says(
            REQUESTS,
            Answer::Values(vec![("a", "0"), ("b", "0"), ("busy", "1")]),
        );
        plugin.list(listed(&names));

        let second = world.run(&[&plugin]);
        pass(Duration::from_millis(moment * 5)).await;
        second.abort();
        let third = world.run(&[&plugin]);
        pass(Duration::from_secs(2)).await;
        third.abort();

        assert_eq!(
            world.cluster.keys(),
            names.map(|name| plugin.key("shop", name)),
            "killed after {moment}"
        );
        let desired_states = names.map(|name| world.cluster.state(&plugin.key("shop", name)).desired);
        assert_eq!(
            desired_states,
            [DesiredState::Asleep, DesiredState::Asleep, DesiredState::Awake],
            "killed after {moment}"
        );
        let outcomes = names.map(|name| world.cluster.outcome(&plugin.key("shop", name)));
        assert_eq!(outcomes, ["Idle", "Idle", "InUse"], "killed after {moment}");
        assert!(world.cluster.written("sleep") == 2, "each request was made once");
    }
}
