//! What a scaler looks after.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::kubernetes::Workload;
use crate::rule::Rule;
use crate::scaling::Scaling;

/// Which resource is meant. Together with the plugin's own name it is the identity of a Sleeper.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// Namespace.
    pub namespace: String,
    /// Name, unique among this plugin's resources in the namespace. Often, not always, the name of an object.
    pub name: String,
}

impl ResourceId {
    /// Names a resource.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
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

/// A resource as a call names it: with the cookie that [`Resource::cookie`] gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceHandle {
    /// Which.
    pub id: ResourceId,
    /// As the last listing said. None: it had none, or the host has not listed the resource yet.
    pub cookie: Option<String>,
}

impl From<ResourceId> for ResourceHandle {
    /// Without a cookie.
    fn from(id: ResourceId) -> Self {
        Self { id, cookie: None }
    }
}

/// A Kubernetes object in the namespace of the resource that names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Group and version as in manifests, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object.
    pub fn new(api_version: impl Into<String>, kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
        }
    }
}

/// What can be seen of a resource right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It runs, or could run, and may be put to sleep.
    #[default]
    Awake,
    /// It is scaled to zero.
    Asleep,
    /// Something is bringing it up or down; the host leaves it alone and asks again.
    Changing,
}

/// What last happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleEventKind {
    /// It was updated, and deserves time to prove itself.
    ResourceUpdated,
    /// It is being woken.
    ScaleFromZeroStarted,
    /// It was woken.
    ScaleFromZeroCompleted,
    /// It is being put to sleep.
    ScaleToZeroStarted,
    /// It was put to sleep.
    ScaleToZeroCompleted,
}

/// When what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleEvent {
    /// What.
    pub kind: ScaleEventKind,
    /// When.
    pub at: Timestamp,
}

/// One resource, built step by step:
///
/// ```
/// use dormouse_sdk::prelude::*;
///
/// let web = Resource::new("shop", "web")
///     .workload(ObjectRef::new("apps/v1", "Deployment", "web"))
///     .service("web")
///     .rule(Rule::observed_traffic(minutes(15)));
/// assert_eq!(web.state, State::Awake);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its identity.
    pub id: ResourceId,
    /// The object that *is* the resource; its Sleeper goes when it goes. None: the first of the workloads.
    pub object: Option<ObjectRef>,
    /// What can be seen of it.
    pub state: State,
    /// All must hold for it to be idle. None at all: it is never idle.
    pub rules: Vec<Rule>,
    /// How many replicas it has while it is up. None: nothing changes that.
    pub scaling: Option<Scaling>,
    /// The last event that the plugin knows of; the host adds what it knows itself.
    pub last_event: Option<ScaleEvent>,
    /// Objects with a scale subresource that `lifecycle` scales. Empty when the platform scales by itself.
    pub workloads: Vec<ObjectRef>,
    /// Services, in the same namespace, whose traffic wakes it.
    pub services: Vec<String>,
    /// How long a request is held for it. None: the setting of the DLX.
    pub readiness_timeout: Option<Duration>,
    /// Replicas that a wake restores. None: as many as there were.
    pub restore_replicas: Option<u32>,
    /// When it has to be awake again: if it fell asleep before, it is woken then, to the second and whoever leads.
    pub wake_at: Option<Timestamp>,
    /// Why it is as it is, for people: shown with the last decision.
    pub reason: Option<String>,
    /// Handed back with every call about this resource. At most 4 KiB.
    pub cookie: Option<String>,
}

impl Resource {
    /// A resource that is awake and has nothing yet: no workload, no Service, no rule.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            id: ResourceId::new(namespace, name),
            object: None,
            state: State::Awake,
            rules: Vec::new(),
            scaling: None,
            last_event: None,
            workloads: Vec::new(),
            services: Vec::new(),
            readiness_timeout: None,
            restore_replicas: None,
            wake_at: None,
            reason: None,
            cookie: None,
        }
    }

    /// A resource that is one workload: its name, state, and last update.
    pub fn of(workload: &Workload) -> Self {
        let mut resource = Self::new(workload.namespace(), workload.name()).workload(workload.reference());
        resource.state = workload.state();
        resource.last_event = workload.last_event();
        resource
    }

    /// Sets the object that is the resource. Needed only when there is no workload, or another object owns it.
    pub fn object(mut self, object: ObjectRef) -> Self {
        self.object = Some(object);
        self
    }

    /// Sets the state.
    pub fn state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// Adds a workload that is scaled with it.
    pub fn workload(mut self, workload: ObjectRef) -> Self {
        self.workloads.push(workload);
        self
    }

    /// Adds a Service whose traffic wakes it.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.services.push(name.into());
        self
    }

    /// Adds Services whose traffic wakes it.
    pub fn services<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.services.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds a rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds rules.
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// Sets how many replicas it has while it is up.
    pub fn scaling(mut self, scaling: Scaling) -> Self {
        self.scaling = Some(scaling);
        self
    }

    /// Sets what last happened to it.
    pub fn last_event(mut self, kind: ScaleEventKind, at: Timestamp) -> Self {
        self.last_event = Some(ScaleEvent { kind, at });
        self
    }

    /// Sets how long a request is held for it.
    pub fn readiness_timeout(mut self, timeout: Duration) -> Self {
        self.readiness_timeout = Some(timeout);
        self
    }

    /// Sets how many replicas a wake restores.
    pub fn restore_replicas(mut self, replicas: u32) -> Self {
        self.restore_replicas = Some(replicas);
        self
    }

    /// Sets when it has to be awake again.
    pub fn wake_at(mut self, at: Timestamp) -> Self {
        self.wake_at = Some(at);
        self
    }

    /// Sets why it is as it is.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Sets what is handed back with every call about it.
    pub fn cookie(mut self, cookie: impl Into<String>) -> Self {
        self.cookie = Some(cookie.into());
        self
    }
}
