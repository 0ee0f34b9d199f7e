//! Pure scaling decisions: no I/O, no clock, no Kubernetes client. Time and history are arguments.
//!
//! Between zero and one:
//!
//! * [`recommend`] says what should become of a target, and when to ask again at the latest. Its one policy so far is that of idle
//!   targets: [`decide`] answers whether a target is idle, so that it may be put to sleep. The semantics are those of v3io's scaler,
//!   without its defects.
//! * [`activate`] is KEDA's way: a trigger above its activation value, with cooldowns and a number of replicas for idle targets.
//!
//! Between one and many, or zero and many:
//!
//! * [`hpa`] decides what a HorizontalPodAutoscaler does.
//! * [`memory`] decides what a MemHpa does.
//!
//! All of them give their answer as a [`ScaleDecision`], whose text is what people read.
//!
//! The rules of idle targets:
//!
//! * A resource has [`Rule`]s, each with a metric, a window and a threshold. It is idle only if *every* reading is at or
//!   below its threshold. An empty rule list is never idle.
//! * After an update or a wake it is left alone for the *largest* window of its rules.
//! * A [`Sample`] is a value, no data, or an error. Missing data and errors keep a resource awake.
//! * Values are compared as Kubernetes quantities, exactly ([`dormouse_model::Quantity`]).

mod activation;
mod bounds;
mod decision;
pub mod hpa;
mod idle;
pub mod memory;
mod recommend;
mod rule;
mod saturate;
mod scale_decision;
mod time;
mod utilization;

pub use activation::{ActivationPolicy, ActivationSeen, ActivationTrigger, Pause, activate};
pub use bounds::Bounds;
pub use decision::{Decision, Input, KeepReason, Verdict, decide};
pub use recommend::{Desired, Recommendation, Seen, Standing, recommend};
pub use rule::{Rule, Sample};
pub use scale_decision::{Activity, Comparison, DecisionInput, Limit, LimitKind, Proposed, ScaleDecision};
