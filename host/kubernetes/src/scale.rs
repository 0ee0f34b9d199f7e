//! The scale subresource, as it is read to decide and written on condition.

use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};

use crate::{ApiServer, ClusterError};

/// What the scale of a workload says.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadScale {
    scale: Scale,
}

impl WorkloadScale {
    /// This scale.
    pub fn new(scale: Scale) -> Self {
        Self { scale }
    }

    /// The version of the workload that it was read from.
    pub fn version(&self) -> Option<&str> {
        self.scale.metadata.resource_version.as_deref()
    }

    /// Replicas that are asked for.
    pub fn replicas(&self) -> i32 {
        let spec = self.scale.spec.as_ref();
        spec.and_then(|spec| spec.replicas).unwrap_or(0)
    }

    /// Replicas that there are.
    pub fn current_replicas(&self) -> i32 {
        self.scale.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// What selects its pods, as text. Empty: it does not say.
    pub fn selector(&self) -> &str {
        let status = self.scale.status.as_ref();
        let selector = status.and_then(|status| status.selector.as_deref());
        selector.unwrap_or_default()
    }
}

impl ApiServer {
    /// Reads the scale of a workload.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] when there is no such workload or its kind has no scale; what else the API server says.
    pub async fn scale(&self, namespace: &str, workload: &ObjectRef) -> Result<WorkloadScale, ClusterError> {
        let kind = self.kind(&workload.api_version, &workload.kind).await?;
        let api = self.api_of(namespace, &kind.resource, kind.namespaced);
        let what = || format!("the scale of {} {}", workload.kind, workload.name);
        let scale = self.ask(what, api.get_scale(&workload.name)).await?;
        Ok(WorkloadScale { scale })
    }

    /// Sets the replicas of a workload, if nobody has changed it since its scale was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if somebody has; what else the API server says.
    pub async fn resize(
        &self,
        namespace: &str,
        workload: &ObjectRef,
        seen: &WorkloadScale,
        replicas: i32,
    ) -> Result<(), ClusterError> {
        let kind = self.kind(&workload.api_version, &workload.kind).await?;
        let api = self.api_of(namespace, &kind.resource, kind.namespaced);
        let mut scale = seen.scale.clone();
        scale.spec = Some(ScaleSpec {
            replicas: Some(replicas),
        });
        scale.status = None;
        let what = || format!("scaling {} {} to {replicas}", workload.kind, workload.name);
        let params = self.post_params();
        self.ask(what, api.replace_scale(&workload.name, &params, &scale))
            .await?;
        Ok(())
    }
}
