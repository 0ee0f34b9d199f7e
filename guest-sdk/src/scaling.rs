//! How many replicas a resource has while it is up.

use std::time::Duration;

use crate::rule::{MetricSource, PodScrape, Quantity};

/// How many replicas a resource with exactly one workload has while it is up. Zero is not part of it: that is what rules are for.
///
/// ```
/// use dormouse_sdk::prelude::*;
///
/// let scaling = Scaling::between(2, 10)
///     .goal(Goal::utilization("cpu", 50))
///     .goal(Goal::dlx_concurrency(10));
/// assert_eq!(scaling.goals.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// The fewest, at least 1.
    pub min_replicas: u32,
    /// The most.
    pub max_replicas: u32,
    /// The one that asks for most counts. At least one.
    pub goals: Vec<Goal>,
    /// How fast it is scaled: the JSON of `spec.behavior` of a HorizontalPodAutoscaler. None: as that does it without.
    pub behavior: Option<String>,
}

impl Scaling {
    /// Between these numbers, without a goal yet.
    pub fn between(min_replicas: u32, max_replicas: u32) -> Self {
        Self {
            min_replicas,
            max_replicas,
            goals: Vec::new(),
            behavior: None,
        }
    }

    /// Adds a goal.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// Adds goals.
    pub fn goals(mut self, goals: impl IntoIterator<Item = Goal>) -> Self {
        self.goals.extend(goals);
        self
    }

    /// Sets how fast it is scaled.
    pub fn behavior(mut self, json: impl Into<String>) -> Self {
        self.behavior = Some(json.into());
        self
    }
}

/// What the reading of a goal should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoalTarget {
    /// This in total, for all pods together.
    Value(Quantity),
    /// This for each pod.
    Average(Quantity),
    /// This percentage of what the pods request. For resources only.
    Utilization(u32),
}

/// A metric that decides how many replicas a resource has, as one of a HorizontalPodAutoscaler does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Where the reading comes from.
    pub source: MetricSource,
    /// How far back it looks, where it does: a custom metric is then asked for as `<name>_per_<window>`. None: one minute, and a custom
    /// metric is asked for by its plain name.
    pub window: Option<Duration>,
    /// What it should be.
    pub target: GoalTarget,
}

impl Goal {
    /// The pods use so many percent of what they request of a resource (`cpu`, `memory`).
    pub fn utilization(resource: impl Into<String>, percent: u32) -> Self {
        Self::new(
            MetricSource::Resource(resource.into()),
            GoalTarget::Utilization(percent),
        )
    }

    /// Each pod uses so much of a resource (`cpu` in cores, `memory` in bytes).
    pub fn usage(resource: impl Into<String>, average: impl Into<Quantity>) -> Self {
        Self::new(
            MetricSource::Resource(resource.into()),
            GoalTarget::Average(average.into()),
        )
    }

    /// Each pod serves so many requests at once, by what the DLX has for the resource.
    pub fn dlx_concurrency(average: impl Into<Quantity>) -> Self {
        Self::new(MetricSource::DlxConcurrency, GoalTarget::Average(average.into()))
    }

    /// Each pod gets so many requests in a second, by what arrives at the DLX for the resource.
    pub fn dlx_rate(average: impl Into<Quantity>) -> Self {
        Self::new(MetricSource::DlxRate, GoalTarget::Average(average.into()))
    }

    /// Each pod reports so much itself.
    pub fn pods(scrape: PodScrape, average: impl Into<Quantity>) -> Self {
        Self::new(MetricSource::Pods(scrape), GoalTarget::Average(average.into()))
    }

    /// Any source with any target.
    pub fn new(source: MetricSource, target: GoalTarget) -> Self {
        Self {
            source,
            window: None,
            target,
        }
    }

    /// Sets how far back the reading looks.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }
}
