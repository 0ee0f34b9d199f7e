//! From what a plugin says about a resource to a target.

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{
    GroupKind, ObjectRef, Owner, Policy, Quantity, Query, QuerySource, Routing, Scale, Target, TargetKey,
    TargetState, Trigger, metric_name,
};
use dormouse_plugin::types::{MetricSource, Resource, ResourceState, Rule};
use dormouse_readings::template;

use crate::Effective;
use crate::key::sleeper_key;

/// Longest part of a query in texts for people.
const SHOWN: usize = 80;

/// A resource of a plugin as a target.
pub(super) fn target(owner: &Owner, resource: Resource, routing: Routing, effective: &Effective) -> Target {
    let key = TargetKey {
        owner: owner.clone(),
        namespace: resource.id.namespace.clone(),
        name: resource.id.name.clone(),
    };
    let triggers = resource
        .rules
        .iter()
        .map(|rule| trigger(&key, &resource, rule, effective.metrics_resource.as_ref()));
    Target {
        triggers: triggers.collect(),
        key,
        object: resource.object,
        state: match resource.state {
            ResourceState::Awake => TargetState::Awake,
            ResourceState::Asleep => TargetState::Asleep,
            ResourceState::Changing => TargetState::Changing,
        },
        // Without workloads and Services of its own its platform scales it.
        scale: if resource.workloads.is_empty() && resource.services.is_empty() {
            Scale::Platform
        } else {
            Scale::Workloads(resource.workloads)
        },
        wake_on: resource.services,
        routing,
        policy: Policy::Idle,
        every: effective.scale_interval,
        last_event: resource.last_event,
        readiness_timeout: resource.readiness_timeout,
        restore_replicas: resource.restore_replicas,
        problem: resource.problem,
    }
}

fn trigger(
    key: &TargetKey,
    resource: &Resource,
    rule: &Rule,
    metrics_resource: Option<&GroupKind>,
) -> Trigger {
    let threshold = rule.threshold.parse::<Quantity>();
    let query = match &threshold {
        Ok(threshold) => query(key, resource, rule, *threshold, metrics_resource),
        Err(error) => Err(format!("the threshold is wrong: {error}")),
    };
    Trigger {
        name: describe(&rule.source),
        source: source(&rule.source),
        query: query.map(Arc::new),
        window: rule.window,
        threshold: threshold.unwrap_or(Quantity::ZERO),
    }
}

/// What to ask for a rule; an error for what cannot be asked.
fn query(
    key: &TargetKey,
    resource: &Resource,
    rule: &Rule,
    threshold: Quantity,
    metrics_resource: Option<&GroupKind>,
) -> Result<Query, String> {
    let namespace = key.namespace.clone();
    let object = &resource.object;
    let window = rule.window;
    Ok(match &rule.source {
        MetricSource::ObservedTraffic => {
            if !threshold.is_zero() {
                return Err("the threshold of observed traffic must be 0".to_owned());
            }
            if resource.services.is_empty() {
                return Err("it has no Service whose traffic could be observed".to_owned());
            }
            Query::Traffic {
                sleeper: sleeper_key(key).object_name(),
                namespace,
                window,
                since: None,
            }
        }
        MetricSource::Custom { name, selector } => {
            let (group, kind) = match metrics_resource {
                Some(resource) => (resource.group.clone(), resource.kind.clone()),
                None => (object.group().to_owned(), object.kind.clone()),
            };
            // Metrics of the resource's own object go by its name; metrics of another kind by the resource's.
            let object = if kind == object.kind {
                &object.name
            } else {
                &key.name
            };
            Query::Custom {
                group,
                kind,
                namespace,
                metric: metric_name(name, window),
                selector: selector.clone(),
                object: object.clone(),
            }
        }
        MetricSource::External { name, selector } => Query::External {
            namespace,
            metric: name.clone(),
            selector: selector.clone(),
        },
        MetricSource::Resource(measured) => Query::Usage {
            namespace,
            workloads: workloads(resource)?,
            resource: measured.clone(),
            window,
        },
        MetricSource::Prometheus { server, query } => Query::Prometheus {
            query: expand(query, &namespace, &object.name, window)?,
            namespace,
            server: server.clone(),
        },
        MetricSource::Pods(scrape) => Query::Pods {
            namespace,
            workloads: workloads(resource)?,
            scrape: scrape.clone(),
            window,
        },
        MetricSource::Other { kind, .. } => {
            return Err(format!(
                "this version of Dormouse does not know the reading {kind:?}"
            ));
        }
    })
}

fn expand(query: &str, namespace: &str, name: &str, window: Duration) -> Result<String, String> {
    template::expand(query, namespace, name, window).map_err(|error| error.to_string())
}

fn workloads(resource: &Resource) -> Result<Vec<ObjectRef>, String> {
    if resource.workloads.is_empty() {
        return Err("its plugin names no workload, so nobody knows which pods are its own".to_owned());
    }
    Ok(resource.workloads.clone())
}

fn source(source: &MetricSource) -> QuerySource {
    match source {
        MetricSource::ObservedTraffic => QuerySource::ObservedTraffic,
        MetricSource::Custom { .. } => QuerySource::Custom,
        MetricSource::External { .. } => QuerySource::External,
        MetricSource::Resource(_) => QuerySource::Resource,
        MetricSource::Prometheus { .. } => QuerySource::Prometheus,
        MetricSource::Pods(_) => QuerySource::Pods,
        MetricSource::Other { .. } => QuerySource::Other,
    }
}

/// What is read, for people.
fn describe(source: &MetricSource) -> String {
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
