//! Every knob of the data plane, with its unit and the reason for its default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::copy::CopyTimeouts;
use crate::forwarded::Forwarding;

/// Configuration of one DLX process.
#[derive(Clone, Debug)]
pub struct DlxConfig {
    /// Where requests arrive that are routed by host and path or by the target-name header.
    pub listen_address: SocketAddr,
    /// Address that DLX ports are bound on.
    pub bind_address: IpAddr,
    /// How long a request is held when its resource says nothing. v3io's default is five minutes, which is longer
    /// than most clients wait; two minutes covers an image pull.
    pub readiness_timeout: Duration,
    /// Limit of a single attempt to connect to a pod. Short: the next attempt goes elsewhere, and a lost SYN on a pod
    /// network is seen as fast as it can be told from a slow one.
    pub connect_timeout: Duration,
    /// How long a workload may take until its response begins. The span starts anew whenever the client sends more of
    /// the body. None: as long as the client stays.
    pub response_timeout: Option<Duration>,
    /// How long a client may take to send a request head, from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request. Longer than the 60 s after which common ingress
    /// controllers close theirs, so that the client closes first and no request is lost to the race.
    pub idle_timeout: Duration,
    // What a client may take its time for.
    /// How long a client may take nothing of an answer that is ready for it: the time between two writes, not in all. A minute
    /// as in nginx (`send_timeout`).
    pub send_timeout: Duration,
    /// How long a client may send nothing of a body that is asked for: the time between two reads, not in all. A minute as in
    /// nginx (`client_body_timeout`).
    pub body_timeout: Duration,
    /// How long a request may go without an answer whose client has closed its sending side. It may be waiting, or it may be
    /// gone: nobody can tell. Longer than most workloads take to start.
    pub half_closed_timeout: Duration,
    /// Sizes of everything that can grow.
    pub limits: Limits,
    /// Routing by the target-name header. None: such headers are data like any other.
    pub names: Option<NameHeaders>,
    /// What a request that names two targets gets.
    pub strategy: Strategy,
    /// What workloads are told of where a request came from, and whose word on it counts.
    pub forwarding: Forwarding,
    /// How a burst of held requests is let go.
    pub release: ReleaseRamp,
    /// Connections that are copied byte for byte: every protocol that is not HTTP, and upgraded ones.
    pub tcp: TcpLimits,
    /// How long draining may take before held requests are refused and open connections are cut.
    pub drain_limit: Duration,
}

/// What plugins may have an opinion on, so what is complete only when all of them are loaded. The DLX serves before that.
#[derive(Clone, Debug)]
pub struct Preferences {
    /// As in [`DlxConfig`].
    pub readiness_timeout: Duration,
    /// As in [`DlxConfig`].
    pub names: Option<NameHeaders>,
    /// As in [`DlxConfig`].
    pub strategy: Strategy,
    /// Whether nobody will have another opinion. Until then a request without a route is not refused for good.
    pub complete: bool,
}

impl From<&DlxConfig> for Preferences {
    fn from(config: &DlxConfig) -> Self {
        Self {
            readiness_timeout: config.readiness_timeout,
            names: config.names.clone(),
            strategy: config.strategy,
            complete: true,
        }
    }
}

impl Default for DlxConfig {
    fn default() -> Self {
        Self {
            listen_address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            readiness_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(1),
            response_timeout: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            send_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            half_closed_timeout: Duration::from_secs(8),
            limits: Limits::default(),
            names: None,
            strategy: Strategy::Random,
            forwarding: Forwarding::default(),
            release: ReleaseRamp::default(),
            tcp: TcpLimits::default(),
            drain_limit: Duration::from_secs(30),
        }
    }
}

/// Times of connections that are copied byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpLimits {
    /// How long a client may say nothing, at a port that is not known to be HTTP, before it is taken for one that waits for
    /// the server to speak first. Longer than a client on a slow network needs for its first bytes after connecting, so that
    /// HTTP is recognised, and short beside a cold start.
    pub silence: Duration,
    /// How long an open connection counts as demand after its last bytes. Longer than pools take to check their idle
    /// connections when they are in use, and short enough for forgotten ones not to keep a workload awake.
    pub connection_idle: Duration,
    /// How long a connection may be without any bytes before it is ended. None, the default: as long as both sides like, as
    /// without a proxy.
    pub idle_limit: Option<Duration>,
    /// The same once one side has ended its direction. A side that waits for an answer waits for less than this; one that has
    /// gone and cannot be told from it is not kept for ever.
    pub half_open_limit: Option<Duration>,
}

impl TcpLimits {
    pub(crate) fn timeouts(&self) -> CopyTimeouts {
        CopyTimeouts {
            open: self.idle_limit,
            half_open: self.half_open_limit,
        }
    }
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(200),
            connection_idle: Duration::from_secs(300),
            idle_limit: None,
            half_open_limit: Some(Duration::from_secs(600)),
        }
    }
}

/// Limits. Each has a gauge or a counter that shows how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections. Beyond it those that are idle are closed, and new ones wait in the kernel's backlog.
    pub connections: usize,
    /// Open client connections from one address (IPv6: one /64 network); beyond it they are reset. None, the default: no
    /// limit, since behind an Ingress all clients come from a few addresses.
    pub connections_per_client: Option<usize>,
    /// Held requests from one address. 429 beyond it. None, the default: no limit, for the same reason.
    pub held_per_client: Option<usize>,
    /// Descriptors that this process may have: its `nofile` limit. Connections are limited so that some are left for health
    /// checks, for the demand report and for the API server. None: nobody knows.
    pub descriptors: Option<u64>,
    /// Held requests of one resource. A held request costs about 16 KB, so this is 80 MB.
    pub held_per_resource: usize,
    /// Bytes of received request heads of one resource's held requests.
    pub held_bytes_per_resource: usize,
    /// Held requests in all.
    pub held: usize,
    /// Bytes of received request heads of all held requests.
    pub held_bytes: usize,
    /// Bytes of one request head. 431 beyond it.
    pub header_bytes: usize,
    /// Header fields of one request. 431 beyond it. Up to 100 hyper parses them without allocating.
    pub headers: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Idle connections kept to one endpoint.
    pub idle_upstream: usize,
    /// How long an idle connection to an endpoint is kept.
    pub idle_upstream_timeout: Duration,
}

