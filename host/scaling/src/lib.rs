//! Pure scaling decisions: no I/O, no clock, no Kubernetes client. Time is an argument.
//!
//! [`recommend`] says what should become of a target, and when to ask again at the latest. Its one policy so far is that of idle targets:
//! [`decide`] answers whether a target is idle, so that it may be put to sleep. The semantics are those of v3io's scaler, without its
//! defects:
//!
//! * A resource has [`Rule`]s, each with a metric, a window and a threshold. It is idle only if *every* reading is at or
//!   below its threshold. An empty rule list is never idle.
//! * After an update or a wake it is left alone for the *largest* window of its rules.
//! * A [`Sample`] is a value, no data, or an error. Missing data and errors keep a resource awake.
//! * Values are compared as Kubernetes quantities, exactly ([`dormouse_model::Quantity`]).

mod decision;
mod recommend;
mod rule;

pub use decision::{Decision, Input, KeepReason, Verdict, decide};
pub use recommend::{Desired, Recommendation, Seen, Standing, recommend};
pub use rule::{Rule, Sample};
