//! Logs. Metrics live in the registry that the admin endpoint shows.

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// The client logs each failed request as an error, without saying what it was about. Dormouse tells of them where they
/// matter.
const QUIET: &str = "kube_client::client::builder=off";

/// Starts logging to standard error.
pub fn start(filter: Option<&str>, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", filter.unwrap_or("info")))
        .with_context(|| format!("--log `{}` is not a filter", filter.unwrap_or_default()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}
