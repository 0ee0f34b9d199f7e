//! The pods of workloads, for readings that are about pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dormouse_model::{LabelSelector, ObjectRef};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde::Deserialize;

use super::{MetricError, MetricsApi, within};
use crate::limited;
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
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether its containers run.
    pub running: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether its address is that of the node.
    pub host_network: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
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
            let kind = self.server.kind(&workload.api_version, &workload.kind).await?;
            let api: Api<kube::core::DynamicObject> =
                Api::namespaced_with(self.server.client().clone(), namespace, &kind.resource);
            let scale: Scale = limited(timeout, what, api.get_scale(&workload.name)).await?;
            let selector = scale
                .status
                .and_then(|status| status.selector)
                .unwrap_or_default();
            let selector: LabelSelector = selector.parse().map_err(|source| MetricError::WrongSelector {
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

    /// The pods of a namespace that run, or will; neither those that have finished nor those on their way out. Read from the API
    /// server and not from a cache: a pod that is missing here would be missing in a sum.
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
                pods.extend(list.items.iter().filter_map(seen));
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
        labels: pod.labels().clone(),
    })
}
