//! One round of an autoscaler.

use std::time::Duration;

use dormouse_model::{Behavior, MetricSpec};
use jiff::Timestamp;

use super::compute::{Computation, MetricReading, ObservedScale, compute, or_default};
use super::conditions::{Condition, Conditions, Event, EventReason};
use super::normalize::{Normalized, normalize};
use super::{ComputeError, History, Pod, Readiness, ReplicaCalculator, Tolerances, with_defaults};
use crate::{Activity, Bounds, DecisionInput, Limit, LimitKind, ScaleDecision};

/// The fewest replicas of an autoscaler that does not say.
const DEFAULT_MIN_REPLICAS: i32 = 1;

/// What is declared.
#[derive(Clone, Copy, Debug)]
pub struct Autoscaler<'a> {
    /// The fewest replicas. None: 1.
    pub min_replicas: Option<i32>,
    /// The most replicas.
    pub max_replicas: i32,
    /// What it scales by. Empty: [`default_metrics`](super::default_metrics).
    pub metrics: &'a [MetricSpec],
    /// How fast it scales.
    pub behavior: Option<&'a Behavior>,
}

/// What the cluster decides for all autoscalers. The defaults are those of kube-controller-manager.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How far a metric may be from its target, as a fraction, where `behavior` does not say.
    pub tolerance: f64,
    /// How long a lower recommendation must last, where `behavior` does not say.
    pub downscale_stabilization: Duration,
    /// See [`Readiness::cpu_initialization_period`].
    pub cpu_initialization_period: Duration,
    /// See [`Readiness::initial_readiness_delay`].
    pub initial_readiness_delay: Duration,
    /// Whether a target that an autoscaler has scaled to zero may come back.
    pub scale_to_zero: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            scale_to_zero: true,
        }
    }
}

/// What is seen in a round.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The scale of the target.
    pub scale: ObservedScale,
    /// The pods of the target.
    pub pods: &'a [Pod],
    /// What was read for each metric, in order.
    pub readings: &'a [MetricReading<'a>],
    /// The conditions after the last round.
    pub conditions: &'a Conditions,
    /// `status.desiredReplicas` after the last round.
    pub desired_replicas: i32,
    /// The time.
    pub now: Timestamp,
}

/// What becomes of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// How many replicas there should be, and why.
    pub decision: ScaleDecision,
    /// `status.desiredReplicas`.
    pub desired_replicas: i32,
    /// The conditions, provided that the scale can be written.
    pub conditions: Conditions,
    /// What to tell, in order.
    pub events: Vec<Event>,
    /// What the metrics say. None: they were not asked for.
    pub computation: Option<Computation>,
    /// What to remember, provided that the scale can be written.
    pub history: History,
}

impl Reconciliation {
    /// What failed, even if scaling goes on.
    pub fn error(&self) -> Option<&ComputeError> {
        self.computation.as_ref()?.error.as_ref()
    }
}

/// How a round goes on from what the scale says.
enum Step {
    /// Nothing is done: somebody else has set the target to zero.
    Disabled,
    /// The number of replicas is brought within the bounds at once.
    Correct(Limit),
    /// The metrics decide.
    Compute,
}

impl Step {
    /// `comes_back` says that this autoscaler has set the target to zero and can tell when it is needed again.
    fn of(current: i32, bounds: Bounds, comes_back: bool) -> Self {
        match bounds.correction(current) {
            _ if current == 0 && comes_back => Self::Compute,
            _ if current == 0 => Self::Disabled,
            Some(limit) => Self::Correct(limit),
            None => Self::Compute,
        }
    }
}

