//! Observed traffic: looking, counting, stepping out again.

use std::sync::atomic::Ordering;

use dormouse_model::{Phase, ScaleEvent, ScaleEventKind};
use dormouse_plugin::types::{Resource, Rule};
use dormouse_sleepers::DemandEntry;
use dormouse_sleepers::lifecycle::{DesiredState, TrafficCheck};
use jiff::SignedDuration;
use rstest::rstest;

use crate::fakes::Answer;
use crate::harness::*;

fn web() -> Resource {
    resource("shop", "web", vec![observed(15)])
}

#[tokio::test(start_paused = true)]
async fn a_look_that_nobody_disturbs_ends_in_sleep() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    assert_eq!(
        world.cluster.state(&key).desired,
        DesiredState::Awake,
        "just declared: left alone for a moment"
    );
    assert_eq!(world.cluster.outcome(&key), "NoData");
    assert_eq!(
        world.cluster.condition(&key, "ReadingsAvailable"),
        None,
        "which is as it should be"
    );

    minutes(1).await;
    assert_eq!(world.cluster.state(&key).desired, DesiredState::Observed);
    world.cluster.carry_through();
    minutes(14).await;
    assert!(plugin.slept().is_empty(), "the window is not over");
    minutes(2).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
    assert_eq!(
        world.cluster.status(&key).last_decision.unwrap().inputs,
        ["observed traffic over 15m: 0, threshold 0"]
    );
    let line = "dormouse_autoscaler_looks_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"begun\"}";
    assert_eq!(world.metric(line).as_deref(), Some("1"));
}

