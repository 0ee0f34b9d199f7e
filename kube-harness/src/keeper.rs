//! The first process of a cluster's own pid and mount namespaces.
//!
//! Everything else of the cluster, containers and their shims included, is a descendant in that pid namespace: when the
//! keeper ends, in whatever way, the kernel ends all of it, and with the last process go the mount namespace and every
//! mount that kubelet and containerd made. What is left to clean up is plain: folders, cgroups, one named network
//! namespace.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::WaitOptions;

use super::layout::{INSIDE_BIN, INSIDE_STATE};
use super::process::Process;
use xtask_command::Cmd;

/// A log of a component grows to this and then loses all but its end.
const LOG_LIMIT: u64 = 32 << 20;
/// What it keeps of it.
const LOG_KEPT: u64 = 8 << 20;
/// How often the logs are looked at.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// Sets the namespaces up, says so, and then reaps orphans and bounds logs until it is ended.
pub fn keep(state: &Path, bin: &Path, pid_file: &Path, ready: &Path) -> Result<()> {
    // The old /proc still shows the pid that the world outside knows us by. It is recorded first of all, so that
    // `down` finds us however early `up` dies.
    let outside = fs::read_link("/proc/self")?
        .to_str()
        .and_then(|pid| pid.parse().ok())
        .and_then(Process::of)
        .context("/proc/self does not say which process this is")?;
    outside.write(pid_file)?;
    if std::process::id() != 1 {
        bail!("the keeper must be the first process of its pid namespace");
    }

    mounts(state, bin)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot let the namespace forward packets")?;
    fs::write(Path::new(INSIDE_STATE).join(ready), "")?;

    let logs = Path::new(INSIDE_STATE).join("logs");
    let mut looked = Instant::now();
    loop {
        // Shims and what containers leave behind become children of the first process.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if looked.elapsed() >= LOG_PERIOD {
            bound_logs(&logs);
            looked = Instant::now();
        }
        std::thread::park_timeout(Duration::from_millis(250));
    }
}

/// A private /proc, /run and /var, with the state folder and the built components at fixed places.
fn mounts(state: &Path, bin: &Path) -> Result<()> {
    let mount = |args: &[&str], what: &[&Path]| {
        // /run is about to be another one: nothing is to be noted there.
        Cmd::new("mount")
            .arg("--no-mtab")
            .args(args)
            .args(what)
            .hint("mounting needs CAP_SYS_ADMIN: a container must be privileged")
            .output()
            .map(|_| ())
    };
    // Assembled aside first: the real state folder may itself be under /run or /var.
    let run = state.join("run");
    let inside = |path: &str| -> PathBuf { run.join(path.trim_start_matches("/run/")) };
    fs::create_dir_all(&run)?;
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs"], &[&run])?;
    for (from, to) in [(state, INSIDE_STATE), (bin, INSIDE_BIN)] {
        let to = inside(to);
        fs::create_dir_all(&to)?;
        mount(&["--bind"], &[from, &to])?;
    }
    mount(&["--move"], &[&run, Path::new("/run")])?;
    let var = Path::new(INSIDE_STATE).join("var");
    for folder in ["lib", "log", "tmp"] {
        fs::create_dir_all(var.join(folder))?;
    }
    std::os::unix::fs::symlink("/run", var.join("run")).or_else(|error| {
        if var.join("run").is_symlink() {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    mount(&["--bind"], &[&var, Path::new("/var")])?;
    mount(&["-t", "proc", "proc"], &[Path::new("/proc")])?;
    // Volumes of pods propagate between their mount namespaces and this one, and no further.
    mount(&["--make-rshared"], &[Path::new("/")])
}

/// Components append, so cutting a file short moves where they write next.
fn bound_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.metadata().is_ok_and(|metadata| metadata.len() > LOG_LIMIT)
            // The API server rotates this one itself.
            && !entry.file_name().to_string_lossy().starts_with("audit")
        {
            // Whatever happens here must not end the cluster; the next look tries again.
            let _ = keep_the_end(&path, LOG_KEPT);
        }
    }
}

fn keep_the_end(path: &Path, kept: u64) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(kept)))?;
    let mut end = Vec::new();
    (&file).take(kept).read_to_end(&mut end)?;
    file.set_len(0)?;
    let mut file = File::options().append(true).open(path)?;
    writeln!(
        file,
        "[the first {} bytes were dropped]",
        length.saturating_sub(kept)
    )?;
    file.write_all(&end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_end_and_goes_on() {
        let file = std::env::temp_dir().join(format!("dormouse-xtask-log-{}", std::process::id()));
        fs::write(&file, "beginning, end").unwrap();
        let mut writer = File::options().append(true).open(&file).unwrap();
        keep_the_end(&file, 3).unwrap();
        writer.write_all(b", more").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "[the first 11 bytes were dropped]\nend, more");
        fs::remove_file(&file).unwrap();
    }
}
