//! Rounds of an autoscaler.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_model::{MetricSpec, MetricTarget, Quantity};
use dormouse_scaling::hpa::{
    Autoscaler, Computation, Condition, ConditionStatus, Conditions, EventReason, History, MetricReading,
    MetricValue, Observed, ObservedScale, Pod, PodSample, PodValue, Readiness, Reconciliation,
    ReplicaCalculator, Settings, Tolerances, compute, default_metrics, reconcile,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::behavior::{EventInput, RecommendationInput, behavior, history, remembered};
use crate::compare::assert_all_read;
use crate::pods::{PodInput, SampleInput, at, now, ready_pod};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    min: Option<i32>,
    max: i32,
    #[serde(default)]
    metrics: Vec<Value>,
    behavior: Option<Value>,
    scaled_to_zero: Option<String>,
    spec_replicas: i32,
    status_replicas: i32,
    #[serde(default)]
    no_selector: bool,
    #[serde(default)]
    scale_to_zero_gate_off: bool,
    global_tolerance: f64,
    cpu_init_ms: u64,
    ready_delay_ms: u64,
    downscale_window_s: u64,
    #[serde(default)]
    pods: Vec<PodInput>,
    #[serde(default)]
    pod_samples: Vec<SampleInput>,
    #[serde(default)]
    pods_metrics: BTreeMap<String, Vec<SampleInput>>,
    #[serde(default)]
    object: BTreeMap<String, i64>,
    #[serde(default)]
    external: BTreeMap<String, Vec<i64>>,
    #[serde(default)]
    recommendations: Vec<RecommendationInput>,
    #[serde(default)]
    scale_up_events: Vec<EventInput>,
    #[serde(default)]
    scale_down_events: Vec<EventInput>,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    advance_ms: i64,
    set_spec_replicas: Option<i32>,
    set_min: Option<i32>,
    #[serde(default)]
    object: BTreeMap<String, i64>,
    #[serde(default)]
    external: BTreeMap<String, Vec<i64>>,
}

/// An autoscaler between two rounds.
struct Controller {
    settings: Settings,
    min: Option<i32>,
    max: i32,
    metrics: Vec<MetricSpec>,
    behavior: Option<dormouse_model::Behavior>,
    conditions: Conditions,
    desired_replicas: i32,
    history: History,
}

/// What there is to see in a round.
struct World<'a> {
    scale: ObservedScale,
    pods: &'a [Pod],
    usage: &'a [PodSample],
    per_pod: &'a BTreeMap<String, Vec<PodValue>>,
    object: &'a BTreeMap<String, i64>,
    external: &'a BTreeMap<String, Vec<i64>>,
    now: Timestamp,
}

fn parse(input: &Value) -> Input {
    serde_json::from_value(input.clone()).unwrap_or_else(|error| panic!("{error}: {input}"))
}

impl Input {
    fn controller(&self) -> Controller {
        let metrics = self.metrics.iter().map(|declared| {
            let metric: MetricSpec = serde_json::from_value(declared.clone()).unwrap();
            assert_all_read(declared, &serde_json::to_value(&metric).unwrap());
            metric
        });
        Controller {
            settings: Settings {
                tolerance: self.global_tolerance,
                downscale_stabilization: Duration::from_secs(self.downscale_window_s),
                cpu_initialization_period: Duration::from_millis(self.cpu_init_ms),
                initial_readiness_delay: Duration::from_millis(self.ready_delay_ms),
                scale_to_zero: !self.scale_to_zero_gate_off,
            },
            min: self.min,
            max: self.max,
            metrics: metrics.collect(),
            behavior: self.behavior.as_ref().map(behavior),
            conditions: Conditions {
                scaled_to_zero: self.scaled_to_zero.as_deref().map(|status| Condition {
                    status: match status {
                        "True" => ConditionStatus::True,
                        "False" => ConditionStatus::False,
                        "Unknown" => ConditionStatus::Unknown,
                        other => panic!("{other} is no status"),
                    },
                    reason: "Initial".into(),
                    message: String::new(),
                }),
                ..Conditions::default()
            },
            desired_replicas: 0,
            history: history(
                &self.recommendations,
                &self.scale_up_events,
                &self.scale_down_events,
            ),
        }
    }

    fn scale(&self, spec_replicas: i32, status_replicas: i32) -> ObservedScale {
        ObservedScale {
            spec_replicas,
            status_replicas,
            has_selector: !self.no_selector,
        }
    }
}

