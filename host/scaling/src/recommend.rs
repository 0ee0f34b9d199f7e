//! What should become of a target.

use std::time::Duration;

use dormouse_model::{Policy, ScaleEvent, ScaleEventKind, Target};
use jiff::Timestamp;

use crate::scaled::{scaled, scaled_by_memory};
use crate::time::{after, span};
use crate::{Decision, Input, KeepReason, ScaleSeen, Scaled, Verdict, decide};

/// What a target should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Desired {
    /// Whatever it is: the last decision stands.
    Hold,
    /// At zero.
    Zero,
    /// Up, and not on its way to zero any more.
    Activate,
    /// Up, with so many replicas.
    Exactly(i32),
    /// Up, with the DLX in the path of its traffic to count it.
    Observe,
    /// Up, without the DLX in the path.
    StopObserving,
}

/// Where a target stands on the way to zero and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Up, and nothing else is asked of it.
    Awake,
    /// On its way up.
    Waking,
    /// Asked to be observed.
    Observed {
        /// Whether anything was done about it yet.
        begun: bool,
    },
    /// Asked to sleep.
    Asleep {
        /// Whether anything was done about it yet.
        begun: bool,
    },
}

/// Everything that a recommendation follows from, beside the target itself.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What was read for each of its triggers.
    pub inputs: &'a [Input],
    /// Where it stands.
    pub standing: Standing,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Wakes that are known of.
    pub wakes: &'a [ScaleEvent],
    /// Before this its traffic is not observed.
    pub observe_not_before: Option<Timestamp>,
    /// For how long its traffic is not observed after it was declared, updated or woken.
    pub settle: Duration,
    /// What its metrics say. None: it has none, or its number of replicas is not to be decided now.
    pub scale: Option<ScaleSeen<'a>>,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Seen<'a> {
    /// A target that is up, and whose number of replicas is all that there is to decide.
    pub fn of_scale(scale: ScaleSeen<'a>, now: Timestamp) -> Self {
        Self {
            inputs: &[],
            standing: Standing::Awake,
            since: None,
            wakes: &[],
            observe_not_before: None,
            settle: Duration::ZERO,
            scale: Some(scale),
            now,
        }
    }
}

/// What should become of a target, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// What it should be.
    pub desired: Desired,
    /// Whether it is idle, and what says so.
    pub decision: Decision,
    /// How many replicas it should have while it is up, if that was decided.
    pub scaled: Option<Scaled>,
    /// Why it should be that, for people.
    pub reason: String,
    /// When the same question has another answer by the mere passing of time, as far as is known. Readings may change before.
    pub look_again: Option<Timestamp>,
}

/// Recommends what should become of a target.
pub fn recommend(target: &Target, seen: &Seen<'_>) -> Recommendation {
    let recommended = idle(target, seen);
    match (&target.policy, &seen.scale) {
        (Policy::Metrics(policy), Some(scale)) if recommended.stays_up() => {
            recommended.scaled_to(scaled(policy, scale, seen.now))
        }
        (Policy::Memory(policy), Some(scale)) if recommended.stays_up() => {
            recommended.scaled_to(scaled_by_memory(policy, scale, seen.now))
        }
        (Policy::Metrics(_) | Policy::Memory(_) | Policy::Idle, _) => recommended,
    }
}

impl Recommendation {
    /// Whether it leaves the target up as it is, so that its number of replicas matters. What turns it round comes first.
    fn stays_up(&self) -> bool {
        self.desired == Desired::Hold
    }

    /// With a number of replicas.
    fn scaled_to(self, scaled: Scaled) -> Self {
        let decision = &scaled.decision;
        match decision.replicas.filter(|_| decision.rescales()) {
            Some(replicas) => Self {
                desired: Desired::Exactly(replicas),
                reason: decision.to_string(),
                scaled: Some(scaled),
                ..self
            },
            None => Self {
                scaled: Some(scaled),
                ..self
            },
        }
    }
}

fn idle(target: &Target, seen: &Seen<'_>) -> Recommendation {
    let mut events: Vec<_> = target.last_event.into_iter().collect();
    events.extend_from_slice(seen.wakes);
    let decision = decide(seen.inputs, &events, seen.now);
    let desired = match seen.standing {
        _ if target.is_platform() => {
            if decision.is_idle() {
                Desired::Zero
            } else {
                Desired::Hold
            }
        }
        Standing::Awake | Standing::Waking | Standing::Observed { .. } if decision.is_idle() => Desired::Zero,
        Standing::Awake if may_observe(target, seen) => Desired::Observe,
        Standing::Awake
        | Standing::Waking
        | Standing::Observed { begun: false }
        | Standing::Asleep { begun: false } => Desired::Hold,
        // Demand anywhere turns it round.
        _ if matches!(decision, Decision::Keep(KeepReason::InUse { .. })) => Desired::Activate,
        // No trigger asks for it any more.
        Standing::Observed { begun: true } if !target.is_observed() => Desired::StopObserving,
        _ => Desired::Hold,
    };
    let reason = match desired {
        Desired::Zero => idle_for(seen.inputs),
        Desired::Observe => "looking whether anybody needs it".to_owned(),
        Desired::Hold | Desired::Activate | Desired::Exactly(_) | Desired::StopObserving => {
            decision.to_string()
        }
    };
    Recommendation {
        desired,
        look_again: look_again(&decision, seen),
        decision,
        scaled: None,
        reason,
    }
}

/// Whether to observe the traffic of a target that is awake: nothing is known of it, and no other trigger objects.
fn may_observe(target: &Target, seen: &Seen<'_>) -> bool {
    let (observed, others): (Vec<_>, Vec<_>) = seen.inputs.iter().partition(|input| input.observed);
    // An error in the trigger itself would never become a value.
    let wanted = !observed.is_empty() && observed.iter().all(|input| input.verdict() == Verdict::NoData);
    let objects = others.iter().any(|input| input.verdict() != Verdict::Idle);
    let due = seen.observe_not_before.is_none_or(|moment| seen.now >= moment);
    let settle = span(seen.settle);
    let updated = target
        .last_event
        .filter(|event| event.kind == ScaleEventKind::ResourceUpdated);
    let settled = [seen.since, updated.and_then(|event| event.at)]
        .into_iter()
        .flatten()
        .all(|moment| seen.now.duration_since(moment) >= settle);
    wanted && !objects && due && settled
}

/// The same for all targets with the same triggers, so that they can be put to sleep together.
fn idle_for(inputs: &[Input]) -> String {
    let rules: Vec<_> = inputs
        .iter()
        .map(|input| format!("{} at most {}", input.rule, input.rule.threshold))
        .collect();
    format!("idle: {}", rules.join(", "))
}

/// When the window of every trigger that does not say idle will have passed: of one that must still be quiet for a while, and of an update
/// or a wake. A trigger that is in use or cannot be read gives no moment.
fn look_again(decision: &Decision, seen: &Seen<'_>) -> Option<Timestamp> {
    let debounced = match decision {
        Decision::Keep(KeepReason::Debounced { at, window, .. }) => Some(after(*at, *window)),
        _ => None,
    };
    let pending: Option<Vec<_>> = seen
        .inputs
        .iter()
        .filter(|input| input.verdict() != Verdict::Idle)
        .map(|input| input.changes_at)
        .collect();
    let quiet = pending.unwrap_or_default().into_iter().max();
    debounced.max(quiet).filter(|moment| *moment > seen.now)
}
