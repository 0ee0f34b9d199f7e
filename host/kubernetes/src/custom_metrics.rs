//! The custom metrics API (`custom.metrics.k8s.io`), read as v3io's scaler reads it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::raw::{parse, send};
use crate::{Cluster, ClusterError};

/// Newest first.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// Ten thousand values are about 4 MiB.
const LIMIT: usize = 32 * 1024 * 1024;

/// Which version answered last.
#[derive(Default)]
pub(crate) struct MetricsApi(Mutex<Option<&'static str>>);

/// Why a metric could not be read.
#[derive(Clone, Debug, Error)]
pub enum MetricError {
    /// The kind that the metric describes is not served by the cluster, so its resource name is not known.
    #[error("metrics for {kind} of group {group:?}: {source}")]
    Kind {
        /// Group.
        group: String,
        /// Kind.
        kind: String,
        /// What discovery said.
        source: ClusterError,
    },
    /// The metrics API did not answer, or not as expected.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What the API says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricValue {
    /// One value, a Kubernetes quantity.
    Value(String),
    /// Two different values for one object: nobody can say which is right.
    Ambiguous,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    described_object: Described,
    value: Quantity,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

/// Adapters write quantities as strings; a bare number is understood too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Number(serde_json::Number),
}

impl Cluster {
    /// Values of a metric for all objects of a kind in a namespace, by object name. `metric` is the complete name
    /// (`<name>_per_<window>`). A metric or an API that is not found has no values.
    ///
    /// # Errors
    /// [`MetricError`].
    pub async fn custom_metric(
        &self,
        group_kind: (&str, &str),
        namespace: &str,
        metric: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, MetricValue>, MetricError> {
        let (group, kind) = group_kind;
        let work = async {
            let resource = self
                .inner
                .kinds
                .group_resource(group, kind)
                .await
                .map_err(|source| MetricError::Kind {
                    group: group.to_owned(),
                    kind: kind.to_owned(),
                    source,
                })?;
            self.read_metric(&resource, namespace, metric, timeout).await
        };
        tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
            Err(ClusterError::Timeout {
                what: format!("metric {metric} in {namespace}"),
                after: timeout,
            }
            .into())
        })
    }

    async fn read_metric(
        &self,
        resource: &str,
        namespace: &str,
        metric: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, MetricValue>, MetricError> {
        let what = || format!("metric {metric} in {namespace}");
        let known = *self
            .inner
            .metrics_api
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let order = VERSIONS.iter().copied().filter(|version| Some(*version) == known);
        let order = order.chain(VERSIONS.iter().copied().filter(|version| Some(*version) != known));
        for version in order {
            let path = path(version, namespace, resource, metric);
            let request =
                http::Request::get(path)
                    .body(Vec::new())
                    .map_err(|error| ClusterError::Invalid {
                        what: what(),
                        message: error.to_string(),
                    })?;
            match send(&self.inner.client, request, LIMIT, timeout, what).await {
                // Either this version is not served or there is no such metric: the other version tells.
                Err(ClusterError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(body) => {
                    *self
                        .inner
                        .metrics_api
                        .0
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = Some(version);
                    return Ok(values(parse::<List>(&body, what)?));
                }
            }
        }
        Ok(BTreeMap::new())
    }
}

fn path(version: &str, namespace: &str, resource: &str, metric: &str) -> String {
    format!("/apis/custom.metrics.k8s.io/{version}/namespaces/{namespace}/{resource}/*/{metric}")
}

fn values(list: List) -> BTreeMap<String, MetricValue> {
    let mut values = BTreeMap::new();
    for item in list.items {
        let value = match item.value {
            Quantity::Text(text) => text,
            Quantity::Number(number) => number.to_string(),
        };
        values
            .entry(item.described_object.name)
            .and_modify(|known| {
                // The same value twice says nothing else than once.
                if *known != MetricValue::Value(value.clone()) {
                    *known = MetricValue::Ambiguous;
                }
            })
            .or_insert_with(|| MetricValue::Value(value.clone()));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_for_one_object_spoil_that_object_only() {
        let list: List = serde_json::from_value(serde_json::json!({"kind": "MetricValueList", "items": [
            {"describedObject": {"kind": "Deployment", "name": "a"}, "metric": {"name": "m"}, "value": "1500m"},
            {"describedObject": {"kind": "Deployment", "name": "b"}, "metricName": "m", "value": "1"},
            {"describedObject": {"kind": "Deployment", "name": "b"}, "metricName": "m", "value": "2"},
            {"describedObject": {"kind": "Deployment", "name": "c"}, "metricName": "m", "value": 0},
        ]}))
        .unwrap();
        let expected = BTreeMap::from([
            ("a".to_owned(), MetricValue::Value("1500m".to_owned())),
            ("b".to_owned(), MetricValue::Ambiguous),
            ("c".to_owned(), MetricValue::Value("0".to_owned())),
        ]);
        assert_eq!(values(list), expected);
    }

    #[test]
    fn the_path_is_the_one_that_client_go_asks() {
        assert_eq!(
            path("v1beta2", "prod", "deployments.apps", "requests_per_10m"),
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/prod/deployments.apps/*/requests_per_10m"
        );
    }
}
