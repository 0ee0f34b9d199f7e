//! The annotations `dormouse.dev/targets` and `dormouse.dev/behavior`: how many replicas a workload has while it is up.

use std::time::Duration;

use dormouse_sdk::{Goal, GoalTarget, MetricSource, Quantity};

use super::source::{self, Number, Written};

/// What `targets` accepts.
pub(super) const ACCEPTED: &str = "write a JSON list such as [{\"source\": \"resource\", \"resource\": \"cpu\", \"utilization\": 50}] or \
     [{\"source\": \"dlx-concurrency\", \"average\": \"10\"}]";

/// What `behavior` accepts.
pub(super) const BEHAVIOR: &str = "write the JSON of spec.behavior of a HorizontalPodAutoscaler, such as \
     {\"scaleDown\": {\"stabilizationWindowSeconds\": 60}}";

/// For how long the DLX remembers what arrived.
const LONGEST_RATE_WINDOW: Duration = Duration::from_secs(60);

/// Sources that count for each pod, and nothing else.
const PER_POD: &str = "it counts for each pod, so write `average`";

pub(super) fn read(text: &str) -> Result<Vec<Goal>, String> {
    let written = source::list(text)?;
    if written.is_empty() {
        return Err("an empty list decides nothing".into());
    }
    written
        .into_iter()
        .enumerate()
        .map(|(index, target)| {
            understand(target).map_err(|problem| format!("target {}: {problem}", index + 1))
        })
        .collect()
}

/// The text of a behavior, if it is an object. What it says is the host's to check.
pub(super) fn behavior(text: &str) -> Result<String, String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value.is_object() => Ok(text.to_owned()),
        Ok(_) => Err("it is not an object".into()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

fn understand(mut written: Written) -> Result<Goal, String> {
    if written.threshold.is_some() {
        return Err("`threshold` says when it is idle; write that in dormouse.dev/rules".into());
    }
    let target = goal_target(&mut written)?;
    let window = written.window()?;
    let source = written.source()?;
    let looks_back = match &source {
        MetricSource::Custom { .. } | MetricSource::Pods(_) | MetricSource::DlxRate => true,
        MetricSource::Prometheus { query, .. } => query.contains("{window}"),
        _ => false,
    };
    if window.is_some() && !looks_back {
        return Err("`window` has no effect on this source".into());
    }
    if source == MetricSource::DlxRate && window.is_some_and(|window| window > LONGEST_RATE_WINDOW) {
        return Err("window: dlx-rate looks back for at most `1m`".into());
    }
    let fits = match (&source, &target) {
        (MetricSource::ObservedTraffic, _) => Err(
            "observed-traffic says whether nobody needs it; dlx-concurrency and dlx-rate say how much it is needed",
        ),
        (MetricSource::Resource(_), GoalTarget::Value(_)) => {
            Err("a resource is compared by `utilization` or `average`")
        }
        (MetricSource::Resource(_), _) => Ok(()),
        (_, GoalTarget::Utilization(_)) => {
            Err("only a resource has a `utilization`; write `average` or `value`")
        }
        (
            MetricSource::Pods(_) | MetricSource::DlxConcurrency | MetricSource::DlxRate,
            GoalTarget::Value(_),
        ) => Err(PER_POD),
        _ => Ok(()),
    };
    fits?;
    Ok(Goal {
        source,
        window,
        target,
    })
}

fn goal_target(written: &mut Written) -> Result<GoalTarget, String> {
    match (
        written.value.take(),
        written.average.take(),
        written.utilization.take(),
    ) {
        (Some(value), None, None) => Ok(GoalTarget::Value(above_zero("value", &value)?)),
        (None, Some(average), None) => Ok(GoalTarget::Average(above_zero("average", &average)?)),
        (None, None, Some(percent)) => {
            let text = percent.text();
            let whole = text.trim_end_matches('%').trim().parse::<u32>().ok();
            let whole = whole.filter(|percent| (1..=1_000_000).contains(percent));
            whole.map(GoalTarget::Utilization).ok_or_else(|| {
                format!("utilization: `{text}` is not a percentage; write a whole number such as 50")
            })
        }
        (None, None, None) => Err(
            "it does not say what the reading should be; write `utilization`, `average` or `value`".into(),
        ),
        _ => Err("it has more than one of `utilization`, `average` and `value`".into()),
    }
}

fn above_zero(field: &str, number: &Number) -> Result<Quantity, String> {
    let quantity = number.quantity(field)?;
    if quantity.is_zero() || quantity.as_str().starts_with('-') {
        return Err(format!("{field}: `{quantity}` is not above zero"));
    }
    Ok(quantity)
}
