//! One answer for every way to scale: how many replicas, and why.

use std::fmt;

use dormouse_model::{MetricTarget, Quantity};

use crate::Sample;

/// How many replicas a target should have, and what that follows from.
///
/// Its text is what people read in status and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleDecision {
    /// How many replicas it has.
    pub current: i32,
    /// How many it should have. None: nothing can be decided, so the last decision stands.
    pub replicas: Option<i32>,
    /// Whether anything needs it.
    pub activity: Activity,
    /// What was read, and what each reading proposes.
    pub inputs: Vec<DecisionInput>,
    /// What kept the answer from being what the inputs propose, in the order in which it was applied.
    pub limits: Vec<Limit>,
}

/// Whether anything needs a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Something does.
    Active,
    /// Every input says that nothing does.
    Inactive,
    /// Not known: an input is missing, has failed, or was not looked at.
    Unknown,
}

/// One reading and what it proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionInput {
    /// What was read, for people: `resource cpu`.
    pub name: String,
    /// The value in the unit of `compared_with`, or why there is none.
    pub sample: Sample,
    /// What the value is compared with.
    pub compared_with: Comparison,
    /// What follows from it alone.
    pub proposes: Proposed,
}

/// What a reading is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// What a metric should be.
    Target(MetricTarget),
    /// A percentage of what the pods may use at most.
    UtilizationOfLimits(i32),
    /// The value above which it activates its target.
    Activation(Quantity),
    /// The largest value that counts as idle.
    Threshold(Quantity),
}

/// What a reading proposes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// So many replicas.
    Replicas(i32),
    /// To be active.
    Active,
    /// Nothing: it is idle.
    Inactive,
    /// Nothing is known.
    Unknown,
}

/// A change of a count on the way to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What changed it.
    pub kind: LimitKind,
    /// What it was before, in replicas.
    pub from: i32,
    /// What it was after, in replicas.
    pub to: i32,
}

/// What keeps a target from becoming what its inputs propose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// The least number of replicas.
    MinReplicas,
    /// The largest number of replicas.
    MaxReplicas,
    /// The policies for scaling up.
    ScaleUpPolicy,
    /// The policies for scaling down.
    ScaleDownPolicy,
    /// A lower recommendation within the stabilization window for scaling up.
    ScaleUpWindow,
    /// A higher recommendation within the stabilization window for scaling down.
    ScaleDownWindow,
    /// A rescale that was not long enough ago.
    RescaleInterval,
    /// The deciding metric is close enough to its target.
    Tolerance,
    /// Pods without a usable sample could turn the direction.
    MissingSamples,
    /// A metric that could not be read, where the others would scale down.
    FailedMetric,
    /// Activity that was not long enough ago.
    Cooldown,
    /// Not being active, at the number of replicas for that.
    Idle,
    /// A fixed number in place of metrics that fail.
    Fallback,
    /// A pause that somebody asked for.
    Pause,
    /// Scaling is disabled, because somebody else set the target to zero.
    Disabled,
}

impl LimitKind {
    /// One word for status and metrics. Where a HorizontalPodAutoscaler has a reason for it, that reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MinReplicas => "TooFewReplicas",
            Self::MaxReplicas => "TooManyReplicas",
            Self::ScaleUpPolicy => "ScaleUpLimit",
            Self::ScaleDownPolicy => "ScaleDownLimit",
            Self::ScaleUpWindow => "ScaleUpStabilized",
            Self::ScaleDownWindow => "ScaleDownStabilized",
            Self::RescaleInterval => "RescaleInterval",
            Self::Tolerance => "WithinTolerance",
            Self::MissingSamples => "MissingSamples",
            Self::FailedMetric => "FailedMetric",
            Self::Cooldown => "Cooldown",
            Self::Idle => "Idle",
            Self::Fallback => "Fallback",
            Self::Pause => "Paused",
            Self::Disabled => "ScalingDisabled",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MinReplicas => "the minimum of replicas",
            Self::MaxReplicas => "the maximum of replicas",
            Self::ScaleUpPolicy => "the scale-up policies",
            Self::ScaleDownPolicy => "the scale-down policies",
            Self::ScaleUpWindow => "the stabilization window for scaling up",
            Self::ScaleDownWindow => "the stabilization window for scaling down",
            Self::RescaleInterval => "the time that must pass after a rescale",
            Self::Tolerance => "the tolerance",
            Self::MissingSamples => "pods without a usable sample",
            Self::FailedMetric => "a metric that failed",
            Self::Cooldown => "the cooldown",
            Self::Idle => "not being active",
            Self::Fallback => "the fallback",
            Self::Pause => "a pause",
            Self::Disabled => "scaling being disabled at zero replicas",
        })
    }
}

