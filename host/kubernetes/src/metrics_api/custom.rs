//! The custom metrics API (`custom.metrics.k8s.io`), read as v3io's scaler reads it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;

use super::{MetricError, MetricsApi, quantity, within};
use crate::ClusterError;

/// Newest first.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

/// Which metric of which objects.
#[derive(Clone, Copy, Debug)]
pub struct CustomMetric<'a> {
    /// Group of the kind that the metric describes; empty for the core group.
    pub group: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// Namespace of the objects.
    pub namespace: &'a str,
    /// The complete name (`<name>_per_<window>`).
    pub metric: &'a str,
    /// Which series of the metric count, as in `kubectl -l`. None: all.
    pub selector: Option<&'a str>,
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
    #[serde(deserialize_with = "quantity")]
    value: String,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

impl MetricsApi {
    /// Values of a metric for all objects of a kind in a namespace, by object name. A metric or an API that is not found
    /// has no values.
    ///
    /// # Errors
    /// [`MetricError`].
    pub async fn custom_metric(
        &self,
        wanted: CustomMetric<'_>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, MetricValue>, MetricError> {
        let CustomMetric { group, kind, .. } = wanted;
        let what = || format!("metric {} in {}", wanted.metric, wanted.namespace);
        within(timeout, what, async {
            let resource =
                self.server
                    .group_resource(group, kind)
                    .await
                    .map_err(|source| MetricError::Kind {
                        group: group.to_owned(),
                        kind: kind.to_owned(),
                        source,
                    })?;
            self.read_metric(&resource, wanted, timeout).await
        })
        .await
    }

    async fn read_metric(
        &self,
        resource: &str,
        wanted: CustomMetric<'_>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, MetricValue>, MetricError> {
        let what = || format!("metric {} in {}", wanted.metric, wanted.namespace);
        let answered = || self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = *answered();
        let order = VERSIONS.iter().copied().filter(|version| Some(*version) == known);
        let order = order.chain(VERSIONS.iter().copied().filter(|version| Some(*version) != known));
        let parameters: Vec<_> = wanted
            .selector
            .map(|selector| ("metricLabelSelector", selector))
            .into_iter()
            .collect();
        for version in order {
            let path = path(version, wanted.namespace, resource, wanted.metric);
            match self.read_list::<List>(&path, &parameters, timeout, what).await {
                // Either this version is not served or there is no such metric: the other version tells.
                Err(ClusterError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(list) => {
                    *answered() = Some(version);
                    return Ok(values(list));
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
        let value = item.value;
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
