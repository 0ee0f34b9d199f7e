//! Which Sleepers are reconciled, and when: what changes of objects, requests and ended runs mean for the queue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::pods::is_alive;
use dormouse_kubernetes::{Change, WatchedKind};
use dormouse_lifecycle::DesiredState;
use dormouse_model::{Phase, Shards};
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::index::{Index, Name, is_urgent, name_of, wants};
use super::queue::{Queue, Request, RunOutcome};
use super::run::{Run, pause, span};
use crate::api::Sleeper;
use crate::caches::{Caches, SLEEPER};
use crate::dlx::DlxReplicas;
use crate::observed::Uncached;
use crate::ownership::Ownership;
use crate::reconciler::{ReconcileOutcome, Reconciler};
use crate::requeue::Requeue;
use crate::role::Role;
use crate::services::{is_parked, original_selector};
use crate::slices::{is_stale, service_of_own_slice};

/// A Sleeper that was created so short a time ago is new, and not only new to this process.
const YOUNG: Duration = Duration::from_secs(60);
/// How long a wake that does not go on is left to the process that asked for it before others reconcile it too. Any process can, but
/// together they only cause conflicts.
const HEAD_START: Duration = Duration::from_secs(2);
/// How long all else is left to the leader.
const LEADERS_HEAD_START: Duration = Duration::from_millis(100);

/// What the controller knows of its Sleepers, and the queue of those that are to run.
pub(super) struct Schedule {
    caches: Arc<Caches>,
    dlx: DlxReplicas,
    ownership: Ownership,
    reconciler: Arc<Reconciler>,
    role: Role,
    /// Whose namespaces are reconciled. None: all.
    pub(super) shards: Option<watch::Receiver<Shards>>,
    index: Index,
    queue: Queue,
    /// Those that this process moved, until they are settled awake.
    moved: HashSet<Name>,
    /// What the last run found out about those that are not simply awake, and the caches do not hold.
    uncached: HashMap<Name, Uncached>,
    /// When a wake that another process carries out last went on.
    progress: HashMap<Name, Instant>,
    /// How often in a row a Sleeper was polled.
    polls: HashMap<Name, u32>,
}

impl Schedule {
    pub(super) fn new(
        caches: Arc<Caches>,
        dlx: DlxReplicas,
        ownership: Ownership,
        reconciler: Arc<Reconciler>,
        role: Role,
    ) -> Self {
        Self {
            caches,
            dlx,
            ownership,
            reconciler,
            role,
            shards: None,
            index: Index::default(),
            queue: Queue::default(),
            moved: HashSet::new(),
            uncached: HashMap::new(),
            progress: HashMap::new(),
            polls: HashMap::new(),
        }
    }

    /// Whether the shards of this process include a namespace.
    pub(super) fn holds(&self, namespace: &str) -> bool {
        let shards = self.shards.as_ref();
        shards.is_none_or(|shards| shards.borrow().holds(namespace))
    }

    /// The next Sleeper to run, if there is a place, and how often in a row it was polled. Those whose run would find nothing to do
    /// are finished at once.
    pub(super) fn pop(&mut self) -> Option<(Name, u32)> {
        while let Some((name, uncached)) = self.queue.pop() {
            let Some(outcome) = self.outcome_without_run(&name, uncached) else {
                let polls = self.polls.get(&name).copied().unwrap_or(0);
                return Some((name, polls));
            };
            self.queue.finish(&name, outcome, Instant::now(), 1.0);
        }
        None
    }

