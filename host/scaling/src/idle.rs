//! What the idle rules say, as a decision about replicas.

use crate::{
    Activity, Comparison, Decision, DecisionInput, Input, KeepReason, Limit, LimitKind, Proposed, Sample,
    ScaleDecision, Verdict,
};

impl ScaleDecision {
    /// What the idle rules say about a target that has `current` replicas: none if it is idle; if it is in use as many as before, and one
    /// at least.
    pub fn of_idle(decision: &Decision, current: i32) -> Self {
        let (replicas, activity) = match decision {
            Decision::Idle { .. } => (Some(0), Activity::Inactive),
            Decision::Keep(KeepReason::InUse { .. }) => (Some(current.max(1)), Activity::Active),
            Decision::Keep(_) => (None, Activity::Unknown),
        };
        let inputs = match decision {
            Decision::Idle { inputs } => inputs.iter().map(DecisionInput::of_rule).collect(),
            Decision::Keep(reason) => reason.input().iter().map(DecisionInput::of_rule).collect(),
        };
        let limits = match decision {
            Decision::Keep(KeepReason::Debounced { .. } | KeepReason::UndatedEvent { .. }) => vec![Limit {
                kind: LimitKind::Cooldown,
                from: current,
                to: current,
            }],
            Decision::Idle { .. } | Decision::Keep(_) => Vec::new(),
        };
        Self {
            current,
            replicas,
            activity,
            inputs,
            limits,
        }
    }
}

impl DecisionInput {
    fn of_rule(input: &Input) -> Self {
        Self {
            name: input.rule.to_string(),
            sample: input.sample.clone(),
            compared_with: Comparison::Threshold(input.rule.threshold),
            proposes: match input.verdict() {
                Verdict::Idle => Proposed::Inactive,
                Verdict::InUse => Proposed::Active,
                Verdict::NoData | Verdict::Error => Proposed::Unknown,
            },
        }
    }
}

impl KeepReason {
    /// The reading that keeps it awake, if it is one.
    fn input(&self) -> Option<Input> {
        let (rule, sample) = match self {
            Self::InUse { rule, value } => (rule, Sample::Value(*value)),
            Self::Error { rule, error } => (rule, Sample::Error(error.clone())),
            Self::NoData { rule, missing } => (rule, Sample::NoData(missing.clone().into())),
            Self::NoRules | Self::Debounced { .. } | Self::UndatedEvent { .. } => return None,
        };
        Some(Input {
            rule: rule.clone(),
            sample,
            observed: false,
            changes_at: None,
        })
    }
}