impl fmt::Display for Limit {
    /// `limited from 8 to 5 by the maximum of replicas`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "held at {} by {}", self.to, self.kind)
        } else {
            write!(f, "limited from {} to {} by {}", self.from, self.to, self.kind)
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(target) => write!(f, "target {target}"),
            Self::UtilizationOfLimits(percent) => write!(f, "target {percent}% of limits"),
            Self::Activation(value) => write!(f, "activation {value}"),
            Self::Threshold(value) => write!(f, "threshold {value}"),
        }
    }
}

impl Comparison {
    /// What is printed behind a value.
    fn unit(self) -> &'static str {
        match self {
            Self::Target(MetricTarget::Utilization(_)) | Self::UtilizationOfLimits(_) => "%",
            Self::Target(_) | Self::Activation(_) | Self::Threshold(_) => "",
        }
    }
}

impl fmt::Display for DecisionInput {
    /// `resource cpu is 120%, target 80% of requests, proposes 5`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.name, self.sample)?;
        if matches!(self.sample, Sample::Value(_)) {
            f.write_str(self.compared_with.unit())?;
        }
        write!(f, ", {}", self.compared_with)?;
        match self.proposes {
            Proposed::Replicas(replicas) => write!(f, ", proposes {replicas}"),
            Proposed::Active => f.write_str(", active"),
            Proposed::Inactive => f.write_str(", inactive"),
            Proposed::Unknown => Ok(()),
        }
    }
}

impl fmt::Display for ScaleDecision {
    /// `scale from 3 to 5: resource cpu is 200%, target 80% of requests, proposes 8; limited from 8 to 5 by the maximum of replicas`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replicas {
            None => write!(f, "hold at {}", self.current)?,
            Some(replicas) if replicas == self.current => write!(f, "stay at {replicas}")?,
            Some(replicas) => write!(f, "scale from {} to {replicas}", self.current)?,
        }
        let mut separator = ": ";
        for input in &self.inputs {
            write!(f, "{separator}{input}")?;
            separator = "; ";
        }
        for limit in &self.limits {
            write!(f, "{separator}{limit}")?;
            separator = "; ";
        }
        Ok(())
    }
}

impl ScaleDecision {
    /// Whether the number of replicas changes.
    pub fn rescales(&self) -> bool {
        self.replicas.is_some_and(|replicas| replicas != self.current)
    }

    /// Whether this decision, one about activity, leaves the number of replicas to metrics: it does not change it, and nobody wants the
    /// target to stay as it is.
    pub fn leaves_to_metrics(&self) -> bool {
        let stays = |limit: &Limit| {
            matches!(
                limit.kind,
                LimitKind::Pause | LimitKind::Idle | LimitKind::Fallback
            )
        };
        self.current > 0 && !self.rescales() && !self.limits.iter().any(stays)
    }

    /// This decision about activity, or what the metrics say where it leaves the number to them.
    pub fn refined_by(self, metrics: Self) -> Self {
        if !self.leaves_to_metrics() {
            return self;
        }
        Self {
            activity: self.activity,
            inputs: self.inputs.into_iter().chain(metrics.inputs).collect(),
            limits: self.limits.into_iter().chain(metrics.limits).collect(),
            ..metrics
        }
    }
}
