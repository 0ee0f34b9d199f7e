//! Between the types of this crate and those of the contract.

use std::time::Duration;

use crate::evaluator::{EvaluatedMetric, Question, Reading, Recommendation};
use crate::guest::bindings::about::exports::dormouse::plugin::about as wit_about;
use crate::guest::bindings::evaluator::dormouse::plugin::readings as wit_readings;
use crate::guest::bindings::evaluator::exports::dormouse::plugin::evaluator as wit_evaluator;
use crate::guest::bindings::trigger::exports::dormouse::plugin::trigger as wit_trigger;
use crate::guest::convert::{millis, timestamp, unix_millis};
use crate::trigger::{Observation, TriggerTarget};
use crate::{About, Error};

pub(super) fn description(about: About, version: &str) -> wit_about::Description {
    wit_about::Description {
        config_schema: about.config_schema().map(|schema| schema.to_string()),
        title: about.title,
        version: version.to_owned(),
        wants: about
            .wants
            .into_iter()
            .map(|grant| wit_about::WantedGrant {
                name: grant.name.to_owned(),
                value: grant.value.to_string(),
                why: grant.why,
            })
            .collect(),
        extra: Vec::new(),
    }
}

impl From<Reading> for wit_readings::Reading {
    fn from(reading: Reading) -> Self {
        match reading {
            Reading::Value(value) => Self::Value(value.to_string()),
            Reading::NoData(why) => Self::NoData(why),
            Reading::Error(why) => Self::Error(why),
        }
    }
}

impl TryFrom<wit_readings::Reading> for Reading {
    type Error = Error;

    fn try_from(reading: wit_readings::Reading) -> Result<Self, Error> {
        Ok(match reading {
            wit_readings::Reading::Value(value) => Self::Value(value.parse()?),
            wit_readings::Reading::NoData(why) => Self::NoData(why),
            wit_readings::Reading::Error(why) | wit_readings::Reading::Other(why) => Self::Error(why),
        })
    }
}

impl TryFrom<wit_evaluator::Question> for Question {
    type Error = Error;

    fn try_from(question: wit_evaluator::Question) -> Result<Self, Error> {
        Ok(Self {
            resource: question.resource.into(),
            parameters: question.parameters,
            replicas: question.replicas,
            ready_replicas: question.ready_replicas,
            min_replicas: question.min_replicas,
            max_replicas: question.max_replicas,
            metrics: question
                .metrics
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, Error>>()?,
            at: timestamp(question.at),
            last_change: question.last_change.map(timestamp),
        })
    }
}

impl TryFrom<wit_evaluator::Metric> for EvaluatedMetric {
    type Error = Error;

    fn try_from(metric: wit_evaluator::Metric) -> Result<Self, Error> {
        let past = |past: wit_evaluator::PastValue| Ok((timestamp(past.at), past.value.parse()?));
        Ok(Self {
            name: metric.name,
            now: metric.now.try_into()?,
            target: metric.target.map(|target| target.parse()).transpose()?,
            history: metric
                .history
                .into_iter()
                .map(past)
                .collect::<Result<_, Error>>()?,
        })
    }
}

impl From<Recommendation> for wit_evaluator::Recommendation {
    fn from(recommended: Recommendation) -> Self {
        Self {
            replicas: recommended.replicas,
            reason: recommended.reason,
            not_before: recommended.not_before.map(unix_millis),
            ask_again: recommended.ask_again.map(millis),
            extra: Vec::new(),
        }
    }
}

impl From<wit_trigger::Target> for TriggerTarget {
    fn from(target: wit_trigger::Target) -> Self {
        Self {
            resource: target.resource.into(),
            parameters: target.parameters,
            window: Duration::from_millis(target.window),
        }
    }
}

impl From<Observation> for wit_trigger::Observation {
    fn from(observation: Observation) -> Self {
        let metrics = observation.metrics.into_iter().map(|metric| wit_trigger::Metric {
            name: metric.name,
            value: metric.value.into(),
            per_replica: metric.per_replica.to_string(),
            extra: Vec::new(),
        });
        Self {
            active: observation.active,
            metrics: metrics.collect(),
            reason: observation.reason,
            ask_again: observation.ask_again.map(millis),
            extra: Vec::new(),
        }
    }
}
