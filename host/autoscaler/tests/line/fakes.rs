//! A cluster, sources and a metrics API that do what a test says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_autoscaler::{FieldError, ResourceScaler, SleeperChange, Sleepers, SourceError};
use dormouse_kubernetes::{
    ClusterError, ContainerUsage, MetricValue, PodContainer, PodUsage, WorkloadPod, WorkloadScale,
};
use dormouse_model::{ObjectRef, Owner, Phase, Query, Routing};
use dormouse_plugin::types::{FieldCondition, Resource, ResourceHandle, ResourceId, ScaleOutcome, Settings};
use dormouse_readings::{Answer as Answered, Measured, PodView, Request, Scraped, Upstream};
use dormouse_scaling::Sample;
use dormouse_sleepers::lifecycle::{
    DesiredState, SleeperState, TrafficCheckPolicy, request_observation, request_sleep, request_wake,
};
use dormouse_sleepers::{
    ConditionUpdate, Declared, DemandEntry, DesiredStateError, Sleeper, SleeperKey, SleeperStatus,
    StatusUpdate, StoodIn, TotalDemand,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tokio::time::Instant;

/// What the DLX says of demand, or why it does not.
type Demanded = Result<TotalDemand, String>;

/// Wall time that follows tokio's clock.
#[derive(Clone, Copy, Debug)]
pub struct Start(Instant);

impl Start {
    pub fn now() -> Self {
        Self(Instant::now())
    }

    pub fn wall(self) -> Timestamp {
        let begin: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a timestamp");
        begin + SignedDuration::try_from(self.0.elapsed()).expect("a span")
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while locked")
}

/// Waits for ever when the name is in the set.
async fn maybe_hang(names: &Mutex<BTreeSet<String>>, name: &str) {
    let hangs = lock(names).contains(name);
    if hangs {
        std::future::pending::<()>().await;
    }
}

/// What the DLX says of demand; None hangs.
#[derive(Debug)]
pub struct Demand {
    pub answer: Mutex<Option<Demanded>>,
    pub calls: AtomicUsize,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            answer: Mutex::new(Some(Ok(TotalDemand::default()))),
            calls: AtomicUsize::new(0),
        }
    }
}

// the cluster

#[derive(Debug, Default)]
pub struct Cluster {
    start: Mutex<Option<Start>>,
    sleepers: Mutex<BTreeMap<SleeperKey, Sleeper>>,
    /// What was written: verb and resource.
    pub writes: Mutex<Vec<(&'static str, String)>>,
    pub events: Mutex<Vec<(String, String)>>,
    pub demand: Arc<Demand>,
    /// Resources (`namespace/name`) that cannot be declared.
    pub undeclarable: Mutex<BTreeSet<String>>,
    /// Resources (`namespace/name`) whose Services cannot be diverted.
    pub undivertible: Mutex<BTreeSet<String>>,
    /// What a look at a resource (`namespace/name`) that is at zero finds; by default, that it is to sleep.
    pub zero: Mutex<BTreeMap<String, StoodIn>>,
    /// Services that do not exist.
    pub no_services: Mutex<BTreeSet<String>>,
    pub changes: tokio::sync::watch::Sender<u64>,
    pub only_namespace: Mutex<Option<String>>,
    pub fields: Mutex<BTreeMap<String, String>>,
    /// How long every write takes.
    pub latency: Mutex<Duration>,
    /// Replicas of workloads (`namespace/name`), and the version of that.
    pub scales: Mutex<BTreeMap<String, (i32, u64)>>,
    /// Replicas that there are of every workload, where those are others than are asked for.
    pub current_replicas: Mutex<Option<i32>>,
    /// What every write of a scale says.
    pub refuses_resize: Mutex<Option<DesiredStateError>>,
    /// Who else scales every workload.
    pub other_scaler: Mutex<Option<String>>,
    /// Rises when the watch on Sleepers says something.
    pub moved: tokio::sync::watch::Sender<u64>,
}

impl Cluster {
    pub fn new(start: Start) -> Arc<Self> {
        let cluster = Self::default();
        *lock(&cluster.start) = Some(start);
        Arc::new(cluster)
    }

