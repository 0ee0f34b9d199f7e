//! Metrics and the access log. Labels are bounded: status classes and reasons, never names of resources or paths.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::rescue::{REASONS, Rescue};
use crate::retry::Lost;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// How clients were brought to an end, or came to theirs with a request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client left while its request was under way.
    Left,
    /// A head took too long.
    Head,
    /// The client did not send the body that it had announced.
    Body,
    /// The client did not read its answer.
    Send,
    /// It had closed its sending side, and was held for as long as such clients are.
    HalfClosedTimeout,
    /// It had closed its sending side, and its place was needed.
    HalfClosedReplaced,
    /// ConnectionPermits for connections were short, and this one was idle.
    Idle,
    /// There was no place for it.
    NoPlace,
    /// Its address had as many connections as an address may have.
    PerAddress,
}

const ENDS: [&str; 9] = [
    "left",
    "head-timeout",
    "body-timeout",
    "send-timeout",
    "half-closed-timeout",
    "half-closed-replaced",
    "idle-replaced",
    "no-place",
    "per-address",
];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Metrics of the data plane. Series are looked up once, at registration: a request only adds to atomics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Open client connections.
    pub(crate) connections: Gauge,
    /// Requests that are held.
    pub(crate) held: Gauge,
    /// Bytes of request heads that are held.
    pub(crate) held_bytes: Gauge,
    /// Limit of `held`.
    pub(crate) held_limit: Gauge,
    /// Limit of `held_bytes`.
    pub(crate) held_bytes_limit: Gauge,
    /// Requests that a workload is answering.
    pub(crate) in_flight: Gauge,
    /// Open upgraded connections.
    pub(crate) upgraded: Gauge,
    /// Connections that are no HTTP and reached a pod.
    pub(crate) tcp_connections: Counter,
    /// Those of them that did not end by both sides' ends.
    pub(crate) tcp_broken: Counter,
    /// DLX ports that are open.
    pub(crate) ports_open: Gauge,
    /// DLX ports that could not be bound.
    pub(crate) ports_failed: Gauge,
    /// Attempts to connect to a pod that failed and were repeated.
    pub(crate) connect_retries: Counter,
    /// Requests that were sent again, by [`Lost`].
    retries: [Counter; 4],
    /// New connections to pods.
    pub(crate) connects: Counter,
    pub(crate) wake_ok: Counter,
    pub(crate) wake_failed: Counter,
    pub(crate) wake_seconds: Histogram,
    pub(crate) hold_seconds: Histogram,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    responses: [Counter; 5],
    rescues: Vec<Counter>,
    ends: [Counter; ENDS.len()],
    /// Held requests whose clients have closed their sending sides.
    pub(crate) half_closed: Gauge,
    families: Families,
}

/// What the series belong to.
#[derive(Clone, Debug)]
struct Families {
    responses: Family<Class, Counter>,
    rescues: Family<Reason, Counter>,
    retries: Family<Reason, Counter>,
    ends: Family<Reason, Counter>,
    wakes: Family<Outcome, Counter>,
    bytes: Family<Direction, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let responses = Family::<Class, Counter>::default();
        let rescues = Family::<Reason, Counter>::default();
        let retries = Family::<Reason, Counter>::default();
        let ends = Family::<Reason, Counter>::default();
        let wakes = Family::<Outcome, Counter>::default();
        let bytes = Family::<Direction, Counter>::default();
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.5, 14));
        Self {
            connections: Gauge::default(),
            held: Gauge::default(),
            held_bytes: Gauge::default(),
            held_limit: Gauge::default(),
            held_bytes_limit: Gauge::default(),
            in_flight: Gauge::default(),
            upgraded: Gauge::default(),
            tcp_connections: Counter::default(),
            tcp_broken: Counter::default(),
            ports_open: Gauge::default(),
            ports_failed: Gauge::default(),
            connect_retries: Counter::default(),
            retries: Lost::REASONS.map(|reason| retries.get_or_create_owned(&Reason { reason })),
            connects: Counter::default(),
            wake_ok: wakes.get_or_create_owned(&Outcome { outcome: "accepted" }),
            wake_failed: wakes.get_or_create_owned(&Outcome { outcome: "failed" }),
            wake_seconds: seconds(),
            hold_seconds: seconds(),
            bytes_in: bytes.get_or_create_owned(&Direction { direction: "in" }),
            bytes_out: bytes.get_or_create_owned(&Direction { direction: "out" }),
            responses: CLASSES.map(|class| responses.get_or_create_owned(&Class { class })),
            rescues: REASONS
                .iter()
                .map(|&reason| rescues.get_or_create_owned(&Reason { reason }))
                .collect(),
            ends: ENDS.map(|reason| ends.get_or_create_owned(&Reason { reason })),
            half_closed: Gauge::default(),
            families: Families {
                responses,
                rescues,
                retries,
                ends,
                wakes,
                bytes,
            },
        }
    }
}

