//! What shows Dormouse's hand in Services and their slices, whether a Sleeper is left for it or not.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail};
use dormouse_kubernetes::Scope;
use dormouse_model::ObjectRef;
use dormouse_sleepers::api::{
    FENCE, FENCE_LABEL, MANAGED_BY, PARKED_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS,
};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::{CONCURRENCY, REQUEST};
use crate::output::tell;

/// Annotations of Dormouse on Services: the epoch of the last wake, and what is parked. The latter stays where somebody edited the
/// selector by hand.
const NOTES: [&str; 3] = [FENCE, PARKED_SELECTOR, PARKED_WORKLOADS];

/// Looks for what was left behind, and takes it away.
pub(super) struct Leftovers {
    client: Client,
    scope: Scope,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Services with a parked selector.
    pub(super) parked: Vec<Service>,
    /// Dormouse's slices.
    pub(super) slices: Vec<EndpointSlice>,
    /// Services that lead to their pods, or to nobody, and carry [`NOTES`].
    noted: Vec<Service>,
}

impl Leftovers {
    pub(super) fn new(client: Client, scope: Scope) -> Self {
        Self { client, scope }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.scope.namespace() {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// All of it, fresh from the API server.
    pub(super) async fn find(&self) -> Result<Found> {
        let services = asked("Services", self.api::<Service>().list(&ListParams::default())).await?;
        let ours =
            ListParams::default().labels(&format!("endpointslice.kubernetes.io/managed-by={MANAGED_BY}"));
        let slices = asked("EndpointSlices", self.api::<EndpointSlice>().list(&ours)).await?;
        let mut found = Found {
            slices: slices.items,
            ..Found::default()
        };
        for service in services.items {
            if is_parked(&service) {
                found.parked.push(service);
            } else if NOTES.iter().any(|note| service.annotations().contains_key(*note)) {
                found.noted.push(service);
            }
        }
        Ok(found)
    }

    /// Restores Services and deletes slices that no Sleeper stands for any more. How many Services there were, and whether
    /// there was anything at all.
    pub(super) async fn sweep(&self) -> Result<(usize, bool)> {
        let found = self.find().await?;
        let mut failed = None;
        for service in &found.parked {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            match self.unpark(service, &namespace, &name).await {
                Ok(()) => tell!(
                    "Service {namespace}/{name} had no Sleeper any more; its selector is restored. \
                     Nobody knows how many replicas its workload had: look whether it has any"
                ),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        for slice in &found.slices {
            let gone = self.delete(slice).await;
            if let Err(error) = gone {
                failed.get_or_insert(error);
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok((
                found.parked.len(),
                !found.parked.is_empty() || !found.slices.is_empty(),
            )),
        }
    }

    async fn unpark(&self, service: &Service, namespace: &str, name: &str) -> Result<()> {
        let patch = unpark_patch(service)?;
        let api = Api::<Service>::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let request = api.patch(name, &params, &patch);
        asked(&format!("Service {namespace}/{name}"), request)
            .await
            .map(|_| ())
    }

    async fn delete(&self, slice: &EndpointSlice) -> Result<()> {
        let (namespace, name) = (slice.namespace().unwrap_or_default(), slice.name_any());
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: slice.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &namespace);
        match asked(
            &format!("EndpointSlice {namespace}/{name}"),
            api.delete(&name, &params),
        )
        .await
        {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the epochs of wakes, and notes of what was parked once, off Services and workloads. They mean nothing without a
    /// Sleeper, so failing is no failure.
    pub(super) async fn forget_epochs(&self, workloads: &HashSet<(String, ObjectRef)>) {
        let noted = match self.find().await {
            Ok(found) => found.noted,
            Err(error) => {
                tell!("annotations {} stay on Services: {error:#}", NOTES.join(", "));
                Vec::new()
            }
        };
        let notes: Map<String, Value> = NOTES
            .map(|note| (note.to_owned(), Value::Null))
            .into_iter()
            .collect();
        let patch = json!({"metadata": {"annotations": notes, "labels": {FENCE_LABEL: null}}});
        let patch = Patch::Merge(&patch);
        let params = PatchParams::default();
        let services = noted.iter().map(|service| {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let api = Api::<Service>::namespaced(self.client.clone(), &namespace);
            let (patch, params) = (&patch, &params);
            let work = async move {
                let what = format!("Service {namespace}/{name}");
                asked(&what, api.patch_metadata(&name, params, patch))
                    .await
                    .map(|_| ())
            };
            futures::future::Either::Left(work)
        });
        let workloads = workloads.iter().map(|(namespace, object)| {
            let (group, version) = object
                .api_version
                .split_once('/')
                .unwrap_or(("", &object.api_version));
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &object.kind));
            let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
            let (patch, params, name) = (&patch, &params, &object.name);
            let what = format!("{} {namespace}/{name}", object.kind);
            let work = async move {
                let found = asked(&what, api.get_metadata(name)).await?;
                if !found.annotations().contains_key(FENCE) {
                    return Ok(());
                }
                asked(&what, api.patch_metadata(name, params, patch))
                    .await
                    .map(|_| ())
            };
            futures::future::Either::Right(work)
        });
        futures::stream::iter(services.chain(workloads))
            .buffer_unordered(CONCURRENCY)
            .for_each(async |done: Result<()>| match done {
                Err(error) if !is_gone(&error) => tell!("an annotation stays: {error:#}"),
                _ => {}
            })
            .await;
    }
}

pub(super) fn is_parked(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref())
        .is_some_and(|selector| selector.contains_key(PARKED_LABEL))
}

/// The selector of before.
pub(super) fn original(service: &Service) -> Result<BTreeMap<String, String>> {
    let text = service.annotations().get(PARKED_SELECTOR).with_context(|| {
        format!(
            "the selector of Service {}/{} is parked and its annotation {PARKED_SELECTOR} is gone: take the selector from your manifests",
            service.namespace().unwrap_or_default(),
            service.name_any()
        )
    })?;
    serde_json::from_str(text)
        .with_context(|| format!("annotation {PARKED_SELECTOR} is no JSON object of labels: {text}"))
}

/// Conditional on the version that was read.
fn unpark_patch(service: &Service) -> Result<Value> {
    let mut selector = Map::new();
    selector.insert(PARKED_LABEL.to_owned(), Value::Null);
    let beside = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref())
        .is_some_and(|selector| selector.len() > 1);
    // What somebody put beside the parked label is newer than what was kept.
    if !beside {
        selector.extend(
            original(service)?
                .into_iter()
                .map(|(key, value)| (key, value.into())),
        );
    }
    Ok(json!({
        "metadata": {
            "resourceVersion": service.resource_version(),
            "annotations": {PARKED_SELECTOR: null, PARKED_WORKLOADS: null, FENCE: null},
            "labels": {FENCE_LABEL: null},
        },
        "spec": {"selector": selector},
    }))
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if matches!(status.code, 404 | 409))
}

async fn asked<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer.with_context(|| what.to_owned()),
        Err(_) => bail!("{what} was not answered within {REQUEST:?}"),
    }
}
