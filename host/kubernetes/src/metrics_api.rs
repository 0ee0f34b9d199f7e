//! The metrics APIs of Kubernetes: custom, external and resource metrics, and whose pods they are about.

mod custom;
mod external;
mod pods;
mod usage;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_model::SelectorError;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::raw::{parse, send};
use crate::{ApiServer, ClusterError};

pub use custom::{CustomMetric, MetricValue};
pub use pods::{PodContainer, WorkloadPod};
pub use usage::{ContainerUsage, PodUsage};

/// Ten thousand values are about 4 MiB.
const LIMIT: usize = 32 * 1024 * 1024;

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
    /// Nobody serves this metrics API.
    #[error("the cluster does not serve {api}; is {who} installed?")]
    NotServed {
        /// Group and version.
        api: &'static str,
        /// Who usually serves it.
        who: &'static str,
    },
    /// A workload does not say which pods are its own.
    #[error("{kind} {name} does not say which pods are its own: its scale has no selector")]
    NoSelector {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// A workload says in no way that can be read which pods are its own.
    #[error("which pods {kind} {name} has is not clear: {source}")]
    WrongSelector {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// What is wrong.
        source: SelectorError,
    },
    /// More pods than are looked at.
    #[error("{what} has more than {limit} pods")]
    TooManyPods {
        /// Whose pods.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// The API server or whoever stands behind it did not answer, or not as expected.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// The metrics APIs, and which pods are whose. Cheap to clone.
#[derive(Clone)]
pub struct MetricsApi {
    server: ApiServer,
    /// Version of the custom metrics API that answered last.
    answered: Arc<Mutex<Option<&'static str>>>,
}

impl MetricsApi {
    /// The APIs of this server.
    pub fn new(server: ApiServer) -> Self {
        Self {
            server,
            answered: Arc::default(),
        }
    }

    /// Reads a list of a metrics API.
    async fn read_list<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        timeout: Duration,
        what: impl Fn() -> String,
    ) -> Result<T, ClusterError> {
        let parameters = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let question = if parameters.is_empty() { "" } else { "?" };
        let request = http::Request::get(format!("{path}{question}{parameters}"))
            .body(Vec::new())
            .map_err(|error| ClusterError::Invalid {
                what: what(),
                message: error.to_string(),
            })?;
        let body = send(self.server.client(), request, LIMIT, timeout, &what)
            .await
            .map_err(with_where_to_look)?;
        parse(&body, what)
    }
}

/// Another server answers for these APIs, and only the API server knows what is wrong between the two.
fn with_where_to_look(error: ClusterError) -> ClusterError {
    match error {
        ClusterError::Unavailable { what, message } => ClusterError::Unavailable {
            what,
            message: format!(
                "{message} (`kubectl get apiservices` shows whether the server of this API is available)"
            ),
        },
        other => other,
    }
}

/// All of a reading within its deadline, however many requests it takes.
async fn within<T>(
    timeout: Duration,
    what: impl Fn() -> String,
    work: impl Future<Output = Result<T, MetricError>>,
) -> Result<T, MetricError> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(ClusterError::Timeout {
            what: what(),
            after: timeout,
        }
        .into())
    })
}

/// Adapters write quantities as strings; a bare number is understood too.
fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Quantity {
        Text(String),
        Number(serde_json::Number),
    }
    Ok(match Quantity::deserialize(deserializer)? {
        Quantity::Text(text) => text,
        Quantity::Number(number) => number.to_string(),
    })
}

/// A time, if there is one that can be read.
fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}
