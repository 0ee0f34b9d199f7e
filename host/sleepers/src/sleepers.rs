//! Writes to Sleepers. Every one is a compare-and-set on the resourceVersion.

mod records;
mod wishes;

pub use wishes::{StoodIn, WishError, Wished};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_kubernetes::{Backoff, ClusterError, optional};
use dormouse_lifecycle::SleeperState;
use dormouse_model::fnv1a;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::Instant;

use crate::api::{FINALIZER, Sleeper, SleeperSpec, SleeperStatus};
use crate::{Cluster, SleeperKey};

/// What the autoscaler wants to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Which resource.
    pub key: SleeperKey,
    /// What its plugin said about it.
    pub spec: SleeperSpec,
}

/// What to do with a Sleeper that was read.
enum Edit<T> {
    Keep(T),
    Write(Box<SleeperStatus>, T),
}

impl Cluster {
    /// Creates the Sleeper of a resource, owned by the resource's object, or updates its spec. Nothing is written when it is so already.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] when the object does not exist, [`ClusterError::Conflict`] while an older Sleeper of the resource
    /// is being deleted, [`ClusterError::NameTaken`], or what the API server says.
    pub async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError> {
        let Declared { key, spec } = declared;
        let (namespace, name) = (key.namespace.as_str(), key.object_name());
        let complete = |sleeper: &Sleeper| {
            self.says(&sleeper.spec, spec)
                && sleeper.finalizers().iter().any(|f| f == FINALIZER)
                && sleeper.metadata.deletion_timestamp.is_none()
        };
        if let Some(known) = self
            .sleeper_named(namespace, &name)
            .filter(|known| complete(known))
        {
            return Ok(known);
        }
        let mut retry = Retry::new(self.inner.config.request_timeout);
        loop {
            let written = match optional(self.fetch(namespace, &name).await)? {
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
                    if complete(&existing) {
                        return Ok(Arc::new(existing));
                    }
                    self.update_spec(existing, spec).await
                }
            };
            match written {
                Err(ClusterError::Conflict { .. } | ClusterError::Exists { .. }) if retry.again().await => {}
                Err(error) => return Err(error),
                Ok(sleeper) => {
                    self.note_cut(&sleeper.spec, spec);
                    self.moved(namespace, &name);
                    return Ok(Arc::new(sleeper));
                }
            }
        }
    }

    /// Whether a stored spec says what is wanted. A definition of the version before cuts off the fields that it does not know;
    /// writing them again and again would not help.
    fn says(&self, stored: &SleeperSpec, wanted: &SleeperSpec) -> bool {
        if !self.inner.cuts_specs.load(Ordering::Relaxed) {
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

    /// Notices a definition of the version before by what it made of a spec.
    fn note_cut(&self, stored: &SleeperSpec, wanted: &SleeperSpec) {
        let cut = stored.owner.is_none() && wanted.owner.is_some();
        if cut && !self.inner.cuts_specs.swap(true, Ordering::Relaxed) {
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
        sleeper.metadata.owner_references = Some(vec![self.owner(&key.namespace, spec).await?]);
        let what = || format!("creating Sleeper {name}");
        let created = self
            .inner
            .server
            .ask(
                what,
                self.inner
                    .server
                    .api::<Sleeper>(&key.namespace)
                    .create(&self.inner.server.post_params(), &sleeper),
            )
            .await?;
        // So that `kubectl get sleepers` has something to show from the beginning. Losing this write costs nothing.
        let state = SleeperState {
            since: Some(self.now()),
            reason: "declared".to_owned(),
            ..SleeperState::default()
        };
        match self
            .put_status(
                &created,
                SleeperStatus {
                    state,
                    ..SleeperStatus::default()
                },
            )
            .await
        {
            Ok(shown) => Ok(shown),
            Err(_) => Ok(created),
        }
    }

    async fn update_spec(&self, mut existing: Sleeper, spec: &SleeperSpec) -> Result<Sleeper, ClusterError> {
        let namespace = existing.namespace().unwrap_or_default();
        if existing.spec.object != spec.object {
            existing.metadata.owner_references = Some(vec![self.owner(&namespace, spec).await?]);
        }
        existing.spec = spec.clone();
        if !existing.finalizers().iter().any(|f| f == FINALIZER) {
            existing.finalizers_mut().push(FINALIZER.to_owned());
        }
        let name = existing.name_any();
        let what = || format!("Sleeper {name}");
        self.inner
            .server
            .ask(
                what,
                self.inner.server.api::<Sleeper>(&namespace).replace(
                    &name,
                    &self.inner.server.post_params(),
                    &existing,
                ),
            )
            .await
    }

    async fn owner(&self, namespace: &str, spec: &SleeperSpec) -> Result<OwnerReference, ClusterError> {
        let object = &spec.object;
        let uid = self
            .inner
            .server
            .uid_of(namespace, &object.api_version, &object.kind, &object.name)
            .await?;
        Ok(OwnerReference {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            name: object.name.clone(),
            uid,
            controller: None,
            // Deleting the object must not wait for us.
            block_owner_deletion: Some(false),
        })
    }

    /// Deletes the Sleeper of a resource. Its finalizer keeps it until the driver has restored Services and replicas. That it is gone
    /// already is no error.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError> {
        let name = key.object_name();
        let Some(existing) = optional(self.fetch(&key.namespace, &name).await)? else {
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
        let api = self.inner.server.api::<Sleeper>(&key.namespace);
        let deleted = self
            .inner
            .server
            .ask(|| format!("deleting Sleeper {name}"), api.delete(&name, &params))
            .await;
        match deleted {
            Ok(_) => {
                self.moved(&key.namespace, &name);
                Ok(())
            }
            // Another object of that name by now: the one that was meant is gone.
            Err(ClusterError::NotFound { .. } | ClusterError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads a Sleeper, changes its status and writes it if it is still the one that was read; on a conflict, again. `None`
    /// when there is no such Sleeper. With `cached`, the first attempt is made on the reflector's copy: a stale copy can only
    /// lose, and never says that there is nothing to do.
    async fn edit<T, E: From<ClusterError>>(
        &self,
        key: &SleeperKey,
        cached: bool,
        change: impl Fn(&Sleeper) -> Result<Edit<T>, E>,
    ) -> Result<Option<T>, E> {
        let (namespace, name) = (key.namespace.as_str(), key.object_name());
        let mut retry = Retry::new(self.inner.config.request_timeout);
        if let Some(known) = self.sleeper(key).filter(|_| cached)
            && let Ok(Edit::Write(status, value)) = change(&known)
            && let moved = moves(&known, &status)
            && self.put_status(&known, *status).await.is_ok()
        {
            if moved {
                self.moved(namespace, &name);
            }
            return Ok(Some(value));
        }
        loop {
            let Some(sleeper) = optional(self.fetch_patiently(namespace, &name, &mut retry).await)? else {
                return Ok(None);
            };
            if SleeperKey::of(&sleeper) != *key {
                return Ok(None);
            }
            let (status, value) = match change(&sleeper)? {
                Edit::Keep(value) => return Ok(Some(value)),
                Edit::Write(status, value) => (status, value),
            };
            let moved = moves(&sleeper, &status);
            match self.put_status(&sleeper, *status).await {
                Ok(_) => {
                    if moved {
                        self.moved(namespace, &name);
                    }
                    return Ok(Some(value));
                }
                Err(error) if error.is_transient() && retry.again().await => {}
                Err(ClusterError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn fetch_patiently(
        &self,
        namespace: &str,
        name: &str,
        retry: &mut Retry,
    ) -> Result<Sleeper, ClusterError> {
        loop {
            match self.fetch(namespace, name).await {
                Err(error) if error.is_transient() && retry.again().await => {}
                other => return other,
            }
        }
    }

    /// A Sleeper, straight from the API server.
    pub(crate) async fn fetch(&self, namespace: &str, name: &str) -> Result<Sleeper, ClusterError> {
        self.inner
            .server
            .ask(
                || format!("Sleeper {name}"),
                self.inner.server.api::<Sleeper>(namespace).get(name),
            )
            .await
    }

    /// Replaces the status of a Sleeper, if it is still the version that was read.
    pub(crate) async fn put_status(
        &self,
        read: &Sleeper,
        status: SleeperStatus,
    ) -> Result<Sleeper, ClusterError> {
        let (namespace, name) = (read.namespace().unwrap_or_default(), read.name_any());
        let mut next = read.clone();
        next.status = Some(status);
        let written = self
            .inner
            .server
            .ask(
                || format!("Sleeper {name}"),
                self.inner.server.api::<Sleeper>(&namespace).replace_status(
                    &name,
                    &self.inner.server.post_params(),
                    &next,
                ),
            )
            .await;
        if matches!(written, Err(ClusterError::Conflict { .. })) {
            self.inner.metrics.conflict();
        }
        written
    }
}

/// Whether a change gives the protocol something to do. Records of failures and decisions do not.
fn moves(read: &Sleeper, next: &SleeperStatus) -> bool {
    let before = read
        .status
        .as_ref()
        .map(|status| (status.state.wish, status.state.phase))
        .unwrap_or_default();
    before != (next.state.wish, next.state.phase)
}

/// The number of a Sleeper, from its name: spreads what would otherwise happen to many at the same moment.
pub(crate) fn own_seed(namespace: &str, name: &str) -> u64 {
    fnv1a(&format!("{namespace}/{name}"))
}

/// Pauses between attempts to write a Sleeper.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(500));

/// Attempts with short, growing, jittered pauses, until a deadline.
struct Retry {
    deadline: Instant,
    failures: u32,
}

impl Retry {
    fn new(request_timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + request_timeout * 4,
            failures: 0,
        }
    }

    /// Waits a moment. False when the deadline is over.
    async fn again(&mut self) -> bool {
        let pause = PAUSES.jittered(self.failures);
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        self.failures = self.failures.saturating_add(1);
        true
    }
}
