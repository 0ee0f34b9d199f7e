//! From queries to samples.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{MetricValue, WorkloadPod};
use dormouse_model::{LabelSelector, ObjectRef, PodScrape, Quantity, Query};
use dormouse_scaling::Sample;
use dormouse_scaling::hpa::PodValue;
use dormouse_sleepers::{DemandEntry, TotalDemand};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::cache::{Cache, Limits};
use crate::metrics::Metrics;
use crate::metrics_reading::{pod_of, usage_samples};
use crate::request::{Answer, Request, Upstream};
use crate::sum::{pods_to_ask, ready_pods_to_ask, usage_of};
use crate::traffic::{arrival_rate, traffic};
use crate::view::PodView;
use crate::{Measured, Measurements, MetricSamples, Scraped};

/// Answers about traffic are this many times fresher than others: they decide whether somebody is woken.
const TRAFFIC: u32 = 5;
/// Age of an answer about traffic that may let something sleep.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Age of the answer which pods are those of a workload. It hardly ever changes.
const SELECTOR: Duration = Duration::from_secs(600);

/// Where numbers are read.
#[async_trait]
pub trait Meter: Send + Sync + 'static {
    /// A sample for each query, in their order. None is older than `max_age`, counted from when it was asked for. The
    /// answer to one never waits for that to another longer than its own deadline.
    async fn read(&self, ask: &[Arc<Query>], max_age: Duration, now: Timestamp) -> Vec<Sample>;

    /// What is read for each metric, in their order, with the pods that `selector` selects: those of the target whose metrics they are.
    async fn measure(
        &self,
        namespace: &str,
        selector: &LabelSelector,
        metrics: &[Arc<Query>],
        max_age: Duration,
        now: Timestamp,
    ) -> Measurements;
}

/// Reads through a cache, so that what many targets ask is asked once.
pub struct Readings {
    cache: Cache,
}

impl Readings {
    /// Readings of an upstream.
    pub fn new(upstream: Arc<dyn Upstream>, limits: Limits, metrics: Metrics) -> Self {
        Self {
            cache: Cache::new(upstream, limits, metrics),
        }
    }
}

#[async_trait]
impl Meter for Readings {
    async fn read(&self, ask: &[Arc<Query>], max_age: Duration, now: Timestamp) -> Vec<Sample> {
        join_all(ask.iter().map(|query| self.sample(query, max_age, now))).await
    }

    async fn measure(
        &self,
        namespace: &str,
        selector: &LabelSelector,
        metrics: &[Arc<Query>],
        max_age: Duration,
        now: Timestamp,
    ) -> Measurements {
        // What the DLX has says nothing about pods.
        let about_pods =
            |query: &Arc<Query>| !matches!(**query, Query::Concurrency { .. } | Query::ArrivalRate { .. });
        let answer = if metrics.iter().any(about_pods) {
            let request = Request::Pods {
                namespace: namespace.to_owned(),
            };
            Some(self.cache.get(request, max_age, now).await)
        } else {
            None
        };
        let pods = match answer.as_deref().map(|got| view_of(&got.answer)) {
            None => Vec::new(),
            Some(Ok(view)) => view.matching(&[selector]),
            Some(Err(sample)) => {
                let why = format!("its pods cannot be listed: {sample}");
                return Measurements {
                    pods: Vec::new(),
                    samples: vec![MetricSamples::Error(why); metrics.len()],
                };
            }
        };
        let samples = metrics
            .iter()
            .map(|query| self.samples(query, &pods, max_age, now));
        let samples = join_all(samples).await;
        Measurements {
            pods: pods.iter().map(|seen| pod_of(seen)).collect(),
            samples,
        }
    }
}

/// Something else than what was asked for. Only a mistake in an [`Upstream`] leads here.
fn mixed_up() -> Sample {
    Sample::Error("the answer is to another question".to_owned())
}

fn unknown_demand(why: &str) -> Sample {
    Sample::Error(format!("demand is unknown: {why}"))
}

