//! Dormouse on an embedded Kubernetes: for the demo, for plugin authors and for the lifecycle suite.
//!
//! The autoscaler and the DLX run as pods of that cluster, which here means as processes of this very binary. They
//! find everything as they would in a real cluster: a kubeconfig, Services, EndpointSlices, readiness probes.

mod manifests;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dormouse_embedded::EmbeddedCluster;
use dormouse_sources::memhpa;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use tempfile::TempDir;

pub use self::manifests::{labels_of, workload};
use crate::output;

/// Where Dormouse itself runs.
pub const SYSTEM_NAMESPACE: &str = "dormouse";
/// Where the demo's workloads run.
pub const DEMO_NAMESPACE: &str = "demo";
/// The demo's workloads; each has a Service of its name.
pub const DEMO_WORKLOADS: [&str; 3] = ["web", "api", "reports"];

const PATIENCE: Duration = Duration::from_secs(60);
/// Lines that may wait to be written.
const LOG_BACKLOG: usize = 10_000;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Components for the plugins directory.
    pub plugins: Vec<PathBuf>,
    /// Configuration keys of plugins, by name of the plugin.
    pub plugin_config: BTreeMap<String, BTreeMap<String, String>>,
    /// More Kubernetes grants, beyond what every plugin gets: (apiVersion, kind, verbs).
    pub more_grants: Vec<(String, String, Vec<String>)>,
    /// Where both processes log. None: a temporary directory.
    pub logs: Option<PathBuf>,
    /// The `dormouse` binary. None: the running one.
    pub binary: Option<PathBuf>,
    /// Whether to create the demo's workloads.
    pub workloads: bool,
    /// Manifests to apply before Dormouse starts, such as the CRDs that a plugin reads.
    pub manifests: String,
    /// Whether to look after MemHpas.
    pub memhpa: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plugins: Vec::new(),
            plugin_config: BTreeMap::new(),
            more_grants: Vec::new(),
            logs: None,
            binary: None,
            workloads: true,
            manifests: String::new(),
            memhpa: false,
        }
    }
}

/// A running installation.
pub struct Local {
    cluster: EmbeddedCluster,
    directory: TempDir,
    logs: PathBuf,
    plugins: std::sync::OnceLock<Vec<(String, String)>>,
}

impl Local {
    /// Starts the cluster and Dormouse on it, and waits until both are ready.
    ///
    /// # Errors
    /// When something cannot be started; the message says what, and where its log is.
    pub async fn start(options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("dormouse-").tempdir()?;
        let logs = options
            .logs
            .clone()
            .unwrap_or_else(|| directory.path().join("logs"));
        std::fs::create_dir_all(&logs).with_context(|| format!("{} cannot be created", logs.display()))?;

        let plugins = directory.path().join("plugins");
        std::fs::create_dir(&plugins)?;
        for file in &options.plugins {
            let name = file
                .file_name()
                .with_context(|| format!("{} is not a file", file.display()))?;
            std::fs::copy(file, plugins.join(name))
                .with_context(|| format!("{} cannot be read", file.display()))?;
        }

        let cluster = EmbeddedCluster::start(dormouse_embedded::Options {
            output: Some(log_to(logs.clone())),
            ..dormouse_embedded::Options::default()
        })
        .await
        .context("the embedded cluster cannot be started")?;
        let local = Self {
            cluster,
            directory,
            logs,
            plugins: std::sync::OnceLock::new(),
        };
        if let Err(error) = local.install(&options, &plugins).await {
            local.keep_logs();
            let logs = local.logs.display().to_string();
            local.stop().await;
            return Err(error.context(format!("Dormouse did not start; its logs are in {logs}")));
        }
        Ok(local)
    }

