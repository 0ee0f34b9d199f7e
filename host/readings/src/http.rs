//! One GET, bounded in time and size. Redirects are an answer like any other.

use std::error::Error as StdError;
use std::time::Duration;

use ::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thiserror::Error;

/// How we introduce ourselves.
pub(crate) const USER_AGENT: &str = concat!("dormouse/", env!("CARGO_PKG_VERSION"));
/// How long an unused connection is kept for the next round.
const KEEP: Duration = Duration::from_secs(90);

/// An exchange that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HttpError {
    /// No connection, no trust, or it broke off.
    #[error("{url} cannot be reached: {message}")]
    Unreachable {
        /// Where, without the query.
        url: String,
        /// The chain of causes.
        message: String,
    },
    /// Too slow.
    #[error("{url} did not answer within {}", dormouse_model::format_duration(*.after))]
    Timeout {
        /// Where, without the query.
        url: String,
        /// The deadline.
        after: Duration,
    },
    /// Too much.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// Where, without the query.
        url: String,
        /// The limit.
        limit: usize,
    },
}

/// What came back.
pub(crate) struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A client with at most `idle` spare connections to each host.
pub(crate) fn client<C>(connector: C, idle: usize) -> Client<C, Empty<Bytes>>
where
    C: Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEEP)
        .pool_max_idle_per_host(idle)
        .build(connector)
}

/// A connector for TCP that gives up on its own.
pub(crate) fn tcp(connect_timeout: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.set_nodelay(true);
    tcp
}

/// Sends a request and reads at most `limit` bytes of the answer, all within `timeout`.
pub(crate) async fn exchange<C>(
    client: &Client<C, Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    limit: usize,
    timeout: Duration,
) -> Result<Response, HttpError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let url = place(request.uri());
    let work = async {
        let unreachable = |error: &(dyn StdError + 'static)| HttpError::Unreachable {
            url: url.clone(),
            message: causes(error),
        };
        let (parts, body) = client
            .request(request)
            .await
            .map_err(|error| unreachable(&error))?
            .into_parts();
        let body = match Limited::new(body, limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(HttpError::TooLarge {
                    url: url.clone(),
                    limit,
                });
            }
            Err(error) => return Err(unreachable(error.as_ref())),
        };
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(HttpError::Timeout {
            url: url.clone(),
            after: timeout,
        })
    })
}

/// A URL without its query.
fn place(uri: &::http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}", uri.path())
}

/// An error with everything that caused it, each said once.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

/// At most `max` characters, on one line.
pub(crate) fn clip(text: &str, max: usize) -> String {
    let flat = |c: char| if c.is_control() { ' ' } else { c };
    let mut clipped: String = text.trim().chars().take(max).map(flat).collect();
    if text.trim().chars().nth(max).is_some() {
        clipped.push('…');
    }
    clipped
}
