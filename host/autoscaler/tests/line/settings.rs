//! Flags over the plugin's settings over defaults, each field by itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_autoscaler::{Effective, Overrides};
use dormouse_model::GroupKind;
use dormouse_plugin::types::Settings;
use rstest::rstest;

use crate::fakes::Answer;
use crate::harness::*;

fn group_kind(group: &str, kind: &str) -> GroupKind {
    GroupKind {
        group: group.into(),
        kind: kind.into(),
    }
}

#[rstest]
#[case::nothing(None, None, None, None, None, 60, None)]
#[case::plugin(None, None, None, Some(5), Some(("nuclio.io", "Function")), 5, Some(("nuclio.io", "Function")))]
#[case::flags(Some(7), Some("Pod"), Some(""), Some(5), Some(("nuclio.io", "Function")), 7, Some(("", "Pod")))]
#[case::interval_only(Some(7), None, None, Some(5), Some(("g", "K")), 7, Some(("g", "K")))]
#[case::kind_only(None, Some("Other"), None, Some(5), Some(("g", "K")), 5, Some(("g", "Other")))]
#[case::group_only(None, None, Some("h"), None, Some(("g", "K")), 60, Some(("h", "K")))]
#[case::group_without_kind(None, None, Some("h"), None, None, 60, None)]
#[case::empty_kind(None, Some(""), None, None, Some(("g", "K")), 60, Some(("g", "K")))]
#[case::interval_of_zero(Some(0), None, None, Some(5), None, 60, None)]
fn merged(
    #[case] flag_interval: Option<u64>,
    #[case] flag_kind: Option<&str>,
    #[case] flag_group: Option<&str>,
    #[case] interval: Option<u64>,
    #[case] resource: Option<(&str, &str)>,
    #[case] expected_interval: u64,
    #[case] expected_resource: Option<(&str, &str)>,
) {
    let overrides = Overrides {
        scale_interval: flag_interval.map(Duration::from_secs),
        metrics_resource_kind: flag_kind.map(Into::into),
        metrics_resource_group: flag_group.map(Into::into),
    };
    let settings = Settings {
        scale_interval: interval.map(Duration::from_secs),
        metrics_resource: resource.map(|(group, kind)| group_kind(group, kind)),
        ..Settings::default()
    };
    let expected = Effective {
        scale_interval: Duration::from_secs(expected_interval),
        metrics_resource: expected_resource.map(|(group, kind)| group_kind(group, kind)),
    };
    assert_eq!(overrides.over(&settings), expected);
}

#[tokio::test(start_paused = true)]
async fn each_plugin_has_its_own_cadence() {
    let mut world = World::new();
    let (slow, fast) = (world.plugin("slow", vec![]), world.plugin("fast", vec![]));
    *fast.settings.lock().unwrap() = Ok(Settings {
        scale_interval: Some(Duration::from_secs(10)),
        ..Settings::default()
    });
    world.run(&[&slow, &fast]);
    minutes(10).await;
    assert!((9..=11).contains(&slow.rounds()), "{}", slow.rounds());
    assert!((57..=61).contains(&fast.rounds()), "{}", fast.rounds());
    assert_eq!(fast.settings_calls.load(Ordering::Relaxed), 1, "asked once");
}

#[tokio::test(start_paused = true)]
async fn a_flag_wins() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![]);
    *plugin.settings.lock().unwrap() = Ok(Settings {
        scale_interval: Some(Duration::from_secs(1)),
        ..Settings::default()
    });
    world.config.overrides.scale_interval = Some(Duration::from_secs(30));
    world.run(&[&plugin]);
    minutes(10).await;
    assert!((19..=21).contains(&plugin.rounds()), "{}", plugin.rounds());
}

#[tokio::test(start_paused = true)]
async fn settings_that_fail_are_asked_for_again_and_stop_nothing() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![]);
    *plugin.settings.lock().unwrap() = Err(error("panicked"));
    world.run(&[&plugin]);
    minutes(3).await;
    assert!(plugin.rounds() >= 2);
    *plugin.settings.lock().unwrap() = Ok(Settings {
        scale_interval: Some(Duration::from_secs(5)),
        ..Settings::default()
    });
    minutes(1).await;
    let before = plugin.rounds();
    minutes(1).await;
    assert!(plugin.rounds() - before >= 11);
}

#[tokio::test(start_paused = true)]
async fn first_rounds_are_spread() {
    let mut world = World::new();
    let plugins: Vec<_> = (0..20).map(|i| world.plugin(&format!("p{i}"), vec![])).collect();
    let handles: Vec<_> = plugins.iter().collect();
    world.run(&handles);
    minutes(1).await;
    let firsts: std::collections::BTreeSet<_> = plugins
        .iter()
        .map(|plugin| plugin.resources_calls.lock().unwrap()[0])
        .collect();
    assert!(firsts.len() > 10, "only {} different moments", firsts.len());
}

#[tokio::test(start_paused = true)]
async fn metrics_of_another_kind_go_by_the_name_of_the_resource() {
    let mut world = World::new();
    let mut function = resource("shop", "hello", vec![custom("calls", 10, "0")]);
    function.object.name = "hello-deployment".into();
    let plugin = world.plugin("functions", vec![function]);
    let metrics_resource = Some(group_kind("nuclio.io", "Function"));
    *plugin.settings.lock().unwrap() = Ok(Settings {
        metrics_resource,
        ..Settings::default()
    });
    world.api.says(
        "nuclio.io/Function/shop/calls_per_10m",
        Answer::Values(vec![("hello", "0")]),
    );
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(plugin.slept(), ["shop/hello"]);
}

#[tokio::test(start_paused = true)]
async fn metrics_of_its_own_object_go_by_the_name_of_the_object() {
    let mut world = World::new();
    let mut function = resource("shop", "hello", vec![custom("calls", 10, "0")]);
    function.object.name = "hello-deployment".into();
    let plugin = world.plugin("functions", vec![function]);
    world.api.says(
        "apps/Deployment/shop/calls_per_10m",
        Answer::Values(vec![("hello-deployment", "0")]),
    );
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(plugin.slept(), ["shop/hello"]);
}
