//! Sleepers in memory. What would be a request to the API server takes a while, and is counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_autoscaler::{FieldError, SleeperChange, Sleepers};
use dormouse_kubernetes::{ClusterError, WorkloadScale};
use dormouse_model::{ObjectRef, Owner, Phase};
use dormouse_plugin::types::FieldCondition;
use dormouse_sleepers::lifecycle::{DesiredState, SleeperState};
use dormouse_sleepers::{Declared, DesiredStateError, Sleeper, SleeperKey, StatusUpdate, StoodIn};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use tokio::sync::watch;

use super::population::{Class, REPLICAS};

/// Requests by what they do, of each class.
pub type Requests = BTreeMap<Class, BTreeMap<String, u64>>;

/// Namespace and name of a Sleeper.
type Name = (String, String);

/// All Sleepers, and the workloads that they are about.
#[derive(Debug)]
pub struct InMemory {
    delay: Duration,
    sleepers: Mutex<HashMap<Name, Arc<Sleeper>>>,
    requests: Mutex<Requests>,
    /// Conditions that did not hold, by kind and reason: everything here is as it should be, so there are none.
    troubles: Mutex<BTreeMap<String, u64>>,
    // Nothing that plugins look at ever changes.
    changes: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(key: &SleeperKey) -> Name {
    (key.namespace.clone(), key.object_name())
}

impl InMemory {
    pub fn new(delay: Duration) -> Self {
        Self {
            delay,
            sleepers: Mutex::default(),
            requests: Mutex::default(),
            troubles: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    pub fn requests(&self) -> Requests {
        lock(&self.requests).clone()
    }

    pub fn troubles(&self) -> BTreeMap<String, u64> {
        lock(&self.troubles).clone()
    }

    /// A request to the API server about a target.
    async fn request(&self, what: &str, target: &str) {
        if let Some(class) = Class::of(target) {
            let mut requests = lock(&self.requests);
            *requests
                .entry(class)
                .or_default()
                .entry(what.to_owned())
                .or_default() += 1;
        }
        tokio::time::sleep(self.delay).await;
    }
}

/// As it stands once the protocol is through with it.
fn state(class: Option<Class>, now: Timestamp) -> SleeperState {
    let since = Some(now);
    match class {
        Some(Class::Asleep) => SleeperState {
            desired: DesiredState::Asleep,
            phase: Phase::Asleep,
            since,
            slept: since,
            zero_observed: true,
            ..SleeperState::default()
        },
        Some(Class::Ruled | Class::Scaled) | None => SleeperState {
            since,
            ..SleeperState::default()
        },
    }
}

#[async_trait]
impl Sleepers for InMemory {
    fn list(&self) -> Vec<Arc<Sleeper>> {
        lock(&self.sleepers).values().cloned().collect()
    }

    /// There is one owner.
    fn of_owner(&self, _owner: &Owner) -> Vec<Arc<Sleeper>> {
        self.list()
    }

    fn get(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        lock(&self.sleepers).get(&name(key)).cloned()
    }

    fn sleeper_changes(&self) -> BoxStream<'static, SleeperChange> {
        futures::stream::pending().boxed()
    }

    fn includes(&self, _namespace: &str) -> bool {
        true
    }

    async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError> {
        let Declared { key, spec } = declared;
        let known = self.get(key);
        if let Some(known) = known.filter(|known| known.spec == *spec) {
            return Ok(known);
        }
        self.request("declare", &key.resource).await;
        let (namespace, name) = name(key);
        let mut sleeper = Sleeper::new(&name, spec.clone());
        sleeper.metadata.namespace = Some(namespace.clone());
        sleeper.status.get_or_insert_default().state = state(Class::of(&key.resource), Timestamp::now());
        let sleeper = Arc::new(sleeper);
        lock(&self.sleepers).insert((namespace, name), Arc::clone(&sleeper));
        Ok(sleeper)
    }

    async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError> {
        self.request("retire", &key.resource).await;
        lock(&self.sleepers).remove(&name(key));
        Ok(())
    }

    async fn observe(&self, key: &SleeperKey, _reason: &str) -> Result<bool, DesiredStateError> {
        self.request("observe", &key.resource).await;
        Ok(false)
    }

    async fn wake(&self, key: &SleeperKey, _reason: &str) -> Result<bool, DesiredStateError> {
        self.request("wake", &key.resource).await;
        Ok(false)
    }

    async fn sleep(&self, key: &SleeperKey, _reason: &str) -> Result<bool, DesiredStateError> {
        self.request("sleep", &key.resource).await;
        Ok(false)
    }

    async fn stand_in(&self, key: &SleeperKey) -> Result<StoodIn, DesiredStateError> {
        self.request("stand in", &key.resource).await;
        Ok(StoodIn::NotAtZero)
    }

    fn has_service(&self, _namespace: &str, _name: &str) -> bool {
        true
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn record(&self, key: &SleeperKey, update: &StatusUpdate) -> Result<(), ClusterError> {
        self.request("write status", &key.resource).await;
        for bad in update.conditions.iter().filter(|known| !known.status) {
            let what = format!("{} {}: {}", bad.kind, bad.reason, bad.message);
            *lock(&self.troubles).entry(what).or_default() += 1;
        }
        if let Some(sleeper) = lock(&self.sleepers).get_mut(&name(key)) {
            let status = Arc::make_mut(sleeper).status.get_or_insert_default();
            if let Some(decision) = &update.decision {
                status.last_decision = Some(decision.clone());
            }
            if let Some(scaling) = &update.scaling {
                status.scaling = Some(scaling.clone());
            }
        }
        Ok(())
    }

    async fn scale(&self, _namespace: &str, workload: &ObjectRef) -> Result<WorkloadScale, ClusterError> {
        self.request("read scale", &workload.name).await;
        let replicas = i32::try_from(REPLICAS).unwrap_or(1);
        let mut scale = Scale {
            spec: Some(ScaleSpec {
                replicas: Some(replicas),
            }),
            status: Some(ScaleStatus {
                replicas,
                selector: Some(format!("app={}", workload.name)),
            }),
            ..Scale::default()
        };
        scale.metadata.resource_version = Some("1".to_owned());
        Ok(WorkloadScale::new(scale))
    }

    async fn resize(
        &self,
        _namespace: &str,
        _sleeper: Option<&SleeperKey>,
        workload: &ObjectRef,
        _seen: &WorkloadScale,
        _replicas: i32,
    ) -> Result<(), DesiredStateError> {
        self.request("write scale", &workload.name).await;
        Ok(())
    }

    fn other_scaler(&self, _key: &SleeperKey, _has_sleeper: bool, _workload: &ObjectRef) -> Option<String> {
        None
    }

    async fn mirror(&self, key: &SleeperKey, _phase: Phase, _reason: &str) -> Result<(), ClusterError> {
        self.request("mirror", &key.resource).await;
        Ok(())
    }

    async fn field(
        &self,
        _namespace: &str,
        condition: &FieldCondition,
    ) -> Result<Option<String>, FieldError> {
        self.request("read field", &condition.object.name).await;
        Ok(None)
    }

    async fn tell(
        &self,
        _namespace: &str,
        object: &ObjectRef,
        _warning: bool,
        _reason: &str,
        _message: &str,
    ) {
        self.request("event", &object.name).await;
    }
}
