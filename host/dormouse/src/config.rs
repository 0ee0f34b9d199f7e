//! Configuration: flags over environment over configuration file over plugin settings over defaults, field by field.
//!
//! Every option is one struct field that is a command-line flag, an environment variable and a key of the file at
//! once, so that none of the three can be forgotten or spelled differently.

pub mod ranges;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use dormouse_plugin::PluginConfig;
use serde::{Deserialize, Serialize};

pub use self::settings::{Problems, Settings};

/// A span of time as Go and Kubernetes users write it: `90s`, `15m`, `1h30m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// What is given, or else the default.
    pub(crate) fn or(given: Option<Self>, default: Duration) -> Duration {
        given.map_or(default, |span| span.0)
    }

    /// The same of a limit that zero turns off.
    pub(crate) fn limit(given: Option<Self>, default: Option<Duration>) -> Option<Duration> {
        given.map_or(default, |span| (!span.0.is_zero()).then_some(span.0))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        dormouse_model::parse_duration(text)
            .map(Span)
            .map_err(|error| match error {
                dormouse_model::DurationError::NoUnit(text) => {
                    format!(
                        "\"{text}\" lacks a unit: write {text}s for seconds; others are ns, us, ms, m and h"
                    )
                }
                error => error.to_string(),
            })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dormouse_model::format_duration(self.0))
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A number without a unit is told as what it is.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(serde_json::Number),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A namespace and a name, as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaced {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl FromStr for Namespaced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(format!("`{text}` is not of the form namespace/name")),
        }
    }
}

impl fmt::Display for Namespaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for Namespaced {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Namespaced {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The ports on which the DLX stands in for Services, as `first-last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub dormouse_lifecycle::PortRange);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a port range such as 20000-29999");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let first: u16 = first.trim().parse().map_err(|_| wrong())?;
        let last: u16 = last.trim().parse().map_err(|_| wrong())?;
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self(dormouse_lifecycle::PortRange { first, last }))
    }
}

impl Serialize for Ports {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}-{}", self.0.first, self.0.last))
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An address to listen on. Go's short form `:8090` leaves the interface to `--bind-address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    ip: Option<IpAddr>,
    port: u16,
}

impl Listen {
    /// Any interface that `--bind-address` allows.
    pub const fn port(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// The address to bind, given `--bind-address`.
    pub fn on(self, bind: IpAddr) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(bind), self.port)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an address such as 0.0.0.0:8080 or :8080");
        match text.strip_prefix(':') {
            Some(port) => port.parse().map(Self::port).map_err(|_| wrong()),
            None => {
                let full: SocketAddr = text.parse().map_err(|_| wrong())?;
                Ok(Self {
                    ip: Some(full.ip()),
                    port: full.port(),
                })
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Where plugins are: directories and single files. On the command line separated by commas, in the file one or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "Vec<PathBuf>")]
pub struct Places(pub Vec<PathBuf>);

impl Default for Places {
    fn default() -> Self {
        Self(vec![PathBuf::from("/plugins")])
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<PathBuf>),
}

impl From<OneOrMany> for Places {
    fn from(said: OneOrMany) -> Self {
        match said {
            OneOrMany::One(text) => Self::split(&text),
            OneOrMany::Many(places) => Self(places),
        }
    }
}

impl From<Places> for Vec<PathBuf> {
    fn from(places: Places) -> Self {
        places.0
    }
}

impl Places {
    fn split(text: &str) -> Self {
        let places = text.split(',').map(str::trim).filter(|place| !place.is_empty());
        Self(places.map(PathBuf::from).collect())
    }
}

impl FromStr for Places {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::split(text))
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}", place.display())?;
        }
        Ok(())
    }
}

/// What zero replicas mean that somebody else set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AtZero {
    /// It is asleep.
    StandIn,
    /// It was turned off.
    Off,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the DLX does with a request for two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Either, by chance.
    Random,
    /// The first.
    Primary,
    /// The second.
    Canary,
}

/// What workloads are told of where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedHeaders {
    /// What a trusted proxy says stays as it came, as if the DLX were not there; for everybody else as append
    Preserve,
    /// The peer's address is appended to X-Forwarded-For and Forwarded; protocol and host are told where nobody did
    Append,
    /// What a trusted proxy says stays as it came; everybody else's words are removed and told anew
    Replace,
    /// Nothing is added, removed or changed
    Off,
}

