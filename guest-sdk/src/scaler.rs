//! What a plugin implements.

use std::time::Duration;

use crate::{Error, ObjectRef, Resource, ResourceHandle, ResourceId, Result, lifecycle};

/// Decides what can sleep. Only [`resources`](Scaler::resources) has no default.
///
/// Every call runs in a fresh instance made by [`Default`]: nothing kept in a field or a global survives the call.
pub trait Scaler: Default + 'static {
    /// Defaults that suit this plugin's platform, asked once at start and after a reload: the place to refuse a wrong
    /// configuration early. A flag, an environment variable or a Helm value overrides each field by itself.
    ///
    /// # Errors
    /// [`Error::InvalidConfiguration`] keeps the plugin from starting and shows the text to the operator.
    fn settings(&self) -> Result<Settings> {
        Ok(Settings::default())
    }

    /// Every resource that this plugin looks after, awake or not.
    ///
    /// A resource that is no longer returned is woken, its Services are restored, and its Sleeper is deleted. So leave
    /// one out only when it is really gone or no longer wanted.
    ///
    /// # Errors
    /// Fail the call when you cannot know: everything then stays as it is, and the host asks again.
    fn resources(&self) -> Result<Vec<Resource>>;

    /// Scales resources to `replicas`: 0 puts them to sleep, more wakes them. One outcome for each resource, in their
    /// order. The host may ask again. `reason` is for people: pass it on.
    ///
    /// Default: [`lifecycle::sleep`] or [`lifecycle::wake`], for each resource.
    ///
    /// # Errors
    /// Only when nothing can be said of any resource; what concerns one is its [`Outcome::Failed`].
    fn set_scale(&self, resources: &[ResourceHandle], replicas: u32, reason: &str) -> Result<Vec<Outcome>> {
        Ok(resources
            .iter()
            .map(|resource| through_lifecycle(&resource.id, replicas, reason))
            .collect())
    }

    /// Where requests for a resource go.
    ///
    /// Default: an empty name, which leaves it to the host: the first Service of the resource as
    /// [`resources`](Scaler::resources) returns it; a resource without one is reached by a Service of its own name.
    ///
    /// # Errors
    /// [`Error::UnknownResource`] when it is not one of this plugin's.
    fn service(&self, resource: &ResourceHandle) -> Result<ServiceTarget> {
        // The host knows what `resources` listed; asking it anew for each resource, in each DLX, would cost a whole list each.
        let _ = resource;
        Ok(ServiceTarget::new(""))
    }
}

/// Records the desired state on the resource's Sleeper and leaves the rest to the host.
///
/// [`Outcome::Accepted`] also when it is so already: the host watches the Sleeper and sees it at once, whereas a cached
/// look at the Sleeper could be a moment behind. A refused or failed request is [`Outcome::Failed`].
pub fn through_lifecycle(resource: &ResourceId, replicas: u32, reason: &str) -> Outcome {
    let requested = match replicas {
        0 => lifecycle::sleep(resource, reason),
        _ => lifecycle::wake(resource, reason),
    };
    match requested {
        Ok(()) => Outcome::Accepted,
        Err(error) => Outcome::Failed(error.into()),
    }
}

/// Optional: which resources a path of an Ingress or HTTPRoute routes to. Without it the DLX takes the resource that
/// lists the backend Service of the path.
pub trait IngressTargets: Default + 'static {
    /// One or two resources: with two, the multi-target strategy picks. None: none of this plugin's.
    ///
    /// # Errors
    /// The path then routes nowhere until the host asks again.
    fn targets(&self, backend: &PathBackend) -> Result<Vec<ResourceId>>;
}

/// Defaults that a plugin wants. None keeps the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How often idleness is decided.
    pub scale_interval: Option<Duration>,
    /// The kind that custom metrics describe.
    pub metrics_resource: Option<GroupKind>,
    /// The header that names the target resource of a request, such as `X-Function-Name`.
    pub target_name_header: Option<String>,
    /// The header that holds a path to add to the request's path.
    pub target_path_header: Option<String>,
    /// The Service port that header-routed requests go to.
    pub target_port: Option<u16>,
    /// How long a request is held.
    pub readiness_timeout: Option<Duration>,
    /// What the DLX does with a request that names two resources.
    pub multi_target_strategy: Option<MultiTargetStrategy>,
}

/// A kind without its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKind {
    /// Group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

/// What the DLX does with a request that names two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiTargetStrategy {
    /// Either.
    Random,
    /// The first.
    Primary,
    /// The second.
    Canary,
}

/// What became of the request for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so already.
    Done,
    /// `lifecycle` carries it out; the host watches the Sleeper.
    Accepted,
    /// The platform carries it out; the host watches this field.
    Watch(FieldCondition),
    /// This resource failed; others are not affected.
    Failed(Error),
    /// Something that the contract has no case for yet. A host that does not know it says so on the resource, and asks again.
    Other(String),
}

/// A condition on a field of a Kubernetes object, for the host to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCondition {
    /// The object, in the namespace of the resource.
    pub object: ObjectRef,
    /// Dotted path, such as `status.state`.
    pub path: String,
    /// The request is fulfilled when the field has one of these values.
    pub ready_values: Vec<String>,
    /// The request has failed when the field has one of these values.
    pub failed_values: Vec<String>,
}

/// Where the DLX finds the pods of a resource: a Service in the resource's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Name of the Service.
    pub name: String,
    /// The Service port. None: the target port of the settings, else the only port of the Service.
    pub port: Option<u16>,
}

impl ServiceTarget {
    /// A Service by name, its port by the rules.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            port: None,
        }
    }

    /// Sets the Service port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

/// One path of an Ingress or HTTPRoute and the Service behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathBackend {
    /// Namespace.
    pub namespace: String,
    /// Name of the Ingress.
    pub ingress: String,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// Host of the rule; may be a wildcard.
    pub host: String,
    /// Path of the rule.
    pub path: String,
    /// Backend Service.
    pub service: String,
}
