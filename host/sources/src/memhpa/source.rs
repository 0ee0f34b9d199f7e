//! MemHpas of a cluster as a source.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_autoscaler::{Report, Source, SourceError};
use dormouse_kubernetes::{ApiServer, Cache, EventRecorder, EventType, Reflectors, Scope, Signals};
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
    signals: Signals,
    server: ApiServer,
    events: EventRecorder,
}

impl MemHpaSource {
    /// Begins to watch them, until `cancel`.
    pub fn start(cluster: &Cluster, config: MemHpaConfig, cancel: CancellationToken) -> Arc<Self> {
        let settings = cluster.config();
        let client = cluster.client().clone();
        let signals = Signals::default();
        let reflectors = Reflectors {
            signals: signals.clone(),
            metrics: cluster.kubernetes_metrics().clone(),
            outages: cluster.outages().clone(),
            cancel,
        };
        let api = match &settings.scope {
            Scope::All => Api::all(client.clone()),
            Scope::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        };
        Arc::new(Self {
            config,
            objects: reflectors.start(api),
            signals,
            server: ApiServer::new(client, settings.request_timeout, settings.field_manager.clone()),
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
        let patch = Patch::Merge(json!({ "status": status }));
        let params = self.server.patch_params();
        let written = api.patch_status(&name, &params, &patch);
        let written = self
            .server
            .ask(|| format!("the status of MemHpa {name}"), written)
            .await;
        if let Err(error) = written {
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
        self.signals.revision()
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
