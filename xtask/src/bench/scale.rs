//! `cargo xtask bench scale`: many targets on a real API server. What is measured is in benches/src/scale.rs; here is what
//! it runs on: namespaces of the kernel, in which every port is free and every pod can have an address, etcd and the API
//! server.
//!
//! Everything runs below one process in a pid namespace of its own: when that ends, in whatever way, all of it ends.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube_harness::ControlPlane;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Args;
use crate::guests;
use crate::tools;
use crate::workspace::{Profile, Workspace};
use xtask_command::{Cmd, Steps};

/// How long the processes may take to end after a signal, until they are ended by force.
const GRACE: Duration = Duration::from_secs(30);
/// How often it is looked whether a process has ended, or a signal has come.
const LOOK: Duration = Duration::from_millis(100);

/// Every address in it is one of this machine, inside of the namespace: pods have theirs from here. benches/src/scale knows
/// it too.
const PODS: &str = "10.244.0.0/15";
/// The addresses of the autoscaler and of the DLX replicas.
const PROCESSES: [&str; 4] = ["10.99.0.10", "10.99.0.11", "10.99.0.12", "10.99.0.13"];

/// Builds what is needed, and measures.
pub fn scale(workspace: &Workspace, args: &Args) -> Result<()> {
    let profile = match args.profile.as_str() {
        "dev" => Profile::Dev,
        "release" => Profile::Release,
        other => bail!("bench scale knows the profiles dev and release, not `{other}`; see --binary"),
    };
    let mut steps = Steps::new(4);
    if args.no_build {
        steps.announce("what was built before is used");
    } else {
        steps.run("check the tools", || tools::for_everything(workspace))?;
        steps.run(guests::WHAT, || guests::build(workspace))?;
        steps.run("build dormouse and the bench", || build(workspace, profile))?;
        ControlPlane::built(&workspace.harness()?)?;
    }
    steps.announce("measure");
    let built = workspace.binary(profile);
    let bench = built.with_file_name("dormouse-benches");
    let binary = args.binary.clone().unwrap_or(built);
    for program in [&bench, &binary] {
        if !program.is_file() {
            bail!("{} is not there", program.display());
        }
    }
    let folder = tempfile::Builder::new().prefix("dormouse-scale-").tempdir()?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(std::env::current_exe().context("cannot find this program")?)
        .args(["bench", "scale-inside", "--"])
        .arg(folder.path())
        .arg(&bench)
        .arg("scale")
        .arg("--dormouse")
        .arg(&binary)
        .arg("--plugins")
        .arg(workspace.plugins())
        .args(&args.rest);
    let (ended, interrupted) = supervise(command, |child| inner(child.id()))?;
    if interrupted {
        bail!("interrupted");
    }
    if !ended.success() {
        let kept = folder.keep();
        bail!(
            "the bench ended with {ended}; what it left is in {}",
            kept.display()
        );
    }
    Ok(())
}

/// The first process of the namespaces: starts the servers and then the bench, which is `rest` behind the folder.
pub fn inside(workspace: &Workspace, rest: &[OsString]) -> Result<()> {
    let [folder, bench, args @ ..] = rest else {
        bail!("this is started by `cargo xtask bench scale`");
    };
    if std::process::id() != 1 {
        bail!("this is started by `cargo xtask bench scale`, in namespaces of its own");
    }
    let folder = PathBuf::from(folder);
    let servers = ControlPlane::start(&workspace.harness()?, &folder)?;
    Cmd::new("ip")
        .args(["route", "add", "local", PODS, "dev", "lo"])
        .output()?;
    for address in PROCESSES {
        let address = format!("{address}/32");
        Cmd::new("ip")
            .args(["address", "add", &address, "dev", "lo"])
            .output()?;
    }
    define_sleepers(&servers, args, &folder)?;
    let mut command = Command::new(bench);
    command
        .args(args)
        .arg("--folder")
        .arg(&folder)
        .arg("--kubeconfig")
        .arg(servers.kubeconfig())
        .arg("--audit-log")
        .arg(servers.audit_log());
    let (ended, _) = supervise(command, |child| Pid::from_raw(child.id().cast_signed()))?;
    drop(servers);
    if !ended.success() {
        bail!("{ended}");
    }
    Ok(())
}

/// The definition of Sleepers, from the binary that is measured.
fn define_sleepers(servers: &ControlPlane, args: &[OsString], folder: &Path) -> Result<()> {
    let mut args = args.iter();
    args.find(|arg| *arg == "--dormouse");
    let binary = args.next().context("--dormouse is missing")?;
    let file = folder.join("crd.yaml");
    fs::write(&file, Cmd::new(binary).arg("crd").output()?)?;
    servers
        .kubectl(["create", "--filename", &file.to_string_lossy()])
        .output()
        .map(|_| ())
}

fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    // The selection of the demo and of the tests, and the bench.
    workspace
        .cargo("build")
        .args(["--workspace", "--bin", "dormouse", "--bin", "dormouse-benches"])
        .args(["--test", "lifecycle"])
        .args(profile.args())
        .run()
}

/// Waits for a command. A signal is handed on, and what does not end then is ended by force. Says how it ended, and whether that was because of a signal.
fn supervise(mut command: Command, to: impl Fn(&Child) -> Option<Pid>) -> Result<(ExitStatus, bool)> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))?;
    let mut told: Option<Instant> = None;
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok((ended, told.is_some()));
        }
        if signals.pending().next().is_some() && told.is_none() {
            told = Some(Instant::now());
            if let Some(process) = to(&child) {
                let _ = kill_process(process, Signal::TERM);
            }
        }
        if told.is_some_and(|told| told.elapsed() > GRACE) {
            child.kill()?;
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The process that `unshare` has forked.
fn inner(unshare: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}
