//! Metrics that pods serve themselves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::http::{Request, StatusCode, header};
use bytes::Bytes;
use dormouse_model::Quantity;
use futures::StreamExt;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::Measured;
use crate::config::PodLimits;
use crate::exposition::{self, ExpositionError, Wanted};
use crate::http::{HttpError, USER_AGENT, client, exchange, tcp};

/// Pods of one workload that are asked at once.
const AT_ONCE: usize = 8;
/// Pods that are asked at once in all.
const AT_ONCE_IN_ALL: usize = 32;

/// A pod to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Its name, for people.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// What to ask of each pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scrape {
    /// The port that it serves its metrics on.
    pub port: u16,
    /// The path, such as `/metrics`.
    pub path: String,
    /// The series to add up.
    pub wanted: Wanted,
}

/// What a pod said, or why it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scraped {
    /// Name of the pod.
    pub pod: String,
    /// What it said.
    pub answer: Result<Measured, ScrapeError>,
}

impl Scraped {
    /// The sum over all pods. Every pod must have something to add: one that fails is an error, one that does not know the
    /// metric is no data, and neither counts as zero.
    ///
    /// # Errors
    /// That of the first pod that failed.
    pub fn sum(all: &[Self]) -> Result<Measured, ScrapeError> {
        if all.is_empty() {
            return Ok(Measured::NoData("there is no pod to ask".to_owned()));
        }
        let mut values: Vec<Quantity> = Vec::with_capacity(all.len());
        let mut missing = None;
        for Self { pod, answer } in all {
            match answer {
                Ok(Measured::Value(value)) => values.push(*value),
                Ok(Measured::NoData(why)) => missing = Some(format!("pod {pod}: {why}")),
                Err(error) => return Err(error.clone()),
            }
        }
        Ok(match missing {
            Some(missing) => Measured::NoData(missing),
            None => Measured::Value(values.into_iter().sum()),
        })
    }
}

/// Why a pod has no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScrapeError {
    /// A pod did not answer.
    #[error("pod {pod}: {error}")]
    Http {
        /// The pod.
        pod: String,
        /// Why.
        error: HttpError,
    },
    /// A pod answered with something else than its metrics.
    #[error("pod {pod} answered {status} to {path}{}", if .status.is_redirection() { "; redirects are not followed" } else { "" })]
    Status {
        /// The pod.
        pod: String,
        /// The status.
        status: StatusCode,
        /// The path that was asked for.
        path: String,
    },
    /// What a pod serves cannot be read.
    #[error("pod {pod}: what it serves at {path} cannot be read: {error}")]
    Text {
        /// The pod.
        pod: String,
        /// The path that was asked for.
        path: String,
        /// Why.
        error: ExpositionError,
    },
    /// More pods than are asked.
    #[error(
        "it has {pods} pods, at most {limit} are scraped (metrics.pods.maxPods); a Prometheus query can sum more"
    )]
    TooManyPods {
        /// How many there are.
        pods: usize,
        /// The limit.
        limit: usize,
    },
    /// The path is none.
    #[error("{0:?} is no path of a URL")]
    Path(String),
}

/// Reads metrics from pods. Cheap to clone; clones share their bound on calls at once.
#[derive(Clone, Debug)]
pub struct Pods {
    limits: PodLimits,
    client: Client<HttpConnector, Empty<Bytes>>,
    places: Arc<Semaphore>,
}

impl Pods {
    /// With these limits.
    pub fn new(limits: PodLimits) -> Self {
        Self {
            // No connection is kept: an idle one would hold a pod up when it ends.
            client: client(tcp(limits.timeout), 0),
            places: Arc::new(Semaphore::new(AT_ONCE_IN_ALL)),
            limits,
        }
    }

    /// What each of these pods says, in their order. Samples from before `not_before` (milliseconds since 1970) are no data.
    ///
    /// # Errors
    /// [`ScrapeError::TooManyPods`], without asking any.
    pub async fn scrape(
        &self,
        pods: &[Pod],
        scrape: &Scrape,
        not_before: i64,
    ) -> Result<Vec<Scraped>, ScrapeError> {
        if pods.len() > self.limits.max_pods {
            return Err(ScrapeError::TooManyPods {
                pods: pods.len(),
                limit: self.limits.max_pods,
            });
        }
        // Futures are collected first: a stream that maps references is beyond what the compiler can prove to be Send.
        let mut questions = Vec::with_capacity(pods.len());
        for pod in pods {
            questions.push(self.one(pod, scrape, not_before));
        }
        let answers = futures::stream::iter(questions)
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let scraped = pods.iter().zip(answers).map(|(pod, answer)| Scraped {
            pod: pod.name.clone(),
            answer,
        });
        Ok(scraped.collect())
    }

    async fn one(&self, pod: &Pod, scrape: &Scrape, not_before: i64) -> Result<Measured, ScrapeError> {
        // Never closed.
        let _place = self.places.acquire().await;
        let host = SocketAddr::new(pod.address, scrape.port);
        let request = Request::get(format!("http://{host}{}", scrape.path))
            .header(header::ACCEPT, "text/plain;version=0.0.4")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new());
        let request = request.ok().filter(|request| {
            request
                .uri()
                .authority()
                .is_some_and(|a| a.as_str() == host.to_string())
        });
        let request = request.ok_or_else(|| ScrapeError::Path(scrape.path.clone()))?;
        let limit = self.limits.max_response_bytes;
        let response = exchange(&self.client, request, limit, self.limits.timeout).await;
        let response = response.map_err(|error| ScrapeError::Http {
            pod: pod.name.clone(),
            error,
        })?;
        if response.status != StatusCode::OK {
            return Err(ScrapeError::Status {
                pod: pod.name.clone(),
                status: response.status,
                path: scrape.path.clone(),
            });
        }
        let answer = exposition::sum(&response.body, &scrape.wanted, not_before);
        answer.map_err(|error| ScrapeError::Text {
            pod: pod.name.clone(),
            path: scrape.path.clone(),
            error,
        })
    }
}
