//! The HTTP server that stands in for a container without a command: HTTP/1.1 and h2c.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 `ok` |
//! | `/echo` | the request body, streamed back as it arrives |
//! | `/slow?ms=N` | the usual answer after N milliseconds |
//! | `/status/<code>` | that status |
//! | `/headers` | the request's headers as JSON |
//! | `/trailers` | a body with the trailer `x-trailer: yes` |
//! | with `Connection: upgrade` | 101, then every byte comes back |
//! | anything else | JSON: pod, namespace, method, path, host, count |
//!
//! Every answer has the header `x-pod`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::core::{Core, PodRequest};
use crate::value::{name_of, namespace_of};

/// Who answers, and how.
#[derive(Debug)]
pub(crate) struct Identity {
    core: Arc<Core>,
    namespace: String,
    pod: String,
    count: AtomicU64,
}

impl Identity {
    pub fn new(core: Arc<Core>, pod: &Value) -> Self {
        Identity {
            core,
            namespace: namespace_of(pod).to_owned(),
            pod: name_of(pod).to_owned(),
            count: AtomicU64::new(0),
        }
    }
}

/// What has begun, and how it ends.
#[derive(Clone, Debug, Default)]
struct Open {
    accepting: CancellationToken,
    alive: CancellationToken,
    tasks: TaskTracker,
}

/// The listening ports of one pod.
#[derive(Debug, Default)]
pub(crate) struct Server(Open);

impl Server {
    /// Opens a port and answers on it. Returns the number it got.
    pub async fn open(&self, who: &Arc<Identity>, ip: IpAddr, port: u16) -> std::io::Result<u16> {
        let (listener, actual) = who.core.store.addresses.listen_pod(ip, port).await?;
        let router = router(who.clone(), self.0.clone());
        self.0.tasks.spawn(accept(router, listener, self.0.clone()));
        Ok(actual)
    }

    /// Stops accepting; requests that have begun may finish.
    pub fn drain(&self) {
        self.0.accepting.cancel();
        self.0.tasks.close();
    }

    /// Ends when everything that had begun is finished.
    pub async fn drained(&self) {
        self.0.tasks.wait().await;
    }

    /// Cuts every connection.
    pub fn kill(&self) {
        self.drain();
        self.0.alive.cancel();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn accept(router: Router, listener: TcpListener, open: Open) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let builder = Arc::new(builder);
    loop {
        let stream = tokio::select! {
            biased;
            () = open.accepting.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    debug!(error = %e, "accept failed");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let (builder, accepting, alive) = (builder.clone(), open.accepting.clone(), open.alive.clone());
        open.tasks.spawn(async move {
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let mut draining = false;
            loop {
                tokio::select! {
                    () = alive.cancelled() => return,
                    _ = connection.as_mut() => return,
                    () = accepting.cancelled(), if !draining => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }
}

fn router(who: Arc<Identity>, open: Open) -> Router {
    Router::new()
        .route("/echo", any(echo))
        .route("/slow", any(slow))
        .route("/status/{code}", any(status))
        .route("/headers", any(headers))
        .route("/trailers", any(trailers))
        .fallback(usual)
        .layer(from_fn_with_state(open, upgraded))
        .layer(from_fn_with_state(who.clone(), noted))
        .route("/healthz", any(|| async { "ok" }))
        .layer(from_fn_with_state(who.clone(), named))
        .with_state(who)
}

async fn named(State(who): State<Arc<Identity>>, request: Request, next: Next) -> Response {
    let mut reply = next.run(request).await;
    if let Ok(pod) = HeaderValue::from_str(&who.pod) {
        reply.headers_mut().insert("x-pod", pod);
    }
    reply
}

/// Which request of the pod it is, counted from 1.
#[derive(Clone, Copy)]
struct Count(u64);

async fn noted(State(who): State<Arc<Identity>>, mut request: Request, next: Next) -> Response {
    let count = who.count.fetch_add(1, Ordering::Relaxed) + 1;
    request.extensions_mut().insert(Count(count));
    who.core.record_pod_request(PodRequest {
        at: jiff::Timestamp::now().to_string(),
        namespace: who.namespace.clone(),
        pod: who.pod.clone(),
        method: request.method().to_string(),
        path: path_of(&request),
        host: host_of(&request),
    });
    next.run(request).await
}

fn path_of(request: &Request) -> String {
    let path = request.uri().path_and_query();
    path.map(ToString::to_string).unwrap_or_default()
}

fn host_of(request: &Request) -> String {
    let header = request.headers().get(header::HOST);
    let host = header.and_then(|h| h.to_str().ok().map(str::to_owned));
    host.or_else(|| request.uri().authority().map(ToString::to_string))
        .unwrap_or_default()
}

/// Gives every byte back, whatever the protocol.
async fn upgraded(State(open): State<Open>, mut request: Request, next: Next) -> Response {
    let Some(protocol) = request.headers().get(header::UPGRADE).cloned() else {
        return next.run(request).await;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    open.tasks.spawn(async move {
        let echo = async {
            let Ok(io) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(io));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        };
        tokio::select! {
            () = echo => {}
            () = open.alive.cancelled() => {}
        }
    });
    let connection = HeaderValue::from_static("upgrade");
    let headers = [(header::CONNECTION, connection), (header::UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn usual(
    State(who): State<Arc<Identity>>,
    Extension(Count(count)): Extension<Count>,
    request: Request,
) -> Response {
    let answer = json!({
        "pod": who.pod,
        "namespace": who.namespace,
        "method": request.method().as_str(),
        "path": path_of(&request),
        "host": host_of(&request),
        "version": format!("{:?}", request.version()),
        "count": count,
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, format!("{answer}\n")).into_response()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Slow {
    ms: u64,
}

async fn slow(
    who: State<Arc<Identity>>,
    count: Extension<Count>,
    Query(slow): Query<Slow>,
    request: Request,
) -> Response {
    tokio::time::sleep(Duration::from_millis(slow.ms)).await;
    usual(who, count, request).await
}

async fn echo(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut reply = Response::new(request.into_body());
    if let Some(kind) = kind {
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    reply
}

async fn status(Path(code): Path<u16>) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
    (code, format!("{code}\n")).into_response()
}

async fn headers(headers: HeaderMap) -> Json<Value> {
    let mut shown: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        shown.entry(name.as_str()).or_default().push(value);
    }
    Json(json!(shown))
}

async fn trailers() -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailer", HeaderValue::from_static("yes"));
    let frames = stream::iter([
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"body\n"))),
        Ok(Frame::trailers(trailers)),
    ]);
    let body = Body::new(StreamBody::new(frames));
    ([(header::TRAILER, "x-trailer")], body).into_response()
}
