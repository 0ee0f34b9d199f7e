//! The autoscaler and two DLX replicas with many targets, on a real API server without nodes and controllers.
//!
//! The bench writes the Deployments and Services, and plays what a cluster would do with them ([`controllers`]). It then
//! takes the processes through the stages of their day, and notes for each what it cost: CPU time, memory, and requests to
//! the API server from its audit log.

mod api;
mod audit;
mod controllers;
mod processes;
mod report;
mod shards;
mod sleepers;
mod stages;
mod wakes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Options of `bench scale`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Workloads that are looked after: a Deployment with a Service each.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    targets: u32,
    /// Namespaces that they are spread over.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    namespaces: u32,
    /// What is handed to the autoscaler as --scale-interval, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    interval: u64,
    /// What is handed to the autoscaler as --shards. With more than one there are two autoscalers, and one of them is killed at the
    /// end.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    /// Length of an idle period, in seconds: one with all targets awake and one with some asleep.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    idle: u64,
    /// How many go to sleep [default: half of them].
    #[arg(long, value_name = "TARGETS")]
    sleep: Option<u32>,
    /// Over how long what makes them sleep is spread, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    sleep_over: u64,
    /// How many of these are woken by a request [default: a fifth of those that sleep].
    #[arg(long, value_name = "TARGETS")]
    wake: Option<u32>,
    /// Over how long these requests are spread, in seconds.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wake_over: u64,
    /// How long any stage may take, in seconds; the bench ends with one that is not done by then.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    limit: u64,
    /// What was measured is appended to this file, one JSON object for each run.
    #[arg(long, default_value = "scale.jsonl", value_name = "FILE")]
    out: PathBuf,
    /// Log filter of the processes.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
    /// Set by `cargo xtask bench scale`, which starts the servers: the binary to measure.
    #[arg(long, hide = true)]
    dormouse: PathBuf,
    #[arg(long, hide = true)]
    plugins: PathBuf,
    #[arg(long, hide = true)]
    folder: PathBuf,
    #[arg(long, hide = true)]
    kubeconfig: PathBuf,
    #[arg(long, hide = true)]
    audit_log: PathBuf,
}

impl Args {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    fn to_sleep(&self) -> u32 {
        self.sleep.unwrap_or(self.targets / 2).min(self.targets)
    }

    fn to_wake(&self) -> u32 {
        self.wake.unwrap_or(self.to_sleep() / 5).min(self.to_sleep())
    }
}

/// Runs the bench.
///
/// # Errors
/// Something that it needs does not work. A stage that takes too long is no error: the report says so.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = Arc::new(Mutex::new(report::Report::new(args)));
    let measured = runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        tokio::select! {
            measured = stages::run(args, &report) => measured,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = ended.recv() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    // The processes have ended with what was dropped above. What is known is told in any case.
    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Err(error) = &measured {
        report.ended_by(format!("{error:#}"));
    }
    report.print();
    report
        .append(&args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    measured
}
