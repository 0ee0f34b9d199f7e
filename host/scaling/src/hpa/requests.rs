//! What pods request of a resource.

use dormouse_model::Quantity;

use super::MetricError;
use super::pods::{Container, Pod};
use super::usage::Resources;
use crate::utilization::Amounts;

/// What each pod, or one container of each, requests of a resource, in milli-units.
///
/// # Errors
/// [`MetricError::MissingRequest`], [`MetricError::MissingPodLevelRequest`] or [`MetricError::ContainerNotFound`] for the first
/// pod that does not tell.
pub(super) fn of_pods<'a>(
    pods: &'a [Pod],
    resource: &str,
    container: Option<&str>,
) -> Result<Amounts<'a>, MetricError> {
    let mut requests = Amounts::with_capacity(pods.len());
    for pod in pods {
        let request = match container {
            Some(container) => of_container(pod, resource, container)?,
            None if has_pod_level_requests(pod) => of_pod_level(pod, resource)?,
            None => of_containers(pod, resource)?,
        };
        requests.insert(pod.name.as_str(), request);
    }
    Ok(requests)
}

/// The containers that stay up, sidecars included.
fn running(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod.init_containers.iter().filter(|init| init.sidecar);
    pod.containers.iter().chain(sidecars.map(|init| &init.container))
}

fn of_container(pod: &Pod, resource: &str, name: &str) -> Result<i64, MetricError> {
    let container = running(pod).find(|container| container.name == name);
    let container = container.ok_or_else(|| MetricError::ContainerNotFound {
        container: name.to_owned(),
        pod: pod.name.clone(),
    })?;
    request(pod, container, resource)
}

fn of_containers(pod: &Pod, resource: &str) -> Result<i64, MetricError> {
    running(pod).try_fold(0_i64, |sum, container| {
        Ok(sum.saturating_add(request(pod, container, resource)?))
    })
}

fn request(pod: &Pod, container: &Container, resource: &str) -> Result<i64, MetricError> {
    let request = container.requests.get(resource);
    let request = request.ok_or_else(|| MetricError::MissingRequest {
        resource: resource.to_owned(),
        container: container.name.clone(),
        pod: pod.name.clone(),
    })?;
    Ok(request.saturating_millis())
}

/// Whether Kubernetes honours a request for the resource on the pod itself.
fn is_pod_level_resource(resource: &str) -> bool {
    resource == "cpu" || resource == "memory" || resource.starts_with("hugepages-")
}

fn has_pod_level_requests(pod: &Pod) -> bool {
    pod.requests
        .keys()
        .any(|resource| is_pod_level_resource(resource))
}

fn of_pod_level(pod: &Pod, resource: &str) -> Result<i64, MetricError> {
    effective(pod, resource)
        .map(Quantity::saturating_millis)
        .ok_or_else(|| MetricError::MissingPodLevelRequest {
            resource: resource.to_owned(),
            pod: pod.name.clone(),
        })
}

/// What the scheduler reserves for a pod: its own request or else what its containers need at any time, and its overhead.
fn effective(pod: &Pod, resource: &str) -> Option<Quantity> {
    let own = pod
        .requests
        .get(resource)
        .filter(|_| is_pod_level_resource(resource));
    let reserved = own.copied().or_else(|| of_all_containers(pod, resource));
    sum(reserved, amount(&pod.overhead, resource))
}

/// The most that the containers of a pod need at any time, those that only run at its start included.
fn of_all_containers(pod: &Pod, resource: &str) -> Option<Quantity> {
    let steady = running(pod).fold(None, |total, container| {
        sum(total, amount(&container.requests, resource))
    });
    // An init container runs beside the sidecars before it.
    let (mut sidecars, mut starting) = (None, None);
    for init in &pod.init_containers {
        let own = amount(&init.container.requests, resource);
        if init.sidecar {
            sidecars = sum(sidecars, own);
        } else {
            starting = starting.max(sum(sidecars, own));
        }
    }
    steady.max(starting)
}

fn amount(resources: &Resources, resource: &str) -> Option<Quantity> {
    resources.get(resource).copied()
}

fn sum(left: Option<Quantity>, right: Option<Quantity>) -> Option<Quantity> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (known, None) | (None, known) => known,
    }
}
