//! The decisions of a HorizontalPodAutoscaler, autoscaling/v2, as Kubernetes 1.37 makes them.
//!
//! From metrics to replicas in four steps, each a function of its own:
//!
//! 1. [`ReplicaCalculator`]: one metric and the pods to a proposed number of replicas.
//! 2. [`compute`]: several metrics to the highest proposal, and what a failing one blocks.
//! 3. [`normalize`]: stabilization windows, then policies and bounds.
//! 4. [`reconcile`]: all of it for one round, with conditions, events and the way to zero and back.
//!
//! Amounts are milli-units in 64 bits and counts 32 bits, ratios are floats, as in Kubernetes. Where Go wraps around or converts a
//! float that does not fit, numbers stop at the end of their type here.

mod behavior;
mod compute;
mod conditions;
mod error;
mod history;
mod normalize;
mod pods;
mod reconcile;
mod replicas;
mod requests;
mod tolerance;
mod usage;

pub use behavior::{DefaultedRules, with_defaults};
pub use compute::{Computation, MetricReading, ObservedScale, compute, default_metrics};
pub use conditions::{Condition, Conditions, Event, EventReason};
pub use error::{ComputeError, MetricError};
pub use history::{History, ReplicaChange, TimedRecommendation};
pub use normalize::{Normalized, limit_rate, normalize};
pub use pods::{ConditionStatus, Container, InitContainer, Pod, PodPhase, Readiness, ReadyCondition};
pub use reconcile::{Autoscaler, Observed, Reconciliation, Settings, reconcile};
pub use replicas::{MetricValue, Proposal, ReplicaCalculator};
pub use tolerance::Tolerances;
pub use usage::{ContainerUsage, PodSample, PodValue, Resources};
