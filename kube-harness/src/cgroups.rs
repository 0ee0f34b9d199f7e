//! The cgroups of a cluster's pods, in the hierarchies of version 1 or the one of version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::process::{Process, eventually};

const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that pods need.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids"];

/// Where hierarchies are mounted: one folder for version 2, one for each controller for version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if is_v2() {
        return vec![root.to_owned()];
    }
    let mut found = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        // Aliases such as `cpu,cpuacct` are links and would be seen twice.
        .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect::<Vec<_>>();
    found.sort();
    found
}

/// Whether this machine has the unified hierarchy.
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Why pods cannot have cgroups on this machine, if so.
pub fn problem() -> Option<String> {
    let found = hierarchies();
    if found.is_empty() {
        return Some(format!("no cgroups are mounted under {ROOT}"));
    }
    let missing = if is_v2() {
        let available = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
        CONTROLLERS
            .iter()
            .filter(|name| {
                !available
                    .split_whitespace()
                    .any(|controller| controller == **name)
            })
            .copied()
            .collect::<Vec<_>>()
    } else {
        CONTROLLERS
            .iter()
            .filter(|name| !Path::new(ROOT).join(name).is_dir())
            .copied()
            .collect()
    };
    (!missing.is_empty()).then(|| format!("the cgroup controllers {} are missing", missing.join(", ")))
}

/// Makes the parent of all pods' cgroups.
pub fn create(name: &str) -> Result<()> {
    if is_v2() {
        let file = Path::new(ROOT).join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        for controller in CONTROLLERS {
            if enabled.split_whitespace().any(|other| other == *controller) {
                continue;
            }
            if let Err(error) = fs::write(&file, format!("+{controller}")) {
                bail!(
                    "cannot enable the cgroup controller {controller} in {}: {error}\nwhat to do: in a container, \
                     give it the host's cgroup namespace (docker run --privileged --cgroupns=host)",
                    file.display()
                );
            }
        }
    }
    for hierarchy in hierarchies() {
        let folder = at(&hierarchy, name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(())
}

/// Ends what still runs in them and deletes them.
pub fn remove(name: &str) -> Result<()> {
    for pid in processes(name) {
        if let Some(process) = Process::of(pid) {
            process.signal(Signal::KILL)?;
        }
    }
    // The kernel keeps a cgroup busy for a moment after its last process has gone.
    let mut failed = None;
    eventually(Duration::from_secs(10), || {
        failed = folders(name)
            .into_iter()
            .rev()
            .find_map(|folder| fs::remove_dir(&folder).err().map(|error| (folder, error)));
        failed.is_none()
    });
    match failed {
        Some((folder, error)) => bail!("cannot delete cgroup {}: {error}", folder.display()),
        None => Ok(()),
    }
}

/// The cluster's cgroup in each hierarchy where it exists.
pub fn tops(name: &str) -> Vec<PathBuf> {
    hierarchies()
        .iter()
        .map(|hierarchy| at(hierarchy, name))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Every cgroup of the cluster, parents before children.
pub fn folders(name: &str) -> Vec<PathBuf> {
    let mut found = tops(name);
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let children = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect::<Vec<_>>();
        found.extend(children);
        next += 1;
    }
    found
}

/// Every process in them.
pub fn processes(name: &str) -> Vec<i32> {
    let mut found = folders(name)
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect::<Vec<i32>>();
    found.sort_unstable();
    found.dedup();
    found
}

fn at(hierarchy: &Path, name: &str) -> PathBuf {
    hierarchy.join(name.trim_start_matches('/'))
}
