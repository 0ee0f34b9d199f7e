//! Everything that is said to the API server.
//!
//! * [`api`]: the `Sleeper` custom resource; [`crd`]: its definition.
//! * [`Cluster`]: reflectors and the views made from them, wishes, objects and events for plugins, the metrics APIs.
//! * [`round`] and [`Driver`]: observe a Sleeper, ask [`dormouse_lifecycle::next`], carry its steps out.
//! * [`Leadership`]: leader election by Lease.
//!
//! Nothing is decided here. Every write is conditional on the version of the object that was read, so a conflict is a
//! normal outcome: read again and ask again.

pub mod api;
pub mod crd;
pub mod objects;

mod carry_out;
mod client;
mod cluster;
mod conditions;
mod config;
mod demand;
mod discovery;
mod dlx_client;
mod driver;
mod endpoints;
mod error;
mod events;
mod fields;
mod house;
mod key;
mod leadership;
mod lists;
mod meaning;
mod metrics;
mod metrics_api;
mod observe;
mod orphans;
mod outage;
mod ownership;
mod prune;
mod raw;
mod round;
mod services;
mod since;
mod sleepers;
mod store;

pub use api::{Route, Sleeper, SleeperSpec, SleeperStatus, Wake};
pub use carry_out::Carried;
pub use client::{client, client_from_kubeconfig};
pub use cluster::Cluster;
pub use conditions::ConditionUpdate;
pub use config::{Config, Scope, own_pod};
pub use demand::{DemandEntry, DemandReport};
pub use dlx_client::{DEMAND_PATH, PROBE_ANSWER_HEADER, PROBE_HEADER, PROBE_PATH};
pub use driver::{Driver, Role};
pub use endpoints::{DlxEndpoints, Endpoints, NoEndpoints, PodEndpoint, ServicePort};
pub use error::ClusterError;
pub use events::EventType;
pub use house::SleepGrant;
pub use key::SleeperKey;
pub use leadership::{Leadership, LeadershipConfig};
pub use metrics::Metrics;
pub use metrics_api::{CustomMetric, MetricError, MetricValue, PodUsage, WorkloadPod};
pub use objects::ObjectError;
pub use observe::Seen;
pub use outage::Outages;
pub use round::{RoundOutcome, round};
pub use sleepers::{Declared, StoodIn, WishError, Wished};
pub use store::{Change, ChangedKind};

/// The lifecycle crate, whose types appear in this crate's interface.
pub use dormouse_lifecycle as lifecycle;
