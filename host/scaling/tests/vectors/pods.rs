//! Pods and samples as the vectors write them.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_model::Quantity;
use dormouse_scaling::hpa::{
    ConditionStatus, Container, ContainerUsage, InitContainer, Pod, PodPhase, PodSample, PodValue,
    ReadyCondition, Resources,
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// The moment that every time of a vector is relative to.
pub fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// So many milliseconds from a moment.
pub fn at(now: Timestamp, milliseconds: i64) -> Timestamp {
    now + SignedDuration::from_millis(milliseconds)
}

/// Amounts in milli-units, some of them as quantities too, which then count.
fn resources(milli: &BTreeMap<String, i64>, quantities: &BTreeMap<String, Quantity>) -> Resources {
    let mut resources: Resources = milli
        .iter()
        .map(|(resource, milli)| (resource.clone(), Quantity::from_millis(*milli)))
        .collect();
    for (resource, quantity) in quantities {
        let rounded = milli.get(resource).copied();
        assert_eq!(
            quantity.millis(),
            rounded,
            "{quantity} is rounded up to milli-units"
        );
        resources.insert(resource.clone(), *quantity);
    }
    resources
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodInput {
    name: String,
    phase: String,
    start_ms: Option<i64>,
    deleted_ms: Option<i64>,
    ready: Option<ReadyInput>,
    #[serde(default)]
    containers: Vec<ContainerInput>,
    #[serde(default)]
    init_containers: Vec<InitContainerInput>,
    #[serde(default)]
    pod_requests_m: BTreeMap<String, i64>,
    #[serde(default)]
    overhead_m: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadyInput {
    status: String,
    since_ms: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContainerInput {
    name: String,
    #[serde(default)]
    requests_m: BTreeMap<String, i64>,
    #[serde(default)]
    requests: BTreeMap<String, Quantity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InitContainerInput {
    name: String,
    #[serde(default)]
    sidecar: bool,
    #[serde(default)]
    requests_m: BTreeMap<String, i64>,
    #[serde(default)]
    requests: BTreeMap<String, Quantity>,
}

impl PodInput {
    pub fn pod(&self) -> Pod {
        Pod {
            name: self.name.clone(),
            phase: match self.phase.as_str() {
                "Pending" => PodPhase::Pending,
                "Running" => PodPhase::Running,
                "Succeeded" => PodPhase::Succeeded,
                "Failed" => PodPhase::Failed,
                "Unknown" => PodPhase::Unknown,
                other => panic!("{other} is no phase"),
            },
            started: self.start_ms.map(|start| at(now(), start)),
            deleting: self.deleted_ms.is_some(),
            ready: self.ready.as_ref().map(|ready| ReadyCondition {
                status: match ready.status.as_str() {
                    "True" => ConditionStatus::True,
                    "False" => ConditionStatus::False,
                    "Unknown" => ConditionStatus::Unknown,
                    other => panic!("{other} is no status"),
                },
                since: at(now(), ready.since_ms),
            }),
            containers: self
                .containers
                .iter()
                .map(|container| Container {
                    name: container.name.clone(),
                    requests: resources(&container.requests_m, &container.requests),
                    ..Container::default()
                })
                .collect(),
            init_containers: self
                .init_containers
                .iter()
                .map(|init| InitContainer {
                    container: Container {
                        name: init.name.clone(),
                        requests: resources(&init.requests_m, &init.requests),
                        ..Container::default()
                    },
                    sidecar: init.sidecar,
                })
                .collect(),
            requests: resources(&self.pod_requests_m, &BTreeMap::new()),
            overhead: resources(&self.overhead_m, &BTreeMap::new()),
        }
    }
}

/// A pod that has been ready for long.
pub fn ready_pod(index: usize) -> Pod {
    let long_ago = at(now(), -3_600_000);
    Pod {
        name: format!("p{index}"),
        phase: PodPhase::Running,
        started: Some(long_ago),
        deleting: false,
        ready: Some(ReadyCondition {
            status: ConditionStatus::True,
            since: long_ago,
        }),
        containers: Vec::new(),
        init_containers: Vec::new(),
        requests: Resources::new(),
        overhead: Resources::new(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleInput {
    pod: String,
    value_m: Option<i64>,
    t_ms: Option<i64>,
    window_ms: Option<u64>,
    containers: Option<Vec<UsageInput>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageInput {
    name: String,
    #[serde(default)]
    usage_m: BTreeMap<String, i64>,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

impl SampleInput {
    /// As an item of the resource metrics API. A value of the whole pod is that of one container; where a container is targeted, of
    /// that one.
    pub fn usage(&self, resource: &str, container: Option<&str>) -> PodSample {
        let whole = |value: i64| ContainerUsage {
            name: container.unwrap_or("main").to_owned(),
            usage: [(resource.to_owned(), Quantity::from_millis(value))].into(),
        };
        let containers = self.containers.as_ref().map(|containers| {
            let usages = containers.iter().map(|container| ContainerUsage {
                name: container.name.clone(),
                usage: resources(&container.usage_m, &container.usage),
            });
            usages.collect()
        });
        PodSample {
            pod: self.pod.clone(),
            timestamp: at(
                now(),
                self.t_ms
                    .expect("a sample of the resource metrics API has a time"),
            ),
            window: Duration::from_millis(self.window_ms.expect("and a window")),
            containers: containers.unwrap_or_else(|| self.value_m.map(whole).into_iter().collect()),
        }
    }

    /// As an item of the custom metrics API.
    pub fn value(&self) -> PodValue {
        assert!(self.containers.is_none(), "a value has no containers");
        PodValue {
            pod: self.pod.clone(),
            value: self.value_m.expect("a value"),
        }
    }
}
