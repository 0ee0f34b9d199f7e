//! Settings.

/// How the memory of pods is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemHpaConfig {
    /// Name of a Prometheus server in the configuration.
    pub server: String,
    /// A query whose series say by the label `pod` or `pod_name` which pod they are about, with its memory in bytes. `{namespace}` is filled
    /// in.
    pub query: String,
}
