//! Taking a cluster away, whatever state it is in, and looking whether anything of it is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::layout::{KEEPER, Layout};
use super::process::{Process, eventually, in_namespace, namespace};
use super::{cgroups, sysctls};
use xtask_command::Cmd;

/// How long processes of the user in the namespace (`cluster exec`) may take to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// Removes everything. Works from the name alone, so it does not matter at which point a crash came; doing it twice is
/// fine. Fails if anything is left. The caller holds the cluster's lock.
pub fn remove(layout: &Layout) -> Result<()> {
    let network = network(layout);
    let me = std::process::id().cast_signed();
    if network.is_some() && namespace(me, "net") == network {
        bail!(
            "this command runs inside of the namespace of cluster {} itself\nwhat to do: run it outside of \
             `cargo xtask cluster exec`",
            layout.name()
        );
    }

    // With the first process of the pid namespace the kernel ends all the others in it, and their mounts go.
    let keeper = Process::read(&layout.pid_file(KEEPER));
    if let Some(keeper) = keeper {
        keeper.signal(Signal::KILL)?;
    }
    // Left are those that wait for processes inside, those that began to set up a cluster, and what the user runs.
    let rest = || {
        network
            .as_deref()
            .map(|name| in_namespace("net", name))
            .unwrap_or_default()
    };
    for process in rest() {
        process.signal(Signal::TERM)?;
    }
    if !eventually(GRACE, || rest().is_empty()) {
        for process in rest() {
            process.signal(Signal::KILL)?;
        }
    }
    let limit = Duration::from_secs(20);
    eventually(limit, || {
        rest().is_empty() && keeper.is_none_or(|keeper| !keeper.alive())
    });

    cgroups::remove(&layout.cgroup())?;
    for mount in mounts(layout) {
        Cmd::new("umount").arg("--lazy").arg(mount).output()?;
    }
    if layout.namespace_file().exists() {
        Cmd::new("ip")
            .args(["netns", "delete", &layout.namespace()])
            .output()?;
    }
    sysctls::restore(layout)?;
    remove_folder(&layout.state())?;

    let left = leftovers(layout);
    if !left.is_empty() {
        bail!(
            "cluster {} is not gone completely:\n    {}\nwhat to do: run `cargo xtask cluster down --name {}` again; \
             what it names twice was made by somebody else",
            layout.name(),
            left.join("\n    "),
            layout.name()
        );
    }
    Ok(())
}

/// Whatever of a cluster is on this machine: processes, namespaces, mounts, cgroups, folders.
pub fn leftovers(layout: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    let mut process = |what: &str, process: Process| {
        found.push(format!("process {} ({}), {what}", process.pid(), process.name()));
    };
    if let Some(keeper) = Process::read(&layout.pid_file(KEEPER)).filter(|keeper| keeper.alive()) {
        process("the keeper", keeper);
    }
    if let Some(network) = network(layout) {
        for other in in_namespace("net", &network) {
            process("in the network namespace", other);
        }
        found.push(format!("network namespace {}", layout.namespace()));
    } else if layout.namespace_file().exists() {
        found.push(format!("file {}", layout.namespace_file().display()));
    }
    for pid in cgroups::processes(&layout.cgroup()) {
        found.push(format!("process {pid}, in cgroup {}", layout.cgroup()));
    }
    // One line for each hierarchy: what is below goes with it.
    found.extend(
        cgroups::tops(&layout.cgroup())
            .iter()
            .map(|folder| format!("cgroup {}", folder.display())),
    );
    found.extend(
        mounts(layout)
            .iter()
            .map(|mount| format!("mount {}", mount.display())),
    );
    if layout.state().exists() {
        found.push(format!("folder {}", layout.state().display()));
    }
    found
}

/// The network namespace as /proc names it, if it exists.
pub fn network(layout: &Layout) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let file = layout.namespace_file();
    // `ip netns add` that was killed leaves an ordinary file.
    let mounted = fs::read_to_string("/proc/self/mountinfo")
        .is_ok_and(|table| mount_points(&table).any(|point| point == file));
    mounted
        .then(|| fs::metadata(&file).ok())?
        .map(|metadata| format!("net:[{}]", metadata.ino()))
}

/// Mounts under the state folder that are visible here; deepest first. Normally none: they live in the keeper's own
/// mount namespace.
fn mounts(layout: &Layout) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = mount_points(&table)
        .filter(|point| point.starts_with(layout.state()))
        .collect::<Vec<_>>();
    found.sort();
    found.reverse();
    found
}

/// proc_pid_mountinfo(5): the fifth field, with octal escapes for blanks.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| {
        let field = line.split(' ').nth(4)?;
        Some(PathBuf::from(
            field
                .replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\012", "\n")
                .replace("\\134", "\\"),
        ))
    })
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_from_the_fifth_field() {
        let table = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 0:4 net:[4026532281] /run/netns/x rw shared:5 - nsfs nsfs rw\n";
        assert_eq!(
            mount_points(table).collect::<Vec<_>>(),
            [Path::new("/mnt/a b"), Path::new("/run/netns/x")]
        );
    }

    #[test]
    fn nothing_is_left_of_a_cluster_that_never_was() {
        let layout = Layout::new("never-was", &std::env::temp_dir().join("dormouse-xtask-none")).unwrap();
        assert_eq!(leftovers(&layout), Vec::<String>::new());
    }
}
