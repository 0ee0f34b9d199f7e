//! A running line.

use std::sync::Arc;
use std::time::Duration;

use dormouse_autoscaler::{
    Autoscaler, Clock, Config, Metrics, PluginSource, ResourceScaler, Roster, Sleepers, Source, SourceError,
};
use dormouse_model::{ObjectRef, Owner, OwnerKind, Shards};
use dormouse_plugin::types::{MetricSource, Resource, ResourceId, ResourceState, Rule};
use dormouse_readings::{Limits, Readings, Upstream};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fakes::{Cluster, MetricsApi, Plugin, Start};

pub const MINUTE: Duration = Duration::from_secs(60);

pub fn deployment(name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: name.into(),
    }
}

pub fn custom(metric: &str, minutes: u32, threshold: &str) -> Rule {
    Rule {
        source: MetricSource::Custom {
            name: metric.into(),
            selector: None,
        },
        window: MINUTE * minutes,
        threshold: threshold.into(),
    }
}

pub fn observed(minutes: u32) -> Rule {
    Rule {
        source: MetricSource::ObservedTraffic,
        window: MINUTE * minutes,
        threshold: "0".into(),
    }
}

/// A Deployment behind a Service of its name.
pub fn resource(namespace: &str, name: &str, rules: Vec<Rule>) -> Resource {
    Resource {
        id: ResourceId::new(namespace, name),
        object: deployment(name),
        state: ResourceState::Awake,
        rules,
        scaling: None,
        last_event: None,
        workloads: vec![deployment(name)],
        services: vec![name.into()],
        readiness_timeout: None,
        restore_replicas: None,
        wake_at: None,
        reason: None,
        cookie: None,
        problem: None,
    }
}

pub fn error(code: &'static str) -> SourceError {
    SourceError {
        code,
        message: format!("it failed: {code}"),
    }
}

pub struct World {
    pub start: Start,
    pub cluster: Arc<Cluster>,
    pub api: Arc<MetricsApi>,
    pub config: Config,
    pub roster: Roster,
    pub registry: Registry,
    metrics: Metrics,
    reading_metrics: dormouse_readings::Metrics,
    pub limits: Limits,
    pub shards: watch::Sender<Shards>,
    pub shutdown: CancellationToken,
}

impl World {
    pub fn new() -> Self {
        let start = Start::now();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let reading_metrics = dormouse_readings::Metrics::register(&mut registry);
        let cluster = Cluster::new(start);
        let api = MetricsApi::new(&cluster.demand);
        Self {
            start,
            cluster,
            api,
            config: Config::default(),
            roster: Roster {
                complete: [OwnerKind::Plugin].into(),
                ..Roster::default()
            },
            registry,
            metrics,
            reading_metrics,
            limits: Limits {
                concurrency: 16,
                timeout: Duration::from_secs(10),
            },
            shards: watch::channel(Shards::all(1)).0,
            shutdown: CancellationToken::new(),
        }
    }

    pub fn plugin(&mut self, name: &str, resources: Vec<Resource>) -> Arc<Plugin> {
        self.roster.ready.insert(Owner::plugin(name));
        Plugin::new(name, &self.cluster, resources)
    }

    /// Starts the line; it ends with the handle's task or `shutdown`.
    pub fn run(&self, plugins: &[&Arc<Plugin>]) -> JoinHandle<()> {
        let sources = plugins
            .iter()
            .map(|plugin| self.source(plugin) as Arc<dyn Source>)
            .collect();
        self.run_sources(sources)
    }

    /// The same with other sources.
    pub fn run_sources(&self, sources: Vec<Arc<dyn Source>>) -> JoinHandle<()> {
        let start = self.start;
        let upstream = Arc::clone(&self.api) as Arc<dyn Upstream>;
        let readings = Readings::new(upstream, self.limits, self.reading_metrics.clone());
        let line = Autoscaler::new(
            self.config.clone(),
            sources,
            self.roster.clone(),
            Arc::clone(&self.cluster) as Arc<dyn Sleepers>,
            Arc::new(readings),
            self.metrics.clone(),
        );
        let line = line.with_clock(Clock::new(move || start.wall()));
        tokio::spawn(line.run(self.shards.subscribe(), self.shutdown.clone()))
    }

    fn source(&self, plugin: &Arc<Plugin>) -> Arc<PluginSource> {
        PluginSource::new(
            Arc::clone(plugin) as Arc<dyn ResourceScaler>,
            Arc::clone(&self.cluster) as Arc<dyn Sleepers>,
            self.config.overrides.clone(),
        )
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        let shards = if leads { Shards::all(1) } else { Shards::none() };
        self.shards.send_replace(shards);
    }

    /// The value of a metric line, by the text before it.
    pub fn metric(&self, line: &str) -> Option<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encoded");
        text.lines()
            .find_map(|known| known.strip_prefix(line).map(|value| value.trim().to_owned()))
    }
}

/// Lets time pass, step by step, so that every timer in between fires.
pub async fn pass(span: Duration) {
    let end = tokio::time::Instant::now() + span;
    tokio::time::sleep_until(end).await;
    // Whatever became ready at the very end.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub async fn minutes(count: u32) {
    pass(MINUTE * count).await;
}
