//! What a source says of a target beside its triggers: when it has to be awake, why it is as it is, and what it wants back.

use std::time::Duration;

use dormouse_model::Phase;
use dormouse_plugin::types::{MetricSource, Resource, Rule, ScaleOutcome};
use dormouse_sleepers::lifecycle::DesiredState;
use jiff::SignedDuration;

use crate::fakes::{Answer, lock};
use crate::harness::*;

const REQUESTS: &str = "apps/Deployment/shop/requests_per_10m";

fn given(value: &str) -> Rule {
    Rule {
        source: MetricSource::Given {
            name: "outside Mon-Fri 08:00-18:00".into(),
            value: value.into(),
        },
        window: MINUTE,
        threshold: "0".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_the_source_has_taken_itself_decides_and_says_why() {
    let mut world = World::new();
    let quiet = resource("shop", "quiet", vec![given("0")]);
    let busy = resource("shop", "busy", vec![given("1")]);
    let wrong = resource("shop", "wrong", vec![given("some")]);
    let plugin = world.plugin("hours", vec![quiet, busy, wrong]);
    world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(plugin.slept(), ["shop/quiet"]);
    let outcome = |name: &str| world.cluster.outcome(&plugin.key("shop", name));
    assert_eq!(
        (outcome("busy").as_str(), outcome("wrong").as_str()),
        ("InUse", "Error")
    );
    let decision = world.cluster.status(&plugin.key("shop", "quiet")).last_decision;
    assert_eq!(
        decision.unwrap().inputs,
        ["outside Mon-Fri 08:00-18:00 over 1m: 0, threshold 0"]
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_woken_at_its_moment_and_not_in_the_next_round() {
    let mut world = World::new();
    world.config.overrides.scale_interval = Some(MINUTE * 10);
    let wake_at = world.cluster.now() + SignedDuration::from_secs(1234);
    let web = Resource {
        wake_at: Some(wake_at),
        reason: Some("its hours begin".into()),
        ..resource("shop", "web", vec![custom("requests", 10, "0")])
    };
    let plugin = world.plugin("hours", vec![web]);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    let key = plugin.key("shop", "web");
    pass(Duration::from_secs(30)).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
    let decision = world.cluster.status(&key).last_decision.unwrap();
    assert_eq!(
        decision.inputs.last().map(String::as_str),
        Some("its hours begin")
    );
    let slept = world.cluster.now();
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.slept) = (Phase::Asleep, Some(slept));
    });
    world.cluster.moved.send_modify(|count| *count += 1);

    pass(Duration::from_secs(1234 - 31)).await;
    assert_eq!(world.cluster.state(&key).desired, DesiredState::Asleep);
    pass(Duration::from_secs(2)).await;
    let state = world.cluster.state(&key);
    assert_eq!(
        (state.desired, state.reason.as_str()),
        (DesiredState::Awake, "its hours begin")
    );

    // What falls asleep after its moment is left asleep.
    let slept = world.cluster.now();
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired) = (Phase::Asleep, DesiredState::Asleep);
        state.slept = Some(slept);
    });
    minutes(30).await;
    assert_eq!(world.cluster.written("wake"), 1);
    assert_eq!(world.cluster.state(&key).desired, DesiredState::Asleep);
}

#[tokio::test(start_paused = true)]
async fn a_cookie_comes_back_and_stands_on_the_sleeper_for_the_dlx() {
    let mut world = World::new();
    let web = Resource {
        cookie: Some("id-7".into()),
        ..resource("shop", "web", vec![custom("requests", 10, "0")])
    };
    let plugin = world.plugin("workloads", vec![web]);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
    assert_eq!(lock(&plugin.cookies)[..], [Some("id-7".to_owned())]);
    let sleeper = world.cluster.sleeper(&plugin.key("shop", "web")).unwrap();
    assert_eq!(sleeper.spec.cookie.as_deref(), Some("id-7"));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_not_known_is_said_and_nothing_is_taken_for_done() {
    let mut world = World::new();
    let web = resource("shop", "web", vec![custom("requests", 10, "0")]);
    let plugin = world.plugin("workloads", vec![web]);
    *lock(&plugin.outcome) = Some(Box::new(|_| ScaleOutcome::Other("queued".into())));
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    minutes(1).await;
    let (status, reason, message) = world
        .cluster
        .condition(&plugin.key("shop", "web"), "PluginHealthy")
        .unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "SleepFailed"));
    assert!(message.contains("queued"), "{message}");
}
