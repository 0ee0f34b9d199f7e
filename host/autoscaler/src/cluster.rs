//! The cluster, as the line sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::api::LastDecision;
use dormouse_kubernetes::lifecycle::Phase;
use dormouse_kubernetes::objects::ObjectKey;
use dormouse_kubernetes::{
    Cluster, ClusterError, ConditionUpdate, Declared, DemandEntry, EventType, Sleeper, SleeperKey, StoodIn,
    WishError,
};
use dormouse_plugin::types::{FieldCondition, ObjectRef};
use serde_json::Value;
use tokio::sync::watch;

use crate::{FieldError, Sleepers};

/// Who tells events.
const COMPONENT: &str = "dormouse-autoscaler";

#[async_trait]
impl Sleepers for Cluster {
    fn list(&self) -> Vec<Arc<Sleeper>> {
        self.sleepers()
    }

    fn includes(&self, namespace: &str) -> bool {
        self.config().scope.includes(namespace)
    }

    async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError> {
        Cluster::declare(self, declared).await
    }

    async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError> {
        Cluster::retire(self, key).await
    }

    async fn observe(&self, key: &SleeperKey, reason: &str) -> Result<bool, WishError> {
        self.wish_observe(key, reason).await.map(|wished| wished.changed)
    }

    async fn wake(&self, key: &SleeperKey, reason: &str) -> Result<bool, WishError> {
        self.wish_wake(key, reason).await.map(|wished| wished.changed)
    }

    async fn stand_in(&self, key: &SleeperKey) -> Result<StoodIn, WishError> {
        self.wish_stand_in(key).await
    }

    fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.service(namespace, name).is_some()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.declared_changes()
    }

    async fn record(
        &self,
        key: &SleeperKey,
        decision: LastDecision,
        conditions: &[ConditionUpdate],
    ) -> Result<(), ClusterError> {
        self.record_decision(key, decision, conditions).await
    }

    async fn record_conditions(
        &self,
        key: &SleeperKey,
        conditions: &[ConditionUpdate],
    ) -> Result<(), ClusterError> {
        Cluster::record_conditions(self, key, conditions).await
    }

    async fn mirror(&self, key: &SleeperKey, phase: Phase, reason: &str) -> Result<(), ClusterError> {
        self.mirror_phase(key, phase, reason).await
    }

    async fn demand(&self) -> Result<BTreeMap<(String, String), DemandEntry>, String> {
        self.demand_of_all().await
    }

    async fn field(&self, namespace: &str, condition: &FieldCondition) -> Result<Option<String>, FieldError> {
        let key = object_key(namespace, &condition.object);
        let object = self
            .object_get(&key, std::slice::from_ref(&condition.path))
            .await
            .map_err(|error| FieldError(error.to_string()))?;
        Ok(at(&object, &condition.path))
    }

    async fn tell(&self, namespace: &str, object: &ObjectRef, warning: bool, reason: &str, message: &str) {
        let kind = if warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let key = object_key(namespace, object);
        if let Err(error) = self.record_event(&key, kind, reason, message, COMPONENT).await {
            tracing::debug!("an event was not told: {error}");
        }
    }
}

fn object_key(namespace: &str, object: &ObjectRef) -> ObjectKey {
    ObjectKey {
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        namespace: Some(namespace.to_owned()),
        name: object.name.clone(),
    }
}

/// The value at a dotted path, as text.
fn at(object: &Value, path: &str) -> Option<String> {
    let value = path.split('.').try_fold(object, |value, key| value.get(key))?;
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_dotted_path() {
        let object = json!({"status": {"state": "ready", "replicas": 0, "gone": null}});
        assert_eq!(at(&object, "status.state").as_deref(), Some("ready"));
        assert_eq!(at(&object, "status.replicas").as_deref(), Some("0"));
        assert_eq!(at(&object, "status.gone"), None);
        assert_eq!(at(&object, "status.state.deeper"), None);
        assert_eq!(at(&object, "spec"), None);
    }
}
