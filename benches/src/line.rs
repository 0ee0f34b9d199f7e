//! The autoscaler's line with many targets: the real line and the real cache of readings, on real time and one thread, between a plugin,
//! a cluster and sources of metrics that are in memory.
//!
//! Each size is measured in a process of its own, so that its memory is its own. The line starts with nothing declared, and then anew, as a
//! process does that takes over, unless `--together` says otherwise; then it is measured for some intervals. After that, in the same
//! process, comes the baseline: a bare loop with a timer and a decision for each target.

mod baseline;
mod exposed;
mod measure;
mod population;
mod report;
mod sleepers;
mod source;
mod sources;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use report::Figures;

/// Options of `bench line`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many targets there are; several sizes are measured one after the other.
    #[arg(long, default_values_t = [100, 1000, 10_000], value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    targets: Vec<u32>,
    /// Namespaces that they are spread over.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    namespaces: u32,
    /// The longest time between two decisions about a target, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// For how many of these it is measured.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    ticks: u32,
    /// How many of those that are awake have a metric that decides their number of replicas beside the rule that says whether they are
    /// idle, in percent.
    #[arg(long, default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    scaled: u32,
    /// How long every answer of the API server and of a source of metrics takes, in milliseconds.
    #[arg(long, default_value_t = 5, value_name = "MILLISECONDS")]
    delay: u64,
    /// The line goes on after everything was declared, so that all targets began within seconds. Otherwise it is started anew, which
    /// spreads them over an interval.
    #[arg(long)]
    together: bool,
    /// What was measured is appended to this file, one JSON object for each size.
    #[arg(long, default_value = "line.jsonl", value_name = "FILE")]
    out: PathBuf,
    /// Set by the bench itself: measures one size, and writes it down as JSON.
    #[arg(long, hide = true)]
    one: bool,
}

/// Runs the bench.
///
/// # Errors
/// A size that could not be measured, or a file that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.one {
        return one(args);
    }
    let mut sizes = Vec::new();
    for targets in &args.targets {
        println!("{targets} targets ...");
        let figures = apart(args, *targets).with_context(|| format!("{targets} targets"))?;
        figures
            .append(&args.out)
            .with_context(|| format!("cannot write {}", args.out.display()))?;
        sizes.push(figures);
    }
    report::print(&sizes);
    Ok(())
}

/// Measures one size in a process of its own.
fn apart(args: &Args, targets: u32) -> anyhow::Result<Figures> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["line", "--one", "--targets", &targets.to_string()])
        .args(["--namespaces", &args.namespaces.to_string()])
        .args(["--interval", &args.interval.to_string()])
        .args(["--ticks", &args.ticks.to_string()])
        .args(["--scaled", &args.scaled.to_string()])
        .args(["--delay", &args.delay.to_string()])
        .args(args.together.then_some("--together"))
        .stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).context("it wrote something else than its figures")
}

fn one(args: &Args) -> anyhow::Result<()> {
    let [targets] = args.targets[..] else {
        anyhow::bail!("one size is measured at a time");
    };
    // As in production, where lines below `info` are not made.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(measure::measure(args, targets))?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
