//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::config::{AutoscalerOptions, Common, DlxOptions, Settings};
use crate::{autoscaler, check, demo, dlx, explain, inspect, output, process, reference, restore, simulate};

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
    Dlx(Box<DlxCommand>),
    /// Wake everything, put every Service back and delete all Sleepers, before Dormouse is taken out
    Restore(RestoreCommand),
    /// Ask a running installation whether it is well
    Check(check::Options),
    /// Tell where a workload stands, why, and what it waits for
    Explain(explain::Options),
    /// Show it all on an embedded Kubernetes on this machine
    Demo(demo::Options),
    /// Run the scaling kernel over recorded readings and tell what would have become of a workload
    Simulate(simulate::Options),
    /// Tools for plugin authors
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Tools for who writes the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print every metric that the processes serve, as Markdown
    Metrics,
    /// Print a CustomResourceDefinition as YAML
    Crd(CrdCommand),
}

#[derive(Debug, Args)]
struct CrdCommand {
    /// Which kind
    #[arg(long, value_enum, default_value = "sleeper")]
    kind: CrdKind,
}

/// Kinds that Dormouse brings.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CrdKind {
    /// What Dormouse remembers of what sleeps and is scaled
    Sleeper,
    /// Scaling by the memory of pods
    Memhpa,
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

#[derive(Debug, Args)]
struct ConfigCheckCommand {
    /// Configuration file (YAML)
    #[arg(long, env = "DORMOUSE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    autoscaler: AutoscalerOptions,
    #[command(flatten)]
    dlx: DlxOptions,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration as both processes would, and tell everything that is wrong with it at once
    Check(Box<ConfigCheckCommand>),
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Show what a component imports and exports, which grants it needs, and whether this host can run it
    Inspect(inspect::Options),
    /// Compile standard input into a cache: what the processes call
    #[command(hide = true)]
    Compile(CompileCommand),
}

#[derive(Debug, Args)]
struct CompileCommand {
    /// Where the cache is
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// The most bytes of memory
    #[arg(value_name = "BYTES")]
    memory: u64,
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    process::run(|shutdown| async move {
        // What has nothing to put in order ends with the signal.
        match command {
            Command::Autoscaler(command) => {
                let config = command.config.as_deref();
                autoscaler::run(config, command.common, command.options, shutdown).await
            }
            Command::Dlx(command) => {
                let config = command.config.as_deref();
                dlx::run(config, command.common, command.options, shutdown).await
            }
            Command::Restore(command) => {
                let config = command.config.as_deref();
                restore::run(config, command.common, command.options, shutdown).await
            }
            Command::Demo(options) => demo::run(options, shutdown).await,
            Command::Check(options) => interruptible(&shutdown, check::run(options)).await,
            Command::Explain(options) => interruptible(&shutdown, explain::run(options)).await,
            Command::Simulate(options) => {
                interruptible(&shutdown, async {
                    tokio::task::spawn_blocking(move || simulate::simulate(&options)).await?
                })
                .await
            }
            Command::Plugin(PluginCommand::Inspect(options)) => {
                interruptible(&shutdown, Box::pin(inspect::run(options))).await
            }
            Command::Plugin(PluginCommand::Compile(command)) => {
                let compiled = tokio::task::spawn_blocking(move || {
                    dormouse_plugin::compile_into(&command.directory, command.memory)
                });
                compiled.await?.map_err(|said| {
                    let _ = output::answer(&said);
                    process::Exit(dormouse_plugin::REFUSED).into()
                })
            }
            Command::Config(ConfigCommand::Check(command)) => check_config(&command),
            Command::Metrics => Ok(output::answer(&reference::metrics()?)?),
            Command::Crd(CrdCommand { kind }) => Ok(output::answer(&match kind {
                CrdKind::Sleeper => dormouse_sleepers::crd::yaml()?,
                CrdKind::Memhpa => dormouse_sources::memhpa::yaml()?,
            })?),
        }
    })
}

/// What asks and changes nothing: interrupted, it has failed.
async fn interruptible(shutdown: &CancellationToken, work: impl Future<Output = Result<()>>) -> Result<()> {
    match process::unless_asked_to_end(shutdown, work).await? {
        Some(()) => Ok(()),
        None => bail!("interrupted"),
    }
}

/// Reads the configuration as both processes would, and tells everything that is wrong.
fn check_config(command: &ConfigCheckCommand) -> Result<()> {
    let settings = Settings::read(
        command.config.as_deref(),
        &command.common,
        &command.autoscaler,
        &command.dlx,
    )?;
    settings.check_files()?;
    Ok(output::answer("the configuration is fine\n")?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// A new flag with a duration or a count needs a line in config/ranges.rs.
    #[test]
    fn operator_06_every_duration_and_count_has_a_range() {
        use std::any::TypeId;

        use crate::config::{Span, ranges};

        // Numbers of the demo, which is for people who look at it.
        const FREE: [&str; 1] = ["burst"];
        let known: Vec<&str> = ["common", "autoscaler", "dlx", ""]
            .iter()
            .flat_map(|section| ranges::of(section))
            .map(|range| range.key)
            .collect();
        let checked = [
            TypeId::of::<Span>(),
            TypeId::of::<usize>(),
            TypeId::of::<u64>(),
            TypeId::of::<u32>(),
            TypeId::of::<u16>(),
        ];
        let mut open = vec![super::Cli::command()];
        let mut seen = 0;
        while let Some(command) = open.pop() {
            for arg in command.get_arguments() {
                let kind = arg.get_value_parser().type_id();
                if !checked.iter().any(|of| kind == *of) {
                    continue;
                }
                let key: String = arg
                    .get_id()
                    .as_str()
                    .split('_')
                    .enumerate()
                    .map(|(index, word)| match word.split_at_checked(1) {
                        Some((first, rest)) if index > 0 => first.to_ascii_uppercase() + rest,
                        _ => word.to_owned(),
                    })
                    .collect();
                seen += 1;
                assert!(
                    known.contains(&key.as_str()) || FREE.contains(&key.as_str()),
                    "{key} has no range in config/ranges.rs"
                );
            }
            open.extend(command.get_subcommands().cloned());
        }
        assert!(seen > 10, "{seen}");
    }
}
