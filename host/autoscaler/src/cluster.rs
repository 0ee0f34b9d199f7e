//! The cluster, as the line sees it.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::{Change, ClusterError, EventType};
use dormouse_model::{FieldPath, ObjectRef, Owner, Phase};
use dormouse_plugin::types::FieldCondition;
use dormouse_sleepers::api::LastDecision;
use dormouse_sleepers::{
    Cluster, ConditionUpdate, Declared, SLEEPER, Sleeper, SleeperKey, StoodIn, WishError,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::{FieldError, SleeperChange, Sleepers};

/// Who tells events.
const COMPONENT: &str = "dormouse-autoscaler";

type Changes = broadcast::Receiver<Change>;

/// The next change of a Sleeper.
async fn next_change(mut changes: Changes) -> Option<(SleeperChange, Changes)> {
    loop {
        match changes.recv().await {
            Ok(Change {
                kind: SLEEPER,
                namespace,
                name,
                ..
            }) => return Some((SleeperChange::One { namespace, name }, changes)),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return Some((SleeperChange::Any, changes)),
            Err(RecvError::Closed) => return None,
        }
    }
}

#[async_trait]
impl Sleepers for Cluster {
    fn list(&self) -> Vec<Arc<Sleeper>> {
        self.sleepers()
    }

    fn of_owner(&self, owner: &Owner) -> Vec<Arc<Sleeper>> {
        self.sleepers_of(owner)
    }

    fn get(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        self.sleeper(key)
    }

    fn sleeper_changes(&self) -> BoxStream<'static, SleeperChange> {
        futures::stream::unfold(self.change_stream(), next_change).boxed()
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

    async fn field(&self, namespace: &str, condition: &FieldCondition) -> Result<Option<String>, FieldError> {
        let key = condition.object.in_namespace(namespace);
        let object = self
            .objects()
            .get(&key, std::slice::from_ref(&condition.path))
            .await
            .map_err(|error| FieldError(error.to_string()))?;
        Ok(FieldPath(&condition.path).text(&object))
    }

    async fn tell(&self, namespace: &str, object: &ObjectRef, warning: bool, reason: &str, message: &str) {
        let kind = if warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let key = object.in_namespace(namespace);
        if let Err(error) = self.events().record(&key, kind, reason, message, COMPONENT).await {
            tracing::debug!("an event was not told: {error}");
        }
    }
}
