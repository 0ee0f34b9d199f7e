//! Readings: where the numbers come from that rules compare.
//!
//! Each custom metric is asked for once in a round, for all objects of its kind in its namespace, and the values are handed
//! to whoever has a rule for it. Calls run at once, up to a bound, each with its own deadline. A target waits for
//! its own readings only, so a call that hangs holds up nobody who does not use it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::lifecycle::Phase;
use dormouse_kubernetes::{DemandEntry, MetricValue};
use dormouse_plugin::types::{GroupKind, MetricSource, Rule};
use dormouse_scaling::{Input, Quantity, Reading, metric_name, window_name};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::Metrics;
use crate::target::Target;
use crate::{CustomMetrics, Sleepers};

type Answer<T> = Shared<BoxFuture<'static, Arc<Result<T, String>>>>;
type Values = BTreeMap<String, MetricValue>;
type AllDemand = BTreeMap<(String, String), DemandEntry>;

/// How metrics are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Calls of one source at once.
    pub concurrency: usize,
    /// Deadline of each call.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    group: String,
    kind: String,
    namespace: String,
    metric: String,
}

/// Everything that is being read in one round.
pub(crate) struct Readings {
    plugin: String,
    metrics_resource: Option<GroupKind>,
    calls: HashMap<Call, Answer<Values>>,
    demand: Option<Answer<AllDemand>>,
    metrics: Metrics,
}

impl Readings {
    /// Starts every call that the targets need. They end with this value.
    pub fn start(
        plugin: &str,
        metrics_resource: Option<GroupKind>,
        targets: &[Target],
        custom: &Arc<dyn CustomMetrics>,
        sleepers: &Arc<dyn Sleepers>,
        policy: Policy,
        metrics: Metrics,
    ) -> Self {
        let mut readings = Self {
            plugin: plugin.to_owned(),
            metrics_resource,
            calls: HashMap::new(),
            demand: None,
            metrics,
        };
        let places = Arc::new(Semaphore::new(policy.concurrency.max(1)));
        for target in targets {
            for rule in &target.resource.rules {
                match &rule.source {
                    MetricSource::Custom(metric) => {
                        let call = readings.call(target, metric, rule);
                        readings.calls.entry(call.clone()).or_insert_with(|| {
                            ask(call, Arc::clone(custom), Arc::clone(&places), policy.timeout)
                        });
                    }
                    MetricSource::ObservedTraffic if target.state().phase != Phase::Awake => {
                        let sleepers = Arc::clone(sleepers);
                        readings.demand.get_or_insert_with(|| {
                            shared(async move {
                                tokio::time::timeout(policy.timeout, sleepers.demand())
                                    .await
                                    .unwrap_or_else(|_| Err(late(policy.timeout)))
                            })
                        });
                    }
                    MetricSource::ObservedTraffic | MetricSource::Other { .. } => {}
                }
            }
        }
        readings
    }

    fn call(&self, target: &Target, metric: &str, rule: &Rule) -> Call {
        let (group, kind) = match &self.metrics_resource {
            Some(resource) => (resource.group.clone(), resource.kind.clone()),
            None => {
                let object = &target.resource.object;
                let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
                (group.to_owned(), object.kind.clone())
            }
        };
        let namespace = target.key.namespace.clone();
        Call {
            group,
            kind,
            namespace,
            metric: metric_name(metric, rule.window),
        }
    }

    /// What is read for each rule of a target, once it is there.
    pub async fn inputs(&self, target: &Target, now: Timestamp) -> Vec<Input> {
        let mut inputs = Vec::with_capacity(target.resource.rules.len());
        for rule in &target.resource.rules {
            inputs.push(self.input(target, rule, now).await);
        }
        inputs
    }

    async fn input(&self, target: &Target, rule: &Rule, now: Timestamp) -> Input {
        let (source, metric) = match &rule.source {
            MetricSource::ObservedTraffic => ("observed-traffic", "observed traffic".to_owned()),
            MetricSource::Custom(metric) => ("custom", metric.clone()),
            MetricSource::Other { kind, .. } => ("other", kind.clone()),
        };
        let (threshold, reading) = match rule.threshold.parse::<Quantity>() {
            Err(error) => (
                Quantity::zero(),
                Reading::Error(format!("the threshold is wrong: {error}")),
            ),
            Ok(threshold) => {
                let reading = match &rule.source {
                    MetricSource::ObservedTraffic => self.observed(target, rule, &threshold, now).await,
                    MetricSource::Custom(metric) => self.custom(target, metric, rule).await,
                    MetricSource::Other { kind, .. } => Reading::Error(format!(
                        "this version of Dormouse does not know the reading {kind:?}"
                    )),
                };
                (threshold, reading)
            }
        };
        let result = match &reading {
            Reading::Value(_) => "value",
            Reading::NoData(_) => "no-data",
            Reading::Error(_) => "error",
        };
        self.metrics.reading(&self.plugin, source, result);
        let rule = dormouse_scaling::Rule {
            metric,
            window: rule.window,
            threshold,
        };
        Input { rule, reading }
    }

