//! What guests can ask of the cluster, as a trait: the real one talks to the API server, tests use their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::objects::{ListQuery, PatchType, Subresource};
use dormouse_kubernetes::{EventType, ObjectError};
use dormouse_model::{ObjectKey, Phase};
use serde_json::Value;
use tokio::time::Instant;

use crate::types::ResourceId;

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
    /// A newer desired state won.
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
    ) -> Result<Value, ObjectError>;

    /// Reads many objects, each as JSON text.
    async fn list(
        &self,
        plugin: &str,
        query: &ListQuery,
        deadline: Instant,
    ) -> Result<Vec<Arc<str>>, ObjectError>;

    /// Creates an object and returns it as stored.
    async fn create(&self, plugin: &str, object: Value, deadline: Instant) -> Result<Value, ObjectError>;

    /// Patches an object and returns it as stored.
    async fn patch(
        &self,
        plugin: &str,
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: Value,
        deadline: Instant,
    ) -> Result<Value, ObjectError>;

    /// Server-side apply under the field manager `dormouse/<plugin>`.
    async fn apply(
        &self,
        plugin: &str,
        object: Value,
        force: bool,
        deadline: Instant,
    ) -> Result<Value, ObjectError>;

    /// Deletes an object; that it is gone already is not an error.
    async fn delete(&self, plugin: &str, key: &ObjectKey, deadline: Instant) -> Result<(), ObjectError>;

    /// Records an Event on an object.
    async fn event(
        &self,
        plugin: &str,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        deadline: Instant,
    ) -> Result<(), ObjectError>;

    /// Asks that a resource of the plugin goes to sleep.
    async fn sleep(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        deadline: Instant,
    ) -> Result<(), LifecycleError>;

    /// Asks that a resource of the plugin wakes.
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
    fn kubernetes<T>() -> Result<T, ObjectError> {
        Err(ObjectError::Unavailable("this host has no cluster".into()))
    }

    fn lifecycle<T>() -> Result<T, LifecycleError> {
        Err(LifecycleError::Unavailable("this host has no cluster".into()))
    }
}

#[async_trait]
impl HostServices for NoServices {
    async fn get(&self, _: &str, _: &ObjectKey, _: &[String], _: Instant) -> Result<Value, ObjectError> {
        NoServices::kubernetes()
    }

    async fn list(&self, _: &str, _: &ListQuery, _: Instant) -> Result<Vec<Arc<str>>, ObjectError> {
        NoServices::kubernetes()
    }

    async fn create(&self, _: &str, _: Value, _: Instant) -> Result<Value, ObjectError> {
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
    ) -> Result<Value, ObjectError> {
        NoServices::kubernetes()
    }

    async fn apply(&self, _: &str, _: Value, _: bool, _: Instant) -> Result<Value, ObjectError> {
        NoServices::kubernetes()
    }

    async fn delete(&self, _: &str, _: &ObjectKey, _: Instant) -> Result<(), ObjectError> {
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
    ) -> Result<(), ObjectError> {
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
