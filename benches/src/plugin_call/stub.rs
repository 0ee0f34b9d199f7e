//! Services that answer at once: the host is measured, not a cluster.

use async_trait::async_trait;
use dormouse_plugin::types::ResourceId;
use dormouse_plugin::{
    EventType, HostServices, KubernetesError, LifecycleError, ListQuery, ObjectKey, PatchType, SleeperView,
    Subresource,
};
use serde_json::Value;
use tokio::time::Instant;

pub struct Stub;

fn nothing<T>() -> Result<T, KubernetesError> {
    Err(KubernetesError::Unavailable("there is no cluster".into()))
}

#[async_trait]
impl HostServices for Stub {
    async fn get(&self, _: &str, _: &ObjectKey, _: &[String], _: Instant) -> Result<Value, KubernetesError> {
        nothing()
    }

    async fn list(&self, _: &str, _: &ListQuery, _: Instant) -> Result<Vec<Value>, KubernetesError> {
        nothing()
    }

    async fn create(&self, _: &str, _: Value, _: Instant) -> Result<Value, KubernetesError> {
        nothing()
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
        nothing()
    }

    async fn apply(&self, _: &str, _: Value, _: bool, _: Instant) -> Result<Value, KubernetesError> {
        nothing()
    }

    async fn delete(&self, _: &str, _: &ObjectKey, _: Instant) -> Result<(), KubernetesError> {
        nothing()
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
        nothing()
    }

    async fn sleep(&self, _: &str, _: &ResourceId, _: &str, _: Instant) -> Result<(), LifecycleError> {
        Ok(())
    }

    async fn wake(&self, _: &str, _: &ResourceId, _: &str, _: Instant) -> Result<(), LifecycleError> {
        Ok(())
    }

    async fn state(
        &self,
        _: &str,
        _: &ResourceId,
        _: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError> {
        Ok(None)
    }
}
