//! Plugins, the first source.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_model::{Owner, OwnerKind};
use dormouse_plugin::types::{Resource, ResourceId, ScaleOutcome, Settings};
use dormouse_plugin::{LoadState, Plugin, PluginError, PluginSet};
use dormouse_sleepers::{Cluster, Route};
use tokio::sync::watch;

use crate::meters::ClusterMeters;
use crate::{Autoscaler, Config, Metrics, Roster, Source, SourceError, Sources};

impl From<PluginError> for SourceError {
    fn from(error: PluginError) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
        }
    }
}

#[async_trait]
impl Source for Plugin {
    fn owner(&self) -> Owner {
        Owner::plugin(Plugin::name(self))
    }

    async fn settings(&self) -> Result<Settings, SourceError> {
        Ok(Plugin::settings(self).await?)
    }

    async fn resources(&self) -> Result<Vec<Resource>, SourceError> {
        Ok(Plugin::resources(self).await?)
    }

    async fn route(&self, resource: &Resource) -> Result<Option<Route>, SourceError> {
        let target = Plugin::service(self, &resource.id).await?;
        // An empty name leaves it to the host; a resource without Services is reached by one of its own name.
        let service = match (target.name.is_empty(), resource.services.first()) {
            (false, _) => target.name,
            (true, Some(first)) if target.port.is_some() => first.clone(),
            (true, Some(_)) => return Ok(None),
            (true, None) => resource.id.name.clone(),
        };
        Ok(Some(Route {
            service,
            port: target.port,
        }))
    }

    async fn set_scale(
        &self,
        resources: &[ResourceId],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        Ok(Plugin::set_scale(self, resources, replicas, reason).await?)
    }
}

impl Sources for PluginSet {
    fn ready(&self) -> Vec<Arc<dyn Source>> {
        let plugins = self.plugins().into_iter();
        plugins.map(|plugin| plugin as Arc<dyn Source>).collect()
    }

    fn roster(&self) -> Roster {
        Roster::of(self)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        PluginSet::changes(self)
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
            ready: plugins
                .plugins()
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
    /// The line from the plugins of a directory to a cluster. Each begins when it is ready.
    ///
    /// # Errors
    /// [`dormouse_metrics::ConfigError`] when the sources of metrics are not configured as they can be.
    pub fn of_plugins(
        config: Config,
        plugins: &Arc<PluginSet>,
        cluster: &Cluster,
        sources_of_metrics: &dormouse_metrics::Config,
        metrics: Metrics,
    ) -> Result<Self, dormouse_metrics::ConfigError> {
        let meters = ClusterMeters::new(cluster, sources_of_metrics, config.metric_timeout)?;
        Ok(Self::following(
            config,
            Arc::clone(plugins) as Arc<dyn Sources>,
            Arc::new(cluster.clone()),
            Arc::new(meters),
            metrics,
        ))
    }
}
