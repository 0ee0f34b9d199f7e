//! What guests can ask of the cluster, as a trait: the real one talks to the API server, tests use their own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use crate::types::ResourceId;

/// An object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// None for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
}

/// Which objects to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// None: every namespace that the host watches.
    pub namespace: Option<String>,
    /// As in `kubectl -l`.
    pub label_selector: Option<String>,
    /// Only objects that carry an annotation whose key starts with this.
    pub annotation_prefix: Option<String>,
    /// Dotted paths of the fields that are wanted; empty: all.
    pub fields: Vec<String>,
}

/// How a patch body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' strategic merge patch.
    StrategicMerge,
}

/// Which part of an object a patch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The object itself.
    None,
    /// Its status.
    Status,
    /// Its scale.
    Scale,
}

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// For information.
    Normal,
    /// Needs attention.
    Warning,
}

/// Where a Sleeper is in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serves its own traffic.
    Awake,
    /// The DLX is joining its Services.
    Diverting,
    /// The DLX forwards and counts.
    Observing,
    /// Open connections get their grace.
    Draining,
    /// At zero replicas.
    Asleep,
    /// Selectors and replicas are coming back.
    Waking,
    /// Ready pods are there; the DLX is leaving.
    Ready,
}

/// What a resource's Sleeper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleeperView {
    /// Where it is in the protocol.
    pub phase: Phase,
    /// Rises by one with every wake.
    pub epoch: u64,
    /// Since when, milliseconds since 1970-01-01T00:00:00Z.
    pub since_millis: u64,
    /// Why.
    pub reason: String,
}

/// Why a Kubernetes call of a guest failed. The guest gets the same cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    /// The operator did not grant this, or the host itself may not do it.
    #[error("denied: {0}")]
    Denied(String),
    /// There is no such object or kind.
    #[error("not found: {0}")]
    NotFound(String),
    /// The object changed in between.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Malformed or refused by validation.
    #[error("invalid: {0}")]
    Invalid(String),
    /// No answer before the deadline.
    #[error("timeout: {0}")]
    Timeout(String),
    /// The API server cannot be reached or is overloaded.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why a lifecycle call of a guest failed. The guest gets the same cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// There is no Sleeper for this resource.
    #[error("the plugin has no resource {0}")]
    UnknownResource(ResourceId),
    /// The resource cannot be put to sleep this way.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The plugin may not do this, or nobody may.
    #[error("denied: {0}")]
    Denied(String),
    /// A newer wish won.
    #[error("superseded: {0}")]
    Superseded(String),
    /// No answer before the deadline.
    #[error("timeout: {0}")]
    Timeout(String),
    /// The API server cannot be reached or is overloaded.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Everything that a guest can ask of the cluster.
///
/// Calls arrive here only when the grants of `plugin` cover them. `deadline` is what is left of the guest's call: the
/// caller stops waiting then, so an implementation should too.
#[async_trait]
pub trait HostServices: Send + Sync + 'static {
    /// Reads one object; `fields` as in [`ListQuery`].
    async fn get(
        &self,
        plugin: &str,
        key: &ObjectKey,
        fields: &[String],
        deadline: Instant,
    ) -> Result<Value, KubernetesError>;

    /// Reads many objects.
    async fn list(
        &self,
        plugin: &str,
        query: &ListQuery,
        deadline: Instant,
    ) -> Result<Vec<Value>, KubernetesError>;

    /// Creates an object and returns it as stored.
    async fn create(&self, plugin: &str, object: Value, deadline: Instant) -> Result<Value, KubernetesError>;

    /// Patches an object and returns it as stored.
    async fn patch(
        &self,
        plugin: &str,
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: Value,
        deadline: Instant,
    ) -> Result<Value, KubernetesError>;

    /// Server-side apply under the field manager `dormouse/<plugin>`.
    async fn apply(
        &self,
        plugin: &str,
        object: Value,
        force: bool,
        deadline: Instant,
    ) -> Result<Value, KubernetesError>;

    /// Deletes an object; that it is gone already is not an error.
    async fn delete(&self, plugin: &str, key: &ObjectKey, deadline: Instant) -> Result<(), KubernetesError>;

    /// Records an Event on an object.
    async fn event(
        &self,
        plugin: &str,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        deadline: Instant,
    ) -> Result<(), KubernetesError>;

    /// Wishes a resource of the plugin asleep.
    async fn sleep(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        deadline: Instant,
    ) -> Result<(), LifecycleError>;

    /// Wishes a resource of the plugin awake.
    async fn wake(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        deadline: Instant,
    ) -> Result<(), LifecycleError>;

    /// What the resource's Sleeper says, or none.
    async fn state(
        &self,
        plugin: &str,
        resource: &ResourceId,
        deadline: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError>;
}

/// Services for a host that has no cluster, such as `dormouse plugin inspect`: every call answers unavailable.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

impl NoServices {
    fn kubernetes<T>() -> Result<T, KubernetesError> {
        Err(KubernetesError::Unavailable("this host has no cluster".into()))
    }

    fn lifecycle<T>() -> Result<T, LifecycleError> {
        Err(LifecycleError::Unavailable("this host has no cluster".into()))
    }
}

#[async_trait]
impl HostServices for NoServices {
    async fn get(&self, _: &str, _: &ObjectKey, _: &[String], _: Instant) -> Result<Value, KubernetesError> {
        NoServices::kubernetes()
    }

    async fn list(&self, _: &str, _: &ListQuery, _: Instant) -> Result<Vec<Value>, KubernetesError> {
        NoServices::kubernetes()
    }

    async fn create(&self, _: &str, _: Value, _: Instant) -> Result<Value, KubernetesError> {
        NoServices::kubernetes()
    }

    async fn patch(
        &self,
        _: &str,
        _: &ObjectKey,
        _: Subresource,
        _: PatchType,
        _: Value,
        _: Instant,
    ) -> Result<Value, KubernetesError> {
        NoServices::kubernetes()
    }

    async fn apply(&self, _: &str, _: Value, _: bool, _: Instant) -> Result<Value, KubernetesError> {
        NoServices::kubernetes()
    }

    async fn delete(&self, _: &str, _: &ObjectKey, _: Instant) -> Result<(), KubernetesError> {
        NoServices::kubernetes()
    }

    async fn event(
        &self,
        _: &str,
        _: &ObjectKey,
        _: EventType,
        _: &str,
        _: &str,
        _: Instant,
    ) -> Result<(), KubernetesError> {
        NoServices::kubernetes()
    }

    async fn sleep(&self, _: &str, _: &ResourceId, _: &str, _: Instant) -> Result<(), LifecycleError> {
        NoServices::lifecycle()
    }

    async fn wake(&self, _: &str, _: &ResourceId, _: &str, _: Instant) -> Result<(), LifecycleError> {
        NoServices::lifecycle()
    }

    async fn state(
        &self,
        _: &str,
        _: &ResourceId,
        _: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError> {
        NoServices::lifecycle()
    }
}

/// The configuration of a plugin, in the order that `config.all` promises.
pub(crate) type ConfigValues = BTreeMap<String, String>;
