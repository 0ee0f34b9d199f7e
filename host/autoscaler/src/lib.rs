//! The line that puts resources to sleep:
//!
//! ```text
//! source -> target -> readings -> decision -> action -> status, event, metric
//! ```
//!
//! * [`Source`]: who declares what there is to scale. Plugins are the first.
//! * A target is a resource with its Sleeper; [`declare`] makes the Sleepers and retires those of resources that are gone.
//! * Readings are three-valued; one that fails is an error for the rules that use it and for nobody else.
//! * The decision is [`dormouse_scaling::decide`]; what follows from it is chosen in [`decide`].
//! * Sleep is asked for through the source (`set-scale` to 0), so that a plugin may do it in its own way.
//!
//! One task for each source, on its own cadence: a source that hangs delays nobody else, and its rounds never overlap. All
//! state is in Sleepers: a process that dies leaves nothing behind, and its successor goes on. Only the leader acts.
//!
//! Everything outside is behind three small traits ([`Source`], [`Sleepers`], [`Meters`]), so that the line is
//! tested with scripted fakes and a paused clock.

/// Calls and writes under way at once.
pub(crate) const CONCURRENCY: usize = 16;

pub mod decide;
mod deciding;
pub mod declare;

mod act;
mod autoscaler;
mod cluster;
mod meters;
mod metrics;
mod orphans;
mod outside;
mod plugins;
mod readings;
mod round;
mod routes;
mod settings;
mod spec;
mod status;
mod target;

pub use autoscaler::{Autoscaler, Clock, Config};
pub use metrics::Metrics;
pub use outside::{
    CustomQuestion, FieldError, Meters, Question, Roster, Sleepers, Source, SourceError, Sources,
};
pub use settings::{Effective, Overrides};
