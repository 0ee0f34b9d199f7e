//! Replicas between one and many: who else scales a workload, and the write. Two that set its replicas would undo each other's work for
//! ever.

use std::sync::Arc;

use dormouse_kubernetes::{ApiServer, ClusterError, WorkloadScale};
use dormouse_lifecycle::may_resize;
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

    /// Sets the replicas of a workload, of a Sleeper or without one, if it may be scaled, and nobody has changed it since its scale was read.
    ///
    /// # Errors
    /// [`DesiredStateError::Denied`] where no grant covers it, and for Dormouse and Kubernetes themselves; [`DesiredStateError::Superseded`]
    /// where a Sleeper that only puts it to sleep is doing so; a conflict, or what else the API server says.
    pub async fn resize(
        &self,
        namespace: &str,
        sleeper: Option<&SleeperKey>,
        workload: &ObjectRef,
        seen: &WorkloadScale,
        replicas: i32,
    ) -> Result<(), DesiredStateError> {
        match sleeper {
            Some(key) => {
                let sleeper = self.caches.sleeper(key);
                let sleeper = sleeper.ok_or_else(|| DesiredStateError::Unknown(key.clone()))?;
                self.permission.check(&sleeper).await?;
            }
            None => {
                let kind = self.server.kind(&workload.api_version, &workload.kind).await?;
                if !kind.namespaced {
                    let why = format!(
                        "{} is not in a namespace, so no object of one may scale it",
                        workload.kind
                    );
                    return Err(DesiredStateError::Denied(why));
                }
                self.permission
                    .check_unprotected(&workload.in_namespace(namespace))
                    .await?;
                let going = self
                    .caches
                    .sleepers_naming(namespace, workload)
                    .into_iter()
                    .any(|sleeper| {
                        let state = sleeper.status.as_ref().map(|status| &status.state);
                        may_resize(state, seen.replicas(), replicas).is_err()
                    });
                if going {
                    return Err(DesiredStateError::Superseded);
                }
            }
        }
        self.server.resize(namespace, workload, seen, replicas).await?;
        Ok(())
    }

    /// Who else than a resource scales its workload, in words for people: a HorizontalPodAutoscaler, or the owner of another Sleeper. Of two
    /// Sleepers that name it the one that comes first scales it; what has no Sleeper leaves it to any that does. As long as
    /// HorizontalPodAutoscalers are not known, one of them may. It reads the caches and makes no request.
    pub fn other(&self, key: &SleeperKey, has_sleeper: bool, workload: &ObjectRef) -> Option<String> {
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
        if has_sleeper {
            let rival = self.ownership.rival_for(&*self.caches.sleeper(key)?, workload)?;
            return Some(rival.explain());
        }
        let naming = self.caches.sleepers_naming(&key.namespace, workload);
        naming.into_iter().find_map(|sleeper| {
            // One that only puts it to sleep and wakes it leaves the number to others.
            sleeper.status.as_ref()?.scaling.as_ref()?;
            let owner = sleeper.spec.owner();
            // Its own, which is about to go.
            (owner != key.owner).then(|| {
                format!("{owner} scales {kind} {name} too; leave the number of replicas to one of the two")
            })
        })
    }
}
