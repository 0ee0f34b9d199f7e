//! One client connection, from its first byte to its end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures::FutureExt;
use futures::task::AtomicWaker;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::opening::{self, Opening};
use super::socket::Peek;
use super::{Door, Idleness, Socket, Verdict};
use crate::forward::Body;
use crate::forward::headers::client_address;
use crate::lock;
use crate::serve::Inner;
use crate::splice;

/// How much of a frame is buffered for one HTTP/2 stream towards a client.
const SEND_BUFFER: usize = 64 << 10;

const GRACEFUL: u8 = 1;
const CUT: u8 = 2;

/// How a connection is told to end.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    flags: AtomicU8,
    waker: AtomicWaker,
}

impl Signal {
    /// Finish what is under way and take nothing new.
    pub(crate) fn drain(&self) {
        self.raise(GRACEFUL);
    }

    /// Waits until it is told to end.
    async fn told(&self) {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.flags.load(Ordering::Acquire) == 0 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// Every open connection, so that it can be told to end.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, (Door, Arc<Signal>)>>,
}

impl Connections {
    fn enter(self: &Arc<Self>, door: Door) -> Entry {
        let (id, signal) = (
            self.next.fetch_add(1, Ordering::Relaxed),
            Arc::new(Signal::default()),
        );
        lock(&self.open).insert(id, (door, Arc::clone(&signal)));
        Entry {
            connections: Arc::clone(self),
            id,
            signal,
        }
    }

    pub(crate) fn drain(&self, which: impl Fn(Door) -> bool) {
        lock(&self.open)
            .values()
            .filter(|(door, _)| which(*door))
            .for_each(|(_, signal)| signal.drain());
    }

    pub(crate) fn cut(&self) {
        lock(&self.open)
            .values()
            .for_each(|(_, signal)| signal.raise(CUT));
    }
}

struct Entry {
    connections: Arc<Connections>,
    id: u64,
    signal: Arc<Signal>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.id);
    }
}

/// What every request of a connection shares.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) door: Door,
    /// The peer's address as `X-Forwarded-For` writes it.
    pub(crate) address: HeaderValue,
    pub(crate) idleness: Arc<Idleness>,
    pub(crate) signal: Arc<Signal>,
    /// To watch for the client's leaving. HTTP/2 tells by itself.
    pub(crate) socket: Option<Peek>,
    /// An upgraded connection takes its place along.
    pub(crate) place: Arc<Place>,
}

/// A place among the open connections.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Place {
    pub(crate) fn take(permit: OwnedSemaphorePermit, open: &Gauge) -> Arc<Self> {
        open.inc();
        Arc::new(Self {
            _permit: permit,
            open: open.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    inner: Arc<Inner>,
    mut stream: TcpStream,
    peer: SocketAddr,
    door: Door,
    place: Arc<Place>,
) {
    super::tune(&stream);
    let entry = inner.connections.enter(door);
    if inner.is_draining() {
        entry.signal.drain();
    }
    // What has arrived before a drain is served; a client that said nothing loses nothing.
    let opening = tokio::select! {
        biased;
        opening = Box::pin(opening::read(&inner, &mut stream, door)) => opening,
        () = entry.signal.told() => return,
    };
    let (begun, h2) = match opening {
        Opening::Nothing => return,
        Opening::Http { begun, h2 } => (begun, h2),
        Opening::Tcp { begun, target } => {
            return Box::pin(splice::serve(inner, stream, begun, target, door, place)).await;
        }
    };
    let idleness = Idleness::new();
    idleness.received();
    let (socket, peek) = Socket::new(stream, begun, Arc::clone(&idleness));
    let client = Arc::new(Client {
        door,
        address: client_address(peer.ip()),
        idleness,
        signal: Arc::clone(&entry.signal),
        socket: (!h2).then_some(peek),
        place,
    });
    let io = TokioIo::new(socket);
    let service = {
        let (inner, client) = (Arc::clone(&inner), Arc::clone(&client));
        service_fn(move |request: Request<Incoming>| answer(Arc::clone(&inner), Arc::clone(&client), request))
    };
    let limits = &inner.config.limits;
    if h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(std::time::Duration::from_secs(30))
            .keep_alive_timeout(std::time::Duration::from_secs(20))
            .serve_connection(io, service);
        drive(&inner, &client, Box::pin(connection), false).await;
    } else {
        let connection = http1::Builder::new()
            .max_header_size(limits.header_bytes)
            .max_headers(limits.headers)
            .max_buf_size(limits.header_bytes.max(8192) * 2)
            .serve_connection(io, service)
            .with_upgrades();
        drive(&inner, &client, Box::pin(connection), true).await;
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

impl<S> Graceful for http2::Connection<TokioIo<Socket>, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, Body>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls a connection, its signal and its one timer together.
async fn drive(inner: &Inner, client: &Client, mut connection: Pin<Box<impl Graceful>>, heads: bool) {
    let (head, idle) = (inner.config.header_timeout, inner.config.idle_timeout);
    let mut timer: Pin<&mut Sleep> = pin!(sleep_until(Instant::now() + head));
    let mut drained = false;
    std::future::poll_fn(|cx| {
        client.signal.waker.register(cx.waker());
        let flags = client.signal.flags.load(Ordering::Acquire);
        if flags & CUT != 0 {
            return Poll::Ready(());
        }
        loop {
            // Before it is asked to end: a request that has already arrived is served.
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection ended");
                }
                return Poll::Ready(());
            }
            if drained || client.signal.flags.load(Ordering::Acquire) & GRACEFUL == 0 {
                break;
            }
            drained = true;
            connection.as_mut().drain();
        }
        while timer.as_mut().poll(cx).is_ready() {
            match client.idleness.judge(head, idle, heads) {
                Verdict::Until(next) => timer.as_mut().reset(next),
                Verdict::Dawdling => return Poll::Ready(()),
                Verdict::Idle if drained => return Poll::Ready(()),
                Verdict::Idle => {
                    client.signal.drain();
                    timer.as_mut().reset(Instant::now() + head);
                }
            }
        }
        Poll::Pending
    })
    .await;
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
        assert!(connection <= 1024, "a connection's task has {connection} bytes");
        assert!(request <= 2048, "a request's future has {request} bytes");
    }
}
