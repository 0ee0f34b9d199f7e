//! `cargo xtask bench`: measurements side by side in one run.

use std::ffi::OsString;

use anyhow::Result;
use clap::ValueEnum;

use crate::guests;
use crate::tools;
use crate::workspace::Workspace;
use xtask_command::Steps;

/// What can be measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// A fresh instance and one typed call, against bare wasmtime
    PluginCall,
    /// CPU per request and throughput of the warm path, against a minimal hyper proxy
    Dlx,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::PluginCall => "plugin-call",
            Self::Dlx => "dlx",
        }
    }
}

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure
    bench: Bench,
    /// The cargo profile; numbers of any other than `release` say little
    #[arg(long, default_value = "release", value_name = "NAME")]
    profile: String,
    /// More arguments for the bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<OsString>,
}

/// Builds and runs one bench.
pub fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    let mut steps = Steps::new(3);
    steps.run("check the tools", || tools::for_everything(workspace))?;
    steps.run(guests::WHAT, || guests::build(workspace))?;
    steps.run(
        &format!(
            "build and run bench {} ({} profile)",
            args.bench.name(),
            args.profile
        ),
        || {
            workspace
                .cargo("run")
                .args([
                    "--package",
                    "dormouse-benches",
                    "--profile",
                    &args.profile,
                    "--",
                    args.bench.name(),
                ])
                .args(&args.rest)
                .run()
        },
    )
}