/// Options that the autoscaler and the DLX share.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Common {
    /// Namespace to look after; `*` means all [default: the pod's own, else `default`]
    #[arg(long, env = "DORMOUSE_NAMESPACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// kubeconfig file [default: in-cluster configuration, else the usual kubeconfig]
    #[arg(long, env = "KUBECONFIG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig_path: Option<PathBuf>,
    /// Directories with resource-scalers (*.wasm), or single files, separated by commas [default: /plugins]
    #[arg(long, env = "DORMOUSE_PLUGINS_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins_dir: Option<Places>,
    /// Directory in which compiled plugins are kept; it has to be writable, and is best not shared [default: none, so each start compiles anew]
    #[arg(long, env = "DORMOUSE_PLUGINS_CACHE_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins_cache_dir: Option<PathBuf>,
    /// The DLX's own Service, as namespace/name [default: dormouse/dormouse-dlx]
    #[arg(long, env = "DORMOUSE_DLX_SERVICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dlx_service: Option<Namespaced>,
    /// Ports on which the DLX stands in for Services [default: 20000-29999]
    #[arg(long, env = "DORMOUSE_DLX_PORTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dlx_ports: Option<Ports>,
    /// Interface for every address that does not name one [default: 0.0.0.0]
    #[arg(long, env = "DORMOUSE_BIND_ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<IpAddr>,
    /// Address of /healthz, /readyz and /metrics [default: :9090]
    #[arg(long, env = "DORMOUSE_ADMIN_ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_address: Option<Listen>,
    /// How long a request is held for a resource that is not ready [default: 5m]
    #[arg(long, env = "DORMOUSE_RESOURCE_READINESS_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_readiness_timeout: Option<Span>,
    /// How long open connections may go on once a Service is diverted [default: 5s]
    #[arg(long, env = "DORMOUSE_DRAIN_GRACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_grace: Option<Span>,
    /// How long after an outage of the API server nothing goes to sleep, and no DLX leaves a Service [default: 2m]
    #[arg(long, env = "DORMOUSE_OUTAGE_GRACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage_grace: Option<Span>,
    /// How long a workload is left alone before its traffic is first looked at [default: 10s]
    #[arg(long, env = "DORMOUSE_LOOK_SETTLE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_settle: Option<Span>,
    /// Longest wait between two looks at the traffic of a workload that is in use [default: 30m]
    #[arg(long, env = "DORMOUSE_LOOK_LONGEST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_longest: Option<Span>,
    /// How long no DLX may be ready, or answer for a Service, before sleepers are woken [default: 5s]
    #[arg(long, env = "DORMOUSE_DLX_ABSENCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dlx_absence: Option<Span>,
    /// What it means that a workload is, or gets, zero replicas without Dormouse: it is asleep, and the DLX stands in and wakes it for
    /// a request; or it was turned off, and stays so. The annotation dormouse.dev/at-zero says otherwise for one [default: stand-in]
    #[arg(long, env = "DORMOUSE_AT_ZERO", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_zero: Option<AtZero>,
    /// Log filter, such as `info` or `dormouse_dlx=debug,info` [default: info]
    #[arg(long, env = "DORMOUSE_LOG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, env = "DORMOUSE_LOG_FORMAT", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// Options of the autoscaler.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AutoscalerOptions {
    /// How often idleness is decided [default: the plugin's setting, else 1m]
    #[arg(long, env = "DORMOUSE_SCALE_INTERVAL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_interval: Option<Span>,
    /// Kind that custom metrics describe [default: the plugin's setting]
    #[arg(long, env = "DORMOUSE_METRICS_RESOURCE_KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_resource_kind: Option<String>,
    /// Group of that kind [default: the plugin's setting]
    #[arg(long, env = "DORMOUSE_METRICS_RESOURCE_GROUP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_resource_group: Option<String>,
    /// Lease for leader election, as namespace/name [default: none, so this process always leads]
    #[arg(long, env = "DORMOUSE_LEADER_LEASE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_lease: Option<Namespaced>,
    /// Parts into which namespaces are dealt out, each with a leader and a Lease of its own (`name-0`, `name-1`, ...), so that
    /// replicas share the work; needs --leader-lease, and must be the same for all replicas [default: 1]
    #[arg(long, env = "DORMOUSE_SHARDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// Whether MemHpas (xinhuang.com/v1) are looked after; their definition has to be there [default: false]
    #[arg(long, env = "DORMOUSE_MEMHPA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memhpa: Option<bool>,
    /// Name under which `metrics.prometheus` has the server that is asked for the memory of pods [default: memhpa; where there is none of
    /// that name, the server that the four --prom-* flags tell]
    #[arg(long, env = "DORMOUSE_MEMHPA_PROMETHEUS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memhpa_prometheus: Option<String>,
    /// Query for the memory of the pods of a namespace, in bytes, by the label `pod` or `pod_name`; `{namespace}` is filled in [default:
    /// the working set over one minute]
    #[arg(long, env = "DORMOUSE_MEMHPA_QUERY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memhpa_query: Option<String>,
    /// Scheme of the Prometheus server for MemHpas [default: http]
    #[arg(long, env = "DORMOUSE_PROM_SCHEME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prom_scheme: Option<String>,
    /// Namespace of its Service [default: kube-system]
    #[arg(long, env = "DORMOUSE_PROM_NAMESPACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prom_namespace: Option<String>,
    /// Name of its Service [default: prometheus]
    #[arg(long, env = "DORMOUSE_PROM_NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prom_name: Option<String>,
    /// Port of its Service [default: 9090]
    #[arg(long, env = "DORMOUSE_PROM_PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prom_port: Option<u16>,
}