    pub fn now(&self) -> Timestamp {
        lock(&self.start).expect("started").wall()
    }

    pub fn sleeper(&self, key: &SleeperKey) -> Option<Sleeper> {
        lock(&self.sleepers).get(key).cloned()
    }

    pub fn state(&self, key: &SleeperKey) -> SleeperState {
        self.status(key).state
    }

    pub fn status(&self, key: &SleeperKey) -> SleeperStatus {
        self.sleeper(key)
            .and_then(|sleeper| sleeper.status)
            .unwrap_or_default()
    }

    pub fn outcome(&self, key: &SleeperKey) -> String {
        self.status(key)
            .last_decision
            .map(|decision| decision.outcome)
            .unwrap_or_default()
    }

    pub fn condition(&self, key: &SleeperKey, kind: &str) -> Option<(String, String, String)> {
        let conditions = self.status(key).conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason, found.message))
    }

    pub fn edit(&self, key: &SleeperKey, change: impl FnOnce(&mut Sleeper)) {
        change(lock(&self.sleepers).get_mut(key).expect("a Sleeper"));
    }

    pub fn edit_state(&self, key: &SleeperKey, change: impl FnOnce(&mut SleeperState)) {
        self.edit(key, |sleeper| {
            change(&mut sleeper.status.get_or_insert_default().state)
        });
    }

    /// The protocol, with everything in place at once.
    pub fn carry_through(&self) {
        let now = self.now();
        for sleeper in lock(&self.sleepers).values_mut() {
            let state = &mut sleeper.status.get_or_insert_default().state;
            let phase = match state.desired {
                DesiredState::Awake => Phase::Awake,
                DesiredState::Observed => Phase::Observing,
                DesiredState::Asleep => Phase::Asleep,
            };
            if state.phase != phase {
                state.phase = phase;
                state.since = Some(now);
                if phase == Phase::Awake {
                    state.wake_completed = Some(now);
                }
            }
        }
    }

    /// Sets the replicas of a workload, as anybody may.
    pub fn set_replicas(&self, name: &str, replicas: i32) {
        let mut scales = lock(&self.scales);
        let (current, version) = scales.entry(name.to_owned()).or_default();
        (*current, *version) = (replicas, *version + 1);
    }

    pub fn replicas(&self, name: &str) -> i32 {
        lock(&self.scales)[name].0
    }

    pub fn keys(&self) -> Vec<SleeperKey> {
        lock(&self.sleepers).keys().cloned().collect()
    }

    pub fn set_demand(&self, key: &SleeperKey, entry: DemandEntry) {
        let name = (key.namespace.clone(), key.object_name());
        *lock(&self.demand.answer) = Some(Ok(TotalDemand {
            sleepers: BTreeMap::from([(name, entry)]),
            unanswered: None,
        }));
    }

    pub fn written(&self, verb: &str) -> usize {
        lock(&self.writes)
            .iter()
            .filter(|(written, _)| *written == verb)
            .count()
    }

    pub fn forget_writes(&self) {
        lock(&self.writes).clear();
    }

    /// What a guest's call of `lifecycle.sleep` does, and the line for others.
    pub async fn sleep(&self, key: &SleeperKey, reason: &str) -> bool {
        self.request("sleep", key, |state, _| request_sleep(state, reason).ok())
            .await
    }

    async fn request(
        &self,
        verb: &'static str,
        key: &SleeperKey,
        ask: impl FnOnce(&SleeperState, Timestamp) -> Option<SleeperState>,
    ) -> bool {
        self.takes_time().await;
        let now = self.now();
        let mut sleepers = lock(&self.sleepers);
        let Some(sleeper) = sleepers.get_mut(key) else {
            return false;
        };
        let status = sleeper.status.get_or_insert_default();
        let Some(state) = ask(&status.state, now) else {
            return false;
        };
        status.state = state;
        drop(sleepers);
        self.note(verb, key);
        true
    }

    async fn takes_time(&self) {
        let latency = *lock(&self.latency);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    fn note(&self, verb: &'static str, key: &SleeperKey) {
        lock(&self.writes).push((verb, key.to_string()));
    }

    fn set_conditions(&self, key: &SleeperKey, updates: &[ConditionUpdate]) {
        let now = self.now();
        self.edit(key, |sleeper| {
            let conditions = &mut sleeper.status.get_or_insert_default().conditions;
            for update in updates {
                let known = conditions.iter().position(|known| known.type_ == update.kind);
                if known.is_none() && update.status {
                    continue;
                }
                let condition = Condition {
                    type_: update.kind.to_owned(),
                    status: if update.status { "True" } else { "False" }.to_owned(),
                    reason: update.reason.clone(),
                    message: update.message.clone(),
                    observed_generation: None,
                    last_transition_time: Time(now),
                };
                match known {
                    Some(at) => conditions[at] = condition,
                    None => conditions.push(condition),
                }
            }
        });
    }
}