/// Decides one round. Whoever calls it writes the scale if the decision [rescales](ScaleDecision::rescales).
pub fn reconcile(
    autoscaler: &Autoscaler<'_>,
    settings: &Settings,
    observed: &Observed<'_>,
    history: History,
) -> Reconciliation {
    let current = observed.scale.spec_replicas;
    let bounds = autoscaler.bounds();
    let metrics = or_default(autoscaler.metrics);
    let works_at_zero = metrics.iter().any(MetricSpec::works_at_zero);
    let rules = autoscaler.behavior.map(with_defaults);
    let mut round = Reconciliation::begin(settings, observed, history);
    let scaled_to_zero = round.scaled_to_zero();

    match Step::of(
        current,
        bounds,
        scaled_to_zero && (works_at_zero || bounds.min != 0),
    ) {
        // ## Disabled => the number stays zero
        Step::Disabled => round.disable(),
        // ## Out of bounds => the nearest bound
        Step::Correct(limit) => round.limit(limit),
        // ## Otherwise => what the metrics say, within windows, policies and bounds
        Step::Compute => {
            let calculator = ReplicaCalculator {
                pods: observed.pods,
                tolerances: Tolerances::of(autoscaler.behavior, settings.tolerance),
                readiness: settings.readiness(observed.now),
            };
            let computation = compute(&calculator, observed.scale, &metrics, observed.readings);
            let Some(desired) = round.follow_metrics(&metrics, computation) else {
                round.desired_replicas = observed.desired_replicas;
                return round;
            };
            let normalized = normalize(
                rules.as_ref(),
                &mut round.history,
                bounds,
                current,
                desired,
                settings.downscale_stabilization,
                observed.now,
            );
            round.follow_limits(normalized);
            // Coming back from zero ends at the minimum at least, which policies and windows do not know.
            if current == 0 {
                round.raise_to(bounds.min);
            }
        }
    }
    round.finish();
    if round.decision.rescales() {
        let to_zero = round.desired_replicas == 0 && bounds.min == 0 && works_at_zero;
        round.report_rescale(settings.scale_to_zero.then_some(to_zero));
        if let Some(rules) = &rules {
            rules.record(&mut round.history, current, round.desired_replicas, observed.now);
        }
    }
    round
}

impl Autoscaler<'_> {
    fn bounds(&self) -> Bounds {
        Bounds {
            min: self.min_replicas.unwrap_or(DEFAULT_MIN_REPLICAS),
            max: self.max_replicas,
        }
    }
}

impl Settings {
    pub(crate) fn readiness(&self, now: Timestamp) -> Readiness {
        Readiness {
            cpu_initialization_period: self.cpu_initialization_period,
            initial_readiness_delay: self.initial_readiness_delay,
            now,
        }
    }
}

impl Reconciliation {
    /// A round in which nothing is decided yet.
    fn begin(settings: &Settings, observed: &Observed<'_>, mut history: History) -> Self {
        let current = observed.scale.spec_replicas;
        let mut conditions = observed.conditions.clone();
        conditions.able_to_scale = Some(Condition::new(
            true,
            "SucceededGetScale",
            "the scale of the target is known",
        ));
        if !settings.scale_to_zero {
            conditions.scaled_to_zero = None;
        }
        history.begin(current, observed.now);
        Self {
            decision: ScaleDecision {
                current,
                replicas: Some(current),
                activity: Activity::Unknown,
                inputs: Vec::new(),
                limits: Vec::new(),
            },
            desired_replicas: current,
            conditions,
            events: Vec::new(),
            computation: None,
            history,
        }
    }

    /// Whether it was this autoscaler that has set the target to zero, if it is there.
    fn scaled_to_zero(&self) -> bool {
        let condition = self.conditions.scaled_to_zero.as_ref();
        condition.is_some_and(Condition::holds)
    }

    fn disable(&mut self) {
        self.conditions.scaling_active = Some(Condition::new(
            false,
            "ScalingDisabled",
            "the target was set to zero by somebody else",
        ));
        let current = self.decision.current;
        self.limit(Limit {
            kind: LimitKind::Disabled,
            from: current,
            to: current,
        });
    }

