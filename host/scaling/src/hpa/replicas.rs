//! How many replicas one metric asks for.

use std::collections::HashMap;

use super::pods::{Pod, PodGroups, Readiness};
use super::usage::{self, PodSample, PodValue, Usage};
use super::{MetricError, Tolerances, requests};
use crate::LimitKind;
use crate::saturate::{ceil, to_i64};
use crate::utilization::{Amounts, Utilization, assume_opposite, contradict};

/// The only resource whose samples do not count while a pod starts up.
const CPU: &str = "cpu";

/// What one metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// So many replicas, before bounds, windows and policies. Below zero only for a metric below zero.
    pub replicas: i32,
    /// What the metric is now.
    pub current: MetricValue,
    /// Why this is the current number of replicas although the metric is not exactly at its target.
    pub held_by: Option<LimitKind>,
}

/// What a metric is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricValue {
    /// A share of what is requested.
    Utilization {
        /// In percent, cut to a whole number.
        percent: i32,
        /// The average per pod, in milli-units.
        average: i64,
    },
    /// An average per pod, in milli-units.
    AverageValue(i64),
    /// A total, in milli-units.
    Value(i64),
}

/// Calculates what single metrics ask for.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaCalculator<'a> {
    /// The pods of the target.
    pub pods: &'a [Pod],
    /// How far a metric may be from its target.
    pub tolerances: Tolerances,
    /// When the CPU usage of a pod counts.
    pub readiness: Readiness,
}

/// What the usage of pods is measured by.
enum Goal<'a> {
    /// Percent of their requests, which are in milli-units.
    Utilization { percent: i32, requests: Amounts<'a> },
    /// An average, in milli-units.
    Average(i64),
}

impl ReplicaCalculator<'_> {
    /// For a share of the requests of a resource: `target` percent, on average. `samples` are the answer of the resource metrics API
    /// for all pods; with `container`, only that container of each counts.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn resource_utilization(
        &self,
        current: i32,
        target: i32,
        resource: &str,
        container: Option<&str>,
        samples: &[PodSample],
    ) -> Result<Proposal, MetricError> {
        above_zero(target.into())?;
        let usages = resource_usages(samples, resource, container)?;
        let goal = || {
            Ok(Goal::Utilization {
                percent: target,
                requests: requests::of_pods(self.pods, resource, container)?,
            })
        };
        self.per_pod(current, usages, resource == CPU, goal)
    }

    /// For an average of a resource: `target` milli-units per pod.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn resource_average(
        &self,
        current: i32,
        target: i64,
        resource: &str,
        container: Option<&str>,
        samples: &[PodSample],
    ) -> Result<Proposal, MetricError> {
        above_zero(target)?;
        let usages = resource_usages(samples, resource, container)?;
        self.per_pod(current, usages, resource == CPU, || Ok(Goal::Average(target)))
    }

    /// For an average of what pods report: `target` milli-units per pod.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn pods_average(
        &self,
        current: i32,
        target: i64,
        values: &[PodValue],
    ) -> Result<Proposal, MetricError> {
        above_zero(target)?;
        if values.is_empty() {
            return Err(none_returned());
        }
        let usages = usage::of_values(values, self.readiness.now);
        self.per_pod(current, usages, false, || Ok(Goal::Average(target)))
    }

    /// For the total of an object: `target` and `value` in milli-units. `current` is what the scale asks for.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn object_value(&self, current: i32, target: i64, value: i64) -> Result<Proposal, MetricError> {
        above_zero(target)?;
        let ratio = value as f64 / target as f64;
        let (replicas, held_by) = self.of_ratio(current, ratio)?;
        Ok(Proposal {
            replicas,
            current: MetricValue::Value(value),
            held_by,
        })
    }

    /// For the total of an object divided by the replicas: `target` and `value` in milli-units. `current` is what the scale has.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn object_average(&self, current: i32, target: i64, value: i64) -> Result<Proposal, MetricError> {
        above_zero(target)?;
        Ok(self.of_average(current, target, value))
    }

    /// For the sum of an external metric: `target` and `values` in milli-units. `current` is what the scale asks for.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn external_value(&self, current: i32, target: i64, values: &[i64]) -> Result<Proposal, MetricError> {
        if values.is_empty() {
            return Err(none_returned());
        }
        let mut total = 0_i64;
        for value in values {
            match total.checked_add(*value) {
                Some(sum) => total = sum,
                // What comes behind an overflow is not looked at.
                None if *value > 0 => {
                    total = i64::MAX;
                    break;
                }
                None => total = i64::MIN,
            }
        }
        self.object_value(current, target, total)
    }

    /// For the sum of an external metric divided by the replicas: `target` and `values` in milli-units. `current` is what the
    /// scale has. A sum below zero, even on the way, counts as the largest number: Kubernetes takes it for an overflow.
    ///
    /// # Errors
    /// [`MetricError`] when the metric says nothing.
    pub fn external_average(
        &self,
        current: i32,
        target: i64,
        values: &[i64],
    ) -> Result<Proposal, MetricError> {
        above_zero(target)?;
        if values.is_empty() {
            return Err(none_returned());
        }
        let add = |sum: i64, value: &i64| sum.checked_add(*value).filter(|sum| *sum >= 0);
        let total = values.iter().try_fold(0, add).unwrap_or(i64::MAX);
        let proposal = self.of_average(current, target, total);
        // As a float it is the same as the largest number, which is not divided.
        if total as f64 >= i64::MAX as f64 {
            return Ok(Proposal {
                current: MetricValue::AverageValue(i64::MAX),
                ..proposal
            });
        }
        Ok(proposal)
    }

    /// For a ratio of a total to its target.
    fn of_ratio(&self, current: i32, ratio: f64) -> Result<(i32, Option<LimitKind>), MetricError> {
        if current == 0 {
            return Ok((ceil(ratio), None));
        }
        if self.tolerances.contain(ratio) {
            return Ok((current, held(LimitKind::Tolerance, ratio)));
        }
        if self.pods.is_empty() {
            return Err(MetricError::NoPods);
        }
        let ready = self.pods.iter().filter(|pod| pod.is_ready()).count();
        Ok((ceil(ratio * ready as f64), None))
    }

    /// For a total that is divided by the replicas.
    fn of_average(&self, current: i32, target: i64, total: i64) -> Proposal {
        // Without replicas this is infinite or not a number, so never within tolerance.
        let ratio = total as f64 / (target as f64 * f64::from(current));
        let (replicas, held_by) = if self.tolerances.contain(ratio) {
            (current, held(LimitKind::Tolerance, ratio))
        } else {
            (ceil(total as f64 / target as f64), None)
        };
        Proposal {
            replicas,
            current: MetricValue::AverageValue((total as f64 / f64::from(current)).ceil() as i64),
            held_by,
        }
    }

    /// For what each pod uses. The goal is made only once there is a sample that counts.
    fn per_pod<'a>(
        &'a self,
        current: i32,
        mut usages: HashMap<&'a str, Usage>,
        is_cpu: bool,
        goal: impl FnOnce() -> Result<Goal<'a>, MetricError>,
    ) -> Result<Proposal, MetricError> {
        if self.pods.is_empty() {
            return Err(MetricError::NoPods);
        }
        let groups = PodGroups::of(self.pods, &usages, is_cpu.then_some(&self.readiness));
        usages.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        if usages.is_empty() {
            return Err(MetricError::NoUsableMetrics);
        }
        let goal = goal()?;
        let usages = usages.into_iter();
        let values: Amounts<'a> = usages.map(|(pod, usage)| (pod, usage.value)).collect();
        let (ratio, metric) = goal.ratio(&values)?;
        let rebalance = !groups.missing.is_empty() || (!groups.unready.is_empty() && ratio > 1.0);
        let (replicas, held_by) = if rebalance {
            self.rebalanced(current, &goal, ratio, values, &groups)?
        } else if self.tolerances.contain(ratio) {
            (current, held(LimitKind::Tolerance, ratio))
        } else {
            (ceil(ratio * groups.ready as f64), None)
        };
        Ok(Proposal {
            replicas,
            current: metric,
            held_by,
        })
    }

    /// For what each pod uses, where some of them could turn it round.
    fn rebalanced<'a>(
        &self,
        current: i32,
        goal: &Goal<'_>,
        ratio: f64,
        mut values: Amounts<'a>,
        groups: &PodGroups<'a>,
    ) -> Result<(i32, Option<LimitKind>), MetricError> {
        let unready = groups.unready.iter().copied();
        assume_opposite(&mut values, ratio, &groups.missing, unready, |pod| {
            goal.full_usage(pod)
        });
        let (rebalanced, _) = goal.ratio(&values)?;
        if self.tolerances.contain(rebalanced) {
            return Ok((current, held(LimitKind::Tolerance, rebalanced)));
        }
        let replicas = ceil(rebalanced * values.len() as f64);
        let turned = (rebalanced < 1.0 && replicas > current) || (rebalanced > 1.0 && replicas < current);
        if turned || contradict(ratio, rebalanced) {
            return Ok((current, Some(LimitKind::MissingSamples)));
        }
        Ok((replicas, None))
    }
}

