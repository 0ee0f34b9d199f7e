//! What the line needs from the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{ClusterError, MetricValue};
use dormouse_model::{ObjectRef, Owner, OwnerKind, Phase};
use dormouse_plugin::types::{FieldCondition, PodScrape, Resource, ResourceId, ScaleOutcome, Settings};
use dormouse_scaling::Reading;
use dormouse_sleepers::api::LastDecision;
use dormouse_sleepers::{
    ConditionUpdate, Declared, DemandEntry, Route, Sleeper, SleeperKey, StoodIn, WishError,
};
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::watch;

/// Why a source did not do what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SourceError {
    /// A stable short name, in snake case: metric label, condition reason, log field.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Declares what there is to scale, and scales it.
///
/// Every call has a deadline of its own; the line adds one round limit on top, no more.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Who declares its resources: part of their identity.
    fn owner(&self) -> Owner;

    /// Defaults that suit its platform.
    async fn settings(&self) -> Result<Settings, SourceError>;

    /// Every resource that it looks after. An error says nothing about any of them.
    async fn resources(&self) -> Result<Vec<Resource>, SourceError>;

    /// Where requests go that name a resource and no Service. None: the host's choice, the first Service that it lists.
    async fn route(&self, resource: &Resource) -> Result<Option<Route>, SourceError>;

    /// Scales resources; one outcome for each, in their order.
    async fn set_scale(
        &self,
        resources: &[ResourceId],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError>;
}

/// Sources that become ready one after the other.
pub trait Sources: Send + Sync + 'static {
    /// Those that are ready. One that was ready once stays.
    fn ready(&self) -> Vec<Arc<dyn Source>>;

    /// Which there are, and which there should be.
    fn roster(&self) -> Roster;

    /// Changes whenever one of the two does.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Which owners there are, and which there should be.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Owners whose sources run.
    pub ready: BTreeSet<Owner>,
    /// Owners that cannot say what is theirs: plugins that could not be loaded, or that are configured without a file.
    pub failed: BTreeMap<Owner, SourceError>,
    /// Kinds of which all owners are known. Of any other kind nobody knows what is missing.
    pub complete: BTreeSet<OwnerKind>,
}

/// Why a field of an object could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FieldError(pub String);

/// Sleepers, and what belongs to them in the cluster.
#[async_trait]
pub trait Sleepers: Send + Sync + 'static {
    /// All that are known.
    fn list(&self) -> Vec<Arc<Sleeper>>;

    /// Whether a namespace is looked after.
    fn includes(&self, namespace: &str) -> bool;

    /// Makes sure that a Sleeper exists and says what was declared. Writes nothing if so.
    async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError>;

    /// Deletes a Sleeper; its finalizer wakes and restores first.
    async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError>;

    /// Wishes that the DLX steps into the traffic and counts. False: it is so already.
    async fn observe(&self, key: &SleeperKey, reason: &str) -> Result<bool, WishError>;

    /// Wishes it awake. False: it is so already.
    async fn wake(&self, key: &SleeperKey, reason: &str) -> Result<bool, WishError>;

    /// Stands in for what is at zero without us, unless it was turned off.
    async fn stand_in(&self, key: &SleeperKey) -> Result<StoodIn, WishError>;

    /// Whether a Service exists.
    fn has_service(&self, namespace: &str, name: &str) -> bool;

    /// A number that rises when somebody changed what sources look at, so that their next round should come soon.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Records a decision with its conditions.
    async fn record(
        &self,
        key: &SleeperKey,
        decision: LastDecision,
        conditions: &[ConditionUpdate],
    ) -> Result<(), ClusterError>;

    /// Records conditions alone.
    async fn record_conditions(
        &self,
        key: &SleeperKey,
        conditions: &[ConditionUpdate],
    ) -> Result<(), ClusterError>;

    /// Shows the phase of a resource that its platform scales by itself.
    async fn mirror(&self, key: &SleeperKey, phase: Phase, reason: &str) -> Result<(), ClusterError>;

    /// Demand for all Sleepers over all DLX replicas, by namespace and object name. A Sleeper that is missing has none.
    /// An error: demand is unknown.
    async fn demand(&self) -> Result<BTreeMap<(String, String), DemandEntry>, String>;

    /// The field of an object that a source asked to be watched, as text.
    async fn field(&self, namespace: &str, condition: &FieldCondition) -> Result<Option<String>, FieldError>;

    /// Tells people what happened, on the object that it happened to. Never fails: an event is a courtesy.
    async fn tell(&self, namespace: &str, object: &ObjectRef, warning: bool, reason: &str, message: &str);
}

/// A metric of the custom metrics API. One question covers all objects of a kind in a namespace, so that it is asked once
/// in a round.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomQuestion {
    /// Group of the kind that the metric describes.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// Namespace of the objects.
    pub namespace: String,
    /// The complete name, with the window.
    pub metric: String,
    /// Which series count.
    pub selector: Option<String>,
}

/// Everything else that can be asked. Resources that ask the same share the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// A metric of the external metrics API.
    External {
        /// Where it is asked for.
        namespace: String,
        /// Its name.
        metric: String,
        /// Which series count.
        selector: Option<String>,
    },
    /// What the pods of workloads use.
    Usage {
        /// Namespace of the workloads.
        namespace: String,
        /// The workloads.
        workloads: Vec<ObjectRef>,
        /// `cpu`, `memory` or another name.
        resource: String,
        /// What was measured longer ago is no data.
        window: Duration,
    },
    /// A query to a Prometheus server, filled in.
    Prometheus {
        /// Namespace of the resource that asks.
        namespace: String,
        /// Name of the server in the configuration.
        server: String,
        /// The query.
        query: String,
    },
    /// A metric that the pods of workloads serve.
    Pods {
        /// Namespace of the workloads.
        namespace: String,
        /// The workloads.
        workloads: Vec<ObjectRef>,
        /// What to ask each pod.
        scrape: PodScrape,
        /// A sample from longer ago is no data.
        window: Duration,
    },
}

/// Where readings are taken. The caller gives up on its own when it takes too long.
#[async_trait]
pub trait Meters: Send + Sync + 'static {
    /// Values of a custom metric by object name. Objects without a value are missing.
    async fn custom(&self, question: &CustomQuestion) -> Result<BTreeMap<String, MetricValue>, String>;

    /// The answer to any other question, at `now`.
    async fn ask(&self, question: &Question, now: Timestamp) -> Reading;
}
