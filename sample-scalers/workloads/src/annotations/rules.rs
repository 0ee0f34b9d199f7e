//! The annotation `dormouse.dev/rules`: when a workload is idle.

use std::time::Duration;

use dormouse_sdk::{MetricSource, Quantity, Rule};

use super::source::{self, Written};

/// What the annotation accepts.
pub(super) const ACCEPTED: &str = "write a JSON list such as [{\"metric\": \"requests\", \"window\": \"10m\", \"threshold\": \"0\"}] or \
     [{\"source\": \"observed-traffic\", \"window\": \"15m\"}]";

/// `threshold` is by default zero. Without `default` each rule has to say its window.
pub(super) fn read(text: &str, default: Option<Duration>) -> Result<Vec<Rule>, String> {
    let written = source::list(text)?;
    if written.is_empty() {
        return Err("an empty list is never idle; leave the annotation out for observed traffic".into());
    }
    written
        .into_iter()
        .enumerate()
        .map(|(index, rule)| {
            understand(rule, default).map_err(|problem| format!("rule {}: {problem}", index + 1))
        })
        .collect()
}

fn understand(written: Written, default: Option<Duration>) -> Result<Rule, String> {
    let goals = [
        ("value", &written.value),
        ("average", &written.average),
        ("utilization", &written.utilization),
    ];
    if let Some((goal, _)) = goals.iter().find(|(_, given)| given.is_some()) {
        return Err(format!(
            "`{goal}` says how many replicas there should be; write that in dormouse.dev/targets"
        ));
    }
    let window = written.window()?.or(default);
    let window =
        window.ok_or("it has no window, and there is no dormouse.dev/sleep-after whose it could be")?;
    let threshold = match &written.threshold {
        Some(threshold) => threshold.quantity("threshold")?,
        None => Quantity::from(0),
    };
    let source = written.source()?;
    if source == MetricSource::ObservedTraffic && !threshold.is_zero() {
        return Err("the threshold of observed traffic must be 0".into());
    }
    let counts_requests = match source {
        MetricSource::DlxConcurrency => Some("dlx-concurrency"),
        MetricSource::DlxRate => Some("dlx-rate"),
        _ => None,
    };
    if let Some(name) = counts_requests {
        return Err(format!(
            "{name} says how many replicas there should be; write it in dormouse.dev/targets, or observed-traffic here"
        ));
    }
    Ok(Rule {
        source,
        window,
        threshold,
    })
}
