//! A real Kubernetes on this machine: the commands of `cargo xtask cluster`, and the same for the end-to-end tests as a type.
//!
//! API server, controllers, scheduler, kubelet, containers, kube-proxy and DNS run in a network, pid and mount namespace
//! of their own; docs/cluster.md says what that means for the one who uses it. The program that starts a cluster has to offer
//! [`command`] as its subcommand `cluster`: the first process of the namespaces is that program again.

mod build;
mod cgroups;
mod cleanup;
mod commands;
mod components;
mod control_plane;
mod images;
mod keeper;
mod layout;
mod pki;
mod process;
mod requirements;
mod sandbox;
mod signals;
mod status;
mod sysctls;
mod up;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::build::Components;
pub use self::commands::{Args, command};
pub use self::control_plane::ControlPlane;
use self::layout::Layout;
use self::process::Process;
pub use self::requirements::missing;
pub use self::up::ProxyMode;
use xtask_command::Cmd;

/// How long a component may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(70);

/// Where clusters are kept, and what they are built from.
#[derive(Clone, Debug)]
pub struct Harness {
    /// The Go modules of the components, a folder for each.
    modules: PathBuf,
    /// The per-user cache of the project.
    cache: PathBuf,
}

impl Harness {
    /// `modules` holds a folder with a go.mod for each component; `cache` takes what is built and what runs.
    pub fn new(modules: PathBuf, cache: PathBuf) -> Self {
        Self { modules, cache }
    }
}

/// A running cluster. Dropping it brings the cluster down, and so does a signal, unless it was [kept](Self::keep).
pub struct Cluster {
    layout: Layout,
    components: Components,
    kubeconfig: PathBuf,
    stages: Option<up::Stages>,
    ours: bool,
}

impl Cluster {
    /// Builds what is missing and starts a cluster. One of this name that runs already is used as it is, and is not
    /// brought down; remains of one are removed first.
    pub fn up(harness: &Harness, name: &str, proxy: ProxyMode) -> Result<Self> {
        let (layout, components) = Self::named(harness, name)?;
        let missing = missing();
        if !missing.is_empty() {
            bail!(
                "this machine cannot run a cluster:\n    {}\nsee also: cargo xtask cluster doctor",
                missing.join("\n    ")
            );
        }
        components.build()?;
        let _lock = Self::lock(&layout)?;
        if status::complete(&layout) {
            return Ok(Self::of(layout, components, false));
        }
        if !cleanup::leftovers(&layout).is_empty() {
            eprintln!("cluster {name}: removing what an earlier one left");
            cleanup::remove(&layout)?;
        }
        eprintln!(
            "cluster {name}: starting Kubernetes {} …",
            components.kubernetes_version()
        );
        signals::guard(&layout);
        let mut cluster = Self::of(layout, components, true);
        match up::start(&cluster.layout, &cluster.components, proxy) {
            Ok(stages) => {
                cluster.stages = Some(stages);
                Ok(cluster)
            }
            Err(error) => {
                let _changes = signals::changes();
                cluster.ours = false;
                if let Err(also) = cleanup::remove(&cluster.layout) {
                    eprintln!("error: {also:#}");
                }
                signals::release(&cluster.layout);
                Err(error)
            }
        }
    }

    /// A cluster that runs already.
    pub fn running(harness: &Harness, name: &str) -> Result<Self> {
        let (layout, components) = Self::named(harness, name)?;
        if sandbox::keeper(&layout).is_none() {
            bail!("cluster {name} does not run\nwhat to do: cargo xtask cluster up --name {name}");
        }
        Ok(Self::of(layout, components, false))
    }

    /// It goes on when this value and this process end.
    pub fn keep(mut self) -> Self {
        signals::release(&self.layout);
        self.ours = false;
        self
    }

    /// Removes everything and fails if anything of it is left. A cluster that this value did not start stays.
    pub fn down(mut self) -> Result<()> {
        if !std::mem::take(&mut self.ours) {
            return Ok(());
        }
        let removed = Self::take_down(&self.layout);
        signals::release(&self.layout);
        removed
    }

    /// Any command in the cluster's network, with its kubeconfig and with kubectl and helm on the PATH.
    pub fn exec(&self, program: impl AsRef<OsStr>) -> Result<Cmd> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = self
            .components
            .tools()?
            .into_iter()
            .chain(std::env::split_paths(&path));
        Ok(sandbox::in_network(&self.layout, program)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PATH", std::env::join_paths(folders)?))
    }

    /// kubectl as the administrator.
    pub fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Cmd> {
        Ok(self.exec(self.components.path("kubectl")?)?.args(args))
    }

    /// Helm as the administrator.
    pub fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Cmd> {
        Ok(self.exec(self.components.path("helm")?)?.args(args))
    }

    /// Makes the images of a docker or OCI archive known to the node.
    pub fn load_image(&self, archive: &Path) -> Result<String> {
        if !archive.is_file() {
            bail!("{} is not a file", archive.display());
        }
        up::load(&self.layout, archive)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.layout.name()
    }

    /// Outside of the namespaces; its server is reachable from [`Cluster::exec`] only.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where logs, the audit log among them, and everything else of this cluster are.
    pub fn state(&self) -> PathBuf {
        self.layout.state()
    }

    /// A component that was built with the cluster but is not part of it, such as `dormouse-test-adapter`.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.components.path(name)
    }

    /// Ends a component with SIGTERM, as a rollout does, starts it again and waits until it works.
    pub fn restart(&self, name: &str) -> Result<()> {
        if components::component(name).is_none() {
            bail!(
                "no component is called `{name}`; there are {}",
                components::NAMES.join(", ")
            );
        }
        let _lock = Self::lock(&self.layout)?;
        if let Some(process) = Process::read(&self.layout.pid_file(name)) {
            process::end(process, GRACE)?;
        }
        up::restart(&self.layout, &self.components, name)?;
        Ok(())
    }

    /// Freezes a container of a pod, as a node that hangs does: whatever it is told, it runs no other instruction. It ends with its pod.
    pub fn freeze(&self, container: &str) -> Result<()> {
        sandbox::ctr(&self.layout)?
            .args(["tasks", "pause"])
            .arg(container)
            .hint("`cluster kubectl get pod -o yaml` has a container's id in `containerID`, after `containerd://`")
            .run()
    }

    fn of(layout: Layout, components: Components, ours: bool) -> Self {
        Self {
            kubeconfig: layout.kubeconfig(),
            layout,
            components,
            stages: None,
            ours,
        }
    }

    fn named(harness: &Harness, name: &str) -> Result<(Layout, Components)> {
        let layout = Layout::new(name, &harness.cache)?;
        let components = Components::pinned(&harness.modules, &layout.bin())?;
        Ok((layout, components))
    }

    fn lock(layout: &Layout) -> Result<std::fs::File> {
        build::lock(
            &layout.lock(),
            &format!(
                "another process changes cluster {}; waiting for it",
                layout.name()
            ),
        )
    }

    fn take_down(layout: &Layout) -> Result<()> {
        let _lock = Self::lock(layout)?;
        let _changes = signals::changes();
        cleanup::remove(layout).with_context(|| format!("cannot bring cluster {} down", layout.name()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.ours {
            if let Err(error) = Self::take_down(&self.layout) {
                eprintln!("error: {error:#}");
            }
            signals::release(&self.layout);
        }
    }
}
