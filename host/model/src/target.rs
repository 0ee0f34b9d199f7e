//! What there is to scale, whoever declares it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::{Behavior, MetricSpec, ObjectRef, Owner, Quantity, Query, QuerySource, ScaleEvent};

/// Identity of a target: owner, namespace and name. A bare name never stands for a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// Who declares it.
    pub owner: Owner,
    /// Its namespace.
    pub namespace: String,
    /// Its name, as its owner calls it.
    pub name: String,
}

impl fmt::Display for TargetKey {
    /// `shop/web of plugin workloads`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of {}", self.namespace, self.name, self.owner)
    }
}

/// What its source sees of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It runs and may be put to sleep.
    Awake,
    /// It is at zero.
    Asleep,
    /// It is being brought up or down.
    Changing,
}

/// What is scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    /// These workloads. None: there are only Services, whose traffic can be diverted.
    Workloads(Vec<ObjectRef>),
    /// Its platform scales it by itself, when it is asked to.
    Platform,
}

/// How what is read becomes a recommendation. Whatever the policy, a target sleeps when every trigger is at or below its threshold
/// for its window, and never without triggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing decides how many replicas it has while it is up.
    Idle,
    /// While it is up, its metrics decide how many replicas it has, as a HorizontalPodAutoscaler does.
    Metrics(Arc<MetricsPolicy>),
    /// While it is up, the memory of its pods decides how many replicas it has, as a MemHpa does.
    Memory(Arc<MemoryPolicy>),
}

/// What a MemHpa declares, without mistakes, with a query for the memory of the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// The fewest replicas while it is up, at least 1.
    pub min_replicas: i32,
    /// The most replicas, at least as many.
    pub max_replicas: i32,
    /// Which share of their limits the pods should use, in percent: 1 to 100.
    pub target_utilization: i32,
    /// Asks what the pods use, in bytes; or why nothing can be asked.
    pub usage: Result<Arc<Query>, String>,
    /// When its number of replicas was last changed for it, as far as its source remembers.
    pub last_scale: Option<Timestamp>,
}

/// What a HorizontalPodAutoscaler declares, with a query for each metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsPolicy {
    /// The fewest replicas while it is up, at least 1.
    pub min_replicas: i32,
    /// The most replicas.
    pub max_replicas: i32,
    /// What decides. The highest proposal counts.
    pub metrics: Vec<Metric>,
    /// How fast it is scaled. None: the defaults of Kubernetes.
    pub behavior: Option<Behavior>,
}

/// A metric that decides how many replicas a target has, and where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Which metric, and what it should be.
    pub spec: MetricSpec,
    /// What kind of thing is asked.
    pub source: QuerySource,
    /// What is asked; or why nothing can be.
    pub query: Result<Arc<Query>, String>,
}

/// Where requests go that name a target and no Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Its source could not say now. What was known before stays.
    Unknown,
    /// To the first of its Services.
    First,
    /// To this Service.
    To {
        /// Name of the Service.
        service: String,
        /// Its port. None: its only one.
        port: Option<u16>,
    },
}

/// A number that is read, and what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What is read, for people: `requests`.
    pub name: String,
    /// What kind of thing is asked.
    pub source: QuerySource,
    /// What is asked; or why nothing can be.
    pub query: Result<Arc<Query>, String>,
    /// How far back the number looks.
    pub window: Duration,
    /// The largest number that still counts as idle.
    pub threshold: Quantity,
}

/// Something to scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub key: TargetKey,
    /// The object that it is.
    pub object: ObjectRef,
    /// Whether it has a Sleeper: what may reach zero has, and what has no object of its own in whose status its number of replicas could
    /// be remembered.
    pub has_sleeper: bool,
    /// What its source sees of it.
    pub state: TargetState,
    /// What is scaled.
    pub scale: Scale,
    /// Services whose traffic wakes it.
    pub wake_on: Vec<String>,
    /// Where requests go.
    pub routing: Routing,
    /// What is read.
    pub triggers: Vec<Trigger>,
    /// What follows from it.
    pub policy: Policy,
    /// The longest time between two decisions.
    pub every: Duration,
    /// The last scale event that its source knows of.
    pub last_event: Option<ScaleEvent>,
    /// How long a request is held. None: the DLX's setting.
    pub readiness_timeout: Option<Duration>,
    /// Replicas that a wake restores. None: as many as before.
    pub restore_replicas: Option<u32>,
    /// When it has to be awake again, if it fell asleep before.
    pub wake_at: Option<Timestamp>,
    /// Why it is as it is, as its source says, for people.
    pub reason: Option<String>,
    /// What its source wants back with every call about it.
    pub cookie: Option<String>,
    /// What is wrong with its description, if anything. Then it has no triggers.
    pub problem: Option<String>,
}

impl Target {
    /// One that is scaled while it is up, and never sleeps, of which nothing else is said. It has no Sleeper.
    pub fn only_scaled(
        key: TargetKey,
        object: ObjectRef,
        workload: ObjectRef,
        policy: Policy,
        every: Duration,
    ) -> Self {
        Self {
            key,
            object,
            has_sleeper: false,
            state: TargetState::Awake,
            scale: Scale::Workloads(vec![workload]),
            wake_on: Vec::new(),
            routing: Routing::First,
            triggers: Vec::new(),
            policy,
            every,
            last_event: None,
            readiness_timeout: None,
            restore_replicas: None,
            wake_at: None,
            reason: None,
            cookie: None,
            problem: None,
        }
    }

    /// Whether its platform scales it by itself.
    pub fn is_platform(&self) -> bool {
        self.scale == Scale::Platform
    }

    /// The workloads that are scaled.
    pub fn workloads(&self) -> &[ObjectRef] {
        match &self.scale {
            Scale::Workloads(workloads) => workloads,
            Scale::Platform => &[],
        }
    }

    /// Whether one of its triggers counts the traffic that the DLX observes.
    pub fn is_observed(&self) -> bool {
        self.triggers
            .iter()
            .any(|trigger| trigger.source == QuerySource::ObservedTraffic)
    }
}
