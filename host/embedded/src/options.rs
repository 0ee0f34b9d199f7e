//! Options of a cluster.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::addresses::Addressing;

/// A line that a container's process wrote.
#[derive(Clone, Debug)]
pub struct OutputLine {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// True for standard error.
    pub stderr: bool,
    /// The line without its end.
    pub text: String,
}

/// Receives the lines of containers. It is called on the runtime's threads and must not block.
pub type OutputSink = Arc<dyn Fn(&OutputLine) + Send + Sync>;

/// How the cluster is to be. The defaults suit tests and the demo.
#[derive(Clone)]
pub struct Options {
    /// Where the API server listens. Loopback only; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Writes kept for watches, per kind. A watch from before them gets `410 Gone`.
    pub watch_history: usize,
    /// How often an idle watch that allows bookmarks gets one (about a minute on real clusters).
    pub bookmark_interval: Duration,
    /// From a change of an EndpointSlice until new connections follow it, as the time that kube-proxy needs.
    pub programming_delay: Duration,
    /// First wait before a crashed container starts again; it doubles up to 50 times as much (10 s and 5 min on real
    /// clusters).
    pub restart_backoff: Duration,
    /// Versions of the custom metrics API that are served. Empty: the API is not there, as without an adapter.
    pub custom_metrics_versions: Vec<String>,
    /// Own addresses for pods and Services, or ports.
    pub addressing: Addressing,
    /// Where the output of containers that are real processes goes. None: to `tracing` at debug level.
    pub output: Option<OutputSink>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            watch_history: 4096,
            bookmark_interval: Duration::from_secs(10),
            programming_delay: Duration::from_millis(10),
            restart_backoff: Duration::from_millis(200),
            custom_metrics_versions: vec!["v1beta2".into(), "v1beta1".into()],
            addressing: Addressing::Auto,
            output: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("bind", &self.bind)
            .field("watch_history", &self.watch_history)
            .field("programming_delay", &self.programming_delay)
            .field("addressing", &self.addressing)
            .finish_non_exhaustive()
    }
}
