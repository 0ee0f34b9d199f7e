//! From what pods use and serve to one number.

use std::collections::HashMap;
use std::time::Duration;

use dormouse_kubernetes::{PodUsage, WorkloadPod};
use dormouse_model::{Quantity, window_name};
use dormouse_scaling::Sample;
use jiff::{SignedDuration, Timestamp};

use crate::Pod;

/// What was measured before does not say anything about the window.
pub(crate) fn oldest(now: Timestamp, window: Duration) -> Timestamp {
    let span = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// The pods that are scraped: all of them, or there is no reading. Who cannot be asked may be the one that is busy.
pub(crate) fn pods_to_ask(pods: &[&WorkloadPod]) -> Result<Vec<Pod>, Sample> {
    if pods.is_empty() {
        return Err(Sample::NoData("it has no pod".into()));
    }
    let mut asked = Vec::with_capacity(pods.len());
    for pod in pods {
        match pod_to_ask(pod)? {
            Some(pod) => asked.push(pod),
            None => return Err(Sample::NoData(format!("pod {} is not ready", pod.name).into())),
        }
    }
    Ok(asked)
}

/// The same for a reading of each pod: who is not ready has none.
pub(crate) fn ready_pods_to_ask(pods: &[&WorkloadPod]) -> Result<Vec<Pod>, Sample> {
    let asked: Result<Vec<_>, _> = pods.iter().map(|pod| pod_to_ask(pod)).collect();
    Ok(asked?.into_iter().flatten().collect())
}

/// A pod that can be asked; None for one that is not ready.
fn pod_to_ask(pod: &WorkloadPod) -> Result<Option<Pod>, Sample> {
    // Otherwise anybody who may annotate a workload could have any port of the node asked.
    if pod.host_network {
        return Err(Sample::Error(format!(
            "pod {} is on the network of its node; pods are only scraped at addresses of their own",
            pod.name
        )));
    }
    let address = pod.address.filter(|_| pod.ready);
    Ok(address.map(|address| Pod {
        name: pod.name.clone(),
        address,
    }))
}

/// The sum over all containers of all running pods.
pub(crate) fn usage_of<'p>(
    running: impl Iterator<Item = &'p WorkloadPod>,
    usages: &HashMap<String, PodUsage>,
    resource: &str,
    window: Duration,
    now: Timestamp,
) -> Sample {
    let oldest = oldest(now, window);
    let mut amounts = Vec::new();
    for pod in running {
        let name = &pod.name;
        let Some(usage) = usages.get(name).filter(|usage| !usage.containers.is_empty()) else {
            return Sample::NoData(format!("pod {name} was not measured yet").into());
        };
        if usage.measured.is_none_or(|measured| measured < oldest) {
            let window = window_name(window);
            return Sample::NoData(format!("pod {name} was not measured in the last {window}").into());
        }
        for container in &usage.containers {
            match container.usage.get(resource) {
                Some(amount) => amounts.push(amount.as_str()),
                None => {
                    return Sample::NoData(format!("pod {name} was not measured for {resource}").into());
                }
            }
        }
    }
    if amounts.is_empty() {
        return Sample::NoData("it has no running pod".into());
    }
    sum(resource, amounts.into_iter())
}

pub(crate) fn sum<'v>(what: &str, values: impl Iterator<Item = &'v str>) -> Sample {
    let total: Result<Quantity, _> = values.map(str::parse::<Quantity>).sum();
    match total {
        Ok(sum) => Sample::Value(sum),
        Err(error) => Sample::Error(format!("{what} has a wrong value: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dormouse_kubernetes::ContainerUsage;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn cpu_in_a_minute(pods: &[WorkloadPod], usages: &[PodUsage], resource: &str) -> Sample {
        let usages = usages
            .iter()
            .map(|usage| (usage.pod.clone(), usage.clone()))
            .collect();
        usage_of(pods.iter(), &usages, resource, Duration::from_secs(60), at(NOW))
    }

    fn pod(name: &str) -> WorkloadPod {
        WorkloadPod {
            name: name.into(),
            address: Some([10, 0, 0, 1].into()),
            phase: "Running".into(),
            ready: true,
            ..WorkloadPod::default()
        }
    }

    fn usage(name: &str, measured: Option<i64>, containers: &[&str]) -> PodUsage {
        PodUsage {
            pod: name.into(),
            measured: measured.map(at),
            window: Duration::ZERO,
            containers: containers
                .iter()
                .map(|cpu| ContainerUsage {
                    name: String::new(),
                    usage: BTreeMap::from([("cpu".to_owned(), (*cpu).to_owned())]),
                })
                .collect(),
        }
    }

    fn no_data(reading: &Sample, said: &str) {
        assert!(
            matches!(reading, Sample::NoData(why) if why.contains(said)),
            "{reading:?} should be no data for {said:?}"
        );
    }

    #[test]
    fn usage_is_the_sum_over_all_containers_of_all_running_pods() {
        let pods = [pod("a"), pod("b")];
        let good = [
            usage("a", Some(NOW - 60), &["250m", "1500000n"]),
            usage("b", Some(NOW), &["1"]),
            usage("gone", Some(NOW), &["7"]),
        ];
        assert_eq!(
            cpu_in_a_minute(&pods, &good, "cpu"),
            Sample::Value("1251500u".parse().unwrap_or(Quantity::ZERO))
        );
        no_data(&cpu_in_a_minute(&pods, &good, "memory"), "for memory");
        no_data(
            &cpu_in_a_minute(&pods, &good[..1], "cpu"),
            "pod b was not measured yet",
        );
        no_data(&cpu_in_a_minute(&[], &good, "cpu"), "no running pod");
        let old = usage("a", Some(NOW - 61), &["1"]);
        no_data(&cpu_in_a_minute(&pods[..1], &[old], "cpu"), "in the last 1m");
        let undated = usage("a", None, &["1"]);
        no_data(&cpu_in_a_minute(&pods[..1], &[undated], "cpu"), "in the last 1m");
        let empty = usage("a", Some(NOW), &[]);
        no_data(&cpu_in_a_minute(&pods[..1], &[empty], "cpu"), "not measured yet");
        let wrong = usage("a", Some(NOW), &["much"]);
        let reading = cpu_in_a_minute(&pods[..1], &[wrong], "cpu");
        assert!(
            matches!(&reading, Sample::Error(why) if why.contains("much")),
            "{reading:?}"
        );
    }

    #[test]
    fn every_pod_can_be_asked_or_none_is() {
        assert_eq!(pods_to_ask(&[&pod("a"), &pod("b")]).map(|pods| pods.len()), Ok(2));
        let unasked = |pods: &[WorkloadPod]| {
            pods_to_ask(&pods.iter().collect::<Vec<_>>())
                .map_or_else(|reading| reading, |_| Sample::NoData("".into()))
        };
        no_data(&unasked(&[]), "no pod");
        let starting = WorkloadPod {
            ready: false,
            ..pod("b")
        };
        no_data(&unasked(&[pod("a"), starting]), "pod b is not ready");
        let nowhere = WorkloadPod {
            address: None,
            ..pod("b")
        };
        no_data(&unasked(&[nowhere]), "pod b is not ready");
        let on_node = WorkloadPod {
            host_network: true,
            ..pod("b")
        };
        let reading = unasked(&[on_node]);
        assert!(
            matches!(&reading, Sample::Error(why) if why.contains("network of its node")),
            "{reading:?}"
        );
    }
}