fn short(key: &SleeperKey) -> String {
    format!("{}/{}", key.namespace, key.resource)
}

#[async_trait]
impl Sleepers for Cluster {
    fn list(&self) -> Vec<Arc<Sleeper>> {
        lock(&self.sleepers).values().cloned().map(Arc::new).collect()
    }

    fn of_owner(&self, owner: &Owner) -> Vec<Arc<Sleeper>> {
        let mut all = self.list();
        all.retain(|sleeper| owner.includes(&sleeper.spec.owner()));
        all
    }

    fn get(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        self.sleeper(key).map(Arc::new)
    }

    fn sleeper_changes(&self) -> BoxStream<'static, SleeperChange> {
        let told = self.moved.subscribe();
        futures::stream::unfold(told, |mut told| async move {
            told.changed().await.ok()?;
            Some((SleeperChange::Any, told))
        })
        .boxed()
    }

    fn includes(&self, namespace: &str) -> bool {
        lock(&self.only_namespace)
            .as_ref()
            .is_none_or(|only| only == namespace)
    }

    async fn declare(&self, declared: &Declared) -> Result<Arc<Sleeper>, ClusterError> {
        let Declared { key, spec } = declared;
        if lock(&self.undeclarable).contains(&short(key)) {
            return Err(ClusterError::NotFound {
                what: format!("{} {}", spec.object.kind, spec.object.name),
            });
        }
        let same = self.sleeper(key).filter(|known| known.spec == *spec);
        if let Some(known) = same {
            return Ok(Arc::new(known));
        }
        self.takes_time().await;
        self.note("declare", key);
        let now = self.now();
        let mut sleepers = lock(&self.sleepers);
        let sleeper = sleepers.entry(key.clone()).or_insert_with(|| {
            let mut sleeper = Sleeper::new(&key.object_name(), spec.clone());
            sleeper.metadata.namespace = Some(key.namespace.clone());
            sleeper.status.get_or_insert_default().state.since = Some(now);
            sleeper
        });
        sleeper.spec = spec.clone();
        Ok(Arc::new(sleeper.clone()))
    }

    async fn retire(&self, key: &SleeperKey) -> Result<(), ClusterError> {
        self.takes_time().await;
        self.note("retire", key);
        lock(&self.sleepers).remove(key);
        Ok(())
    }

    async fn observe(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError> {
        if lock(&self.undivertible).contains(&short(key)) {
            return Err(DesiredStateError::Unsupported("Service web is headless".into()));
        }
        Ok(self
            .request("observe", key, |state, _| request_observation(state, reason).ok())
            .await)
    }

    async fn wake(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError> {
        let look = TrafficCheckPolicy::default();
        Ok(self
            .request("wake", key, |state, now| {
                request_wake(state, now, reason, look, 0).ok()
            })
            .await)
    }

    async fn sleep(&self, key: &SleeperKey, reason: &str) -> Result<bool, DesiredStateError> {
        if lock(&self.undivertible).contains(&short(key)) {
            return Err(DesiredStateError::Unsupported("Service web is headless".into()));
        }
        Ok(Cluster::sleep(self, key, reason).await)
    }

    async fn stand_in(&self, key: &SleeperKey) -> Result<StoodIn, DesiredStateError> {
        self.note("look at zero", key);
        if lock(&self.undivertible).contains(&short(key)) {
            return Err(DesiredStateError::Unsupported("Service web is headless".into()));
        }
        let found = lock(&self.zero).get(&short(key)).copied();
        match found {
            Some(found) => Ok(found),
            None => Ok(StoodIn::Requested(self.sleep(key, "at zero").await)),
        }
    }

    fn has_service(&self, _namespace: &str, name: &str) -> bool {
        !lock(&self.no_services).contains(name)
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn record(&self, key: &SleeperKey, update: &StatusUpdate) -> Result<(), ClusterError> {
        self.takes_time().await;
        let decided = update.decision.is_some() || update.scaling.is_some();
        self.note(if decided { "record" } else { "conditions" }, key);
        self.set_conditions(key, &update.conditions);
        self.edit(key, |sleeper| {
            let status = sleeper.status.get_or_insert_default();
            if let Some(decision) = &update.decision {
                status.last_decision = Some(decision.clone());
            }
            if update.clears_scaling {
                status.scaling = None;
            }
            if let Some(scaling) = &update.scaling {
                status.scaling = Some(scaling.clone());
            }
        });
        Ok(())
    }

    async fn scale(&self, namespace: &str, workload: &ObjectRef) -> Result<WorkloadScale, ClusterError> {
        let name = format!("{namespace}/{}", workload.name);
        let found = lock(&self.scales).get(&name).copied();
        let (replicas, version) = found.ok_or(ClusterError::NotFound { what: name })?;
        let current = lock(&self.current_replicas).unwrap_or(replicas);
        let scale = serde_json::json!({
            "metadata": {"resourceVersion": version.to_string()},
            "spec": {"replicas": replicas},
            "status": {"replicas": current, "selector": "app=web"},
        });
        Ok(WorkloadScale::new(
            serde_json::from_value(scale).expect("a scale"),
        ))
    }

    async fn resize(
        &self,
        namespace: &str,
        _sleeper: Option<&SleeperKey>,
        workload: &ObjectRef,
        seen: &WorkloadScale,
        replicas: i32,
    ) -> Result<(), DesiredStateError> {
        self.takes_time().await;
        let name = format!("{namespace}/{}", workload.name);
        lock(&self.writes).push(("resize", name.clone()));
        let refusal = lock(&self.refuses_resize).clone();
        if let Some(error) = refusal {
            return Err(error);
        }
        let mut scales = lock(&self.scales);
        let (current, version) = scales.get_mut(&name).expect("its scale was read");
        if seen.version() != Some(version.to_string().as_str()) {
            return Err(ClusterError::Conflict { what: name }.into());
        }
        (*current, *version) = (replicas, *version + 1);
        Ok(())
    }

    fn other_scaler(&self, _key: &SleeperKey, _has_sleeper: bool, workload: &ObjectRef) -> Option<String> {
        let other = lock(&self.other_scaler).clone();
        other.map(|name| format!("{name} scales {}", workload.name))
    }

    async fn mirror(&self, key: &SleeperKey, phase: Phase, reason: &str) -> Result<(), ClusterError> {
        self.note("mirror", key);
        let now = self.now();
        self.edit_state(key, |state| {
            state.phase = phase;
            state.since = Some(now);
            state.reason = reason.to_owned();
        });
        Ok(())
    }

    async fn field(&self, namespace: &str, condition: &FieldCondition) -> Result<Option<String>, FieldError> {
        let name = format!("{namespace}/{}:{}", condition.object.name, condition.path);
        Ok(lock(&self.fields).get(&name).cloned())
    }

    async fn tell(&self, namespace: &str, object: &ObjectRef, _warning: bool, reason: &str, _message: &str) {
        lock(&self.events).push((format!("{namespace}/{}", object.name), reason.to_owned()));
    }
}

// a source

type Outcome = Box<dyn Fn(&ResourceId) -> ScaleOutcome + Send + Sync>;

pub struct Plugin {
    pub name: String,
    pub cluster: Arc<Cluster>,
    pub settings: Mutex<Result<Settings, SourceError>>,
    pub resources: Mutex<Result<Vec<Resource>, SourceError>>,
    /// Calls (`resources`, `set-scale`) that never answer.
    pub hangs: Mutex<BTreeSet<String>>,
    pub slow: Mutex<Duration>,
    pub slow_set_scale: Mutex<Duration>,
    pub outcome: Mutex<Option<Outcome>>,
    pub broken: Mutex<Option<SourceError>>,
    /// The cookies that came with calls of `set-scale`.
    pub cookies: Mutex<Vec<Option<String>>>,
    /// Calls of set-scale: resources, replicas and reason.
    pub scaled: Mutex<Vec<(Vec<String>, u32, String)>>,
    pub resources_calls: Mutex<Vec<Instant>>,
    pub settings_calls: AtomicUsize,
    pub route: Mutex<Result<Routing, SourceError>>,
    pub route_calls: Mutex<Vec<String>>,
    at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
}

impl Plugin {
    pub fn new(name: &str, cluster: &Arc<Cluster>, resources: Vec<Resource>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            cluster: Arc::clone(cluster),
            settings: Mutex::new(Ok(Settings::default())),
            resources: Mutex::new(Ok(resources)),
            hangs: Mutex::default(),
            slow: Mutex::default(),
            slow_set_scale: Mutex::default(),
            outcome: Mutex::default(),
            broken: Mutex::default(),
            cookies: Mutex::default(),
            scaled: Mutex::default(),
            resources_calls: Mutex::default(),
            settings_calls: AtomicUsize::new(0),
            route: Mutex::new(Ok(Routing::First)),
            route_calls: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        })
    }

    pub fn hang(&self, call: &str) {
        lock(&self.hangs).insert(call.to_owned());
    }

    pub fn unhang(&self) {
        lock(&self.hangs).clear();
    }

    pub fn list(&self, resources: Vec<Resource>) {
        *lock(&self.resources) = Ok(resources);
    }

    pub fn fail(&self, error: SourceError) {
        *lock(&self.resources) = Err(error);
    }

    pub fn answer(&self, outcome: impl Fn(&ResourceId) -> ScaleOutcome + Send + Sync + 'static) {
        *lock(&self.outcome) = Some(Box::new(outcome));
    }

    pub fn rounds(&self) -> usize {
        lock(&self.resources_calls).len()
    }

    /// Resources that were asked to sleep, in order.
    pub fn slept(&self) -> Vec<String> {
        lock(&self.scaled)
            .iter()
            .flat_map(|(ids, _, _)| ids.clone())
            .collect()
    }

    pub fn key(&self, namespace: &str, name: &str) -> SleeperKey {
        SleeperKey::of_plugin(&self.name, namespace, name)
    }
}

