//! Readiness probes: HTTP GET and TCP connect against the pod's own address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::annotations::ACTUAL_PORT;
use crate::value::{annotation, at, i64_at, list_at, str_at};

/// One container's readiness probe and its verdict so far.
#[derive(Debug)]
pub(crate) struct Probe {
    probe: Value,
    container: Value,
    pub period: Duration,
    pub due: Instant,
    pub ready: bool,
    in_a_row: i64,
    last: Option<bool>,
}

impl Probe {
    /// None: the container has no readiness probe.
    pub fn of(container: &Value, period: Option<Duration>) -> Option<Self> {
        let probe = at(container, "readinessProbe")?.clone();
        let seconds = |k: &str, default: u64| {
            Duration::from_secs(
                i64_at(&probe, k)
                    .and_then(|n| u64::try_from(n).ok())
                    .unwrap_or(default),
            )
        };
        let every = period.unwrap_or_else(|| seconds("periodSeconds", 10));
        Some(Probe {
            due: Instant::now() + seconds("initialDelaySeconds", 0),
            period: every,
            probe,
            container: container.clone(),
            ready: false,
            in_a_row: 0,
            last: None,
        })
    }

    /// Asks once and counts: `successThreshold` successes in a row make it ready, `failureThreshold` failures unready.
    pub async fn ask(&mut self, pod: &Value, ip: IpAddr) {
        let limit = i64_at(&self.probe, "timeoutSeconds")
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(1)
            .max(1);
        let ok = timeout(Duration::from_secs(limit), self.once(pod, ip))
            .await
            .unwrap_or(false);
        if self.last == Some(ok) {
            self.in_a_row += 1;
        } else {
            self.in_a_row = 1;
            self.last = Some(ok);
        }
        let need = i64_at(
            &self.probe,
            if ok {
                "successThreshold"
            } else {
                "failureThreshold"
            },
        )
        .unwrap_or(1);
        // Before the first verdict a pod is not ready, so failures change nothing.
        if self.in_a_row >= need {
            self.ready = ok;
        }
        self.due = Instant::now() + self.period;
    }

    fn port(&self, pod: &Value, v: Option<&Value>) -> Option<u16> {
        let n = match v? {
            Value::String(name) => list_at(&self.container, "ports")
                .iter()
                .find(|p| str_at(p, "name") == Some(name))?
                .get("containerPort")?
                .as_u64()?,
            n => n.as_u64()?,
        };
        let moved = annotation(pod, &format!("{ACTUAL_PORT}{n}")).and_then(|p| p.parse().ok());
        moved.or_else(|| u16::try_from(n).ok())
    }

    async fn once(&self, pod: &Value, ip: IpAddr) -> bool {
        if let Some(g) = at(&self.probe, "httpGet") {
            let Some(port) = self.port(pod, g.get("port")) else {
                return false;
            };
            let host = str_at(g, "host").and_then(|h| h.parse().ok()).unwrap_or(ip);
            return http_get(SocketAddr::new(host, port), str_at(g, "path").unwrap_or("/")).await;
        }
        if let Some(t) = at(&self.probe, "tcpSocket") {
            let Some(port) = self.port(pod, t.get("port")) else {
                return false;
            };
            return TcpStream::connect((ip, port)).await.is_ok();
        }
        // exec and grpc probes are not carried out here.
        true
    }
}

async fn http_get(address: SocketAddr, path: &str) -> bool {
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http::<Empty<Bytes>>();
    let request = Request::get(format!("http://{address}{path}"))
        .header(header::USER_AGENT, "kube-probe/1.37")
        .header(header::CONNECTION, "close")
        .body(Empty::new());
    let Ok(request) = request else { return false };
    let answer = client.request(request).await;
    answer.is_ok_and(|r| (200..400).contains(&r.status().as_u16()))
}
