//! What evaluators are asked and answer.

use std::time::Duration;

use dormouse_model::Quantity;
use jiff::Timestamp;

use super::{Reading, ResourceId};

/// How many replicas does a resource need?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which.
    pub resource: ResourceId,
    /// As its owner wrote them: a JSON object.
    pub parameters: String,
    /// So many it has.
    pub replicas: u32,
    /// So many of them are ready.
    pub ready_replicas: u32,
    /// The fewest.
    pub min_replicas: u32,
    /// The most.
    pub max_replicas: u32,
    /// What was read.
    pub metrics: Vec<EvaluatedMetric>,
    /// Now.
    pub at: Timestamp,
    /// When the number was last changed.
    pub last_change: Option<Timestamp>,
}

/// What was read for one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluatedMetric {
    /// Its name.
    pub name: String,
    /// The last reading.
    pub now: Reading,
    /// What it should be.
    pub target: Option<Quantity>,
    /// Earlier values, the oldest first.
    pub history: Vec<PastValue>,
}

/// A value of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastValue {
    /// When it was read.
    pub at: Timestamp,
    /// The value.
    pub value: Quantity,
}

/// So many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// Not yet between the bounds.
    pub replicas: u32,
    /// Why.
    pub reason: String,
    /// It is not written before then.
    pub not_before: Option<Timestamp>,
    /// When to ask again.
    pub ask_again: Option<Duration>,
}
