//! MemHpas of a cluster as a source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_autoscaler::{Report, Source, SourceError, sleeper_key};
use dormouse_kubernetes::{
    ApiServer, Cache, ClusterError, EventRecorder, EventType, Hook, Reflectors, Signals,
};
use dormouse_model::{ObjectKey, Owner, OwnerKind, Phase, Target, TargetKey, TargetState};
use dormouse_sleepers::{Caches, Cluster, Sleeper};
use kube::api::Patch;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::MemHpa;
use super::config::MemHpaConfig;
use super::status::{Told, as_patch, outcome};
use super::translate::{Declared, targets};
use crate::sight::Workloads;
use crate::sleep::sleeping;

/// Longest wait for the first list of MemHpas.
const SYNC: Duration = Duration::from_secs(5);
/// Changes of what workloads that may sleep depend on are one if they come so close together: a manifest takes a moment to be applied.
const TOGETHER_WITHIN: Duration = Duration::from_millis(200);

/// Which targets ask for sleep, and what was seen of them.
type Sleeping = Arc<Mutex<HashMap<TargetKey, TargetState>>>;

/// The MemHpas of a cluster.
pub struct MemHpaSource {
    config: MemHpaConfig,
    objects: Arc<Cache<MemHpa>>,
    changes: watch::Sender<u64>,
    server: ApiServer,
    events: EventRecorder,
    caches: Arc<Caches>,
    workloads: Workloads,
    /// Those of the last listing.
    sleeping: Sleeping,
}

impl MemHpaSource {
    /// Begins to watch them, until `cancel`.
    pub fn start(cluster: &Cluster, config: MemHpaConfig, cancel: CancellationToken) -> Arc<Self> {
        let changes = watch::Sender::new(0);
        let reflectors = Reflectors {
            signals: Signals::default(),
            metrics: cluster.kubernetes_metrics().clone(),
            outages: cluster.outages().clone(),
            cancel: cancel.clone(),
        };
        let api = cluster.config().scope.api(cluster.client());
        let objects = reflectors.start_with(api, tell_changes(changes.clone()));
        tokio::spawn(tell_first_list(
            Arc::clone(&objects),
            changes.clone(),
            cancel.clone(),
        ));
        let sleeping = Sleeping::default();
        let follow = follow_workloads(
            cluster.owner_changes().subscribe(),
            Arc::clone(&sleeping),
            changes.clone(),
            config.scale_interval,
        );
        tokio::spawn(async move { cancel.run_until_cancelled(follow).await });
        Arc::new(Self {
            config,
            objects,
            changes,
            server: cluster.server().clone(),
            events: cluster.events().clone(),
            caches: Arc::clone(cluster.caches()),
            workloads: Workloads::new(cluster),
            sleeping,
        })
    }

    /// Those that ask for sleep, with what is seen of their workloads.
    async fn with_sleep(&self, declared: Vec<Declared>) -> Vec<Arc<Target>> {
        let mut asking = Vec::new();
        for Declared { target, .. } in declared.iter().filter(|declared| declared.sleep.is_some()) {
            let workloads = target.workloads().iter();
            asking.extend(workloads.map(|workload| (&*target.key.namespace, workload)));
        }
        let sights = self.workloads.look(&asking).await;
        let mut seen = HashMap::new();
        let targets = declared.into_iter().map(|Declared { target, sleep }| {
            let (Some(asked), [workload]) = (sleep, target.workloads()) else {
                return Arc::new(target);
            };
            let namespace = target.key.namespace.clone();
            let sight = sights.of(&namespace, workload);
            let known = self.caches.sleeper(&sleeper_key(&target.key));
            let has_service = |name: &str| self.caches.services.get(&namespace, name).is_some();
            let every = self.config.scale_interval;
            let target = sleeping(target, &asked, sight, known.as_deref(), has_service, every);
            seen.insert(target.key.clone(), target.state);
            Arc::new(target)
        });
        let targets = targets.collect();
        *lock(&self.sleeping) = seen;
        targets
    }

    /// Lists again what fell asleep or woke since the last listing.
    fn note_phase(&self, key: &TargetKey, sleeper: Option<&Sleeper>) {
        let seen = lock(&self.sleeping).get(key).copied();
        if matches!(
            (sleeper.map(Sleeper::phase), seen),
            (Some(Phase::Awake), Some(TargetState::Asleep)) | (Some(Phase::Asleep), Some(TargetState::Awake))
        ) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    async fn write(&self, object: &MemHpa, report: &Report, sleeper: Option<&Sleeper>) {
        let (status, told) = outcome(object, report, sleeper);
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        for event in told {
            self.tell(object, &event);
        }
        if object.status.as_ref() == Some(&status) {
            return;
        }
        let api: Api<MemHpa> = self.server.api(&namespace);
        // On condition that it is the object that this was made of.
        let version = object.resource_version();
        let patch =
            Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": as_patch(&status) }));
        let params = self.server.patch_params();
        let written = api.patch_status(&name, &params, &patch);
        let written = self
            .server
            .ask(|| format!("the status of MemHpa {name}"), written)
            .await;
        if let Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. }) = written {
            tracing::debug!(
                namespace,
                name,
                "the status has changed meanwhile; it is written with the next decision"
            );
        } else if let Err(error) = written {
            tracing::warn!(namespace, name, "a status was not written: {error}");
            self.tell(object, &Told::warning("FailedUpdateStatus", error.to_string()));
        }
    }

    fn tell(&self, object: &MemHpa, event: &Told) {
        let key = ObjectKey {
            api_version: MemHpa::api_version(&()).into_owned(),
            kind: MemHpa::kind(&()).into_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
        };
        let kind = if event.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        self.events
            .tell(&key, object.uid(), kind, event.reason, &event.message);
    }
}

