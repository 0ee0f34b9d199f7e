//! What the line needs from the cluster.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::{ClusterError, WorkloadScale};
use dormouse_model::{ObjectRef, Owner, Phase};
use dormouse_plugin::types::FieldCondition;
use dormouse_sleepers::lifecycle::SleeperState;
use dormouse_sleepers::{Declared, DesiredStateError, Sleeper, SleeperKey, StatusUpdate, StoodIn};
use futures::stream::BoxStream;
use thiserror::Error;
use tokio::sync::watch;

/// Why a field of an object could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FieldError(pub String);

/// Which Sleepers changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SleeperChange {
    /// This one.
    One {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Any of them: some changes were missed.
    Any,
}

/// Sleepers, and what belongs to them in the cluster.
#[async_trait]
pub trait Sleepers: Send + Sync + 'static {
    /// All that are known.
    fn list(&self) -> Vec<Arc<Sleeper>>;

    /// Those that an owner declared, or all objects of a kind together.
    fn of_owner(&self, owner: &Owner) -> Vec<Arc<Sleeper>>;

    /// One that is known.
    fn get(&self, key: &SleeperKey) -> Option<Arc<Sleeper>>;

    /// Changes of Sleepers, from now on. What was written by this process is among them.
    fn sleeper_changes(&self) -> BoxStream<'static, SleeperChange>;

    /// Whether a namespace is looked after.
    fn includes(&self, namespace: &str) -> bool;

    /// Makes sure that a Sleeper exists and says what was declared. Writes nothing if so.
    async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError>;

    /// Deletes a Sleeper; its finalizer wakes and restores first.
    async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError>;

    /// Asks that the DLX steps into the traffic and counts. False: it is so already.
    async fn observe(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError>;

    /// Asks that it wakes. False: it is so already.
    async fn wake(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError>;

    /// Asks that it goes to sleep. False: it is so already.
    async fn sleep(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError>;

    /// Stands in for what is at zero without us, unless it was turned off.
    async fn stand_in(&self, key: &SleeperKey) -> Result<StoodIn, DesiredStateError>;

    /// Whether a Service exists.
    fn has_service(&self, namespace: &str, name: &str) -> bool;

    /// A number that rises when somebody changed what plugins look at, so that they should be asked again soon.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Records what was decided, and what holds.
    async fn record(&self, key: &SleeperKey, update: &StatusUpdate) -> Result<(), ClusterError>;

    /// Reads the scale of a workload.
    async fn scale(&self, namespace: &str, workload: &ObjectRef) -> Result<WorkloadScale, ClusterError>;

    /// Sets the replicas of a workload, of a Sleeper or without one, if it may be scaled, and nobody has changed it since its scale was read.
    async fn resize(
        &self,
        namespace: &str,
        sleeper: Option<&SleeperKey>,
        workload: &ObjectRef,
        seen: &WorkloadScale,
        replicas: i32,
    ) -> Result<(), DesiredStateError>;

    /// Who else than a target scales its workload, in words for people, if somebody does.
    fn other_scaler(&self, key: &SleeperKey, has_sleeper: bool, workload: &ObjectRef) -> Option<String>;

    /// Shows the phase of a resource that its platform scales by itself.
    async fn mirror(&self, key: &SleeperKey, phase: Phase, reason: &str) -> Result<(), ClusterError>;

    /// The field of an object that a source asked to be watched, as text.
    async fn field(&self, namespace: &str, condition: &FieldCondition) -> Result<Option<String>, FieldError>;

    /// Tells people what happened, on the object that it happened to. Never fails: an event is a courtesy.
    async fn tell(&self, namespace: &str, object: &ObjectRef, warning: bool, reason: &str, message: &str);
}

/// What a Sleeper remembers, without a copy.
pub(crate) fn state(sleeper: &Sleeper) -> &SleeperState {
    state_of(Some(sleeper))
}

/// What the Sleeper of a target remembers, if it has one. What has none is awake.
pub(crate) fn state_of(sleeper: Option<&Sleeper>) -> &SleeperState {
    static NEW: std::sync::LazyLock<SleeperState> = std::sync::LazyLock::new(SleeperState::default);
    let status = sleeper.and_then(|sleeper| sleeper.status.as_ref());
    status.map_or(&NEW, |status| &status.state)
}

/// Whether a Sleeper is about to go.
pub(crate) fn is_going(sleeper: &Sleeper) -> bool {
    sleeper.metadata.deletion_timestamp.is_some()
}