/// Options of the DLX.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DlxOptions {
    /// Address for Ingress and header-routed traffic [default: :8080]
    #[arg(long, env = "DORMOUSE_LISTEN_ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_address: Option<Listen>,
    /// Header that names the target resource [default: the plugin's setting, else header routing is off]
    #[arg(long, env = "DORMOUSE_TARGET_NAME_HEADER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_name_header: Option<String>,
    /// Header with a path that is added to the request's [default: the plugin's setting]
    #[arg(long, env = "DORMOUSE_TARGET_PATH_HEADER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_path_header: Option<String>,
    /// Service port for header-routed requests [default: the plugin's setting, else the Service's only port]
    #[arg(long, env = "DORMOUSE_TARGET_PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// What to do with a request for two resources [default: the plugin's setting, else random]
    #[arg(long, env = "DORMOUSE_MULTI_TARGET_STRATEGY", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_target_strategy: Option<Strategy>,
    /// Requests held at once for one resource [default: 5000]
    #[arg(long, env = "DORMOUSE_MAX_HELD_PER_RESOURCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_held_per_resource: Option<usize>,
    /// Requests held at once in all [default: 10000]
    #[arg(long, env = "DORMOUSE_MAX_HELD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_held: Option<usize>,
    /// What becomes of X-Forwarded-* and Forwarded [default: preserve, so that workloads see the same asleep and awake]
    #[arg(long, env = "DORMOUSE_FORWARDED_HEADERS", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_headers: Option<ForwardedHeaders>,
    /// Networks of proxies whose X-Forwarded-* and Forwarded are believed, separated by commas; empty means nobody [default:
    /// loopback, link-local and private networks, since a peer in the cluster could tell the pods the same]
    #[arg(long, env = "DORMOUSE_TRUSTED_PROXIES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<String>,
    /// Whether Via is added to requests, as RFC 9110 asks; some servers do not compress when they see it [default: true]
    #[arg(long, env = "DORMOUSE_VIA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<bool>,
    // What a request and an answer may look like.
    /// Fields of a request head; 431 beyond it. Servers allow between 100 and some thousand [default: 512]
    #[arg(long, env = "DORMOUSE_MAX_HEADER_FIELDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_fields: Option<usize>,
    /// Size of a request head in bytes; 431 beyond it. Servers allow between 8 and 80 KiB [default: 65536]
    #[arg(long, env = "DORMOUSE_MAX_HEADER_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_bytes: Option<usize>,
    /// How long a workload may take until its answer begins; 504 beyond it. 0s: as long as the client stays, as without Dormouse
    /// [default: 0s]
    #[arg(long, env = "DORMOUSE_RESPONSE_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<Span>,
    // Clients: places, and what they may take their time for.
    /// Open client connections; fewer where the limit of descriptors is low, so that some are left for health checks and the API
    /// server [default: 16384]
    #[arg(long, env = "DORMOUSE_MAX_CONNECTIONS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Open connections from one address (IPv6: one /64); more are reset. Behind an Ingress all clients come from few addresses
    /// [default: no limit]
    #[arg(long, env = "DORMOUSE_MAX_CONNECTIONS_PER_CLIENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_client: Option<usize>,
    /// Requests held at once from one address (IPv6: one /64); 429 beyond it [default: no limit]
    #[arg(long, env = "DORMOUSE_MAX_HELD_PER_CLIENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_held_per_client: Option<usize>,
    /// How long a client may take nothing of its answer, between two writes; slow lines may need more [default: 1m]
    #[arg(long, env = "DORMOUSE_SEND_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_timeout: Option<Span>,
    /// How long a client may send nothing of a body that is asked for, between two reads; 408 after it. Not for gRPC [default: 1m]
    #[arg(long, env = "DORMOUSE_BODY_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_timeout: Option<Span>,
    /// How long a request may go without an answer whose client closed its sending side right after it: it may wait, or be gone
    /// [default: 8s]
    #[arg(long, env = "DORMOUSE_HALF_CLOSED_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_closed_timeout: Option<Span>,
    // Connections that are not HTTP, and upgraded ones.
    /// How long a client may say nothing before it is taken for one that waits for the server to speak first, at a port that is not
    /// known to be HTTP [default: 200ms]
    #[arg(long, env = "DORMOUSE_TCP_SILENCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_silence: Option<Span>,
    /// How long a connection that is not HTTP counts as demand after its last bytes, where its Service does not say
    /// (dormouse.dev/connection-idle) [default: 5m]
    #[arg(long, env = "DORMOUSE_CONNECTION_IDLE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_idle: Option<Span>,
    /// How long such a connection may be without any bytes before it is reset. 0s: as long as both sides like [default: 0s]
    #[arg(long, env = "DORMOUSE_TCP_IDLE_LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_idle_limit: Option<Span>,
    /// The same once one side has ended its direction. 0s: as long as the other side likes [default: 10m]
    #[arg(long, env = "DORMOUSE_TCP_HALF_OPEN_LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_half_open_limit: Option<Span>,
    /// How long requests may go on after SIGTERM [default: 30s]
    #[arg(long, env = "DORMOUSE_DRAIN_LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_limit: Option<Span>,
    /// How long to go on accepting after SIGTERM while endpoints are updated [default: 2s]
    #[arg(long, env = "DORMOUSE_SHUTDOWN_DELAY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_delay: Option<Span>,
}

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct File {
    /// Options of both processes.
    pub common: Common,
    /// Options of the autoscaler.
    pub autoscaler: AutoscalerOptions,
    /// Options of the DLX.
    pub dlx: DlxOptions,
    /// What each plugin may do and how it is configured, by name.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// Sources of metrics: Prometheus servers and limits.
    pub metrics: dormouse_readings::Config,
}

