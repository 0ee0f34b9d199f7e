//! The numbers of a cluster: its metrics APIs, the DLX, Prometheus, its pods.

use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{CustomMetric, MetricsApi};
use dormouse_scaling::Sample;
use dormouse_sleepers::{Cluster, DemandClient};
use jiff::Timestamp;

use crate::exposition::Wanted;
use crate::request::{Answer, Request, Upstream};
use crate::sum::{oldest, sum};
use crate::view::PodView;
use crate::{Config, ConfigError, Pods, Prometheus, Scrape};

/// Everything that a cluster can be asked for a number.
pub struct ClusterUpstream {
    metrics: MetricsApi,
    demand: DemandClient,
    prometheus: Prometheus,
    pods: Pods,
    /// Deadline of a question on the wire.
    timeout: Duration,
}

impl ClusterUpstream {
    /// With the servers and limits of a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when the sources of metrics are not configured as they can be.
    pub fn new(cluster: &Cluster, config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            metrics: cluster.metrics_api().clone(),
            demand: cluster.demand().clone(),
            prometheus: Prometheus::new(config)?,
            pods: Pods::new(config.pods.clone()),
            timeout: config.timeout,
        })
    }
}

#[async_trait]
impl Upstream for ClusterUpstream {
    async fn fetch(&self, request: &Request, now: Timestamp) -> Result<Answer, String> {
        let (metrics, timeout) = (&self.metrics, self.timeout);
        match request {
            Request::Demand => self.demand.of_all().await.map(Answer::Demand),
            Request::Custom {
                group,
                kind,
                namespace,
                metric,
                selector,
            } => {
                let wanted = CustomMetric {
                    group,
                    kind,
                    namespace,
                    metric,
                    selector: selector.as_deref(),
                };
                let values = metrics.custom_metric(wanted, timeout).await;
                values.map(Answer::Custom).map_err(|error| error.to_string())
            }
            Request::External {
                namespace,
                metric,
                selector,
            } => {
                let read = metrics.external_metric(namespace, metric, selector.as_deref(), timeout);
                let values = read.await.map_err(|error| error.to_string())?;
                Ok(Answer::Sample(if values.is_empty() {
                    Sample::NoData(
                        format!("the external metrics API has no series of {metric} for {namespace}").into(),
                    )
                } else {
                    sum(metric, values.iter().map(String::as_str))
                }))
            }
            Request::Prometheus {
                namespace,
                server,
                query,
            } => match self.prometheus.query(namespace, server, query).await {
                Ok(measured) => Ok(Answer::Sample(measured.into())),
                Err(error) => Err(error.to_string()),
            },
            Request::PrometheusPods {
                namespace,
                server,
                query,
            } => {
                let values = self.prometheus.query_pods(namespace, server, query).await;
                values.map(Answer::OfPods).map_err(|error| error.to_string())
            }
            Request::Selector { namespace, workload } => {
                let read = metrics.workload_selector(namespace, workload, timeout);
                read.await
                    .map(Answer::Selector)
                    .map_err(|error| error.to_string())
            }
            Request::Pods { namespace } => {
                let pods = metrics.namespace_pods(namespace, timeout).await;
                pods.map(|pods| Answer::Pods(PodView::new(pods)))
                    .map_err(|error| error.to_string())
            }
            Request::Usage { namespace } => {
                let usage = metrics.pod_usage(namespace, "", timeout).await;
                let usage = usage.map_err(|error| error.to_string())?;
                let by_pod = usage.into_iter().map(|usage| (usage.pod.clone(), usage));
                Ok(Answer::Usage(by_pod.collect()))
            }
            Request::Scrape { pods, scrape, window } => {
                let scrape = Scrape {
                    port: scrape.port,
                    path: scrape.path.clone(),
                    wanted: Wanted {
                        metric: scrape.metric.clone(),
                        labels: scrape.labels.clone(),
                    },
                };
                let since = oldest(now, *window).as_millisecond();
                let scraped = self.pods.scrape(pods, &scrape, since).await;
                scraped.map(Answer::Scraped).map_err(|error| error.to_string())
            }
        }
    }
}
