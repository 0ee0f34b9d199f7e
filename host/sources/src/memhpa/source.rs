//! MemHpas of a cluster as a source.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_autoscaler::{Report, Source, SourceError};
use dormouse_kubernetes::{
    ApiServer, Cache, ClusterError, EventRecorder, EventType, Hook, Reflectors, Signals,
};
use dormouse_model::{ObjectKey, Owner, OwnerKind, Target, TargetKey};
use dormouse_sleepers::Cluster;
use kube::api::Patch;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::MemHpa;
use super::config::MemHpaConfig;
use super::status::{Told, outcome};
use super::translate::targets;

/// The MemHpas of a cluster.
pub struct MemHpaSource {
    config: MemHpaConfig,
    objects: Arc<Cache<MemHpa>>,
    changes: watch::Sender<u64>,
    server: ApiServer,
    events: EventRecorder,
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
        tokio::spawn(tell_first_list(Arc::clone(&objects), changes.clone(), cancel));
        Arc::new(Self {
            config,
            objects,
            changes,
            server: cluster.server().clone(),
            events: cluster.events().clone(),
        })
    }

    async fn write(&self, object: &MemHpa, report: &Report) {
        let (status, told) = outcome(object, report);
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
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": status }));
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

#[async_trait]
impl Source for MemHpaSource {
    fn owner(&self) -> Owner {
        Owner {
            kind: OwnerKind::MemHpa,
            name: String::new(),
            uid: None,
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn targets(&self) -> Result<Vec<Arc<Target>>, SourceError> {
        if !self.objects.synced() {
            let why = self.objects.last_error();
            return Err(SourceError {
                code: "not_listed",
                message: format!(
                    "MemHpas are not listed yet: {}",
                    why.as_deref().unwrap_or("the API server has not answered")
                ),
            });
        }
        Ok(targets(&self.objects.all(), &self.config))
    }

    async fn report(&self, reports: Vec<(TargetKey, Report)>) {
        for (key, report) in reports {
            let object = self.objects.get(&key.namespace, &key.name);
            let object = object.filter(|object| object.uid() == key.owner.uid);
            if let Some(object) = object {
                self.write(&object, &report).await;
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
