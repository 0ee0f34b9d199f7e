//! A target runs when its window has passed, whatever its interval is, and when its Sleeper moves.

use std::time::Duration;

use dormouse_model::{Phase, ScaleEvent, ScaleEventKind};
use dormouse_plugin::types::{Resource, ScaleOutcome};
use jiff::SignedDuration;

use crate::fakes::Answer;
use crate::harness::*;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn what_was_quiet_for_its_window_sleeps_within_two_seconds() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![resource("shop", "web", vec![observed(15)])]);
    world.run(&[&plugin]);
    minutes(2).await;
    world.cluster.carry_through();
    world.cluster.moved.send_modify(|count| *count += 1);
    let key = plugin.key("shop", "web");
    assert_eq!(world.cluster.state(&key).phase, Phase::Observing);
    pass(seconds(15 * 60 - 1)).await;
    assert!(plugin.slept().is_empty(), "the window is not over");
    pass(seconds(2)).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn after_an_update_it_sleeps_when_the_window_is_over() {
    let mut world = World::new();
    let at = Some(world.start.wall() + SignedDuration::from_secs(17));
    let kind = ScaleEventKind::ResourceUpdated;
    let web = Resource {
        last_event: Some(ScaleEvent { kind, at }),
        ..resource("shop", "web", vec![custom("requests", 10, "0")])
    };
    let plugin = world.plugin("workloads", vec![web]);
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("web", "0")]),
    );
    world.run(&[&plugin]);
    pass(seconds(616)).await;
    assert!(plugin.slept().is_empty());
    pass(seconds(3)).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn a_sleeper_that_moves_brings_the_next_run_at_once() {
    let mut world = World::new();
    let plugin = world.plugin(
        "workloads",
        vec![resource("shop", "web", vec![custom("requests", 10, "0")])],
    );
    let call = "apps/Deployment/shop/requests_per_10m";
    world.api.says(call, Answer::Values(vec![("web", "9")]));
    world.run(&[&plugin]);
    pass(seconds(61)).await;
    let key = plugin.key("shop", "web");
    let now = world.cluster.now();
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.since) = (Phase::Observing, Some(now));
        state.desired = dormouse_sleepers::lifecycle::DesiredState::Observed;
    });
    world.cluster.moved.send_modify(|count| *count += 1);
    pass(seconds(1)).await;
    assert_eq!(world.cluster.state(&key).epoch, 1, "it is in use, so it wakes");
}

#[tokio::test(start_paused = true)]
async fn calls_of_set_scale_run_beside_each_other() {
    let mut world = World::new();
    let names: Vec<&str> = (0..100).map(|i| &*format!("w{i}").leak()).collect();
    let rules = || vec![custom("requests", 10, "0")];
    let resources = names.iter().map(|name| resource("shop", name, rules()));
    let plugin = world.plugin("workloads", resources.collect());
    let values = names.iter().map(|name| (*name, "0")).collect();
    world
        .api
        .says("apps/Deployment/shop/requests_per_10m", Answer::Values(values));
    plugin.answer(|_| ScaleOutcome::Done);
    *plugin.slow_set_scale.lock().unwrap() = seconds(5);
    world.run(&[&plugin]);
    // The first listing comes within five seconds.
    pass(seconds(5)).await;
    pass(seconds(6)).await;
    assert_eq!(plugin.slept().len(), 100, "four calls of 32 at once");
}
