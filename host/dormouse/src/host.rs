//! What the autoscaler and the DLX start with: configuration, logs, the cluster, the plugins.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::routing::get;
use axum::{Json, Router};
use dormouse_kubernetes::Scope;
use dormouse_lifecycle::{Timings, TrafficCheckPolicy, Zero};
use dormouse_plugin::{
    ClusterServices, CompilerProcess, EngineConfig, HostEngine, LoadState, PluginConfig, PluginSet,
};
use dormouse_sleepers::Cluster;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::{AtZero, Common, File, Listen, Namespaced, Span};
use crate::{memory, output, process, telemetry};

/// How long a request is held unless somebody says otherwise. v3io's default.
const READINESS_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of memory of the compiler where no cgroup has a limit.
const UNLIMITED_COMPILER: u64 = 2 << 30;

/// What both processes run on.
pub struct Host {
    /// The shared options, merged.
    pub common: Common,
    /// The cluster with its reflectors.
    pub cluster: Cluster,
    /// The plugins.
    pub plugins: Arc<PluginSet>,
    /// Every metric of this process.
    pub registry: Registry,
    /// Cancelled by SIGTERM and SIGINT.
    pub shutdown: CancellationToken,
    /// Name of this process, for Leases and hop markers.
    pub identity: String,
}

impl Host {
    /// Starts everything that does not depend on the subcommand, whose name plugins hear.
    /// `None`: `shutdown` came first.
    ///
    /// # Errors
    /// What is missing, or does not answer in time.
    pub async fn start(
        subcommand: &'static str,
        common: Common,
        file: &File,
        ingresses: bool,
        shutdown: CancellationToken,
    ) -> Result<Option<Self>> {
        telemetry::start(common.log.as_deref(), common.log_format.unwrap_or_default())?;
        let starting = Self::starting(subcommand, common, file, ingresses, shutdown.clone());
        process::unless_asked_to_end(&shutdown, starting).await
    }

    async fn starting(
        subcommand: &'static str,
        common: Common,
        file: &File,
        ingresses: bool,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let mut registry = Registry::default();
        output::register(&mut registry);

        let client = dormouse_kubernetes::client(common.kubeconfig_path.as_deref()).await?;
        let config = dormouse_sleepers::Config {
            sleep_grants: Some(sleep_grants(file)),
            ..cluster_config(&common, ingresses)
        };
        tracing::info!(scope = ?config.scope, "connecting to the cluster");
        let cluster = Cluster::connect(client, config).await?;
        cluster.metrics().register(&mut registry);
        cluster.kubernetes_metrics().register(&mut registry);

        let plugins = load_plugins(subcommand, &common, file, &cluster, &mut registry)?;
        let identity = identity();
        Ok(Self {
            common,
            cluster,
            plugins,
            registry,
            shutdown,
            identity,
        })
    }

    /// Address of the admin endpoint.
    pub fn admin_address(&self) -> std::net::SocketAddr {
        self.common
            .admin_address
            .unwrap_or(Listen::port(9090))
            .on(self.bind_address())
    }

