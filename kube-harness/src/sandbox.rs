//! The namespaces of a cluster: made, entered, and filled with processes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::components::{self, Component, Probe, Program};
use super::layout::{INSIDE_STATE, KEEPER, Layout, NODE_ADDRESS};
use super::process::{Process, child_of, eventually};
use super::signals::unless_interrupted;
use xtask_command::Cmd;

/// Appears once the keeper has made its mounts.
const KEEPER_READY: &str = "keeper-ready";

/// Makes the network namespace and starts the keeper in it.
pub fn create(layout: &Layout, keeper_program: &Path) -> Result<()> {
    let namespace = layout.namespace();
    unless_interrupted(|| Cmd::new("ip").args(["netns", "add", &namespace]).output())?;
    for args in [
        vec!["link", "set", "lo", "up"],
        vec!["address", "add", &format!("{NODE_ADDRESS}/32"), "dev", "lo"],
        vec!["route", "add", "default", "dev", "lo", "src", NODE_ADDRESS],
    ] {
        Cmd::new("ip").args(["-n", &namespace]).args(args).output()?;
    }

    let log = layout.log(KEEPER);
    let mut command = Command::new("setsid");
    command
        .arg("nsenter")
        .arg(format!("--net={}", layout.namespace_file().display()))
        .args(["unshare", "--mount", "--pid", "--fork", "--kill-child"])
        .arg(keeper_program)
        .args(["cluster", "keep"])
        .arg(layout.state())
        .arg(layout.bin())
        .arg(layout.pid_file(KEEPER))
        .arg(KEEPER_READY);
    let mut child = spawn(command, &log)?;
    let ready = layout.state().join(KEEPER_READY);
    let mut ended = false;
    let started = eventually(Duration::from_secs(10), || {
        ended = matches!(child.try_wait(), Ok(Some(_)));
        ended || ready.exists()
    });
    if ended || !started {
        bail!(
            "the namespaces of the cluster could not be set up:\n{}",
            end_of_log(&log)
        );
    }
    Ok(())
}

/// The keeper, if it runs.
pub fn keeper(layout: &Layout) -> Option<Process> {
    Process::read(&layout.pid_file(KEEPER)).filter(|keeper| keeper.alive())
}

/// A command in the network namespace only: it sees this machine's files and the cluster's network.
pub fn in_network(layout: &Layout, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
    // Not `ip netns exec`, which mounts a /sys of its own and so hides the cgroups.
    Cmd::new("nsenter")
        .arg(format!("--net={}", layout.namespace_file().display()))
        .arg("--")
        .arg(program)
}

/// Starts a component and records its process.
pub fn start(layout: &Layout, component: &Component, built: Option<&Path>) -> Result<Process> {
    let keeper =
        keeper(layout).ok_or_else(|| anyhow!("the namespaces of cluster {} are gone", layout.name()))?;
    let program: OsString = match (component.program, built) {
        (Program::Built, Some(relative)) => components::inside(relative).into(),
        (Program::Built, None) => bail!("{} is not built", component.name),
        (Program::Installed, _) => component.name.into(),
    };
    let mut command = Command::new("setsid");
    command
        .args(["nsenter", "--target", &keeper.pid().to_string()])
        .args(["--mount", "--net", "--pid", "--"])
        .arg(program)
        .args(&component.args)
        // Nothing of the caller's environment: proxies and Go's knobs among it would change what runs.
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", INSIDE_STATE);
    let log = layout.log(component.name);
    let mut waiter = spawn(command, &log)?;
    // To change the pid namespace nsenter forks: its child is the component.
    let mut process = None;
    let mut ended = false;
    eventually(Duration::from_secs(10), || {
        process = child_of(waiter.id().cast_signed());
        ended = matches!(waiter.try_wait(), Ok(Some(_)));
        process.is_some() || ended
    });
    let process =
        process.ok_or_else(|| anyhow!("{} did not start:\n{}", component.name, end_of_log(&log)))?;
    process.write(&layout.pid_file(component.name))?;
    Ok(process)
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .current_dir("/");
    unless_interrupted(|| {
        command
            .spawn()
            .with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))
    })
}

/// Asks a component whether it works. `Err` says why not.
pub fn probe(layout: &Layout, kubectl: &Path, component: &Component) -> Result<()> {
    match component.probe {
        Probe::Http(address, path) => {
            http(layout, address, path).map_err(|error| anyhow!("http://{address}{path}: {error:#}"))
        }
        Probe::Https(server, path) => in_network(layout, kubectl)
            .args([
                "--server",
                server,
                "--insecure-skip-tls-verify",
                "--request-timeout=3s",
            ])
            .args(["get", "--raw", path])
            .env("KUBECONFIG", without_authority(layout)?)
            .output()
            .map(|_| ())
            .map_err(|_| anyhow!("{server}{path} does not answer 200")),
        Probe::Containerd => ctr(layout)?
            .arg("version")
            .output()
            .map(|_| ())
            .map_err(|_| anyhow!("it does not answer on its socket")),
    }
}

/// Asks for a page in the cluster's network and wants status 200.
fn http(layout: &Layout, address: &str, path: &str) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(3);
    let namespace = File::open(layout.namespace_file()).context("the network namespace is gone")?;
    let ask = move || -> Result<()> {
        // A namespace is entered by one thread; this one ends with the question.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut stream = TcpStream::connect_timeout(&address.parse()?, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(64 << 10).read_to_end(&mut answer)?;
        let status = String::from_utf8_lossy(&answer);
        let status = status.lines().next().unwrap_or_default();
        match status.split(' ').nth(1) {
            Some("200") => Ok(()),
            _ => bail!("it answers `{status}`"),
        }
    };
    std::thread::scope(|scope| scope.spawn(ask).join())
        .map_err(|_| anyhow!("the thread that asks panicked"))?
}

/// kubectl refuses to skip the verification when it is given an authority. Only probes on loopback use this one.
fn without_authority(layout: &Layout) -> Result<PathBuf> {
    let file = layout.state().join("kubeconfigs/probe");
    if !file.exists() {
        let text = fs::read_to_string(layout.kubeconfig())?;
        let text = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("certificate-authority"))
            .fold(String::new(), |text, line| text + line + "\n");
        super::process::write_atomically(&file, text.as_bytes())?;
    }
    Ok(file)
}

/// containerd's client for the images of pods.
pub fn ctr(layout: &Layout) -> Result<Cmd> {
    let keeper = keeper(layout).ok_or_else(|| anyhow!("cluster {} does not run", layout.name()))?;
    // It sees this machine's files, so that archives anywhere can be read. It needs no network: by being in the cluster's it is
    // found when the cluster is taken away, whatever became of who started it.
    Ok(in_network(layout, "ctr")
        .arg("--address")
        .arg(format!(
            "/proc/{}/root/run/containerd/containerd.sock",
            keeper.pid()
        ))
        .args(["--namespace", "k8s.io", "--timeout", "60s"]))
}

/// The last lines of a log, for an error message.
pub fn end_of_log(file: &Path) -> String {
    const LINES: usize = 15;
    let Ok(bytes) = fs::read(file) else {
        return format!("    ({} is empty)", file.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().collect::<Vec<_>>();
    let mut shown = format!("    the end of {}:", file.display());
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        shown.push_str("\n    | ");
        shown.extend(line.chars().take(400));
    }
    shown
}
