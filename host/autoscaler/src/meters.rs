//! Where the readings of a cluster are taken: its metrics APIs, Prometheus, its pods.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{CustomMetric, MetricError, MetricValue, PodUsage, WorkloadPod, WorkloadPods};
use dormouse_metrics::exposition::Wanted;
use dormouse_metrics::{Answer, Config, ConfigError, Pod, Pods, Prometheus, Scrape};
use dormouse_model::{ObjectRef, Quantity, window_name};
use dormouse_plugin::types::PodScrape;
use dormouse_scaling::Reading;
use dormouse_sleepers::Cluster;
use jiff::{SignedDuration, Timestamp};

use crate::{CustomQuestion, Meters, Question};

/// The meters of a cluster.
pub(crate) struct ClusterMeters {
    cluster: Cluster,
    prometheus: Prometheus,
    pods: Pods,
    /// Deadline of a question on the wire.
    timeout: Duration,
}

impl ClusterMeters {
    pub fn new(cluster: &Cluster, config: &Config, timeout: Duration) -> Result<Self, ConfigError> {
        Ok(Self {
            cluster: cluster.clone(),
            prometheus: Prometheus::new(config)?,
            pods: Pods::new(config.pods.clone()),
            timeout,
        })
    }
}

#[async_trait]
impl Meters for ClusterMeters {
    async fn custom(&self, question: &CustomQuestion) -> Result<BTreeMap<String, MetricValue>, String> {
        let wanted = CustomMetric {
            group: &question.group,
            kind: &question.kind,
            namespace: &question.namespace,
            metric: &question.metric,
            selector: question.selector.as_deref(),
        };
        let read = self.cluster.metrics_api().custom_metric(wanted, self.timeout);
        read.await.map_err(|error| error.to_string())
    }

    async fn ask(&self, question: &Question, now: Timestamp) -> Reading {
        match question {
            Question::External {
                namespace,
                metric,
                selector,
            } => self.external(namespace, metric, selector.as_deref()).await,
            Question::Usage {
                namespace,
                workloads,
                resource,
                window,
            } => {
                let read = self.usage(namespace, workloads, resource, oldest(now, *window));
                read.await.unwrap_or_else(|error| failed(&error))
            }
            Question::Prometheus {
                namespace,
                server,
                query,
            } => match self.prometheus.query(namespace, server, query).await {
                Ok(answer) => reading(answer),
                Err(error) => Reading::Error(error.to_string()),
            },
            Question::Pods {
                namespace,
                workloads,
                scrape,
                window,
            } => {
                let read = self.scrape(namespace, workloads, scrape, oldest(now, *window));
                read.await.unwrap_or_else(|error| failed(&error))
            }
        }
    }
}

fn failed(error: &MetricError) -> Reading {
    Reading::Error(error.to_string())
}

fn reading(answer: Answer) -> Reading {
    match answer {
        Answer::Value(value) => Reading::Value(value),
        Answer::NoData(why) => Reading::NoData(why.into()),
    }
}

/// What was measured before does not say anything about the window.
fn oldest(now: Timestamp, window: Duration) -> Oldest {
    let span = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
    Oldest {
        moment: now.checked_sub(span).unwrap_or(Timestamp::MIN),
        window,
    }
}

#[derive(Clone, Copy)]
struct Oldest {
    moment: Timestamp,
    window: Duration,
}

impl ClusterMeters {
    async fn external(&self, namespace: &str, metric: &str, selector: Option<&str>) -> Reading {
        let read = self
            .cluster
            .metrics_api()
            .external_metric(namespace, metric, selector, self.timeout);
        match read.await {
            Err(error) => failed(&error),
            Ok(values) if values.is_empty() => Reading::NoData(
                format!("the external metrics API has no series of {metric} for {namespace}").into(),
            ),
            Ok(values) => sum(metric, values.iter().map(String::as_str)),
        }
    }

    async fn pods_of(&self, namespace: &str, workloads: &[ObjectRef]) -> Result<WorkloadPods, MetricError> {
        self.cluster
            .metrics_api()
            .workload_pods(namespace, workloads, self.timeout)
            .await
    }

    async fn usage(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        resource: &str,
        oldest: Oldest,
    ) -> Result<Reading, MetricError> {
        let found = self.pods_of(namespace, workloads).await?;
        let mut usages = Vec::new();
        for selector in &found.selectors {
            usages.extend(
                self.cluster
                    .metrics_api()
                    .pod_usage(namespace, selector, self.timeout)
                    .await?,
            );
        }
        let running = found.pods.iter().filter(|pod| pod.running);
        Ok(usage_of(running, &usages, resource, oldest))
    }

    async fn scrape(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        scrape: &PodScrape,
        oldest: Oldest,
    ) -> Result<Reading, MetricError> {
        let found = self.pods_of(namespace, workloads).await?;
        let pods = match to_ask(&found.pods) {
            Ok(pods) => pods,
            Err(reading) => return Ok(reading),
        };
        let scrape = Scrape {
            port: scrape.port,
            path: scrape.path.clone(),
            wanted: Wanted {
                metric: scrape.metric.clone(),
                labels: scrape.labels.clone(),
            },
        };
        let sum = self
            .pods
            .sum(&pods, &scrape, oldest.moment.as_millisecond())
            .await;
        Ok(sum.map_or_else(|error| Reading::Error(error.to_string()), reading))
    }
}

