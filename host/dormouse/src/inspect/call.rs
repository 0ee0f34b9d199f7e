//! Calls a function of a plugin without a cluster: what it reads comes from files, and what it answers is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dormouse_model::{ObjectKey, format_duration};
use dormouse_plugin::types::{Goal, MetricSource, Resource, ResourceState, Rule, Scaling, Settings};
use dormouse_plugin::{
    EngineConfig, Grants, HostEngine, KubernetesGrant, LifecycleGrant, LoadState, Metrics, OfflineEvent,
    OfflineServices, Plugin, PluginConfig, PluginSet, Verb,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Options;
use super::question::{self, Asked};

/// Largest file with manifests.
const LARGEST: u64 = 64 << 20;

/// A function that only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Function {
    /// Of a resource-scaler: what it wants by default
    Settings,
    /// Of a resource-scaler: what it looks after
    Resources,
    /// Of an evaluator: how many replicas, for each of --questions
    Evaluate,
    /// Of a trigger: whether the parameters of each of --questions are right
    Check,
    /// Of a trigger: whether there is work, for each of --questions
    Observe,
}

/// The answer as text.
pub(super) async fn run(config: EngineConfig, options: &Options, function: Function) -> Result<String> {
    let mut objects = Vec::new();
    for file in &options.objects {
        objects.extend(read(file)?);
    }
    let services = Arc::new(OfflineServices::new(objects));
    let plugin = load(config, options, Arc::clone(&services)).await?;
    let mut answer = match function {
        Function::Settings => json!({ "settings": settings(&plugin.settings().await?) }),
        Function::Resources => {
            let resources = plugin.resources().await?;
            json!({ "resources": resources.iter().map(resource).collect::<Vec<_>>() })
        }
        Function::Evaluate => question::evaluate(&plugin, questions(options)?).await?,
        Function::Check => question::check(&plugin, questions(options)?).await?,
        Function::Observe => question::observe(&plugin, questions(options)?).await?,
    };
    let events: Vec<_> = services.events().iter().map(event).collect();
    if !events.is_empty() {
        answer["events"] = events.into();
    }
    Ok(if options.json {
        format!("{}\n", serde_json::to_string_pretty(&answer)?)
    } else {
        serde_yaml::to_string(&answer)?
    })
}

/// Every document of a file, and every item of a list in it.
fn read(file: &Path) -> Result<Vec<Value>> {
    let (shown, text) = (file.display(), text_of(file)?);
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut object = Value::deserialize(document).with_context(|| format!("{shown} is not YAML"))?;
        match object.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            _ if object.is_null() => {}
            _ => objects.push(object),
        }
    }
    for object in &objects {
        let has = |pointer: &str| object.pointer(pointer).is_some_and(Value::is_string);
        ensure!(
            has("/apiVersion") && has("/kind") && has("/metadata/name"),
            "{shown}: a document has no apiVersion, kind or metadata.name"
        );
    }
    Ok(objects)
}

fn questions(options: &Options) -> Result<Vec<Asked>> {
    let file = options.questions.as_deref();
    let file = file.context("write the questions into a file, and name it with --questions")?;
    question::read(&text_of(file)?).with_context(|| format!("{}", file.display()))
}

fn text_of(file: &Path) -> Result<String> {
    let shown = file.display();
    let size = std::fs::metadata(file)
        .with_context(|| format!("{shown} cannot be read"))?
        .len();
    ensure!(
        size <= LARGEST,
        "{shown} has {size} bytes, at most {LARGEST} are read"
    );
    std::fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))
}

/// With everything granted that may be read: which grants it needs on a cluster, the inspection says.
async fn load(
    config: EngineConfig,
    options: &Options,
    services: Arc<OfflineServices>,
) -> Result<Arc<Plugin>> {
    let file = &options.file;
    let name = file
        .file_stem()
        .context("the plugin has no name")?
        .to_string_lossy()
        .into_owned();
    let any = KubernetesGrant {
        api_version: "*".to_owned(),
        kind: "*".to_owned(),
        verbs: [Verb::Get, Verb::List].into(),
        namespaces: None,
        names: None,
    };
    let granted = PluginConfig {
        grants: Grants {
            kubernetes: vec![any],
            lifecycle: LifecycleGrant::EVERYTHING,
            events: true,
        },
        config: options.config.iter().cloned().collect(),
        time_zone: options.time_zone.clone(),
        ..PluginConfig::default()
    };
    let engine = HostEngine::new(config, Metrics::default())?;
    let configs = BTreeMap::from([(name.clone(), granted)]);
    let set = PluginSet::load_from(&engine, std::slice::from_ref(file), &configs, services).await;
    if let Some(plugin) = set.get(&name) {
        return Ok(plugin);
    }
    let failed = set.statuses().into_iter().find_map(|status| match status.state {
        LoadState::Failed { error } => Some(anyhow!("{} ({})", error, error.code())),
        LoadState::Ready { .. } | LoadState::Loading => None,
    });
    match failed.or_else(|| set.directory_error().map(Into::into)) {
        Some(error) => Err(error.context(format!("{} cannot be called", file.display()))),
        None => bail!("{} cannot be called", file.display()),
    }
}

