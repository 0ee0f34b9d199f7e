//! Pure scaling decisions: no I/O, no clock, no Kubernetes client. Time and history are arguments.
//!
//! Between zero and one:
//!
//! * [`recommend`] says what should become of a target, and when to ask again at the latest. Whether it is idle, so that it may be put to
//!   sleep, [`decide`] answers, with the semantics of v3io's scaler and without its defects. How many replicas it has while it is up
//!   follows from its metrics ([`hpa`]), if it has any; what later decisions need of earlier ones is a [`ScalingHistory`].
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
mod scaled;
mod scaling_history;
mod time;
mod utilization;

pub use activation::{ActivationPolicy, ActivationSeen, ActivationTrigger, Pause, activate};
pub use bounds::Bounds;
pub use decision::{Decision, Input, KeepReason, Verdict, decide};
pub use recommend::{Desired, Recommendation, Seen, Standing, recommend};
pub use rule::{Rule, Sample};
pub use scale_decision::{Activity, Comparison, DecisionInput, Limit, LimitKind, Proposed, ScaleDecision};
pub use scaled::{ScaleSeen, Scaled, to_demand};
pub use scaling_history::{Recommended, Rescaled, ScalingHistory};
