//! Drives every Sleeper of the cluster through the protocol, as things change.

mod index;
mod queue;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dormouse_kubernetes::{Backoff, Change, ClusterError, WatchedKind};
use dormouse_lifecycle::{WaitReason, Wish};
use dormouse_model::{Phase, Shards};
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::index::{Index, Name, is_urgent, name_of, wants};
use self::queue::{Ended, Queue, Touch};
use crate::Cluster;
use crate::api::Sleeper;
use crate::caches::SLEEPER;
use crate::cluster::Poke;
use crate::endpoints::{leads_astray, service_of_own};
use crate::observe::Remembered;
use crate::role::Role;
use crate::round::{Looked, RoundOutcome, act_again, look_and_act, nothing_to_do};
use crate::services::{is_parked, original_selector};

/// Rounds in one run before others get their turn.
const ROUNDS: usize = 32;
/// Settled Sleepers are looked at this often even if nothing was seen to change. What matters is watched: Sleepers, Services, slices
/// and pods, so a scale-up by somebody else that brings a pod is seen at once. This is for one that brings none.
const RECHECK: Duration = Duration::from_secs(60 * 60);
/// How often it is looked for Services that are parked for nobody. They are restored at the second look.
const ORPHANED: Duration = Duration::from_secs(3);
/// A Sleeper that was created so short a time ago is new, and not only new to this process.
const YOUNG: Duration = Duration::from_secs(60);
/// Pauses where nothing tells when to look again.
const POLLS: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
/// Pauses after losing a write.
const CONFLICTS: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(250));
/// How long a wake that does not go on is left to the process that asked for it before others look at it too. All of them can do
/// it, but at once they only stand in each other's way.
const HEAD_START: Duration = Duration::from_secs(2);
/// How long all else is left to the leader.
const LEADERS_HEAD_START: Duration = Duration::from_millis(100);
/// Where a watch tells, a look all the same, should it have been missed.
const MISSED: Duration = Duration::from_secs(5);

/// Works on Sleepers, event by event. Never two runs for one Sleeper at once; wakes first; one that fails delays nobody.
pub struct Driver {
    cluster: Cluster,
    role: Role,
    /// Whose namespaces it works on. None: all.
    shards: Option<watch::Receiver<Shards>>,
    index: Index,
    queue: Queue,
    /// Those that this process moved, until they are settled awake.
    moved: HashSet<Name>,
    /// What the last look at those that are not simply awake found out about workloads.
    known: HashMap<Name, Remembered>,
    /// When a wake that others carry out last went on.
    progress: HashMap<Name, Instant>,
    /// How often in a row a Sleeper was looked at without anything to tell when to look again.
    polls: HashMap<Name, u32>,
    /// Services that were parked for nobody at the last look.
    orphans: HashSet<Name>,
}

struct Run {
    ended: Ended,
    polling: bool,
    /// It carried out a step.
    moved: bool,
    known: Option<Remembered>,
}

impl Run {
    /// It ended so, and found out nothing more.
    fn ended(ended: Ended, moved: bool) -> Self {
        Self {
            ended,
            polling: false,
            moved,
            known: None,
        }
    }
}

