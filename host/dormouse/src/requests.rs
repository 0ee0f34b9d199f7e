//! Clients for the demo and the lifecycle suite: one connection for each request, as strangers would come.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long a client waits for its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code, or what went wrong instead.
    pub status: Result<u16, String>,
    /// First line of the body.
    pub body: String,
    /// `Retry-After`, if there was one.
    pub retry_after: Option<String>,
    /// From the first packet to the last byte.
    pub took: Duration,
}

impl Answer {
    /// Whether it is what the workload answers.
    pub fn is_ok(&self) -> bool {
        self.status == Ok(200)
    }

    /// Status and body, or the error.
    pub fn describe(&self) -> String {
        match &self.status {
            Ok(status) => format!("{status} {}", self.body),
            Err(error) => error.clone(),
        }
    }
}

/// Sends one GET on a connection of its own.
pub async fn get(url: &str) -> Answer {
    get_with(url, &[]).await
}

/// Sends one GET with headers on a connection of its own.
pub async fn get_with(url: &str, headers: &[(&str, &str)]) -> Answer {
    let start = Instant::now();
    let outcome = tokio::time::timeout(PATIENCE, exchange(url, headers)).await;
    let took = start.elapsed();
    match outcome {
        Ok(Ok(seen)) => Answer {
            status: Ok(seen.status),
            body: seen.body.lines().next().unwrap_or_default().to_owned(),
            retry_after: seen.retry_after,
            took,
        },
        Ok(Err(error)) => Answer {
            status: Err(error),
            body: String::new(),
            retry_after: None,
            took,
        },
        Err(_) => {
            let error = format!("no answer within {} s", PATIENCE.as_secs());
            Answer {
                status: Err(error),
                body: String::new(),
                retry_after: None,
                took,
            }
        }
    }
}

/// Sends `count` at once.
pub async fn burst(url: &str, count: usize) -> Vec<Answer> {
    futures::future::join_all((0..count).map(|_| get(url))).await
}

/// The body of a GET that must succeed.
pub async fn fetch(url: &str) -> anyhow::Result<String> {
    match exchange(url, &[]).await {
        Ok(Seen {
            status: 200, body, ..
        }) => Ok(body),
        Ok(Seen { status, body, .. }) => anyhow::bail!("{url} answered {status}: {body}"),
        Err(error) => anyhow::bail!("{url}: {error}"),
    }
}

struct Seen {
    status: u16,
    body: String,
    retry_after: Option<String>,
}

async fn exchange(url: &str, headers: &[(&str, &str)]) -> Result<Seen, String> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    let mut request = hyper::Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Empty::new())
        .map_err(|error| format!("{url}: {error}"))?;
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(hyper::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| chain(&error))?
        .to_bytes();
    Ok(Seen {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
        retry_after,
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
