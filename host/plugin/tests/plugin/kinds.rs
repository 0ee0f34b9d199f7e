//! Plugins that are no resource-scalers: evaluators and triggers, what they say of themselves, and what they may ask.

use std::time::Duration;

use dormouse_model::Quantity;
use dormouse_plugin::types::{
    EvaluatedMetric, Observation, PastValue, Question, Reading, ResourceId, TriggerTarget,
};
use dormouse_plugin::{GuestError, PluginConfig, PluginError, Trial, inspect};
use jiff::Timestamp;
use serde_json::json;

use crate::support::{House, config, guest};

async fn asked(configured: PluginConfig) -> (House, std::sync::Arc<dormouse_plugin::Plugin>) {
    let mut house = House::new();
    house.file("asked.wasm", guest("asked"));
    house.configure("asked", configured);
    let plugin = house.only().await;
    (house, plugin)
}

fn web() -> ResourceId {
    ResourceId::new("shop", "web")
}

fn question(parameters: &str) -> Question {
    let at = Timestamp::from_second(1_800_000_000).unwrap_or_default();
    Question {
        resource: web(),
        parameters: parameters.to_owned(),
        replicas: 3,
        ready_replicas: 2,
        min_replicas: 1,
        max_replicas: 10,
        metrics: vec![EvaluatedMetric {
            name: "backlog".to_owned(),
            now: Reading::NoData("not yet".to_owned()),
            target: "1500m".parse::<Quantity>().ok(),
            history: vec![PastValue {
                at,
                value: Quantity::from(7),
            }],
        }],
        at,
        last_change: None,
    }
}

fn target(parameters: &str) -> TriggerTarget {
    TriggerTarget {
        resource: web(),
        parameters: parameters.to_owned(),
        window: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn what_has_no_resources_is_loaded_and_is_no_source_of_any() {
    let (house, plugin) = asked(config("{}")).await;
    assert!(!plugin.is_scaler());
    assert!(house.load().await.scalers().is_empty());
    assert_eq!(
        plugin.resources().await,
        Err(PluginError::NotExported { export: "scaler" })
    );
}

#[tokio::test]
async fn an_evaluator_answers_each_question_and_one_that_fails_spoils_no_other() {
    let (_house, plugin) = asked(config("{}")).await;
    let answers = plugin
        .evaluate(vec![question("{}"), question("fail")])
        .await
        .unwrap();
    let recommended = answers[0].as_ref().unwrap();
    assert_eq!(
        (recommended.replicas, recommended.ask_again),
        (4, Some(Duration::from_secs(120)))
    );
    for part in [
        "ready_replicas: 2",
        "1500m",
        "NoData(\"not yet\")",
        "2027-01-15T08:00:00Z",
    ] {
        assert!(
            recommended.reason.contains(part),
            "{part}: {}",
            recommended.reason
        );
    }
    assert_eq!(
        answers[1],
        Err(GuestError::Transient("the moon is full".to_owned()))
    );
    assert_eq!(plugin.evaluate(Vec::new()).await, Ok(Vec::new()));
    let error = plugin.evaluate(vec![question("panic")]).await.unwrap_err();
    assert!(error.is_misbehaviour(), "{error}");
}

#[tokio::test]
async fn a_trigger_refuses_wrong_parameters_and_knows_the_time_where_it_is() {
    let (_house, plugin) = asked(config("timeZone: Pacific/Kiritimati")).await;
    assert_eq!(plugin.check(target(r#"{"from": 0, "to": 24}"#)).await, Ok(()));
    let refused = plugin.check(target("{}")).await.unwrap_err().to_string();
    assert!(refused.contains("missing field `from`"), "{refused}");

    let hours = [r#"{"from": 0, "to": 24}"#, r#"{"from": 0, "to": 0}"#, "{}"];
    let answers = plugin.observe(hours.map(target).to_vec()).await.unwrap();
    let Ok(Observation { active, reason, .. }) = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!(*active, Some(true));
    let there = Timestamp::now() + jiff::SignedDuration::from_hours(14);
    let hour = there.to_zoned(jiff::tz::TimeZone::UTC).hour();
    // The hour may have changed in between.
    let told = [hour, (hour + 23) % 24].map(|hour| format!("cli: {hour:02} o'clock in Pacific/Kiritimati"));
    assert!(told.contains(reason), "{reason}");
    assert_eq!(answers[1].as_ref().unwrap().active, Some(false));
    assert!(matches!(&answers[2], Err(GuestError::InvalidConfiguration(_))));
}

#[tokio::test]
async fn a_time_zone_that_is_none_is_refused_by_name() {
    let mut house = House::new();
    house.configure("refused", config("timeZone: Mars/Olympus"));
    let error = house.refused(guest("asked")).await;
    assert_eq!(error.code(), "invalid_configuration");
    assert!(error.to_string().contains("\"Mars/Olympus\""), "{error}");
}

#[tokio::test]
async fn a_plugin_says_what_it_is_and_what_it_wants() {
    let house = House::new();
    house.file("asked.wasm", guest("asked"));
    let seen = inspect(&house.directory.path().join("asked.wasm")).await.unwrap();
    assert!(matches!(seen.trial, Trial::Passed { .. }), "{:?}", seen.trial);
    let said = seen.description.unwrap();
    assert_eq!((said.title.as_str(), said.version.as_str()), ("Asked", "1.2.0"));
    assert_eq!(said.config_schema.unwrap()["required"], json!(["season"]));
    let wanted: Vec<_> = said.wants.iter().map(|grant| grant.name.as_str()).collect();
    assert_eq!(wanted, ["kubernetes", "events"]);
    assert_eq!(said.wants[0].value[0]["kind"], "ConfigMap");
    assert!(
        seen.needs.is_empty(),
        "it imports nothing that has to be granted: {:?}",
        seen.needs
    );
}
