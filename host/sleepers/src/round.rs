//! One bounded round for one Sleeper: observe, ask the protocol, carry out.

use dormouse_kubernetes::{ClusterError, EventType};
use dormouse_lifecycle::{Next, Step, WaitReason, Wish, next};
use dormouse_model::Phase;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{Sleeper, condition};
use crate::conditions::ConditionUpdate;
use crate::endpoints::leads_astray;
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
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) outcome: RoundOutcome,
    pub(crate) phase: Phase,
    /// Nothing will tell when to look again, so look again soon.
    pub(crate) undecided: bool,
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

pub(crate) async fn look_and_act(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    role: Role,
    max_steps: usize,
) -> Result<Looked, ClusterError> {
    let seen = match cluster.observe(namespace, name).await {
        Ok(seen) => seen,
        Err(ClusterError::NotFound { .. }) => {
            return Ok(Looked {
                outcome: RoundOutcome::Gone,
                phase: Phase::Awake,
                undecided: false,
            });
        }
        Err(error) => {
            if let Some(known) = cluster.sleeper_named(namespace, name) {
                report(cluster, &known, &error).await;
            }
            return Err(error);
        }
    };
    let phase = seen.observation().state.phase;
    let looked = |outcome| Looked {
        outcome,
        phase,
        undecided: seen.pods_undecided,
    };
    let ours = is_ours(&seen, role);
    if !ours && !is_astray(cluster, &seen) {
        return Ok(looked(RoundOutcome::NotOurs));
    }
    let mut steps = match next(seen.observation(), &cluster.config().timings) {
        Next::Wait { reason, until } => {
            if let (WaitReason::CatchingUp, Role::Leader, Some(until)) = (&reason, role, until) {
                tell_of_outage(cluster, seen.sleeper(), until);
            }
            return Ok(looked(RoundOutcome::Waiting { reason, until }));
        }
        Next::Act(steps) => steps,
    };
    if !ours {
        // Nobody leads, perhaps. What a sleeper's clients reach is repaired all the same, and nothing else is done.
        steps.retain(|step| matches!(step, Step::WriteSlice(_)));
        if steps.is_empty() {
            return Ok(looked(RoundOutcome::NotOurs));
        }
    }
    let mut done = 0;
    for step in steps.iter().take(max_steps) {
        if cluster.outages().last() != seen.observation().last_outage {
            // Nodes may not hear of what this was decided on.
            return Ok(looked(RoundOutcome::Conflicted { steps: done }));
        }
        match cluster.carry_out(&seen, step).await {
            Ok(Carried::Done) => done += 1,
            Ok(Carried::Conflicted) => return Ok(looked(RoundOutcome::Conflicted { steps: done })),
            Err(error) => {
                report(cluster, seen.sleeper(), &error).await;
                return Err(error);
            }
        }
    }
    Ok(looked(RoundOutcome::Acted { steps: done }))
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
        && seen.services.iter().any(|(service, version)| {
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