/// Only what is said.
fn said(pairs: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let said = pairs
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(said.collect::<Map<_, _>>())
}

fn listed<T>(all: &[T], show: impl Fn(&T) -> Value) -> Option<Value> {
    (!all.is_empty()).then(|| all.iter().map(show).collect())
}

fn settings(settings: &Settings) -> Value {
    let span = |span: Option<std::time::Duration>| span.map(|span| format_duration(span).into());
    said([
        ("scaleInterval", span(settings.scale_interval)),
        (
            "metricsResource",
            settings
                .metrics_resource
                .as_ref()
                .map(|resource| json!({"group": resource.group, "kind": resource.kind})),
        ),
        (
            "targetNameHeader",
            settings.target_name_header.clone().map(Into::into),
        ),
        (
            "targetPathHeader",
            settings.target_path_header.clone().map(Into::into),
        ),
        ("targetPort", settings.target_port.map(Into::into)),
        ("readinessTimeout", span(settings.readiness_timeout)),
        (
            "multiTargetStrategy",
            settings
                .multi_target_strategy
                .map(|strategy| format!("{strategy:?}").to_lowercase().into()),
        ),
    ])
}

fn resource(resource: &Resource) -> Value {
    let object = |object: &dormouse_model::ObjectRef| json!(object);
    said([
        ("namespace", Some(resource.id.namespace.clone().into())),
        ("name", Some(resource.id.name.clone().into())),
        ("object", Some(object(&resource.object))),
        (
            "state",
            Some(
                match resource.state {
                    ResourceState::Awake => "awake",
                    ResourceState::Asleep => "asleep",
                    ResourceState::Changing => "changing",
                }
                .into(),
            ),
        ),
        ("problem", resource.problem.clone().map(Into::into)),
        ("rules", listed(&resource.rules, rule)),
        ("scaling", resource.scaling.as_ref().map(scaling)),
        ("workloads", listed(&resource.workloads, object)),
        (
            "services",
            listed(&resource.services, |service| service.clone().into()),
        ),
        (
            "lastEvent",
            resource.last_event.map(|event| match event.at {
                Some(at) => format!("{} at {at}", event.kind).into(),
                None => event.kind.to_string().into(),
            }),
        ),
        (
            "readinessTimeout",
            resource
                .readiness_timeout
                .map(|span| format_duration(span).into()),
        ),
        ("restoreReplicas", resource.restore_replicas.map(Into::into)),
        ("wakeAt", resource.wake_at.map(|at| at.to_string().into())),
        ("reason", resource.reason.clone().map(Into::into)),
        ("cookie", resource.cookie.clone().map(Into::into)),
    ])
}

fn rule(rule: &Rule) -> Value {
    said([
        ("source", Some(source(&rule.source))),
        ("window", Some(format_duration(rule.window).into())),
        ("threshold", Some(rule.threshold.clone().into())),
    ])
}

fn scaling(scaling: &Scaling) -> Value {
    said([
        ("minReplicas", Some(scaling.min_replicas.into())),
        ("maxReplicas", Some(scaling.max_replicas.into())),
        ("goals", listed(&scaling.goals, goal)),
        (
            "behavior",
            scaling.behavior.as_ref().map(|behavior| json!(behavior)),
        ),
    ])
}

fn goal(goal: &Goal) -> Value {
    said([
        ("source", Some(source(&goal.source))),
        ("window", goal.window.map(|window| format_duration(window).into())),
        ("target", Some(goal.target.to_string().into())),
    ])
}

fn source(source: &MetricSource) -> Value {
    match source {
        MetricSource::ObservedTraffic => "observed-traffic".into(),
        MetricSource::DlxConcurrency => "dlx-concurrency".into(),
        MetricSource::DlxRate => "dlx-rate".into(),
        MetricSource::Custom { name, selector } => json!({"custom": name, "selector": selector}),
        MetricSource::External { name, selector } => json!({"external": name, "selector": selector}),
        MetricSource::Resource(name) => json!({ "resource": name }),
        MetricSource::Prometheus { server, query } => json!({"prometheus": server, "query": query}),
        MetricSource::Pods(scrape) => json!({
            "pods": scrape.metric, "port": scrape.port, "path": scrape.path, "labels": scrape.labels,
        }),
        MetricSource::Given { name, value } => json!({"given": name, "value": value}),
        MetricSource::Other { kind, parameters } => json!({"other": kind, "parameters": parameters}),
    }
}

fn event(event: &OfflineEvent) -> Value {
    let ObjectKey {
        kind,
        namespace,
        name,
        ..
    } = &event.regarding;
    let namespace = namespace.as_deref().unwrap_or_default();
    json!({
        "on": format!("{kind} {namespace}/{name}"),
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "message": event.message,
    })
}
