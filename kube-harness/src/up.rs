//! Starting a cluster, in an order in which nothing waits longer than it must.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::build::Components;
use super::components::{Program, component};
use super::layout::{INSIDE_STATE, KEEPER, Layout, NODE_NAME};
use super::process::{Process, eventually};
use super::sandbox::{self, end_of_log};
use super::signals::unless_interrupted;
use super::{cgroups, images, pki, requirements, sysctls};
use xtask_command::Cmd;

/// How long any single thing may take on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(120);

const CONTAINERD: &str = include_str!("../../e2e/cluster/config/containerd.toml");
const CNI: &str = include_str!("../../e2e/cluster/config/cni.conflist");
const KUBELET: &str = include_str!("../../e2e/cluster/config/kubelet.yaml");
const KUBE_PROXY: &str = include_str!("../../e2e/cluster/config/kube-proxy.yaml");
const AUDIT_POLICY: &str = include_str!("../../e2e/cluster/config/audit-policy.yaml");
const COREFILE: &str = include_str!("../../e2e/cluster/config/Corefile");
const SYSTEM: &str = include_str!("../../e2e/cluster/config/system.yaml");

/// How the node leads to what is behind a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProxyMode {
    /// kube-proxy's own default
    #[default]
    Iptables,
    /// Refuses a few connections of tens of thousands when endpoints change: the kernel's doing
    Nftables,
}

impl ProxyMode {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// When the stages were reached, for the summary.
pub struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    /// In one line.
    pub fn line(&self) -> String {
        self.0
            .iter()
            .map(|(stage, at)| format!("{stage} {:.1} s", at.as_secs_f64()))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Starts everything. The caller holds the lock, has removed what was there, and removes what is there on an error.
pub fn start(layout: &Layout, components: &Components, proxy: ProxyMode) -> Result<Stages> {
    let began = Instant::now();
    let mut stages = Vec::new();
    let starter = Starter { layout, components };

    unless_interrupted(|| prepare(layout, proxy))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    sandbox::create(layout, &program)?;
    stages.push(("namespaces", began.elapsed()));

    for name in ["etcd", "containerd", "kube-apiserver"] {
        starter.start(name)?;
    }
    let kubectl = components.path("kubectl")?;
    std::thread::scope(|scope| {
        // The kubelet needs the image of pods' sandboxes; the rest needs the API server.
        let loaded = scope.spawn(|| -> Result<()> {
            let archives = images::write(&layout.state())?;
            starter.wait("containerd", &["containerd"], || starter.probe("containerd"))?;
            archives
                .iter()
                .try_for_each(|archive| load(layout, archive).map(|_| ()))
        });
        starter.wait("the API server", &["etcd", "kube-apiserver"], || {
            starter.probe("kube-apiserver")
        })?;
        stages.push(("API server", began.elapsed()));
        for name in ["kubelet", "kube-controller-manager", "kube-scheduler", "coredns"] {
            starter.start(name)?;
        }
        let manifest = layout.state().join("system.yaml");
        starter.wait("the system's own objects", &["kube-apiserver"], || {
            run_kubectl(layout, &kubectl, &["apply", "--server-side", "--filename"])
                .arg(&manifest)
                .output()
                .map(|_| ())
        })?;
        loaded
            .join()
            .map_err(|_| anyhow!("loading the images panicked"))?
    })?;
    starter.wait(
        "the node to become Ready",
        &["kubelet", "containerd", "kube-controller-manager"],
        || node_ready(layout, &kubectl),
    )?;
    stages.push(("node", began.elapsed()));
    // It ends when the node's address changes, so it comes after the node.
    starter.start("kube-proxy")?;
    for name in ["kube-proxy", "coredns", "kube-scheduler"] {
        starter.wait(name, &[name], || starter.probe(name))?;
    }
    starter.wait(
        "the default service account",
        &["kube-controller-manager"],
        || {
            run_kubectl(
                layout,
                &kubectl,
                &["get", "serviceaccount", "default", "--output=name"],
            )
            .output()
            .map(|_| ())
        },
    )?;
    stages.push(("everything", began.elapsed()));
    Ok(Stages(stages))
}

/// Starts one component again and waits until it works.
pub fn restart(layout: &Layout, components: &Components, name: &str) -> Result<Process> {
    let starter = Starter { layout, components };
    let process = starter.start(name)?;
    starter.wait(name, &[name], || starter.probe(name))?;
    Ok(process)
}

/// Imports an archive and returns the names of its images.
pub fn load(layout: &Layout, archive: &Path) -> Result<String> {
    sandbox::ctr(layout)?
        .args(["images", "import"])
        .arg(archive)
        .hint(
            "load-image takes an OCI or docker archive, such as `cargo xtask image` and `docker save` write",
        )
        .output()
}

struct Starter<'a> {
    layout: &'a Layout,
    components: &'a Components,
}

impl Starter<'_> {
    fn start(&self, name: &str) -> Result<Process> {
        let component = component(name).with_context(|| format!("no component is called `{name}`"))?;
        let built = match component.program {
            Program::Built => Some(self.components.relative(name)?),
            Program::Installed => None,
        };
        sandbox::start(self.layout, &component, built.as_deref())
    }

