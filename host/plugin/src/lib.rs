//! Runs plugins: WebAssembly components that target the worlds of `wit/plugin.wit`.
//!
//! ```text
//! PluginSet --- one Plugin per file of the plugins directory, in generations
//!    |
//!    v
//! Plugin::resources, set_scale, ...
//!    admission (bounded wait) -> circuit breaker -> span -> fresh store -> typed call -> drop -> error -> metrics
//!                                                               |
//!                                                               v
//!                                       host functions -> grants -> HostServices
//! ```
//!
//! A guest is trusted with nothing. Each call has a store of its own that is never used again, a CPU budget
//! ([`Limits::cpu`]), a wall-clock limit, a memory limit, and limits on what it may ask for and hand back. Whatever it
//! does costs the host one typed [`PluginError`]. An interface that the operator did not grant is not even linked.
//!
//! A plugin that cannot be loaded is a [`PluginStatus`], never a failure of the set.

mod bindings;
mod breaker;
mod budget;
mod cluster;
mod compile;
mod config;
mod convert;
mod engine;
mod error;
mod file;
mod grants;
mod host;
mod inspect;
mod limits;
mod link;
mod load;
mod meter;
mod metrics;
mod offline;
mod plugin;
mod producers;
mod services;
mod set;
mod state;
mod stderr;
pub mod types;
mod validate;

pub use breaker::{Breaker, BreakerPolicy, BreakerState};
pub use cluster::ClusterServices;
pub use compile::{CompilerProcess, REFUSED, compile_into};
pub use config::PluginConfig;
pub use convert::resource_of_record;
pub use engine::{Allocation, EngineConfig, HostEngine};
pub use error::{GuestError, PluginError};
pub use grants::{Grants, KubernetesGrant, LifecycleGrant, MissingGrant, SleepRule, Verb};
pub use inspect::{Inspection, Need, Trial, inspect, inspect_with};
pub use limits::{Limits, LimitsOverride};
pub use metrics::Metrics;
pub use offline::{OfflineEvent, OfflineServices};
pub use plugin::{Call, Failure, Plugin};
pub use producers::Producer;
pub use services::{HostServices, LifecycleError, NoServices, SleeperView};
pub use set::{LoadState, PluginSet, PluginStatus};

/// The version of the `dormouse:plugin` package that this host offers.
pub const WIT_VERSION: &str = "0.1.0";