    async fn custom(&self, target: &Target, metric: &str, rule: &Rule) -> Reading {
        let call = self.call(target, metric, rule);
        let Some(answer) = self.calls.get(&call) else {
            return Reading::Error("it was not asked for".to_owned());
        };
        // Metrics of the resource's own object go by its name; metrics of another kind by the resource's.
        let object = &target.resource.object;
        let name = if call.kind == object.kind {
            &object.name
        } else {
            &target.key.resource
        };
        match &*answer.clone().await {
            Err(error) => Reading::Error(error.clone()),
            Ok(values) => match values.get(name) {
                None => {
                    Reading::NoData(format!("{} says nothing about {} {name}", call.metric, call.kind).into())
                }
                Some(MetricValue::Ambiguous) => Reading::Error(format!(
                    "{} has several values for {} {name}",
                    call.metric, call.kind
                )),
                Some(MetricValue::Value(text)) => match text.parse() {
                    Ok(value) => Reading::Value(value),
                    Err(error) => Reading::Error(format!("{} has a wrong value: {error}", call.metric)),
                },
            },
        }
    }

    /// Requests and connections at the DLX since it stepped into the traffic, once that is long enough ago.
    async fn observed(&self, target: &Target, rule: &Rule, threshold: &Quantity, now: Timestamp) -> Reading {
        if !threshold.is_zero() {
            return Reading::Error("the threshold of observed traffic must be 0".to_owned());
        }
        if target.resource.services.is_empty() {
            return Reading::Error("it has no Service whose traffic could be observed".to_owned());
        }
        let state = target.state();
        let (Phase::Diverting | Phase::Observing | Phase::Draining, Some(answer)) =
            (state.phase, &self.demand)
        else {
            return Reading::NoData("not observed yet".into());
        };
        let answer = answer.clone().await;
        let demand = match &*answer {
            Err(error) => return Reading::Error(format!("demand is unknown: {error}")),
            Ok(demand) => demand,
        };
        let namespace = target.sleeper.namespace().unwrap_or_default();
        let entry = demand.get(&(namespace, target.sleeper.name_any()));
        let current = entry.map_or(0, DemandEntry::current);
        if current > 0 {
            return Reading::Value(Quantity::from(current));
        }
        let observed = match (state.phase, state.since) {
            (Phase::Observing, Some(since)) => now.duration_since(since),
            _ => return Reading::NoData("not observed yet".into()),
        };
        let window = SignedDuration::try_from(rule.window).unwrap_or(SignedDuration::MAX);
        let quiet = entry
            .and_then(|entry| entry.idle_millis)
            .map(|millis| SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)));
        // What ended before the DLX stepped in belongs to an earlier time.
        if quiet.is_some_and(|quiet| quiet < window && quiet < observed) {
            return Reading::Value(Quantity::from(1));
        }
        if observed < window {
            return Reading::NoData(format!("observed for less than {}", window_name(rule.window)).into());
        }
        Reading::Value(Quantity::zero())
    }
}

fn ask(
    call: Call,
    custom: Arc<dyn CustomMetrics>,
    places: Arc<Semaphore>,
    timeout: Duration,
) -> Answer<Values> {
    shared(async move {
        // Never closed.
        let _place = places.acquire().await;
        let read = custom.read(&call.group, &call.kind, &call.namespace, &call.metric);
        tokio::time::timeout(timeout, read)
            .await
            .unwrap_or_else(|_| Err(late(timeout)))
    })
}

fn late(timeout: Duration) -> String {
    format!("no answer within {}", window_name(timeout))
}

/// Runs by itself and can be awaited by many; ends when nobody is interested any more.
fn shared<T: Send + Sync + 'static>(
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Answer<T> {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    async move {
        Arc::new(
            task.await
                .unwrap_or_else(|error| Err(format!("the reading did not end: {error}"))),
        )
    }
    .boxed()
    .shared()
}
