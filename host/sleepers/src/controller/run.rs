//! One run of the controller: reconciles one Sleeper until there is nothing to do for now.

use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{Backoff, ClusterError};
use dormouse_lifecycle::WaitReason;
use dormouse_model::Phase;
use jiff::Timestamp;

use super::index::{Name, is_urgent};
use super::queue::RunOutcome;
use crate::Metrics;
use crate::caches::Caches;
use crate::observed::Uncached;
use crate::reconciler::{ReconcileOutcome, Reconciled, Reconciler};
use crate::role::Role;

/// Reconciliations in one run before other Sleepers get their turn.
const RECONCILIATIONS: usize = 32;
/// Settled Sleepers are reconciled this often even if no change was seen. What matters is watched: Sleepers, Services, slices and
/// pods, so a scale-up by somebody else that brings a pod is seen at once. This is for one that brings none.
const RESYNC: Duration = Duration::from_secs(60 * 60);
/// Pauses where no watch tells when to reconcile again.
const POLLS: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
/// Pauses after losing a write.
const CONFLICTS: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(250));
/// Where a watch tells, reconcile all the same after this time, should its event have been missed.
const MISSED: Duration = Duration::from_secs(5);

/// How a run ended, and what it found out.
pub(super) struct Run {
    pub(super) outcome: RunOutcome,
    /// It waits for something that no watch tells.
    pub(super) polling: bool,
    /// It executed a step.
    pub(super) moved: bool,
    pub(super) uncached: Option<Uncached>,
}

impl Run {
    /// A run that ended so, and found out nothing more.
    pub(super) fn ended(outcome: RunOutcome, moved: bool) -> Self {
        Self {
            outcome,
            polling: false,
            moved,
            uncached: None,
        }
    }
}

/// Carries runs out. Cheap to clone.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) caches: Arc<Caches>,
    pub(super) metrics: Metrics,
    pub(super) role: Role,
    /// Longest time for one run.
    pub(super) timeout: Duration,
}

impl Worker {
    /// Reconciles a Sleeper until it settles, has to wait, or other Sleepers get their turn. `polls`: how often in a row it has been
    /// polled before.
    pub(super) async fn run(self, name: Name, polls: u32) -> Run {
        match tokio::time::timeout(self.timeout, self.reconcile(&name, polls)).await {
            Ok(Ok(run)) => run,
            Ok(Err(error)) => {
                self.metrics.error(error.label());
                tracing::warn!(namespace = name.0, sleeper = name.1, %error, "a round failed, trying again");
                self.failed(&name)
            }
            Err(_) => {
                self.metrics.error("timeout");
                tracing::warn!(
                    namespace = name.0,
                    sleeper = name.1,
                    "a round took too long, trying again"
                );
                self.failed(&name)
            }
        }
    }

    fn failed(&self, name: &Name) -> Run {
        let known = self.caches.sleepers.get(&name.0, &name.1);
        let urgent = known.is_some_and(|sleeper| is_urgent(&sleeper));
        Run::ended(RunOutcome::Failed { urgent }, false)
    }

    async fn reconcile(&self, name: &Name, polls: u32) -> Result<Run, ClusterError> {
        let mut conflicts = 0_u32;
        let mut moved = false;
        let mut written = None;
        for _ in 0..RECONCILIATIONS {
            let further = match written.take() {
                Some(observed) => self.reconciler.reconcile_after_write(observed, self.role).await?,
                None => None,
            };
            let reconciled = match further {
                Some(reconciled) => reconciled,
                None => {
                    self.reconciler
                        .reconcile_named(&name.0, &name.1, self.role, usize::MAX)
                        .await?
                }
            };
            match reconciled.outcome {
                ReconcileOutcome::Gone => return Ok(Run::ended(RunOutcome::Gone, moved)),
                ReconcileOutcome::NotOurs => return Ok(Run::ended(RunOutcome::Settled, moved)),
                ReconcileOutcome::Acted { .. } => {
                    (conflicts, moved) = (0, true);
                    written = reconciled.observed;
                }
                ReconcileOutcome::Conflicted { .. } => {
                    // Another process writes it too. The jitter lets one of them be first.
                    tokio::time::sleep(CONFLICTS.jittered(conflicts)).await;
                    conflicts += 1;
                }
                ReconcileOutcome::Waiting { ref reason, until } => {
                    let (pause, polling) = pause(self.role, &reconciled, reason, until, polls);
                    return Ok(Run {
                        outcome: pause.map_or(RunOutcome::Settled, RunOutcome::RequeueAfter),
                        polling,
                        moved,
                        uncached: reconciled.observed.map(|observed| observed.uncached()),
                    });
                }
            }
        }
        Ok(Run::ended(RunOutcome::RequeueAfter(Duration::ZERO), moved))
    }
}

/// When to reconcile again even if no change was seen, and whether that is polling, where no watch tells.
pub(super) fn pause(
    role: Role,
    reconciled: &Reconciled,
    reason: &WaitReason,
    until: Option<Timestamp>,
    polls: u32,
) -> (Option<Duration>, bool) {
    let poll = POLLS.after(polls);
    let (pause, polling) = match reason {
        WaitReason::Probe(_) | WaitReason::DemandUnknown => (Some(poll), true),
        WaitReason::NoReadyPod if reconciled.undecided => (Some(poll), true),
        WaitReason::NoReadyPod
        | WaitReason::NotListed
        | WaitReason::EndpointsLeaving
        | WaitReason::Held(_) => (Some(MISSED), false),
        WaitReason::Grace | WaitReason::CatchingUp | WaitReason::PodsLeaving | WaitReason::Lost => {
            (None, false)
        }
        // A DLX that becomes ready is seen at once.
        WaitReason::NoDlx => (Some(spread(RESYNC)), false),
        WaitReason::Settled => match (role, reconciled.phase) {
            (Role::Leader, Phase::Asleep | Phase::Observing) => (Some(spread(RESYNC)), false),
            _ => (None, false),
        },
    };
    let until = until.map(|moment| span(Timestamp::now(), moment));
    let pause = match (pause, until) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
    (pause, polling)
}

/// From one moment to a later one.
pub(super) fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Jitter, so that many Sleepers are not due at the same moment.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}
