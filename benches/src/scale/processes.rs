//! The processes that are measured: started, asked, ended.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Args;
use super::api::kubeconfig_as;
use crate::usage::{self, Scheduled};

/// Port of the admin endpoint.
pub const ADMIN: u16 = 9090;
/// The namespace of Dormouse itself.
pub const OWN: &str = "dormouse";
/// How long a process may take to end in order.
const GRACE: Duration = Duration::from_secs(45);
/// How long a process has to be quiet to count as quiet.
const QUIET: Duration = Duration::from_secs(3);
/// And what it may want of a processor meanwhile, in percent.
const QUIET_PERCENT: f64 = 10.0;

/// One of the processes. Ends with this value.
pub struct Process {
    pub name: &'static str,
    pub address: Ipv4Addr,
    /// When it was started.
    pub begun: Instant,
    child: Child,
    pid: u32,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds of CPU time.
    pub cpu: f64,
    /// Seconds for which its threads were ready to run and others had the processors.
    pub waited: f64,
    /// Resident bytes, now and at most.
    pub resident: u64,
    pub peak: u64,
}

impl Process {
    /// Starts `dormouse <subcommand>` at one of the addresses, with a configuration as the chart writes it.
    pub fn start(
        args: &Args,
        name: &'static str,
        subcommand: &str,
        address: Ipv4Addr,
        config: &std::path::Path,
    ) -> anyhow::Result<Self> {
        let kubeconfig = args.folder.join(format!("kubeconfig-{name}"));
        kubeconfig_as(name, &args.kubeconfig, &kubeconfig)?;
        let log = args.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let cache = args.folder.join(format!("plugins-of-{name}"));
        fs::create_dir_all(&cache)?;
        let child = Command::new(&args.dormouse)
            .arg(subcommand)
            .arg("--config")
            .arg(config)
            .arg("--kubeconfig-path")
            .arg(kubeconfig)
            .arg("--plugins-cache-dir")
            .arg(cache)
            .arg("--bind-address")
            .arg(address.to_string())
            .env_clear()
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", OWN)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", args.dormouse.display()))?;
        let pid = child.id().context("it has ended already")?;
        Ok(Self {
            name,
            address,
            begun: Instant::now(),
            child,
            pid,
        })
    }

    /// Ends it as a rollout does.
    pub async fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
            kill_process(pid, Signal::TERM)?;
        }
        if timeout(GRACE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    /// Ends it as a node that is gone does.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// What it has used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.pid));
        let gone = || format!("{} has ended; see its log", self.name);
        let stat = fs::read_to_string(folder.join("stat")).with_context(gone)?;
        let cpu = usage::cpu_seconds(&stat)?;
        // A zombie has ended, and nobody has waited for it yet.
        ensure!(!stat.contains(") Z"), "{}", gone());
        let status = fs::read_to_string(folder.join("status")).with_context(gone)?;
        Ok(Usage {
            cpu,
            waited: Scheduled::of(&folder).with_context(gone)?.waited,
            resident: usage::memory(&status, "VmRSS").unwrap_or(0),
            peak: usage::memory(&status, "VmHWM").unwrap_or(0),
        })
    }

    /// Waits until it wants next to nothing for some seconds, and answers when that began. None: not within the limit.
    pub async fn quiet(&self, limit: Duration) -> anyhow::Result<Option<Instant>> {
        let end = Instant::now() + limit;
        let mut since = (Instant::now(), self.usage()?);
        while Instant::now() < end {
            sleep(Duration::from_millis(250)).await;
            let (now, usage) = (Instant::now(), self.usage()?);
            let wanted = (usage.cpu + usage.waited) - (since.1.cpu + since.1.waited);
            if wanted > QUIET.as_secs_f64() * QUIET_PERCENT / 100.0 {
                since = (now, usage);
            } else if now - since.0 >= QUIET {
                return Ok(Some(since.0));
            }
        }
        Ok(None)
    }

    /// Waits until it says that it is ready, and has loaded its plugins.
    pub async fn ready(&self, limit: Duration) -> anyhow::Result<Instant> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            self.usage()?;
            if let Ok(said) = self.admin("/readyz").await
                && !said.contains("pending")
            {
                return Ok(Instant::now());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("{} was not ready within {} s", self.name, limit.as_secs())
    }

    /// A page of its admin endpoint.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let address = SocketAddr::new(self.address.into(), ADMIN);
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = timeout(Duration::from_secs(10), asked).await??;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        Ok(answer)
    }

    /// The sum of all samples of a metric.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        Ok(sum(&self.admin("/metrics").await?, name))
    }
}

/// The sum of all samples of a metric, whatever their labels.
fn sum(page: &str, name: &str) -> f64 {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.split_once('}') {
                Some((labels, value)) if labels.starts_with('{') => value,
                None if rest.starts_with(' ') => rest,
                _ => return None,
            };
            value.split_whitespace().next()?.parse::<f64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_metric_are_added_up_and_those_of_another_are_not() {
        let page = "# HELP a b\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3.5\na_total_more 7\nb 4\n";
        assert_eq!(sum(page, "a_total"), 5.5);
        assert_eq!(sum(page, "b"), 4.0);
        assert_eq!(sum(page, "c"), 0.0);
    }
}