    fn limit(&mut self, limit: Limit) {
        self.decision.replicas = Some(limit.to);
        self.decision.limits.push(limit);
    }

    /// Takes over what the metrics say. None: nothing can be decided.
    fn follow_metrics(&mut self, metrics: &[MetricSpec], computation: Computation) -> Option<i32> {
        let proposals = metrics.iter().zip(&computation.proposals);
        self.decision.inputs = proposals
            .map(|(metric, proposal)| DecisionInput::of_metric(metric, proposal))
            .collect();
        self.conditions.scaling_active = Some(computation.scaling_active.clone());
        self.events.extend(computation.events.iter().cloned());
        let current = self.decision.current;
        let decided = computation.replicas;
        if decided.is_none() {
            let message = computation.error.as_ref().map(ToString::to_string);
            self.events.push(Event {
                reason: EventReason::FailedComputeMetricsReplicas,
                message: message.unwrap_or_default(),
            });
            let highest = computation
                .proposals
                .iter()
                .flatten()
                .map(|proposal| proposal.replicas);
            self.decision.replicas = None;
            self.decision.limits.push(Limit {
                kind: LimitKind::FailedMetric,
                from: highest.max().unwrap_or(current),
                to: current,
            });
        } else if let Some(Ok(proposal)) = computation
            .deciding
            .and_then(|index| computation.proposals.get(index))
            && let Some(kind) = proposal.held_by
        {
            self.decision.limits.push(Limit {
                kind,
                from: proposal.replicas,
                to: proposal.replicas,
            });
        }
        self.computation = Some(computation);
        decided.map(|replicas| replicas.max(0))
    }

    fn follow_limits(&mut self, normalized: Normalized) {
        let Normalized {
            replicas,
            window,
            limit,
            ..
        } = normalized;
        self.conditions.able_to_scale = Some(match window {
            Some(window) => Condition::new(true, window.kind.as_str(), window.to_string()),
            None => Condition::new(
                true,
                "ReadyForNewScale",
                "no recent recommendation speaks against it",
            ),
        });
        self.conditions.scaling_limited = Some(match limit {
            Some(limit) => Condition::new(true, limit.kind.as_str(), limit.to_string()),
            None => Condition::new(
                false,
                "DesiredWithinRange",
                "the desired number of replicas is within the limits",
            ),
        });
        self.decision.replicas = Some(replicas);
        self.decision.limits.extend(window.into_iter().chain(limit));
    }

    fn raise_to(&mut self, min: i32) {
        if let Some(from) = self.decision.replicas.filter(|replicas| *replicas < min) {
            self.limit(Limit {
                kind: LimitKind::MinReplicas,
                from,
                to: min,
            });
        }
    }

    /// Settles what is decided.
    fn finish(&mut self) {
        let replicas = self.decision.replicas.unwrap_or(self.decision.current);
        self.desired_replicas = replicas;
        self.decision.activity = match self.computation {
            Some(_) if replicas > 0 => Activity::Active,
            Some(_) => Activity::Inactive,
            None => Activity::Unknown,
        };
    }

    /// Reports that the number of replicas changes. `to_zero` says whether it becomes zero and may come back, if that is to be
    /// remembered.
    fn report_rescale(&mut self, to_zero: Option<bool>) {
        let message = self.decision.to_string();
        self.conditions.able_to_scale = Some(Condition::new(true, "SucceededRescale", message.clone()));
        self.events.push(Event {
            reason: EventReason::SuccessfulRescale,
            message,
        });
        let Some(to_zero) = to_zero else { return };
        let (reason, message) = if to_zero {
            ("ScaledToZero", "this autoscaler has scaled the target to zero")
        } else {
            (
                "NotScaledToZero",
                "this autoscaler has not scaled the target to zero",
            )
        };
        self.conditions.scaled_to_zero = Some(Condition::new(to_zero, reason, message));
    }
}
