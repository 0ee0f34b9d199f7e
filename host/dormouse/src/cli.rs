//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::config::{AutoscalerOptions, Common, DlxOptions};
use crate::{autoscaler, check, demo, dlx, inspect, restore};

/// Puts Kubernetes workloads to sleep when nobody needs them and wakes them when somebody does.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put idle resources to sleep
    Autoscaler(AutoscalerCommand),
    /// Hold the traffic of sleeping resources, wake them, forward
    Dlx(DlxCommand),
    /// Wake everything, put every Service back and delete all Sleepers, before Dormouse is taken out
    Restore(RestoreCommand),
    /// Ask a running installation whether it is well
    Check(check::Options),
    /// Show it all on an embedded Kubernetes on this machine
    Demo(demo::Options),
    /// Tools for plugin authors
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Print the CustomResourceDefinition of Sleeper as YAML
    Crd,
}

#[derive(Debug, Args)]
struct AutoscalerCommand {
    /// Configuration file (YAML)
    #[arg(long, env = "DORMOUSE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    options: AutoscalerOptions,
}

#[derive(Debug, Args)]
struct DlxCommand {
    /// Configuration file (YAML)
    #[arg(long, env = "DORMOUSE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    options: DlxOptions,
}

#[derive(Debug, Args)]
struct RestoreCommand {
    /// Configuration file (YAML)
    #[arg(long, env = "DORMOUSE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    options: restore::Options,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Show what a component imports and exports, which grants it needs, and whether this host can run it
    Inspect(inspect::Options),
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Autoscaler(command) => block_on(autoscaler::run(
            command.config.as_deref(),
            command.common,
            command.options,
        )),
        Command::Dlx(command) => block_on(dlx::run(
            command.config.as_deref(),
            command.common,
            command.options,
        )),
        Command::Restore(command) => block_on(restore::run(
            command.config.as_deref(),
            command.common,
            command.options,
        )),
        Command::Check(options) => block_on(check::run(options)),
        Command::Demo(options) => block_on(demo::run(options)),
        Command::Plugin(PluginCommand::Inspect(options)) => block_on(inspect::run(options)),
        Command::Crd => print_crd(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line: what failed, and why.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot be started")?
        .block_on(work)
}

fn print_crd() -> Result<()> {
    print!("{}", dormouse_kubernetes::crd::yaml()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
