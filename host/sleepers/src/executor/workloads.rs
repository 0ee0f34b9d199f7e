//! Steps that write workloads and their scale.

use dormouse_kubernetes::{ApiServer, ClusterError};
use dormouse_lifecycle::Epoch;
use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use kube::api::{DynamicObject, Patch};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::required;
use crate::api::{ASLEEP, FENCE};
use crate::observed::{Observed, ObservedWorkload, Written};
use crate::sleep_note::SleepNote;
use crate::stamps::restamped;

/// Scales workloads to zero and back. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WorkloadSteps {
    pub(crate) server: ApiServer,
}

impl WorkloadSteps {
    pub(super) async fn scale(
        &self,
        observed: &Observed,
        workload: &ObjectRef,
        replicas: i32,
    ) -> Result<Written, ClusterError> {
        let found = observed.objects.workloads.get(workload);
        let mut found = required(found, &workload.kind, &workload.name)?.clone();
        let mut scale = required(found.scale.clone(), &workload.kind, &workload.name)?;
        scale.spec = Some(ScaleSpec {
            replicas: Some(replicas),
        });
        scale.status = None;
        let (namespace, server) = (observed.namespace(), &self.server);
        let api = server.api_of(&namespace, &found.resource, found.namespaced);
        if replicas == 0 {
            // The note comes first. Without it the Sleeper's own record of the replicas still restores them.
            let noted = self.note_sleep(observed, workload, &found, &api).await?;
            scale
                .metadata
                .resource_version
                .clone_from(&noted.resource_version);
            found.annotations = noted.annotations.unwrap_or_default();
        }
        let what = || format!("scaling {} {} to {replicas}", workload.kind, workload.name);
        let params = server.post_params();
        let replaced = api.replace_scale(&workload.name, &params, &scale);
        let scaled = server.ask(what, replaced).await?;
        found.version.clone_from(&scaled.metadata.resource_version);
        found.scale = Some(scaled);
        Ok(Written::Workload(workload.clone(), Box::new(found)))
    }

    /// Notes on a workload how many replicas it had. Returns its metadata after that.
    async fn note_sleep(
        &self,
        observed: &Observed,
        workload: &ObjectRef,
        found: &ObservedWorkload,
        api: &Api<DynamicObject>,
    ) -> Result<ObjectMeta, ClusterError> {
        let state = &observed.observation.state;
        let recorded = state
            .replicas
            .iter()
            .find(|recorded| recorded.workload == *workload);
        let note = SleepNote {
            sleeper: observed.sleeper.name_any(),
            uid: observed.uid(),
            epoch: state.epoch,
            replicas: recorded.map_or(1, |recorded| recorded.replicas),
        };
        let annotations = json!({ASLEEP: serde_json::to_string(&note).unwrap_or_default()});
        self.annotate(workload, found, api, &annotations).await
    }

    async fn annotate(
        &self,
        workload: &ObjectRef,
        found: &ObservedWorkload,
        api: &Api<DynamicObject>,
        annotations: &Value,
    ) -> Result<ObjectMeta, ClusterError> {
        let server = &self.server;
        let patch = json!({"metadata": {"resourceVersion": found.version, "annotations": annotations}});
        let (params, patch) = (server.patch_params(), Patch::Merge(&patch));
        let patched = api.patch_metadata(&workload.name, &params, &patch);
        let what = || format!("{} {}", workload.kind, workload.name);
        Ok(server.ask(what, patched).await?.metadata)
    }

    pub(super) async fn fence(
        &self,
        observed: &Observed,
        workload: &ObjectRef,
        epoch: Epoch,
    ) -> Result<Written, ClusterError> {
        let found = observed.objects.workloads.get(workload);
        let mut found = required(found, &workload.kind, &workload.name)?.clone();
        let namespace = observed.namespace();
        let api = self.server.api_of(&namespace, &found.resource, found.namespaced);
        let uid = observed.uid();
        let annotations = json!({FENCE: restamped(&found.annotations, FENCE, epoch, &uid), ASLEEP: null});
        let metadata = self.annotate(workload, &found, &api, &annotations).await?;
        found.version = metadata.resource_version;
        found.annotations = metadata.annotations.unwrap_or_default();
        if let Some(scale) = &mut found.scale {
            scale.metadata.resource_version.clone_from(&found.version);
        }
        Ok(Written::Workload(workload.clone(), Box::new(found)))
    }
}
