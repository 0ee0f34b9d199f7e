//! Connections to pods. Only addresses of an [`EndpointsView`](crate::EndpointsView) ever come here: nothing that a client
//! sends is dialled.
//!
//! While connecting nothing of the request was sent, so a failure is always safe to repeat, on another endpoint if
//! there is one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::backoff;
use crate::client::tune;
use crate::pool::{Endpoint, Http1, Load};
use crate::upload::Upload;

/// First back-off between attempts.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// Longest back-off between attempts: what a request waits at most after its pod begins to listen.
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);
/// Longest response head that is accepted from a workload, in bytes.
const RESPONSE_HEAD: usize = 256 << 10;
/// Most fields of a response head.
const RESPONSE_FIELDS: usize = 1024;
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
    pub(crate) sender: RequestSender,
    /// It has served a request before, so the workload may be closing it at this very moment.
    pub(crate) reused: bool,
}

#[derive(Debug)]
pub(crate) enum RequestSender {
    H1(Http1),
    H2(http2::SendRequest<Upload>),
}

/// A socket that notes whether anything was heard. hyper reports a connection that ended before the first byte of an answer and
/// one that ended in the middle of its head alike, and the second one has begun to answer.
#[derive(Debug)]
struct Hearing {
    stream: Upstream,
    heard: Arc<AtomicBool>,
}

impl AsyncRead for Hearing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection that is open already.
pub(crate) fn reuse(endpoint: &Arc<Endpoint>, wire: Wire) -> Option<Lease> {
    let sender = match wire {
        Wire::H1 => RequestSender::H1(endpoint.idle()?),
        Wire::H2 => RequestSender::H2(endpoint.h2()?),
    };
    Some(Lease {
        load: endpoint.begin(),
        sender,
        reused: true,
    })
}

/// A connection, new if need be; with `fresh` an HTTP/1 one that nobody has used.
pub(crate) async fn connect(
    endpoint: &Arc<Endpoint>,
    wire: Wire,
    timeout: Duration,
    fresh: bool,
) -> Result<Lease, ConnectError> {
    if !(fresh && wire == Wire::H1)
        && let Some(lease) = reuse(endpoint, wire)
    {
        return Ok(lease);
    }
    // Counted while dialling, so that a burst spreads over the endpoints instead of choosing the same one.
    let load = endpoint.begin();
    let dialled = tokio::time::timeout(timeout, dial(endpoint, wire))
        .await
        .map_err(|_| ConnectError::Timeout)?;
    dialled.map(|(sender, reused)| Lease { load, sender, reused })
}

async fn dial(endpoint: &Arc<Endpoint>, wire: Wire) -> Result<(RequestSender, bool), ConnectError> {
    match wire {
        Wire::H1 => {
            let heard = Arc::<AtomicBool>::default();
            let io = TokioIo::new(Hearing {
                stream: open(endpoint).await?,
                heard: Arc::clone(&heard),
            });
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(RESPONSE_HEAD)
                .max_headers(RESPONSE_FIELDS)
                .preserve_header_case(true)
                // As lenient as clients are: curl and browsers take these, so a workload may depend on it.
                .allow_obsolete_multiline_headers_in_responses(true)
                .allow_spaces_after_header_name_in_responses(true)
                .ignore_invalid_headers_in_responses(true)
                .handshake(io)
                .await?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "connection to a workload ended");
                }
            });
            Ok((RequestSender::H1(Http1::new(sender, heard)), false))
        }
        Wire::H2 => {
            let _one_dials = endpoint.h2_dial.lock().await;
            if let Some(sender) = endpoint.h2() {
                return Ok((RequestSender::H2(sender), true));
            }
            let io = TokioIo::new(open(endpoint).await?);
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
            Ok((RequestSender::H2(sender), false))
        }
    }
}

/// A connection for bytes that nobody here understands.
pub(crate) async fn open_tcp(endpoint: &Endpoint, timeout: Duration) -> Result<Upstream, ConnectError> {
    let opened = tokio::time::timeout(timeout, open(endpoint)).await;
    Ok(opened.map_err(|_| ConnectError::Timeout)??)
}

async fn open(endpoint: &Endpoint) -> std::io::Result<Upstream> {
    let permit = Arc::clone(&endpoint.upstreams)
        .try_acquire_owned()
        .map_err(|_| std::io::Error::other("as many connections to pods are open as may be"))?;
    let stream = TcpStream::connect(endpoint.address).await?;
    tune(&stream);
    Ok(Upstream {
        stream,
        _permit: permit,
    })
}

/// A connection to a pod, counted for as long as it is open.
#[derive(Debug)]
pub(crate) struct Upstream {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Upstream {
    /// The socket, for its options.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
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
