//! Requests, each on a connection of its own, and a server that answers as a test wants.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::PATIENCE;

/// A body of either side.
pub type Payload = BoxBody<Bytes, hyper::Error>;

/// A body that is there as a whole.
pub fn text(text: impl Into<Bytes>) -> Payload {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// No body.
pub fn nothing() -> Payload {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A workload's pod: an HTTP/1 and h2c server on loopback, until it is dropped.
pub struct Pod {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Pod {
    /// Answers on a free port.
    pub async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Payload>> + Send + 'static,
    {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer).await
    }

    /// Answers on this address.
    pub async fn on<F, R>(address: SocketAddr, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Payload>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            connections,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Answers every request with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_request| async move { Response::new(text(name)) }).await
    }
}

/// An address that refuses connections until somebody listens on it.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// What a client got.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Fields before the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
    /// Fields after the body.
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    /// Why the DLX answered itself.
    pub fn reason(&self) -> &str {
        let reason = self.headers.get("dormouse-reason");
        reason.map_or("", |reason| reason.to_str().unwrap())
    }
}

fn getting(address: SocketAddr, path: &str) -> Request<Payload> {
    let request = Request::get(path).header("host", address.to_string());
    request.body(nothing()).unwrap()
}

/// A GET that must be answered.
pub async fn get(address: SocketAddr, path: &str) -> Reply {
    h1(address, getting(address, path)).await
}

/// A GET that may be refused, broken off, or not answered in time; the error says which.
pub async fn try_get(address: SocketAddr, path: &str) -> Result<Reply, String> {
    match tokio::time::timeout(PATIENCE, try_h1(address, getting(address, path))).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The status of an answer to `GET /`, or why there is none.
pub async fn request(address: SocketAddr) -> Result<StatusCode, String> {
    let reply = try_get(address, "/").await?;
    StatusCode::from_u16(reply.status).map_err(|error| error.to_string())
}

/// An HTTP/1.1 request that must be answered.
pub async fn h1(address: SocketAddr, request: Request<Payload>) -> Reply {
    try_h1(address, request).await.unwrap()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn try_h1(address: SocketAddr, request: Request<Payload>) -> Result<Reply, Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let reply = collect(sender.send_request(request).await?).await?;
    drop(sender);
    let _ = connection.await;
    Ok(reply)
}

/// Sends requests over one HTTP/2 connection.
pub type H2 = hyper::client::conn::http2::SendRequest<Payload>;

/// An HTTP/2 connection without TLS.
pub async fn h2_client(address: SocketAddr) -> (H2, JoinHandle<Result<(), hyper::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    (sender, tokio::spawn(connection))
}

/// An HTTP/2 request that must be answered.
pub async fn h2(address: SocketAddr, request: Request<Payload>) -> Reply {
    let (mut sender, _connection) = h2_client(address).await;
    reply(sender.send_request(request).await.unwrap()).await
}

/// The whole of a response.
pub async fn reply(response: Response<Incoming>) -> Reply {
    collect(response).await.unwrap()
}

async fn collect(response: Response<Incoming>) -> Result<Reply, hyper::Error> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&collected.to_bytes()).into_owned(),
        trailers,
    })
}
