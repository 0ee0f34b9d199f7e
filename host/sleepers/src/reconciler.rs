//! Reconciles one Sleeper, once: observe, ask the protocol, execute its steps.

use std::sync::Arc;

use dormouse_kubernetes::{ClusterError, EventType, Outages};
use dormouse_lifecycle::{DesiredState, Next, Step, Timings, WaitReason, next};
use dormouse_model::Phase;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::SleeperKey;
use crate::api::{Sleeper, condition};
use crate::caches::Caches;
use crate::conditions::ConditionUpdate;
use crate::events::SleeperEvents;
use crate::executor::{Executor, StepOutcome};
use crate::observed::{Observed, Uncached};
use crate::observer::Observer;
use crate::role::Role;
use crate::slices::is_stale;
use crate::status::StatusRecorder;
use crate::writer::SleeperWriter;

/// How a reconciliation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileOutcome {
    /// There is no such Sleeper.
    Gone,
    /// The Sleeper is nothing for this role, or is scaled by its platform.
    NotOurs,
    /// Steps were executed. Reconcile again.
    Acted {
        /// How many.
        steps: usize,
    },
    /// Something changed in between. Reconcile again.
    Conflicted {
        /// How many steps were executed before.
        steps: usize,
    },
    /// Nothing to do for now.
    Waiting {
        /// Why.
        reason: WaitReason,
        /// When to reconcile again even if no change was seen.
        until: Option<Timestamp>,
    },
}

/// How a reconciliation ended, and what the controller needs to know beyond that.
pub(crate) struct Reconciled {
    pub(crate) outcome: ReconcileOutcome,
    pub(crate) phase: Phase,
    /// No watch tells when to reconcile again, so do it soon.
    pub(crate) undecided: bool,
    /// What was observed and, since then, written. None: there is no such Sleeper.
    pub(crate) observed: Option<Box<Observed>>,
}

impl Reconciled {
    fn new(outcome: ReconcileOutcome, observed: Box<Observed>) -> Self {
        Self {
            outcome,
            phase: observed.observation.state.phase,
            undecided: observed.pods_undecided,
            observed: Some(observed),
        }
    }

    fn gone() -> Self {
        Self {
            outcome: ReconcileOutcome::Gone,
            phase: Phase::Awake,
            undecided: false,
            observed: None,
        }
    }
}

/// What follows from an observation.
enum Decided {
    /// There is nothing to do.
    Nothing(ReconcileOutcome),
    /// These are to be executed, in this order.
    Steps(Vec<Step>),
}

impl Decided {
    /// Whether a workload would lose its pods, or a Service its endpoints.
    fn removes(&self) -> bool {
        let Self::Steps(steps) = self else { return false };
        steps
            .iter()
            .any(|step| matches!(step, Step::Scale(_, 0) | Step::DeleteSlice(_)))
    }
}

/// Reconciles Sleepers.
pub struct Reconciler {
    pub(crate) caches: Arc<Caches>,
    pub(crate) sleepers: SleeperWriter,
    pub(crate) observer: Observer,
    pub(crate) executor: Executor,
    pub(crate) status: StatusRecorder,
    pub(crate) events: SleeperEvents,
    pub(crate) outages: Outages,
    pub(crate) timings: Timings,
}

impl Reconciler {
    /// Reconciles one Sleeper once: observe, [`dormouse_lifecycle::next`], execute at most `max_steps` steps. Stopping after any number
    /// of steps is as good as the process dying there: any process goes on when it reconciles the Sleeper again.
    ///
    /// # Errors
    /// What the API server says. Errors that do not pass by themselves are also recorded on the Sleeper.
    pub async fn reconcile(
        &self,
        key: &SleeperKey,
        role: Role,
        max_steps: usize,
    ) -> Result<ReconcileOutcome, ClusterError> {
        let name = key.object_name();
        let reconciled = self.reconcile_named(&key.namespace, &name, role, max_steps);
        reconciled.await.map(|reconciled| reconciled.outcome)
    }

    /// Observes everything anew, and acts on it.
    pub(crate) async fn reconcile_named(
        &self,
        namespace: &str,
        name: &str,
        role: Role,
        max_steps: usize,
    ) -> Result<Reconciled, ClusterError> {
        match self.observer.observe(namespace, name).await {
            Ok(observed) => {
                let decided = self.decide(&observed, role);
                self.act(Box::new(observed), decided, max_steps).await
            }
            Err(ClusterError::NotFound { .. }) => Ok(Reconciled::gone()),
            Err(error) => {
                if let Some(known) = self.caches.sleepers.get(namespace, name) {
                    self.record_error(&known, &error).await;
                }
                Err(error)
            }
        }
    }

    /// Acts on what was observed, and on what was written since then. None: what would come next takes something away, and may be
    /// decided only on what is read anew.
    pub(crate) async fn reconcile_after_write(
        &self,
        observed: Box<Observed>,
        role: Role,
    ) -> Result<Option<Reconciled>, ClusterError> {
        let observed = Box::new(self.observer.observe_after_write(*observed).await?);
        let decided = self.decide(&observed, role);
        if decided.removes() {
            return Ok(None);
        }
        self.act(observed, decided, usize::MAX).await.map(Some)
    }

