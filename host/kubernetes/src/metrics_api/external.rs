//! The external metrics API (`external.metrics.k8s.io`).

use std::time::Duration;

use serde::Deserialize;

use super::{MetricError, MetricsApi, quantity, within};

#[derive(Deserialize)]
struct List {
    // Required: an answer without it is some other object.
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(deserialize_with = "quantity")]
    value: String,
}

impl MetricsApi {
    /// The values of an external metric in a namespace, Kubernetes quantities, one for each series that the selector
    /// matches. A metric that is not known has none.
    ///
    /// # Errors
    /// [`MetricError`].
    pub async fn external_metric(
        &self,
        namespace: &str,
        metric: &str,
        selector: Option<&str>,
        timeout: Duration,
    ) -> Result<Vec<String>, MetricError> {
        let what = || format!("external metric {metric} in {namespace}");
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
        let parameters: Vec<_> = selector
            .map(|selector| ("labelSelector", selector))
            .into_iter()
            .collect();
        let read = self.read_list::<List>(&path, &parameters, timeout, what);
        within(timeout, what, async {
            match read.await {
                Ok(list) => Ok(list.items.into_iter().map(|item| item.value).collect()),
                Err(crate::ClusterError::NotFound { .. }) => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}
