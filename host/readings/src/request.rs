//! What is asked on the wire. One answer serves many queries.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{MetricValue, PodUsage};
use dormouse_model::{LabelSelector, ObjectRef, PodScrape, Quantity, QuerySource};
use dormouse_scaling::Sample;
use dormouse_sleepers::TotalDemand;
use jiff::Timestamp;

use crate::view::PodView;
use crate::{Pod, Scraped};

/// One call. What is equal is asked once, whoever wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Demand for all Sleepers at all DLX replicas.
    Demand,
    /// A custom metric of all objects of a kind in a namespace.
    Custom {
        /// Group of the kind that the metric describes.
        group: String,
        /// The kind.
        kind: String,
        /// Namespace of the objects.
        namespace: String,
        /// The complete name, with the window.
        metric: String,
        /// Which series count.
        selector: Option<String>,
    },
    /// A metric of the external metrics API.
    External {
        /// Where it is asked for.
        namespace: String,
        /// Its name.
        metric: String,
        /// Which series count.
        selector: Option<String>,
    },
    /// A query to a Prometheus server.
    Prometheus {
        /// Namespace of the target that asks.
        namespace: String,
        /// Name of the server in the configuration.
        server: String,
        /// The query.
        query: String,
    },
    /// A query to a Prometheus server that gives numbers for pods.
    PrometheusPods {
        /// Namespace of the target that asks.
        namespace: String,
        /// Name of the server in the configuration.
        server: String,
        /// The query.
        query: String,
    },
    /// Which pods are those of a workload.
    Selector {
        /// Namespace of the workload.
        namespace: String,
        /// The workload.
        workload: ObjectRef,
    },
    /// All pods of a namespace.
    Pods {
        /// The namespace.
        namespace: String,
    },
    /// What all pods of a namespace use.
    Usage {
        /// The namespace.
        namespace: String,
    },
    /// A metric of these pods.
    Scrape {
        /// The pods.
        pods: Vec<Pod>,
        /// What to ask each of them.
        scrape: PodScrape,
        /// A sample from longer ago is no data.
        window: Duration,
    },
}

impl Request {
    /// The name of what is asked, as in metric labels.
    pub fn source(&self) -> &'static str {
        match self {
            Self::Demand => QuerySource::ObservedTraffic.as_str(),
            Self::Custom { .. } => QuerySource::Custom.as_str(),
            Self::External { .. } => QuerySource::External.as_str(),
            Self::Prometheus { .. } | Self::PrometheusPods { .. } => QuerySource::Prometheus.as_str(),
            Self::Selector { .. } => "selector",
            Self::Pods { .. } => "pod-list",
            Self::Usage { .. } => QuerySource::Resource.as_str(),
            Self::Scrape { .. } => QuerySource::Pods.as_str(),
        }
    }

    /// Who is asked, for people.
    pub(crate) fn whom(&self) -> String {
        match self {
            Self::Demand => "DLX replicas".to_owned(),
            Self::Custom { .. } => "the custom metrics API".to_owned(),
            Self::External { .. } => "the external metrics API".to_owned(),
            Self::Prometheus { server, .. } | Self::PrometheusPods { server, .. } => {
                format!("Prometheus server {server}")
            }
            Self::Selector { .. } | Self::Pods { .. } => "the Kubernetes API".to_owned(),
            Self::Usage { .. } => "the resource metrics API".to_owned(),
            Self::Scrape { .. } => "pods".to_owned(),
        }
    }

    /// Name of the server, where there are several.
    pub(crate) fn server(&self) -> &str {
        match self {
            Self::Prometheus { server, .. } | Self::PrometheusPods { server, .. } => server,
            _ => "",
        }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of [`Request::Demand`].
    Demand(TotalDemand),
    /// Of [`Request::Custom`], by object name. Objects without a value are missing.
    Custom(BTreeMap<String, MetricValue>),
    /// Of [`Request::External`] and [`Request::Prometheus`].
    Sample(Sample),
    /// Of [`Request::PrometheusPods`]: name of the pod and value, of each series.
    OfPods(Vec<(String, Quantity)>),
    /// Of [`Request::Scrape`], for each pod.
    Scraped(Vec<Scraped>),
    /// Of [`Request::Selector`].
    Selector(LabelSelector),
    /// Of [`Request::Pods`].
    Pods(PodView),
    /// Of [`Request::Usage`], by pod name.
    Usage(HashMap<String, PodUsage>),
}

/// Answers requests, each time anew.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// The answer at `now`, or why there is none. The caller gives up on its own when it takes too long.
    async fn fetch(&self, request: &Request, now: Timestamp) -> Result<Answer, String>;
}
