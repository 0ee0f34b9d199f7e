//! Steps that write Services and Dormouse's EndpointSlices.

use std::collections::BTreeMap;

use dormouse_kubernetes::slices::SERVICE_NAME_LABEL;
use dormouse_kubernetes::{ApiServer, ClusterError};
use dormouse_lifecycle::{Epoch, Selector};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::patches::{Fence, park_patch, restore_patch, slice};
use super::required;
use crate::api::{FENCE, FENCE_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS, Sleeper};
use crate::dlx::DlxReplicas;
use crate::observed::{Observed, Written};
use crate::slices::is_own;

/// Diverts Services to the DLX and back. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ServiceSteps {
    pub(crate) server: ApiServer,
    pub(crate) dlx: DlxReplicas,
}

impl ServiceSteps {
    pub(super) async fn write_slice(&self, observed: &Observed, name: &str) -> Result<Written, ClusterError> {
        let mut services = observed.observation.services.iter();
        let service = services.find(|service| service.name == name);
        let desired = observed
            .observation
            .wanted_slice(required(service, "Service", name)?);
        let mut slice = slice(&observed.sleeper, name, &desired, &self.dlx.nodes());
        let server = &self.server;
        let api = server.api::<EndpointSlice>(&observed.namespace());
        let own_name = slice.name_any();
        let what = || format!("EndpointSlice {own_name}");
        let known_version = match observed.own_slice(name) {
            // The family of a slice is fixed.
            Some(own) if own.address_type != slice.address_type => {
                return self.delete_slice(observed, name).await;
            }
            Some(own) => own.metadata.resource_version.clone(),
            None => match server.ask(what, api.create(&server.post_params(), &slice)).await {
                Ok(created) => return Ok(Written::Slice(name.to_owned(), Some(Box::new(created)))),
                // Dormouse's own, if it has a Sleeper as its owner and only its labels were taken away.
                Err(ClusterError::Exists { .. }) => {
                    let found = server.ask(what, api.get(&own_name)).await?;
                    let of_sleeper = |owner: &OwnerReference| owner.kind == Sleeper::kind(&());
                    let of_service = found.labels().get(SERVICE_NAME_LABEL);
                    let is_whole = is_own(found.labels()) && of_service.is_some_and(|of| of == name);
                    if is_whole || !found.owner_references().iter().any(of_sleeper) {
                        return Err(ClusterError::Exists { what: what() });
                    }
                    found.metadata.resource_version
                }
                Err(error) => return Err(error),
            },
        };
        slice.metadata.resource_version = known_version;
        let params = server.post_params();
        let replaced = server.ask(what, api.replace(&own_name, &params, &slice)).await?;
        Ok(Written::Slice(name.to_owned(), Some(Box::new(replaced))))
    }

    pub(super) async fn delete_slice(
        &self,
        observed: &Observed,
        name: &str,
    ) -> Result<Written, ClusterError> {
        let deleted = Written::Slice(name.to_owned(), None);
        let Some(own) = observed.own_slice(name) else {
            return Ok(deleted);
        };
        let preconditions = Preconditions {
            uid: own.uid(),
            resource_version: own.resource_version(),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api = self
            .server
            .api::<EndpointSlice>(&own.namespace().unwrap_or_default());
        let own_name = own.name_any();
        let what = || format!("EndpointSlice {own_name}");
        match self.server.ask(what, api.delete(&own_name, &params)).await {
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(deleted),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn park(&self, observed: &Observed, name: &str) -> Result<Written, ClusterError> {
        let service = required(observed.service(name), "Service", name)?;
        let patch = park_patch(service, known_selector(observed, name)?, &observed.sleeper);
        self.patch(service, &patch).await
    }

    pub(super) async fn restore(&self, observed: &Observed, name: &str) -> Result<Written, ClusterError> {
        let service = required(observed.service(name), "Service", name)?;
        let uid = observed.uid();
        let fence = Fence::new(service, observed.observation.state.epoch, &uid);
        let patch = restore_patch(service, known_selector(observed, name)?, &fence);
        self.patch(service, &patch).await
    }

    pub(super) async fn fence(
        &self,
        observed: &Observed,
        name: &str,
        epoch: Epoch,
    ) -> Result<Written, ClusterError> {
        let service = required(observed.service(name), "Service", name)?;
        let fence = Fence::new(service, epoch, &observed.uid());
        // It selects its pods. Annotations that say otherwise are from before its selector was put back by hand.
        let patch = json!({"metadata": {
            "resourceVersion": service.resource_version(),
            "annotations": {FENCE: fence.all, PARKED_SELECTOR: null, PARKED_WORKLOADS: null},
            "labels": {FENCE_LABEL: fence.label},
        }});
        self.patch(service, &patch).await
    }

    async fn patch(&self, service: &Service, patch: &Value) -> Result<Written, ClusterError> {
        let (name, server) = (service.name_any(), &self.server);
        let api = server.api::<Service>(&service.namespace().unwrap_or_default());
        let (params, patch) = (server.patch_params(), Patch::Merge(patch));
        let patched = api.patch(&name, &params, &patch);
        let patched = server.ask(|| format!("Service {name}"), patched).await?;
        Ok(Written::Service(Box::new(patched)))
    }
}

/// The labels by which a Service selects its pods, whether it is parked or not.
fn known_selector<'a>(
    observed: &'a Observed,
    name: &str,
) -> Result<&'a BTreeMap<String, String>, ClusterError> {
    let mut services = observed.observation.services.iter();
    let service = services.find(|service| service.name == name);
    let selector = service.and_then(|service| service.selector.as_ref());
    selector
        .and_then(Selector::labels)
        .ok_or_else(|| ClusterError::NotFound {
            what: format!("the selector of Service {name}"),
        })
}
