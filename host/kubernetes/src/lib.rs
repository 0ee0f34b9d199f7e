//! A client of the API server for a process that watches much and writes little. It knows no Sleeper.
//!
//! * [`ApiServer`]: requests with a deadline and a typed error, the scale subresource among them ([`WorkloadScale`]); [`client()`] and [`client_from_kubeconfig`] make its client.
//! * [`Cache`]: reflectors with indexes, that tell what changed; [`Reflectors`] starts them.
//! * [`Objects`]: objects of any kind as JSON, and lists that a watch keeps up to date.
//! * [`MetricsApi`]: custom, external and resource metrics, and which pods are whose.
//! * [`EventRecorder`]: Events. [`Leadership`]: leader election by Lease; [`Sharding`]: one leader for each shard. [`Outages`]: when the API server was last away.
//! * [`services`], [`slices`], [`pods`]: what these objects say; [`SelectorIndex`]: which selectors select a pod.
//!
//! Nothing is decided here.

pub mod objects;
pub mod pods;
pub mod services;
pub mod slices;

mod backoff;
mod cache;
mod client;
mod discovery;
mod error;
mod events;
mod fields;
mod leadership;
mod lists;
mod metrics;
mod metrics_api;
mod outage;
mod prune;
mod raw;
mod scale;
mod scope;
mod selectors;
mod server;
mod sharding;

pub use backoff::Backoff;
pub use cache::{Cache, Cached, Change, Hook, IndexKey, Reflectors, Signals, WatchedKind};
pub use client::{client, client_from_kubeconfig, limited, optional};
pub use discovery::Kind;
pub use error::ClusterError;
pub use events::{EventRecorder, EventType, shortened};
pub use leadership::{Leadership, LeadershipConfig};
pub use lists::{OwnersPart, Text, remove};
pub use metrics::Metrics;
pub use metrics_api::{
    ContainerUsage, CustomMetric, MetricError, MetricValue, MetricsApi, PodContainer, PodUsage, WorkloadPod,
};
pub use objects::{ObjectError, Objects};
pub use outage::Outages;
pub use pods::PodEndpoint;
pub use prune::scaled_by;
pub use scale::WorkloadScale;
pub use scope::{Scope, own_pod};
pub use selectors::SelectorIndex;
pub use server::ApiServer;
pub use services::ServicePort;
pub use sharding::Sharding;
