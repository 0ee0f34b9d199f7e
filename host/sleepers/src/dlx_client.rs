//! Requests to single replicas of the DLX: whether it stands in for a Sleeper, and what demand it sees.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::wire::{DEMAND_PATH, DemandReport, PROBE_ANSWER_HEADER, PROBE_HEADER, PROBE_PATH};

/// A report on ten thousand Sleepers is about 2 MiB; if all of them get requests all the time, 6 MiB.
const DEMAND_LIMIT: usize = 16 * 1024 * 1024;

/// An HTTP client of DLX replicas. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DlxClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    timeout: Duration,
}

impl DlxClient {
    pub(crate) fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        // Probes must find out what answers *now*, on a new connection; reports are rare. So nothing is kept open.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { client, timeout }
    }

    /// Whether the DLX at this address stands in for the Sleeper. The error says how it did not.
    pub(crate) async fn probe(&self, address: SocketAddr, uid: &str) -> Result<(), String> {
        let request = http::Request::get(format!("http://{address}{PROBE_PATH}"))
            .header(PROBE_HEADER, uid)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.within(address, self.client.request(request)).await?;
        let answered = response
            .headers()
            .get(PROBE_ANSWER_HEADER)
            .and_then(|value| value.to_str().ok());
        match (response.status(), answered) {
            (http::StatusCode::OK, Some(answered)) if answered == uid => Ok(()),
            (http::StatusCode::OK, Some(_)) => Err(format!("{address} stands in for another Sleeper")),
            (status, _) => Err(format!("{address} answered {status}")),
        }
    }

    /// The demand report of a replica.
    pub(crate) async fn demand(&self, address: SocketAddr, query: &str) -> Result<DemandReport, String> {
        let work = async {
            let request = http::Request::get(format!("http://{address}{DEMAND_PATH}{query}"))
                .body(Empty::new())
                .map_err(|error| error.to_string())?;
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| format!("{address} does not answer: {error}"))?;
            let status = response.status();
            if status != http::StatusCode::OK {
                return Err(format!("{address} answered {status}"));
            }
            let body = Limited::new(response.into_body(), DEMAND_LIMIT)
                .collect()
                .await
                .map_err(|error| format!("{address}: {error}"))?
                .to_bytes();
            serde_json::from_slice(&body).map_err(|error| format!("{address} sent no demand report: {error}"))
        };
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(format!("{address} does not answer within {:?}", self.timeout)))
    }

    async fn within<T>(
        &self,
        address: SocketAddr,
        work: impl Future<Output = Result<T, hyper_util::client::legacy::Error>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{address} does not answer: {error}")),
            Err(_) => Err(format!("{address} does not answer within {:?}", self.timeout)),
        }
    }
}
