//! What a pod requests, as the utilization of its samples shows it.

use std::time::Duration;

use dormouse_model::Quantity;
use dormouse_scaling::hpa::{
    Container, ContainerUsage, InitContainer, MetricError, MetricValue, Pod, PodSample, Resources,
};
use rstest::rstest;

use crate::anything::{calculator, ready_pods};
use crate::fixture::now;

fn resources(amounts: &[(&str, &str)]) -> Resources {
    let amounts = amounts.iter();
    amounts
        .map(|(resource, amount)| ((*resource).to_owned(), amount.parse().unwrap()))
        .collect()
}

fn container(name: &str, requests: &[(&str, &str)]) -> Container {
    Container {
        name: name.to_owned(),
        requests: resources(requests),
        ..Container::default()
    }
}

fn sidecar(request: &str) -> InitContainer {
    InitContainer {
        container: container("sidecar", &[("cpu", request)]),
        sidecar: true,
    }
}

fn setup(request: &str) -> InitContainer {
    InitContainer {
        container: container("setup", &[("cpu", request)]),
        sidecar: false,
    }
}

/// A pod whose container requests one core.
fn pod(init_containers: &[InitContainer], own: &[(&str, &str)], overhead: &[(&str, &str)]) -> Pod {
    Pod {
        containers: vec![container("main", &[("cpu", "1")])],
        init_containers: init_containers.to_vec(),
        requests: resources(own),
        overhead: resources(overhead),
        ..ready_pods(1).remove(0)
    }
}

/// The percentage of its request that a pod uses if it uses 60 of something.
fn utilization(pod: Pod, resource: &str) -> Result<i32, MetricError> {
    let pods = [pod];
    let samples = [PodSample {
        pod: pods[0].name.clone(),
        timestamp: now(),
        window: Duration::from_secs(60),
        containers: vec![ContainerUsage {
            name: "main".into(),
            usage: [(resource.to_owned(), Quantity::from(60))].into(),
        }],
    }];
    let proposal = calculator(&pods).resource_utilization(1, 50, resource, None, &samples)?;
    match proposal.current {
        MetricValue::Utilization { percent, .. } => Ok(percent),
        other => panic!("{other:?} is no utilization"),
    }
}

#[rstest]
#[case::its_containers(pod(&[], &[], &[]), 6000)]
#[case::its_sidecars(pod(&[sidecar("2")], &[], &[]), 2000)]
#[case::not_what_only_runs_at_its_start(pod(&[setup("4")], &[], &[]), 6000)]
#[case::not_its_overhead(pod(&[], &[], &[("cpu", "1")]), 6000)]
#[case::its_own_request_where_it_has_one(pod(&[sidecar("2")], &[("cpu", "6")], &[]), 1000)]
#[case::and_then_its_overhead(pod(&[], &[("cpu", "2")], &[("cpu", "1")]), 2000)]
#[case::with_an_own_request_for_something_else_what_it_needs_at_its_start(pod(&[setup("4")], &[("memory", "1")], &[]), 1500)]
#[case::beside_the_sidecars_before_it(pod(&[sidecar("2"), setup("4")], &[("memory", "1")], &[]), 1000)]
#[case::but_not_those_after_it(pod(&[setup("4"), sidecar("2")], &[("memory", "1")], &[]), 1500)]
#[case::or_what_it_needs_later(pod(&[setup("1"), sidecar("3")], &[("memory", "1")], &[]), 1500)]
#[case::huge_pages_are_own_requests_too(pod(&[setup("4")], &[("hugepages-2Mi", "1")], &[]), 1500)]
#[case::other_resources_are_not(pod(&[setup("4")], &[("example.com/gpu", "1")], &[]), 6000)]
fn a_pod_requests_what(#[case] pod: Pod, #[case] percent: i32) {
    assert_eq!(utilization(pod, "cpu"), Ok(percent));
}

#[test]
fn an_own_request_that_kubernetes_does_not_honour_does_not_count() {
    let pod = pod(&[], &[("cpu", "2"), ("example.com/gpu", "1")], &[]);
    let missing = MetricError::MissingPodLevelRequest {
        resource: "example.com/gpu".into(),
        pod: pod.name.clone(),
    };
    assert_eq!(utilization(pod, "example.com/gpu"), Err(missing));
}
