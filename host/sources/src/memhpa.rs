//! MemHpa: scales a workload by what its pods use of their memory limits.
//!
//! The objects, their defaults, the corrections of what is declared wrongly, the steps of the decision and the events are those of MemHpa.
//! What differs is said in docs/memhpa.md.

mod api;
mod config;
mod sleep;
mod source;
mod status;
mod translate;

pub use api::{MemHpa, MemHpaSpec, MemHpaStatus, ScaleTargetRef, crd, yaml};
pub use config::MemHpaConfig;
pub use sleep::is_resting;
pub use source::MemHpaSource;
pub use translate::{USAGE, corrections, targets};
