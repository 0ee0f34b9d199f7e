//! The services that guests get in production: the cluster.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::objects::{ListQuery, PatchType, Subresource};
use dormouse_kubernetes::{EventRecorder, EventType, ObjectError, Objects};
use dormouse_model::ObjectKey;
use dormouse_sleepers::{
    Caches, Cluster, DesiredStateError, DesiredStateWriter, SleepPermission, SleeperKey,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::services::{HostServices, LifecycleError, SleeperView};
use crate::types::ResourceId;

/// The services of a cluster.
///
/// Deadlines are kept by the caller, which drops the request: each request has a timeout of its own, and every write is
/// conditional, so one that is dropped half-way leaves nothing that the next round does not put right.
#[derive(Clone)]
pub struct ClusterServices {
    objects: Objects,
    events: EventRecorder,
    caches: Arc<Caches>,
    desired: DesiredStateWriter,
    permission: SleepPermission,
}

/// Who writes: the field manager of a plugin's writes, and the component of its Events.
fn author(plugin: &str) -> String {
    format!("dormouse/{plugin}")
}

impl ClusterServices {
    /// With the parts of a cluster that guests use.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            objects: cluster.objects().clone(),
            events: cluster.events().clone(),
            caches: Arc::clone(cluster.caches()),
            desired: cluster.desired().clone(),
            permission: cluster.permission().clone(),
        }
    }

    /// Refuses what no grant covers: Dormouse itself, Kubernetes itself, and the Sleepers, whose writers are host functions of
    /// their own.
    async fn check_writable(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let group = key.api_version.split('/').next().unwrap_or_default();
        if group == "dormouse.dev" {
            return Err(ObjectError::Forbidden(format!(
                "objects of {group} are written by Dormouse only; use the lifecycle interface"
            )));
        }
        match self.permission.why_protected(key).await? {
            Some(why) => Err(ObjectError::Forbidden(why)),
            None => Ok(()),
        }
    }
}

/// The identity of an object that is to be written, as far as it has one.
fn identity(object: &Value) -> ObjectKey {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
    ObjectKey {
        api_version: text("/apiVersion").unwrap_or_default(),
        kind: text("/kind").unwrap_or_default(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    }
}

#[async_trait]
impl HostServices for ClusterServices {
    async fn get(
        &self,
        _plugin: &str,
        key: &ObjectKey,
        fields: &[String],
        _deadline: Instant,
    ) -> Result<Value, ObjectError> {
        Ok(self.objects.get(key, fields).await?)
    }

    async fn list(
        &self,
        _plugin: &str,
        query: &ListQuery,
        _deadline: Instant,
    ) -> Result<Vec<Arc<str>>, ObjectError> {
        Ok(self.objects.list(query).await?)
    }

    async fn create(&self, plugin: &str, object: Value, _deadline: Instant) -> Result<Value, ObjectError> {
        self.check_writable(&identity(&object)).await?;
        Ok(self.objects.create(&object, &author(plugin)).await?)
    }

    async fn patch(
        &self,
        plugin: &str,
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: Value,
        _deadline: Instant,
    ) -> Result<Value, ObjectError> {
        self.check_writable(key).await?;
        Ok(self
            .objects
            .patch(key, subresource, kind, &body, &author(plugin))
            .await?)
    }

    async fn apply(
        &self,
        plugin: &str,
        object: Value,
        force: bool,
        _deadline: Instant,
    ) -> Result<Value, ObjectError> {
        self.check_writable(&identity(&object)).await?;
        Ok(self.objects.apply(&object, &author(plugin), force).await?)
    }

    async fn delete(&self, _plugin: &str, key: &ObjectKey, _deadline: Instant) -> Result<(), ObjectError> {
        self.check_writable(key).await?;
        Ok(self.objects.delete(key).await?)
    }

    async fn event(
        &self,
        plugin: &str,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        _deadline: Instant,
    ) -> Result<(), ObjectError> {
        Ok(self
            .events
            .record(regarding, kind, reason, message, &author(plugin))
            .await?)
    }

    async fn sleep(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        _deadline: Instant,
    ) -> Result<(), LifecycleError> {
        let requested = self
            .desired
            .request_sleep(&sleeper_key(plugin, resource), reason)
            .await;
        requested
            .map(drop)
            .map_err(|error| lifecycle_error(error, resource))
    }

    async fn wake(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        _deadline: Instant,
    ) -> Result<(), LifecycleError> {
        let requested = self
            .desired
            .request_wake(&sleeper_key(plugin, resource), reason)
            .await;
        requested
            .map(drop)
            .map_err(|error| lifecycle_error(error, resource))
    }

    async fn state(
        &self,
        plugin: &str,
        resource: &ResourceId,
        _deadline: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError> {
        let Some(sleeper) = self.caches.sleeper(&sleeper_key(plugin, resource)) else {
            return Ok(None);
        };
        let state = sleeper
            .status
            .as_ref()
            .map(|status| status.state.clone())
            .unwrap_or_default();
        let since = state.since.map_or(0, |since| since.as_millisecond());
        Ok(Some(SleeperView {
            phase: state.phase,
            epoch: u64::try_from(state.epoch).unwrap_or_default(),
            since_millis: u64::try_from(since).unwrap_or_default(),
            reason: state.reason,
        }))
    }
}

/// A guest reaches its own Sleepers and no others, because the plugin's name is part of their identity.
fn sleeper_key(plugin: &str, resource: &ResourceId) -> SleeperKey {
    SleeperKey::of_plugin(plugin, &resource.namespace, &resource.name)
}

fn lifecycle_error(error: DesiredStateError, resource: &ResourceId) -> LifecycleError {
    let text = error.to_string();
    match error {
        DesiredStateError::Unknown(_) => LifecycleError::UnknownResource(resource.clone()),
        DesiredStateError::Superseded => LifecycleError::Superseded(text),
        DesiredStateError::Unsupported(why) => LifecycleError::Unsupported(why),
        DesiredStateError::Denied(why) => LifecycleError::Denied(why),
        DesiredStateError::Cluster(error) => match ObjectError::from(error) {
            ObjectError::Timeout(_) => LifecycleError::Timeout(text),
            ObjectError::Unavailable(_) | ObjectError::Conflict(_) => LifecycleError::Unavailable(text),
            _ => LifecycleError::Other(text),
        },
    }
}
