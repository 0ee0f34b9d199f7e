//! How fast a target may be scaled.

use dormouse_model::{Behavior, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};
use jiff::Timestamp;

use super::History;
use crate::bounds::limited;
use crate::saturate::{ceil, to_i32};
use crate::time::seconds;
use crate::{Bounds, Limit, LimitKind};

/// The rules of both directions, nothing left out but what the cluster decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultedRules {
    /// For scaling up.
    pub scale_up: ScalingRules,
    /// For scaling down. Its window may be unset: then that of the cluster counts.
    pub scale_down: ScalingRules,
}

impl From<DefaultedRules> for Behavior {
    fn from(rules: DefaultedRules) -> Self {
        Self {
            scale_up: Some(rules.scale_up),
            scale_down: Some(rules.scale_down),
        }
    }
}

/// A declared behavior with the defaults of the API server.
pub fn with_defaults(behavior: &Behavior) -> DefaultedRules {
    let policy = |kind, value| ScalingPolicy {
        kind,
        value,
        period_seconds: 15,
    };
    let doubling = policy(PolicyKind::Percent, 100);
    DefaultedRules {
        scale_up: filled(
            behavior.scale_up.as_ref(),
            Some(0),
            &[policy(PolicyKind::Pods, 4), doubling],
        ),
        scale_down: filled(behavior.scale_down.as_ref(), None, &[doubling]),
    }
}

fn filled(declared: Option<&ScalingRules>, window: Option<i32>, policies: &[ScalingPolicy]) -> ScalingRules {
    let mut rules = declared.cloned().unwrap_or_default();
    rules.stabilization_window_seconds = rules.stabilization_window_seconds.or(window);
    rules.select_policy = rules.select_policy.or(Some(SelectPolicy::Max));
    if rules.policies.is_empty() {
        rules.policies = policies.to_vec();
    }
    rules
}

impl DefaultedRules {
    /// Records in a history that the number of replicas was changed.
    pub fn record(&self, history: &mut History, from: i32, to: i32, now: Timestamp) {
        let rules = if to > from {
            &self.scale_up
        } else {
            &self.scale_down
        };
        let longest = rules.policies.iter().map(|policy| policy.period_seconds).max();
        history.rescaled(from, to, seconds(longest.unwrap_or(0)), now);
    }

    /// How many replicas the policies and the bounds allow. Bounds count in their own direction only, and no limit turns the
    /// direction.
    pub(super) fn limit(
        &self,
        history: &History,
        bounds: Bounds,
        current: i32,
        desired: i32,
        now: Timestamp,
    ) -> (i32, Option<Limit>) {
        if desired > current {
            let most = self.most(history, current, now).max(current);
            let (most, kind) = if bounds.max > most {
                (most, LimitKind::ScaleUpPolicy)
            } else {
                (bounds.max, LimitKind::MaxReplicas)
            };
            if desired > most {
                return limited(kind, desired, most);
            }
        } else if desired < current {
            let fewest = self.fewest(history, current, now).min(current);
            let (fewest, kind) = if bounds.min < fewest {
                (fewest, LimitKind::ScaleDownPolicy)
            } else {
                (bounds.min, LimitKind::MinReplicas)
            };
            if desired < fewest {
                return limited(kind, desired, fewest);
            }
        }
        (desired, None)
    }

    /// The most replicas that the policies for scaling up allow.
    fn most(&self, history: &History, current: i32, now: Timestamp) -> i32 {
        let allowed = self.scale_up.policies.iter().map(|policy| {
            let start = history.replicas_before(current, seconds(policy.period_seconds), now);
            match policy.kind {
                PolicyKind::Pods => to_i32(i128::from(start) + i128::from(policy.value)),
                // Rounded up, or a small target would never grow.
                PolicyKind::Percent => ceil(start as f64 * (1.0 + f64::from(policy.value) / 100.0)),
            }
        });
        let selected = match self.scale_up.select_policy {
            Some(SelectPolicy::Disabled) => None,
            Some(SelectPolicy::Min) => allowed.min(),
            Some(SelectPolicy::Max) | None => allowed.max(),
        };
        selected.unwrap_or(current)
    }

    /// The fewest replicas that the policies for scaling down allow.
    fn fewest(&self, history: &History, current: i32, now: Timestamp) -> i32 {
        let allowed = self.scale_down.policies.iter().map(|policy| {
            let start = history.replicas_before(current, seconds(policy.period_seconds), now);
            match policy.kind {
                PolicyKind::Pods => to_i32(i128::from(start) - i128::from(policy.value)),
                PolicyKind::Percent => (start as f64 * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        let selected = match self.scale_down.select_policy {
            Some(SelectPolicy::Disabled) => None,
            Some(SelectPolicy::Min) => allowed.max(),
            Some(SelectPolicy::Max) | None => allowed.min(),
        };
        selected.unwrap_or(current)
    }
}
