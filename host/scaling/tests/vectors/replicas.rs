//! Single metrics.

use std::time::Duration;

use dormouse_scaling::hpa::{
    MetricError, MetricValue, Pod, PodSample, PodValue, Proposal, Readiness, ReplicaCalculator, Tolerances,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pods::{PodInput, SampleInput, now};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    current: i32,
    target_utilization: Option<i32>,
    target_m: Option<i64>,
    resource: Option<String>,
    container: Option<String>,
    tol_down: f64,
    tol_up: f64,
    #[serde(default)]
    cpu_init_ms: u64,
    #[serde(default)]
    ready_delay_ms: u64,
    #[serde(default)]
    pods: Vec<PodInput>,
    #[serde(default)]
    samples: Vec<SampleInput>,
    value_m: Option<i64>,
    #[serde(default)]
    values_m: Vec<i64>,
}

pub fn run(function: &str, input: &Value) -> Value {
    let input: Input =
        serde_json::from_value(input.clone()).unwrap_or_else(|error| panic!("{error}: {input}"));
    let pods: Vec<Pod> = input.pods.iter().map(PodInput::pod).collect();
    let calculator = ReplicaCalculator {
        pods: &pods,
        tolerances: Tolerances {
            scale_down: input.tol_down,
            scale_up: input.tol_up,
        },
        readiness: Readiness {
            cpu_initialization_period: Duration::from_millis(input.cpu_init_ms),
            initial_readiness_delay: Duration::from_millis(input.ready_delay_ms),
            now: now(),
        },
    };
    output(input.proposal(function, &calculator))
}

impl Input {
    fn proposal(&self, function: &str, calculator: &ReplicaCalculator<'_>) -> Result<Proposal, MetricError> {
        let current = self.current;
        let target = || self.target_m.expect("a target");
        let container = self.container.as_deref();
        let usages = || -> (&str, Vec<PodSample>) {
            let resource = self.resource.as_deref().expect("a resource");
            let samples = self.samples.iter();
            (
                resource,
                samples.map(|sample| sample.usage(resource, container)).collect(),
            )
        };
        let unavailable = || MetricError::MetricsUnavailable("metric not found".into());
        match function {
            "resource_utilization" => {
                let (resource, samples) = usages();
                let target = self.target_utilization.expect("a target");
                calculator.resource_utilization(current, target, resource, container, &samples)
            }
            "resource_raw" => {
                let (resource, samples) = usages();
                calculator.resource_average(current, target(), resource, container, &samples)
            }
            "pods_metric" => {
                let values: Vec<PodValue> = self.samples.iter().map(SampleInput::value).collect();
                calculator.pods_average(current, target(), &values)
            }
            "object_value" => {
                calculator.object_value(current, target(), self.value_m.ok_or_else(unavailable)?)
            }
            "object_average" => {
                calculator.object_average(current, target(), self.value_m.ok_or_else(unavailable)?)
            }
            "external_value" => calculator.external_value(current, target(), &self.values_m),
            "external_average" => calculator.external_average(current, target(), &self.values_m),
            other => panic!("{other} is no calculation"),
        }
    }
}

fn output(proposal: Result<Proposal, MetricError>) -> Value {
    let proposal = match proposal {
        Err(error) => return json!({ "error": kind(&error) }),
        Ok(proposal) => proposal,
    };
    let replicas = proposal.replicas;
    match proposal.current {
        MetricValue::Utilization { percent, average } => {
            json!({ "replicas": replicas, "utilization": percent, "average_m": average })
        }
        MetricValue::AverageValue(average) => json!({ "replicas": replicas, "average_m": average }),
        MetricValue::Value(value) => json!({ "replicas": replicas, "value_m": value }),
    }
}

fn kind(error: &MetricError) -> &'static str {
    match error {
        MetricError::MetricsUnavailable(_) => "metrics_unavailable",
        MetricError::NoPods => "no_pods",
        MetricError::NoUsableMetrics => "no_usable_metrics",
        MetricError::MissingRequest { .. } => "missing_request",
        MetricError::MissingPodLevelRequest { .. } => "missing_pod_level_request",
        MetricError::ContainerNotFound { .. } => "container_not_found",
        MetricError::NoRequests => "no_requests",
        MetricError::InvalidTarget => "invalid_target",
        MetricError::UnsupportedTarget(_) => "unsupported_target",
        MetricError::UnexpectedReading => "unexpected_reading",
    }
}
