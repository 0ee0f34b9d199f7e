//! Services that answer at once: the host is measured, not a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::objects::{ListQuery, PatchType, Subresource};
use dormouse_kubernetes::{EventType, ObjectError};
use dormouse_model::ObjectKey;
use dormouse_plugin::types::ResourceId;
use dormouse_plugin::{HostServices, LifecycleError, SleeperView};
use serde_json::Value;
use tokio::time::Instant;

pub struct Stub;

fn nothing<T>() -> Result<T, ObjectError> {
    Err(ObjectError::Unavailable("there is no cluster".into()))
}

#[async_trait]
impl HostServices for Stub {
    async fn get(&self, _: &str, _: &ObjectKey, _: &[String], _: Instant) -> Result<Value, ObjectError> {
        nothing()
    }

    async fn list(&self, _: &str, _: &ListQuery, _: Instant) -> Result<Vec<Arc<str>>, ObjectError> {
        nothing()
    }

    async fn create(&self, _: &str, _: Value, _: Instant) -> Result<Value, ObjectError> {
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
    ) -> Result<Value, ObjectError> {
        nothing()
    }

    async fn apply(&self, _: &str, _: Value, _: bool, _: Instant) -> Result<Value, ObjectError> {
        nothing()
    }

    async fn delete(&self, _: &str, _: &ObjectKey, _: Instant) -> Result<(), ObjectError> {
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
    ) -> Result<(), ObjectError> {
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
