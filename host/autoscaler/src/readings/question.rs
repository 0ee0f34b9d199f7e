//! What a rule asks.

use dormouse_metrics::template;
use dormouse_model::{GroupKind, ObjectRef, metric_name};
use dormouse_plugin::types::{MetricSource, Rule};

use crate::target::Target;
use crate::{CustomQuestion, Question};

/// Longest part of a query in texts for people.
const SHOWN: usize = 80;

pub(super) enum Call {
    Custom(CustomQuestion),
    Other(Question),
}

/// What to ask for a rule of a target; an error for what cannot be asked, none for observed traffic.
pub(super) fn call(
    target: &Target,
    rule: &Rule,
    metrics_resource: Option<&GroupKind>,
) -> Option<Result<Call, String>> {
    let namespace = target.key.namespace.clone();
    let object = &target.resource.object;
    let other = match &rule.source {
        MetricSource::ObservedTraffic => return None,
        MetricSource::Custom { name, selector } => {
            let (group, kind) = match metrics_resource {
                Some(resource) => (resource.group.clone(), resource.kind.clone()),
                None => {
                    let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
                    (group.to_owned(), object.kind.clone())
                }
            };
            return Some(Ok(Call::Custom(CustomQuestion {
                group,
                kind,
                namespace,
                metric: metric_name(name, rule.window),
                selector: selector.clone(),
            })));
        }
        MetricSource::External { name, selector } => Ok(Question::External {
            namespace,
            metric: name.clone(),
            selector: selector.clone(),
        }),
        MetricSource::Resource(resource) => workloads(target).map(|workloads| Question::Usage {
            namespace,
            workloads,
            resource: resource.clone(),
            window: rule.window,
        }),
        MetricSource::Prometheus { server, query } => {
            let query = template::expand(query, &namespace, &object.name, rule.window);
            query
                .map(|query| Question::Prometheus {
                    namespace,
                    server: server.clone(),
                    query,
                })
                .map_err(|error| error.to_string())
        }
        MetricSource::Pods(scrape) => workloads(target).map(|workloads| Question::Pods {
            namespace,
            workloads,
            scrape: scrape.clone(),
            window: rule.window,
        }),
        MetricSource::Other { kind, .. } => Err(format!(
            "this version of Dormouse does not know the reading {kind:?}"
        )),
    };
    Some(other.map(Call::Other))
}

fn workloads(target: &Target) -> Result<Vec<ObjectRef>, String> {
    if target.resource.workloads.is_empty() {
        return Err("its plugin names no workload, so nobody knows which pods are its own".to_owned());
    }
    Ok(target.resource.workloads.clone())
}

/// A source as metric label.
pub(super) fn label(source: &MetricSource) -> &'static str {
    match source {
        MetricSource::ObservedTraffic => "observed-traffic",
        MetricSource::Custom { .. } => "custom",
        MetricSource::External { .. } => "external",
        MetricSource::Resource(_) => "resource",
        MetricSource::Prometheus { .. } => "prometheus",
        MetricSource::Pods(_) => "pods",
        MetricSource::Other { .. } => "other",
    }
}

/// What is read, for people.
pub(super) fn describe(source: &MetricSource) -> String {
    match source {
        MetricSource::ObservedTraffic => "observed traffic".to_owned(),
        MetricSource::Custom { name, selector } => selected(name, selector.as_deref()),
        MetricSource::External { name, selector } => {
            format!("external {}", selected(name, selector.as_deref()))
        }
        MetricSource::Resource(resource) => format!("{resource} usage"),
        MetricSource::Prometheus { server, query } => {
            let flat = query.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut shown: String = flat.chars().take(SHOWN).collect();
            if flat.chars().nth(SHOWN).is_some() {
                shown.push('…');
            }
            format!("{shown} at Prometheus {server}")
        }
        MetricSource::Pods(scrape) => format!("{} of its pods", scrape.metric),
        MetricSource::Other { kind, .. } => kind.clone(),
    }
}

fn selected(name: &str, selector: Option<&str>) -> String {
    match selector {
        Some(selector) => format!("{name}{{{selector}}}"),
        None => name.to_owned(),
    }
}