    /// The outcome, if the caches are enough to know that there is nothing to do. It makes no request.
    pub(crate) fn reconcile_cached(
        &self,
        namespace: &str,
        name: &str,
        role: Role,
        known: &Uncached,
    ) -> Option<Reconciled> {
        let observed = Box::new(self.observer.observe_caches(namespace, name, known)?);
        if !is_for(&observed, role) {
            return None;
        }
        match next(observed.observation(), &self.timings) {
            // The leader publishes an Event about an outage, which is more than nothing.
            Next::Wait {
                reason: WaitReason::CatchingUp,
                ..
            }
            | Next::Act(_) => None,
            Next::Wait { reason, until } => {
                let outcome = ReconcileOutcome::Waiting { reason, until };
                Some(Reconciled::new(outcome, observed))
            }
        }
    }

    /// Forgets a Sleeper that is gone.
    pub(crate) fn forget(&self, name: &(String, String)) {
        self.observer.forget(name);
    }

    fn decide(&self, observed: &Observed, role: Role) -> Decided {
        let is_ours = is_for(observed, role);
        if !is_ours && !self.has_stale_slice(observed) {
            return Decided::Nothing(ReconcileOutcome::NotOurs);
        }
        let mut steps = match next(observed.observation(), &self.timings) {
            Next::Wait { reason, until } => {
                if let (WaitReason::CatchingUp, Role::Leader, Some(until)) = (&reason, role, until) {
                    self.publish_outage(observed.sleeper(), until);
                }
                return Decided::Nothing(ReconcileOutcome::Waiting { reason, until });
            }
            Next::Act(steps) => steps,
        };
        if !is_ours {
            // Perhaps there is no leader. The slices that clients depend on are repaired all the same, and nothing else is done.
            steps.retain(|step| matches!(step, Step::WriteSlice(_)));
            if steps.is_empty() {
                return Decided::Nothing(ReconcileOutcome::NotOurs);
            }
        }
        Decided::Steps(steps)
    }

    /// Executes what was decided, at most `max_steps` of it.
    async fn act(
        &self,
        mut observed: Box<Observed>,
        decided: Decided,
        max_steps: usize,
    ) -> Result<Reconciled, ClusterError> {
        let steps = match decided {
            Decided::Nothing(outcome) => return Ok(Reconciled::new(outcome, observed)),
            Decided::Steps(steps) => steps,
        };
        let mut done = 0;
        for step in steps.iter().take(max_steps) {
            let is_too_old = observed.read.elapsed() > self.timings.decision_limit;
            if is_too_old || self.outages.last() != observed.observation().last_outage {
                // This process was stopped meanwhile; or nodes may not know of what this was decided on.
                let outcome = ReconcileOutcome::Conflicted { steps: done };
                return Ok(Reconciled::new(outcome, observed));
            }
            match self.executor.execute(&mut observed, step).await {
                Ok(StepOutcome::Done) => done += 1,
                Ok(StepOutcome::Conflicted) => {
                    let outcome = ReconcileOutcome::Conflicted { steps: done };
                    return Ok(Reconciled::new(outcome, observed));
                }
                Err(error) => {
                    self.record_error(observed.sleeper(), &error).await;
                    return Err(error);
                }
            }
        }
        Ok(Reconciled::new(ReconcileOutcome::Acted { steps: done }, observed))
    }

    /// Whether a Service leads to a DLX that is gone, although another is ready. Only if its slice is the one that the cache shows: a
    /// younger one may know of a DLX that the cache does not show yet.
    fn has_stale_slice(&self, observed: &Observed) -> bool {
        let (namespace, observation) = (observed.namespace(), observed.observation());
        observation.state.phase.is_away()
            && !observation.deleting
            && observed.objects.services.iter().any(|(service, found)| {
                let known = self.caches.own_slice(&namespace, service);
                let (Some(own), Some(known)) = (&found.own, known) else {
                    return false;
                };
                own.resource_version() == known.resource_version() && is_stale(own, &observation.dlx.ready)
            })
    }

    /// Publishes why the protocol waits although nothing seems to be in its way. Only the leader knows of outages for certain.
    fn publish_outage(&self, sleeper: &Sleeper, until: Timestamp) {
        let message = format!(
            "the API server was away: nothing that nodes may still lead to is taken away before {until:.0}"
        );
        self.events
            .publish(sleeper, EventType::Normal, "NodesCatchingUp", &message);
    }

    /// Records an error that does not pass by itself on the Sleeper.
    async fn record_error(&self, sleeper: &Sleeper, error: &ClusterError) {
        if error.is_transient() {
            return;
        }
        let (key, message) = (SleeperKey::of(sleeper), error.to_string());
        // What was read may be from before the wake that failed, and the requests that wait for that wake need the error.
        let fresh = self
            .sleepers
            .fetch(&key.namespace, &sleeper.name_any())
            .await
            .ok();
        let status = fresh.as_ref().unwrap_or(sleeper).status.clone();
        let state = status.unwrap_or_default().state;
        let recorded = if state.phase == Phase::Waking {
            self.status.record_wake_failure(&key, state.epoch, &message).await
        } else {
            let update = ConditionUpdate::bad(condition::DIVERTIBLE, "StepFailed", &message);
            self.status.record(&key, &update.into()).await
        };
        if let Err(unrecorded) = recorded {
            tracing::warn!(sleeper = sleeper.name_any(), %error, %unrecorded, "an error could not be recorded");
        }
    }
}

/// Whether a process of this role reconciles what was observed.
fn is_for(observed: &Observed, role: Role) -> bool {
    let observation = observed.observation();
    if observation.deleting {
        return role == Role::Leader;
    }
    if observation.workloads.is_empty() && observation.services.is_empty() {
        return false;
    }
    role == Role::Leader || observation.state.desired == DesiredState::Awake
}