impl<'a> World<'a> {
    /// What was read for a metric.
    fn reading(&self, metric: &MetricSpec) -> MetricReading<'a> {
        let missing = MetricReading::Unavailable("metric not found");
        match metric {
            MetricSpec::Resource { .. } | MetricSpec::ContainerResource { .. } => {
                MetricReading::Usage(self.usage)
            }
            MetricSpec::Pods { pods } => {
                let values = self.per_pod.get(&pods.metric.name);
                values.map_or(missing, |values| MetricReading::PerPod(values))
            }
            MetricSpec::Object { object } => {
                let value = self.object.get(&object.metric.name);
                value.map_or(missing, |value| MetricReading::Value(*value))
            }
            MetricSpec::External { external } => {
                let values = self.external.get(&external.metric.name);
                values.map_or(missing, |values| MetricReading::Values(values))
            }
        }
    }
}

impl Controller {
    fn metrics(&self) -> Vec<MetricSpec> {
        if self.metrics.is_empty() {
            default_metrics()
        } else {
            self.metrics.clone()
        }
    }

    /// One round, and what is recorded of it.
    fn round(&mut self, world: &World<'_>) -> (Reconciliation, Value) {
        let metrics = self.metrics();
        let readings: Vec<_> = metrics.iter().map(|metric| world.reading(metric)).collect();
        let calculator = ReplicaCalculator {
            pods: world.pods,
            tolerances: Tolerances::of(self.behavior.as_ref(), self.settings.tolerance),
            readiness: Readiness {
                cpu_initialization_period: self.settings.cpu_initialization_period,
                initial_readiness_delay: self.settings.initial_readiness_delay,
                now: world.now,
            },
        };
        let computation = compute(&calculator, world.scale, &self.metrics, &readings);
        let autoscaler = Autoscaler {
            min_replicas: self.min,
            max_replicas: self.max,
            metrics: &self.metrics,
            behavior: self.behavior.as_ref(),
        };
        let observed = Observed {
            scale: world.scale,
            pods: world.pods,
            readings: &readings,
            conditions: &self.conditions,
            desired_replicas: self.desired_replicas,
            now: world.now,
        };
        let round = reconcile(
            &autoscaler,
            &self.settings,
            &observed,
            std::mem::take(&mut self.history),
        );
        assert!(!round.decision.to_string().is_empty());
        self.history = round.history.clone();
        self.conditions = round.conditions.clone();
        self.desired_replicas = round.desired_replicas;
        let output = output(&round, &computation, &metrics);
        (round, output)
    }
}

pub fn run_once(input: &Value) -> Value {
    let input = parse(input);
    assert!(input.steps.is_empty(), "only a sequence has steps");
    let mut controller = input.controller();
    let pods: Vec<_> = input.pods.iter().map(PodInput::pod).collect();
    let usage: Vec<_> = input
        .pod_samples
        .iter()
        .map(|sample| sample.usage("none", None))
        .collect();
    let per_pod = values_per_pod(&input);
    let (round, mut output) = controller.round(&World {
        scale: input.scale(input.spec_replicas, input.status_replicas),
        pods: &pods,
        usage: &usage,
        per_pod: &per_pod,
        object: &input.object,
        external: &input.external,
        now: now(),
    });
    output["current_metrics"] = current_metrics(&round, &controller.metrics());
    let fields = output.as_object_mut().unwrap();
    fields.extend(remembered(&round.history, now()));
    output
}

pub fn run_sequence(input: &Value) -> Value {
    let input = parse(input);
    assert!(
        input.pods.is_empty() && input.pod_samples.is_empty(),
        "a sequence has pods of its own"
    );
    let mut controller = input.controller();
    let (mut now, mut replicas) = (now(), input.spec_replicas);
    let mut steps = Vec::new();
    let per_pod = values_per_pod(&input);
    for step in &input.steps {
        now = at(now, step.advance_ms);
        replicas = step.set_spec_replicas.unwrap_or(replicas);
        controller.min = step.set_min.or(controller.min);
        let pods: Vec<_> = (0..usize::try_from(replicas).unwrap()).map(ready_pod).collect();
        let (round, output) = controller.round(&World {
            scale: input.scale(replicas, replicas),
            pods: &pods,
            usage: &[],
            per_pod: &per_pod,
            object: &step.object,
            external: &step.external,
            now,
        });
        replicas = round.decision.replicas.unwrap_or(replicas);
        steps.push(output);
    }
    json!({ "steps": steps, "status_desired_replicas": 0 })
}