/// Waits until the shards change; for ever where there are none, or they never do again.
async fn changed(shards: &mut Option<watch::Receiver<Shards>>) {
    let changed = match shards {
        Some(shards) => shards.changed().await,
        None => std::future::pending().await,
    };
    if changed.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Driver {
    /// A driver for all Sleepers of the cluster.
    pub fn new(cluster: Cluster, role: Role) -> Self {
        Self {
            cluster,
            role,
            shards: None,
            index: Index::default(),
            queue: Queue::default(),
            moved: HashSet::new(),
            known: HashMap::new(),
            progress: HashMap::new(),
            polls: HashMap::new(),
            orphans: HashSet::new(),
        }
    }

    /// Works only on Sleepers in namespaces of these shards, as they change. What is under way for a shard that was lost is dropped.
    #[must_use]
    pub fn with_shards(mut self, shards: watch::Receiver<Shards>) -> Self {
        self.shards = Some(shards);
        self
    }

    fn holds(&self, namespace: &str) -> bool {
        let shards = self.shards.as_ref();
        shards.is_none_or(|shards| shards.borrow().holds(namespace))
    }

    /// Works until `shutdown`. Runs that are under way are then dropped where they stand: whoever looks next goes on.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = self.cluster.change_stream();
        let mut pokes = self.cluster.inner.pokes.subscribe();
        let mut runs: JoinSet<Run> = JoinSet::new();
        let mut names: HashMap<Id, (Name, AbortHandle)> = HashMap::new();
        let mut shards = self.shards.clone();
        let mut healing = JoinSet::new();
        let mut looks = tokio::time::interval(ORPHANED);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.take_everything_in();
        loop {
            self.queue.advance(Instant::now());
            while let Some((name, read)) = self.queue.pop() {
                if let Some(ended) = self.without_a_run(&name, read) {
                    self.queue.ended(&name, ended, Instant::now(), 1.0);
                    continue;
                }
                let polls = self.polls.get(&name).copied().unwrap_or(0);
                let task = runs.spawn(run(self.cluster.clone(), name.clone(), self.role, polls));
                names.insert(task.id(), (name, task));
            }
            let (waiting, running) = self.queue.load();
            self.cluster.inner.metrics.driver(waiting, running);
            let due = self.queue.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(ended) = runs.join_next_with_id() => {
                    let (id, run) = match ended {
                        Ok((id, run)) => (id, run),
                        // It was dropped with its shard.
                        Err(error) if error.is_cancelled() => (error.id(), Run::ended(Ended::Settled, false)),
                        Err(error) => {
                            tracing::error!(%error, "a run of the driver did not end as it should");
                            (error.id(), Run::ended(Ended::Failed { urgent: false }, false))
                        }
                    };
                    if let Some((name, _)) = names.remove(&id) {
                        self.ended(&name, run);
                    }
                }
                () = changed(&mut shards) => {
                    for (name, run) in names.values() {
                        if !self.holds(&name.0) {
                            run.abort();
                        }
                    }
                    self.take_everything_in();
                }
                Some(_) = healing.join_next() => {}
                _ = looks.tick(), if self.role == Role::Leader && healing.is_empty() => {
                    let orphans = self.new_orphans();
                    if !orphans.is_empty() {
                        healing.spawn(heal(self.cluster.clone(), orphans));
                    }
                }
                poke = pokes.recv() => match poke {
                    Ok(poke) => self.poked(poke),
                    Err(RecvError::Lagged(_)) => self.take_everything_in(),
                    Err(RecvError::Closed) => return,
                },
                change = changes.recv() => match change {
                    Ok(change) => self.changed(&change),
                    Err(RecvError::Lagged(_)) => self.take_everything_in(),
                    Err(RecvError::Closed) => return,
                },
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// Services that were parked for nobody at the last look already: a Sleeper that was removed by force is often created anew, and
    /// then goes on where it was.
    fn new_orphans(&mut self) -> Vec<Name> {
        let orphans = self.cluster.orphans().into_iter();
        let now: HashSet<Name> = orphans.filter(|(namespace, _)| self.holds(namespace)).collect();
        let before = std::mem::replace(&mut self.orphans, now);
        self.orphans.intersection(&before).cloned().collect()
    }

    fn poked(&mut self, poke: Poke) {
        if !self.holds(&poke.name.0) {
            return;
        }
        let after = if poke.moved {
            Duration::ZERO
        } else {
            self.head_start(&poke.name)
        };
        // The caches do not show yet what was just written.
        let touch = Touch {
            urgent: true,
            hopeful: true,
            after,
            read: true,
        };
        self.queue.touch(&poke.name, touch, Instant::now());
        if poke.moved {
            self.moved.insert(poke.name);
        }
    }

    /// How long a wake is left to others.
    fn head_start(&self, name: &Name) -> Duration {
        if self.moved.contains(name) {
            Duration::ZERO
        } else {
            HEAD_START
        }
    }

    fn ended(&mut self, name: &Name, run: Run) {
        let is_wake = || {
            let known = self.cluster.sleeper_named(&name.0, &name.1);
            known.is_some_and(|sleeper| is_urgent(&sleeper))
        };
        match run.known {
            Some(known) if self.cluster.sleeper_named(&name.0, &name.1).is_some() => {
                self.known.insert(name.clone(), known);
            }
            _ => {
                self.known.remove(name);
            }
        }
        if run.moved && is_wake() {
            self.moved.insert(name.clone());
        }
        if run.polling {
            *self.polls.entry(name.clone()).or_default() += 1;
        } else {
            self.polls.remove(name);
        }
        self.queue
            .ended(name, run.ended, Instant::now(), rand::random_range(0.8..1.2));
    }

    fn take_everything_in(&mut self) {
        self.index = Index::default();
        for sleeper in self.cluster.sleepers() {
            let name = name_of(&sleeper);
            self.index.update(&name, Some(&sleeper));
            self.select(&name);
            self.touch(&name, Some(&sleeper), true, true);
            self.look_once(&name, &sleeper);
        }
    }

    /// Looks at a Sleeper soon, if it is anything for this driver. `read`: caches do not show what happened.
    fn touch(&mut self, name: &Name, known: Option<&Sleeper>, hopeful: bool, read: bool) {
        let Some(sleeper) = known else { return };
        let urgent = is_urgent(sleeper);
        if !urgent {
            self.moved.remove(name);
            self.progress.remove(name);
        }
        if self.holds(&name.0) && (wants(sleeper, self.role) || self.has_leftovers(sleeper)) {
            let after = match self.role {
                _ if urgent => self.head_start(name),
                Role::Leader => Duration::ZERO,
                // Replicas of the DLX would all see the same at once.
                Role::Waker => LEADERS_HEAD_START.mul_f64(rand::random_range(1.0..3.0)),
            };
            let touch = Touch {
                urgent,
                hopeful,
                after,
                read,
            };
            self.queue.touch(name, touch, Instant::now());
        } else {
            self.known.remove(name);
        }
    }

    /// Looks at a Sleeper that was just created: it may take the place of one that was lost while its workload slept, and
    /// nothing but the workload itself would tell.
    fn look_once(&mut self, name: &Name, sleeper: &Sleeper) {
        let created = sleeper.creation_timestamp().map(|time| time.0);
        let young = created.is_some_and(|created| span(created, self.cluster.now()) < YOUNG);
        if self.role == Role::Leader && young && self.holds(&name.0) {
            let touch = Touch {
                urgent: false,
                hopeful: true,
                after: Duration::ZERO,
                read: true,
            };
            self.queue.touch(name, touch, Instant::now());
        }
    }

    fn touch_all(&mut self, names: Vec<Name>) {
        for name in names {
            let known = self.cluster.sleeper_named(&name.0, &name.1);
            self.touch(&name, known.as_deref(), true, false);
        }
    }

    /// How a run would end, where that is known without one: nothing is asked of the API server. `read`: caches do not show what
    /// happened.
    fn without_a_run(&self, name: &Name, read: bool) -> Option<Ended> {
        if self.is_left_alone(name) || !self.holds(&name.0) {
            return Some(Ended::Settled);
        }
        if let Some(progress) = self.progress.get(name).filter(|_| !self.moved.contains(name)) {
            // Another process carries it out, and goes on.
            let rest = HEAD_START.saturating_sub(progress.elapsed());
            if !rest.is_zero() {
                return Some(Ended::Again(rest));
            }
        }
        let known = self.known.get(name).filter(|_| !read)?;
        let looked = nothing_to_do(&self.cluster, &name.0, &name.1, self.role, known)?;
        let RoundOutcome::Waiting { reason, until } = &looked.outcome else {
            return None;
        };
        let (pause, polling) = pause(&self.cluster, self.role, &looked, reason, *until, 0);
        (!polling).then(|| pause.map_or(Ended::Settled, Ended::Again))
    }

    /// Whether it sleeps, or is on the way there, and its Services lead to no DLX that is gone: nothing more is asked of
    /// who does not lead, and there may be many. From the reflectors: no request is made.
    fn is_left_alone(&self, name: &Name) -> bool {
        let known = self.cluster.sleeper_named(&name.0, &name.1);
        let Some(sleeper) = known.filter(|_| self.role == Role::Waker && !self.moved.contains(name)) else {
            return false;
        };
        let wish = sleeper.status.as_ref().map(|status| status.state.wish);
        let ready = self.cluster.dlx_endpoints().addresses;
        !matches!(wish, None | Some(Wish::Awake))
            && !sleeper.spec.services.iter().any(|service| {
                let own = self.cluster.own_slice(&name.0, service);
                own.is_some_and(|own| leads_astray(&own, &ready))
            })
    }

    /// Whether a Service of an awake Sleeper still shows Dormouse's hand: something came too late, and has to be put right.
    fn has_leftovers(&self, sleeper: &Sleeper) -> bool {
        let namespace = sleeper.namespace().unwrap_or_default();
        sleeper.spec.services.iter().any(|service| {
            let known = self.cluster.service(&namespace, service);
            let own = self.cluster.own_slice(&namespace, service);
            let touched = own.is_some() || known.as_ref().is_some_and(|service| is_parked(service));
            // What another Sleeper has its hands on is no leftover.
            touched
                && self
                    .cluster
                    .holder(sleeper, service, known.as_deref(), own.as_deref())
                    .is_none()
        })
    }

    fn changed(&mut self, change: &Change) {
        let is_dlx = self
            .cluster
            .config()
            .dlx_service
            .as_ref()
            .is_some_and(|(namespace, name)| *namespace == change.namespace && *name == change.name);
        match change.kind {
            SLEEPER => {
                let name = (change.namespace.clone(), change.name.clone());
                let known = self.cluster.sleeper_named(&name.0, &name.1);
                let new = !self.index.knows(&name);
                let before = self.index.sharers(&name);
                self.index.update(&name, known.as_deref());
                self.select(&name);
                // What is theirs may have changed with it.
                let mut sharers = self.index.sharers(&name);
                sharers.extend(before);
                self.touch_all(sharers.into_iter().filter(|other| *other != name).collect());
                if known.as_ref().is_some_and(|sleeper| is_urgent(sleeper)) && !self.moved.contains(&name) {
                    self.progress.insert(name.clone(), Instant::now());
                }
                if known.is_none() {
                    self.known.remove(&name);
                    self.progress.remove(&name);
                    self.polls.remove(&name);
                    self.moved.remove(&name);
                    self.queue.forget(&name);
                    let now = self.cluster.now();
                    self.cluster.inner.unanswered.update(name.clone(), false, now);
                }
                self.touch(&name, known.as_deref(), false, false);
                if let Some(sleeper) = known.filter(|_| new) {
                    self.look_once(&name, &sleeper);
                }
            }
            WatchedKind::SERVICE | WatchedKind::ENDPOINT_SLICE if is_dlx => {
                // Notices an absence when it begins.
                self.cluster.dlx_endpoints();
                let diverted = self.index.active();
                self.touch_all(diverted);
            }
            WatchedKind::SERVICE | WatchedKind::ENDPOINT_SLICE => {
                // One of Dormouse's whose label somebody took away still tells by its name.
                let own = service_of_own(&change.name).filter(|_| change.kind == WatchedKind::ENDPOINT_SLICE);
                for service in own.iter().chain([&change.name]) {
                    let names = self.index.of_service(&change.namespace, service);
                    if change.kind == WatchedKind::SERVICE {
                        names.iter().for_each(|name| self.select(name));
                    }
                    self.touch_all(names);
                }
            }
            WatchedKind::POD => {
                let Some(labels) = &change.labels else { return };
                let names = self.index.of_pod(&change.namespace, labels);
                for name in names {
                    let known = self.cluster.sleeper_named(&name.0, &name.1);
                    let read = known
                        .as_ref()
                        .is_some_and(|sleeper| self.may_be_scaled(sleeper, change));
                    self.touch(&name, known.as_deref(), true, read);
                }
            }
            _ => {}
        }
    }

    /// Whether a pod that came or went may mean that its workload was scaled by somebody else, which no cache shows.
    fn may_be_scaled(&self, sleeper: &Sleeper, pod: &Change) -> bool {
        let found = self.cluster.caches().pods.get(&pod.namespace, &pod.name);
        let lives = found.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
        match sleeper.phase() {
            // To zero.
            Phase::Diverting | Phase::Observing => true,
            // From zero.
            Phase::Draining | Phase::Asleep => lives,
            Phase::Awake | Phase::Waking | Phase::Ready => !is_urgent(sleeper),
        }
    }

    /// Notes which pods matter to a Sleeper: those of a wake, and while diverted those that tell of a scale-up by somebody else, or of
    /// other workloads behind its Services.
    fn select(&mut self, name: &Name) {
        let known = self.cluster.sleeper_named(&name.0, &name.1);
        let minding = known.filter(|sleeper| {
            let phase = sleeper.phase();
            let bare = sleeper.spec.services.is_empty();
            phase != Phase::Awake && (!bare || matches!(phase, Phase::Waking | Phase::Ready | Phase::Asleep))
        });
        let selectors = minding.map(|sleeper| {
            let services = sleeper.spec.services.iter();
            services
                .filter_map(|service| self.cluster.service(&name.0, service))
                .filter_map(|service| original_selector(&service).ok().flatten())
                .collect()
        });
        self.index.select(name, selectors);
    }
}

/// Undoes what Sleepers that are gone have left. What fails is tried again at the next look.
async fn heal(cluster: Cluster, orphans: Vec<Name>) {
    for (namespace, service) in orphans {
        let patience = cluster.config().request_timeout * 4;
        match tokio::time::timeout(patience, cluster.heal_orphan(&namespace, &service)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(namespace, service, %error, "a Service that is parked for nobody was not restored");
            }
            Err(_) => tracing::warn!(
                namespace,
                service,
                "a Service that is parked for nobody was not restored in time"
            ),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Rounds for one Sleeper until there is nothing to do for now.
async fn run(cluster: Cluster, name: Name, role: Role, polls: u32) -> Run {
    // Every request has its deadline; this one is for the sum of them.
    let patience = cluster.config().request_timeout * 8;
    match tokio::time::timeout(patience, rounds(&cluster, &name, role, polls)).await {
        Ok(Ok(run)) => run,
        Ok(Err(error)) => {
            cluster.inner.metrics.error(error.label());
            tracing::warn!(namespace = name.0, sleeper = name.1, %error, "a round failed, trying again");
            failed(&cluster, &name)
        }
        Err(_) => {
            cluster.inner.metrics.error("timeout");
            tracing::warn!(
                namespace = name.0,
                sleeper = name.1,
                "a round took too long, trying again"
            );
            failed(&cluster, &name)
        }
    }
}

fn failed(cluster: &Cluster, name: &Name) -> Run {
    let urgent = cluster
        .sleeper_named(&name.0, &name.1)
        .is_some_and(|sleeper| is_urgent(&sleeper));
    Run::ended(Ended::Failed { urgent }, false)
}

async fn rounds(cluster: &Cluster, name: &Name, role: Role, polls: u32) -> Result<Run, ClusterError> {
    let mut conflicts = 0_u32;
    let mut moved = false;
    let mut earlier = None;
    for _ in 0..ROUNDS {
        let again = match earlier.take() {
            Some(seen) => act_again(cluster, seen, role).await?,
            None => None,
        };
        let looked = match again {
            Some(looked) => looked,
            None => look_and_act(cluster, &name.0, &name.1, role, usize::MAX).await?,
        };
        match looked.outcome {
            RoundOutcome::Gone => return Ok(Run::ended(Ended::Gone, moved)),
            RoundOutcome::NotOurs => return Ok(Run::ended(Ended::Settled, moved)),
            RoundOutcome::Acted { .. } => {
                (conflicts, moved) = (0, true);
                earlier = looked.seen;
            }
            RoundOutcome::Conflicted { .. } => {
                // Somebody else is at work on it too. Let one of us be first.
                tokio::time::sleep(CONFLICTS.jittered(conflicts)).await;
                conflicts += 1;
            }
            RoundOutcome::Waiting { ref reason, until } => {
                let (pause, polling) = pause(cluster, role, &looked, reason, until, polls);
                return Ok(Run {
                    ended: pause.map_or(Ended::Settled, Ended::Again),
                    polling,
                    moved,
                    known: looked.seen.map(|seen| seen.remembered()),
                });
            }
        }
    }
    Ok(Run::ended(Ended::Again(Duration::ZERO), moved))
}

/// From one moment to a later one.
fn span(now: Timestamp, moment: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}

/// When to look again even if nothing was seen to change, and whether that is polling, for want of anything that tells.
fn pause(
    cluster: &Cluster,
    role: Role,
    looked: &Looked,
    reason: &WaitReason,
    until: Option<Timestamp>,
    polls: u32,
) -> (Option<Duration>, bool) {
    let poll = POLLS.after(polls);
    let (pause, polling) = match reason {
        WaitReason::Probe(_) | WaitReason::DemandUnknown => (Some(poll), true),
        WaitReason::NoReadyPod if looked.undecided => (Some(poll), true),
        WaitReason::NoReadyPod
        | WaitReason::NotListed
        | WaitReason::EndpointsLeaving
        | WaitReason::Held(_) => (Some(MISSED), false),
        WaitReason::Grace | WaitReason::CatchingUp | WaitReason::Lost => (None, false),
        // A DLX that becomes ready is seen at once.
        WaitReason::NoDlx => (Some(spread(RECHECK)), false),
        WaitReason::Settled => match (role, looked.phase) {
            (Role::Leader, Phase::Asleep | Phase::Observing) => (Some(spread(RECHECK)), false),
            _ => (None, false),
        },
    };
    let until = until.map(|moment| span(cluster.now(), moment));
    let pause = match (pause, until) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
    (pause, polling)
}

/// Not all at the same moment.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}
