//! Questions to evaluators and triggers, as authors write them, and the answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse_model::{Quantity, format_duration, parse_duration};
use dormouse_plugin::types::{
    EvaluatedMetric, Observation, Question, Reading, Recommendation, ResourceId, TriggerMetric, TriggerTarget,
};
use dormouse_plugin::{GuestError, Plugin};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A question about one resource.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default = "default_namespace")]
    namespace: String,
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    /// Of a trigger.
    #[serde(default = "default_window")]
    window: String,
    /// Of an evaluator.
    #[serde(default = "one")]
    replicas: u32,
    ready_replicas: Option<u32>,
    #[serde(default = "one")]
    min_replicas: u32,
    #[serde(default = "many")]
    max_replicas: u32,
    #[serde(default)]
    metrics: Vec<AskedMetric>,
    last_change: Option<Timestamp>,
}

/// What was read for a metric. Without a value there is no data.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AskedMetric {
    name: String,
    value: Option<Quantity>,
    target: Option<Quantity>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn default_window() -> String {
    "1m".to_owned()
}

fn one() -> u32 {
    1
}

fn many() -> u32 {
    10
}

/// One question, or a list of them.
pub(super) fn read(text: &str) -> Result<Vec<Asked>> {
    let read: Value = serde_yaml::from_str(text).context("it is not YAML")?;
    let list = match read {
        Value::Array(list) => list,
        one => vec![one],
    };
    let asked: Vec<Asked> = list
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()
        .context("a question has a name and parameters, and may have more")?;
    ensure!(!asked.is_empty(), "there is no question in it");
    Ok(asked)
}

impl Asked {
    fn id(&self) -> ResourceId {
        ResourceId::new(&self.namespace, &self.name)
    }

    fn parameters(&self) -> String {
        Value::Object(self.parameters.clone()).to_string()
    }

    fn target(&self) -> Result<TriggerTarget> {
        let window: Duration =
            parse_duration(&self.window).with_context(|| format!("window {:?}", self.window))?;
        Ok(TriggerTarget {
            resource: self.id(),
            parameters: self.parameters(),
            window,
        })
    }

    fn question(&self) -> Question {
        let metrics = self.metrics.iter().map(|metric| EvaluatedMetric {
            name: metric.name.clone(),
            now: metric.value.map_or_else(
                || Reading::NoData("the question has no value".to_owned()),
                Reading::Value,
            ),
            target: metric.target,
            history: Vec::new(),
        });
        Question {
            resource: self.id(),
            parameters: self.parameters(),
            replicas: self.replicas,
            ready_replicas: self.ready_replicas.unwrap_or(self.replicas),
            min_replicas: self.min_replicas,
            max_replicas: self.max_replicas,
            metrics: metrics.collect(),
            at: Timestamp::now(),
            last_change: self.last_change,
        }
    }
}

pub(super) async fn evaluate(plugin: &Plugin, asked: Vec<Asked>) -> Result<Value> {
    let questions = asked.iter().map(Asked::question).collect();
    Ok(answers(&asked, plugin.evaluate(questions).await?, recommendation))
}

pub(super) async fn check(plugin: &Plugin, asked: Vec<Asked>) -> Result<Value> {
    let mut checked = Vec::new();
    for one in &asked {
        match plugin.check(one.target()?).await {
            Ok(()) => checked.push(Ok(())),
            Err(dormouse_plugin::PluginError::Guest(why)) => checked.push(Err(why)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answers(&asked, checked, |&()| json!("right")))
}

pub(super) async fn observe(plugin: &Plugin, asked: Vec<Asked>) -> Result<Value> {
    let targets = asked.iter().map(Asked::target).collect::<Result<_>>()?;
    Ok(answers(&asked, plugin.observe(targets).await?, observation))
}

fn answers<T>(asked: &[Asked], answered: Vec<Result<T, GuestError>>, show: impl Fn(&T) -> Value) -> Value {
    let answers = asked.iter().zip(answered).map(|(asked, answer)| {
        let (what, said) = match answer {
            Ok(answer) => ("answer", show(&answer)),
            Err(error) => ("error", error.to_string().into()),
        };
        json!({ "resource": asked.id().to_string(), what: said })
    });
    json!({ "answers": answers.collect::<Vec<_>>() })
}

fn recommendation(said: &Recommendation) -> Value {
    let mut shown = json!({ "replicas": said.replicas, "reason": said.reason });
    if let Some(at) = said.not_before {
        shown["notBefore"] = at.to_string().into();
    }
    with_ask_again(shown, said.ask_again)
}

fn observation(said: &Observation) -> Value {
    let mut shown = json!({ "active": said.active, "reason": said.reason });
    if !said.metrics.is_empty() {
        shown["metrics"] = said.metrics.iter().map(metric).collect();
    }
    with_ask_again(shown, said.ask_again)
}

fn with_ask_again(mut shown: Value, after: Option<Duration>) -> Value {
    if let Some(after) = after {
        shown["askAgain"] = format_duration(after).into();
    }
    shown
}

fn metric(said: &TriggerMetric) -> Value {
    let value = match &said.value {
        Reading::Value(value) => value.to_string(),
        Reading::NoData(why) => format!("no data ({why})"),
        Reading::Error(why) => format!("error ({why})"),
    };
    json!({ "name": said.name, "value": value, "perReplica": said.per_replica.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_needs_a_name_and_nothing_unknown() {
        let asked = read("{name: web, parameters: {from: 8}, window: 5m}").unwrap();
        assert_eq!(asked[0].id().to_string(), "default/web");
        assert_eq!(asked[0].parameters(), r#"{"from":8}"#);
        assert_eq!(asked[0].target().unwrap().window, Duration::from_secs(300));
        assert_eq!(read("[{name: a}, {name: b}]").unwrap().len(), 2);
        for wrong in [
            "{}",
            "[]",
            "{name: web, parameter: {}}",
            "{name: web, replicas: many}",
            "- [",
            "web",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
