//! What triggers are asked and answer.

use std::time::Duration;

use dormouse_model::Quantity;

use super::{Reading, ResourceId};

/// A resource for which a trigger looks whether there is work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerTarget {
    /// Which.
    pub resource: ResourceId,
    /// As its owner wrote them: a JSON object.
    pub parameters: String,
    /// How far back it looks.
    pub window: Duration,
}

/// What it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Whether the resource has to be awake. None: not known.
    pub active: Option<bool>,
    /// Numbers that say how many replicas are needed.
    pub metrics: Vec<TriggerMetric>,
    /// Why.
    pub reason: String,
    /// When to ask again.
    pub ask_again: Option<Duration>,
}

/// A number that says how many replicas are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerMetric {
    /// Its name.
    pub name: String,
    /// The number.
    pub value: Reading,
    /// So much of it is right for one replica.
    pub per_replica: Quantity,
}