/// `base` with every field that `over` sets.
pub fn overlay<T: Serialize + for<'de> Deserialize<'de>>(base: &T, over: &T) -> Result<T> {
    let mut merged = serde_json::to_value(base)?;
    let over = serde_json::to_value(over)?;
    match (&mut merged, over) {
        (serde_json::Value::Object(merged), serde_json::Value::Object(over)) => merged.extend(over),
        _ => bail!("options are not an object"),
    }
    Ok(serde_json::from_value(merged)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_overrides_one_field_of_the_file_and_leaves_the_others() {
        let file: File =
            serde_yaml::from_str("dlx:\n  targetPort: 8080\n  targetNameHeader: X-From-File\n").unwrap();
        let flags = DlxOptions {
            target_port: Some(9000),
            ..DlxOptions::default()
        };
        let merged = overlay(&file.dlx, &flags).unwrap();
        assert_eq!(merged.target_port, Some(9000));
        assert_eq!(merged.target_name_header.as_deref(), Some("X-From-File"));
    }

    #[test]
    fn a_misspelled_key_is_an_error_that_names_it() {
        let error = serde_yaml::from_str::<File>("dlx:\n  targetPrt: 8080\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("targetPrt"), "{error}");
        assert!(error.contains("targetPort"), "{error}");
    }

    #[test]
    fn go_style_listen_addresses_and_durations_are_understood() {
        assert_eq!(
            ":8090".parse::<Listen>().unwrap().on("10.0.0.1".parse().unwrap()),
            "10.0.0.1:8090".parse().unwrap()
        );
        assert_eq!("1h30m".parse::<Span>().unwrap().0, Duration::from_secs(5400));
        assert!("soon".parse::<Span>().is_err());
        assert!("8090".parse::<Listen>().is_err());
    }

    #[test]
    fn plugins_may_be_in_several_places() {
        let two = Places(vec![PathBuf::from("/plugins"), PathBuf::from("/mine/one.wasm")]);
        assert_eq!("/plugins, /mine/one.wasm,".parse::<Places>(), Ok(two.clone()));
        for file in [
            "common: {pluginsDir: [/plugins, /mine/one.wasm]}",
            "common: {pluginsDir: '/plugins,/mine/one.wasm'}",
        ] {
            let common = serde_yaml::from_str::<File>(file).unwrap().common;
            // What is merged with flags goes through JSON and back.
            let merged = overlay(&common, &Common::default()).unwrap();
            assert_eq!(merged.plugins_dir, Some(two.clone()), "{file}");
        }
        assert_eq!(two.to_string(), "/plugins, /mine/one.wasm");
    }

    #[test]
    fn a_port_range_must_be_a_range() {
        assert!("20000-29999".parse::<Ports>().is_ok());
        for wrong in ["20000", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }
}
