//! The API server, as one process speaks to it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DynamicObject, PatchParams, PostParams};
use kube::core::{ApiResource, NamespaceResourceScope};
use kube::{Api, Resource};

use crate::discovery::{Kind, Kinds};
use crate::{ClusterError, limited};

/// A client with what every request of this process has in common. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    client: kube::Client,
    kinds: Arc<Kinds>,
    request_timeout: Duration,
    field_manager: String,
}

impl ApiServer {
    /// `request_timeout` is the deadline of each single request; `field_manager` is named in every write, at most 128 characters.
    pub fn new(client: kube::Client, request_timeout: Duration, field_manager: impl Into<String>) -> Self {
        Self {
            kinds: Arc::new(Kinds::new(client.clone(), request_timeout)),
            client,
            request_timeout,
            field_manager: field_manager.into(),
        }
    }

    /// The client.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Deadline of each single request.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Who is named in every write.
    pub fn field_manager(&self) -> &str {
        &self.field_manager
    }

    /// Which resource serves a kind.
    ///
    /// # Errors
    /// [`ClusterError::NoKind`] when there is none.
    pub async fn kind(&self, api_version: &str, kind: &str) -> Result<Kind, ClusterError> {
        self.kinds.kind(api_version, kind).await
    }

    /// The resource name of a kind as metrics APIs write it: `deployments.apps`, `pods`.
    pub(crate) async fn group_resource(&self, group: &str, kind: &str) -> Result<String, ClusterError> {
        self.kinds.group_resource(group, kind).await
    }

    /// The API of a kind in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API of a resource that is known at run time only. The namespace does not count where it has none.
    pub fn api_of(&self, namespace: &str, resource: &ApiResource, namespaced: bool) -> Api<DynamicObject> {
        if namespaced {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        } else {
            Api::all_with(self.client.clone(), resource)
        }
    }

    /// Carries a request out within the deadline of requests, and names its error.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn ask<T>(
        &self,
        what: impl FnOnce() -> String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        limited(self.request_timeout, what, request).await
    }

    /// The uid of an object.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`], [`ClusterError::NoKind`], or what the API server says.
    pub async fn uid_of(
        &self,
        namespace: &str,
        api_version: &str,
        kind: &str,
        name: &str,
    ) -> Result<String, ClusterError> {
        let found = self.kind(api_version, kind).await?;
        let api = self.api_of(namespace, &found.resource, found.namespaced);
        let object = self
            .ask(|| format!("{kind} {name}"), api.get_metadata(name))
            .await?;
        Ok(object.metadata.uid.unwrap_or_default())
    }

    /// Parameters of a create or a replace.
    pub fn post_params(&self) -> PostParams {
        PostParams {
            dry_run: false,
            field_manager: Some(self.field_manager.clone()),
        }
    }

    /// Parameters of a patch.
    pub fn patch_params(&self) -> PatchParams {
        PatchParams {
            field_manager: Some(self.field_manager.clone()),
            ..PatchParams::default()
        }
    }
}
