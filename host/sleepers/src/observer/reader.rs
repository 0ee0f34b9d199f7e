//! Reads the objects that a Sleeper names from the API server.

use std::sync::Arc;

use dormouse_kubernetes::slices::SERVICE_NAME_LABEL;
use dormouse_kubernetes::{ApiServer, ClusterError, optional};
use dormouse_model::ObjectRef;
use futures::future::{try_join, try_join_all, try_join3};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::ApiResource;

use super::each_once;
use crate::api::{Sleeper, SleeperSpec};
use crate::caches::Caches;
use crate::observed::{ObservedObjects, ObservedService, ObservedWorkload};

/// Reads workloads, Services and EndpointSlices. Cheap to clone.
#[derive(Clone)]
pub(super) struct ObjectReader {
    server: ApiServer,
    caches: Arc<Caches>,
}

impl ObjectReader {
    pub(super) fn new(server: ApiServer, caches: Arc<Caches>) -> Self {
        Self { server, caches }
    }

    /// All objects that a Sleeper names.
    pub(super) async fn read(
        &self,
        namespace: &str,
        sleeper: &Sleeper,
    ) -> Result<ObservedObjects, ClusterError> {
        let deleting = sleeper.metadata.deletion_timestamp.is_some();
        let workloads = each_once(&sleeper.spec.workloads).map(async |object| {
            let version = self.workload(namespace, object, deleting).await?;
            Ok::<_, ClusterError>((object.clone(), version))
        });
        let services = each_once(&sleeper.spec.services).map(async |name| {
            let version = self.service(namespace, name).await?;
            Ok::<_, ClusterError>((name.clone(), version))
        });
        let (workloads, services, ()) = try_join3(
            try_join_all(workloads),
            try_join_all(services),
            self.list_autoscalers(namespace, &sleeper.spec),
        )
        .await?;
        Ok(ObservedObjects {
            workloads: workloads.into_iter().collect(),
            services: services.into_iter().collect(),
            denied: None,
        })
    }

    async fn workload(
        &self,
        namespace: &str,
        object: &ObjectRef,
        deleting: bool,
    ) -> Result<ObservedWorkload, ClusterError> {
        let server = &self.server;
        let kind = match server.kind(&object.api_version, &object.kind).await {
            Ok(kind) => kind,
            // Without its kind there is no object, and the finalizer of a Sleeper must not wait for one.
            Err(ClusterError::NoKind { .. }) if deleting => {
                let gvk = kube::core::GroupVersionKind::gvk("", "", &object.kind);
                return Ok(ObservedWorkload::missing(ApiResource::from_gvk(&gvk), true));
            }
            Err(error) => return Err(error),
        };
        let api = server.api_of(namespace, &kind.resource, kind.namespaced);
        let what = || format!("{} {}", object.kind, object.name);
        let scale_of = || format!("the scale of {} {}", object.kind, object.name);
        let (metadata, scale) = try_join(
            async { optional(server.ask(what, api.get_metadata(&object.name)).await) },
            async { optional(server.ask(scale_of, api.get_scale(&object.name)).await) },
        )
        .await?;
        let Some(metadata) = metadata.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
            return Ok(ObservedWorkload::missing(kind.resource, kind.namespaced));
        };
        let Some(scale) = scale else {
            return Err(ClusterError::Invalid {
                what: scale_of(),
                message: "there is none: the kind has no scale subresource, or the object has just gone"
                    .to_owned(),
            });
        };
        Ok(ObservedWorkload {
            resource: kind.resource,
            namespaced: kind.namespaced,
            scale: Some(scale),
            version: metadata.resource_version(),
            annotations: metadata.annotations().clone(),
        })
    }

    /// Lists the HPAs of a namespace where they may not be watched, or the watch has no list yet.
    async fn list_autoscalers(&self, namespace: &str, spec: &SleeperSpec) -> Result<(), ClusterError> {
        let autoscalers = &self.caches.autoscalers;
        if autoscalers.synced() || spec.workloads.is_empty() || spec.restore_replicas.is_some() {
            return Ok(());
        }
        let api = self.server.api::<HorizontalPodAutoscaler>(namespace);
        // From the API server's cache: the newest list may have to wait for etcd while a wake waits for it.
        let cached = ListParams::default().match_any();
        let what = || "HorizontalPodAutoscalers".to_owned();
        match self.server.ask(what, api.list(&cached)).await {
            Ok(list) => autoscalers.replace_namespace(namespace, list.items),
            // A wake must not fail for this: it restores the replicas from before.
            Err(error) => {
                tracing::debug!(namespace, %error, "HPAs could not be listed; replicas from before are restored");
            }
        }
        Ok(())
    }

    async fn service(&self, namespace: &str, name: &str) -> Result<ObservedService, ClusterError> {
        let server = &self.server;
        let (services, slices) = (
            server.api::<Service>(namespace),
            server.api::<EndpointSlice>(namespace),
        );
        let of_service = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}={name}"));
        let (service, slices) = try_join(
            async {
                let what = || format!("Service {name}");
                optional(server.ask(what, services.get(name)).await)
            },
            server.ask(
                || format!("EndpointSlices of Service {name}"),
                slices.list(&of_service),
            ),
        )
        .await?;
        Ok(ObservedService::new(name, service, slices.items.into_iter()))
    }
}
