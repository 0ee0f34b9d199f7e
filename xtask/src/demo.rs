//! `cargo xtask demo`: from a fresh clone to the story in the terminal.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::tools;
use crate::workspace::{Profile, Workspace};
use crate::{build, guests};
use xtask_command::{Cmd, Steps};

/// Longer than any machine needs for the story; a demo that hangs must not hang CI.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Runs the story, checks every step, and fails if a request was lost
    #[arg(long)]
    pub ci: bool,
    /// A component to use in place of the bundled `workloads`
    #[arg(long, value_name = "PATH")]
    pub plugin: Option<PathBuf>,
    /// Builds with optimisations for ourselves too; takes minutes longer
    #[arg(long)]
    pub release: bool,
    /// More arguments for `dormouse demo`, such as --keep-logs DIR
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub rest: Vec<OsString>,
}

/// Builds what is needed and becomes the demo.
pub fn demo(workspace: &Workspace, args: Args) -> Result<()> {
    if let Some(plugin) = args.plugin.as_ref().filter(|plugin| !plugin.is_file()) {
        bail!("--plugin {}: there is no such file", plugin.display());
    }
    let profile = if args.release {
        Profile::Release
    } else {
        Profile::Dev
    };
    let mut steps = Steps::new(4);
    steps.run("check the tools", || tools::for_everything(workspace))?;
    steps.run(guests::WHAT, || guests::build(workspace))?;
    steps.run(
        "build dormouse (the first time compiles wasmtime too: several minutes)",
        || build::dormouse(workspace, profile),
    )?;
    steps.announce("start the demo");
    let mut command = command(workspace, profile, args.plugin);
    if args.ci {
        command = command.arg("--ci");
    }
    command.args(args.rest).replace_this_process()
}

/// `dormouse plugin inspect`, with the binary of this checkout.
pub fn inspect(workspace: &Workspace, file: &Path, rest: Vec<String>) -> Result<()> {
    let mut steps = Steps::new(2);
    steps.run("check the tools", || tools::for_everything(workspace))?;
    steps.run(
        "build dormouse (the first time compiles wasmtime too: several minutes)",
        || build::dormouse(workspace, Profile::Dev),
    )?;
    Cmd::new(workspace.binary(Profile::Dev))
        .args(["plugin", "inspect"])
        .arg(file)
        .args(rest)
        .replace_this_process()
}

/// The demo as a suite, with the program that is built: checks itself and comes back.
pub fn checked(workspace: &Workspace, plugin: Option<PathBuf>) -> Result<()> {
    command(workspace, Profile::Dev, plugin)
        .arg("--ci")
        .deadline(PATIENCE)
        .hint("the table above names the step; `cargo xtask demo --ci --keep-logs DIR` keeps what the processes wrote")
        .run()
}

fn command(workspace: &Workspace, profile: Profile, plugin: Option<PathBuf>) -> Cmd {
    let command = Cmd::new(workspace.binary(profile))
        .arg("demo")
        .arg("--plugins-dir")
        .arg(workspace.plugins());
    match plugin {
        Some(plugin) => command.arg("--plugin").arg(plugin),
        None => command,
    }
}
