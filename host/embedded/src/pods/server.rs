//! The HTTP server that stands in for a container without a command: HTTP/1.1 and h2c.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 `ok`, whatever the annotations say |
//! | `/echo` | the request body, streamed back as it arrives |
//! | `/slow?ms=N` | the usual answer after N milliseconds |
//! | `/stream?n=N&ms=M` | N lines, M milliseconds apart |
//! | `/status/<code>` | that status |
//! | `/headers` | the request's headers as JSON |
//! | `/trailers` | a body with the trailer `x-trailer: yes` |
//! | with `Connection: upgrade` | 101, then every byte comes back |
//! | anything else | JSON: pod, namespace, method, path, host, count |
//!
//! Every answer has the header `x-pod`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::annotations::{ANSWER_STATUS, RESPONSE_DELAY, duration};
use crate::core::{Core, PodRequest};
use crate::http::request::Query;
use crate::value::annotation;

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Who answers, and how.
#[derive(Debug)]
pub(crate) struct Identity {
    pub core: Arc<Core>,
    pub namespace: String,
    pub pod: String,
    pub delay: Duration,
    pub status: Option<StatusCode>,
    pub count: AtomicU64,
}

impl Identity {
    pub fn new(core: Arc<Core>, pod: &serde_json::Value) -> Self {
        Identity {
            core,
            namespace: crate::value::namespace_of(pod).to_owned(),
            pod: crate::value::name_of(pod).to_owned(),
            delay: duration(pod, RESPONSE_DELAY).unwrap_or_default(),
            status: annotation(pod, ANSWER_STATUS).and_then(|s| s.parse().ok()),
            count: AtomicU64::new(0),
        }
    }
}

