//! One client connection, from its first byte to its end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::opening::{self, Opening};
use super::parting;
use crate::client::{
    Client, ConnectionPermit, IdleTimeouts, Idleness, ListenerKind, Parting, Peek, Socket, Streams, Verdict,
    leave, tune,
};
use crate::forward::Body;
use crate::forward::headers::client_address;
use crate::observe::End;
use crate::serve::Inner;
use crate::splice;

/// How much of a frame is buffered for one HTTP/2 stream towards a client.
const SEND_BUFFER: usize = 64 << 10;

/// How long a client that may be gone is left the answer that it was held for too long.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Serves a connection until it ends.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn has space for its arguments twice"
)]
pub(crate) fn serve(
    inner: Arc<Inner>,
    mut stream: TcpStream,
    peer: IpAddr,
    listener: ListenerKind,
    place: Arc<ConnectionPermit>,
) -> impl Future<Output = ()> + Send {
    async move {
        tune(&stream);
        let idleness = Idleness::new();
        let entry = inner.connections.enter(listener, &idleness);
        if inner.is_draining() {
            entry.signal.drain();
        }
        // What has arrived before a drain is served; a client that said nothing loses nothing.
        let opening = tokio::select! {
            biased;
            opening = Box::pin(opening::read(&inner, &mut stream, listener)) => opening,
            () = entry.signal.ended() => {
                if entry.signal.replaces() {
                    inner.metrics.ended(End::Idle);
                }
                return;
            }
        };
        let (begun, h2) = match opening {
            Opening::Nothing => return,
            Opening::Http { begun, h2 } => (begun, h2),
            Opening::Tcp { begun, target } => {
                // Not one of those that are idle between two requests: its end is for its two sides to choose.
                idleness.work(0);
                let client = splice::Client {
                    stream,
                    peer,
                    listener,
                    place,
                };
                return Box::pin(splice::serve(inner, client, begun, target)).await;
            }
        };
        let (mut socket, peek) = Socket::new(stream, begun, Arc::clone(&idleness));
        peek.give_up_after(Some(inner.config.send_timeout));
        let streams = h2.then(|| Streams::new(inner.config.send_timeout, &inner.metrics));
        let client = Arc::new(Client {
            listener,
            address: client_address(peer),
            trusted: inner.config.forwarding.trusted.contains(peer),
            peer,
            idleness,
            signal: Arc::clone(&entry.signal),
            http1: (!h2).then(|| peek.clone()),
            streams: streams.clone(),
            place,
        });
        let service = {
            let (inner, client) = (Arc::clone(&inner), Arc::clone(&client));
            service_fn(move |request: Request<Incoming>| {
                answer(Arc::clone(&inner), Arc::clone(&client), request)
            })
        };
        let limits = &inner.config.limits;
        if let Some(streams) = streams {
            let connection = http2::Builder::new(streams)
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams)
                // What is a little too large is refused with a reason; what is far too large, by the library and without one.
                .max_header_list_size(
                    u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
                )
                .max_send_buf_size(SEND_BUFFER)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(TokioIo::new(socket), service);
            drive(&inner, &client, Box::pin(connection), None).await;
        } else {
            let parting = socket.parting();
            let connection = http1::Builder::new()
                // The end of what the client sends is looked at by `leave`, whatever stands unread before it.
                .half_close(true)
                .max_header_size(limits.header_bytes)
                .max_headers(limits.headers)
                .preserve_header_case(true)
                .max_buf_size(limits.header_bytes.max(8192) * 2)
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            drive(&inner, &client, Box::pin(connection), Some((peek, parting))).await;
        }
    }
}

fn answer(
    inner: Arc<Inner>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
    inner.answer(client, request).map(Ok)
}

/// A connection that can be asked to end.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn drain(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::UpgradeableConnection<TokioIo<Socket>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<Socket>, S, Streams>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Streams: hyper::rt::bounds::Http2ServerConnExec<S::Future, Body>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls a connection, its signal, its one timer and, of HTTP/1, the watch for its client's leaving together, and parts from it.
async fn drive(
    inner: &Inner,
    client: &Client,
    mut connection: Pin<Box<impl Graceful>>,
    watched: Option<(Peek, Arc<Parting>)>,
) {
    let heads = watched.is_some();
    let mut gone = pin!(async {
        match &watched {
            Some((socket, _)) => leave::gone(socket.clone(), &client.idleness).await,
            None => std::future::pending().await,
        }
    });
    let first = inner.config.header_timeout.min(inner.config.send_timeout);
    let mut timer: Pin<&mut Sleep> = pin!(sleep_until(Instant::now() + first));
    let (mut drained, mut half_closed) = (false, false);
    let ended = std::future::poll_fn(|cx| {
        client.signal.register(cx);
        if client.signal.cuts() {
            if client.signal.replaces() {
                inner.metrics.ended(End::Idle);
            }
            return Poll::Ready(None);
        }
        loop {
            // Before it is asked to end: a request that has already arrived is served.
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if drained || !client.signal.drains() {
                break;
            }
            drained = true;
            connection.as_mut().drain();
        }
        // After the connection: what has arrived before the client's end is read before the end is looked at.
        if gone.as_mut().poll(cx).is_ready() {
            if client.idleness.resting().is_none() {
                inner.metrics.ended(End::Left);
            }
            return Poll::Ready(None);
        }
        if !half_closed && client.idleness.is_half_closed() {
            half_closed = true;
            timer.as_mut().reset(Instant::now());
        }
        while timer.as_mut().poll(cx).is_ready() {
            let timeouts = timeouts(inner);
            match client.idleness.judge(&timeouts, heads) {
                Verdict::Until(next) => timer.as_mut().reset(next),
                Verdict::Dawdling => {
                    inner.metrics.ended(End::Head);
                    return Poll::Ready(None);
                }
                Verdict::HalfClosed => {
                    inner.metrics.ended(End::HalfClosedTimeout);
                    return Poll::Ready(None);
                }
                Verdict::Stalled => {
                    inner.metrics.ended(End::Send);
                    return Poll::Ready(None);
                }
                Verdict::Idle if drained => return Poll::Ready(None),
                Verdict::Idle => {
                    client.signal.drain();
                    timer.as_mut().reset(Instant::now() + timeouts.head);
                }
            }
        }
        Poll::Pending
    })
    .await;
    let Some(ended) = ended else { return };
    if let Err(error) = &ended {
        tracing::debug!(%error, "a client's connection ended");
    }
    drop(connection);
    if let Some((socket, parting)) = &watched {
        // On the heap, for the few that come to it.
        Box::pin(parting::part(
            parting,
            socket,
            client,
            ended.as_ref().err(),
            &inner.metrics,
        ))
        .await;
    }
}

/// How long a client may take.
fn timeouts(inner: &Inner) -> IdleTimeouts {
    IdleTimeouts {
        head: inner.config.header_timeout,
        idle: inner.config.idle_timeout,
        send: inner.config.send_timeout,
        // One that is held is told so in time.
        half_closed: inner.config.half_closed_timeout + LAST_WORD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size3<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn size5<A, B, C, D, E, F>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// What thousands of held requests cost is decided here; a layer that moves a request once more shows at once.
    #[test]
    fn a_connection_and_its_request_stay_small() {
        let (connection, request) = (size5(serve), size3(answer));
        assert!(connection <= 832, "a connection's task has {connection} bytes");
        assert!(request <= 768, "a request's future has {request} bytes");
    }
}
