//! The admin endpoint: `/healthz`, `/readyz`, `/metrics`, and what a process adds to it.
//!
//! It is for probes, scrapers and Dormouse itself. It changes nothing and shows no secret, but it should not be
//! reachable from outside the cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

/// What is missing for readiness; or what a ready process has still to do, if anything.
pub type Readiness = Arc<dyn Fn() -> Result<Option<String>, String> + Send + Sync>;

#[derive(Clone)]
struct Admin {
    registry: Arc<Registry>,
    ready: Readiness,
}

/// Serves the admin endpoint until `shutdown`. The listener is bound before this returns, so a taken port is an error
/// at start.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    ready: Readiness,
    extra: Router,
    shutdown: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("--admin-address {address} cannot be bound"))?;
    let admin = Admin {
        registry: Arc::new(registry),
        ready,
    };
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
        .merge(extra);
    tracing::info!(%address, "admin endpoint is up");
    Ok(tokio::spawn(async move {
        let serving = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the admin endpoint ended");
        }
    }))
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    match (admin.ready)() {
        Ok(None) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Some(pending)) => (StatusCode::OK, format!("ok, {pending}\n")),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => (
            StatusCode::OK,
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
