//! One bounded round for one Sleeper: observe, ask the protocol, carry out.

use dormouse_kubernetes::{ClusterError, EventType};
use dormouse_lifecycle::{Next, Step, WaitReason, Wish, next};
use dormouse_model::Phase;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{Sleeper, condition};
use crate::conditions::ConditionUpdate;
use crate::endpoints::leads_astray;
use crate::observe::Remembered;
use crate::role::Role;
use crate::{Carried, Cluster, Seen, SleeperKey};

/// What became of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundOutcome {
    /// There is no such Sleeper.
    Gone,
    /// The Sleeper is nothing for this role, or is scaled by its platform.
    NotOurs,
    /// Steps were carried out. Look again.
    Acted {
        /// How many.
        steps: usize,
    },
    /// Something changed in between. Look again.
    Conflicted {
        /// How many steps were carried out before.
        steps: usize,
    },
    /// Nothing to do for now.
    Waiting {
        /// Why.
        reason: WaitReason,
        /// When to look again even if nothing was seen to change.
        until: Option<Timestamp>,
    },
}

/// What the driver wants to know beyond the outcome.
pub(crate) struct Looked {
    pub(crate) outcome: RoundOutcome,
    pub(crate) phase: Phase,
    /// Nothing will tell when to look again, so look again soon.
    pub(crate) undecided: bool,
    /// What was seen and, since then, written. None: there is no such Sleeper.
    pub(crate) seen: Option<Box<Seen>>,
}

impl Looked {
    fn at(outcome: RoundOutcome, seen: Box<Seen>) -> Self {
        Self {
            outcome,
            phase: seen.observation.state.phase,
            undecided: seen.pods_undecided,
            seen: Some(seen),
        }
    }
}

/// One round for one Sleeper: observe, [`dormouse_lifecycle::next`], carry out at most `max_steps` steps. Stopping after any number
/// of steps is as good as the process dying there: another round, by anybody, goes on.
///
/// # Errors
/// What the API server says. Errors that do not pass by themselves are also recorded on the Sleeper.
pub async fn round(
    cluster: &Cluster,
    key: &SleeperKey,
    role: Role,
    max_steps: usize,
) -> Result<RoundOutcome, ClusterError> {
    look_and_act(cluster, &key.namespace, &key.object_name(), role, max_steps)
        .await
        .map(|looked| looked.outcome)
}

/// Reads everything anew, and acts on it.
pub(crate) async fn look_and_act(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    role: Role,
    max_steps: usize,
) -> Result<Looked, ClusterError> {
    match cluster.observe(namespace, name).await {
        Ok(seen) => {
            let decided = decide(cluster, &seen, role);
            act(cluster, Box::new(seen), decided, max_steps).await
        }
        Err(ClusterError::NotFound { .. }) => Ok(Looked {
            outcome: RoundOutcome::Gone,
            phase: Phase::Awake,
            undecided: false,
            seen: None,
        }),
        Err(error) => {
            if let Some(known) = cluster.sleeper_named(namespace, name) {
                report(cluster, &known, &error).await;
            }
            Err(error)
        }
    }
}

/// Acts on what was seen, and on what was written since then. None: what would come next takes something away, and may be decided
/// only on what is read anew.
pub(crate) async fn act_again(
    cluster: &Cluster,
    seen: Box<Seen>,
    role: Role,
) -> Result<Option<Looked>, ClusterError> {
    let seen = Box::new(cluster.observe_again(*seen).await?);
    let decided = decide(cluster, &seen, role);
    if decided.takes_away() {
        return Ok(None);
    }
    act(cluster, seen, decided, usize::MAX).await.map(Some)
}

/// What caches tell, if that is enough to know that there is nothing to do.
pub(crate) fn nothing_to_do(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    role: Role,
    known: &Remembered,
) -> Option<Looked> {
    let seen = Box::new(cluster.glance(namespace, name, known)?);
    if !is_ours(&seen, role) {
        return None;
    }
    match next(seen.observation(), &cluster.config().timings) {
        // Who leads tells of an outage, which is more than nothing.
        Next::Wait {
            reason: WaitReason::CatchingUp,
            ..
        }
        | Next::Act(_) => None,
        Next::Wait { reason, until } => Some(Looked::at(RoundOutcome::Waiting { reason, until }, seen)),
    }
}

/// What follows from what was seen.
enum Decided {
    /// There is nothing to do.
    Nothing(RoundOutcome),
    /// These are to be carried out, in this order.
    Steps(Vec<Step>),
}

impl Decided {
    /// Whether a workload would lose its pods, or a Service what it leads to.
    fn takes_away(&self) -> bool {
        let Self::Steps(steps) = self else { return false };
        steps
            .iter()
            .any(|step| matches!(step, Step::Scale(_, 0) | Step::DeleteSlice(_)))
    }
}

