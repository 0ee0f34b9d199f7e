//! The controller of Sleepers: reconciles each of them whenever something changes that concerns it.

mod index;
mod queue;
mod run;
mod schedule;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::Signals;
use dormouse_model::Shards;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::index::Name;
use self::queue::RunOutcome;
use self::run::{Run, Worker};
use self::schedule::Schedule;
use crate::Metrics;
use crate::caches::Caches;
use crate::dlx::DlxReplicas;
use crate::orphans::Orphans;
use crate::ownership::Ownership;
use crate::reconciler::Reconciler;
use crate::requeue::Requeues;
use crate::role::Role;

/// How often orphaned Services are looked for. They are restored when they are found the second time.
const ORPHAN_CHECK: Duration = Duration::from_secs(3);

/// Reconciles Sleepers, event by event. Never two runs for one Sleeper at once; wakes first; one that fails delays no other.
pub struct Controller {
    schedule: Schedule,
    worker: Worker,
    role: Role,
    orphans: Arc<Orphans>,
    /// Services that were orphaned at the last check.
    orphaned: HashSet<Name>,
    signals: Signals,
    requeues: Requeues,
    metrics: Metrics,
    request_timeout: Duration,
}

/// What a [`Controller`] is made of.
pub(crate) struct ControllerParts {
    pub(crate) caches: Arc<Caches>,
    pub(crate) dlx: DlxReplicas,
    pub(crate) ownership: Ownership,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) signals: Signals,
    pub(crate) requeues: Requeues,
    pub(crate) metrics: Metrics,
    /// Deadline of each single request to the API server.
    pub(crate) request_timeout: Duration,
}

/// The runs that are under way.
#[derive(Default)]
struct Runs {
    tasks: JoinSet<Run>,
    names: HashMap<Id, (Name, AbortHandle)>,
}

impl Controller {
    pub(crate) fn new(parts: ControllerParts, role: Role) -> Self {
        let worker = Worker {
            reconciler: Arc::clone(&parts.reconciler),
            caches: Arc::clone(&parts.caches),
            metrics: parts.metrics.clone(),
            role,
            // Every request has its deadline; this one is for the sum of them.
            timeout: parts.request_timeout * 8,
        };
        Self {
            schedule: Schedule::new(parts.caches, parts.dlx, parts.ownership, parts.reconciler, role),
            worker,
            role,
            orphans: parts.orphans,
            orphaned: HashSet::new(),
            signals: parts.signals,
            requeues: parts.requeues,
            metrics: parts.metrics,
            request_timeout: parts.request_timeout,
        }
    }

    /// Reconciles only Sleepers in namespaces of these shards, as they change. Runs for a shard that was lost are dropped.
    #[must_use]
    pub fn with_shards(mut self, shards: watch::Receiver<Shards>) -> Self {
        self.schedule.shards = Some(shards);
        self
    }

    /// Works until `shutdown`. Runs that are under way are then dropped where they stand: the next reconciliation, by any process,
    /// goes on.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = self.signals.changes();
        let mut requeues = self.requeues.subscribe();
        let mut shards = self.schedule.shards.clone();
        let mut runs = Runs::default();
        let mut restoring = JoinSet::new();
        let mut orphan_checks = tokio::time::interval(ORPHAN_CHECK);
        orphan_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.schedule.add_all();
        loop {
            self.schedule.advance();
            self.start_runs(&mut runs);
            let (waiting, running) = self.schedule.load();
            self.metrics.controller(waiting, running);
            let due = self.schedule.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(ended) = runs.tasks.join_next_with_id() => self.end_run(&mut runs, ended),
                () = changed(&mut shards) => {
                    for (name, run) in runs.names.values() {
                        if !self.schedule.holds(&name.0) {
                            run.abort();
                        }
                    }
                    self.schedule.add_all();
                }
                Some(_) = restoring.join_next() => {}
                _ = orphan_checks.tick(), if self.role == Role::Leader && restoring.is_empty() => {
                    let orphans = self.confirmed_orphans();
                    if !orphans.is_empty() {
                        restoring.spawn(restore(Arc::clone(&self.orphans), orphans, self.request_timeout * 4));
                    }
                }
                requeue = requeues.recv() => match requeue {
                    Ok(requeue) => self.schedule.requeue(requeue),
                    Err(RecvError::Lagged(_)) => self.schedule.add_all(),
                    Err(RecvError::Closed) => return,
                },
                change = changes.recv() => match change {
                    Ok(change) => self.schedule.changed(&change),
                    Err(RecvError::Lagged(_)) => self.schedule.add_all(),
                    Err(RecvError::Closed) => return,
                },
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// Starts runs for as many Sleepers as there are places.
    fn start_runs(&mut self, runs: &mut Runs) {
        while let Some((name, polls)) = self.schedule.pop() {
            let task = runs.tasks.spawn(self.worker.clone().run(name.clone(), polls));
            runs.names.insert(task.id(), (name, task));
        }
    }

    fn end_run(&mut self, runs: &mut Runs, ended: Result<(Id, Run), JoinError>) {
        let (id, run) = match ended {
            Ok((id, run)) => (id, run),
            // It was dropped with its shard.
            Err(error) if error.is_cancelled() => (error.id(), Run::ended(RunOutcome::Settled, false)),
            Err(error) => {
                tracing::error!(%error, "a run of the controller did not end as it should");
                let failed = RunOutcome::Failed { urgent: false };
                (error.id(), Run::ended(failed, false))
            }
        };
        if let Some((name, _)) = runs.names.remove(&id) {
            self.schedule.finish(&name, run);
        }
    }

    /// Services that were orphaned at the last check already: a Sleeper that was removed by force is often created anew, and then
    /// goes on where it was.
    fn confirmed_orphans(&mut self) -> Vec<Name> {
        let orphans = self.orphans.find().into_iter();
        let now: HashSet<Name> = orphans
            .filter(|(namespace, _)| self.schedule.holds(namespace))
            .collect();
        let before = std::mem::replace(&mut self.orphaned, now);
        self.orphaned.intersection(&before).cloned().collect()
    }
}

/// Restores orphaned Services. One that fails is tried again after the next check.
async fn restore(orphans: Arc<Orphans>, found: Vec<Name>, timeout: Duration) {
    for (namespace, service) in found {
        match tokio::time::timeout(timeout, orphans.restore(&namespace, &service)).await {
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

/// Waits until the shards change; for ever where there are none, or they never change again.
async fn changed(shards: &mut Option<watch::Receiver<Shards>>) {
    let changed = match shards {
        Some(shards) => shards.changed().await,
        None => std::future::pending().await,
    };
    if changed.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
