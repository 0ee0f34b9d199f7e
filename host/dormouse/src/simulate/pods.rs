//! Pods of a simulated target.

use dormouse_scaling::hpa::{ConditionStatus, Pod, PodPhase, ReadyCondition};
use jiff::{SignedDuration, Timestamp};

/// Pods that start, and are ready a while later.
#[derive(Clone, Debug)]
pub(super) struct Pods {
    /// What each of them is.
    template: Pod,
    startup: SignedDuration,
    /// When each was started. The last is the first to go.
    started: Vec<Timestamp>,
}

impl Pods {
    /// So many that have been ready for long.
    pub fn new(count: i32, template: Pod, startup: SignedDuration) -> Self {
        Self {
            template,
            startup,
            started: vec![Timestamp::MIN; size(count)],
        }
    }

    /// Starts the pods that are missing, or ends the youngest.
    pub fn scale(&mut self, replicas: i32, now: Timestamp) {
        self.started.resize(size(replicas), now);
    }

    pub fn ready(&self, now: Timestamp) -> usize {
        self.started
            .iter()
            .filter(|started| self.ready_at(**started) <= now)
            .count()
    }

    /// As the API server lists them.
    pub fn list(&self, now: Timestamp) -> Vec<Pod> {
        let pods = self.started.iter().enumerate();
        let pods = pods.map(|(index, started)| {
            let ready_at = self.ready_at(*started);
            let (status, since) = if ready_at <= now {
                (ConditionStatus::True, ready_at)
            } else {
                (ConditionStatus::False, *started)
            };
            Pod {
                name: name(index),
                phase: PodPhase::Running,
                started: Some(*started),
                ready: Some(ReadyCondition { status, since }),
                ..self.template.clone()
            }
        });
        pods.collect()
    }

    /// When the first of them is ready. None: there are none.
    pub fn first_ready(&self) -> Option<Timestamp> {
        self.started.first().map(|started| self.ready_at(*started))
    }

    /// Names of those that are ready.
    pub fn ready_names(&self, now: Timestamp) -> impl Iterator<Item = String> {
        let ready = self.started.iter().enumerate();
        let ready = ready.filter(move |(_, started)| self.ready_at(**started) <= now);
        ready.map(|(index, _)| name(index))
    }

    fn ready_at(&self, started: Timestamp) -> Timestamp {
        started.saturating_add(self.startup).unwrap_or(Timestamp::MAX)
    }
}

fn size(replicas: i32) -> usize {
    usize::try_from(replicas).unwrap_or_default()
}

fn name(index: usize) -> String {
    format!("pod-{index}")
}
