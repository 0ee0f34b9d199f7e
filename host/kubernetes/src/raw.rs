//! Requests with a bound on the size of the answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use kube::core::Status;

use crate::ClusterError;

/// Largest error text that is read.
const ERROR_LIMIT: usize = 64 * 1024;

/// Sends a request and returns the body of a successful answer.
pub(crate) async fn send(
    client: &kube::Client,
    request: http::Request<Vec<u8>>,
    limit: usize,
    timeout: Duration,
    what: impl Fn() -> String,
) -> Result<Bytes, ClusterError> {
    let work = async {
        let response = client
            .send(request.map(Body::from))
            .await
            .map_err(|error| ClusterError::of(what(), error))?;
        let status = response.status();
        if status.is_success() {
            return collect(response.into_body(), limit, &what).await;
        }
        let body = collect(response.into_body(), ERROR_LIMIT, &what)
            .await
            .unwrap_or_default();
        let told = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| {
            Status::failure(String::from_utf8_lossy(&body[..body.len().min(200)]).trim(), "")
        });
        Err(ClusterError::of(
            what(),
            kube::Error::Api(told.with_code(status.as_u16()).boxed()),
        ))
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(answer) => answer,
        Err(_) => Err(ClusterError::Timeout {
            what: what(),
            after: timeout,
        }),
    }
}

async fn collect(body: Body, limit: usize, what: &impl Fn() -> String) -> Result<Bytes, ClusterError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ClusterError::TooLarge { what: what(), limit }),
        Err(error) => Err(ClusterError::Unavailable {
            what: what(),
            message: error.to_string(),
        }),
    }
}

/// The body as JSON.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    body: &[u8],
    what: impl Fn() -> String,
) -> Result<T, ClusterError> {
    serde_json::from_slice(body).map_err(|error| ClusterError::Other {
        what: what(),
        message: format!("the answer is not as expected: {error}"),
    })
}
