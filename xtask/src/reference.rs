//! The reference files that `cargo xtask generate` writes and other suites read.

/// Every subcommand's `--help`.
pub const COMMAND_LINE: &str = "docs/reference/command-line.md";
/// Every metric that the processes serve.
pub const METRICS: &str = "docs/reference/metrics.md";
/// The CustomResourceDefinition of MemHpa.
pub const MEMHPA_CRD: &str = "docs/reference/memhpa-crd.yaml";
/// The CustomResourceDefinition of Sleeper.
pub const CRD: &str = "docs/reference/sleeper-crd.yaml";
