//! Which Sleepers exist, as the autoscaler declares them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dormouse_kubernetes::{ApiServer, ClusterError, optional};
use dormouse_lifecycle::SleeperState;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};

use crate::SleeperKey;
use crate::api::{FINALIZER, Sleeper, SleeperSpec, SleeperStatus};
use crate::caches::Caches;
use crate::requeue::Requeues;
use crate::writer::{Retry, SleeperWriter};

/// What the autoscaler wants to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Which resource.
    pub key: SleeperKey,
    /// What its owner declared about it.
    pub spec: SleeperSpec,
}

/// Creates, updates and deletes Sleepers. Cheap to clone.
#[derive(Clone)]
pub struct Declarations {
    server: ApiServer,
    caches: Arc<Caches>,
    writer: SleeperWriter,
    requeues: Requeues,
    /// The stored definition of Sleepers is older than this process, and drops the fields that it does not know.
    drops_fields: Arc<AtomicBool>,
}

impl Declarations {
    pub(crate) fn new(
        server: ApiServer,
        caches: Arc<Caches>,
        writer: SleeperWriter,
        requeues: Requeues,
    ) -> Self {
        Self {
            server,
            caches,
            writer,
            requeues,
            drops_fields: Arc::default(),
        }
    }

    /// Creates the Sleeper of a resource, owned by the resource's object, or updates its spec. Nothing is written when it is so already.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] when the object does not exist, [`ClusterError::Conflict`] while an older Sleeper of the resource
    /// is being deleted, [`ClusterError::NameTaken`], or what the API server says.
    pub async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError> {
        let Declared { key, spec } = declared;
        let (namespace, name) = (key.namespace.as_str(), key.object_name());
        let known = self.caches.sleepers.get(namespace, &name);
        if let Some(known) = known.filter(|known| self.is_complete(known, spec)) {
            return Ok(known);
        }
        let mut retry = Retry::new(self.server.request_timeout());
        loop {
            let written = match optional(self.writer.fetch(namespace, &name).await)? {
                None => self.create(key, spec).await,
                Some(existing) => {
                    if SleeperKey::of(&existing) != *key {
                        let (owner, resource) = (existing.spec.owner(), existing.spec.resource);
                        return Err(ClusterError::NameTaken {
                            what: format!("Sleeper {name}"),
                            owner: format!("resource {resource} of {owner}"),
                        });
                    }
                    if existing.metadata.deletion_timestamp.is_some() {
                        return Err(ClusterError::Conflict {
                            what: format!("Sleeper {name}, which is being deleted,"),
                        });
                    }
                    if self.is_complete(&existing, spec) {
                        return Ok(Arc::new(existing));
                    }
                    self.update_spec(existing, spec).await
                }
            };
            match written {
                Err(ClusterError::Conflict { .. } | ClusterError::Exists { .. }) if retry.again().await => {}
                Err(error) => return Err(error),
                Ok(sleeper) => {
                    self.note_dropped_fields(&sleeper.spec, spec);
                    self.requeues.moved(namespace, &name);
                    return Ok(Arc::new(sleeper));
                }
            }
        }
    }

    /// Whether a stored Sleeper is as declared.
    fn is_complete(&self, sleeper: &Sleeper, spec: &SleeperSpec) -> bool {
        self.matches(&sleeper.spec, spec)
            && sleeper.finalizers().iter().any(|f| f == FINALIZER)
            && sleeper.metadata.deletion_timestamp.is_none()
    }

    /// Whether a stored spec is the wanted one. A definition of the version before drops the fields that it does not know; writing
    /// them again and again would not help.
    fn matches(&self, stored: &SleeperSpec, wanted: &SleeperSpec) -> bool {
        if !self.drops_fields.load(Ordering::Relaxed) {
            return stored == wanted;
        }
        *stored
            == SleeperSpec {
                owner: None,
                wake: None,
                route: None,
                ..wanted.clone()
            }
    }

    /// Notices a definition of the version before by the fields that it dropped from a spec.
    fn note_dropped_fields(&self, stored: &SleeperSpec, wanted: &SleeperSpec) {
        let dropped = stored.owner.is_none() && wanted.owner.is_some();
        if dropped && !self.drops_fields.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the definition of sleepers.dormouse.dev is of an older version: apply the one of this version \
                 (the chart does, unless crds.install is false) and restart the autoscaler; until then routes that \
                 plugins name are not used"
            );
        }
    }

    async fn create(&self, key: &SleeperKey, spec: &SleeperSpec) -> Result<Sleeper, ClusterError> {
        let name = key.object_name();
        let mut sleeper = Sleeper::new(&name, spec.clone());
        sleeper.metadata.namespace = Some(key.namespace.clone());
        sleeper.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        sleeper.metadata.owner_references = Some(vec![self.owner_reference(&key.namespace, spec).await?]);
        let what = || format!("creating Sleeper {name}");
        let (api, params) = (
            self.server.api::<Sleeper>(&key.namespace),
            self.server.post_params(),
        );
        let created = self.server.ask(what, api.create(&params, &sleeper)).await?;
        // So that `kubectl get sleepers` has something to show from the beginning. Losing this write costs nothing.
        let state = SleeperState {
            since: Some(Timestamp::now()),
            reason: "declared".to_owned(),
            ..SleeperState::default()
        };
        let status = SleeperStatus {
            state,
            ..SleeperStatus::default()
        };
        Ok(self.writer.put_status(&created, status).await.unwrap_or(created))
    }

    async fn update_spec(&self, mut existing: Sleeper, spec: &SleeperSpec) -> Result<Sleeper, ClusterError> {
        let namespace = existing.namespace().unwrap_or_default();
        if existing.spec.object != spec.object {
            existing.metadata.owner_references = Some(vec![self.owner_reference(&namespace, spec).await?]);
        }
        existing.spec = spec.clone();
        if !existing.finalizers().iter().any(|f| f == FINALIZER) {
            existing.finalizers_mut().push(FINALIZER.to_owned());
        }
        let name = existing.name_any();
        let what = || format!("Sleeper {name}");
        let (api, params) = (self.server.api::<Sleeper>(&namespace), self.server.post_params());
        self.server
            .ask(what, api.replace(&name, &params, &existing))
            .await
    }

    async fn owner_reference(
        &self,
        namespace: &str,
        spec: &SleeperSpec,
    ) -> Result<OwnerReference, ClusterError> {
        let object = &spec.object;
        let uid = self
            .server
            .uid_of(namespace, &object.api_version, &object.kind, &object.name)
            .await?;
        Ok(OwnerReference {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            name: object.name.clone(),
            uid,
            controller: None,
            // Deleting the object must not wait for the finalizer of its Sleeper.
            block_owner_deletion: Some(false),
        })
    }

    /// Deletes the Sleeper of a resource. Its finalizer keeps it until the controller has restored Services and replicas. That it is gone
    /// already is no error.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError> {
        let name = key.object_name();
        let Some(existing) = optional(self.writer.fetch(&key.namespace, &name).await)? else {
            return Ok(());
        };
        if SleeperKey::of(&existing) != *key {
            return Ok(());
        }
        let preconditions = Preconditions {
            uid: existing.uid(),
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api = self.server.api::<Sleeper>(&key.namespace);
        let deleted = self
            .server
            .ask(|| format!("deleting Sleeper {name}"), api.delete(&name, &params))
            .await;
        match deleted {
            Ok(_) => {
                self.requeues.moved(&key.namespace, &name);
                Ok(())
            }
            // Another object of that name by now: the one that was meant is gone.
            Err(ClusterError::NotFound { .. } | ClusterError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
