//! What can be asked for a number.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::{ObjectRef, Quantity};

/// A metric that pods serve in the Prometheus text format.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodScrape {
    /// A port of the pods.
    pub port: u16,
    /// The path.
    pub path: String,
    /// The metric.
    pub metric: String,
    /// Labels that a series must have.
    pub labels: Vec<(String, String)>,
}

/// One question with one number as the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Requests and connections at the DLX since it stepped into the traffic.
    Traffic {
        /// Namespace of the Sleeper.
        namespace: String,
        /// Name of the Sleeper.
        sleeper: String,
        /// How long there must have been none.
        window: Duration,
        /// Since when the DLX has been in the path of all traffic. None: it is not yet, or is leaving.
        since: Option<Timestamp>,
    },
    /// How many requests and connections the DLX has for a Sleeper right now. It says nothing while the DLX is not in the path of its
    /// traffic.
    Concurrency {
        /// Namespace of the Sleeper.
        namespace: String,
        /// Name of the Sleeper.
        sleeper: String,
    },
    /// How many requests and connections arrive at the DLX for a Sleeper in a second. It says as little as [`Self::Concurrency`].
    ArrivalRate {
        /// Namespace of the Sleeper.
        namespace: String,
        /// Name of the Sleeper.
        sleeper: String,
        /// Over how long the average is taken, where that many have arrived for so long.
        window: Duration,
    },
    /// Nothing is asked: this is the answer.
    Given(Quantity),
    /// The value of one object in the custom metrics API.
    Custom {
        /// Group of the kind that the metric describes.
        group: String,
        /// The kind.
        kind: String,
        /// Namespace of the object.
        namespace: String,
        /// The complete name, with the window.
        metric: String,
        /// Which series count.
        selector: Option<String>,
        /// Name of the object.
        object: String,
    },
    /// A metric of the external metrics API, summed.
    External {
        /// Where it is asked for.
        namespace: String,
        /// Its name.
        metric: String,
        /// Which series count.
        selector: Option<String>,
    },
    /// What the pods of workloads use, summed.
    Usage {
        /// Namespace of the workloads.
        namespace: String,
        /// The workloads.
        workloads: Vec<ObjectRef>,
        /// `cpu`, `memory` or another name.
        resource: String,
        /// What was measured longer ago is no data.
        window: Duration,
    },
    /// A query to a Prometheus server.
    Prometheus {
        /// Namespace of the target that asks.
        namespace: String,
        /// Name of the server in the configuration.
        server: String,
        /// The query, filled in.
        query: String,
    },
    /// A query to a Prometheus server, whose series say by their label `pod` (or `pod_name`) which pod they are about.
    PrometheusPods {
        /// Namespace of the target that asks, and of the pods.
        namespace: String,
        /// Name of the server in the configuration.
        server: String,
        /// The query, filled in.
        query: String,
    },
    /// A metric that the pods of workloads serve, summed.
    Pods {
        /// Namespace of the workloads.
        namespace: String,
        /// The workloads.
        workloads: Vec<ObjectRef>,
        /// What to ask each pod.
        scrape: PodScrape,
        /// A sample from longer ago is no data.
        window: Duration,
    },
}

/// What kind of thing is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuerySource {
    /// The DLX, about the traffic that it observes.
    ObservedTraffic,
    /// The DLX, about the requests and connections that it has right now.
    DlxConcurrency,
    /// The DLX, about the requests and connections that arrive.
    DlxRate,
    /// The custom metrics API.
    Custom,
    /// The external metrics API.
    External,
    /// The resource metrics API.
    Resource,
    /// A Prometheus server.
    Prometheus,
    /// The pods themselves.
    Pods,
    /// Whoever declares the target.
    Given,
    /// Something that this version does not know.
    Other,
}

impl QuerySource {
    /// Whether it counts the requests that the DLX gets, which is all of them only while there are no pods to connect to.
    pub fn counts_requests(self) -> bool {
        matches!(self, Self::DlxConcurrency | Self::DlxRate)
    }

    /// The name, as in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObservedTraffic => "observed-traffic",
            Self::DlxConcurrency => "dlx-concurrency",
            Self::DlxRate => "dlx-rate",
            Self::Custom => "custom",
            Self::External => "external",
            Self::Resource => "resource",
            Self::Prometheus => "prometheus",
            Self::Pods => "pods",
            Self::Given => "given",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for QuerySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
