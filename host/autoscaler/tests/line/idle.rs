//! What is idle sleeps, and nothing else.

use dormouse_model::{Phase, ScaleEvent, ScaleEventKind};
use dormouse_plugin::types::{MetricSource, Resource, ResourceState, Rule};
use dormouse_sleepers::lifecycle::DesiredState;
use rstest::rstest;

use crate::fakes::Answer;
use crate::harness::*;

const REQUESTS: &str = "apps/Deployment/shop/requests_per_10m";

fn web() -> Resource {
    resource("shop", "web", vec![custom("requests", 10, "0")])
}

#[tokio::test(start_paused = true)]
async fn an_idle_resource_is_asked_to_sleep_through_its_plugin() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    minutes(1).await;

    let scaled = plugin.scaled.lock().unwrap().clone();
    let reason = "idle: requests over 10m at most 0".to_owned();
    assert_eq!(scaled, [(vec!["shop/web".to_owned()], 0, reason)]);
    let key = plugin.key("shop", "web");
    assert_eq!(world.cluster.state(&key).desired, DesiredState::Asleep);
    let decision = world.cluster.status(&key).last_decision.unwrap();
    assert_eq!(decision.outcome, "Idle");
    assert_eq!(decision.inputs, ["requests over 10m: 0, threshold 0"]);
    for (line, value) in [
        (
            "dormouse_autoscaler_rounds_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"ok\"}",
            "1",
        ),
        (
            "dormouse_autoscaler_decisions_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"Idle\"}",
            "1",
        ),
        (
            "dormouse_readings_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",source=\"custom\",result=\"value\"}",
            "1",
        ),
        (
            "dormouse_autoscaler_sleeps_requested_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"accepted\"}",
            "1",
        ),
        (
            "dormouse_autoscaler_targets{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\"}",
            "1",
        ),
        (
            "dormouse_autoscaler_round_duration_seconds_count{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\"}",
            "1",
        ),
    ] {
        assert_eq!(world.metric(line).as_deref(), Some(value), "{line}");
    }

    world.cluster.carry_through();
    minutes(5).await;
    assert_eq!(plugin.slept().len(), 1, "what sleeps is left alone");
}

