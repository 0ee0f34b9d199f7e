//! Sleepers, and the hands of the protocol that puts them to sleep and wakes them.
//!
//! * [`api`]: the `Sleeper` custom resource; [`crd`]: its definition.
//! * [`Cluster`]: what the protocol looks at, and wishes, records and events about Sleepers.
//! * [`round`] and [`Driver`]: observe a Sleeper, ask [`dormouse_lifecycle::next`], carry its steps out.
//! * [`wire`]: what the autoscaler asks the DLX.
//!
//! Nothing is decided here. Every write is conditional on the version of the object that was read, so a conflict is a
//! normal outcome: read again and ask again.

pub mod api;
pub mod caches;
pub mod crd;
pub mod wire;

mod carry_out;
mod cluster;
mod conditions;
mod config;
mod demand;
mod dlx_client;
mod driver;
mod endpoints;
mod events;
mod grants;
mod house;
mod key;
mod meaning;
mod metrics;
mod notes;
mod observe;
mod orphans;
mod own;
mod ownership;
mod role;
mod round;
mod services;
mod since;
mod sleepers;

pub use api::{Route, Sleeper, SleeperSpec, SleeperStatus, Wake};
pub use caches::SLEEPER;
pub use carry_out::Carried;
pub use cluster::Cluster;
pub use conditions::ConditionUpdate;
pub use config::Config;
pub use driver::Driver;
pub use endpoints::{DlxEndpoints, Endpoints, NoEndpoints};
pub use grants::SleepGrant;
pub use key::SleeperKey;
pub use metrics::Metrics;
pub use observe::Seen;
pub use role::Role;
pub use round::{RoundOutcome, round};
pub use services::original_selector;
pub use sleepers::{Declared, StoodIn, WishError, Wished};
pub use wire::{DemandEntry, DemandReport};

/// The lifecycle crate, whose types appear in this crate's interface.
pub use dormouse_lifecycle as lifecycle;
