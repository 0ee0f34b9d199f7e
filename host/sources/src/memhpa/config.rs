//! Settings.

use std::time::Duration;

/// How the memory of pods is asked for, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemHpaConfig {
    /// Name of a Prometheus server in the configuration.
    pub server: String,
    /// A query whose series say by the label `pod` or `pod_name` which pod they are about, with its memory in bytes. `{namespace}` is filled
    /// in.
    pub query: String,
    /// How often it is decided whether a workload that may sleep is idle. Its number of replicas is decided twice a minute at least.
    pub scale_interval: Duration,
}