    /// Queues those that are due.
    pub(super) fn advance(&mut self) {
        self.queue.advance(Instant::now());
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// How many wait for a place, and how many are running.
    pub(super) fn load(&self) -> (usize, usize) {
        self.queue.load()
    }

    fn get(&self, name: &Name) -> Option<Arc<Sleeper>> {
        self.caches.sleepers.get(&name.0, &name.1)
    }

    /// A run has ended.
    pub(super) fn finish(&mut self, name: &Name, run: Run) {
        match run.uncached {
            Some(uncached) if self.get(name).is_some() => {
                self.uncached.insert(name.clone(), uncached);
            }
            _ => {
                self.uncached.remove(name);
            }
        }
        if run.moved && self.get(name).is_some_and(|sleeper| is_urgent(&sleeper)) {
            self.moved.insert(name.clone());
        }
        if run.polling {
            *self.polls.entry(name.clone()).or_default() += 1;
        } else {
            self.polls.remove(name);
        }
        self.queue
            .finish(name, run.outcome, Instant::now(), rand::random_range(0.8..1.2));
    }

    /// A part of this process requests to reconcile a Sleeper.
    pub(super) fn requeue(&mut self, requeue: Requeue) {
        if !self.holds(&requeue.name.0) {
            return;
        }
        let delay = if requeue.moved {
            Duration::ZERO
        } else {
            self.head_start(&requeue.name)
        };
        // The caches do not show yet what was just written.
        let request = Request {
            urgent: true,
            cuts_pause: true,
            delay,
            uncached: true,
        };
        self.queue.add(&requeue.name, request, Instant::now());
        if requeue.moved {
            self.moved.insert(requeue.name);
        }
    }

    /// How long a wake is left to other processes.
    fn head_start(&self, name: &Name) -> Duration {
        if self.moved.contains(name) {
            Duration::ZERO
        } else {
            HEAD_START
        }
    }

    /// Indexes and adds every Sleeper: at first, when shards change, and when changes were missed.
    pub(super) fn add_all(&mut self) {
        self.index = Index::default();
        for sleeper in self.caches.sleepers.all() {
            let name = name_of(&sleeper);
            self.index.update(&name, Some(&sleeper));
            self.index_pods(&name);
            self.add(&name, Some(&sleeper), true, true);
            self.add_new(&name, &sleeper);
        }
    }

    /// Adds a Sleeper, if this controller reconciles it. `uncached`: the caches do not show what happened.
    fn add(&mut self, name: &Name, known: Option<&Sleeper>, cuts_pause: bool, uncached: bool) {
        let Some(sleeper) = known else { return };
        let urgent = is_urgent(sleeper);
        if !urgent {
            self.moved.remove(name);
            self.progress.remove(name);
        }
        if self.holds(&name.0) && (wants(sleeper, self.role) || self.has_leftovers(sleeper)) {
            let delay = match self.role {
                _ if urgent => self.head_start(name),
                Role::Leader => Duration::ZERO,
                // Replicas of the DLX would all see the same at once.
                Role::Waker => LEADERS_HEAD_START.mul_f64(rand::random_range(1.0..3.0)),
            };
            let request = Request {
                urgent,
                cuts_pause,
                delay,
                uncached,
            };
            self.queue.add(name, request, Instant::now());
        } else {
            self.uncached.remove(name);
        }
    }

    /// Adds a Sleeper that was just created, once: it may replace one that was lost while its workload slept, and only the workload
    /// itself shows that.
    fn add_new(&mut self, name: &Name, sleeper: &Sleeper) {
        let created = sleeper.creation_timestamp().map(|time| time.0);
        let young = created.is_some_and(|created| span(created, Timestamp::now()) < YOUNG);
        if self.role == Role::Leader && young && self.holds(&name.0) {
            let request = Request {
                urgent: false,
                cuts_pause: true,
                delay: Duration::ZERO,
                uncached: true,
            };
            self.queue.add(name, request, Instant::now());
        }
    }

    fn add_each(&mut self, names: impl IntoIterator<Item = Name>) {
        for name in names {
            let known = self.get(&name);
            self.add(&name, known.as_deref(), true, false);
        }
    }

    /// How a run would end, where that is known without one. It makes no request. `uncached`: the caches do not show what happened.
    fn outcome_without_run(&self, name: &Name, uncached: bool) -> Option<RunOutcome> {
        if self.is_left_to_leader(name) || !self.holds(&name.0) {
            return Some(RunOutcome::Settled);
        }
        if let Some(progress) = self.progress.get(name).filter(|_| !self.moved.contains(name)) {
            // Another process carries the wake out, and goes on.
            let rest = HEAD_START.saturating_sub(progress.elapsed());
            if !rest.is_zero() {
                return Some(RunOutcome::RequeueAfter(rest));
            }
        }
        let known = self.uncached.get(name).filter(|_| !uncached)?;
        let reconciled = self
            .reconciler
            .reconcile_cached(&name.0, &name.1, self.role, known)?;
        let ReconcileOutcome::Waiting { reason, until } = &reconciled.outcome else {
            return None;
        };
        let (pause, polling) = pause(self.role, &reconciled, reason, *until, 0);
        (!polling).then(|| pause.map_or(RunOutcome::Settled, RunOutcome::RequeueAfter))
    }

    /// Whether it sleeps, or is on the way there, and its Services lead to no DLX that is gone. Then a waker does nothing more, and
    /// there may be many such Sleepers. It reads the caches and makes no request.
    fn is_left_to_leader(&self, name: &Name) -> bool {
        let known = self.get(name);
        let Some(sleeper) = known.filter(|_| self.role == Role::Waker && !self.moved.contains(name)) else {
            return false;
        };
        let desired = sleeper.status.as_ref().map(|status| status.state.desired);
        let ready = self.dlx.endpoints().addresses;
        !matches!(desired, None | Some(DesiredState::Awake))
            && !sleeper.spec.services.iter().any(|service| {
                let own = self.caches.own_slice(&name.0, service);
                own.is_some_and(|own| is_stale(&own, &ready))
            })
    }

    /// Whether a Service of an awake Sleeper is still diverted: something was written too late, and has to be undone.
    fn has_leftovers(&self, sleeper: &Sleeper) -> bool {
        let namespace = sleeper.namespace().unwrap_or_default();
        sleeper.spec.services.iter().any(|service| {
            let known = self.caches.services.get(&namespace, service);
            let own = self.caches.own_slice(&namespace, service);
            let diverted = own.is_some() || known.as_ref().is_some_and(|service| is_parked(service));
            // What another Sleeper diverts is no leftover.
            diverted
                && self
                    .ownership
                    .holder(sleeper, service, known.as_deref(), own.as_deref())
                    .is_none()
        })
    }

    /// An object has changed.
    pub(super) fn changed(&mut self, change: &Change) {
        match change.kind {
            SLEEPER => self.sleeper_changed(&(change.namespace.clone(), change.name.clone())),
            WatchedKind::SERVICE | WatchedKind::ENDPOINT_SLICE
                if self.dlx.is_service(&change.namespace, &change.name) =>
            {
                // Notices an absence when it begins.
                self.dlx.endpoints();
                self.add_each(self.index.active());
            }
            WatchedKind::SERVICE | WatchedKind::ENDPOINT_SLICE => self.service_changed(change),
            WatchedKind::POD => self.pod_changed(change),
            _ => {}
        }
    }

    fn sleeper_changed(&mut self, name: &Name) {
        let known = self.get(name);
        let is_new = !self.index.knows(name);
        // Those that share an object with it, before and after: what belongs to them may have changed with it.
        let mut sharers = self.index.sharers(name);
        self.index.update(name, known.as_deref());
        self.index_pods(name);
        sharers.extend(self.index.sharers(name));
        sharers.remove(name);
        self.add_each(sharers);
        if known.as_ref().is_some_and(|sleeper| is_urgent(sleeper)) && !self.moved.contains(name) {
            self.progress.insert(name.clone(), Instant::now());
        }
        if known.is_none() {
            self.forget(name);
        }
        self.add(name, known.as_deref(), false, false);
        if let Some(sleeper) = known.filter(|_| is_new) {
            self.add_new(name, &sleeper);
        }
    }

    fn forget(&mut self, name: &Name) {
        self.uncached.remove(name);
        self.progress.remove(name);
        self.polls.remove(name);
        self.moved.remove(name);
        self.queue.forget(name);
        self.reconciler.forget(name);
    }

    fn service_changed(&mut self, change: &Change) {
        // A slice of Dormouse's whose label was taken away still tells its Service by its name.
        let own = service_of_own_slice(&change.name).filter(|_| change.kind == WatchedKind::ENDPOINT_SLICE);
        for service in own.iter().chain([&change.name]) {
            let names = self.index.of_service(&change.namespace, service);
            if change.kind == WatchedKind::SERVICE {
                names.iter().for_each(|name| self.index_pods(name));
            }
            self.add_each(names);
        }
    }

    fn pod_changed(&mut self, change: &Change) {
        let Some(labels) = &change.labels else { return };
        for name in self.index.of_pod(&change.namespace, labels) {
            let known = self.get(&name);
            let uncached = known
                .as_ref()
                .is_some_and(|sleeper| self.may_be_scaled(sleeper, change));
            self.add(&name, known.as_deref(), true, uncached);
        }
    }

    /// Whether a pod that came or went may mean that its workload was scaled by somebody else, which no cache shows.
    fn may_be_scaled(&self, sleeper: &Sleeper, pod: &Change) -> bool {
        let found = self.caches.pods.get(&pod.namespace, &pod.name);
        let runs = found.is_some_and(|pod| is_alive(&pod));
        match sleeper.phase() {
            // To zero.
            Phase::Diverting | Phase::Observing => true,
            // From zero.
            Phase::Draining | Phase::Asleep => runs,
            Phase::Awake | Phase::Waking | Phase::Ready => !is_urgent(sleeper),
        }
    }

    /// Indexes the pods that matter to a Sleeper: those of a wake, and while diverted those that tell of a scale-up by somebody else,
    /// or of other workloads behind its Services.
    fn index_pods(&mut self, name: &Name) {
        let known = self.get(name);
        let minding = known.filter(|sleeper| {
            let phase = sleeper.phase();
            let bare = sleeper.spec.services.is_empty();
            phase != Phase::Awake && (!bare || matches!(phase, Phase::Waking | Phase::Ready | Phase::Asleep))
        });
        let selectors = minding.map(|sleeper| {
            let services = sleeper.spec.services.iter();
            services
                .filter_map(|service| self.caches.services.get(&name.0, service))
                .filter_map(|service| original_selector(&service).ok().flatten())
                .collect()
        });
        self.index.select(name, selectors);
    }
}
