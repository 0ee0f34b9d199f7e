//! What a machine must have to run a cluster, and how to get what it has not.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroups;
use xtask_command::Cmd;

/// One thing that is needed.
pub struct Requirement {
    /// What it is, with what it is for.
    pub what: String,
    /// Why it is not there. `None`: it is.
    pub problem: Option<String>,
    /// How to get it.
    pub remedy: String,
}

/// Programs of Debian packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("busybox", "busybox-static"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
];

/// Plugins of the package containernetworking-plugins.
const PLUGINS: &[&str] = &["ptp", "host-local", "loopback"];
/// Where distributions put them.
const PLUGIN_FOLDERS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Looks at everything, for the table of `doctor`.
pub fn check() -> Vec<Requirement> {
    let mut all = vec![
        Requirement {
            what: "Linux".to_owned(),
            problem: (!cfg!(target_os = "linux")).then(|| "this is another system".to_owned()),
            remedy: "use a virtual machine, or KUBECONFIG of an existing cluster".to_owned(),
        },
        Requirement {
            what: "root, for namespaces, mounts and cgroups".to_owned(),
            problem: (!rustix::process::geteuid().is_root()).then(|| "this user is not root".to_owned()),
            remedy: "run it with `sudo -E env PATH=\"$PATH\"`".to_owned(),
        },
        Requirement {
            what: "Go 1.21 or newer, to build the components".to_owned(),
            problem: go_problem(),
            remedy:
                "install it from https://go.dev/dl/, or apt-get install golang-go on Debian 13 and newer; it \
                     fetches the version that go.mod asks for by itself"
                    .to_owned(),
        },
    ];
    for (program, package) in PROGRAMS {
        all.push(Requirement {
            what: format!("{program}, of the package {package}"),
            problem: program_problem(program),
            remedy: format!("apt-get install {package}"),
        });
    }
    all.push(Requirement {
        what: format!(
            "network plugins {}, of the package containernetworking-plugins",
            PLUGINS.join(", ")
        ),
        problem: plugins()
            .is_none()
            .then(|| format!("not all of them are in one of {}", PLUGIN_FOLDERS.join(", "))),
        remedy: "apt-get install containernetworking-plugins".to_owned(),
    });
    all.push(Requirement {
        what: "cgroups, version 1 or 2".to_owned(),
        problem: cgroups::problem(),
        remedy: "in a container: docker run --privileged --cgroupns=host; otherwise boot without \
                 cgroup_disable"
            .to_owned(),
    });
    all
}

/// What is missing on this machine and how to get it, one sentence each; empty when a cluster can be started.
pub fn missing() -> Vec<String> {
    sentences(check())
}

fn sentences(requirements: Vec<Requirement>) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut packages = Vec::<String>::new();
    for requirement in requirements {
        let Some(problem) = requirement.problem else {
            continue;
        };
        // Packages are collected, so that there is one command to copy.
        if let Some(package) = requirement.remedy.strip_prefix("apt-get install ")
            && !package.contains(' ')
        {
            if !packages.iter().any(|other| other == package) {
                packages.push(package.to_owned());
            }
        } else {
            sentences.push(format!("{}: {problem}; {}", requirement.what, requirement.remedy));
        }
    }
    if !packages.is_empty() {
        let packages = packages.join(" ");
        sentences.push(format!("Debian packages: apt-get install {packages}"));
    }
    sentences
}

/// The folder with the network plugins.
pub fn plugins() -> Option<&'static str> {
    PLUGIN_FOLDERS.iter().copied().find(|folder| {
        PLUGINS
            .iter()
            .all(|plugin| Path::new(folder).join(plugin).is_file())
    })
}

/// A program on the PATH, or where root's PATH has it.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn go_problem() -> Option<String> {
    let Ok(version) = Cmd::new("go").args(["env", "GOVERSION"]).output() else {
        return Some("`go` cannot be run".to_owned());
    };
    let version = version.trim();
    let minor = version
        .strip_prefix("go1.")
        .and_then(|rest| rest.split(['.', 'r', 'b', ' ', '-']).next())
        .and_then(|minor| minor.parse::<u32>().ok());
    // Development versions say `devel …`; whoever has one knows.
    minor
        .is_some_and(|minor| minor < 21)
        .then(|| format!("{version} is too old"))
}

fn program_problem(program: &str) -> Option<String> {
    let Some(file) = find(program) else {
        return Some("not found".to_owned());
    };
    // In an image it is alone, without the libraries of this machine.
    (program == "busybox" && !is_static(&file))
        .then(|| format!("{} is not statically linked", file.display()))
}

/// Whether an ELF file asks for no dynamic linker: it has no program header of type PT_INTERP.
fn is_static(file: &Path) -> bool {
    let Ok(bytes) = fs::read(file) else {
        return false;
    };
    interpreter(&bytes) == Some(false)
}

/// ELF64, little-endian, as on every architecture that is supported here.
fn interpreter(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    if bytes.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let table = usize::try_from(number(32, 8)?).ok()?;
    let size = usize::try_from(number(54, 2)?).ok()?;
    let count = usize::try_from(number(56, 2)?).ok()?;
    let mut found = false;
    for index in 0..count {
        found |= number(table.checked_add(index * size)?, 4)? == u64::from(PT_INTERP);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_programs_are_told_from_dynamic_ones() {
        // The shell of every common distribution is linked dynamically.
        let shell = fs::read(find("sh").unwrap()).unwrap();
        assert_eq!(interpreter(&shell), Some(true));
        let mut without = shell;
        let table = usize::from(without[32]);
        let count = usize::from(without[56]);
        let size = usize::from(without[54]);
        for index in 0..count {
            without[table + index * size] = 1;
        }
        assert_eq!(interpreter(&without), Some(false));
        assert_eq!(interpreter(b"#!/bin/sh"), None);
        assert_eq!(interpreter(&without[..70]), None);
    }

    #[test]
    fn missing_packages_are_one_command() {
        let requirement = |what: &str, missing: bool, remedy: &str| Requirement {
            what: what.to_owned(),
            problem: missing.then(|| "not found".to_owned()),
            remedy: remedy.to_owned(),
        };
        let said = sentences(vec![
            requirement("Go", true, "install it"),
            requirement("runc", true, "apt-get install runc"),
            requirement("ctr", true, "apt-get install containerd"),
            requirement("containerd", true, "apt-get install containerd"),
            requirement("nft", false, "apt-get install nftables"),
        ]);
        assert_eq!(
            said,
            [
                "Go: not found; install it",
                "Debian packages: apt-get install runc containerd"
            ]
        );
        assert!(sentences(vec![requirement("nft", false, "apt-get install nftables")]).is_empty());
    }

    #[test]
    fn every_requirement_says_how_to_get_it() {
        for requirement in check() {
            assert!(!requirement.remedy.is_empty(), "{}", requirement.what);
        }
    }
}
