//! Plugins, the first source.

mod routes;
mod source;
mod translate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dormouse_model::{Owner, OwnerKind, Routing};
use dormouse_plugin::types::{Resource, ResourceHandle, ScaleOutcome, Settings};
use dormouse_plugin::{LoadState, Plugin, PluginError, PluginSet};
use dormouse_readings::{ClusterUpstream, ConfigError, Limits, Readings};
use dormouse_sleepers::Cluster;
use tokio::sync::watch;

use crate::cluster::ClusterSleepers;
use crate::{Autoscaler, Config, Metrics, Overrides, Roster, Sleepers, Source, SourceError, Sources};
pub use source::PluginSource;
pub use translate::target;

/// What the line calls of a plugin.
#[async_trait]
pub trait ResourceScaler: Send + Sync + 'static {
    /// Who it is.
    fn owner(&self) -> Owner;

    /// Defaults that suit its platform.
    async fn settings(&self) -> Result<Settings, SourceError>;

    /// Every resource that it looks after. An error says nothing about any of them.
    async fn resources(&self) -> Result<Vec<Resource>, SourceError>;

    /// Where requests go that name a resource and no Service.
    async fn route(&self, resource: &Resource) -> Result<Routing, SourceError>;

    /// Scales resources; one outcome for each, in their order.
    async fn set_scale(
        &self,
        resources: &[ResourceHandle],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError>;
}

impl From<PluginError> for SourceError {
    fn from(error: PluginError) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
        }
    }
}

#[async_trait]
impl ResourceScaler for Plugin {
    fn owner(&self) -> Owner {
        Owner::plugin(Plugin::name(self))
    }

    async fn settings(&self) -> Result<Settings, SourceError> {
        Ok(Plugin::settings(self).await?)
    }

    async fn resources(&self) -> Result<Vec<Resource>, SourceError> {
        Ok(Plugin::resources(self).await?)
    }

    async fn route(&self, resource: &Resource) -> Result<Routing, SourceError> {
        let handle = ResourceHandle {
            id: resource.id.clone(),
            cookie: resource.cookie.clone(),
        };
        let target = Plugin::service(self, &handle).await?;
        // An empty name leaves it to the host; a resource without Services is reached by one of its own name.
        let service = match (target.name.is_empty(), resource.services.first()) {
            (false, _) => target.name,
            (true, Some(first)) if target.port.is_some() => first.clone(),
            (true, Some(_)) => return Ok(Routing::First),
            (true, None) => resource.id.name.clone(),
        };
        Ok(Routing::To {
            service,
            port: target.port,
        })
    }

    async fn set_scale(
        &self,
        resources: &[ResourceHandle],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        Ok(Plugin::set_scale(self, resources, replicas, reason).await?)
    }
}

/// The plugins of a directory as sources, and those that are built in.
struct Plugins {
    built_in: Vec<Arc<dyn Source>>,
    set: Arc<PluginSet>,
    sleepers: Arc<dyn Sleepers>,
    overrides: Overrides,
    /// One for each plugin, as long as the process lives.
    sources: Mutex<BTreeMap<Owner, Arc<PluginSource>>>,
}

impl Sources for Plugins {
    fn ready(&self) -> Vec<Arc<dyn Source>> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for plugin in self.set.scalers() {
            sources.entry(ResourceScaler::owner(&*plugin)).or_insert_with(|| {
                PluginSource::new(plugin, Arc::clone(&self.sleepers), self.overrides.clone())
            });
        }
        let ready = sources
            .values()
            .map(|source| Arc::clone(source) as Arc<dyn Source>);
        ready.chain(self.built_in.iter().cloned()).collect()
    }

    fn roster(&self) -> Roster {
        Roster::of(&self.set).with_built_in(&self.built_in)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.set.changes()
    }
}

impl Roster {
    /// What a plugins directory holds.
    pub fn of(plugins: &PluginSet) -> Self {
        let failed = plugins
            .statuses()
            .into_iter()
            .filter_map(|status| match status.state {
                LoadState::Failed { error } => Some((Owner::plugin(status.name), error.into())),
                LoadState::Ready { .. } | LoadState::Loading => None,
            });
        Self {
            // What became another kind of plugin has no resources any more.
            ready: plugins
                .scalers()
                .iter()
                .map(|plugin| Owner::plugin(plugin.name()))
                .collect(),
            failed: failed.collect(),
            complete: (plugins.directory_error().is_none() && plugins.is_settled())
                .then_some(OwnerKind::Plugin)
                .into_iter()
                .collect(),
        }
    }
}

impl Autoscaler {
    /// The line from the plugins of a directory, and from the sources that are built in, to a cluster. Each plugin begins when it is ready.
    ///
    /// # Errors
    /// [`ConfigError`] when the sources of metrics are not configured as they can be.
    pub fn of_plugins(
        config: Config,
        plugins: &Arc<PluginSet>,
        built_in: Vec<Arc<dyn Source>>,
        cluster: &Cluster,
        sources_of_metrics: &dormouse_readings::Config,
        metrics: Metrics,
        reading_metrics: dormouse_readings::Metrics,
    ) -> Result<Self, ConfigError> {
        let upstream = Arc::new(ClusterUpstream::new(cluster, sources_of_metrics)?);
        let limits = Limits {
            concurrency: sources_of_metrics.concurrency,
            timeout: sources_of_metrics.timeout,
        };
        let sleepers: Arc<dyn Sleepers> = Arc::new(ClusterSleepers::new(cluster));
        let sources = Plugins {
            built_in,
            set: Arc::clone(plugins),
            sleepers: Arc::clone(&sleepers),
            overrides: config.overrides.clone(),
            sources: Mutex::default(),
        };
        Ok(Self::following(
            config,
            Arc::new(sources),
            sleepers,
            Arc::new(Readings::new(upstream, limits, reading_metrics)),
            metrics,
        ))
    }
}