/// Requests that one replica tells of are there, whatever another one would have told. That there are none is known only from all.
fn if_certain(seen: Sample, total: &TotalDemand) -> Sample {
    let is_some = matches!(&seen, Sample::Value(value) if *value > Quantity::ZERO);
    match &total.unanswered {
        Some(why) if !is_some => unknown_demand(why),
        _ => seen,
    }
}

impl Readings {
    /// What is read for a metric of the target with these pods.
    async fn samples(
        &self,
        query: &Query,
        pods: &[&WorkloadPod],
        max_age: Duration,
        now: Timestamp,
    ) -> MetricSamples {
        match query {
            Query::Usage { namespace, .. } => {
                let request = Request::Usage {
                    namespace: namespace.clone(),
                };
                match &self.cache.get(request, max_age, now).await.answer {
                    Ok(Answer::Usage(usage)) => MetricSamples::Usage(usage_samples(pods, usage)),
                    Ok(_) => MetricSamples::total(mixed_up()),
                    Err(error) => MetricSamples::Error(error.clone()),
                }
            }
            Query::Pods { scrape, window, .. } => {
                let asked = match ready_pods_to_ask(pods) {
                    Ok(asked) => asked,
                    Err(sample) => return MetricSamples::total(sample),
                };
                let request = Request::Scrape {
                    pods: asked,
                    scrape: scrape.clone(),
                    window: *window,
                };
                match &self.cache.get(request, max_age, now).await.answer {
                    Ok(Answer::Scraped(scraped)) => pod_values(scraped),
                    Ok(_) => MetricSamples::total(mixed_up()),
                    Err(error) => MetricSamples::Error(error.clone()),
                }
            }
            Query::PrometheusPods {
                namespace,
                server,
                query,
            } => {
                let request = Request::PrometheusPods {
                    namespace: namespace.clone(),
                    server: server.clone(),
                    query: query.clone(),
                };
                match &self.cache.get(request, max_age, now).await.answer {
                    Ok(Answer::OfPods(values)) => MetricSamples::PerPod(values_of(pods, values)),
                    Ok(_) => MetricSamples::total(mixed_up()),
                    Err(error) => MetricSamples::Error(error.clone()),
                }
            }
            Query::Custom { .. } => MetricSamples::value(self.sample(query, max_age, now).await),
            Query::Given(_)
            | Query::Concurrency { .. }
            | Query::ArrivalRate { .. }
            | Query::Traffic { .. }
            | Query::External { .. }
            | Query::Prometheus { .. } => MetricSamples::total(self.sample(query, max_age, now).await),
        }
    }

