//! The API server: plain HTTP/1.1 and h2c on loopback, no authentication.

pub(crate) mod control;
pub(crate) mod discovery;
pub(crate) mod objects;
pub(crate) mod present;
pub(crate) mod request;
pub(crate) mod scale;
pub(crate) mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::core::Core;
use crate::error::ApiError;
use crate::faults::{ApiRequest, Fault};
use crate::http::request::{Query, Route};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Reply = Response<Body>;

/// etcd's limit, which real API servers inherit.
const MAX_BODY: usize = 3 * 1024 * 1024;
const LOGGED_BODY: usize = 16 * 1024;

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("injected hang-up")]
struct HangUp;

pub(crate) fn full(code: u16, v: &Value) -> Reply {
    text(code, "application/json", v.to_string())
}

pub(crate) fn text(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut r = Response::new(Full::new(body.into()).boxed_unsync());
    *r.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    r.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    r
}

fn failure(e: &ApiError) -> Reply {
    let mut r = full(e.code, &e.status());
    if matches!(e.code, 429 | 503) {
        r.headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    r
}

/// The usual reason of a status code.
pub(crate) fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}

/// Serves until the cluster shuts down.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    builder.http2().timer(TokioTimer::new());
    let builder = Arc::new(builder);
    loop {
        let stream = tokio::select! {
            () = core.shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    warn!(error = %e, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (core, builder) = (core.clone(), builder.clone());
        core.clone().tasks.spawn(async move {
            let service = service_fn(|req| {
                let core = core.clone();
                async move { handle(&core, req).await }
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                outcome = connection.as_mut() => if let Err(e) = outcome {
                    debug!(error = %e, "connection ended");
                },
                // Watches are endless: dropping the connection is how they end.
                () = core.shutdown.cancelled() => {}
            }
        });
    }
}

async fn handle(core: &Arc<Core>, req: Request<Incoming>) -> Result<Reply, HangUp> {
    let (parts, body) = req.into_parts();
    let path = parts.uri.path().to_owned();
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(b) => b.to_bytes(),
        Err(e) => {
            let e = ApiError::new(
                413,
                "RequestEntityTooLarge",
                format!("Request entity too large: {e}"),
            );
            return Ok(failure(&e));
        }
    };
    let segments: Vec<String> = path
        .split('/')
        .filter(|s| !s.is_empty())
        .map(request::percent_decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let header = |name: header::HeaderName| {
        parts
            .headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    };
    let call = request::Call {
        method: parts.method.clone(),
        query,
        content_type: header(header::CONTENT_TYPE).to_owned(),
        accept: header(header::ACCEPT).to_owned(),
        user_agent: header(header::USER_AGENT).to_owned(),
        body,
    };
    if segments.first() == Some(&"embedded") {
        return Ok(control::handle(core, &segments[1..], &call).unwrap_or_else(|e| failure(&e)));
    }
    if let Some(reply) = discovery::handle(core, &segments, &call) {
        return Ok(reply);
    }
    let route = match Route::parse(&core.store, &segments, &call) {
        Ok(r) => r,
        Err(e) => return Ok(failure(&e)),
    };
    let info = route.info(&call);
    let fault = core.faults.take(&info);
    let reply = match &fault {
        None => answer(core, &route, &call).await,
        Some(f) => {
            tokio::time::sleep(f.latency()).await;
            let real = if f.after || (f.status == 0 && !f.hang_up) {
                Some(answer(core, &route, &call).await)
            } else {
                None
            };
            if f.hang_up {
                return Err(HangUp);
            }
            match real {
                Some(r) if f.status == 0 => r,
                _ => failure(&injected(f)),
            }
        }
    };
    let write = !matches!(info.verb, "get" | "list" | "watch");
    core.faults.record(ApiRequest {
        at: jiff::Timestamp::now().to_string(),
        verb: info.verb.to_owned(),
        resource: info.resource,
        namespace: info.namespace,
        name: info.name,
        user_agent: info.user_agent,
        status: reply.status().as_u16(),
        body: if write && call.body.len() <= LOGGED_BODY {
            serde_json::from_slice(&call.body).unwrap_or_default()
        } else {
            Value::Null
        },
    });
    Ok(reply)
}

fn injected(f: &Fault) -> ApiError {
    let reason = match f.reason.as_str() {
        "" => reason_of(f.status),
        "Forbidden" => "Forbidden",
        "Conflict" => "Conflict",
        "AlreadyExists" => "AlreadyExists",
        "TooManyRequests" => "TooManyRequests",
        "ServerTimeout" => "ServerTimeout",
        "Timeout" => "Timeout",
        "Invalid" => "Invalid",
        "NotFound" => "NotFound",
        _ => "Unknown",
    };
    let message = if f.message.is_empty() {
        "injected fault".to_owned()
    } else {
        f.message.clone()
    };
    ApiError::new(f.status, reason, message)
}

async fn answer(core: &Arc<Core>, route: &Route, call: &request::Call) -> Reply {
    let outcome = match route {
        Route::Metrics { version, path, .. } => {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            match call.query.labels() {
                Ok(selector) => core
                    .metrics
                    .get(&core.store, version, &path, &selector)
                    .await
                    .map(|v| full(200, &v)),
                Err(e) => Err(e),
            }
        }
        Route::Object(target) => objects::handle(core, target, call),
    };
    outcome.unwrap_or_else(|e| failure(&e))
}