#[rstest]
#[case::held(DemandEntry { held: 1, ..DemandEntry::default() }, "is 1")]
#[case::in_flight(DemandEntry { in_flight: 2, ..DemandEntry::default() }, "is 2")]
#[case::websocket(DemandEntry { upgraded: 1, ..DemandEntry::default() }, "is 1")]
#[case::came_and_went(DemandEntry { total: 5, idle_millis: Some(30_000), ..DemandEntry::default() }, "is 1")]
#[tokio::test(start_paused = true)]
async fn a_look_that_is_disturbed_ends_and_waits_longer(#[case] demand: DemandEntry, #[case] text: &str) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(2).await;
    world.cluster.carry_through();
    let key = plugin.key("shop", "web");
    assert_eq!(world.cluster.state(&key).phase, Phase::Observing);
    minutes(1).await;
    world.cluster.set_demand(&key, demand);
    minutes(1).await;
    let state = world.cluster.state(&key);
    assert_eq!(
        (state.desired, state.epoch, state.traffic_check.disturbed),
        (DesiredState::Awake, 1, 1)
    );
    assert!(state.reason.contains(text), "{}", state.reason);
    assert!(plugin.slept().is_empty());
    let line = "dormouse_autoscaler_looks_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"disturbed\"}";
    assert_eq!(world.metric(line).as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn what_ended_before_the_look_does_not_disturb_it() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(2).await;
    world.cluster.carry_through();
    let key = plugin.key("shop", "web");
    // The request that woke it went through the DLX, one minute before the DLX stepped in again.
    for minute in 1..=16_u64 {
        let idle_millis = Some((minute + 1) * 60_000);
        world.cluster.set_demand(
            &key,
            DemandEntry {
                total: 1,
                idle_millis,
                ..DemandEntry::default()
            },
        );
        minutes(1).await;
    }
    assert_eq!(world.cluster.state(&key).epoch, 0);
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[rstest]
#[case::error(Some("127.0.9.2 does not answer"))]
#[case::hangs(None)]
#[tokio::test(start_paused = true)]
async fn unknown_demand_is_not_idle(#[case] answer: Option<&str>) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(2).await;
    world.cluster.carry_through();
    *world.cluster.demand.answer.lock().unwrap() = answer.map(|text| Err(text.to_owned()));
    minutes(30).await;
    let key = plugin.key("shop", "web");
    assert!(plugin.slept().is_empty());
    assert_eq!(world.cluster.outcome(&key), "Error");
    assert_eq!(
        world.cluster.state(&key).desired,
        DesiredState::Observed,
        "and it is no demand either"
    );
}

#[rstest]
#[case::threshold(Rule { threshold: "1".into(), ..observed(15) }, true)]
#[case::no_services(observed(15), false)]
#[tokio::test(start_paused = true)]
async fn a_rule_that_cannot_work_says_so(#[case] rule: Rule, #[case] services: bool) {
    let mut world = World::new();
    let mut web = resource("shop", "web", vec![rule]);
    if !services {
        web.services.clear();
    }
    let plugin = world.plugin("workloads", vec![web]);
    world.run(&[&plugin]);
    minutes(5).await;
    let key = plugin.key("shop", "web");
    assert_eq!(world.cluster.outcome(&key), "Error");
    assert_eq!(world.cluster.written("observe"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_look_waits_for_its_time() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    pass(std::time::Duration::from_secs(6)).await;
    let key = plugin.key("shop", "web");
    let not_before = Some(world.cluster.now() + SignedDuration::from_mins(20));
    world.cluster.edit_state(&key, |state| {
        state.traffic_check = TrafficCheck {
            disturbed: 3,
            not_before,
        }
    });
    minutes(19).await;
    assert_eq!(world.cluster.written("observe"), 0);
    minutes(2).await;
    assert_eq!(world.cluster.written("observe"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_was_just_updated_is_not_looked_at() {
    let mut world = World::new();
    world.config.settle = MINUTE * 5;
    let event = ScaleEvent {
        kind: ScaleEventKind::ResourceUpdated,
        at: Some(world.start.wall() + SignedDuration::from_mins(10)),
    };
    let plugin = world.plugin(
        "workloads",
        vec![Resource {
            last_event: Some(event),
            ..web()
        }],
    );
    world.run(&[&plugin]);
    minutes(14).await;
    assert_eq!(world.cluster.written("observe"), 0);
    minutes(3).await;
    assert_eq!(world.cluster.written("observe"), 1);
}

#[rstest]
#[case::idle(Answer::Values(vec![("web", "0")]), true)]
#[case::in_use(Answer::Values(vec![("web", "1")]), false)]
#[case::no_data(Answer::Values(vec![]), false)]
#[case::error(Answer::Error("500"), false)]
#[tokio::test(start_paused = true)]
async fn the_other_rules_are_asked_first(#[case] answer: Answer, #[case] looks: bool) {
    let mut world = World::new();
    let rules = vec![custom("cpu", 5, "0"), observed(15)];
    let plugin = world.plugin("workloads", vec![resource("shop", "web", rules)]);
    world.api.says("apps/Deployment/shop/cpu_per_5m", answer);
    world.run(&[&plugin]);
    minutes(5).await;
    assert_eq!(
        world.cluster.written("observe") == 1,
        looks,
        "a look is not for nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_diverted_says_so_once() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world
        .cluster
        .undivertible
        .lock()
        .unwrap()
        .insert("shop/web".into());
    world.run(&[&plugin]);
    minutes(30).await;
    let key = plugin.key("shop", "web");
    let (status, reason, message) = world.cluster.condition(&key, "Divertible").unwrap();
    assert_eq!(
        (&*status, &*reason, &*message),
        ("False", "Undivertible", "Service web is headless")
    );
    assert!(world.cluster.written("record") <= 2);
    world.cluster.undivertible.lock().unwrap().clear();
    minutes(2).await;
    assert_eq!(world.cluster.condition(&key, "Divertible").unwrap().0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_nothing_asks_for_any_more_ends() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(2).await;
    world.cluster.carry_through();
    plugin.list(vec![resource("shop", "web", vec![custom("cpu", 5, "0")])]);
    minutes(1).await;
    assert_eq!(
        world.cluster.state(&plugin.key("shop", "web")).desired,
        DesiredState::Awake
    );
}

#[tokio::test(start_paused = true)]
async fn demand_is_asked_for_once_for_all_and_only_if_somebody_is_looked_at() {
    let mut world = World::new();
    let resources = (0..50)
        .map(|i| resource("shop", &format!("w{i}"), vec![observed(15)]))
        .collect();
    let plugin = world.plugin("workloads", resources);
    world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(world.cluster.demand.calls.load(Ordering::Relaxed), 0);
    world.cluster.carry_through();
    minutes(1).await;
    let calls = world.cluster.demand.calls.load(Ordering::Relaxed);
    assert!((1..=3).contains(&calls), "{calls} calls for 50 targets");
}