impl Limits {
    /// Whether a head is larger than a head may be. Of HTTP/1, the HTTP library looks while it reads.
    pub(crate) fn refuse(&self, head: &http::request::Parts) -> bool {
        // As RFC 9113 6.5.2 counts.
        let fields = head.headers.iter();
        let bytes: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        head.headers.len() > self.headers || bytes + head.uri.path().len() > self.header_bytes
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_client: None,
            held_per_client: None,
            descriptors: None,
            held_per_resource: 5_000,
            held_bytes_per_resource: 16 << 20,
            held: 10_000,
            held_bytes: 64 << 20,
            header_bytes: 64 << 10,
            headers: 512,
            streams: 250,
            idle_upstream: 256,
            idle_upstream_timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The same, as far as the descriptors go, and how many connections to pods there may be.
    ///
    /// A client's connection may cost one to a pod as well, so each side gets a half of what is left beside the reserve. One
    /// resource's held requests take half of the places at most, so that a single sleeper cannot use up all of them.
    pub(crate) fn within_descriptors(mut self) -> (Self, usize) {
        let Some(descriptors) = self.descriptors else {
            return (self, tokio::sync::Semaphore::MAX_PERMITS);
        };
        let reserve = (descriptors / 8).clamp(DESCRIPTOR_RESERVE.0, DESCRIPTOR_RESERVE.1);
        let half = usize::try_from(descriptors.saturating_sub(reserve) / 2).unwrap_or(usize::MAX);
        self.connections = self.connections.min(half).max(1);
        self.held_per_resource = self.held_per_resource.min((self.connections / 2).max(1));
        (self, half.clamp(1, tokio::sync::Semaphore::MAX_PERMITS))
    }
}

/// Least and most descriptors that clients and pods leave alone: listeners, health checks, `/demand`, metrics, the API server.
const DESCRIPTOR_RESERVE: (u64, u64) = (64, 4096);

/// The headers by which a client names its target, as v3io's scaler knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameHeaders {
    /// Holds one or two targets, comma-separated, each `name` or `namespace/name`.
    pub name: HeaderName,
    /// Holds a path that goes before the request's own.
    pub path: Option<HeaderName>,
}

/// Which of two named targets answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Either, by chance.
    #[default]
    Random,
    /// The first.
    Primary,
    /// The second.
    Canary,
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "random" => Ok(Self::Random),
            "primary" => Ok(Self::Primary),
            "canary" => Ok(Self::Canary),
            other => Err(format!(
                "`{other}` is no multi-target strategy; one of random, primary, canary"
            )),
        }
    }
}

/// Held requests are let go in the order of their arrival, a few at a time: a workload that has just started, and
/// whose listen backlog is short, is not met by the whole burst at once. A backlog of 128 is common; what does not fit is
/// dropped by the kernel, and costs its request a second or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseRamp {
    /// Requests that go first.
    pub initial: usize,
    /// Each response that begins lets one more go at a time, up to this many. Two DLX together fill a common backlog.
    pub maximum: usize,
    /// A request gives up its turn when its response begins, or after this time: slow answers must not hold up others.
    pub pause: Duration,
}

impl Default for ReleaseRamp {
    fn default() -> Self {
        Self {
            initial: 16,
            maximum: 64,
            pause: Duration::from_millis(100),
        }
    }
}

/// Reads a listen address as Go programs write it: `:8080` is port 8080 on every address.
///
/// # Errors
/// Says which forms are understood.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = text
        .strip_prefix(':')
        .map_or_else(|| text.to_owned(), |port| format!("0.0.0.0:{port}"));
    full.parse()
        .map_err(|_| format!("`{text}` is no listen address; write :8080, 127.0.0.1:8080 or [::1]:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_listens_everywhere() {
        assert_eq!(listen_address(":8080").unwrap(), "0.0.0.0:8080".parse().unwrap());
        assert_eq!(listen_address("[::1]:9").unwrap(), "[::1]:9".parse().unwrap());
        assert!(listen_address("8080").unwrap_err().contains(":8080"));
    }

    #[test]
    fn f04_connections_leave_descriptors_for_the_house() {
        let of = |descriptors| Limits {
            descriptors,
            ..Limits::default()
        };
        let (limits, pods) = of(Some(1024)).within_descriptors();
        assert_eq!(
            (limits.connections, limits.held_per_resource, pods),
            (448, 224, 448)
        );
        let (limits, _) = of(Some(1 << 20)).within_descriptors();
        assert_eq!(
            limits.connections,
            Limits::default().connections,
            "no more than was asked for"
        );
        assert_eq!(limits.held_per_resource, Limits::default().held_per_resource);
        let (limits, pods) = of(Some(10)).within_descriptors();
        assert_eq!((limits.connections, pods), (1, 1), "never nobody");
        assert_eq!(of(None).within_descriptors().0, of(None));
    }

    #[test]
    fn a_wrong_strategy_names_the_right_ones() {
        assert_eq!("canary".parse(), Ok(Strategy::Canary));
        assert!("both".parse::<Strategy>().unwrap_err().contains("primary"));
    }
}
