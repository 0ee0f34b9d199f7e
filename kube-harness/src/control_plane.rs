//! An API server and etcd and nothing else, as children of this process: what a measurement needs that plays nodes and
//! controllers itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::build::Components;
use super::components::component;
use super::layout::{INSIDE_STATE, Layout, NODE_ADDRESS};
use super::pki;
use super::process::{Process, end, eventually};
use super::sandbox::end_of_log;
use crate::Harness;
use xtask_command::Cmd;

/// How long the API server may take until it is ready, on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(120);
/// How long either may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// What runs.
const PARTS: [&str; 2] = ["etcd", "kube-apiserver"];

/// Who asked for what, without bodies.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\n\
    kind: Policy\n\
    omitStages: [RequestReceived]\n\
    rules:\n\
    - { level: None, users: [\"system:apiserver\"] }\n\
    - { level: None, nonResourceURLs: [\"/healthz*\", \"/livez*\", \"/readyz*\"] }\n\
    - { level: Metadata }\n";

/// A running API server with its etcd. Dropping it ends both.
pub struct ControlPlane {
    layout: Layout,
    kubectl: PathBuf,
    children: Vec<Child>,
}

impl ControlPlane {
    /// What has to be built for it. Builds what is missing.
    pub fn built(harness: &Harness) -> Result<()> {
        let components = pinned(harness)?;
        let mut parts = PARTS.iter().chain(&["kubectl"]);
        if parts.all(|name| components.path(name).is_ok_and(|path| path.is_file())) {
            return Ok(());
        }
        components.build()
    }

    /// Starts both, with everything that they keep under `folder`. This process has to be in a network namespace of its
    /// own: the ports are fixed.
    pub fn start(harness: &Harness, folder: &Path) -> Result<Self> {
        let components = pinned(harness)?;
        let layout = Layout::new("servers", folder)?;
        for part in ["", "logs", "etcd"] {
            let part = layout.state().join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        // etcd insists on it.
        super::up::private(&layout.state().join("etcd"))?;
        pki::write(&layout)?;
        fs::write(layout.state().join("audit-policy.yaml"), AUDIT_POLICY)?;
        for args in [
            ["link", "set", "lo", "up"].as_slice(),
            &["address", "add", &format!("{NODE_ADDRESS}/32"), "dev", "lo"],
        ] {
            Cmd::new("ip").args(args).output()?;
        }
        let mut this = Self {
            kubectl: components.path("kubectl")?,
            layout,
            children: Vec::new(),
        };
        for name in PARTS {
            this.spawn(name, &components.path(name)?)?;
        }
        this.wait()?;
        Ok(this)
    }

    /// kubectl as the administrator.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        Cmd::new(&self.kubectl)
            .env("KUBECONFIG", self.kubeconfig())
            .args(args)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// Every request, one a line.
    pub fn audit_log(&self) -> PathBuf {
        self.layout.logs().join("audit.log")
    }

    fn spawn(&mut self, name: &str, program: &Path) -> Result<()> {
        let part = component(name).with_context(|| format!("no component is called `{name}`"))?;
        let state = self.layout.state();
        let args = part
            .args
            .iter()
            .map(|arg| arg.replace(INSIDE_STATE, &state.to_string_lossy()));
        let log = File::create(self.layout.log(name))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env_clear()
            .env("HOME", &state);
        if name == "kube-apiserver" {
            // The whole log in one file: it is read once, from its beginning to its end.
            command.args(["--audit-log-maxsize=8192"]);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        self.children.push(child);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        let mut ended = false;
        let ready = eventually(LIMIT, || {
            ended = self
                .children
                .iter_mut()
                .any(|child| matches!(child.try_wait(), Ok(Some(_))));
            ended
                || self
                    .kubectl(["get", "--raw", "/readyz", "--request-timeout=3s"])
                    .succeeds()
        });
        if ended || !ready {
            let logs = PARTS.map(|name| end_of_log(&self.layout.log(name)));
            bail!("the API server did not become ready:\n{}", logs.join("\n"));
        }
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The API server before what it stores in.
        for child in self.children.iter_mut().rev() {
            if let Some(process) = Process::of(child.id().cast_signed())
                && let Err(error) = end(process, GRACE)
            {
                eprintln!("error: {error:#}");
            }
            let _ = child.wait();
        }
    }
}

fn pinned(harness: &Harness) -> Result<Components> {
    let cache = Layout::new("servers", &harness.cache)?;
    Components::pinned(&harness.modules, &cache.bin())
}