#[async_trait]
impl ResourceScaler for Plugin {
    fn owner(&self) -> Owner {
        Owner::plugin(&self.name)
    }

    async fn route(&self, resource: &Resource) -> Result<Routing, SourceError> {
        lock(&self.route_calls).push(resource.id.to_string());
        lock(&self.route).clone()
    }

    async fn settings(&self) -> Result<Settings, SourceError> {
        self.settings_calls.fetch_add(1, Ordering::Relaxed);
        lock(&self.settings).clone()
    }

    async fn resources(&self) -> Result<Vec<Resource>, SourceError> {
        lock(&self.resources_calls).push(Instant::now());
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        maybe_hang(&self.hangs, "resources").await;
        let slow = *lock(&self.slow);
        tokio::time::sleep(slow).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        lock(&self.resources).clone()
    }

    async fn set_scale(
        &self,
        resources: &[ResourceHandle],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        let ids = resources.iter().map(|resource| resource.id.to_string()).collect();
        lock(&self.cookies).extend(resources.iter().map(|resource| resource.cookie.clone()));
        lock(&self.scaled).push((ids, replicas, reason.to_owned()));
        maybe_hang(&self.hangs, "set-scale").await;
        let slow = *lock(&self.slow_set_scale);
        tokio::time::sleep(slow).await;
        if let Some(error) = lock(&self.broken).clone() {
            return Err(error);
        }
        let mut outcomes = Vec::new();
        for ResourceHandle { id, .. } in resources {
            let said = lock(&self.outcome).as_ref().map(|outcome| outcome(id));
            outcomes.push(match said {
                Some(outcome) => outcome,
                None => {
                    self.cluster
                        .sleep(&self.key(&id.namespace, &id.name), reason)
                        .await;
                    ScaleOutcome::Accepted
                }
            });
        }
        Ok(outcomes)
    }
}

