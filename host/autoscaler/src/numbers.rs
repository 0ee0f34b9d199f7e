//! What the number of replicas of a target follows from, gathered; and the number, written.

use std::time::Duration;

use dormouse_kubernetes::{ClusterError, WorkloadScale};
use dormouse_model::{
    LabelSelector, Metric, MetricSpec, MetricsPolicy, ObjectRef, Phase, QuerySource, Target,
};
use dormouse_readings::{Measurements, Meter, MetricSamples};
use dormouse_scaling::hpa::{Condition, MetricReading, ObservedScale, Settings};
use dormouse_scaling::{ScaleSeen, Scaled, ScalingHistory};
use dormouse_sleepers::api::{ScalingStatus, condition};
use dormouse_sleepers::lifecycle::{DesiredState, SleeperState, may_resize};
use dormouse_sleepers::{ConditionUpdate, Sleeper};
use jiff::Timestamp;

use crate::Sleepers;
use crate::key::sleeper_key;
use crate::metrics::Metrics;
use crate::sleepers::state;

/// What is asked of the DLX while somebody waits there may be this old.
const FRESH: Duration = Duration::from_millis(200);

/// Everything that the number of replicas of a target follows from.
pub(crate) struct Numbers {
    pub workload: ObjectRef,
    pub scale: WorkloadScale,
    metrics: Vec<MetricSpec>,
    measured: Measurements,
    history: ScalingHistory,
    settings: Settings,
}

/// What gathering needs.
pub(crate) struct Gatherer<'a> {
    pub sleepers: &'a dyn Sleepers,
    pub meter: &'a dyn Meter,
    pub metrics: &'a Metrics,
    pub settings: &'a Settings,
}

impl Gatherer<'_> {
    /// Gathers for a target that its metrics scale. None: it has no replicas or is to go to sleep, so there is nothing to decide.
    ///
    /// # Errors
    /// A condition that says why nothing can be decided.
    pub async fn gather(
        &self,
        target: &Target,
        policy: &MetricsPolicy,
        sleeper: &Sleeper,
        known: Option<&ScalingHistory>,
        now: Timestamp,
    ) -> Result<Option<Numbers>, ConditionUpdate> {
        if state(sleeper).desired == DesiredState::Asleep {
            return Ok(None);
        }
        let workload = only_workload(target)?;
        if let Some(other) = self.sleepers.other_scaler(&sleeper_key(&target.key), workload) {
            return Err(ConditionUpdate::bad(
                condition::ABLE_TO_SCALE,
                "OtherScaler",
                other,
            ));
        }
        let state = state(sleeper);
        let metrics: Vec<_> = policy
            .metrics
            .iter()
            .filter(|metric| says_something(metric, state))
            .collect();
        let namespace = &target.key.namespace;
        let scale = self.sleepers.scale(namespace, workload).await;
        let scale = scale.map_err(|error| {
            ConditionUpdate::bad(condition::ABLE_TO_SCALE, "FailedGetScale", error.to_string())
        })?;
        if scale.replicas() <= 0 {
            return Ok(None);
        }
        let selector = selector(workload, &scale)?;
        let max_age = if is_waking(state) { FRESH } else { target.every / 2 };
        let asked: Vec<_> = metrics
            .iter()
            .filter_map(|metric| metric.query.clone().ok())
            .collect();
        let mut measured = self
            .meter
            .measure(namespace, &selector, &asked, max_age, now)
            .await;
        if let Err(why) = &measured.pods {
            let why = why.clone();
            return Err(ConditionUpdate::bad(
                condition::SCALING_ACTIVE,
                "FailedGetPods",
                why,
            ));
        }
        measured.samples = in_order(&metrics, measured.samples);
        for (metric, samples) in metrics.iter().zip(&measured.samples) {
            self.metrics
                .reading(&target.key.owner, metric.source.as_str(), samples.result());
        }
        Ok(Some(Numbers {
            workload: workload.clone(),
            scale,
            metrics: metrics.iter().map(|metric| metric.spec.clone()).collect(),
            measured,
            history: history(sleeper, known, now),
            settings: *self.settings,
        }))
    }
}

impl Numbers {
    /// Hands out what was gathered in the form in which it is decided on.
    pub fn readings(&self) -> Vec<MetricReading<'_>> {
        let samples = self.measured.samples.iter();
        samples.map(MetricSamples::as_reading).collect()
    }

    /// The same, with its readings.
    pub fn seen<'a>(&'a self, readings: &'a [MetricReading<'a>]) -> ScaleSeen<'a> {
        ScaleSeen {
            scale: ObservedScale {
                spec_replicas: self.scale.replicas(),
                status_replicas: self.scale.current_replicas(),
                has_selector: true,
            },
            pods: self.measured.pods.as_deref().unwrap_or_default(),
            metrics: &self.metrics,
            readings,
            history: &self.history,
            settings: &self.settings,
        }
    }

    /// Writes a number of replicas, unless the workload has changed since its scale was read. False: it was left alone.
    pub async fn resize(
        &self,
        sleepers: &dyn Sleepers,
        namespace: &str,
        state: &SleeperState,
        replicas: i32,
    ) -> Result<bool, ConditionUpdate> {
        if may_resize(Some(state), self.scale.replicas(), replicas).is_err() {
            return Ok(false);
        }
        match sleepers
            .resize(namespace, &self.workload, &self.scale, replicas)
            .await
        {
            Ok(()) => Ok(true),
            // Somebody else was first: it is decided anew.
            Err(ClusterError::Conflict { .. }) => Ok(false),
            Err(error) => Err(ConditionUpdate::bad(
                condition::ABLE_TO_SCALE,
                "FailedUpdateScale",
                error.to_string(),
            )),
        }
    }
}

