//! Every developer command of Dormouse: `cargo xtask <command>`.
//!
//! Kept to a few small dependencies, because it is the first thing that compiles on a fresh clone.

mod architecture;
mod bench;
mod build;
mod chart;
mod check;
mod claims;
mod demo;
mod e2e;
mod generated;
mod guests;
mod image;
mod imports;
mod languages;
mod licences;
mod lines;
mod markdown;
mod moved;
mod names;
mod outcome;
mod paths;
mod programs;
mod reference;
mod suites;
mod tools;
mod tutorial;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;
use xtask_command::Steps;

/// Developer commands of Dormouse.
///
/// Builds go to ${XDG_CACHE_HOME:-$HOME/.cache}/dormouse/target, shared by all clones of one user, unless
/// CARGO_TARGET_DIR is set.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows Dormouse at work in the terminal: a cluster in this process, three workloads, no set-up
    Demo(demo::Args),
    /// Shows what a component imports and exports, which grants it needs, and whether this host can run it
    Inspect {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Options of `dormouse plugin inspect`, such as --call resources --objects web.yaml
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Runs everything that can be tested on this machine; CI calls this
    Test(suites::Args),
    /// One suite of a run; `test` and `check` start it
    #[command(hide = true)]
    RunSuite(suites::One),
    /// Formatting, clippy, licences, API docs, links of the docs, generated files
    Check,
    /// Builds the bundled plugins for wasm32-wasip2
    BuildGuests,
    /// Builds the container image, with its bill of materials; needs no container engine
    Image(image::Args),
    /// A real Kubernetes on this machine, in namespaces of its own
    Cluster(kube_harness::Args),
    /// Runs the whole system on a real Kubernetes: cluster up, images, chart, the lifecycle suite and more, cluster down
    E2e(e2e::Args),
    /// Checks the Helm chart: lint, values that must be accepted or refused, invariants of what is rendered
    Chart(chart::Args),
    /// Measures: the plugin call against bare wasmtime, the DLX against a minimal proxy, both processes with many targets
    Bench(bench::Args),
    /// Builds the API documentation
    Docs {
        /// Opens it in a browser
        #[arg(long)]
        open: bool,
    },
    /// Formats the code
    Fmt,
    /// Writes the generated reference files under docs/reference/
    Generate,
    /// Runs the commands of docs/writing-a-scaler.md word for word in a new folder and prints where the plugin is
    Tutorial {
        /// Folder to use; it must not exist yet. Default: a new one under the system's folder for temporary files
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Counts the lines of each crate, tests left out, now and at another revision
    Lines {
        /// The other revision
        #[arg(value_name = "REVISION", default_value = "HEAD")]
        revision: String,
    },
    /// Deletes the shared build cache, and nothing else
    Clean,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Workspace::locate().and_then(|workspace| match cli.command {
        Command::Demo(args) => demo::demo(&workspace, args),
        Command::Inspect { file, rest } => demo::inspect(&workspace, &file, rest),
        Command::Test(args) => suites::test(&workspace, &args),
        Command::RunSuite(args) => suites::one(&workspace, &args),
        Command::Check => suites::check(&workspace),
        Command::BuildGuests => {
            let mut steps = Steps::new(2);
            steps.run("check the tools", || tools::for_guests(&workspace))?;
            steps.run(guests::WHAT, || guests::build(&workspace))
        }
        Command::Image(args) => image::command(&workspace, args),
        Command::Cluster(args) => workspace
            .harness()
            .and_then(|harness| kube_harness::command(&harness, args)),
        Command::E2e(args) => e2e::e2e(&workspace, &args),
        Command::Chart(args) => chart::command(&workspace, &args),
        Command::Bench(args) => bench::bench(&workspace, &args),
        Command::Docs { open } => check::api_docs(&workspace, open),
        Command::Fmt => tools::component(&workspace, "rustfmt", "fmt")
            .and_then(|()| workspace.cargo("fmt").arg("--all").run()),
        Command::Generate => generated::write(&workspace),
        Command::Tutorial { folder } => tutorial::command(&workspace, folder),
        Command::Lines { revision } => lines::command(&workspace, &revision),
        Command::Clean => workspace.clean(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn unknown_flags_of_demo_are_handed_on() {
        let cli = Cli::try_parse_from(["xtask", "demo", "--ci", "--keep-logs", "logs"]).unwrap();
        let Command::Demo(args) = cli.command else {
            panic!("not demo")
        };
        assert!(args.ci);
        assert_eq!(args.rest, ["--keep-logs", "logs"]);
    }
}
