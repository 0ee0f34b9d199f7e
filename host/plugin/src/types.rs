//! What plugins are asked and answer, as plain Rust: converted from the WIT types once, checked once.

mod about;
mod evaluator;
mod trigger;

use std::fmt;
use std::time::Duration;

pub use dormouse_model::PodScrape;
use dormouse_model::{Behavior, GroupKind, MetricTarget, ObjectRef, Quantity, ScaleEvent};
use jiff::Timestamp;

pub use about::{Description, WantedGrant};
pub use evaluator::{EvaluatedMetric, PastValue, Question, Recommendation};
pub use trigger::{Observation, TriggerMetric, TriggerTarget};

use crate::GuestError;

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

/// Which resource of a plugin is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// A Kubernetes namespace.
    pub namespace: String,
    /// The resource's name, a DNS subdomain.
    pub name: String,
}

impl ResourceId {
    /// The resource `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ResourceId {
        ResourceId {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A resource as a call names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceHandle {
    /// Which.
    pub id: ResourceId,
    /// What the plugin said to hand back with it. None: nothing, or it is not known.
    pub cookie: Option<String>,
}

impl From<ResourceId> for ResourceHandle {
    /// Without a cookie.
    fn from(id: ResourceId) -> ResourceHandle {
        ResourceHandle { id, cookie: None }
    }
}

/// What the plugin sees of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceState {
    /// It runs and may be put to sleep.
    Awake,
    /// It is at zero.
    Asleep,
    /// It is being brought up or down.
    Changing,
}

/// Where the reading of a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// The DLX steps into the traffic and counts.
    ObservedTraffic,
    /// A metric of the custom metrics API.
    Custom {
        /// Without window suffix.
        name: String,
        /// Which series count.
        selector: Option<String>,
    },
    /// A metric of the external metrics API.
    External {
        /// Its name.
        name: String,
        /// Which series count.
        selector: Option<String>,
    },
    /// What the pods use: `cpu`, `memory` or another name.
    Resource(String),
    /// A query to a Prometheus server.
    Prometheus {
        /// The server's name in the configuration.
        server: String,
        /// With places for namespace, name and window.
        query: String,
    },
    /// A metric that the pods serve.
    Pods(PodScrape),
    /// What the DLX has for the resource right now.
    DlxConcurrency,
    /// What arrives at the DLX for the resource in a second.
    DlxRate,
    /// Nothing is read: the plugin has taken the reading itself.
    Given {
        /// What it is, for people.
        name: String,
        /// The reading, a quantity as the guest wrote it.
        value: String,
    },
    /// A kind of reading that this contract has no case for.
    Other {
        /// The kind.
        kind: String,
        /// Its parameters, JSON text as the guest wrote it.
        parameters: String,
    },
}

/// One condition for idleness: the reading over the window is at or below the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the reading comes from.
    pub source: MetricSource,
    /// How far back it looks.
    pub window: Duration,
    /// A Kubernetes quantity, as the guest wrote it: whoever compares it reports what is wrong with it.
    pub threshold: String,
}

/// A metric that decides how many replicas a resource has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Where the reading comes from.
    pub source: MetricSource,
    /// How far back it looks. None: not said.
    pub window: Option<Duration>,
    /// What it should be.
    pub target: MetricTarget,
}

/// How many replicas a resource has while it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// The fewest, at least 1.
    pub min_replicas: i32,
    /// The most, at least the fewest.
    pub max_replicas: i32,
    /// What decides.
    pub goals: Vec<Goal>,
    /// How fast it is scaled.
    pub behavior: Option<Behavior>,
}

/// One resource that a plugin looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Which.
    pub id: ResourceId,
    /// The object that is the resource.
    pub object: ObjectRef,
    /// What the plugin sees of it.
    pub state: ResourceState,
    /// All must hold for it to be idle; none means never idle.
    pub rules: Vec<Rule>,
    /// How many replicas it has while it is up. None: nothing changes that.
    pub scaling: Option<Scaling>,
    /// The last scale event that the plugin knows of.
    pub last_event: Option<ScaleEvent>,
    /// What is scaled. Empty: the plugin's platform scales by itself.
    pub workloads: Vec<ObjectRef>,
    /// Services whose traffic wakes it.
    pub services: Vec<String>,
    /// How long a request is held. None: the DLX's setting.
    pub readiness_timeout: Option<Duration>,
    /// Replicas that a wake restores. None: as many as before.
    pub restore_replicas: Option<u32>,
    /// When it has to be awake again.
    pub wake_at: Option<Timestamp>,
    /// Why it is as it is, for people.
    pub reason: Option<String>,
    /// What is handed back with every call about it.
    pub cookie: Option<String>,
    /// What is wrong with the plugin's description of this resource, if anything. Then `rules` is empty and `scaling` is none, so that it
    /// is neither put to sleep nor scaled, and what was invalid is left out of the other fields. One bad resource spoils no other.
    pub problem: Option<String>,
}

/// What the DLX does with a request that names two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiTargetStrategy {
    /// Either, by chance.
    Random,
    /// The first.
    Primary,
    /// The second.
    Canary,
}

/// Defaults that suit a plugin's platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How often idleness is decided.
    pub scale_interval: Option<Duration>,
    /// The kind that custom metrics describe.
    pub metrics_resource: Option<GroupKind>,
    /// The header that names the target resource.
    pub target_name_header: Option<String>,
    /// The header that holds a path to add.
    pub target_path_header: Option<String>,
    /// The Service port of header-routed requests.
    pub target_port: Option<u16>,
    /// How long a request is held.
    pub readiness_timeout: Option<Duration>,
    /// What to do with two targets.
    pub multi_target_strategy: Option<MultiTargetStrategy>,
}

/// A condition on a field of an object, for the host to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCondition {
    /// The object.
    pub object: ObjectRef,
    /// Dotted path of the field.
    pub path: String,
    /// Fulfilled when the field has one of these values.
    pub ready_values: Vec<String>,
    /// Failed when the field has one of these values.
    pub failed_values: Vec<String>,
}

/// What became of scaling one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleOutcome {
    /// It is so already.
    Done,
    /// The lifecycle carries it out.
    Accepted,
    /// The platform carries it out; watch this.
    Watch(FieldCondition),
    /// This resource failed.
    Failed(GuestError),
    /// Something that this version does not know.
    Other(String),
}

/// Where the pods of a resource are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// A Service in the resource's namespace.
    pub name: String,
    /// Its port. None: the target port of the settings, else its only port.
    pub port: Option<u16>,
}

/// A path of an Ingress and the Service behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathBackend {
    /// Namespace of the Ingress.
    pub namespace: String,
    /// Name of the Ingress.
    pub ingress: String,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// The host of the rule.
    pub host: String,
    /// The path.
    pub path: String,
    /// The backend Service.
    pub service: String,
}
