//! The server: answers as a container of the embedded cluster does, as far as the end-to-end tests look.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 `ok` |
//! | `/echo` | the request body, streamed back as it arrives |
//! | `/slow?ms=N` | the usual answer after N milliseconds |
//! | `/status/<code>` | that status |
//! | `/metrics` | Prometheus text: `workload_requests_total`, and every gauge that was set |
//! | `POST /gauge?name=N&value=V` | sets a gauge |
//! | `POST /memory?mebibytes=N` | holds so much memory from then on, at most 256 |
//! | anything else | JSON: pod, namespace, method, path, count; when the process began (ms), listened and got the request (µs) |
//!
//! HTTP/1.1 and h2c. On another port a protocol of lines, in which the server speaks first ([`lines`](crate::lines)). SIGTERM: goes on until open requests have ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

/// Gauges that may be set, at most.
const MOST_GAUGES: usize = 64;
/// Memory that may be held, at most.
const MOST_MEBIBYTES: usize = 256;

/// What the environment says.
#[derive(Debug)]
pub struct Settings {
    /// `PORT`; default 8080.
    port: u16,
    /// `PORT_OF_LINES`; default 2525.
    lines_port: u16,
    /// `START_DELAY`, such as `150ms` or `2s`: nothing listens before. Default: none.
    start_delay: Duration,
    /// `POD_NAME`.
    pod: String,
    /// `POD_NAMESPACE`.
    namespace: String,
    /// When the process began, in milliseconds since 1970.
    started: i64,
}

impl Settings {
    /// Reads the environment.
    pub fn from_env() -> Result<Self> {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let port = |name: &str, default: u16| match text(name) {
            None => Ok(default),
            Some(port) => port
                .parse()
                .with_context(|| format!("{name} is {port:?}, which is no port")),
        };
        let start_delay = match text("START_DELAY") {
            None => Duration::ZERO,
            Some(delay) => span(&delay).with_context(|| format!("START_DELAY is {delay:?}"))?,
        };
        Ok(Self {
            port: port("PORT", 8080)?,
            lines_port: port("PORT_OF_LINES", 2525)?,
            start_delay,
            pod: text("POD_NAME").unwrap_or_else(|| "workload".to_owned()),
            namespace: text("POD_NAMESPACE").unwrap_or_default(),
            started: Timestamp::now().as_millisecond(),
        })
    }
}

/// A duration such as `150ms`, `2s` or `1m`.
pub fn span(text: &str) -> Result<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text
        .strip_suffix(unit)
        .unwrap_or_default()
        .parse()
        .context("it does not begin with a whole number")?;
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => bail!("{unit:?} is no unit: write 150ms, 2s or 1m"),
    })
}

struct Server {
    settings: Settings,
    /// When it began to listen, in microseconds since 1970.
    listening: i64,
    count: AtomicU64,
    gauges: Mutex<BTreeMap<String, f64>>,
    held: Mutex<Vec<u8>>,
}

/// Serves until SIGTERM.
pub async fn run(settings: Settings) -> Result<()> {
    let ended = terminated()?;
    let mut ended = Box::pin(ended);
    tokio::select! {
        () = tokio::time::sleep(settings.start_delay) => {}
        () = &mut ended => return Ok(()),
    }
    let address = ("0.0.0.0", settings.port);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("port {} cannot be opened", settings.port))?;
    let (lines_port, pod) = (settings.lines_port, settings.pod.clone());
    let lines = crate::lines::run(lines_port, &pod, terminated()?);
    let server = Arc::new(Server {
        settings,
        listening: Timestamp::now().as_microsecond(),
        count: AtomicU64::new(0),
        gauges: Mutex::default(),
        held: Mutex::default(),
    });
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/echo",
            any(|request: Request| async { Body::new(request.into_body()).into_response() }),
        )
        .route("/slow", any(slow))
        .route("/status/{code}", any(status))
        .route("/metrics", get(metrics))
        .route("/gauge", post(gauge))
        .route("/memory", post(memory))
        .fallback(answer)
        .with_state(server);
    let http = async {
        axum::serve(listener, router)
            .with_graceful_shutdown(ended)
            .await
            .context("HTTP")
    };
    tokio::try_join!(http, lines)?;
    Ok(())
}

/// Ends when the process is told to end.
fn terminated() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let count = server.count.fetch_add(1, Ordering::Relaxed) + 1;
    let body = json!({
        "pod": server.settings.pod,
        "namespace": server.settings.namespace,
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map(ToString::to_string),
        "version": format!("{:?}", request.version()),
        "count": count,
        "started": server.settings.started,
        "listening": server.listening,
        "received": Timestamp::now().as_microsecond(),
    });
    (
        [
            ("content-type", "application/json"),
            ("x-pod", server.settings.pod.as_str()),
        ],
        format!("{body}\n"),
    )
        .into_response()
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

async fn slow(server: State<Arc<Server>>, Query(slow): Query<Slow>, request: Request) -> Response {
    tokio::time::sleep(Duration::from_millis(slow.ms)).await;
    answer(server, request).await
}

async fn status(Path(code): Path<u16>) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
    (code, format!("{code}\n")).into_response()
}

#[derive(Deserialize)]
struct Memory {
    mebibytes: usize,
}

async fn memory(State(server): State<Arc<Server>>, Query(memory): Query<Memory>) -> StatusCode {
    if memory.mebibytes > MOST_MEBIBYTES {
        return StatusCode::BAD_REQUEST;
    }
    // Zeros would be pages that nobody has touched.
    let held = vec![1; memory.mebibytes << 20];
    *server.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    StatusCode::NO_CONTENT
}

async fn metrics(State(server): State<Arc<Server>>) -> String {
    let mut text = format!(
        "# TYPE workload_requests_total counter\nworkload_requests_total {}\n",
        server.count.load(Ordering::Relaxed)
    );
    for (name, value) in server
        .gauges
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
    {
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
    }
    text
}

#[derive(Deserialize)]
struct Gauge {
    name: String,
    value: f64,
}

async fn gauge(State(server): State<Arc<Server>>, Query(gauge): Query<Gauge>) -> Response {
    let good = !gauge.name.is_empty()
        && gauge.name.len() < 100
        && gauge.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut gauges = server.gauges.lock().unwrap_or_else(PoisonError::into_inner);
    if !good || (gauges.len() >= MOST_GAUGES && !gauges.contains_key(&gauge.name)) {
        return (StatusCode::BAD_REQUEST, "no such gauge can be set\n").into_response();
    }
    gauges.insert(gauge.name, gauge.value);
    "ok\n".into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_nonsense_is_refused() {
        assert_eq!(span("150ms").unwrap(), Duration::from_millis(150));
        assert_eq!(span("2s").unwrap(), Duration::from_secs(2));
        assert_eq!(span("3m").unwrap(), Duration::from_secs(180));
        for wrong in ["", "s", "5", "5h", "-1s", "1.5s"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
