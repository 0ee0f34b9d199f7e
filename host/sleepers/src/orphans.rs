//! Services that are parked for a Sleeper that does not exist any more, and that no other Sleeper names.
//!
//! A Sleeper whose finalizer was removed by force restores nothing, and it may not be created again. Its Services and workloads are
//! then restored from their own annotations.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_kubernetes::services::current_selector;
use dormouse_kubernetes::{ApiServer, ClusterError, EventType, optional};
use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Map, Value, json};

use crate::api::{ASLEEP, PARKED_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS};
use crate::caches::Caches;
use crate::events::SleeperEvents;
use crate::observer::scale_selector;
use crate::services::{is_parked, original_selector};
use crate::sleep_note::SleepNote;
use crate::writer::SleeperWriter;

/// Finds and restores orphaned Services.
pub(crate) struct Orphans {
    server: ApiServer,
    caches: Arc<Caches>,
    sleepers: SleeperWriter,
    events: SleeperEvents,
}

impl Orphans {
    pub(crate) fn new(
        server: ApiServer,
        caches: Arc<Caches>,
        sleepers: SleeperWriter,
        events: SleeperEvents,
    ) -> Self {
        Self {
            server,
            caches,
            sleepers,
            events,
        }
    }

    /// Namespaces and names of the orphaned Services, as the caches show them.
    pub(crate) fn find(&self) -> Vec<(String, String)> {
        let services = self.caches.services.all();
        let orphaned = services.iter().filter(|service| self.is_orphan(service));
        orphaned
            .map(|service| (service.namespace().unwrap_or_default(), service.name_any()))
            .collect()
    }

    fn is_orphan(&self, service: &Service) -> bool {
        let selector = current_selector(service);
        let Some(parked_by) = selector.and_then(|selector| selector.get(PARKED_LABEL)) else {
            return false;
        };
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let sleepers = &self.caches.sleepers;
        sleepers.get(&namespace, parked_by).is_none()
            && !sleepers
                .in_namespace(&namespace)
                .iter()
                .any(|sleeper| sleeper.spec.services.contains(&name))
    }

    /// Restores the workloads of an orphaned Service, then its selector.
    pub(crate) async fn restore(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        let api = self.server.api::<Service>(namespace);
        let read = self.server.ask(|| format!("Service {name}"), api.get(name)).await;
        let Some(service) = optional(read)?.filter(is_parked) else {
            return Ok(());
        };
        let parked_by = current_selector(&service)
            .and_then(|selector| selector.get(PARKED_LABEL))
            .cloned()
            .unwrap_or_default();
        if optional(self.sleepers.fetch(namespace, &parked_by).await)?.is_some() {
            return Ok(());
        }
        let listed = service.annotations().get(PARKED_WORKLOADS);
        let workloads: Vec<ObjectRef> = listed
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let mut of_workload = None;
        for workload in &workloads {
            of_workload = self.restore_workload(namespace, workload).await?.or(of_workload);
        }
        let original = original_selector(&service)
            .ok()
            .flatten()
            .filter(|labels| !labels.is_empty());
        let Some(original) = original.or_else(|| of_workload.filter(|_| workloads.len() == 1)) else {
            return Err(ClusterError::Damaged(format!(
                "Service {name} is parked for Sleeper {parked_by}, which is gone, and its annotation {PARKED_SELECTOR} too: set the \
                 selector by hand"
            )));
        };
        let now = current_selector(&service).cloned().unwrap_or_default();
        let mut selector: Map<_, _> = now.into_keys().map(|key| (key, Value::Null)).collect();
        selector.extend(original.into_iter().map(|(key, value)| (key, value.into())));
        let patch = json!({
            "metadata": {
                "resourceVersion": service.resource_version(),
                "annotations": {PARKED_SELECTOR: null, PARKED_WORKLOADS: null},
            },
            "spec": {"selector": selector},
        });
        let (params, patch) = (self.server.patch_params(), Patch::Merge(&patch));
        let patched = api.patch(name, &params, &patch);
        self.server.ask(|| format!("Service {name}"), patched).await?;
        let message = format!("restored: Sleeper {parked_by}, for which it was parked, is gone");
        tracing::warn!(namespace, service = name, "{message}");
        self.events
            .publish_on_service(&service, EventType::Warning, "Restored", &message);
        Ok(())
    }

    /// Restores the replicas of a workload that a sleep has scaled to zero. Returns the labels by which it selects its pods.
    async fn restore_workload(
        &self,
        namespace: &str,
        workload: &ObjectRef,
    ) -> Result<Option<BTreeMap<String, String>>, ClusterError> {
        let server = &self.server;
        let kind = server.kind(&workload.api_version, &workload.kind).await?;
        let api = server.api_of(namespace, &kind.resource, kind.namespaced);
        let what = || format!("{} {}", workload.kind, workload.name);
        let metadata = server.ask(what, api.get_metadata(&workload.name)).await;
        let Some(metadata) = optional(metadata)? else {
            return Ok(None);
        };
        let mut scale = server.ask(what, api.get_scale(&workload.name)).await?;
        let labels = scale
            .status
            .take()
            .and_then(|status| scale_selector(status.selector.as_deref()?)?.as_labels());
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        if replicas == 0 {
            let before = SleepNote::of(metadata.annotations()).map_or(1, |note| note.replicas.max(1));
            scale.spec = Some(ScaleSpec {
                replicas: Some(before),
            });
            let params = server.post_params();
            let replaced = api.replace_scale(&workload.name, &params, &scale);
            server.ask(what, replaced).await?;
        }
        if metadata.annotations().contains_key(ASLEEP) {
            let patch = json!({"metadata": {"annotations": {ASLEEP: null}}});
            let (params, patch) = (server.patch_params(), Patch::Merge(&patch));
            let patched = api.patch_metadata(&workload.name, &params, &patch);
            server.ask(what, patched).await?;
        }
        Ok(labels)
    }
}
