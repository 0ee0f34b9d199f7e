//! A HorizontalPodAutoscaler's decisions.

use dormouse_readings::MetricSamples;
use dormouse_scaling::hpa::{self, Conditions, History, Observed, ObservedScale, Settings};

use super::{Answer, Seen};
use crate::simulate::reading::read;
use crate::simulate::target::Hpa;

/// What a HorizontalPodAutoscaler remembers between two rounds.
#[derive(Clone, Debug)]
pub(in crate::simulate) struct OfHpa<'a> {
    hpa: &'a Hpa,
    /// For each of its metrics, where it is recorded.
    columns: Vec<usize>,
    min_replicas: i32,
    max_replicas: i32,
    settings: Settings,
    conditions: Conditions,
    history: History,
    desired: i32,
}

impl<'a> OfHpa<'a> {
    pub fn new(hpa: &'a Hpa, columns: Vec<usize>, bounds: (i32, i32), replicas: i32) -> Self {
        let (min_replicas, max_replicas) = bounds;
        Self {
            hpa,
            columns,
            min_replicas,
            max_replicas,
            settings: Settings::default(),
            conditions: Conditions::default(),
            history: History::default(),
            desired: replicas,
        }
    }

    pub(super) fn decide(&mut self, seen: &Seen<'_>) -> Answer {
        let Seen { row, pods, now, .. } = *seen;
        let metrics = self.hpa.metrics.iter().zip(&self.columns);
        let samples: Vec<_> = metrics
            .map(|(metric, column)| read(metric, row.get(*column), pods, now))
            .collect();
        let readings: Vec<_> = samples.iter().map(MetricSamples::as_reading).collect();
        let autoscaler = hpa::Autoscaler {
            min_replicas: Some(self.min_replicas),
            max_replicas: self.max_replicas,
            metrics: &self.hpa.metrics,
            behavior: self.hpa.behavior.as_ref(),
        };
        let observed = Observed {
            scale: ObservedScale {
                spec_replicas: seen.replicas,
                status_replicas: seen.replicas,
                has_selector: true,
            },
            pods: &pods.list(now),
            readings: &readings,
            conditions: &self.conditions,
            desired_replicas: self.desired,
            now,
        };
        let history = std::mem::take(&mut self.history);
        let decided = hpa::reconcile(&autoscaler, &self.settings, &observed, history);
        self.conditions = decided.conditions;
        self.history = decided.history;
        self.desired = decided.desired_replicas;
        match decided.decision.replicas {
            None => Answer::Undecided,
            Some(replicas) => Answer::Replicas(replicas, decided.decision.to_string()),
        }
    }
}
