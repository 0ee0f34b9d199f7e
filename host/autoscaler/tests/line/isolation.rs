//! One failing or hanging resource, metric or plugin never delays or stops another.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_plugin::GuestError;
use dormouse_plugin::types::{Resource, ScaleOutcome};
use dormouse_sleepers::lifecycle::DesiredState;

use crate::fakes::Answer;
use crate::harness::*;

fn idle(namespace: &str, name: &str) -> Resource {
    resource(namespace, name, vec![custom("requests", 10, "0")])
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_does_not_delay_another() {
    let mut world = World::new();
    let (good, bad) = (
        world.plugin("good", vec![idle("shop", "web")]),
        world.plugin("bad", vec![]),
    );
    bad.hang("resources");
    world.run(&[&bad, &good]);
    minutes(10).await;
    assert!(
        (9..=11).contains(&good.rounds()),
        "{} rounds in ten minutes",
        good.rounds()
    );
    assert!(bad.rounds() <= 3, "its own rounds never overlap, whatever hangs");
    assert_eq!(
        bad.most_at_once.load(Ordering::Relaxed),
        bad.rounds(),
        "each was dropped before the next"
    );
    let line = "dormouse_autoscaler_rounds_total{owner=\"bad\",owner_kind=\"Plugin\",plugin=\"bad\",outcome=\"timeout\"}";
    assert!(world.metric(line).is_some());
    bad.unhang();
    minutes(6).await;
    let line =
        "dormouse_autoscaler_rounds_total{owner=\"bad\",owner_kind=\"Plugin\",plugin=\"bad\",outcome=\"ok\"}";
    assert!(world.metric(line).is_some(), "it comes back by itself");
}

#[tokio::test(start_paused = true)]
async fn rounds_of_a_slow_plugin_do_not_overlap() {
    let mut world = World::new();
    let plugin = world.plugin("slow", vec![]);
    *plugin.slow.lock().unwrap() = Duration::from_secs(90);
    world.run(&[&plugin]);
    minutes(30).await;
    assert_eq!(plugin.most_at_once.load(Ordering::Relaxed), 1);
    assert!((10..=20).contains(&plugin.rounds()), "{}", plugin.rounds());
}

#[tokio::test(start_paused = true)]
async fn a_set_scale_that_hangs_holds_up_no_other_plugin() {
    let mut world = World::new();
    let (good, bad) = (
        world.plugin("good", vec![idle("a", "x")]),
        world.plugin("bad", vec![idle("b", "y")]),
    );
    world.api.says(
        "apps/Deployment/a/requests_per_10m",
        Answer::Values(vec![("x", "0")]),
    );
    world.api.says(
        "apps/Deployment/b/requests_per_10m",
        Answer::Values(vec![("y", "0")]),
    );
    bad.hang("set-scale");
    world.run(&[&bad, &good]);
    minutes(2).await;
    assert_eq!(good.slept(), ["a/x"]);
    assert_eq!(
        world.cluster.state(&good.key("a", "x")).desired,
        DesiredState::Asleep
    );
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_fails_keeps_awake_only_what_uses_it() {
    let mut world = World::new();
    let both = vec![custom("requests", 10, "0"), custom("broken", 10, "0")];
    let plugin = world.plugin(
        "workloads",
        vec![idle("shop", "a"), resource("shop", "b", both), idle("shop", "c")],
    );
    let values = vec![("a", "0"), ("b", "0"), ("c", "0")];
    world
        .api
        .says("apps/Deployment/shop/requests_per_10m", Answer::Values(values));
    world
        .api
        .says("apps/Deployment/shop/broken_per_10m", Answer::Error("500"));
    world.run(&[&plugin]);
    minutes(1).await;
    let mut slept = plugin.slept();
    slept.sort();
    assert_eq!(slept, ["shop/a", "shop/c"]);
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "b")), "Error");
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_hangs_delays_only_what_uses_it() {
    let mut world = World::new();
    let hanging = vec![custom("hanging", 10, "0")];
    let plugin = world.plugin(
        "workloads",
        vec![resource("shop", "a", hanging), idle("shop", "b")],
    );
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("b", "0")]),
    );
    world
        .api
        .says("apps/Deployment/shop/hanging_per_10m", Answer::Hang);
    world.limits.timeout = Duration::from_secs(40);
    world.run(&[&plugin]);
    pass(Duration::from_secs(6)).await;
    assert_eq!(plugin.slept(), ["shop/b"], "long before the other's deadline");
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "a")), "");
    pass(Duration::from_secs(41)).await;
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "a")), "Error");
    let condition = world
        .cluster
        .condition(&plugin.key("shop", "a"), "ReadingsAvailable")
        .unwrap();
    assert_eq!(condition.2, "hanging over 10m: no answer within 40s");
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_hangs_for_rounds_does_not_delay_the_rounds_of_others() {
    let mut world = World::new();
    let hanging = vec![custom("hanging", 10, "0")];
    let plugin = world.plugin(
        "workloads",
        vec![resource("shop", "a", hanging), idle("shop", "b")],
    );
    let requests = |value| Answer::Values(vec![("b", value)]);
    world
        .api
        .says("apps/Deployment/shop/requests_per_10m", requests("5"));
    world
        .api
        .says("apps/Deployment/shop/hanging_per_10m", Answer::Hang);
    world.limits.timeout = Duration::from_secs(600);
    world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "b")), "InUse");
    world
        .api
        .says("apps/Deployment/shop/requests_per_10m", requests("0"));
    minutes(2).await;
    assert_eq!(plugin.slept(), ["shop/b"]);
    let hung = "apps/Deployment/shop/hanging_per_10m";
    let asked = world.api.calls().iter().filter(|call| *call == hung).count();
    assert_eq!(asked, 1, "while it is under way it is not asked again");
    minutes(8).await;
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "a")), "Error");
}

