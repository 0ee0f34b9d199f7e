//! Questions to evaluators and their answers.

use super::{Answered, Garbage, answers, ask_again, moment, one_text, unix_millis};
use crate::GuestError;
use crate::bindings::exports::dormouse::plugin::evaluator as wit;
use crate::types::{EvaluatedMetric, PastValue, Question, Recommendation};

impl From<Question> for wit::Question {
    fn from(question: Question) -> wit::Question {
        wit::Question {
            resource: question.resource.into(),
            parameters: question.parameters,
            replicas: question.replicas,
            ready_replicas: question.ready_replicas,
            min_replicas: question.min_replicas,
            max_replicas: question.max_replicas,
            metrics: question.metrics.into_iter().map(Into::into).collect(),
            at: unix_millis(question.at),
            last_change: question.last_change.map(unix_millis),
            extra: Vec::new(),
        }
    }
}

impl From<EvaluatedMetric> for wit::Metric {
    fn from(metric: EvaluatedMetric) -> wit::Metric {
        wit::Metric {
            name: metric.name,
            now: metric.now.into(),
            target: metric.target.map(|target| target.to_string()),
            history: metric.history.into_iter().map(Into::into).collect(),
            extra: Vec::new(),
        }
    }
}

impl From<PastValue> for wit::PastValue {
    fn from(past: PastValue) -> wit::PastValue {
        wit::PastValue {
            at: unix_millis(past.at),
            value: past.value.to_string(),
        }
    }
}

/// One answer for each of `asked` questions. An answer that the contract does not allow fails for its resource only.
pub(crate) fn recommendations(
    list: Vec<Result<wit::Recommendation, wit::PluginError>>,
    asked: usize,
) -> Result<Vec<Result<Recommendation, GuestError>>, Garbage> {
    answers(Answered { list, asked }, |said| {
        Ok(Recommendation {
            replicas: said.replicas,
            reason: one_text(said.reason),
            not_before: said.not_before.map(moment).transpose()?,
            ask_again: ask_again(said.ask_again)?,
        })
    })
}