// the metrics API

#[derive(Clone, Debug)]
pub enum Answer {
    Values(Vec<(&'static str, &'static str)>),
    Ambiguous(&'static str),
    Error(&'static str),
    Hang,
}

/// Answers by `group/kind/namespace/metric`; what is not scripted has no values.
#[derive(Debug, Default)]
pub struct MetricsApi {
    answers: Mutex<HashMap<String, Answer>>,
    /// Answers to the other queries; None hangs.
    samples: Mutex<HashMap<Request, Option<Sample>>>,
    /// Everything that was asked for but custom metrics.
    pub requests: Mutex<Vec<Request>>,
    pub calls: Mutex<Vec<String>>,
    pub demand: Arc<Demand>,
    at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
    pub slow: Mutex<Duration>,
}

/// The one pod of the workload that asks.
const POD: &str = "web-1";

/// What has to be asked last to answer a query.
fn last_request(query: &Query) -> Request {
    match query.clone() {
        Query::External {
            namespace,
            metric,
            selector,
        } => Request::External {
            namespace,
            metric,
            selector,
        },
        Query::Prometheus {
            namespace,
            server,
            query,
        } => Request::Prometheus {
            namespace,
            server,
            query,
        },
        Query::PrometheusPods {
            namespace,
            server,
            query,
        } => Request::PrometheusPods {
            namespace,
            server,
            query,
        },
        Query::Usage { namespace, .. } => Request::Usage { namespace },
        Query::Pods { scrape, window, .. } => Request::Scrape {
            pods: vec![dormouse_readings::Pod {
                name: POD.into(),
                address: [10, 0, 0, 1].into(),
            }],
            scrape,
            window,
        },
        Query::Traffic { .. }
        | Query::Concurrency { .. }
        | Query::ArrivalRate { .. }
        | Query::Given(_)
        | Query::Custom { .. } => panic!("it has a script of its own"),
    }
}

impl MetricsApi {
    pub fn new(demand: &Arc<Demand>) -> Arc<Self> {
        Arc::new(Self {
            demand: Arc::clone(demand),
            ..Self::default()
        })
    }

    pub fn says(&self, call: &str, answer: Answer) {
        lock(&self.answers).insert(call.to_owned(), answer);
    }

    pub fn reads(&self, query: &Query, sample: Option<Sample>) {
        lock(&self.samples).insert(last_request(query), sample);
    }

    /// How often the answer to a query was asked for.
    pub fn asked(&self, query: &Query) -> usize {
        let last = last_request(query);
        lock(&self.requests)
            .iter()
            .filter(|request| **request == last)
            .count()
    }

    pub fn calls(&self) -> Vec<String> {
        let mut calls = lock(&self.calls).clone();
        calls.sort();
        calls
    }

    async fn custom(&self, call: String) -> Result<BTreeMap<String, MetricValue>, String> {
        lock(&self.calls).push(call.clone());
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        let slow = *lock(&self.slow);
        tokio::time::sleep(slow).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        let answer = lock(&self.answers).get(&call).cloned();
        match answer {
            None => Ok(BTreeMap::new()),
            Some(Answer::Hang) => std::future::pending().await,
            Some(Answer::Error(text)) => Err(text.to_owned()),
            Some(Answer::Ambiguous(object)) => {
                Ok(BTreeMap::from([(object.to_owned(), MetricValue::Ambiguous)]))
            }
            Some(Answer::Values(values)) => Ok(values
                .into_iter()
                .map(|(object, value)| (object.to_owned(), MetricValue::Value(value.to_owned())))
                .collect()),
        }
    }
}

/// Usage of the one pod that adds up to a sample.
fn usage(sample: Sample) -> Result<Answered, String> {
    let containers = match sample {
        Sample::Value(value) => vec![ContainerUsage {
            name: "app".to_owned(),
            usage: BTreeMap::from([("cpu".to_owned(), value.to_string())]),
        }],
        Sample::NoData(_) => Vec::new(),
        Sample::Error(error) => return Err(error),
    };
    let usage = PodUsage {
        pod: POD.into(),
        measured: Some(Timestamp::MAX),
        window: Duration::from_secs(30),
        containers,
    };
    Ok(Answered::Usage(HashMap::from([(POD.to_owned(), usage)])))
}

#[async_trait]
impl Upstream for MetricsApi {
    async fn fetch(&self, request: &Request, _now: Timestamp) -> Result<Answered, String> {
        match request {
            Request::Demand => {
                self.demand.calls.fetch_add(1, Ordering::Relaxed);
                let answer = lock(&self.demand.answer).clone();
                match answer {
                    Some(answer) => answer.map(Answered::Demand),
                    None => std::future::pending().await,
                }
            }
            Request::Custom {
                group,
                kind,
                namespace,
                metric,
                selector,
            } => {
                let mut call = format!("{group}/{kind}/{namespace}/{metric}");
                if let Some(selector) = selector {
                    call.push_str(&format!("?{selector}"));
                }
                self.custom(call).await.map(Answered::Custom)
            }
            Request::Selector { .. } => {
                lock(&self.requests).push(request.clone());
                Ok(Answered::Selector("app=web".parse().expect("a selector")))
            }
            Request::Pods { .. } => {
                lock(&self.requests).push(request.clone());
                let pod = WorkloadPod {
                    name: POD.into(),
                    address: Some([10, 0, 0, 1].into()),
                    phase: "Running".into(),
                    ready: true,
                    labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
                    ready_condition: Some(("True".to_owned(), Timestamp::UNIX_EPOCH)),
                    containers: vec![PodContainer {
                        name: "app".to_owned(),
                        limits: BTreeMap::from([("memory".to_owned(), "100Mi".to_owned())]),
                        ..PodContainer::default()
                    }],
                    ..WorkloadPod::default()
                };
                Ok(Answered::Pods(PodView::new(vec![pod])))
            }
            request => {
                lock(&self.requests).push(request.clone());
                let sample = lock(&self.samples).get(request).cloned();
                let sample = match sample {
                    None => Sample::NoData("not scripted".into()),
                    Some(Some(sample)) => sample,
                    Some(None) => std::future::pending().await,
                };
                match (request, sample) {
                    (Request::Usage { .. }, sample) => usage(sample),
                    (Request::PrometheusPods { .. }, Sample::Value(value)) => {
                        Ok(Answered::OfPods(vec![(POD.to_owned(), value)]))
                    }
                    (Request::PrometheusPods { .. }, Sample::NoData(_)) => Ok(Answered::OfPods(Vec::new())),
                    (_, Sample::Error(error)) => Err(error),
                    (Request::Scrape { .. }, sample) => Ok(Answered::Scraped(vec![Scraped {
                        pod: POD.into(),
                        answer: Ok(match sample {
                            Sample::Value(value) => Measured::Value(value),
                            Sample::NoData(why) => Measured::NoData(why.into_owned()),
                            Sample::Error(_) => unreachable!("an error is answered above"),
                        }),
                    }])),
                    (_, sample) => Ok(Answered::Sample(sample)),
                }
            }
        }
    }
}
