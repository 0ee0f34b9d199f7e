//! Where the things of one cluster are, outside of its namespaces and inside.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Inside of the mount namespace every cluster looks the same: its state folder and the built components are bound
/// here, so that configuration files need no paths of this machine and unix sockets have short ones.
pub const INSIDE_STATE: &str = "/run/dormouse/state";
/// The built components, inside.
pub const INSIDE_BIN: &str = "/run/dormouse/bin";

/// The node's address in its namespace. EndpointSlices refuse loopback addresses.
pub const NODE_ADDRESS: &str = "10.99.0.1";
/// The name of the only node.
pub const NODE_NAME: &str = "node-1";
/// Address of the Service `kubernetes`: the first one of the range.
pub const API_SERVICE_ADDRESS: &str = "10.96.0.1";

/// The process that holds the namespaces, as it is recorded.
pub const KEEPER: &str = "keeper";

/// The folders and names of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    name: String,
    cache: PathBuf,
}

impl Layout {
    /// `cache` is the per-user cache folder of the project.
    pub fn new(name: &str, cache: &Path) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(plain) || name.starts_with('-') {
            bail!(
                "`{name}` cannot be the name of a cluster: use 1 to 20 lowercase letters, digits and `-`, \
                 not beginning with `-`"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            cache: cache.join("cluster"),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Built components, shared by all clusters of one user.
    pub fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// Held while a cluster of this name is brought up or down. It outlives the cluster, or two processes could hold
    /// two files of one name.
    pub fn lock(&self) -> PathBuf {
        self.cache.join("locks").join(&self.name)
    }

    /// All state folders.
    pub fn states(&self) -> PathBuf {
        self.cache.join("run")
    }

    /// Everything that this cluster keeps on disk.
    pub fn state(&self) -> PathBuf {
        self.states().join(&self.name)
    }

    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    pub fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    /// Which process a component is.
    pub fn pid_file(&self, component: &str) -> PathBuf {
        self.state().join("pids").join(component)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// The network namespace, as `ip netns` names it.
    pub fn namespace(&self) -> String {
        format!("dormouse-{}", self.name)
    }

    /// The network namespace as a file.
    pub fn namespace_file(&self) -> PathBuf {
        Path::new("/run/netns").join(self.namespace())
    }

    /// The parent of every pod's cgroup.
    pub fn cgroup(&self) -> String {
        format!("/dormouse-{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_paths_and_namespaces() {
        for good in ["dev", "e2e-2", "a"] {
            assert!(Layout::new(good, Path::new("/c")).is_ok(), "{good}");
        }
        for bad in [
            "",
            "..",
            "a/b",
            "A",
            "-a",
            "a b",
            "a-name-that-is-longer-than-it-may-be",
        ] {
            assert!(Layout::new(bad, Path::new("/c")).is_err(), "{bad}");
        }
    }
}
