//! `dormouse demo`: the whole system on an embedded Kubernetes, told as a story.
//!
//! The autoscaler and the DLX are the real processes with the real plugin; only the cluster is small. Each chapter
//! checks what it tells, and with `--ci` a chapter that is not true ends the demo with an error.

mod chapters;
mod screen;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::local::{self, Local};
use crate::process;
use chapters::Tale;
use screen::Screen;

/// From an interrupt to the end: both processes and the cluster are stopped in order.
const ENDING: Duration = Duration::from_secs(60);

/// Options of `dormouse demo`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Tell the story, check every step, print a summary and exit; non-zero if any request was lost
    #[arg(long)]
    pub ci: bool,
    /// Use this resource-scaler instead of the bundled one
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// Directory with the bundled resource-scalers
    #[arg(
        long,
        value_name = "DIR",
        env = "DORMOUSE_PLUGINS_DIR",
        required_unless_present = "plugin"
    )]
    pub plugins_dir: Option<PathBuf>,
    /// Keep the logs of both processes in this directory
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
    /// Requests in the burst on a sleeping workload
    #[arg(long, default_value_t = 200)]
    pub burst: usize,
}

/// Runs the demo.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<()> {
    process::may_take(ENDING);
    let screen = Screen::new();
    let component = match (&options.plugin, &options.plugins_dir) {
        (Some(file), _) => file.clone(),
        (None, Some(directory)) => directory.join("workloads.wasm"),
        (None, None) => bail!("either --plugin or --plugins-dir is needed"),
    };
    if !component.is_file() {
        bail!(
            "there is no component at {}; `cargo xtask build-guests` builds the bundled ones",
            component.display()
        );
    }
    screen.title("Dormouse demo");
    let started = screen.step("Starting an embedded Kubernetes, the autoscaler and two DLX replicas");
    let starting = Local::start(local::Options {
        plugins: vec![component],
        logs: options.keep_logs.clone(),
        ..local::Options::default()
    });
    let Some(local) = process::unless_asked_to_end(&shutdown, starting).await? else {
        return Ok(());
    };
    screen.done(started);

    let story = tell(&screen, &local, &options);
    let outcome = tokio::select! {
        outcome = story => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_err() {
        screen.note(&format!(
            "the logs of both processes are in {}",
            local.logs().display()
        ));
        local.keep_logs();
    }
    screen.step("Stopping everything");
    local.stop().await;
    outcome
}

async fn tell(screen: &Screen, local: &Local, options: &Options) -> Result<()> {
    let mut tale = Tale::new(screen, local, options.burst).await?;
    tale.tell().await?;
    tale.summary()?;
    if options.ci {
        return Ok(());
    }
    tale.invitation().await?;
    tale.follow().await
}
