//! The `Sleeper` custom resource, and everything that reads and writes Sleepers on a cluster.
//!
//! * [`api`]: the `Sleeper` custom resource; [`crd`]: its definition; [`caches`]: everything that is watched.
//! * [`Declarations`]: which Sleepers exist. [`DesiredStateWriter`]: asleep, observed or awake. [`StatusRecorder`]: decisions, conditions and
//!   failures. All of them write by compare-and-set.
//! * [`Controller`] runs the [`Reconciler`]: the [`Observer`] reads what there is, [`dormouse_lifecycle::next`] decides, the
//!   [`Executor`] writes.
//! * [`ServiceEndpoints`], [`DlxReplicas`], [`DemandClient`]: the pods behind Services, the replicas of the DLX, and what these report.
//! * [`SleepPermission`]: what may be put to sleep. [`Scalers`]: replicas between one and many, and who else scales a workload. [`OwnerChanges`]: when plugins should be asked again.
//! * [`Cluster`] makes and connects these parts. [`wire`]: what the autoscaler asks the DLX.
//!
//! Nothing is decided here. Every write is conditional on the version of the object that was read, so a conflict is a
//! normal outcome: observe again and decide again.

pub mod api;
pub mod caches;
pub mod crd;
pub mod wire;

mod cluster;
mod conditions;
mod config;
mod controller;
mod declarations;
mod demand;
mod desired_state;
mod dlx;
mod dlx_client;
mod dlx_ports;
mod endpoints;
mod events;
mod executor;
mod grants;
mod installation;
mod key;
mod metrics;
mod notes;
mod observed;
mod observer;
mod orphans;
mod owner_changes;
mod ownership;
mod permission;
mod reconciler;
mod requeue;
mod role;
mod scalers;
mod services;
mod since;
mod sleep_note;
mod slices;
mod stamps;
mod status;
mod writer;

pub use api::{Route, Sleeper, SleeperSpec, SleeperStatus, Wake};
pub use caches::{Caches, SLEEPER};
pub use cluster::Cluster;
pub use conditions::ConditionUpdate;
pub use config::Config;
pub use controller::Controller;
pub use declarations::{Declarations, Declared};
pub use demand::{DemandClient, TotalDemand};
pub use desired_state::{DesiredStateError, DesiredStateWriter, Requested, StoodIn};
pub use dlx::{DlxEndpoints, DlxReplicas};
pub use endpoints::{Endpoints, NoEndpoints, ServiceEndpoints};
pub use executor::{Executor, StepOutcome};
pub use grants::SleepGrant;
pub use key::SleeperKey;
pub use metrics::Metrics;
pub use observed::Observed;
pub use observer::Observer;
pub use owner_changes::OwnerChanges;
pub use permission::SleepPermission;
pub use reconciler::{ReconcileOutcome, Reconciler};
pub use role::Role;
pub use scalers::Scalers;
pub use services::{ServiceIndex, original_selector};
pub use status::{StatusRecorder, StatusUpdate};
pub use wire::{Arrivals, DemandEntry, DemandReport};

/// The lifecycle crate, whose types appear in this crate's interface.
pub use dormouse_lifecycle as lifecycle;