    async fn install(&self, options: &Options, plugins: &Path) -> Result<()> {
        let kubeconfig = self.kubeconfig();
        self.cluster.write_kubeconfig(&kubeconfig)?;
        let client = self.client().await?;
        dormouse_sleepers::crd::install(&client, "dormouse-demo", PATIENCE).await?;
        if options.memhpa {
            self.cluster.apply_yaml(&memhpa::yaml()?)?;
        }
        if !options.manifests.is_empty() {
            self.cluster.apply_yaml(&options.manifests)?;
        }
        std::fs::write(self.config_file(), manifests::config_file(options))?;
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe().context("the running binary cannot be found")?,
        };
        let common = vec![
            "--config".to_owned(),
            self.config_file().display().to_string(),
            "--kubeconfig-path".to_owned(),
            kubeconfig.display().to_string(),
            "--plugins-dir".to_owned(),
            plugins.display().to_string(),
        ];
        self.cluster.apply_yaml(&manifests::system(&binary, &common))?;
        if options.workloads {
            self.cluster.apply_yaml(&manifests::workloads())?;
        }
        let mut wanted = ["dormouse-autoscaler", "dormouse-dlx"]
            .map(|part| (SYSTEM_NAMESPACE, part))
            .to_vec();
        if options.workloads {
            wanted.extend(DEMO_WORKLOADS.map(|name| (DEMO_NAMESPACE, name)));
        }
        for (namespace, name) in wanted {
            self.until_available(&client, namespace, name).await?;
        }
        self.plugins().await?;
        Ok(())
    }

    async fn until_available(&self, client: &kube::Client, namespace: &str, name: &str) -> Result<()> {
        let api = Api::<Deployment>::namespaced(client.clone(), namespace);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let deployment = api.get(name).await?;
            let wanted = deployment.spec.replicas.unwrap_or(1);
            let ready = deployment
                .status
                .as_ref()
                .and_then(|status| status.ready_replicas)
                .unwrap_or(0);
            if ready >= wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "{namespace}/{name} has {ready} of {wanted} pods ready after {} s",
                    PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &EmbeddedCluster {
        &self.cluster
    }

    /// A client of the cluster.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        dormouse_kubernetes::client(Some(&self.kubeconfig()))
            .await
            .context("no client for the embedded cluster")
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    fn config_file(&self) -> PathBuf {
        self.directory.path().join("dormouse.yaml")
    }

    /// Where the logs are.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Leaves the logs behind when this ends.
    pub fn keep_logs(&self) {
        let Ok(kept) = tempfile::Builder::new().prefix("dormouse-logs-").tempdir() else {
            return;
        };
        if self.logs.starts_with(self.directory.path()) {
            let kept = kept.keep();
            for entry in std::fs::read_dir(&self.logs).into_iter().flatten().flatten() {
                let _ = std::fs::copy(entry.path(), kept.join(entry.file_name()));
            }
            output::complain(&format!("logs kept in {}", kept.display()));
        }
    }

    /// Name and digest of the plugins that the autoscaler runs, as it says itself, as soon as it runs them all: it serves before.
    ///
    /// # Errors
    /// When it cannot be asked, or a plugin could not be loaded.
    pub async fn plugins(&self) -> Result<Vec<(String, String)>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(plugins) = self.loaded().await? {
                let _ = self.plugins.set(plugins.clone());
                return Ok(plugins);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("plugins are still being loaded after {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The same; none while one is still being loaded.
    async fn loaded(&self) -> Result<Option<Vec<(String, String)>>> {
        #[derive(Deserialize)]
        struct Status {
            name: String,
            digest: Option<String>,
            error: Option<String>,
        }
        let pods = Api::<Pod>::namespaced(self.client().await?, SYSTEM_NAMESPACE)
            .list(&ListParams::default().labels(&labels_of("dormouse-autoscaler")))
            .await?;
        let address = pods
            .items
            .first()
            .and_then(|pod| pod.status.as_ref()?.pod_ip.clone())
            .context("the autoscaler has no address")?;
        let answer = crate::requests::fetch(&format!("http://{address}:{ADMIN_PORT}/plugins")).await?;
        let statuses: Vec<Status> =
            serde_json::from_str(&answer).context("the autoscaler's /plugins is not as expected")?;
        let mut plugins = Vec::new();
        for status in statuses {
            match (status.digest, status.error) {
                (Some(digest), None) => plugins.push((status.name, digest)),
                (None, None) => return Ok(None),
                (_, Some(error)) => bail!("plugin {} is not running: {error}", status.name),
            }
        }
        Ok(Some(plugins))
    }

    /// The plugins of the last call of [`Local::plugins`].
    pub fn plugins_seen(&self) -> &[(String, String)] {
        self.plugins.get().map_or(&[], Vec::as_slice)
    }

    /// Commands to look inside.
    pub fn hints(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig().display().to_string();
        vec![
            format!("kubectl --kubeconfig {kubeconfig} get sleepers -n {DEMO_NAMESPACE} --watch"),
            format!("tail -f {}/*.log", self.logs.display()),
        ]
    }

    /// Ends every process and the cluster.
    pub async fn stop(self) {
        self.cluster.shutdown().await;
    }
}

const ADMIN_PORT: u16 = 9090;

/// Writes what processes print to one file for each pod. The cluster must not be kept waiting, so a thread writes.
fn log_to(directory: PathBuf) -> dormouse_embedded::OutputSink {
    let (lines, written) = std::sync::mpsc::sync_channel::<dormouse_embedded::OutputLine>(LOG_BACKLOG);
    std::thread::spawn(move || {
        let mut files: BTreeMap<String, std::fs::File> = BTreeMap::new();
        while let Ok(line) = written.recv() {
            let name = format!("{}.log", line.pod);
            let file = match files.entry(line.pod) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(closed) => {
                    match std::fs::File::create(directory.join(name)) {
                        Ok(file) => closed.insert(file),
                        Err(error) => {
                            output::complain(&format!("a log cannot be written: {error}"));
                            return;
                        }
                    }
                }
            };
            // A full disk costs the log, not the demo.
            let _ = writeln!(file, "{}", line.text);
        }
    });
    std::sync::Arc::new(move |line| {
        // A line that does not fit is dropped: the process is not to be slowed down by its log.
        let _ = lines.try_send(line.clone());
    })
}
