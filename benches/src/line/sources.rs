//! Sources of metrics that answer from memory after a while, and count what they are asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{ContainerUsage, MetricValue, PodContainer, PodUsage, WorkloadPod};
use dormouse_model::Quantity;
use dormouse_readings::{Answer, PodView, Request, Upstream};
use dormouse_scaling::Sample;
use jiff::Timestamp;
use tokio::time::Instant;

use super::population::{Class, Kind, Population, REPLICAS, REQUESTED, TOTAL, USED};

/// Over how long usage is measured.
const MEASURED_OVER: Duration = Duration::from_secs(30);

/// What was asked, by the name of the source.
pub type Queries = BTreeMap<String, u64>;

/// What was asked so far, and what answering took.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub queries: Queries,
    /// Beside the wait. A parser of real answers would take longer.
    pub took: Duration,
}

/// Everything that has numbers.
#[derive(Debug)]
pub struct MetricSources {
    population: Population,
    delay: Duration,
    asked: Mutex<Asked>,
}

impl MetricSources {
    pub fn new(population: Population, delay: Duration) -> Self {
        Self {
            population,
            delay,
            asked: Mutex::default(),
        }
    }

    pub fn asked(&self) -> Asked {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is awake in a namespace.
    fn awake(&self, namespace: &str) -> impl Iterator<Item = u32> {
        let population = self.population;
        let targets = population.in_namespace(namespace);
        targets.filter(move |target| population.class(*target) != Class::Asleep)
    }

    fn answer(&self, request: &Request, now: Timestamp) -> Result<Answer, String> {
        Ok(match request {
            Request::Custom { namespace, .. } => Answer::Custom(
                self.awake(namespace)
                    .filter(|target| self.population.kind(*target) == Kind::Custom)
                    .map(|target| {
                        (
                            self.population.name(target),
                            MetricValue::Value(TOTAL.to_string()),
                        )
                    })
                    .collect(),
            ),
            Request::External { .. } | Request::Prometheus { .. } => {
                Answer::Sample(Sample::Value(Quantity::from(TOTAL)))
            }
            Request::Selector { workload, .. } => {
                let selector = format!("app={}", workload.name).parse();
                Answer::Selector(selector.map_err(|error| format!("{error}"))?)
            }
            Request::Pods { namespace } => Answer::Pods(PodView::new(
                self.awake(namespace)
                    .flat_map(|target| pods(&self.population.name(target)))
                    .collect(),
            )),
            Request::Usage { namespace } => Answer::Usage(
                self.awake(namespace)
                    .flat_map(|target| usage(&self.population.name(target), now))
                    .collect(),
            ),
            Request::Demand | Request::PrometheusPods { .. } | Request::Scrape { .. } => {
                return Err(format!("no target of the bench reads {}", request.source()));
            }
        })
    }
}

#[async_trait]
impl Upstream for MetricSources {
    async fn fetch(&self, request: &Request, now: Timestamp) -> Result<Answer, String> {
        tokio::time::sleep(self.delay).await;
        let begun = Instant::now();
        let answer = self.answer(request, now);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked.queries.entry(request.source().to_owned()).or_default() += 1;
        asked.took += begun.elapsed();
        answer
    }
}

fn pod_name(target: &str, pod: u32) -> String {
    format!("{target}-{pod}")
}

fn pods(target: &str) -> Vec<WorkloadPod> {
    let amount = |amount: &str| BTreeMap::from([("cpu".to_owned(), amount.to_owned())]);
    let pod = |pod| WorkloadPod {
        name: pod_name(target, pod),
        phase: "Running".to_owned(),
        ready: true,
        started: Some(Timestamp::UNIX_EPOCH),
        ready_condition: Some(("True".to_owned(), Timestamp::UNIX_EPOCH)),
        labels: BTreeMap::from([("app".to_owned(), target.to_owned())]),
        containers: vec![PodContainer {
            name: "app".to_owned(),
            requests: amount(REQUESTED),
            limits: amount("1"),
            sidecar: false,
        }],
        ..WorkloadPod::default()
    };
    (0..REPLICAS).map(pod).collect()
}

fn usage(target: &str, now: Timestamp) -> HashMap<String, PodUsage> {
    let used = |pod: &String| PodUsage {
        pod: pod.clone(),
        measured: Some(now),
        window: MEASURED_OVER,
        containers: vec![ContainerUsage {
            name: "app".to_owned(),
            usage: BTreeMap::from([("cpu".to_owned(), USED.to_owned())]),
        }],
    };
    let pods = (0..REPLICAS).map(|pod| pod_name(target, pod));
    pods.map(|pod| (pod.clone(), used(&pod))).collect()
}
