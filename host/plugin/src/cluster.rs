//! The services that guests get in production: the cluster.

use async_trait::async_trait;
use dormouse_kubernetes::objects::{self, PatchKind};
use dormouse_kubernetes::{Cluster, ObjectError, SleeperKey, WishError, lifecycle};
use serde_json::Value;
use tokio::time::Instant;

use crate::services::{
    EventType, HostServices, KubernetesError, LifecycleError, ListQuery, ObjectKey, PatchType, Phase,
    SleeperView, Subresource,
};
use crate::types::ResourceId;

/// The services of a cluster.
///
/// Deadlines are kept by the caller, which drops the request: each request has a timeout of its own, and every write is
/// conditional, so one that is dropped half-way leaves nothing that the next round does not put right.
#[derive(Clone)]
pub struct ClusterServices(pub Cluster);

/// Who writes: the field manager of a plugin's writes, and the component of its Events.
fn author(plugin: &str) -> String {
    format!("dormouse/{plugin}")
}

impl ClusterServices {
    /// Refuses what no grant covers: Dormouse itself, Kubernetes itself, and the Sleepers, whose writers are host functions of
    /// their own.
    async fn out_of_house(&self, key: &ObjectKey) -> Result<(), KubernetesError> {
        let group = key.api_version.split('/').next().unwrap_or_default();
        if group == "dormouse.dev" {
            return Err(KubernetesError::Denied(format!(
                "objects of {group} are written by Dormouse only; use the lifecycle interface"
            )));
        }
        match self.0.in_house(&key.into()).await? {
            Some(why) => Err(KubernetesError::Denied(why)),
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
    ) -> Result<Value, KubernetesError> {
        Ok(self.0.object_get(&key.into(), fields).await?)
    }

    async fn list(
        &self,
        _plugin: &str,
        query: &ListQuery,
        _deadline: Instant,
    ) -> Result<Vec<Value>, KubernetesError> {
        let ListQuery {
            api_version,
            kind,
            namespace,
            label_selector,
            annotation_prefix,
            fields,
        } = query.clone();
        let query = objects::ListQuery {
            api_version,
            kind,
            namespace,
            label_selector,
            annotation_prefix,
            fields,
        };
        Ok(self.0.object_list(&query).await?)
    }

    async fn create(
        &self,
        plugin: &str,
        object: Value,
        _deadline: Instant,
    ) -> Result<Value, KubernetesError> {
        self.out_of_house(&identity(&object)).await?;
        Ok(self.0.object_create(&object, &author(plugin)).await?)
    }

    async fn patch(
        &self,
        plugin: &str,
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: Value,
        _deadline: Instant,
    ) -> Result<Value, KubernetesError> {
        let subresource = match subresource {
            Subresource::None => objects::Subresource::None,
            Subresource::Status => objects::Subresource::Status,
            Subresource::Scale => objects::Subresource::Scale,
        };
        let kind = match kind {
            PatchType::Merge => PatchKind::Merge,
            PatchType::Json => PatchKind::Json,
            PatchType::StrategicMerge => PatchKind::StrategicMerge,
        };
        self.out_of_house(key).await?;
        Ok(self
            .0
            .object_patch(&key.into(), subresource, kind, &body, &author(plugin))
            .await?)
    }

    async fn apply(
        &self,
        plugin: &str,
        object: Value,
        force: bool,
        _deadline: Instant,
    ) -> Result<Value, KubernetesError> {
        self.out_of_house(&identity(&object)).await?;
        Ok(self.0.object_apply(&object, &author(plugin), force).await?)
    }

    async fn delete(
        &self,
        _plugin: &str,
        key: &ObjectKey,
        _deadline: Instant,
    ) -> Result<(), KubernetesError> {
        self.out_of_house(key).await?;
        Ok(self.0.object_delete(&key.into()).await?)
    }

    async fn event(
        &self,
        plugin: &str,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        _deadline: Instant,
    ) -> Result<(), KubernetesError> {
        let kind = match kind {
            EventType::Normal => dormouse_kubernetes::EventType::Normal,
            EventType::Warning => dormouse_kubernetes::EventType::Warning,
        };
        Ok(self
            .0
            .record_event(&regarding.into(), kind, reason, message, &author(plugin))
            .await?)
    }

    async fn sleep(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        _deadline: Instant,
    ) -> Result<(), LifecycleError> {
        let wished = self.0.wish_sleep(&sleeper_key(plugin, resource), reason).await;
        wished.map(drop).map_err(|error| wish_error(error, resource))
    }

    async fn wake(
        &self,
        plugin: &str,
        resource: &ResourceId,
        reason: &str,
        _deadline: Instant,
    ) -> Result<(), LifecycleError> {
        let wished = self.0.wish_wake(&sleeper_key(plugin, resource), reason).await;
        wished.map(drop).map_err(|error| wish_error(error, resource))
    }

    async fn state(
        &self,
        plugin: &str,
        resource: &ResourceId,
        _deadline: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError> {
        let Some(sleeper) = self.0.sleeper(&sleeper_key(plugin, resource)) else {
            return Ok(None);
        };
        let state = sleeper
            .status
            .as_ref()
            .map(|status| status.state.clone())
            .unwrap_or_default();
        let since = state.since.map_or(0, |since| since.as_millisecond());
        Ok(Some(SleeperView {
            phase: phase(state.phase),
            epoch: u64::try_from(state.epoch).unwrap_or_default(),
            since_millis: u64::try_from(since).unwrap_or_default(),
            reason: state.reason,
        }))
    }
}

/// A guest reaches its own Sleepers and no others, because the plugin's name is part of their identity.
fn sleeper_key(plugin: &str, resource: &ResourceId) -> SleeperKey {
    SleeperKey::new(plugin, &resource.namespace, &resource.name)
}

fn phase(phase: lifecycle::Phase) -> Phase {
    match phase {
        lifecycle::Phase::Awake => Phase::Awake,
        lifecycle::Phase::Diverting => Phase::Diverting,
        lifecycle::Phase::Observing => Phase::Observing,
        lifecycle::Phase::Draining => Phase::Draining,
        lifecycle::Phase::Asleep => Phase::Asleep,
        lifecycle::Phase::Waking => Phase::Waking,
        lifecycle::Phase::Ready => Phase::Ready,
    }
}

fn wish_error(error: WishError, resource: &ResourceId) -> LifecycleError {
    let text = error.to_string();
    match error {
        WishError::Unknown(_) => LifecycleError::UnknownResource(resource.clone()),
        WishError::Superseded => LifecycleError::Superseded(text),
        WishError::Unsupported(why) => LifecycleError::Unsupported(why),
        WishError::Denied(why) => LifecycleError::Denied(why),
        WishError::Cluster(error) => match ObjectError::from(error) {
            ObjectError::Timeout(_) => LifecycleError::Timeout(text),
            ObjectError::Unavailable(_) | ObjectError::Conflict(_) => LifecycleError::Unavailable(text),
            _ => LifecycleError::Other(text),
        },
    }
}

impl From<ObjectError> for KubernetesError {
    fn from(error: ObjectError) -> KubernetesError {
        match error {
            ObjectError::NotFound(text) => KubernetesError::NotFound(text),
            ObjectError::Conflict(text) => KubernetesError::Conflict(text),
            ObjectError::Invalid(text) => KubernetesError::Invalid(text),
            // The plugin has the grant; Dormouse itself lacks the right.
            ObjectError::Forbidden(text) => KubernetesError::Denied(text),
            ObjectError::Timeout(text) => KubernetesError::Timeout(text),
            ObjectError::Unavailable(text) => KubernetesError::Unavailable(text),
            ObjectError::TooLarge(text) | ObjectError::Other(text) => KubernetesError::Other(text),
        }
    }
}

impl From<&ObjectKey> for objects::ObjectKey {
    fn from(key: &ObjectKey) -> objects::ObjectKey {
        let ObjectKey {
            api_version,
            kind,
            namespace,
            name,
        } = key.clone();
        objects::ObjectKey {
            api_version,
            kind,
            namespace,
            name,
        }
    }
}
