//! Between nothing and something: when a target is active, as KEDA decides it.

use std::time::Duration;

use dormouse_model::Quantity;
use jiff::Timestamp;

use crate::time::has_passed;
use crate::{Activity, Bounds, Comparison, DecisionInput, Limit, LimitKind, Proposed, Sample, ScaleDecision};

/// When a target is active, and how many replicas it has while it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationPolicy {
    /// How many replicas it has while it is active. With a minimum above 0 and without `idle_replicas`, activity does not matter.
    pub bounds: Bounds,
    /// How many replicas it has while it is not active. None: as many as the minimum.
    pub idle_replicas: Option<i32>,
    /// How long ago it must have been active before it goes down.
    pub cooldown: Duration,
    /// How long ago it must have been created before it goes down, if it has never been active.
    pub initial_cooldown: Duration,
    /// Whether it is active whatever its triggers say.
    pub forced: bool,
    /// How many replicas it has while triggers fail and none is active. None: as many as before.
    pub fallback: Option<i32>,
    /// Whether it is left alone.
    pub pause: Option<Pause>,
}

/// How a target is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// With the replicas that it has.
    AtCurrent,
    /// With so many replicas.
    At(i32),
}

/// A reading that may activate a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationTrigger {
    /// What was read, for people.
    pub name: String,
    /// What was read.
    pub sample: Sample,
    /// The value above which it activates the target. The value itself does not.
    pub activation: Quantity,
}

/// What is seen of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationSeen {
    /// How many replicas it has.
    pub replicas: i32,
    /// When it was declared. None: nobody knows, so it may have been just now.
    pub created: Option<Timestamp>,
    /// When it was last active. None: never.
    pub last_active: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

impl ActivationTrigger {
    /// What it proposes by itself.
    fn proposes(&self) -> Proposed {
        match &self.sample {
            Sample::Value(value) if *value > self.activation => Proposed::Active,
            Sample::Value(_) => Proposed::Inactive,
            Sample::NoData(_) | Sample::Error(_) => Proposed::Unknown,
        }
    }

    fn input(&self) -> DecisionInput {
        DecisionInput {
            name: self.name.clone(),
            sample: self.sample.clone(),
            compared_with: Comparison::Activation(self.activation),
            proposes: self.proposes(),
        }
    }
}

/// Whether a target is active, and how many replicas that means. Between its bounds an active target keeps its replicas: how many
/// it needs is for its metrics to say ([`ScaleDecision::refined_by`]).
///
/// One active trigger is enough. A trigger without a value never makes a target inactive, and neither does having no trigger.
pub fn activate(
    policy: &ActivationPolicy,
    triggers: &[ActivationTrigger],
    seen: &ActivationSeen,
) -> ScaleDecision {
    let activity = activity(policy, triggers);
    let (replicas, limit) = replicas(policy, activity, seen);
    ScaleDecision {
        current: seen.replicas,
        replicas,
        activity,
        inputs: triggers.iter().map(ActivationTrigger::input).collect(),
        limits: limit.into_iter().collect(),
    }
}

fn activity(policy: &ActivationPolicy, triggers: &[ActivationTrigger]) -> Activity {
    let mut proposals = triggers.iter().map(ActivationTrigger::proposes);
    if policy.forced || proposals.clone().any(|proposed| proposed == Proposed::Active) {
        Activity::Active
    } else if triggers.is_empty() || proposals.any(|proposed| proposed == Proposed::Unknown) {
        Activity::Unknown
    } else {
        Activity::Inactive
    }
}

fn replicas(
    policy: &ActivationPolicy,
    activity: Activity,
    seen: &ActivationSeen,
) -> (Option<i32>, Option<Limit>) {
    let current = seen.replicas;
    let limit = |kind, from, to| Some(Limit { kind, from, to });
    match (policy.pause, activity) {
        (Some(Pause::AtCurrent), _) => (None, limit(LimitKind::Pause, current, current)),
        (Some(Pause::At(replicas)), _) => (Some(replicas), limit(LimitKind::Pause, current, replicas)),
        (None, Activity::Active) => {
            let idle = policy.idle_replicas.is_some() && current < policy.bounds.min;
            let starts = current == 0 || idle;
            let active = if starts { policy.bounds.min.max(1) } else { current };
            (Some(active), None)
        }
        (None, Activity::Unknown) => match policy.fallback {
            Some(fallback) => (Some(fallback), limit(LimitKind::Fallback, current, fallback)),
            None => (None, None),
        },
        (None, Activity::Inactive) => {
            let inactive = policy.idle_replicas.unwrap_or(policy.bounds.min);
            let goes_down = inactive < current && (policy.idle_replicas.is_some() || policy.bounds.min == 0);
            if goes_down && !policy.has_cooled_down(seen) {
                (Some(current), limit(LimitKind::Cooldown, inactive, current))
            } else if goes_down {
                (Some(inactive), None)
            } else if policy.idle_replicas.is_none() && current < inactive {
                (Some(inactive), limit(LimitKind::MinReplicas, current, inactive))
            } else if policy.idle_replicas.is_some() {
                (Some(current), limit(LimitKind::Idle, current, current))
            } else {
                (Some(current), None)
            }
        }
    }
}

impl ActivationPolicy {
    fn has_cooled_down(&self, seen: &ActivationSeen) -> bool {
        match (seen.last_active, seen.created) {
            (Some(active), _) => has_passed(active, self.cooldown, seen.now),
            (None, Some(created)) => has_passed(created, self.initial_cooldown, seen.now),
            (None, None) => false,
        }
    }
}
