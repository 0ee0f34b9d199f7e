//! Plugins, the first source.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_kubernetes::Cluster;
use dormouse_plugin::types::{Resource, ResourceId, ScaleOutcome, Settings};
use dormouse_plugin::{LoadState, Plugin, PluginError, PluginSet};

use crate::cluster::MetricsOf;
use crate::{Autoscaler, Config, Metrics, Roster, Source, SourceError};

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
    fn name(&self) -> &str {
        Plugin::name(self)
    }

    async fn settings(&self) -> Result<Settings, SourceError> {
        Ok(Plugin::settings(self).await?)
    }

    async fn resources(&self) -> Result<Vec<Resource>, SourceError> {
        Ok(Plugin::resources(self).await?)
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

impl Roster {
    /// What a plugins directory holds.
    pub fn of(plugins: &PluginSet) -> Self {
        let failed = plugins
            .statuses()
            .into_iter()
            .filter_map(|status| match status.state {
                LoadState::Failed { error } => Some((status.name, error.into())),
                LoadState::Ready { .. } => None,
            });
        Self {
            ready: plugins
                .plugins()
                .iter()
                .map(|plugin| plugin.name().to_owned())
                .collect(),
            failed: failed.collect(),
            complete: plugins.directory_error().is_none(),
        }
    }
}

impl Autoscaler {
    /// The line from the plugins of a directory to a cluster.
    pub fn of_plugins(config: Config, plugins: &PluginSet, cluster: &Cluster, metrics: Metrics) -> Self {
        let sources = plugins
            .plugins()
            .into_iter()
            .map(|plugin| plugin as Arc<dyn Source>)
            .collect();
        let custom = MetricsOf {
            cluster: cluster.clone(),
            timeout: config.metric_timeout,
        };
        let roster = Roster::of(plugins);
        Self::new(
            config,
            sources,
            roster,
            Arc::new(cluster.clone()),
            Arc::new(custom),
            metrics,
        )
    }
}