    fn probe(&self, name: &str) -> Result<()> {
        let component = component(name).with_context(|| format!("no component is called `{name}`"))?;
        sandbox::probe(self.layout, &self.components.path("kubectl")?, &component)
    }

    /// Waits for something that cannot come any more once one of the named components has ended.
    fn wait(&self, what: &str, needs: &[&str], mut asked: impl FnMut() -> Result<()>) -> Result<()> {
        let mut last = anyhow!("not asked yet");
        let mut dead = None;
        let done = eventually(LIMIT, || {
            match asked() {
                Ok(()) => return true,
                Err(error) => last = error,
            }
            dead = needs
                .iter()
                .chain([&KEEPER])
                .copied()
                .find(|name| !alive(self.layout, name));
            dead.is_some() || super::signals::is_interrupted()
        });
        if super::signals::is_interrupted() {
            bail!("interrupted");
        }
        if let Some(dead) = dead {
            bail!(
                "{dead} has ended while {what} was waited for\n{}",
                end_of_log(&self.layout.log(dead))
            );
        }
        if !done {
            let logs = needs.iter().map(|name| end_of_log(&self.layout.log(name)));
            bail!(
                "{what}: still not after {} s: {last:#}\n{}",
                LIMIT.as_secs(),
                logs.collect::<Vec<_>>().join("\n")
            );
        }
        Ok(())
    }
}

/// Whether a component's process runs.
pub fn alive(layout: &Layout, name: &str) -> bool {
    Process::read(&layout.pid_file(name)).is_some_and(Process::alive)
}

/// kubectl as the administrator.
pub fn run_kubectl(layout: &Layout, kubectl: &Path, args: &[&str]) -> Cmd {
    sandbox::in_network(layout, kubectl)
        .arg("--request-timeout=10s")
        .args(args)
        .env("KUBECONFIG", layout.kubeconfig())
}

/// Whether the node is Ready and takes pods.
pub fn node_ready(layout: &Layout, kubectl: &Path) -> Result<()> {
    let text = run_kubectl(
        layout,
        kubectl,
        &[
            "get",
            "node",
            NODE_NAME,
            "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.spec.taints[*].key}",
        ],
    )
    .output()?;
    match text.trim() {
        "True" => Ok(()),
        other => Err(anyhow!("Ready condition and taints of the node: `{other}`")),
    }
}

/// Folders, identities, configuration.
fn prepare(layout: &Layout, proxy: ProxyMode) -> Result<()> {
    let state = layout.state();
    for folder in ["", "logs", "pids", "cni", "etcd", "pod-logs"] {
        let folder = state.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // etcd insists on it.
    private(&state.join("etcd"))?;
    cgroups::create(&layout.cgroup())?;
    sysctls::record(layout)?;
    pki::write(layout)?;
    let cni = requirements::plugins().context("the network plugins are missing")?;
    let files = [
        (
            "containerd.toml",
            CONTAINERD
                .replace("@snapshotter@", snapshotter(&state))
                .replace("@cni@", cni),
        ),
        ("cni/dormouse.conflist", CNI.to_owned()),
        ("kubelet.yaml", KUBELET.replace("@cgroup@", &layout.cgroup())),
        ("kube-proxy.yaml", KUBE_PROXY.replace("@proxy@", proxy.name())),
        ("audit-policy.yaml", AUDIT_POLICY.to_owned()),
        ("Corefile", COREFILE.to_owned()),
        ("system.yaml", SYSTEM.to_owned()),
        // For pods with dnsPolicy Default, which take the node's.
        ("resolv.conf", "nameserver 10.96.0.10\n".to_owned()),
    ];
    for (name, content) in files {
        let file = state.join(name);
        fs::write(&file, content.replace("/run/dormouse/state", INSIDE_STATE))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Nobody else may look into it.
pub fn private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect {}", folder.display()))
}

/// An overlay cannot lie on an overlay, as in a container without a volume for the cache.
fn snapshotter(state: &Path) -> &'static str {
    let kind = Cmd::new("stat")
        .args(["--file-system", "--format=%T"])
        .arg(state)
        .output();
    match kind {
        Ok(kind) if kind.trim() == "overlayfs" => "native",
        _ => "overlayfs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_names_only_paths_inside_of_the_mount_namespace() {
        for text in [CONTAINERD, KUBELET, KUBE_PROXY, COREFILE] {
            assert!(text.contains(INSIDE_STATE) || text.contains("/run/"), "{text}");
            assert!(!text.contains("/root") && !text.contains("/home"));
        }
    }

    #[test]
    fn every_placeholder_is_known() {
        let known = ["@snapshotter@", "@cni@", "@cgroup@", "@proxy@"];
        for text in [CONTAINERD, KUBELET, KUBE_PROXY, CNI] {
            let text = known
                .iter()
                .fold(text.to_owned(), |text, name| text.replace(name, ""));
            assert!(!text.contains('@'), "{text}");
        }
    }
}
