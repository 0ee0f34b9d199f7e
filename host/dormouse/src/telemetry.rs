//! Logs. Metrics live in the registry that the admin endpoint shows.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::output;

/// The client logs each failed request as an error, without saying what it was about. Dormouse tells of them where they
/// matter.
const QUIET: &str = "kube_client::client::builder=off";

/// The filter of `--log`. An empty one does not ask for silence but is a value that was not filled in; `off` is silence.
///
/// # Errors
/// When it is not a filter.
pub fn log_filter(filter: Option<&str>) -> Result<EnvFilter> {
    let filter = filter.map_or("info", str::trim);
    let filter = if filter.is_empty() { "info" } else { filter };
    EnvFilter::try_new(format!("{QUIET},{filter}"))
        .with_context(|| format!("`{filter}` is not a filter such as `info` or `dormouse_dlx=debug,info`"))
}

/// Starts logging to standard error.
pub fn start(filter: Option<&str>, format: LogFormat) -> Result<()> {
    let filter = log_filter(filter).context("--log")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output::log_writer)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
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