    async fn sample(&self, query: &Query, max_age: Duration, now: Timestamp) -> Sample {
        match query {
            Query::Traffic {
                namespace,
                sleeper,
                window,
                since,
            } => {
                let over = since.is_some_and(|since| now.duration_since(since) >= span(*window));
                let age = max_age / TRAFFIC;
                let age = if over { age.min(LAST_LOOK) } else { age };
                let got = self.cache.get(Request::Demand, age, now).await;
                match &got.answer {
                    Ok(Answer::Demand(total)) => {
                        let entry = total.of(namespace, sleeper);
                        let seen = traffic(entry, got.asked.elapsed(), *window, *since, now);
                        if_certain(seen, total)
                    }
                    Ok(_) => mixed_up(),
                    Err(error) => unknown_demand(error),
                }
            }
            Query::Given(value) => Sample::Value(*value),
            Query::Concurrency { namespace, sleeper } => {
                let counted = |entry: Option<&DemandEntry>| {
                    Sample::Value(Quantity::from(entry.map_or(0, DemandEntry::current)))
                };
                self.demand(namespace, sleeper, counted, max_age, now).await
            }
            Query::ArrivalRate {
                namespace,
                sleeper,
                window,
            } => {
                let counted = |entry: Option<&DemandEntry>| arrival_rate(entry, *window);
                self.demand(namespace, sleeper, counted, max_age, now).await
            }
            Query::Custom {
                group,
                kind,
                namespace,
                metric,
                selector,
                object,
            } => {
                let request = Request::Custom {
                    group: group.clone(),
                    kind: kind.clone(),
                    namespace: namespace.clone(),
                    metric: metric.clone(),
                    selector: selector.clone(),
                };
                match &self.cache.get(request, max_age, now).await.answer {
                    Ok(Answer::Custom(values)) => custom(values.get(object), metric, kind, object),
                    Ok(_) => mixed_up(),
                    Err(error) => Sample::Error(error.clone()),
                }
            }
            Query::External {
                namespace,
                metric,
                selector,
            } => {
                let request = Request::External {
                    namespace: namespace.clone(),
                    metric: metric.clone(),
                    selector: selector.clone(),
                };
                self.whole(request, max_age, now).await
            }
            Query::Prometheus {
                namespace,
                server,
                query,
            } => {
                let request = Request::Prometheus {
                    namespace: namespace.clone(),
                    server: server.clone(),
                    query: query.clone(),
                };
                self.whole(request, max_age, now).await
            }
            Query::PrometheusPods { .. } => {
                Sample::Error("it gives a number for each pod, and one for all is wanted".to_owned())
            }
            Query::Usage {
                namespace,
                workloads,
                resource,
                window,
            } => {
                let usage = self.usage(namespace, workloads, resource, *window, max_age, now);
                usage.await.unwrap_or_else(|sample| sample)
            }
            Query::Pods {
                namespace,
                workloads,
                scrape,
                window,
            } => {
                let sum = self.scrape(namespace, workloads, scrape, *window, max_age, now);
                sum.await.unwrap_or_else(|sample| sample)
            }
        }
    }

    /// What the DLX has for a Sleeper, as far as that is certain.
    async fn demand(
        &self,
        namespace: &str,
        sleeper: &str,
        counted: impl FnOnce(Option<&DemandEntry>) -> Sample,
        max_age: Duration,
        now: Timestamp,
    ) -> Sample {
        let got = self.cache.get(Request::Demand, max_age / TRAFFIC, now).await;
        match &got.answer {
            Ok(Answer::Demand(total)) => if_certain(counted(total.of(namespace, sleeper)), total),
            Ok(_) => mixed_up(),
            Err(error) => unknown_demand(error),
        }
    }

    /// The answer to a request that is about one number only.
    async fn whole(&self, request: Request, max_age: Duration, now: Timestamp) -> Sample {
        match &self.cache.get(request, max_age, now).await.answer {
            Ok(Answer::Sample(sample)) => sample.clone(),
            Ok(_) => mixed_up(),
            Err(error) => Sample::Error(error.clone()),
        }
    }

    async fn usage(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        resource: &str,
        window: Duration,
        max_age: Duration,
        now: Timestamp,
    ) -> Result<Sample, Sample> {
        let selectors = self.selectors(namespace, workloads, now);
        let pods = Request::Pods {
            namespace: namespace.to_owned(),
        };
        let usage = Request::Usage {
            namespace: namespace.to_owned(),
        };
        let (selectors, pods, usage) = futures::join!(
            selectors,
            self.cache.get(pods, max_age, now),
            self.cache.get(usage, max_age, now)
        );
        let (selectors, view) = (selectors?, view_of(&pods.answer)?);
        let usage = match &usage.answer {
            Ok(Answer::Usage(usage)) => usage,
            Ok(_) => return Err(mixed_up()),
            Err(error) => return Err(Sample::Error(error.clone())),
        };
        let selectors: Vec<_> = selectors.iter().collect();
        let running = view
            .matching(&selectors)
            .into_iter()
            .filter(|pod| pod.is_running());
        Ok(usage_of(running, usage, resource, window, now))
    }

