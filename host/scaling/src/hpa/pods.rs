//! Which pods of a target count for a metric.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::usage::{Resources, Usage};
use crate::time::after;

/// A pod, as far as scaling needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: PodPhase,
    /// When it was started: `status.startTime`.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted, even if that is still to come.
    pub deleting: bool,
    /// Its Ready condition.
    pub ready: Option<ReadyCondition>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its init containers, in order.
    pub init_containers: Vec<InitContainer>,
    /// What the pod itself requests of each resource: `spec.resources.requests`.
    pub requests: Resources,
    /// What it takes to run it, of each resource: `spec.overhead`.
    pub overhead: Resources,
}

/// The phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Not all of its containers were started yet.
    Pending,
    /// At least one of its containers runs.
    Running,
    /// All of its containers ended well.
    Succeeded,
    /// All of its containers ended, and one of them badly.
    Failed,
    /// Its node does not answer.
    Unknown,
}

/// The Ready condition of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyCondition {
    /// Its status.
    pub status: ConditionStatus,
    /// When the status last changed.
    pub since: Timestamp,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known whether it holds.
    Unknown,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it requests of each resource.
    pub requests: Resources,
    /// What it may use of each resource at most.
    pub limits: Resources,
}

/// A container that is started before the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitContainer {
    /// The container.
    pub container: Container,
    /// Whether it stays up: its restart policy is `Always`.
    pub sidecar: bool,
}

impl Pod {
    /// Whether it answers requests. A pod that is being deleted may.
    pub fn is_ready(&self) -> bool {
        let ready = self
            .ready
            .is_some_and(|ready| ready.status == ConditionStatus::True);
        self.phase == PodPhase::Running && ready
    }
}

/// When the CPU usage of a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// For how long after its start the samples of a pod that is not ready, or not ready for a whole window, are left out.
    pub cpu_initialization_period: Duration,
    /// For how long after its start a pod that became unready is one that has never been ready.
    pub initial_readiness_delay: Duration,
    /// The time.
    pub now: Timestamp,
}

impl Readiness {
    /// Whether the CPU usage of a pod says nothing yet: it may come from starting up.
    fn excludes(&self, pod: &Pod, sample: &Usage) -> bool {
        let (Some(ready), Some(started)) = (pod.ready, pod.started) else {
            return true;
        };
        let is_false = ready.status == ConditionStatus::False;
        if after(started, self.cpu_initialization_period) > self.now {
            is_false || sample.timestamp < after(ready.since, sample.window)
        } else {
            is_false && after(started, self.initial_readiness_delay) > ready.since
        }
    }
}

/// The pods of a target by what their samples are worth. Those that are ready are only counted.
#[derive(Debug, Default)]
pub(super) struct PodGroups<'a> {
    /// How many have a sample that counts.
    pub ready: usize,
    /// Not started or not warmed up: their samples do not count, they do.
    pub unready: HashSet<&'a str>,
    /// Without a sample.
    pub missing: Vec<&'a str>,
    /// On their way out: neither they nor their samples count.
    pub ignored: HashSet<&'a str>,
}

impl<'a> PodGroups<'a> {
    /// Sorts pods into groups. `readiness` matters to CPU only; None for every other metric.
    pub fn of(pods: &'a [Pod], samples: &HashMap<&str, Usage>, readiness: Option<&Readiness>) -> Self {
        let mut groups = Self::default();
        for pod in pods {
            let name = pod.name.as_str();
            if pod.deleting || pod.phase == PodPhase::Failed {
                groups.ignored.insert(name);
            } else if pod.phase == PodPhase::Pending {
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(name) {
                if readiness.is_some_and(|readiness| readiness.excludes(pod, sample)) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.push(name);
            }
        }
        groups
    }
}