fn values_per_pod(input: &Input) -> BTreeMap<String, Vec<PodValue>> {
    let metrics = input.pods_metrics.iter();
    metrics
        .map(|(name, samples)| (name.clone(), samples.iter().map(SampleInput::value).collect()))
        .collect()
}

fn output(round: &Reconciliation, computation: &Computation, metrics: &[MetricSpec]) -> Value {
    let proposals: Vec<_> = metrics
        .iter()
        .zip(&computation.proposals)
        .map(|(metric, proposal)| match proposal {
            Ok(proposal) => json!({ "replicas": proposal.replicas }),
            Err(_) => json!({ "error_reason": EventReason::of_failed(metric).as_str() }),
        })
        .collect();
    let events: Vec<_> = round.events.iter().map(|event| event.reason.as_str()).collect();
    let failed = |failed: bool| failed.then_some(true);
    json!({
        "proposals": proposals,
        "compute": {
            "replicas": computation.replicas.unwrap_or(-1),
            "metric": computation.deciding.map(|index| name(&metrics[index])),
            "error": failed(computation.error.is_some()),
            "scaling_active": condition(&computation.scaling_active),
        },
        "scale_to": round.decision.replicas.filter(|_| round.decision.rescales()),
        "status_desired_replicas": round.desired_replicas,
        "conditions": {
            "AbleToScale": round.conditions.able_to_scale.as_ref().map(condition),
            "ScalingActive": round.conditions.scaling_active.as_ref().map(condition),
            "ScalingLimited": round.conditions.scaling_limited.as_ref().map(condition),
            "ScaledToZero": round.conditions.scaled_to_zero.as_ref().map(condition),
        },
        "events": events,
        "error": failed(round.error().is_some()),
    })
}

fn condition(condition: &Condition) -> String {
    format!("{:?}/{}", condition.status, condition.reason)
}

/// What Kubernetes calls a metric, mistakes included.
fn name(metric: &MetricSpec) -> String {
    match metric {
        MetricSpec::Resource { resource } => match resource.target {
            MetricTarget::Utilization(_) => {
                format!("{} resource utilization (percentage of request)", resource.name)
            }
            _ => format!("{} resource", resource.name),
        },
        MetricSpec::ContainerResource { container_resource } => match container_resource.target {
            MetricTarget::Utilization(_) => format!(
                "{} container resource utilization (percentage of request)",
                container_resource.name
            ),
            _ => format!("{} resource", container_resource.name),
        },
        MetricSpec::Pods { pods } => format!("pods metric {}", pods.metric.name),
        MetricSpec::Object { object } => match object.target {
            MetricTarget::AverageValue(_) => format!("external metric {}(nil)", object.metric.name),
            _ => format!("{} metric {}", object.described_object.kind, object.metric.name),
        },
        MetricSpec::External { external } => format!("external metric {}(nil)", external.metric.name),
    }
}

/// `status.currentMetrics`. A metric that failed leaves an entry without a type.
fn current_metrics(round: &Reconciliation, metrics: &[MetricSpec]) -> Value {
    let proposals = round
        .computation
        .iter()
        .flat_map(|computation| &computation.proposals);
    let entries = metrics.iter().zip(proposals).map(|(metric, proposal)| {
        let Ok(proposal) = proposal else {
            return json!({ "type": "" });
        };
        let current = current(proposal.current);
        match metric {
            MetricSpec::Resource { resource } => json!({
                "type": "Resource",
                "resource": { "name": resource.name, "current": current },
            }),
            MetricSpec::ContainerResource { container_resource } => json!({
                "type": "ContainerResource",
                "containerResource": {
                    "name": container_resource.name,
                    "container": container_resource.container,
                    "current": current,
                },
            }),
            MetricSpec::Pods { pods } => json!({
                "type": "Pods",
                "pods": { "metric": pods.metric, "current": current },
            }),
            MetricSpec::Object { object } => json!({
                "type": "Object",
                "object": {
                    "metric": object.metric,
                    "describedObject": object.described_object,
                    "current": current,
                },
            }),
            MetricSpec::External { external } => json!({
                "type": "External",
                "external": { "metric": external.metric, "current": current },
            }),
        }
    });
    entries.collect()
}

fn current(value: MetricValue) -> Value {
    let quantity = |milli| Quantity::from_millis(milli).to_string();
    match value {
        MetricValue::Utilization { percent, average } => {
            json!({ "averageUtilization": percent, "averageValue": quantity(average) })
        }
        MetricValue::AverageValue(average) => json!({ "averageValue": quantity(average) }),
        MetricValue::Value(value) => json!({ "value": quantity(value) }),
    }
}
