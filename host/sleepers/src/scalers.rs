//! Replicas between one and many: who else scales a workload, and the write. Two that set its replicas would undo each other's work for
//! ever.

use std::sync::Arc;

use dormouse_kubernetes::{ApiServer, ClusterError, WorkloadScale};
use dormouse_model::ObjectRef;
use kube::ResourceExt;

use crate::caches::Caches;
use crate::ownership::Ownership;
use crate::permission::SleepPermission;
use crate::{DesiredStateError, SleeperKey};

/// Scales workloads between one and many, and tells who else does. Cheap to clone.
#[derive(Clone)]
pub struct Scalers {
    pub(crate) caches: Arc<Caches>,
    pub(crate) ownership: Ownership,
    pub(crate) permission: SleepPermission,
    pub(crate) server: ApiServer,
}

impl Scalers {
    /// Reads the scale of a workload.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn scale(&self, namespace: &str, workload: &ObjectRef) -> Result<WorkloadScale, ClusterError> {
        self.server.scale(namespace, workload).await
    }

    /// Sets the replicas of a workload of a Sleeper, if its owner may scale it, and nobody has changed it since its scale was read.
    ///
    /// # Errors
    /// [`DesiredStateError::Denied`] where no grant covers it, and for Dormouse and Kubernetes themselves; a conflict, or what else the API
    /// server says.
    pub async fn resize(
        &self,
        key: &SleeperKey,
        workload: &ObjectRef,
        seen: &WorkloadScale,
        replicas: i32,
    ) -> Result<(), DesiredStateError> {
        let sleeper = self.caches.sleeper(key);
        let sleeper = sleeper.ok_or_else(|| DesiredStateError::Unknown(key.clone()))?;
        self.permission.check(&sleeper).await?;
        self.server
            .resize(&key.namespace, workload, seen, replicas)
            .await?;
        Ok(())
    }

    /// Who else scales a workload of a Sleeper, in words for people: a HorizontalPodAutoscaler, or the owner of another Sleeper that
    /// comes first and names the same workload. As long as HorizontalPodAutoscalers are not known, one of them may. It reads the caches and
    /// makes no request.
    pub fn other(&self, key: &SleeperKey, workload: &ObjectRef) -> Option<String> {
        let ObjectRef { kind, name, .. } = workload;
        if !self.caches.autoscalers.synced() {
            let why = self.caches.autoscalers.last_error();
            return Some(format!(
                "whether a HorizontalPodAutoscaler scales {kind} {name} is not known: {}",
                why.as_deref().unwrap_or("they are not listed yet")
            ));
        }
        if let Some(autoscaler) = self.caches.autoscaler_of(&key.namespace, workload) {
            return Some(format!(
                "HorizontalPodAutoscaler {} scales {kind} {name}; delete it, or leave the number of replicas to it",
                autoscaler.name_any()
            ));
        }
        let rival = self.ownership.rival_for(&*self.caches.sleeper(key)?, workload)?;
        Some(rival.explain())
    }
}
