//! The resource metrics API (`metrics.k8s.io`), as metrics-server serves it.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_model::parse_duration;
use jiff::Timestamp;
use serde::Deserialize;

use super::{MetricError, MetricsApi, quantity, timestamp, within};
use crate::ClusterError;

/// What a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// Its name.
    pub pod: String,
    /// When it was measured, if it is said.
    pub measured: Option<Timestamp>,
    /// Over which time before that.
    pub window: Duration,
    /// What each container uses.
    pub containers: Vec<ContainerUsage>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// Usage by resource (`cpu`, `memory`), Kubernetes quantities.
    pub usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct List {
    // Required: an answer without it is some other object.
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default, deserialize_with = "timestamp")]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    window: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Amount>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Amount {
    #[serde(deserialize_with = "quantity")]
    text: String,
}

impl MetricsApi {
    /// What the pods that a selector matches use; all of the namespace for an empty one.
    ///
    /// # Errors
    /// [`MetricError::NotServed`] without metrics-server; other [`MetricError`]s.
    pub async fn pod_usage(
        &self,
        namespace: &str,
        selector: &str,
        timeout: Duration,
    ) -> Result<Vec<PodUsage>, MetricError> {
        let what = || format!("usage of the pods {selector} in {namespace}");
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let parameters: Vec<_> = Some(("labelSelector", selector))
            .filter(|_| !selector.is_empty())
            .into_iter()
            .collect();
        let read = self.read_list::<List>(&path, &parameters, timeout, what);
        within(timeout, what, async {
            let list = read.await.map_err(|error| match error {
                ClusterError::NotFound { .. } => MetricError::NotServed {
                    api: "metrics.k8s.io/v1beta1",
                    who: "metrics-server",
                },
                other => other.into(),
            })?;
            let usage = |container: Container| {
                let amounts = container.usage.into_iter();
                ContainerUsage {
                    name: container.name,
                    usage: amounts.map(|(name, amount)| (name, amount.text)).collect(),
                }
            };
            let pods = list.items.into_iter().map(|item| PodUsage {
                pod: item.metadata.name,
                measured: item.timestamp,
                // A window that cannot be read is none: then a sample counts as soon as its pod is ready.
                window: item
                    .window
                    .and_then(|window| parse_duration(&window).ok())
                    .unwrap_or_default(),
                containers: item.containers.into_iter().map(usage).collect(),
            });
            Ok(pods.collect())
        })
        .await
    }
}
