//! Every place that a number comes from.
//!
//! * [`Readings`]: from queries to samples, through a cache. A call that is under way is shared by all who ask, and its answer is used
//!   again for as long as the one who asks accepts its age. Half the interval of a target is usual; observed traffic is asked five times
//!   as often, and is a second old at most when it lets something sleep. One answer serves many targets: a custom metric all objects of
//!   its kind in a namespace, one list of pods and one of their usage all workloads of a namespace, demand at the DLX all Sleepers.
//! * [`Upstream`]: what answers behind the cache; [`ClusterUpstream`] is a cluster with its metrics APIs.
//! * [`Prometheus`]: instant queries to the servers that the operator configured, by name. Nobody else chooses an address.
//! * [`Pods`]: the text that pods serve for Prometheus, read from the pods themselves.
//!
//! What decides whether a target is idle is one number for each query ([`Meter::read`]); what decides how many replicas it has is a sample
//! for each pod, with the pods themselves ([`Meter::measure`]). The answers behind both are the same ones.
//!
//! An answer is a value, no data (with what is missing), or a typed error. Everything has a deadline and a size that it
//! may not exceed, and the number of calls at once is bounded. Redirects are not followed. What secrets say never
//! appears in an error.

pub mod config;
pub mod exposition;
pub mod template;

mod cache;
mod cluster;
mod files;
mod http;
mod measured;
mod metrics;
mod metrics_reading;
mod pods;
mod prometheus;
mod readings;
mod request;
mod sum;
mod tls;
mod traffic;
mod view;

pub use cache::Limits;
pub use cluster::ClusterUpstream;
pub use config::{Config, ConfigError};
pub use files::FileError;
pub use http::HttpError;
pub use measured::Measured;
pub use metrics::Metrics;
pub use metrics_reading::{Measurements, MetricSamples, pod_of};
pub use pods::{Pod, Pods, Scrape, ScrapeError, Scraped};
pub use prometheus::{Prometheus, PrometheusError};
pub use readings::{Meter, Readings};
pub use request::{Answer, Request, Upstream};
pub use tls::TlsError;
pub use view::PodView;
