//! The cluster, as the line sees it.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::{
    Change, ClusterError, EventRecorder, EventType, Objects, Scope, Signals, WorkloadScale,
};
use dormouse_model::{FieldPath, ObjectRef, Owner, Phase};
use dormouse_plugin::types::FieldCondition;
use dormouse_sleepers::{
    Caches, Cluster, Declarations, Declared, DesiredStateError, DesiredStateWriter, OwnerChanges, SLEEPER,
    Scalers, Sleeper, SleeperKey, StatusRecorder, StatusUpdate, StoodIn,
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

/// The Sleepers of a cluster.
pub(crate) struct ClusterSleepers {
    caches: Arc<Caches>,
    signals: Signals,
    scope: Scope,
    declarations: Declarations,
    desired: DesiredStateWriter,
    status: StatusRecorder,
    owner_changes: OwnerChanges,
    objects: Objects,
    events: EventRecorder,
    scalers: Scalers,
}

impl ClusterSleepers {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self {
            caches: Arc::clone(cluster.caches()),
            signals: cluster.signals().clone(),
            scope: cluster.config().scope.clone(),
            declarations: cluster.declarations().clone(),
            desired: cluster.desired().clone(),
            status: cluster.status().clone(),
            owner_changes: cluster.owner_changes().clone(),
            objects: cluster.objects().clone(),
            events: cluster.events().clone(),
            scalers: cluster.scalers(),
        }
    }
}

#[async_trait]
impl Sleepers for ClusterSleepers {
    fn list(&self) -> Vec<Arc<Sleeper>> {
        self.caches.sleepers.all()
    }

    fn of_owner(&self, owner: &Owner) -> Vec<Arc<Sleeper>> {
        self.caches.sleepers_of(owner)
    }

    fn get(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        self.caches.sleeper(key)
    }

    fn sleeper_changes(&self) -> BoxStream<'static, SleeperChange> {
        futures::stream::unfold(self.signals.changes(), next_change).boxed()
    }

    fn includes(&self, namespace: &str) -> bool {
        self.scope.includes(namespace)
    }

    async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError> {
        self.declarations.declare(declared).await
    }

    async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError> {
        self.declarations.retire(key).await
    }

    async fn observe(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError> {
        let requested = self.desired.request_observation(key, reason).await;
        requested.map(|requested| requested.changed)
    }

    async fn wake(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError> {
        let requested = self.desired.request_wake(key, reason).await;
        requested.map(|requested| requested.changed)
    }

    async fn sleep(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError> {
        let requested = self.desired.request_sleep(key, reason).await;
        requested.map(|requested| requested.changed)
    }

    async fn stand_in(&self, key: &SleeperKey) -> Result<StoodIn, DesiredStateError> {
        self.desired.request_stand_in(key).await
    }

    fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.caches.services.get(namespace, name).is_some()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.owner_changes.subscribe()
    }

    async fn record(&self, key: &SleeperKey, update: &StatusUpdate) -> Result<(), ClusterError> {
        self.status.record(key, update).await
    }

    async fn scale(&self, namespace: &str, workload: &ObjectRef) -> Result<WorkloadScale, ClusterError> {
        self.scalers.scale(namespace, workload).await
    }

    async fn resize(
        &self,
        namespace: &str,
        sleeper: Option<&SleeperKey>,
        workload: &ObjectRef,
        seen: &WorkloadScale,
        replicas: i32,
    ) -> Result<(), DesiredStateError> {
        self.scalers
            .resize(namespace, sleeper, workload, seen, replicas)
            .await
    }

    fn other_scaler(&self, key: &SleeperKey, has_sleeper: bool, workload: &ObjectRef) -> Option<String> {
        self.scalers.other(key, has_sleeper, workload)
    }

    async fn mirror(&self, key: &SleeperKey, phase: Phase, reason: &str) -> Result<(), ClusterError> {
        self.status.mirror_phase(key, phase, reason).await
    }

    async fn field(&self, namespace: &str, condition: &FieldCondition) -> Result<Option<String>, FieldError> {
        let key = condition.object.in_namespace(namespace);
        let object = self
            .objects
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
        if let Err(error) = self.events.record(&key, kind, reason, message, COMPONENT).await {
            tracing::debug!("an event was not told: {error}");
        }
    }
}
