//! Side-by-side measurements: Dormouse and the least that could do the same job, in one run on one machine. And what
//! many targets cost.

mod dlx;
mod line;
mod plugin_call;
mod quantile;
mod scale;
mod usage;

use clap::Parser;

/// Measures Dormouse beside the least that could do the same job.
#[derive(Debug, Parser)]
enum Bench {
    /// A call of a plugin, beside bare wasmtime.
    PluginCall(plugin_call::Args),
    /// A request through the DLX, beside a minimal hyper proxy.
    Dlx(dlx::Args),
    /// The autoscaler's line with many targets, beside a bare loop of timers and decisions.
    Line(line::Args),
    /// The whole system with many targets; started by `cargo xtask bench scale`.
    Scale(scale::Args),
}

fn main() -> anyhow::Result<()> {
    match Bench::parse() {
        Bench::PluginCall(args) => plugin_call::run(&args),
        Bench::Dlx(args) => dlx::run(&args),
        Bench::Line(args) => line::run(&args),
        Bench::Scale(args) => scale::run(&args),
    }
}