impl Goal<'_> {
    /// The ratio of what the pods use to the goal, and what they use.
    fn ratio(&self, values: &Amounts<'_>) -> Result<(f64, MetricValue), MetricError> {
        match self {
            Self::Utilization { percent, requests } => {
                let utilization = Utilization::of(values, requests).ok_or(MetricError::NoRequests)?;
                let metric = MetricValue::Utilization {
                    percent: utilization.percent,
                    average: utilization.average,
                };
                Ok((utilization.ratio_to(*percent), metric))
            }
            Self::Average(target) => {
                let used: i128 = values.values().copied().map(i128::from).sum();
                let average = to_i64(used.checked_div(values.len() as i128).unwrap_or(0));
                let ratio = average as f64 / *target as f64;
                Ok((ratio, MetricValue::AverageValue(average)))
            }
        }
    }

    /// What a pod is taken to use if nothing is known and the others use too little: all that it requests or, where that is more,
    /// what it should use.
    fn full_usage(&self, pod: &str) -> i64 {
        match self {
            Self::Utilization { percent, requests } => {
                let request = requests.get(pod).copied().unwrap_or(0);
                to_i64(i128::from(request) * i128::from((*percent).max(100)) / 100)
            }
            Self::Average(target) => *target,
        }
    }
}

/// What held a metric, unless it is exactly at its target.
fn held(kind: LimitKind, ratio: f64) -> Option<LimitKind> {
    (ratio != 1.0).then_some(kind)
}

fn above_zero(target: i64) -> Result<(), MetricError> {
    if target > 0 {
        Ok(())
    } else {
        Err(MetricError::InvalidTarget)
    }
}

fn none_returned() -> MetricError {
    MetricError::MetricsUnavailable("the metrics API returned none".to_owned())
}

fn resource_usages<'a>(
    samples: &'a [PodSample],
    resource: &str,
    container: Option<&str>,
) -> Result<HashMap<&'a str, Usage>, MetricError> {
    if samples.is_empty() {
        return Err(none_returned());
    }
    Ok(usage::of_resource(samples, resource, container))
}