/// Tells what makes another target of an object. Most changes are what this process writes into their status.
fn tell_changes(changes: watch::Sender<u64>) -> Hook<MemHpa> {
    Box::new(move |old, new| {
        let same = match (old, new) {
            (Some(old), Some(new)) => is_same_target(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            changes.send_modify(|count| *count += 1);
        }
    })
}

fn is_same_target(old: &MemHpa, new: &MemHpa) -> bool {
    let last_scale = |object: &MemHpa| {
        object
            .status
            .as_ref()
            .and_then(|status| status.last_scale_time.clone())
    };
    old.uid() == new.uid()
        && old.spec == new.spec
        && old.annotations() == new.annotations()
        && last_scale(old) == last_scale(new)
        && old.meta().deletion_timestamp == new.meta().deletion_timestamp
}

/// An empty list changes nothing, and yet it is known now that there is none.
async fn tell_first_list(
    objects: Arc<Cache<MemHpa>>,
    changes: watch::Sender<u64>,
    cancel: CancellationToken,
) {
    let listed = cancel.run_until_cancelled(objects.wait_synced()).await;
    if listed.is_some() {
        changes.send_modify(|count| *count += 1);
    }
}

/// Tells, as long as anybody asks for sleep, when something about workloads and Services changes, and now and then: what could not be looked
/// at then can be, perhaps.
async fn follow_workloads(
    mut owners: watch::Receiver<u64>,
    sleeping: Sleeping,
    changes: watch::Sender<u64>,
    every: Duration,
) {
    loop {
        match tokio::time::timeout(every, owners.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => tokio::time::sleep(TOGETHER_WITHIN).await,
            Err(_) => {}
        }
        owners.mark_unchanged();
        if !lock(&sleeping).is_empty() {
            changes.send_modify(|count| *count += 1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Source for MemHpaSource {
    fn owner(&self) -> Owner {
        Owner::all_of(OwnerKind::MemHpa)
    }

    fn tells_of_numbers(&self) -> bool {
        true
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn targets(&self) -> Result<Vec<Arc<Target>>, SourceError> {
        if tokio::time::timeout(SYNC, self.objects.wait_synced())
            .await
            .is_err()
        {
            let why = self.objects.last_error();
            return Err(SourceError {
                code: "not_listed",
                message: format!(
                    "MemHpas are not listed yet: {}",
                    why.as_deref().unwrap_or("the API server has not answered")
                ),
            });
        }
        let declared = targets(&self.objects.all(), &self.config);
        Ok(self.with_sleep(declared).await)
    }

    async fn report(&self, reports: Vec<(TargetKey, Report)>) {
        for (key, report) in reports {
            let object = self.objects.get(&key.namespace, &key.name);
            let object = object.filter(|object| object.uid() == key.owner.uid);
            let sleeper = self.caches.sleeper(&sleeper_key(&key));
            self.note_phase(&key, sleeper.as_deref());
            if let Some(object) = object {
                self.write(&object, &report, sleeper.as_deref()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn memhpa(spec: &Value, status: &Value) -> Arc<MemHpa> {
        let object = json!({
            "apiVersion": "xinhuang.com/v1", "kind": "MemHpa",
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": spec, "status": status,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_is_written_into_a_status_lists_nothing_anew_unless_it_matters() {
        let changes = watch::Sender::new(0);
        let hook = tell_changes(changes.clone());
        let told = || *changes.borrow();
        let five = json!({"maxReplicas": 5});
        let (first, counted) = (
            memhpa(&five, &json!({})),
            memhpa(&five, &json!({"currentReplicas": 2})),
        );
        hook(None, Some(&first));
        assert_eq!(told(), 1, "it is new");
        hook(Some(&first), Some(&counted));
        assert_eq!(told(), 1, "it was counted");
        let scaled = memhpa(&five, &json!({"lastScaleTime": "2026-03-01T12:00:00Z"}));
        hook(Some(&counted), Some(&scaled));
        assert_eq!(told(), 2, "it was scaled");
        let edited = memhpa(
            &json!({"maxReplicas": 6}),
            &json!({"lastScaleTime": "2026-03-01T12:00:00Z"}),
        );
        hook(Some(&scaled), Some(&edited));
        hook(Some(&edited), None);
        assert_eq!(told(), 4, "it was edited, and is gone");
    }
}