/// What is said of a number of replicas that was decided. `resized` is when it was changed, if it was just now.
pub(crate) fn status(
    sleeper: &Sleeper,
    scaled: &Scaled,
    resized: Option<Timestamp>,
    now: Timestamp,
) -> ScalingStatus {
    let known = sleeper.status.as_ref().and_then(|status| status.scaling.as_ref());
    let before = || known.and_then(|known| known.last_scale_time.clone());
    ScalingStatus {
        at: now.to_string(),
        desired_replicas: scaled.decision.replicas.unwrap_or(scaled.decision.current),
        last_scale_time: resized.map(|at| at.to_string()).or_else(before),
        decision: scaled.decision.to_string(),
        history: scaled.history.clone(),
    }
}

/// What holds after a number of replicas was decided.
pub(crate) fn conditions(scaled: &Scaled) -> Vec<ConditionUpdate> {
    let active = match &scaled.conditions.scaling_active {
        Some(active) if !active.holds() => {
            ConditionUpdate::bad(condition::SCALING_ACTIVE, &*active.reason, active.message.clone())
        }
        Some(Condition { .. }) | None => ConditionUpdate::good(condition::SCALING_ACTIVE),
    };
    vec![active, ConditionUpdate::good(condition::ABLE_TO_SCALE)]
}

/// Whether there is anything to decide while it wakes: somebody waits at the DLX, and a metric counts them.
pub(crate) fn wakes_by_demand(target: &Target, policy: &MetricsPolicy, state: &SleeperState) -> bool {
    let counts = |metric: &Metric| metric.source == QuerySource::DlxConcurrency;
    !target.is_platform() && state.phase == Phase::Waking && policy.metrics.iter().any(counts)
}

fn is_waking(state: &SleeperState) -> bool {
    matches!(state.phase, Phase::Waking | Phase::Ready)
}

/// The DLX counts only while it is in the path of the traffic. While it wakes, nothing else says anything yet.
fn says_something(metric: &Metric, state: &SleeperState) -> bool {
    let counted = metric.source == QuerySource::DlxConcurrency;
    match state.phase {
        Phase::Waking => counted,
        Phase::Observing => true,
        Phase::Awake | Phase::Diverting | Phase::Draining | Phase::Asleep | Phase::Ready => !counted,
    }
}

fn only_workload(target: &Target) -> Result<&ObjectRef, ConditionUpdate> {
    match target.workloads() {
        [workload] => Ok(workload),
        workloads => Err(ConditionUpdate::bad(
            condition::SCALING_ACTIVE,
            "NotOneWorkload",
            format!(
                "it names {} workloads; a number of replicas is decided for exactly one",
                workloads.len()
            ),
        )),
    }
}

fn selector(workload: &ObjectRef, scale: &WorkloadScale) -> Result<LabelSelector, ConditionUpdate> {
    let ObjectRef { kind, name, .. } = workload;
    let bad = |why: String| ConditionUpdate::bad(condition::SCALING_ACTIVE, "InvalidSelector", why);
    let selector: Result<LabelSelector, _> = scale.selector().parse();
    match selector {
        Ok(selector) if selector.is_empty() => Err(bad(format!(
            "{kind} {name} does not say which pods are its own: its scale has no selector"
        ))),
        Ok(selector) => Ok(selector),
        Err(error) => Err(bad(format!("which pods {kind} {name} has is not clear: {error}"))),
    }
}

/// The answers for the metrics that could be asked for, among those that could not.
fn in_order(metrics: &[&Metric], answers: Vec<MetricSamples>) -> Vec<MetricSamples> {
    let mut answers = answers.into_iter();
    let samples = metrics.iter().map(|metric| match &metric.query {
        Ok(_) => answers
            .next()
            .unwrap_or_else(|| MetricSamples::Unavailable("it was not asked for".to_owned())),
        Err(why) => MetricSamples::Unavailable(why.clone()),
    });
    samples.collect()
}

/// What was recommended before. What this process remembers is more exact than what is written, as long as nobody else has written. After
/// a wake everything begins anew.
fn history(sleeper: &Sleeper, known: Option<&ScalingHistory>, now: Timestamp) -> ScalingHistory {
    let status = sleeper.status.as_ref();
    let written = status.and_then(|status| status.scaling.as_ref());
    let Some(written) = written.map(|scaling| &scaling.history) else {
        return ScalingHistory::default();
    };
    let remembered = known.filter(|known| known.is_same(written));
    let history = remembered.unwrap_or(written);
    let last = history.recommendations.last().map(|last| last.at);
    let woken = state(sleeper).wake_started;
    if woken.is_some() && woken > last {
        ScalingHistory::default()
    } else if remembered.is_some() {
        history.clone()
    } else {
        history.clone().resumed(now)
    }
}