/// The listening ports of one pod.
#[derive(Debug)]
pub(crate) struct Server {
    accepting: CancellationToken,
    alive: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub fn new() -> Self {
        Server {
            accepting: CancellationToken::new(),
            alive: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Opens a port and answers on it. Returns the number it got.
    pub async fn open(&self, who: &Arc<Identity>, ip: IpAddr, port: u16) -> std::io::Result<u16> {
        let (listener, actual) = who.core.store.addresses.listen_pod(ip, port).await?;
        let task = accept(
            who.clone(),
            listener,
            self.accepting.clone(),
            self.alive.clone(),
            self.tasks.clone(),
        );
        self.tasks.spawn(task);
        Ok(actual)
    }

    /// Stops accepting; requests that have begun may finish.
    pub fn drain(&self) {
        self.accepting.cancel();
        self.tasks.close();
    }

    /// Ends when everything that had begun is finished.
    pub async fn drained(&self) {
        self.tasks.wait().await;
    }

    /// Cuts every connection.
    pub fn kill(&self) {
        self.drain();
        self.alive.cancel();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn accept(
    who: Arc<Identity>,
    listener: TcpListener,
    accepting: CancellationToken,
    alive: CancellationToken,
    tasks: TaskTracker,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let builder = Arc::new(builder);
    loop {
        let stream = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
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
        let (who, builder) = (who.clone(), builder.clone());
        let (accepting, alive, upgrades) = (accepting.clone(), alive.clone(), tasks.clone());
        tasks.spawn(async move {
            let service = service_fn(|req| answer(who.clone(), req, alive.clone(), upgrades.clone()));
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

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|e: Infallible| match e {})
        .boxed_unsync()
}

fn plain(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut r = Response::new(full(text));
    *r.status_mut() = code;
    r.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    r
}

async fn answer(
    who: Arc<Identity>,
    req: Request<Incoming>,
    alive: CancellationToken,
    tasks: TaskTracker,
) -> Result<Response<Body>, Infallible> {
    let mut r = respond(&who, req, alive, tasks).await;
    if let Ok(v) = HeaderValue::from_str(&who.pod) {
        r.headers_mut().insert("x-pod", v);
    }
    Ok(r)
}

async fn respond(
    who: &Arc<Identity>,
    mut req: Request<Incoming>,
    alive: CancellationToken,
    tasks: TaskTracker,
) -> Response<Body> {
    let path = req.uri().path().to_owned();
    if path == "/healthz" {
        return plain(StatusCode::OK, "ok");
    }
    let host = req
        .headers()
        .get(header::HOST)
        .and_then(|h| h.to_str().ok().map(str::to_owned))
        .or_else(|| req.uri().authority().map(ToString::to_string))
        .unwrap_or_default();
    let count = who.count.fetch_add(1, Ordering::Relaxed) + 1;
    who.core.record_pod_request(PodRequest {
        at: jiff::Timestamp::now().to_string(),
        namespace: who.namespace.clone(),
        pod: who.pod.clone(),
        method: req.method().to_string(),
        path: req
            .uri()
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        host: host.clone(),
    });
    if !who.delay.is_zero() {
        tokio::time::sleep(who.delay).await;
    }
    if let Some(code) = who.status {
        return plain(code, "as told by annotation");
    }
    if let Some(protocol) = req.headers().get(header::UPGRADE).cloned() {
        return upgrade(&mut req, protocol, alive, &tasks);
    }
    let query = Query::parse(req.uri().query().unwrap_or(""));
    let number = |k: &str| query.get(k).parse::<u64>().unwrap_or(0);
    match path.as_str() {
        "/echo" => {
            let kind = req.headers().get(header::CONTENT_TYPE).cloned();
            let mut r = Response::new(req.into_body().map_err(Into::into).boxed_unsync());
            if let Some(k) = kind {
                r.headers_mut().insert(header::CONTENT_TYPE, k);
            }
            return r;
        }
        "/slow" => tokio::time::sleep(Duration::from_millis(number("ms"))).await,
        "/stream" => {
            let (n, pause) = (number("n").min(100_000), Duration::from_millis(number("ms")));
            let lines = stream::iter(0..n).then(move |i| async move {
                if i > 0 {
                    tokio::time::sleep(pause).await;
                }
                Ok(Frame::data(Bytes::from(format!("{i}\n"))))
            });
            return Response::new(StreamBody::new(lines).boxed_unsync());
        }
        "/headers" => {
            let mut headers: std::collections::BTreeMap<&str, Vec<String>> =
                std::collections::BTreeMap::new();
            for (k, v) in req.headers() {
                headers
                    .entry(k.as_str())
                    .or_default()
                    .push(String::from_utf8_lossy(v.as_bytes()).into_owned());
            }
            return json_answer(json!(headers).to_string());
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-trailer", HeaderValue::from_static("yes"));
            let frames = stream::iter([
                Ok(Frame::data(Bytes::from_static(b"body\n"))),
                Ok(Frame::trailers(trailers)),
            ]);
            let mut r = Response::new(StreamBody::new(frames).boxed_unsync());
            r.headers_mut()
                .insert(header::TRAILER, HeaderValue::from_static("x-trailer"));
            return r;
        }
        p => {
            if let Some(code) = p
                .strip_prefix("/status/")
                .and_then(|c| c.parse::<StatusCode>().ok())
            {
                return plain(code, format!("{code}\n"));
            }
        }
    }
    let answer = json!({
        "pod": who.pod,
        "namespace": who.namespace,
        "method": req.method().as_str(),
        "path": req.uri().path_and_query().map(ToString::to_string),
        "host": host,
        "version": format!("{:?}", req.version()),
        "count": count,
    });
    json_answer(format!("{answer}\n"))
}

fn json_answer(text: String) -> Response<Body> {
    let mut r = Response::new(full(text));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    r
}

fn upgrade(
    req: &mut Request<Incoming>,
    protocol: HeaderValue,
    alive: CancellationToken,
    tasks: &TaskTracker,
) -> Response<Body> {
    let upgraded = hyper::upgrade::on(req);
    tasks.spawn(async move {
        let echo = async {
            let Ok(io) = upgraded.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(io));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        };
        tokio::select! {
            () = echo => {}
            () = alive.cancelled() => {}
        }
    });
    let mut r = Response::new(full(""));
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    r.headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    r.headers_mut().insert(header::UPGRADE, protocol);
    r
}