    async fn scrape(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        scrape: &PodScrape,
        window: Duration,
        max_age: Duration,
        now: Timestamp,
    ) -> Result<Sample, Sample> {
        let pods = Request::Pods {
            namespace: namespace.to_owned(),
        };
        let (selectors, pods) = futures::join!(
            self.selectors(namespace, workloads, now),
            self.cache.get(pods, max_age, now)
        );
        let (selectors, view) = (selectors?, view_of(&pods.answer)?);
        let selectors: Vec<_> = selectors.iter().collect();
        let mut current = view.matching(&selectors);
        current.retain(|pod| pod.is_current());
        let request = Request::Scrape {
            pods: pods_to_ask(&current)?,
            scrape: scrape.clone(),
            window,
        };
        Ok(match &self.cache.get(request, max_age, now).await.answer {
            Ok(Answer::Scraped(scraped)) => match Scraped::sum(scraped) {
                Ok(measured) => measured.into(),
                Err(error) => Sample::Error(error.to_string()),
            },
            Ok(_) => mixed_up(),
            Err(error) => Sample::Error(error.clone()),
        })
    }

    async fn selectors(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        now: Timestamp,
    ) -> Result<Vec<LabelSelector>, Sample> {
        let mut selectors = Vec::with_capacity(workloads.len());
        for workload in workloads {
            let request = Request::Selector {
                namespace: namespace.to_owned(),
                workload: workload.clone(),
            };
            match &self.cache.get(request, SELECTOR, now).await.answer {
                Ok(Answer::Selector(selector)) => selectors.push(selector.clone()),
                Ok(_) => return Err(mixed_up()),
                Err(error) => return Err(Sample::Error(error.clone())),
            }
        }
        Ok(selectors)
    }
}

fn view_of(answer: &Result<Answer, String>) -> Result<&PodView, Sample> {
    match answer {
        Ok(Answer::Pods(view)) => Ok(view),
        Ok(_) => Err(mixed_up()),
        Err(error) => Err(Sample::Error(error.clone())),
    }
}

/// What the series say that are about these pods. A fraction of a thousandth is cut off.
fn values_of(pods: &[&WorkloadPod], series: &[(String, Quantity)]) -> Vec<PodValue> {
    const NANOS_PER_MILLI: i128 = 1_000_000;
    let names: HashSet<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let about = series.iter().filter(|(pod, _)| names.contains(&**pod));
    let values = about.map(|(pod, value)| {
        let millis = value.nanos() / NANOS_PER_MILLI;
        PodValue {
            pod: pod.clone(),
            value: i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX }),
        }
    });
    values.collect()
}

/// What each pod said. Who said nothing has no value.
fn pod_values(scraped: &[Scraped]) -> MetricSamples {
    let values: Vec<_> = scraped
        .iter()
        .filter_map(|scraped| match &scraped.answer {
            Ok(Measured::Value(value)) => Some(PodValue {
                pod: scraped.pod.clone(),
                value: value.saturating_millis(),
            }),
            Ok(Measured::NoData(_)) | Err(_) => None,
        })
        .collect();
    if values.is_empty()
        && let Some(first) = scraped.first()
    {
        return match &first.answer {
            Ok(Measured::NoData(why)) => MetricSamples::NoData(format!("pod {}: {why}", first.pod)),
            Ok(Measured::Value(_)) => MetricSamples::NoData("no pod has a value".to_owned()),
            Err(error) => MetricSamples::Error(error.to_string()),
        };
    }
    MetricSamples::PerPod(values)
}

/// The value of one object among those of all.
fn custom(value: Option<&MetricValue>, metric: &str, kind: &str, object: &str) -> Sample {
    match value {
        None => Sample::NoData(format!("{metric} says nothing about {kind} {object}").into()),
        Some(MetricValue::Ambiguous) => {
            Sample::Error(format!("{metric} has several values for {kind} {object}"))
        }
        Some(MetricValue::Value(text)) => match text.parse() {
            Ok(value) => Sample::Value(value),
            Err(error) => Sample::Error(format!("{metric} has a wrong value: {error}")),
        },
    }
}

fn span(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
