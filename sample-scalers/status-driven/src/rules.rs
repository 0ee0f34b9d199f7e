//! When a resource is idle, as its own spec says.

use std::time::Duration;

use dormouse_sdk::{Rule, duration};
use serde::Deserialize;
use serde_json::Value;

use crate::path;
use crate::platform::Platform;

/// One rule as v3io's resource-scalers write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScaleResource {
    metric_name: String,
    window_size: Window,
    #[serde(default)]
    threshold: Threshold,
}

/// A duration in the style of Go, or a number of nanoseconds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Window {
    Text(String),
    Nanoseconds(u64),
}

/// A number, or a quantity as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Threshold {
    Number(serde_json::Number),
    Text(String),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Number(0.into())
    }
}

/// The rules of an object: its own, else those of the configuration.
///
/// # Errors
/// What is wrong with its own, in words for its owner.
pub fn of(platform: &Platform, object: &Value) -> Result<Vec<Rule>, String> {
    let own = platform
        .rules_path
        .as_deref()
        .and_then(|at| Some((at, path::get(object, at)?)));
    match own {
        Some((at, written)) if !is_empty(written) => {
            read(written).map_err(|problem| format!("{at}: {problem}"))
        }
        _ => Ok(platform.default_rules.clone()),
    }
}

fn is_empty(written: &Value) -> bool {
    written.is_null() || written.as_array().is_some_and(Vec::is_empty)
}

/// Reads a list of `{metricName, windowSize, threshold}`.
///
/// # Errors
/// Which entry is wrong, and the accepted form.
pub fn read(written: &Value) -> Result<Vec<Rule>, String> {
    let form = r#"write a list such as [{"metricName": "requests", "windowSize": "10m", "threshold": 0}]"#;
    let entries = written
        .as_array()
        .ok_or_else(|| format!("it is not a list; {form}"))?;
    let read = |(index, entry): (usize, &Value)| {
        one(entry).map_err(|problem| format!("rule {}: {problem}; {form}", index + 1))
    };
    entries.iter().enumerate().map(read).collect()
}

fn one(entry: &Value) -> Result<Rule, String> {
    let ScaleResource {
        metric_name,
        window_size,
        threshold,
    } = ScaleResource::deserialize(entry).map_err(|error| error.to_string())?;
    if metric_name.is_empty() {
        return Err("metricName is empty".into());
    }
    let window = match window_size {
        Window::Text(text) => duration::parse(&text).map_err(|error| format!("windowSize: {error}"))?,
        Window::Nanoseconds(nanoseconds) => Duration::from_nanos(nanoseconds),
    };
    if window.is_zero() {
        return Err("windowSize must be longer than zero".into());
    }
    let threshold = match threshold {
        Threshold::Number(number) => number.to_string(),
        Threshold::Text(text) => text,
    };
    let threshold: dormouse_sdk::Quantity =
        threshold.parse().map_err(|error| format!("threshold: {error}"))?;
    Ok(Rule::custom(metric_name, window, threshold))
}

#[cfg(test)]
mod tests {
    use dormouse_sdk::duration::{minutes, seconds};
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_as_v3io_writes_them() {
        let written = json!([
            {"metricName": "requests", "windowSize": "10m", "threshold": 0},
            {"metricName": "jobs", "windowSize": 30_000_000_000_u64, "threshold": "500m"},
            {"metricName": "errors", "windowSize": "1h"}
        ]);
        let half: dormouse_sdk::Quantity = "500m".parse().expect("a quantity");
        let expected = vec![
            Rule::custom("requests", minutes(10), 0),
            Rule::custom("jobs", seconds(30), half),
            Rule::custom("errors", minutes(60), 0),
        ];
        assert_eq!(read(&written), Ok(expected));
    }

    #[test]
    fn a_wrong_rule_is_named_with_the_accepted_form() {
        for (written, part) in [
            (json!({}), "not a list"),
            (
                json!([{"metricName": "a", "windowSize": "10m"}, {"windowSize": "10m"}]),
                "rule 2",
            ),
            (json!([{"metricName": "a"}]), "windowSize"),
            (json!([{"metricName": "a", "windowSize": "10"}]), "no unit"),
            (
                json!([{"metricName": "a", "windowSize": "0s"}]),
                "longer than zero",
            ),
            (json!([{"metricName": "a", "windowSize": 0}]), "longer than zero"),
            (
                json!([{"metricName": "", "windowSize": "1m"}]),
                "metricName is empty",
            ),
            (
                json!([{"metricName": "a", "windowSize": "1m", "threshold": "few"}]),
                "`few` is not a quantity",
            ),
        ] {
            let problem = read(&written).expect_err("wrong");
            assert!(
                problem.contains(part) && problem.contains("write a list such as"),
                "{problem}"
            );
        }
    }
}
