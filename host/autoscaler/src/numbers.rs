//! What the number of replicas of a target follows from, gathered; and the number, written.

mod remembered;

use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{ClusterError, WorkloadScale};
use dormouse_model::{
    LabelSelector, Metric, MetricSpec, MetricsPolicy, ObjectRef, Phase, Policy, Query, QuerySource, Target,
};
use dormouse_readings::{Measurements, Meter, MetricSamples};
use dormouse_scaling::hpa::{MetricReading, ObservedScale, Settings};
use dormouse_scaling::{Sample, ScaleSeen, Scaled, ScalingHistory};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::lifecycle::{DesiredState, SleeperState, may_resize};
use dormouse_sleepers::{ConditionUpdate, DesiredStateError, Sleeper, SleeperKey};
use jiff::Timestamp;

use crate::Sleepers;
use crate::key::sleeper_key;
use crate::metrics::Metrics;
use crate::sleepers::{is_going, state, state_of};
pub(crate) use remembered::{Remembered, looked_at, status};

/// What is asked of the DLX while somebody waits there may be this old.
const FRESH: Duration = Duration::from_millis(200);

/// Everything that the number of replicas of a target follows from.
pub(crate) struct Numbers {
    workload: ObjectRef,
    scale: WorkloadScale,
    has_selector: bool,
    metrics: Vec<MetricSpec>,
    measured: Measurements,
    history: ScalingHistory,
    last_scale: Option<Timestamp>,
    settings: Settings,
    /// The target, if it has a Sleeper.
    sleeper: Option<SleeperKey>,
    namespace: String,
}

/// What gathering needs.
pub(crate) struct Gatherer<'a> {
    pub sleepers: &'a dyn Sleepers,
    pub meter: &'a dyn Meter,
    pub metrics: &'a Metrics,
    pub settings: &'a Settings,
}

impl Gatherer<'_> {
    /// Gathers for a target whose number of replicas is decided. None: nothing decides it, it has no replicas, or it is to go to sleep.
    /// `resized` is when this process last changed the number, which a source that remembers it may not know yet.
    ///
    /// # Errors
    /// A condition that says why nothing can be decided.
    pub async fn gather(
        &self,
        target: &Target,
        sleeper: Option<&Sleeper>,
        remembered: Option<&Remembered>,
        resized: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Numbers>, ConditionUpdate> {
        let state = state_of(sleeper);
        if state.desired == DesiredState::Asleep {
            return Ok(None);
        }
        let Some(questions) = questions(target, state) else {
            return Ok(None);
        };
        let workload = only_workload(target)?;
        let (key, namespace) = (sleeper_key(&target.key), &target.key.namespace);
        let other = self.sleepers.other_scaler(&key, sleeper.is_some(), workload);
        if let Some(other) = other {
            return Err(unable("OtherScaler", other));
        }
        let scale = self.sleepers.scale(namespace, workload).await;
        let scale = scale.map_err(|error| unable("FailedGetScale", error.to_string()))?;
        let current = scale.replicas();
        // Zero of what no Sleeper tells about is told with the decision.
        if current <= 0 && sleeper.is_some() {
            return Ok(None);
        }
        let selector = scale.selector().parse::<LabelSelector>().ok();
        let selector = selector.filter(|selector| !selector.is_empty());
        let max_age = if state.phase == Phase::Waking {
            FRESH
        } else {
            target.every / 2
        };
        let measured = match &selector {
            Some(selector) if current > 0 => {
                let asked: Vec<_> = questions
                    .iter()
                    .filter_map(|question| question.query.clone().ok())
                    .collect();
                let measured = self
                    .meter
                    .measure(namespace, selector, &asked, max_age, now)
                    .await;
                Measurements {
                    samples: in_order(&questions, measured.samples),
                    ..measured
                }
            }
            // Whatever were read, nobody knows which pods it is about. Bounds hold all the same.
            _ => Measurements::default(),
        };
        for (question, samples) in questions.iter().zip(&measured.samples) {
            self.metrics
                .reading(&target.key.owner, question.source.as_str(), samples.result());
        }
        Ok(Some(Numbers {
            workload: workload.clone(),
            scale,
            has_selector: selector.is_some(),
            metrics: questions
                .iter()
                .filter_map(|question| question.spec.cloned())
                .collect(),
            measured,
            history: sleeper
                .map(|sleeper| remembered::history(sleeper, remembered, current, now))
                .unwrap_or_default(),
            last_scale: last_scale(&target.policy).max(resized),
            settings: *self.settings,
            sleeper: sleeper.map(|_| key),
            namespace: namespace.clone(),
        }))
    }
}