    /// Interface for every address that does not name one.
    pub fn bind_address(&self) -> std::net::IpAddr {
        self.common
            .bind_address
            .unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    /// `/plugins`: what was loaded and what was not.
    pub fn plugins_page(&self) -> Router {
        let plugins = Arc::clone(&self.plugins);
        Router::new().route(
            "/plugins",
            get(move || async move { Json(plugin_statuses(&plugins)) }),
        )
    }
}

/// What a ready process says of plugins that are still being loaded.
pub(crate) fn pending(plugins: &PluginSet) -> Option<String> {
    if plugins.is_settled() {
        return None;
    }
    Some(format!("plugins pending: {}", plugins.pending().join(", ")))
}

/// One plugin, as `/plugins` shows it.
#[derive(Serialize)]
struct PluginPage {
    name: String,
    /// `ready`, `loading` or `failed`.
    state: &'static str,
    generation: Option<u64>,
    digest: Option<String>,
    error: Option<String>,
    /// Functions whose last call failed.
    failing: Vec<FailingPage>,
    /// Functions that it imports and this host does not have.
    stubs: Vec<String>,
}

/// A function of a plugin whose last call failed, as `/plugins` shows it.
#[derive(Serialize)]
struct FailingPage {
    call: &'static str,
    times: u64,
    since: String,
    error: String,
}

fn plugin_statuses(plugins: &PluginSet) -> Vec<PluginPage> {
    plugins
        .statuses()
        .into_iter()
        .map(|status| {
            let (state, generation, digest, error) = match status.state {
                LoadState::Ready {
                    generation, digest, ..
                } => ("ready", Some(generation), Some(digest), None),
                LoadState::Loading => ("loading", None, None, None),
                LoadState::Failed { error } => ("failed", None, None, Some(error.to_string())),
            };
            let plugin = plugins.get(&status.name).filter(|_| digest.is_some());
            let failing = plugin.iter().flat_map(|plugin| plugin.failing());
            PluginPage {
                failing: failing
                    .map(|(call, failure)| FailingPage {
                        call: call.as_str(),
                        times: failure.times,
                        since: failure.since.to_string(),
                        error: failure.error.to_string(),
                    })
                    .collect(),
                stubs: plugin.map(|plugin| plugin.stubs().to_vec()).unwrap_or_default(),
                name: status.name,
                state,
                generation,
                digest,
                error,
            }
        })
        .collect()
}

/// What the shared options say about the cluster.
pub(crate) fn cluster_config(common: &Common, ingresses: bool) -> dormouse_sleepers::Config {
    let defaults = Timings::default();
    let dlx = common.dlx_service.clone().unwrap_or_else(|| Namespaced {
        namespace: "dormouse".to_owned(),
        name: "dormouse-dlx".to_owned(),
    });
    dormouse_sleepers::Config {
        scope: Scope::resolve(
            common.namespace.as_deref(),
            std::env::var("SCALER_NAMESPACE").ok().as_deref(),
        ),
        dlx_service: Some((dlx.namespace, dlx.name)),
        ports: common.dlx_ports.map(|ports| ports.0).unwrap_or_default(),
        timings: Timings {
            drain_grace: Span::or(common.drain_grace, defaults.drain_grace),
            outage_grace: Span::or(common.outage_grace, defaults.outage_grace),
            dlx_absence: Span::or(common.dlx_absence, defaults.dlx_absence),
            traffic_check: TrafficCheckPolicy {
                settle: Span::or(common.look_settle, defaults.traffic_check.settle),
                longest: Span::or(common.look_longest, defaults.traffic_check.longest),
            },
            ..defaults
        },
        readiness_timeout: Span::or(common.resource_readiness_timeout, READINESS_TIMEOUT),
        ingresses,
        at_zero: match common.at_zero {
            None | Some(AtZero::StandIn) => Zero::StandIn,
            Some(AtZero::Off) => Zero::Off,
        },
        own_pod: dormouse_kubernetes::own_pod(),
        ..dormouse_sleepers::Config::default()
    }
}

/// What each plugin may put to sleep.
fn sleep_grants(file: &File) -> BTreeMap<String, Vec<dormouse_sleepers::SleepGrant>> {
    let plugins = file.plugins.iter();
    plugins
        .map(|(name, config)| (name.clone(), config.grants.sleep_grants()))
        .collect()
}

/// How plugins run here: what the container has, and where compiled ones are kept.
pub(crate) fn engine_config(
    caller: &'static str,
    cache: Option<&Path>,
    plugins: &BTreeMap<String, PluginConfig>,
) -> Result<EngineConfig> {
    let mut config = EngineConfig {
        caller,
        ..EngineConfig::default()
    };
    // Outside of a container the machine is ours.
    let mut compiler = UNLIMITED_COMPILER;
    if let Some(container) = memory::of_container() {
        let parts = memory::divide(container, plugins)?;
        tracing::info!(
            container,
            calls = parts.calls,
            compiler = parts.compiler,
            "memory of the container, in bytes"
        );
        config.guest_memory = Some(usize::try_from(parts.calls).unwrap_or(usize::MAX));
        compiler = parts.compiler;
    }
    if let Some(cache) = cache {
        config.cache = Some(cache.to_owned());
        config.compiler = Some(compiler_process(compiler)?);
    }
    Ok(config)
}

/// This program, as a compiler.
fn compiler_process(memory: u64) -> Result<CompilerProcess> {
    Ok(CompilerProcess {
        program: std::env::current_exe().context("this program does not know where it is")?,
        arguments: vec!["plugin".to_owned(), "compile".to_owned()],
        memory,
    })
}

fn load_plugins(
    caller: &'static str,
    common: &Common,
    file: &File,
    cluster: &Cluster,
    registry: &mut Registry,
) -> Result<Arc<PluginSet>> {
    let places = common.plugins_dir.clone().unwrap_or_default();
    let metrics = dormouse_plugin::Metrics::register(registry);
    let engine = HostEngine::new(
        engine_config(caller, common.plugins_cache_dir.as_deref(), &file.plugins)?,
        metrics,
    )
    .context("the plugin engine cannot be started")?;
    let services = Arc::new(ClusterServices::new(cluster));
    let plugins = Arc::new(PluginSet::start(&engine, &places.0, &file.plugins, services));
    let settling = Arc::clone(&plugins);
    tokio::spawn(async move {
        settling.settled().await;
        if settling.plugins().is_empty() {
            tracing::warn!(places = %places, "no plugin is running; nothing will be put to sleep");
        }
    });
    Ok(plugins)
}

/// Name of this process among its siblings.
pub(crate) fn identity() -> String {
    std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| {
            // Unique on this machine, which is all that a process outside a cluster needs.
            format!("dormouse-{}", std::process::id())
        })
}