#[tokio::test(start_paused = true)]
async fn each_metric_is_asked_for_once_in_each_namespace() {
    let mut world = World::new();
    let rules = || {
        vec![
            custom("requests", 10, "0"),
            custom("requests", 5, "0"),
            custom("cpu", 10, "0"),
        ]
    };
    let names: Vec<String> = (0..20).map(|i| format!("w{i}")).collect();
    let resources = names
        .iter()
        .flat_map(|name| ["a", "b"].map(|namespace| resource(namespace, name, rules())));
    let plugin = world.plugin("workloads", resources.collect());
    *world.api.slow.lock().unwrap() = Duration::from_millis(100);
    world.limits.concurrency = 4;
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(plugin.rounds(), 1);
    assert_eq!(
        world.api.calls(),
        [
            "apps/Deployment/a/cpu_per_10m",
            "apps/Deployment/a/requests_per_10m",
            "apps/Deployment/a/requests_per_5m",
            "apps/Deployment/b/cpu_per_10m",
            "apps/Deployment/b/requests_per_10m",
            "apps/Deployment/b/requests_per_5m",
        ]
    );
    assert_eq!(
        world.api.most_at_once.load(Ordering::Relaxed),
        4,
        "at once, up to the bound"
    );
}

#[tokio::test(start_paused = true)]
async fn two_namespaces_with_one_name_do_not_mix() {
    // v3io's scaler keys its maps by the bare name: there, one of these decides for both.
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![idle("quiet", "web"), idle("busy", "web")]);
    world.api.says(
        "apps/Deployment/quiet/requests_per_10m",
        Answer::Values(vec![("web", "0")]),
    );
    world.api.says(
        "apps/Deployment/busy/requests_per_10m",
        Answer::Values(vec![("web", "9")]),
    );
    world.run(&[&plugin]);
    minutes(3).await;
    assert_eq!(plugin.slept(), ["quiet/web"]);
    assert_eq!(
        world.cluster.state(&plugin.key("quiet", "web")).desired,
        DesiredState::Asleep
    );
    assert_eq!(
        world.cluster.state(&plugin.key("busy", "web")).desired,
        DesiredState::Awake
    );
    assert_eq!(world.cluster.outcome(&plugin.key("busy", "web")), "InUse");
}

#[tokio::test(start_paused = true)]
async fn two_plugins_with_one_name_do_not_mix() {
    let mut world = World::new();
    let one = world.plugin("one", vec![idle("shop", "web")]);
    let two = world.plugin("two", vec![resource("shop", "web", vec![])]);
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("web", "0")]),
    );
    world.run(&[&one, &two]);
    minutes(2).await;
    assert_eq!(world.cluster.keys().len(), 2);
    assert_eq!(one.slept(), ["shop/web"]);
    assert!(two.slept().is_empty());
    assert_eq!(world.cluster.outcome(&two.key("shop", "web")), "NoRules");
}

#[tokio::test(start_paused = true)]
async fn one_resource_that_fails_to_sleep_stops_no_other() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![idle("shop", "a"), idle("shop", "b")]);
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("a", "0"), ("b", "0")]),
    );
    plugin.answer(|id| match id.name.as_str() {
        "a" => ScaleOutcome::Failed(GuestError::Transient("the platform is away".into())),
        _ => ScaleOutcome::Done,
    });
    world.run(&[&plugin]);
    minutes(1).await;
    let (a, b) = (plugin.key("shop", "a"), plugin.key("shop", "b"));
    let (status, reason, message) = world.cluster.condition(&a, "PluginHealthy").unwrap();
    assert_eq!(
        (&*status, &*reason, &*message),
        ("False", "SleepFailed", "the platform is away")
    );
    assert_eq!(world.cluster.condition(&b, "PluginHealthy"), None);
    assert_eq!(world.cluster.outcome(&b), "Idle");
    let failed = "dormouse_autoscaler_sleeps_requested_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"failed\"}";
    assert_eq!(world.metric(failed).as_deref(), Some("1"));

    plugin.answer(|_| ScaleOutcome::Done);
    minutes(1).await;
    assert_eq!(
        world.cluster.condition(&a, "PluginHealthy").unwrap().0,
        "True",
        "asked again in the next round"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_set_scale_is_shown_and_asked_again() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![idle("shop", "web")]);
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("web", "0")]),
    );
    *plugin.broken.lock().unwrap() = Some(error("cpu_budget"));
    world.run(&[&plugin]);
    minutes(3).await;
    let key = plugin.key("shop", "web");
    assert_eq!(
        world.cluster.condition(&key, "PluginHealthy").unwrap().1,
        "CpuBudget"
    );
    assert_eq!(world.cluster.written("record"), 1, "but written once");
    *plugin.broken.lock().unwrap() = None;
    minutes(1).await;
    assert_eq!(world.cluster.state(&key).desired, DesiredState::Asleep);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_cannot_be_declared_stops_no_other() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![idle("shop", "gone"), idle("shop", "web")]);
    world
        .cluster
        .undeclarable
        .lock()
        .unwrap()
        .insert("shop/gone".into());
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("web", "0"), ("gone", "0")]),
    );
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}