/// The pods that are scraped: all of them, or there is no reading. Who cannot be asked may be the one that is busy.
fn to_ask(pods: &[WorkloadPod]) -> Result<Vec<Pod>, Reading> {
    if pods.is_empty() {
        return Err(Reading::NoData("it has no pod".into()));
    }
    let mut asked = Vec::with_capacity(pods.len());
    for pod in pods {
        // Otherwise anybody who may annotate a workload could have any port of the node asked.
        if pod.host_network {
            return Err(Reading::Error(format!(
                "pod {} is on the network of its node; pods are only scraped at addresses of their own",
                pod.name
            )));
        }
        let (true, Some(address)) = (pod.ready, pod.address) else {
            return Err(Reading::NoData(format!("pod {} is not ready", pod.name).into()));
        };
        asked.push(Pod {
            name: pod.name.clone(),
            address,
        });
    }
    Ok(asked)
}

/// The sum over all containers of all running pods.
fn usage_of<'p>(
    running: impl Iterator<Item = &'p WorkloadPod>,
    usages: &[PodUsage],
    resource: &str,
    oldest: Oldest,
) -> Reading {
    let by_pod: BTreeMap<_, _> = usages.iter().map(|usage| (usage.pod.as_str(), usage)).collect();
    let mut amounts = Vec::new();
    for pod in running {
        let name = &pod.name;
        let Some(usage) = by_pod
            .get(name.as_str())
            .filter(|usage| !usage.containers.is_empty())
        else {
            return Reading::NoData(format!("pod {name} was not measured yet").into());
        };
        if usage.measured.is_none_or(|measured| measured < oldest.moment) {
            let window = window_name(oldest.window);
            return Reading::NoData(format!("pod {name} was not measured in the last {window}").into());
        }
        for container in &usage.containers {
            match container.get(resource) {
                Some(amount) => amounts.push(amount.as_str()),
                None => {
                    return Reading::NoData(format!("pod {name} was not measured for {resource}").into());
                }
            }
        }
    }
    if amounts.is_empty() {
        return Reading::NoData("it has no running pod".into());
    }
    sum(resource, amounts.into_iter())
}

fn sum<'v>(what: &str, values: impl Iterator<Item = &'v str>) -> Reading {
    let total: Result<Quantity, _> = values.map(str::parse::<Quantity>).sum();
    match total {
        Ok(sum) => Reading::Value(sum),
        Err(error) => Reading::Error(format!("{what} has a wrong value: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn minute() -> Oldest {
        oldest(at(NOW), Duration::from_secs(60))
    }

    fn pod(name: &str) -> WorkloadPod {
        WorkloadPod {
            name: name.into(),
            address: Some([10, 0, 0, 1].into()),
            running: true,
            ready: true,
            host_network: false,
        }
    }

    fn usage(name: &str, measured: Option<i64>, containers: &[&str]) -> PodUsage {
        PodUsage {
            pod: name.into(),
            measured: measured.map(at),
            containers: containers
                .iter()
                .map(|cpu| BTreeMap::from([("cpu".to_owned(), (*cpu).to_owned())]))
                .collect(),
        }
    }

    fn no_data(reading: &Reading, said: &str) {
        assert!(
            matches!(reading, Reading::NoData(why) if why.contains(said)),
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
            usage_of(pods.iter(), &good, "cpu", minute()),
            Reading::Value("1251500u".parse().unwrap_or(Quantity::ZERO))
        );
        no_data(&usage_of(pods.iter(), &good, "memory", minute()), "for memory");
        no_data(
            &usage_of(pods.iter(), &good[..1], "cpu", minute()),
            "pod b was not measured yet",
        );
        no_data(&usage_of([].iter(), &good, "cpu", minute()), "no running pod");
        let old = usage("a", Some(NOW - 61), &["1"]);
        no_data(
            &usage_of(pods[..1].iter(), &[old], "cpu", minute()),
            "in the last 1m",
        );
        let undated = usage("a", None, &["1"]);
        no_data(
            &usage_of(pods[..1].iter(), &[undated], "cpu", minute()),
            "in the last 1m",
        );
        let empty = usage("a", Some(NOW), &[]);
        no_data(
            &usage_of(pods[..1].iter(), &[empty], "cpu", minute()),
            "not measured yet",
        );
        let wrong = usage("a", Some(NOW), &["much"]);
        let reading = usage_of(pods[..1].iter(), &[wrong], "cpu", minute());
        assert!(
            matches!(&reading, Reading::Error(why) if why.contains("much")),
            "{reading:?}"
        );
    }

    #[test]
    fn every_pod_can_be_asked_or_none_is() {
        assert_eq!(to_ask(&[pod("a"), pod("b")]).map(|pods| pods.len()), Ok(2));
        let unasked = |pods: &[WorkloadPod]| {
            to_ask(pods).map_or_else(|reading| reading, |_| Reading::NoData("".into()))
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
            matches!(&reading, Reading::Error(why) if why.contains("network of its node")),
            "{reading:?}"
        );
    }
}
