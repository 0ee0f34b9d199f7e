//! The API server: plain HTTP/1.1 and h2c on loopback, no authentication.

mod discovery;
mod objects;
mod present;
mod request;
mod scale;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::core::Core;
use crate::error::ApiError;
use crate::faults::{ApiRequest, RequestInfo};
use crate::http::request::{Call, Place};
use crate::metrics;

/// etcd's limit, which real API servers inherit.
const MAX_BODY: usize = 3 * 1024 * 1024;
const LOGGED_BODY: usize = 16 * 1024;

/// Closes the connection without an answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("injected hang-up")]
struct HangUp;

/// Where objects, their collections and their subresources are, below a group and version.
const PLACES: &[&str] = &[
    "{plural}",
    "{plural}/{name}",
    "{plural}/{name}/{sub}",
    "namespaces/{ns}/{plural}",
    "namespaces/{ns}/{plural}/{name}",
    "namespaces/{ns}/{plural}/{name}/{sub}",
];

fn router(core: Arc<Core>) -> Router {
    let mut router = discovery::router();
    for base in ["/api/{version}", "/apis/{group}/{version}"] {
        for place in PLACES {
            router = router.route(&format!("{base}/{place}"), any(object));
        }
    }
    router
        // A namespace is in none, although its path looks so.
        .route("/api/{version}/namespaces/{name}/status", any(object_status))
        .route("/api/{version}/namespaces/{name}/finalize", any(object_finalize))
        .route(
            &format!("/apis/{}/{{version}}/{{*path}}", metrics::GROUP),
            get(metric),
        )
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(core)
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
    let router = router(core.clone());
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
        let (router, builder, shutdown) = (router.clone(), builder.clone(), core.shutdown.clone());
        core.tasks.spawn(async move {
            let service = service_fn(|request: hyper::Request<Incoming>| answer(router.clone(), request));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                outcome = connection.as_mut() => if let Err(e) = outcome {
                    debug!(error = %e, "connection ended");
                },
                // Watches are endless: dropping the connection is how they end.
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn answer(router: Router, request: hyper::Request<Incoming>) -> Result<Response, HangUp> {
    let Ok(reply) = router.oneshot(request).await;
    match reply.extensions().get::<HangUp>() {
        Some(hang_up) => Err(*hang_up),
        None => Ok(reply),
    }
}

async fn object(State(core): State<Arc<Core>>, Path(place): Path<Place>, call: Call) -> Response {
    let target = match place.target(&core.store, &call) {
        Ok(target) => target,
        Err(e) => return e.into_response(),
    };
    let info = target.info(&call);
    let real = async { objects::handle(&core, &target, &call) };
    disturbed(&core, info, &call, real).await
}

async fn object_status(core: State<Arc<Core>>, Path(place): Path<Place>, call: Call) -> Response {
    object(core, Path(place.of_namespaces("status")), call).await
}

async fn object_finalize(core: State<Arc<Core>>, Path(place): Path<Place>, call: Call) -> Response {
    object(core, Path(place.of_namespaces("finalize")), call).await
}

async fn metric(
    State(core): State<Arc<Core>>,
    Path((version, path)): Path<(String, String)>,
    call: Call,
) -> Response {
    let path: Vec<&str> = path.split('/').collect();
    let info = RequestInfo {
        verb: "get",
        resource: metrics::GROUP.to_owned(),
        namespace: match path[..] {
            ["namespaces", namespace, ..] => namespace.to_owned(),
            _ => String::new(),
        },
        name: path.last().copied().unwrap_or_default().to_owned(),
        user_agent: call.user_agent.clone(),
    };
    let real = async {
        if !core.options.custom_metrics_versions.contains(&version) {
            return Err(ApiError::no_such_path());
        }
        let found = core
            .metrics
            .get(&core.store, &version, &path, &call.query.labels()?)?;
        Ok(axum::Json(found).into_response())
    };
    disturbed(&core, info, &call, real).await
}

/// Answers as the faults in force will have it, and logs the request.
async fn disturbed(
    core: &Core,
    info: RequestInfo,
    call: &Call,
    real: impl Future<Output = Result<Response, ApiError>>,
) -> Response {
    let reply = match core.faults.take(&info) {
        None => real.await,
        Some(fault) => {
            tokio::time::sleep(fault.latency()).await;
            let goes_through = fault.after || (fault.status == 0 && !fault.hang_up);
            let real = if goes_through { Some(real.await) } else { None };
            if fault.hang_up {
                let mut nothing = Response::default();
                nothing.extensions_mut().insert(HangUp);
                return nothing;
            }
            real.filter(|_| fault.status == 0)
                .unwrap_or_else(|| Err(fault.error()))
        }
    };
    let reply = reply.unwrap_or_else(|e| e.into_response());
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
    reply
}