impl Numbers {
    /// Hands out what was read in the form in which it is decided on.
    pub fn readings(&self) -> Vec<MetricReading<'_>> {
        let samples = self.measured.samples.iter();
        samples.map(MetricSamples::as_reading).collect()
    }

    /// Everything, with these readings.
    pub fn seen<'a>(&'a self, readings: &'a [MetricReading<'a>]) -> ScaleSeen<'a> {
        ScaleSeen {
            scale: ObservedScale {
                spec_replicas: self.scale.replicas(),
                status_replicas: self.scale.current_replicas(),
                has_selector: self.has_selector,
            },
            pods: &self.measured.pods,
            metrics: &self.metrics,
            readings,
            history: &self.history,
            last_scale: self.last_scale,
            settings: &self.settings,
        }
    }

    /// Whether as many replicas as are wanted are asked for already, or more in the same direction, though there are others.
    pub fn is_under_way(&self, current: i32, wanted: i32) -> bool {
        let asked = self.scale.replicas();
        (current < wanted && wanted <= asked) || (asked <= wanted && wanted < current)
    }

    /// Writes a number of replicas, unless the workload has changed since its scale was read. False: it was left alone.
    pub async fn resize(
        &self,
        sleepers: &dyn Sleepers,
        state: Option<&SleeperState>,
        replicas: i32,
    ) -> Result<bool, ConditionUpdate> {
        if may_resize(state, self.scale.replicas(), replicas).is_err() {
            return Ok(false);
        }
        let written = sleepers.resize(
            &self.namespace,
            self.sleeper.as_ref(),
            &self.workload,
            &self.scale,
            replicas,
        );
        match written.await {
            Ok(()) => Ok(true),
            // Somebody else was first: it is decided anew.
            Err(
                DesiredStateError::Cluster(ClusterError::Conflict { .. })
                | DesiredStateError::Unknown(_)
                | DesiredStateError::Superseded,
            ) => Ok(false),
            Err(DesiredStateError::Denied(why)) => Err(unable("Denied", why)),
            Err(error) => Err(unable("FailedUpdateScale", error.to_string())),
        }
    }
}

/// A number of replicas can be neither decided nor written.
fn unable(reason: &'static str, why: String) -> ConditionUpdate {
    ConditionUpdate::bad(condition::ABLE_TO_SCALE, reason, why)
}

/// Whether the metrics say how many replicas there should be, if they were asked.
pub(crate) fn active(scaled: &Scaled) -> Option<ConditionUpdate> {
    let active = scaled.conditions.scaling_active.as_ref()?;
    Some(if active.holds() {
        ConditionUpdate::good(condition::SCALING_ACTIVE)
    } else {
        ConditionUpdate::bad(condition::SCALING_ACTIVE, &*active.reason, active.message.clone())
    })
}

/// Whether a condition says that a number of replicas cannot be decided or written.
pub(crate) fn is_trouble(update: &ConditionUpdate) -> bool {
    !update.status && [condition::SCALING_ACTIVE, condition::ABLE_TO_SCALE].contains(&update.kind)
}

/// What holds where nothing decides a number of replicas.
pub(crate) fn undecided() -> [ConditionUpdate; 2] {
    [condition::SCALING_ACTIVE, condition::ABLE_TO_SCALE].map(ConditionUpdate::good)
}

/// A metric that failed, of several: where the others ask for more, that is followed, and where they ask for less it is not.
pub(crate) fn failed_metric(scaled: &Scaled) -> Option<ConditionUpdate> {
    let inputs = &scaled.decision.inputs;
    inputs.iter().find_map(|input| match &input.sample {
        Sample::Error(why) => {
            let message = format!("{}: {why}", input.name);
            Some(ConditionUpdate::bad(
                condition::READINGS,
                "ReadingFailed",
                message,
            ))
        }
        Sample::Value(_) | Sample::NoData(_) => None,
    })
}

/// How the replicas of what wakes are decided, if requests that wait for it decide about them: it was asleep, so somebody may wait at the
/// DLX, and a metric counts them. A wake that has failed is left to a person.
pub(crate) fn woken_by_demand<'t>(target: &'t Target, sleeper: &Sleeper) -> Option<&'t MetricsPolicy> {
    let Policy::Metrics(policy) = &target.policy else {
        return None;
    };
    let counts = |metric: &Metric| metric.source.counts_requests();
    let state = state(sleeper);
    let wakes = !target.is_platform()
        && !is_going(sleeper)
        && state.phase == Phase::Waking
        && state.has_slept()
        && state.current_wake_failure().is_none();
    (wakes && policy.metrics.iter().any(counts)).then_some(policy)
}

/// What is asked to decide a number of replicas.
struct Question<'t> {
    source: QuerySource,
    query: &'t Result<Arc<Query>, String>,
    /// What the answer should be, where that is said of each metric.
    spec: Option<&'t MetricSpec>,
}

/// What is asked for a target now. None: nothing decides its number of replicas.
fn questions<'t>(target: &'t Target, state: &SleeperState) -> Option<Vec<Question<'t>>> {
    match &target.policy {
        Policy::Idle => None,
        Policy::Metrics(policy) => {
            let metrics = policy.metrics.iter();
            let metrics = metrics.filter(|metric| says_something(metric, state));
            let questions = metrics.map(|metric| Question {
                source: metric.source,
                query: &metric.query,
                spec: Some(&metric.spec),
            });
            Some(questions.collect())
        }
        Policy::Memory(policy) => Some(vec![Question {
            source: QuerySource::Prometheus,
            query: &policy.usage,
            spec: None,
        }]),
    }
}

/// When the number of replicas was last changed, as far as its source remembers.
fn last_scale(policy: &Policy) -> Option<Timestamp> {
    match policy {
        Policy::Memory(policy) => policy.last_scale,
        Policy::Idle | Policy::Metrics(_) => None,
    }
}

/// The DLX has all traffic only while there are no pods to connect to: when it looks at the traffic, connections that were open go past it.
/// While a target wakes, nothing else says anything yet.
fn says_something(metric: &Metric, state: &SleeperState) -> bool {
    metric.source.counts_requests() == (state.phase == Phase::Waking)
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

/// The answers to the questions that could be asked, among those that could not.
fn in_order(questions: &[Question<'_>], answers: Vec<MetricSamples>) -> Vec<MetricSamples> {
    let mut answers = answers.into_iter();
    let samples = questions.iter().map(|question| match question.query {
        Ok(_) => answers
            .next()
            .unwrap_or_else(|| MetricSamples::NoData("it was not asked for".to_owned())),
        Err(why) => MetricSamples::Error(why.clone()),
    });
    samples.collect()
}
