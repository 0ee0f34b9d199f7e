//! How fast a target may be scaled: `behavior` of autoscaling/v2.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Quantity;

/// How fast a target may be scaled, in each direction. The JSON is that of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Behavior {
    /// For scaling up. None: the defaults of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<ScalingRules>,
    /// For scaling down. None: the defaults of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScalingRules>,
}

/// The longest stabilization window, in seconds.
const LONGEST_WINDOW: i32 = 3600;
/// The longest period of a policy, in seconds.
const LONGEST_PERIOD: i32 = 1800;

/// A behavior that the API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BehaviorError {
    /// A window that is too long, or below zero.
    #[error("{0}.stabilizationWindowSeconds must be from 0 to {LONGEST_WINDOW}, not {1}")]
    Window(&'static str, i32),
    /// A policy that allows nothing, or less than nothing.
    #[error("{0}.policies: a value must be above 0, not {1}; selectPolicy Disabled allows nothing")]
    Value(&'static str, i32),
    /// A period that is too long, or none.
    #[error("{0}.policies: periodSeconds must be from 1 to {LONGEST_PERIOD}, not {1}")]
    Period(&'static str, i32),
    /// A tolerance below zero.
    #[error("{0}.tolerance must not be below 0, and is {1}")]
    Tolerance(&'static str, Quantity),
}

impl Behavior {
    /// Whether it is one that the API server would accept.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), BehaviorError> {
        let directions = [("scaleUp", &self.scale_up), ("scaleDown", &self.scale_down)];
        directions
            .into_iter()
            .filter_map(|(name, rules)| Some((name, rules.as_ref()?)))
            .try_for_each(|(name, rules)| rules.check(name))
    }
}

impl ScalingRules {
    fn check(&self, direction: &'static str) -> Result<(), BehaviorError> {
        if let Some(window) = self.stabilization_window_seconds
            && !(0..=LONGEST_WINDOW).contains(&window)
        {
            return Err(BehaviorError::Window(direction, window));
        }
        for policy in &self.policies {
            if policy.value <= 0 {
                return Err(BehaviorError::Value(direction, policy.value));
            }
            if !(1..=LONGEST_PERIOD).contains(&policy.period_seconds) {
                return Err(BehaviorError::Period(direction, policy.period_seconds));
            }
        }
        match self.tolerance {
            Some(tolerance) if tolerance < Quantity::ZERO => {
                Err(BehaviorError::Tolerance(direction, tolerance))
            }
            _ => Ok(()),
        }
    }
}

/// How fast a target may be scaled in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScalingRules {
    /// How many seconds of earlier recommendations are looked at. None: the default of the direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stabilization_window_seconds: Option<i32>,
    /// Which policy counts where there are several. None: [`SelectPolicy::Max`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select_policy: Option<SelectPolicy>,
    /// What may change within a period. Empty: the defaults of the direction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<ScalingPolicy>,
    /// By which fraction a metric may miss its target without consequence. None: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Quantity>,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScalingPolicy {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    /// Pods, or percent of the replicas at the start of the period.
    pub value: i32,
    /// The period, in seconds.
    pub period_seconds: i32,
}

/// What the value of a [`ScalingPolicy`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// Pods.
    Pods,
    /// Percent of the replicas at the start of the period.
    Percent,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: nothing is scaled in this direction.
    Disabled,
}