fn decide(cluster: &Cluster, seen: &Seen, role: Role) -> Decided {
    let ours = is_ours(seen, role);
    if !ours && !is_astray(cluster, seen) {
        return Decided::Nothing(RoundOutcome::NotOurs);
    }
    let mut steps = match next(seen.observation(), &cluster.config().timings) {
        Next::Wait { reason, until } => {
            if let (WaitReason::CatchingUp, Role::Leader, Some(until)) = (&reason, role, until) {
                tell_of_outage(cluster, seen.sleeper(), until);
            }
            return Decided::Nothing(RoundOutcome::Waiting { reason, until });
        }
        Next::Act(steps) => steps,
    };
    if !ours {
        // Nobody leads, perhaps. What a sleeper's clients reach is repaired all the same, and nothing else is done.
        steps.retain(|step| matches!(step, Step::WriteSlice(_)));
        if steps.is_empty() {
            return Decided::Nothing(RoundOutcome::NotOurs);
        }
    }
    Decided::Steps(steps)
}

/// Carries out what was decided, at most `max_steps` of it.
async fn act(
    cluster: &Cluster,
    mut seen: Box<Seen>,
    decided: Decided,
    max_steps: usize,
) -> Result<Looked, ClusterError> {
    let steps = match decided {
        Decided::Nothing(outcome) => return Ok(Looked::at(outcome, seen)),
        Decided::Steps(steps) => steps,
    };
    let mut done = 0;
    for step in steps.iter().take(max_steps) {
        let too_old = seen.read.elapsed() > cluster.config().timings.decision_limit;
        if too_old || cluster.outages().last() != seen.observation().last_outage {
            // This process was stopped meanwhile; or nodes may not hear of what this was decided on.
            return Ok(Looked::at(RoundOutcome::Conflicted { steps: done }, seen));
        }
        match cluster.carry_out(&mut seen, step).await {
            Ok(Carried::Done) => done += 1,
            Ok(Carried::Conflicted) => return Ok(Looked::at(RoundOutcome::Conflicted { steps: done }, seen)),
            Err(error) => {
                report(cluster, seen.sleeper(), &error).await;
                return Err(error);
            }
        }
    }
    Ok(Looked::at(RoundOutcome::Acted { steps: done }, seen))
}

fn is_ours(seen: &Seen, role: Role) -> bool {
    let observation = seen.observation();
    if observation.deleting {
        return role == Role::Leader;
    }
    if observation.workloads.is_empty() && observation.services.is_empty() {
        return false;
    }
    role == Role::Leader || observation.state.wish == Wish::Awake
}

/// Whether a Service leads to a DLX that is gone, although another is there. Only if its slice is the one that the
/// reflectors show: one that is younger may know of a DLX that they do not know yet.
fn is_astray(cluster: &Cluster, seen: &Seen) -> bool {
    let (namespace, observation) = (seen.sleeper().namespace().unwrap_or_default(), seen.observation());
    observation.state.phase.is_away()
        && !observation.deleting
        && seen.parts.services.iter().any(|(service, version)| {
            let known = cluster.own_slice(&namespace, service);
            let (Some(own), Some(known)) = (&version.own, known) else {
                return false;
            };
            own.resource_version() == known.resource_version() && leads_astray(own, &observation.dlx.ready)
        })
}

/// Why it does not go on, although nothing seems to be in its way. Only who leads knows of outages for certain.
fn tell_of_outage(cluster: &Cluster, sleeper: &Sleeper, until: Timestamp) {
    let message = format!(
        "the API server was away: nothing that nodes may still lead to is taken away before {until:.0}"
    );
    cluster.tell(sleeper, EventType::Normal, "NodesCatchingUp", &message);
}

/// Puts an error that does not pass by itself where people look.
async fn report(cluster: &Cluster, sleeper: &Sleeper, error: &ClusterError) {
    if error.is_transient() {
        return;
    }
    let (key, message) = (SleeperKey::of(sleeper), error.to_string());
    // What was read may be from before the wake that this is about, and whoever waits for that wake has to be told.
    let (namespace, name) = (&key.namespace, sleeper.name_any());
    let fresh = cluster.fetch(namespace, &name).await.ok();
    let status = fresh.as_ref().unwrap_or(sleeper).status.clone();
    let state = status.unwrap_or_default().state;
    let told = if state.phase == Phase::Waking {
        cluster.record_wake_failure(&key, state.epoch, &message).await
    } else {
        let update = ConditionUpdate::bad(condition::DIVERTIBLE, "StepFailed", &message);
        cluster.record_conditions(&key, &[update]).await
    };
    if let Err(unrecorded) = told {
        tracing::warn!(sleeper = sleeper.name_any(), %error, %unrecorded, "an error could not be recorded");
    }
}