#[rstest]
#[case::in_use(vec![custom("requests", 10, "0")], Answer::Values(vec![("web", "1m")]), "InUse")]
#[case::at_the_threshold(vec![custom("requests", 10, "1500m")], Answer::Values(vec![("web", "1.5")]), "Idle")]
#[case::no_rules(vec![], Answer::Values(vec![("web", "0")]), "NoRules")]
#[case::absent(vec![custom("requests", 10, "0")], Answer::Values(vec![("other", "0")]), "NoData")]
#[case::failing(vec![custom("requests", 10, "0")], Answer::Error("503"), "Error")]
#[case::hanging(vec![custom("requests", 10, "0")], Answer::Hang, "Error")]
#[case::ambiguous(vec![custom("requests", 10, "0")], Answer::Ambiguous("web"), "Error")]
#[case::garbage(vec![custom("requests", 10, "0")], Answer::Values(vec![("web", "none")]), "Error")]
#[case::wrong_threshold(vec![custom("requests", 10, "few")], Answer::Values(vec![("web", "0")]), "Error")]
#[case::one_of_two(
    vec![custom("requests", 10, "0"), custom("cpu", 10, "0")],
    Answer::Values(vec![("web", "0")]),
    "NoData"
)]
#[tokio::test(start_paused = true)]
async fn readings(#[case] rules: Vec<Rule>, #[case] answer: Answer, #[case] outcome: &str) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![resource("shop", "web", rules)]);
    world.api.says(REQUESTS, answer);
    world.run(&[&plugin]);
    minutes(2).await;
    let key = plugin.key("shop", "web");
    assert_eq!(world.cluster.outcome(&key), outcome);
    assert_eq!(plugin.slept().is_empty(), outcome != "Idle");
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_this_version_does_not_know_is_an_error() {
    let mut world = World::new();
    let source = MetricSource::Other {
        kind: "tides".into(),
        parameters: "{}".into(),
    };
    let rule = Rule {
        source,
        window: MINUTE,
        threshold: "0".into(),
    };
    let plugin = world.plugin("workloads", vec![resource("shop", "web", vec![rule])]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    let (status, reason, message) = world.cluster.condition(&key, "ReadingsAvailable").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ReadingFailed"));
    assert!(message.contains("tides"), "{message}");
    assert_eq!(
        *world.cluster.events.lock().unwrap(),
        [("shop/web".to_owned(), "ReadingFailed".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_left_alone_for_the_largest_window_after_an_update() {
    let mut world = World::new();
    let at = world.start.wall();
    let event = ScaleEvent {
        kind: ScaleEventKind::ResourceUpdated,
        at: Some(at),
    };
    let plugin = world.plugin(
        "workloads",
        vec![Resource {
            last_event: Some(event),
            ..web()
        }],
    );
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    minutes(9).await;
    assert_eq!(world.cluster.outcome(&plugin.key("shop", "web")), "Debounced");
    assert!(plugin.slept().is_empty());
    minutes(2).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn and_after_a_wake_of_which_only_the_sleeper_knows() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "5")]));
    world.run(&[&plugin]);
    minutes(1).await;
    let (key, now) = (plugin.key("shop", "web"), world.cluster.now());
    world
        .cluster
        .edit_state(&key, |state| state.wake_completed = Some(now));
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    minutes(9).await;
    assert_eq!(world.cluster.outcome(&key), "Debounced");
    minutes(2).await;
    assert_eq!(plugin.slept(), ["shop/web"]);
}

#[rstest]
#[case(ResourceState::Changing)]
#[case(ResourceState::Asleep)]
#[tokio::test(start_paused = true)]
async fn what_its_plugin_does_not_call_awake_is_not_touched(#[case] state: ResourceState) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![Resource { state, ..web() }]);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    minutes(3).await;
    assert!(plugin.slept().is_empty());
    assert!(world.api.calls().is_empty(), "and nothing is asked for it");
}

#[rstest]
#[case(Phase::Waking, DesiredState::Awake)]
#[case(Phase::Ready, DesiredState::Awake)]
#[case(Phase::Asleep, DesiredState::Asleep)]
#[tokio::test(start_paused = true)]
async fn what_the_protocol_is_busy_with_is_not_touched(#[case] phase: Phase, #[case] desired: DesiredState) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    world
        .cluster
        .edit_state(&key, |state| (state.phase, state.desired) = (phase, desired));
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    minutes(3).await;
    assert!(plugin.slept().is_empty());
}

#[rstest]
#[case(Phase::Diverting)]
#[case(Phase::Observing)]
#[case(Phase::Draining)]
#[tokio::test(start_paused = true)]
async fn a_rule_above_its_threshold_turns_a_sleep_round(#[case] phase: Phase) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "3")]));
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired) = (phase, DesiredState::Asleep)
    });
    minutes(1).await;
    let state = world.cluster.state(&key);
    assert_eq!((state.desired, state.epoch), (DesiredState::Awake, 1));
    assert!(
        state.reason.contains("requests over 10m is 3"),
        "{}",
        state.reason
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_for_one_reason_goes_in_few_calls_that_are_small() {
    let mut world = World::new();
    let fast = vec![custom("requests", 5, "0")];
    let mut resources: Vec<_> = (0..300)
        .map(|i| resource("shop", &format!("w{i}"), fast.clone()))
        .collect();
    resources.push(web());
    let plugin = world.plugin("workloads", resources);
    let names: Vec<_> = (0..300).map(|i| (&*format!("w{i}").leak(), "0")).collect();
    world
        .api
        .says("apps/Deployment/shop/requests_per_5m", Answer::Values(names));
    world.api.says(REQUESTS, Answer::Values(vec![("web", "0")]));
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(plugin.slept().len(), 301);
    let calls = plugin.scaled.lock().unwrap();
    assert!((11..=60).contains(&calls.len()), "{} calls", calls.len());
    assert!(
        calls
            .iter()
            .all(|(ids, replicas, _)| ids.len() <= 32 && *replicas == 0)
    );
    let alone: Vec<_> = calls
        .iter()
        .filter(|(_, _, reason)| reason.contains("10m"))
        .collect();
    assert_eq!(alone.len(), 1);
    assert_eq!(alone[0].0, ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nothing_changes() {
    let mut world = World::new();
    let resources = vec![
        web(),
        resource("shop", "empty", vec![]),
        resource("shop", "unread", vec![custom("broken", 10, "0")]),
        resource("shop", "silent", vec![custom("silent", 10, "0")]),
    ];
    let plugin = world.plugin("workloads", resources);
    world.api.says(REQUESTS, Answer::Values(vec![("web", "5")]));
    world
        .api
        .says("apps/Deployment/shop/broken_per_10m", Answer::Error("503"));
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(world.cluster.written("record"), 4, "once for each");
    world.cluster.forget_writes();
    let events = world.cluster.events.lock().unwrap().len();

    world.api.says(REQUESTS, Answer::Values(vec![("web", "6")]));
    minutes(60).await;
    assert!(plugin.rounds() > 50);
    assert_eq!(
        *world.cluster.writes.lock().unwrap(),
        [],
        "another value is not another outcome"
    );
    assert_eq!(world.cluster.events.lock().unwrap().len(), events);

    world.api.says(
        "apps/Deployment/shop/broken_per_10m",
        Answer::Values(vec![("unread", "1")]),
    );
    minutes(3).await;
    assert_eq!(world.cluster.written("record"), 1);
    let key = plugin.key("shop", "unread");
    assert_eq!(
        world.cluster.condition(&key, "ReadingsAvailable").unwrap().0,
        "True"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_text_that_changes_every_time_is_not_written_every_time() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    for round in 0..60 {
        let text: &str = format!("timeout number {round}").leak();
        world.api.says(REQUESTS, Answer::Error(text));
        minutes(1).await;
    }
    let written = world.cluster.written("record");
    assert!((2..=13).contains(&written), "{written} writes in an hour");
}