impl Metrics {
    /// Registers every metric under the prefix `dormouse_dlx_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dormouse_dlx");
        let Families {
            responses,
            rescues,
            retries,
            ends,
            wakes,
            bytes,
        } = self.families.clone();
        registry.register("responses", "Responses by status class", responses);
        registry.register(
            "rescues",
            "Responses that the DLX gave itself, by reason",
            rescues,
        );
        registry.register(
            "request_retries",
            "Requests that were sent to a workload again, by what became of them before",
            retries,
        );
        registry.register(
            "clients_ended",
            "Clients that left with a request under way, or were ended, by reason",
            ends,
        );
        registry.register("wakes", "Wakes asked of plugins, by outcome", wakes);
        registry.register(
            "body_bytes",
            "Bytes of bodies, in from clients and out to them",
            bytes,
        );
        let histograms = [
            (
                "wake_seconds",
                "How long plugins took to accept a wake",
                &self.wake_seconds,
            ),
            (
                "hold_seconds",
                "How long requests were held, whatever became of them",
                &self.hold_seconds,
            ),
        ];
        for (name, help, histogram) in histograms {
            registry.register(name, help, histogram.clone());
        }
        let gauges = [
            ("connections", "Open client connections", &self.connections),
            ("held_requests", "Requests that are held", &self.held),
            (
                "half_closed_requests",
                "Held requests whose clients have closed their sending sides",
                &self.half_closed,
            ),
            (
                "held_bytes",
                "Bytes of request heads that are held",
                &self.held_bytes,
            ),
            (
                "held_requests_limit",
                "Most requests that are held at a time",
                &self.held_limit,
            ),
            (
                "held_bytes_limit",
                "Most bytes of request heads that are held at a time",
                &self.held_bytes_limit,
            ),
            (
                "in_flight_requests",
                "Requests that a workload is answering",
                &self.in_flight,
            ),
            (
                "upgraded_connections",
                "Open connections that are copied byte for byte: upgraded ones, and those that are not HTTP",
                &self.upgraded,
            ),
            ("ports_open", "DLX ports that are open", &self.ports_open),
            (
                "ports_failed",
                "DLX ports that could not be bound",
                &self.ports_failed,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "connect_retries",
            "Attempts to connect to a pod that failed",
            self.connect_retries.clone(),
        );
        registry.register(
            "tcp_connections",
            "Connections that are not HTTP and reached a pod",
            self.tcp_connections.clone(),
        );
        registry.register(
            "tcp_broken",
            "Connections that are not HTTP, reached a pod, and were reset or timed out",
            self.tcp_broken.clone(),
        );
        registry.register("connects", "New connections to pods", self.connects.clone());
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.responses[class].inc();
    }

    pub(crate) fn rescued(&self, rescue: &Rescue) {
        self.rescues[rescue.index()].inc();
    }

    pub(crate) fn sent_again(&self, lost: Lost) {
        self.retries[lost.index()].inc();
    }

    pub(crate) fn ended(&self, end: End) {
        self.ends[end as usize].inc();
    }

    pub(crate) fn woke(&self, took: Duration, ok: bool) {
        self.wake_seconds.observe(took.as_secs_f64());
        if ok {
            self.wake_ok.inc()
        } else {
            self.wake_failed.inc()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_series_from_the_start() {
        let mut registry = Registry::default();
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        metrics.rescued(&Rescue::Loop);
        metrics.answered(StatusCode::LOOP_DETECTED);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for reason in REASONS {
            assert!(
                text.contains(&format!("dormouse_dlx_rescues_total{{reason=\"{reason}\"}}")),
                "{reason}\n{text}"
            );
        }
        assert!(text.contains("dormouse_dlx_rescues_total{reason=\"loop\"} 1"));
        assert!(text.contains("dormouse_dlx_responses_total{class=\"5xx\"} 1"));
    }
}
