//! Services that are parked for a Sleeper that does not exist any more, and that no other Sleeper names.
//!
//! A Sleeper that was removed by force restores nothing, and perhaps nobody creates it anew. What it left behind is undone by what
//! stands on the objects themselves.

use dormouse_kubernetes::services::current_selector;
use dormouse_kubernetes::{ClusterError, EventType, optional};
use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Map, Value, json};

use crate::Cluster;
use crate::api::{ASLEEP, PARKED_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS};
use crate::observe::pods::scale_selector;
use crate::ownership::Note;
use crate::services::{is_parked, original_selector};

impl Cluster {
    /// Namespaces and names of the Services that nobody looks after, as the reflectors show them.
    pub(crate) fn orphans(&self) -> Vec<(String, String)> {
        let services = self.inner.caches.services.all();
        let orphaned = services.iter().filter(|service| {
            let namespace = service.namespace().unwrap_or_default();
            let parked_by = current_selector(service).and_then(|selector| selector.get(PARKED_LABEL));
            let Some(parked_by) = parked_by else { return false };
            let name = service.name_any();
            let names = || {
                let sleepers = self.sleepers_in(&namespace);
                sleepers
                    .iter()
                    .any(|sleeper| sleeper.spec.services.contains(&name))
            };
            self.sleeper_named(&namespace, parked_by).is_none() && !names()
        });
        orphaned
            .map(|service| (service.namespace().unwrap_or_default(), service.name_any()))
            .collect()
    }

    /// Brings back the workloads of such a Service, then its selector.
    pub(crate) async fn heal_orphan(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        let api = self.inner.server.api::<Service>(namespace);
        let read = self
            .inner
            .server
            .ask(|| format!("Service {name}"), api.get(name))
            .await;
        let Some(service) = optional(read)?.filter(is_parked) else {
            return Ok(());
        };
        let parked_by = current_selector(&service)
            .and_then(|selector| selector.get(PARKED_LABEL))
            .cloned()
            .unwrap_or_default();
        if optional(self.fetch(namespace, &parked_by).await)?.is_some() {
            return Ok(());
        }
        let listed = service.annotations().get(PARKED_WORKLOADS);
        let workloads: Vec<ObjectRef> = listed
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let mut of_workload = None;
        for workload in &workloads {
            of_workload = self.revive(namespace, workload).await?.or(of_workload);
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
        let (params, patch) = (self.inner.server.patch_params(), Patch::Merge(&patch));
        self.inner
            .server
            .ask(|| format!("Service {name}"), api.patch(name, &params, &patch))
            .await?;
        let message = format!("restored: Sleeper {parked_by}, for which it was parked, is gone");
        tracing::warn!(namespace, service = name, "{message}");
        self.tell_of_service(&service, EventType::Warning, "Restored", &message);
        Ok(())
    }

    /// Scales a workload that a sleep has put to zero to what it was; by which labels it selects its pods.
    async fn revive(
        &self,
        namespace: &str,
        workload: &ObjectRef,
    ) -> Result<Option<std::collections::BTreeMap<String, String>>, ClusterError> {
        let kind = self
            .inner
            .server
            .kind(&workload.api_version, &workload.kind)
            .await?;
        let api = self
            .inner
            .server
            .api_of(namespace, &kind.resource, kind.namespaced);
        let what = || format!("{} {}", workload.kind, workload.name);
        let Some(metadata) = optional(
            self.inner
                .server
                .ask(what, api.get_metadata(&workload.name))
                .await,
        )?
        else {
            return Ok(None);
        };
        let mut scale = self.inner.server.ask(what, api.get_scale(&workload.name)).await?;
        let labels = scale
            .status
            .take()
            .and_then(|status| scale_selector(status.selector.as_deref()?)?.as_labels());
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        if replicas == 0 {
            let before = Note::of(metadata.annotations()).map_or(1, |note| note.replicas.max(1));
            scale.spec = Some(ScaleSpec {
                replicas: Some(before),
            });
            self.inner
                .server
                .ask(
                    what,
                    api.replace_scale(&workload.name, &self.inner.server.post_params(), &scale),
                )
                .await?;
        }
        if metadata.annotations().contains_key(ASLEEP) {
            let patch = json!({"metadata": {"annotations": {ASLEEP: null}}});
            let (params, patch) = (self.inner.server.patch_params(), Patch::Merge(&patch));
            self.inner
                .server
                .ask(what, api.patch_metadata(&workload.name, &params, &patch))
                .await?;
        }
        Ok(labels)
    }
}
