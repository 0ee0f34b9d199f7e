//! What runs in the pods of the end-to-end tests: a small server of HTTP and of lines, or a client that sends new connections.

mod lines;
mod load;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// A small HTTP server and client for pods of the end-to-end tests
#[derive(Parser)]
#[command(name = "workload")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves; the default. Everything is set by environment variables
    Serve,
    /// Sends a GET, or holds a dialogue, on a new connection every so often, and counts
    Load(load::Args),
    /// Copies a file, as an init container that brings a plugin does
    Copy { from: PathBuf, to: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            None | Some(Command::Serve) => serve::run(serve::Settings::from_env()?).await.map(|()| true),
            Some(Command::Load(args)) => load::run(args).await,
            Some(Command::Copy { from, to }) => std::fs::copy(&from, &to)
                .map(|_| true)
                .with_context(|| format!("{} cannot be copied to {}", from.display(), to.display())),
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
