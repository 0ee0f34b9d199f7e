//! Processes of the bench, so that what each of them uses can be told apart.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::NamedTempFile;

use super::{Args, Role};
use crate::usage;

/// Every name under which HAProxy is looked for.
const HAPROXY: [&str; 2] = ["haproxy", "/usr/sbin/haproxy"];
/// How long a program may take until it listens.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// This program again, in a role. Ends with this one.
pub struct Part {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Part {
    /// Starts it, and waits until it says where it listens.
    pub fn start(role: Role, args: &Args, to: Option<SocketAddr>) -> anyhow::Result<Self> {
        Self::start_with(role, args, to, &[])
    }

    /// The same with more arguments.
    pub fn start_with(
        role: Role,
        args: &Args,
        to: Option<SocketAddr>,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let role = clap::ValueEnum::to_possible_value(&role).context("a role without name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("dlx")
            .args(["--role", role.get_name(), "--threads", &args.threads.to_string()])
            .args(["--connections", &args.connections.to_string()])
            .args(["--seconds", &args.seconds.to_string()])
            .args(["--held", &args.held.to_string()])
            .args(["--startup-millis", &args.startup_millis.to_string()])
            .args(more);
        if let Some(to) = to {
            command.args(["--to", &to.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let process = Process(child);
        let mut output = BufReader::new(output.context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("{} said {line:?}", role.get_name()))?;
        Ok(Self {
            process,
            input,
            output,
            address,
        })
    }

    /// Gives it the word.
    pub fn go(&mut self) -> anyhow::Result<()> {
        self.input.as_mut().context("no input")?.write_all(b"go\n")?;
        Ok(())
    }

    /// Gives it the word, and waits for the line that it answers with.
    pub fn ask(&mut self) -> anyhow::Result<Vec<f64>> {
        self.go()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it ended without a word");
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        numbers.with_context(|| format!("it said {line:?}"))
    }

    /// CPU seconds that it has used.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        self.process.cpu()
    }

    /// Resident bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        usage::memory(&status, "VmRSS")
    }
}

/// Killed when dropped.
struct Process(Child);

impl Process {
    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        usage::cpu_seconds(&stat)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy in TCP mode in front of one server.
pub struct Haproxy {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    _configuration: NamedTempFile,
}

impl Haproxy {
    /// None: it is not installed.
    pub fn start(to: SocketAddr, threads: usize) -> anyhow::Result<Option<Self>> {
        let installed = HAPROXY.iter().find(|name| {
            let asked = Command::new(name).arg("-v").stdout(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        });
        let Some(program) = installed else {
            return Ok(None);
        };
        let address = free()?;
        let mut file = NamedTempFile::new()?;
        write!(
            file,
            "global\n  nbthread {threads}\n  maxconn 1000\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend in\n  bind {address}\n  default_backend out\n\
             backend out\n  server echo {to}\n"
        )?;
        let process = Process(
            Command::new(program)
                .args(["-db", "-q", "-f"])
                .arg(file.path())
                .spawn()?,
        );
        listens(address)?;
        Ok(Some(Self {
            process,
            address,
            _configuration: file,
        }))
    }

    /// CPU seconds that it has used.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        self.process.cpu()
    }
}

/// An address of this machine that nobody listens on.
pub fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits until somebody listens there.
pub fn listens(address: SocketAddr) -> anyhow::Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(began.elapsed() < STARTS_WITHIN, "nobody listens on {address}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}
