//! The line that puts targets to sleep:
//!
//! ```text
//! source -> target -> readings -> recommendation -> actuator -> status, event, metric
//! ```
//!
//! * [`Source`]: who declares what there is to scale, and hears what became of it. Plugins are the first ([`PluginSource`]).
//! * `queue`: each target runs when it is due: after its interval, when something changed, or when the window of its triggers has passed. No
//!   target runs twice at once, and one that hangs or fails delays no other.
//! * `run`: one run of one target. It makes sure that there is a Sleeper, gathers readings ([`dormouse_readings`], shared with all others),
//!   asks [`dormouse_scaling::recommend`], acts and reports.
//! * `numbers`: what the number of replicas of a target that is up follows from, and the number, written. It loses against a sleep and
//!   against a wake.
//! * [`triggers`]: from a rule to what is asked about a target, for every source that has rules.
//! * `act`: plugins are asked to put their targets to sleep (`set-scale` to 0), in their own way; everything else is a desired state.
//! * `report`: what is said back. It stands on Sleepers, and a source may have a status of its own to write it into.
//!
//! One task for each source. A process looks after the namespaces of the shards that it holds ([`dormouse_model::Shards`]), and
//! drops its work where it stands when it loses one. All state is in Sleepers: a process that dies leaves nothing behind, and its
//! successor goes on.
//!
//! Everything outside is behind small traits ([`Source`], [`Sleepers`], [`dormouse_readings::Meter`]), so that the line is
//! tested with scripted fakes and a paused clock.

/// Calls and writes of a source under way at once, of each kind.
pub(crate) const CONCURRENCY: usize = 16;

mod act;
mod autoscaler;
mod cluster;
mod config;
mod declare;
mod error;
mod gather;
mod key;
mod line;
mod metrics;
mod numbers;
mod orphans;
mod plugins;
mod queue;
mod report;
mod run;
mod settings;
mod sleepers;
mod source;
mod spec;
pub mod triggers;

pub use autoscaler::Autoscaler;
pub use config::{Clock, Config};
pub use error::SourceError;
pub use key::sleeper_key;
pub use line::jitter;
pub use metrics::Metrics;
pub use plugins::{PluginSource, ResourceScaler, target};
pub use report::{NumberDecided, Report};
pub use settings::{Effective, Overrides};
pub use sleepers::{FieldError, SleeperChange, Sleepers};
pub use source::{Roster, Source, Sources};
