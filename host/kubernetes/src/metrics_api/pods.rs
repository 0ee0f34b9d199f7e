//! The pods of workloads, for readings that are about pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dormouse_model::{LabelSelector, ObjectRef};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use serde::Deserialize;

use super::{MetricError, MetricsApi, within};
use crate::pods::is_ready;

/// Pods in one page of a list.
const PAGE: usize = 500;
/// Pods of one namespace that are looked at.
const MOST: usize = 20_000;

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadPod {
    /// Its name.
    pub name: String,
    /// Its phase, such as `Running`. One that is not known is `Pending`.
    pub phase: String,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// When it was started.
    pub started: Option<Timestamp>,
    /// Status of its Ready condition, and since when.
    pub ready_condition: Option<(String, Timestamp)>,
    /// Its containers.
    pub containers: Vec<PodContainer>,
    /// Its init containers, in order.
    pub init_containers: Vec<PodContainer>,
    /// What the pod itself requests of each resource, Kubernetes quantities.
    pub requests: BTreeMap<String, String>,
    /// What it takes to run it, of each resource, Kubernetes quantities.
    pub overhead: BTreeMap<String, String>,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether it is ready and not on its way out.
    pub ready: bool,
    /// Whether its address is that of the node.
    pub host_network: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodContainer {
    /// Its name.
    pub name: String,
    /// What it requests of each resource, Kubernetes quantities.
    pub requests: BTreeMap<String, String>,
    /// What it may use of each resource at most, Kubernetes quantities.
    pub limits: BTreeMap<String, String>,
    /// Whether it is an init container that stays up.
    pub sidecar: bool,
}

impl WorkloadPod {
    /// What is seen of a pod. One that was not started yet, such as that of a template, is pending.
    pub fn of(pod: &Pod) -> Self {
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let ready = status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|condition| condition.type_ == "Ready");
        let phase = status.and_then(|status| status.phase.as_deref());
        let resources = spec.and_then(|spec| spec.resources.as_ref());
        let init = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        Self {
            name: pod.name_any(),
            phase: phase.unwrap_or("Pending").to_owned(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            started: status
                .and_then(|status| status.start_time.as_ref())
                .map(|time| time.0),
            ready_condition: ready.and_then(|ready| {
                let since = ready.last_transition_time.as_ref()?.0;
                Some((ready.status.clone(), since))
            }),
            containers: spec
                .iter()
                .flat_map(|spec| &spec.containers)
                .map(container)
                .collect(),
            init_containers: init.map(container).collect(),
            requests: amounts(resources.and_then(|resources| resources.requests.as_ref())),
            overhead: amounts(spec.and_then(|spec| spec.overhead.as_ref())),
            address: status
                .and_then(|status| status.pod_ip.as_deref())
                .and_then(|address| address.parse().ok()),
            ready: is_ready(pod),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            labels: pod.labels().clone(),
        }
    }

    /// Whether it runs, or will: it has not finished and is not on its way out.
    pub fn is_current(&self) -> bool {
        !self.deleting && !matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether its containers run.
    pub fn is_running(&self) -> bool {
        !self.deleting && self.phase == "Running"
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<Pod>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue", default)]
    more: Option<String>,
}

impl MetricsApi {
    /// What selects the pods of a workload, by its scale subresource.
    ///
    /// # Errors
    /// [`MetricError`].
    pub async fn workload_selector(
        &self,
        namespace: &str,
        workload: &ObjectRef,
        timeout: Duration,
    ) -> Result<LabelSelector, MetricError> {
        let what = || format!("the scale of {} {}", workload.kind, workload.name);
        within(timeout, what, async {
            let scale = self.server.scale(namespace, workload).await?;
            let selector = scale.selector().parse();
            let selector: LabelSelector = selector.map_err(|source| MetricError::WrongSelector {
                kind: workload.kind.clone(),
                name: workload.name.clone(),
                source,
            })?;
            // An empty one would select every pod of the namespace.
            if selector.is_empty() {
                return Err(MetricError::NoSelector {
                    kind: workload.kind.clone(),
                    name: workload.name.clone(),
                });
            }
            Ok(selector)
        })
        .await
    }

    /// The pods of a namespace. Read from the API server and not from a cache: a pod that is missing here would be missing in a sum.
    ///
    /// # Errors
    /// [`MetricError`].
    pub async fn namespace_pods(
        &self,
        namespace: &str,
        timeout: Duration,
    ) -> Result<Vec<WorkloadPod>, MetricError> {
        let what = || format!("the pods of {namespace}");
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let limit = PAGE.to_string();
        within(timeout, what, async {
            let mut pods = Vec::new();
            let mut more: Option<String> = None;
            loop {
                let mut parameters = vec![("limit", limit.as_str())];
                parameters.extend(more.as_deref().map(|token| ("continue", token)));
                let list: List = self.read_list(&path, &parameters, timeout, what).await?;
                pods.extend(list.items.iter().map(WorkloadPod::of));
                more = list.metadata.more.filter(|token| !token.is_empty());
                if more.is_none() {
                    return Ok(pods);
                }
                if pods.len() >= MOST {
                    return Err(MetricError::TooManyPods {
                        what: namespace.to_owned(),
                        limit: MOST,
                    });
                }
            }
        })
        .await
    }
}

fn container(container: &Container) -> PodContainer {
    let resources = container.resources.as_ref();
    PodContainer {
        name: container.name.clone(),
        requests: amounts(resources.and_then(|resources| resources.requests.as_ref())),
        limits: amounts(resources.and_then(|resources| resources.limits.as_ref())),
        sidecar: container.restart_policy.as_deref() == Some("Always"),
    }
}

fn amounts(of: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<String, String> {
    let of = of.into_iter().flatten();
    of.map(|(name, amount)| (name.clone(), amount.0.clone()))
        .collect()
}
