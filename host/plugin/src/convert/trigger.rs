//! Questions to triggers and their answers.

use super::{Answered, Garbage, answers, ask_again, millis, must, one_text, quantity, reading};
use crate::GuestError;
use crate::bindings::exports::dormouse::plugin::trigger as wit;
use crate::types::{Observation, TriggerMetric, TriggerTarget};
use crate::validate;

/// Metrics of one observation.
const METRICS: usize = 32;

impl From<TriggerTarget> for wit::Target {
    fn from(target: TriggerTarget) -> wit::Target {
        wit::Target {
            resource: target.resource.into(),
            parameters: target.parameters,
            window: millis(target.window),
            extra: Vec::new(),
        }
    }
}

/// One answer for each of `asked` targets. An answer that the contract does not allow fails for its resource only.
pub(crate) fn observations(
    list: Vec<Result<wit::Observation, wit::PluginError>>,
    asked: usize,
) -> Result<Vec<Result<Observation, GuestError>>, Garbage> {
    answers(Answered { list, asked }, |said| {
        if said.metrics.len() > METRICS {
            return Err(Garbage(format!(
                "{} metrics, at most {METRICS} are allowed",
                said.metrics.len()
            )));
        }
        Ok(Observation {
            active: said.active,
            metrics: said.metrics.into_iter().map(metric).collect::<Result<_, _>>()?,
            reason: one_text(said.reason),
            ask_again: ask_again(said.ask_again)?,
        })
    })
}

fn metric(said: wit::Metric) -> Result<TriggerMetric, Garbage> {
    must("the name of a metric", &said.name, |name| {
        validate::text(name, 253)
    })?;
    Ok(TriggerMetric {
        name: said.name,
        value: reading(said.value)?,
        per_replica: quantity("per-replica", &said.per_replica)?,
    })
}
