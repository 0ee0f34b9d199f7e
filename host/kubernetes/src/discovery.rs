//! Which resource serves a kind.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::core::{ApiResource, GroupVersion, GroupVersionKind};

use crate::{ClusterError, limited};

/// A kind as the API server serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The resource that serves it.
    pub resource: ApiResource,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// Kinds by apiVersion and kind. Only kinds that exist are remembered, so the cache cannot outgrow the cluster.
pub(crate) struct Kinds {
    client: kube::Client,
    timeout: Duration,
    known: RwLock<HashMap<(String, String), Kind>>,
    preferred: RwLock<HashMap<String, String>>,
}

/// Kinds that every cluster serves, so that a first wake does not wait for discovery.
const BUILT_IN: [(&str, &str, &str); 5] = [
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("v1", "Service", "services"),
    ("v1", "Pod", "pods"),
];

impl Kinds {
    pub(crate) fn new(client: kube::Client, timeout: Duration) -> Self {
        let known = BUILT_IN
            .iter()
            .filter_map(|(api_version, kind, plural)| {
                let resource = resource(api_version, kind, plural)?;
                Some((
                    ((*api_version).to_owned(), (*kind).to_owned()),
                    Kind {
                        resource,
                        namespaced: true,
                    },
                ))
            })
            .collect();
        Self {
            client,
            timeout,
            known: RwLock::new(known),
            preferred: RwLock::default(),
        }
    }

    /// The resource that serves a kind.
    ///
    /// # Errors
    /// [`ClusterError::NoKind`] when there is none.
    pub(crate) async fn kind(&self, api_version: &str, kind: &str) -> Result<Kind, ClusterError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(known.clone());
        }
        let missing = || ClusterError::NoKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        };
        let what = || format!("discovery of {api_version}");
        let list = if api_version.contains('/') {
            limited(
                self.timeout,
                what,
                self.client.list_api_group_resources(api_version),
            )
            .await
        } else {
            limited(
                self.timeout,
                what,
                self.client.list_core_api_resources(api_version),
            )
            .await
        };
        let list = match list {
            Ok(list) => list,
            Err(ClusterError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error),
        };
        let mut found = None;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for served in list.resources.iter().filter(|served| !served.name.contains('/')) {
            if let Some(resource) = resource(api_version, &served.kind, &served.name) {
                let entry = Kind {
                    resource,
                    namespaced: served.namespaced,
                };
                if served.kind == kind {
                    found = Some(entry.clone());
                }
                known.insert((api_version.to_owned(), served.kind.clone()), entry);
            }
        }
        found.ok_or_else(missing)
    }

    /// The resource name of a kind as metrics APIs write it: `deployments.apps`, `pods`.
    pub(crate) async fn group_resource(&self, group: &str, kind: &str) -> Result<String, ClusterError> {
        if group.is_empty() {
            return Ok(self.kind("v1", kind).await?.resource.plural);
        }
        let cached = self
            .preferred
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(group)
            .cloned();
        let api_version = match cached {
            Some(api_version) => api_version,
            None => {
                let request = http::Request::get(format!("/apis/{group}"))
                    .body(Vec::new())
                    .map_err(|_| ClusterError::Invalid {
                        what: format!("group {group}"),
                        message: "no valid API group".to_owned(),
                    })?;
                let what = || format!("discovery of {group}");
                let found = limited(self.timeout, what, self.client.request::<APIGroup>(request)).await;
                let served = match found {
                    Ok(served) => served,
                    Err(ClusterError::NotFound { .. }) => {
                        return Err(ClusterError::NoKind {
                            api_version: group.to_owned(),
                            kind: kind.to_owned(),
                        });
                    }
                    Err(error) => return Err(error),
                };
                let version = served.preferred_version.as_ref().or(served.versions.first());
                let api_version = version
                    .map(|version| version.group_version.clone())
                    .ok_or_else(|| ClusterError::NoKind {
                        api_version: group.to_owned(),
                        kind: kind.to_owned(),
                    })?;
                let mut preferred = self.preferred.write().unwrap_or_else(PoisonError::into_inner);
                preferred.insert(group.to_owned(), api_version.clone());
                api_version
            }
        };
        Ok(format!(
            "{}.{group}",
            self.kind(&api_version, kind).await?.resource.plural
        ))
    }
}

fn resource(api_version: &str, kind: &str, plural: &str) -> Option<ApiResource> {
    let version: GroupVersion = api_version.parse().ok()?;
    let gvk = GroupVersionKind::gvk(&version.group, &version.version, kind);
    Some(ApiResource::from_gvk_with_plural(&gvk, plural))
}
