//! The pods of workloads, for readings that are about pods.

use std::net::IpAddr;
use std::time::Duration;

use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde::Deserialize;

use super::{MetricError, MetricsApi, within};

use crate::limited;
use crate::pods::is_ready;

/// Pods of one workload that are looked at.
const MOST: usize = 500;

/// The pods of one or more workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadPods {
    /// What selects them, one for each workload.
    pub selectors: Vec<String>,
    /// Those that run, or will; neither those that have finished nor those on their way out.
    pub pods: Vec<WorkloadPod>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPod {
    /// Its name.
    pub name: String,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether its containers run.
    pub running: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether its address is that of the node.
    pub host_network: bool,
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
    /// The pods of workloads, by the selector of their scale subresource, read from the API server and not from a cache:
    /// a pod that is missing here would be missing in a sum.
    ///
    /// # Errors
    /// [`MetricError`].
    pub async fn workload_pods(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        timeout: Duration,
    ) -> Result<WorkloadPods, MetricError> {
        let what = || format!("the pods of a workload in {namespace}");
        within(timeout, what, async {
            let mut found = WorkloadPods::default();
            for workload in workloads {
                let selector = self.selector_of(namespace, workload, timeout).await?;
                if !found.selectors.contains(&selector) {
                    let pods = self
                        .pods_matching(namespace, &selector, workload, timeout)
                        .await?;
                    found.pods.extend(pods);
                    found.selectors.push(selector);
                }
            }
            found.pods.sort_by(|one, other| one.name.cmp(&other.name));
            found.pods.dedup_by(|one, other| one.name == other.name);
            Ok(found)
        })
        .await
    }

    async fn selector_of(
        &self,
        namespace: &str,
        workload: &ObjectRef,
        timeout: Duration,
    ) -> Result<String, MetricError> {
        let kind = self.server.kind(&workload.api_version, &workload.kind).await?;
        let api: Api<kube::core::DynamicObject> =
            Api::namespaced_with(self.server.client().clone(), namespace, &kind.resource);
        let what = || format!("the scale of {} {}", workload.kind, workload.name);
        let scale: Scale = limited(timeout, what, api.get_scale(&workload.name)).await?;
        let selector = scale.status.and_then(|status| status.selector);
        // An empty one would select every pod of the namespace.
        selector
            .filter(|selector| !selector.is_empty())
            .ok_or_else(|| MetricError::NoSelector {
                kind: workload.kind.clone(),
                name: workload.name.clone(),
            })
    }

    async fn pods_matching(
        &self,
        namespace: &str,
        selector: &str,
        workload: &ObjectRef,
        timeout: Duration,
    ) -> Result<Vec<WorkloadPod>, MetricError> {
        let what = || format!("the pods of {} {}", workload.kind, workload.name);
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let limit = MOST.to_string();
        let parameters = [("labelSelector", selector), ("limit", limit.as_str())];
        let list: List = self.read_list(&path, &parameters, timeout, what).await?;
        if list.metadata.more.is_some_and(|more| !more.is_empty()) {
            return Err(MetricError::TooManyPods {
                what: format!("{} {}", workload.kind, workload.name),
                limit: MOST,
            });
        }
        Ok(list.items.iter().filter_map(seen).collect())
    }
}

fn seen(pod: &Pod) -> Option<WorkloadPod> {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    Some(WorkloadPod {
        name: pod.name_any(),
        address: status
            .and_then(|status| status.pod_ip.as_deref())
            .and_then(|address| address.parse().ok()),
        running: phase == "Running",
        ready: is_ready(pod),
        host_network: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.host_network)
            .unwrap_or(false),
    })
}
