//! What a trigger implements: whether there is work for a resource, and how much of it.

use std::time::Duration;

use crate::evaluator::Reading;
use crate::{Quantity, ResourceId, Result};

/// Says whether there is work. Exported by `register_trigger!`.
pub trait Trigger: Default + 'static {
    /// Whether the parameters of a target are right. Ask nobody.
    ///
    /// # Errors
    /// [`Error::InvalidConfiguration`](crate::Error::InvalidConfiguration) says what is wrong with them, and what would be right.
    fn check(&self, target: &TriggerTarget) -> Result<()>;

    /// Whether there is work for each of the targets: one answer each, in their order, so that one connection serves all. One that
    /// fails puts nothing to sleep.
    ///
    /// # Errors
    /// Only when nothing can be said of any.
    fn observe(&self, targets: &[TriggerTarget]) -> Result<Vec<Result<Observation>>>;
}

/// A resource for which a trigger looks whether there is work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerTarget {
    /// Which resource.
    pub resource: ResourceId,
    /// As its owner wrote them: a JSON object.
    pub parameters: String,
    /// How far back to look.
    pub window: Duration,
}

/// What a trigger saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub(crate) active: Option<bool>,
    pub(crate) metrics: Vec<TriggerMetric>,
    pub(crate) reason: String,
    pub(crate) ask_again: Option<Duration>,
}

/// A number that says how many replicas are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TriggerMetric {
    pub(crate) name: String,
    pub(crate) value: Reading,
    pub(crate) per_replica: Quantity,
}

impl Observation {
    /// There is work: the resource has to be awake.
    pub fn active(reason: impl Into<String>) -> Self {
        Self::new(Some(true), reason)
    }

    /// There is none.
    pub fn idle(reason: impl Into<String>) -> Self {
        Self::new(Some(false), reason)
    }

    /// Nobody knows, which puts nothing to sleep.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::new(None, reason)
    }

    fn new(active: Option<bool>, reason: impl Into<String>) -> Self {
        Self {
            active,
            metrics: Vec::new(),
            reason: reason.into(),
            ask_again: None,
        }
    }

    /// So much work there is, and so much of it is right for one replica.
    #[must_use]
    pub fn metric(mut self, name: impl Into<String>, value: Reading, per_replica: Quantity) -> Self {
        self.metrics.push(TriggerMetric {
            name: name.into(),
            value,
            per_replica,
        });
        self
    }

    /// Ask again after so long, and not sooner.
    #[must_use]
    pub fn ask_again(mut self, after: Duration) -> Self {
        self.ask_again = Some(after);
        self
    }
}
