//! Connections to pods. Only addresses of an [`EndpointsView`](crate::EndpointsView) ever come here: nothing that a client
//! sends is dialled.
//!
//! While connecting nothing of the request was sent, so a failure is always safe to repeat, on another endpoint if
//! there is one.

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;

use crate::accept::tune;
use crate::backoff;
use crate::forward::Upload;
use crate::pool::{Endpoint, Load};

/// First back-off between attempts.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// Longest back-off between attempts: what a request waits at most after its pod begins to listen.
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);
/// Longest response head that is accepted from a workload, in bytes.
const RESPONSE_HEAD: usize = 256 << 10;
/// Window of an HTTP/2 stream from a workload.
const WINDOW: u32 = 1 << 20;

/// Why a connection could not be made. Nothing was sent.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("no connection: {0}")]
    Refused(#[from] std::io::Error),
    #[error("no connection within the connect timeout")]
    Timeout,
    #[error("no HTTP connection: {0}")]
    Handshake(#[from] hyper::Error),
}

/// What is spoken to the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    H1,
    H2,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) load: Load,
    pub(crate) sender: Sender,
    /// It has served a request before, so the workload may be closing it at this very moment.
    pub(crate) reused: bool,
}

#[derive(Debug)]
pub(crate) enum Sender {
    H1(http1::SendRequest<Upload>),
    H2(http2::SendRequest<Upload>),
}

/// A connection that is open already.
pub(crate) fn reuse(endpoint: &Arc<Endpoint>, wire: Wire) -> Option<Lease> {
    let sender = match wire {
        Wire::H1 => Sender::H1(endpoint.idle()?),
        Wire::H2 => Sender::H2(endpoint.h2()?),
    };
    Some(Lease {
        load: endpoint.begin(),
        sender,
        reused: true,
    })
}

/// A connection, new if need be.
pub(crate) async fn connect(
    endpoint: &Arc<Endpoint>,
    wire: Wire,
    timeout: Duration,
) -> Result<Lease, ConnectError> {
    if let Some(lease) = reuse(endpoint, wire) {
        return Ok(lease);
    }
    // Counted while dialling, so that a burst spreads over the endpoints instead of choosing the same one.
    let load = endpoint.begin();
    let dialled = tokio::time::timeout(timeout, dial(endpoint, wire))
        .await
        .map_err(|_| ConnectError::Timeout)?;
    dialled.map(|(sender, reused)| Lease { load, sender, reused })
}

async fn dial(endpoint: &Arc<Endpoint>, wire: Wire) -> Result<(Sender, bool), ConnectError> {
    match wire {
        Wire::H1 => {
            let io = open(endpoint).await?;
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(RESPONSE_HEAD)
                .handshake(io)
                .await?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "connection to a workload ended");
                }
            });
            Ok((Sender::H1(sender), false))
        }
        Wire::H2 => {
            let _one_dials = endpoint.h2_dial.lock().await;
            if let Some(sender) = endpoint.h2() {
                return Ok((Sender::H2(sender), true));
            }
            let io = open(endpoint).await?;
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(4 * WINDOW)
                .max_header_list_size(u32::try_from(RESPONSE_HEAD).unwrap_or(u32::MAX))
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20))
                .handshake(io)
                .await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to a workload ended");
                }
            });
            endpoint.keep_h2(sender.clone());
            Ok((Sender::H2(sender), false))
        }
    }
}

async fn open(endpoint: &Endpoint) -> std::io::Result<TokioIo<TcpStream>> {
    open_plain(endpoint).await.map(TokioIo::new)
}

async fn open_plain(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(endpoint.address).await?;
    tune(&stream);
    Ok(stream)
}

/// A connection for bytes that nobody here understands.
pub(crate) async fn open_tcp(endpoint: &Endpoint, timeout: Duration) -> Result<TcpStream, ConnectError> {
    let opened = tokio::time::timeout(timeout, open_plain(endpoint)).await;
    Ok(opened.map_err(|_| ConnectError::Timeout)??)
}

/// Pauses of one request that tries again and again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = backoff::pause(self.attempts, FIRST_BACKOFF, LONGEST_BACKOFF);
        self.attempts += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] < FIRST_BACKOFF && pauses[0] >= FIRST_BACKOFF / 2);
        assert!(pauses.iter().all(|pause| *pause < LONGEST_BACKOFF));
        assert!(pauses[19] >= LONGEST_BACKOFF / 2);
    }
}
