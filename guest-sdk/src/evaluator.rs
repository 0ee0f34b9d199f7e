//! What an evaluator implements: how many replicas a resource needs, by what was read.

use std::time::Duration;

use jiff::Timestamp;

use crate::{Quantity, ResourceId, Result};

/// Says how many replicas resources need. It asks nobody and does nothing, so that the same question has the same answer: time and
/// history are part of it. Exported by `register_evaluator!`.
pub trait Evaluator: Default + 'static {
    /// How many replicas the resource needs.
    ///
    /// # Errors
    /// The resource is then left as it is.
    fn evaluate(&self, question: &Question) -> Result<Recommendation>;
}

/// A number that was read, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The number.
    Value(Quantity),
    /// Its source works, and knows nothing.
    NoData(String),
    /// Its source cannot be asked.
    Error(String),
}

/// How many replicas does a resource need?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which resource.
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
    /// When the number was last changed, if that is known.
    pub last_change: Option<Timestamp>,
}

/// What was read for one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluatedMetric {
    /// Its name.
    pub name: String,
    /// The last reading.
    pub now: Reading,
    /// What it should be, if that was said.
    pub target: Option<Quantity>,
    /// Earlier values, the oldest first.
    pub history: Vec<(Timestamp, Quantity)>,
}

/// So many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recommendation {
    pub(crate) replicas: u32,
    pub(crate) reason: String,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) ask_again: Option<Duration>,
}

impl Recommendation {
    /// So many, and why, for people. The host keeps it between minimum and maximum.
    pub fn new(replicas: u32, reason: impl Into<String>) -> Self {
        Self {
            replicas,
            reason: reason.into(),
            not_before: None,
            ask_again: None,
        }
    }

    /// It is not written before then.
    #[must_use]
    pub fn not_before(mut self, at: Timestamp) -> Self {
        self.not_before = Some(at);
        self
    }

    /// Ask again after so long, and not sooner.
    #[must_use]
    pub fn ask_again(mut self, after: Duration) -> Self {
        self.ask_again = Some(after);
        self
    }
}
