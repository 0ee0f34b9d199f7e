//! From what a plugin says about a resource to a target.

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{
    DescribedObject, ExternalMetric, GroupKind, Metric, MetricIdentifier, MetricSpec, MetricTarget,
    MetricsPolicy, ObjectMetric, ObjectRef, Owner, PodsMetric, Policy, Quantity, QuantityError, Query,
    QuerySource, ResourceMetric, Routing, Scale, Target, TargetKey, TargetState, Trigger, metric_name,
};
use dormouse_plugin::types::{Goal, MetricSource, Resource, ResourceState, Rule, Scaling};
use dormouse_readings::template;

use crate::Effective;
use crate::key::sleeper_key;

/// Longest part of a query in texts for people.
const SHOWN: usize = 80;
/// The longest time between two decisions about a number of replicas: that of a HorizontalPodAutoscaler.
const METRICS_INTERVAL: Duration = Duration::from_secs(15);
/// How far back the reading of a goal looks that does not say.
const GOAL_WINDOW: Duration = Duration::from_secs(60);

/// A resource of a plugin as a target.
pub(super) fn target(owner: &Owner, resource: Resource, routing: Routing, effective: &Effective) -> Target {
    let key = TargetKey {
        owner: owner.clone(),
        namespace: resource.id.namespace.clone(),
        name: resource.id.name.clone(),
    };
    let asker = Asker {
        key: &key,
        resource: &resource,
        metrics_resource: effective.metrics_resource.as_ref(),
    };
    let triggers = resource.rules.iter().map(|rule| asker.trigger(rule)).collect();
    let policy = match &resource.scaling {
        Some(scaling) => Policy::Metrics(Arc::new(asker.policy(scaling))),
        None => Policy::Idle,
    };
    let every = match policy {
        Policy::Idle => effective.scale_interval,
        Policy::Metrics(_) | Policy::Memory(_) => effective.scale_interval.min(METRICS_INTERVAL),
    };
    Target {
        triggers,
        key,
        object: resource.object,
        has_sleeper: true,
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
        policy,
        every,
        last_event: resource.last_event,
        readiness_timeout: resource.readiness_timeout,
        restore_replicas: resource.restore_replicas,
        wake_at: resource.wake_at,
        reason: resource.reason,
        cookie: resource.cookie,
        problem: resource.problem,
    }
}

/// Turns what a resource names into questions.
struct Asker<'a> {
    key: &'a TargetKey,
    resource: &'a Resource,
    metrics_resource: Option<&'a GroupKind>,
}

impl Asker<'_> {
    fn trigger(&self, rule: &Rule) -> Trigger {
        let threshold = rule.threshold.parse::<Quantity>();
        let query = match &threshold {
            Ok(threshold) => self.query(rule, *threshold),
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

    fn policy(&self, scaling: &Scaling) -> MetricsPolicy {
        MetricsPolicy {
            min_replicas: scaling.min_replicas,
            max_replicas: scaling.max_replicas,
            metrics: scaling.goals.iter().map(|goal| self.metric(goal)).collect(),
            behavior: scaling.behavior.clone(),
        }
    }

    fn metric(&self, goal: &Goal) -> Metric {
        let spec = metric_spec(self.resource, goal);
        let (spec, query) = match spec {
            Ok(spec) => (spec, self.goal_query(goal).map(Arc::new)),
            // It takes part, and says why it cannot be read.
            Err(why) => (unreadable(goal), Err(why)),
        };
        Metric {
            spec,
            source: source(&goal.source),
            query,
        }
    }

    /// What to ask for a rule; an error for what cannot be asked.
    fn query(&self, rule: &Rule, threshold: Quantity) -> Result<Query, String> {
        let window = rule.window;
        match &rule.source {
            MetricSource::ObservedTraffic => {
                if !threshold.is_zero() {
                    return Err("the threshold of observed traffic must be 0".to_owned());
                }
                if self.resource.services.is_empty() {
                    return Err("it has no Service whose traffic could be observed".to_owned());
                }
                Ok(Query::Traffic {
                    sleeper: sleeper_key(self.key).object_name(),
                    namespace: self.key.namespace.clone(),
                    window,
                    since: None,
                })
            }
            MetricSource::DlxConcurrency => Err(
                "dlx-concurrency says how many replicas there should be, not whether nobody needs any; \
                 observed-traffic does"
                    .to_owned(),
            ),
            MetricSource::Custom { name, selector } => Ok(self.custom(metric_name(name, window), selector)),
            other => self.plain_query(other, window),
        }
    }

    /// What to ask for a goal; an error for what cannot be asked.
    fn goal_query(&self, goal: &Goal) -> Result<Query, String> {
        match &goal.source {
            MetricSource::ObservedTraffic => Err(
                "observed-traffic says whether nobody needs it, not how many replicas it needs; dlx-concurrency does"
                    .to_owned(),
            ),
            MetricSource::DlxConcurrency => Ok(Query::Concurrency {
                namespace: self.key.namespace.clone(),
                sleeper: sleeper_key(self.key).object_name(),
            }),
            MetricSource::Custom { name, selector } => {
                let name = goal
                    .window
                    .map_or_else(|| name.clone(), |window| metric_name(name, window));
                Ok(self.custom(name, selector))
            }
            other => self.plain_query(other, goal.window.unwrap_or(GOAL_WINDOW)),
        }
    }

    /// What is asked in the same way for rules and for goals.
    fn plain_query(&self, source: &MetricSource, window: Duration) -> Result<Query, String> {
        let namespace = self.key.namespace.clone();
        Ok(match source {
            MetricSource::External { name, selector } => Query::External {
                namespace,
                metric: name.clone(),
                selector: selector.clone(),
            },
            MetricSource::Resource(measured) => Query::Usage {
                namespace,
                workloads: workloads(self.resource)?,
                resource: measured.clone(),
                window,
            },
            MetricSource::Prometheus { server, query } => Query::Prometheus {
                query: expand(query, &namespace, &self.resource.object.name, window)?,
                namespace,
                server: server.clone(),
            },
            MetricSource::Pods(scrape) => Query::Pods {
                namespace,
                workloads: workloads(self.resource)?,
                scrape: scrape.clone(),
                window,
            },
            MetricSource::Given { value, .. } => Query::Given(
                value
                    .parse()
                    .map_err(|error: QuantityError| format!("the reading is wrong: {error}"))?,
            ),
            MetricSource::Other { kind, .. } => {
                return Err(format!(
                    "this version of Dormouse does not know the reading {kind:?}"
                ));
            }
            MetricSource::ObservedTraffic | MetricSource::DlxConcurrency | MetricSource::Custom { .. } => {
                return Err("it is asked for in another way".to_owned());
            }
        })
    }

    /// The complete name of a custom metric, for the kind that it describes.
    fn custom(&self, metric: String, selector: &Option<String>) -> Query {
        let object = &self.resource.object;
        let (group, kind) = match self.metrics_resource {
            Some(resource) => (resource.group.clone(), resource.kind.clone()),
            None => (object.group().to_owned(), object.kind.clone()),
        };
        // Metrics of the resource's own object go by its name; metrics of another kind by the resource's.
        let name = if kind == object.kind {
            &object.name
        } else {
            &self.key.name
        };
        Query::Custom {
            object: name.clone(),
            group,
            kind,
            namespace: self.key.namespace.clone(),
            metric,
            selector: selector.clone(),
        }
    }
}

/// A goal as a HorizontalPodAutoscaler would declare it. What that has no word for counts as an external metric: one number.
fn metric_spec(resource: &Resource, goal: &Goal) -> Result<MetricSpec, String> {
    let target = goal.target;
    let metric = |name: String| MetricIdentifier { name, selector: None };
    let external = |name: String| MetricSpec::External {
        external: ExternalMetric {
            metric: metric(name),
            target,
        },
    };
    let is_utilization = matches!(target, MetricTarget::Utilization(_));
    let is_average = matches!(target, MetricTarget::AverageValue(_));
    match &goal.source {
        MetricSource::Resource(name) if !matches!(target, MetricTarget::Value(_)) => {
            Ok(MetricSpec::Resource {
                resource: ResourceMetric {
                    name: name.clone(),
                    target,
                },
            })
        }
        MetricSource::Resource(_) => {
            Err("a resource has the goal utilization or average, not value".to_owned())
        }
        _ if is_utilization => Err("only a resource has the goal utilization".to_owned()),
        MetricSource::Pods(scrape) if is_average => Ok(MetricSpec::Pods {
            pods: PodsMetric {
                metric: metric(scrape.metric.clone()),
                target,
            },
        }),
        MetricSource::DlxConcurrency if is_average => Ok(external(describe(&goal.source))),
        MetricSource::Pods(_) | MetricSource::DlxConcurrency => {
            Err(format!("{} has the goal average", describe(&goal.source)))
        }
        MetricSource::Custom { name, .. } => Ok(MetricSpec::Object {
            object: ObjectMetric {
                described_object: DescribedObject {
                    api_version: Some(resource.object.api_version.clone()),
                    kind: resource.object.kind.clone(),
                    name: resource.object.name.clone(),
                },
                metric: metric(name.clone()),
                target,
            },
        }),
        MetricSource::External { name, .. } => Ok(external(name.clone())),
        MetricSource::Prometheus { .. }
        | MetricSource::Given { .. }
        | MetricSource::ObservedTraffic
        | MetricSource::Other { .. } => Ok(external(describe(&goal.source))),
    }
}

/// What stands for a goal that cannot be read.
fn unreadable(goal: &Goal) -> MetricSpec {
    MetricSpec::External {
        external: ExternalMetric {
            metric: MetricIdentifier {
                name: describe(&goal.source),
                selector: None,
            },
            target: MetricTarget::Value(Quantity::from(1)),
        },
    }
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
        MetricSource::DlxConcurrency => QuerySource::DlxConcurrency,
        MetricSource::Custom { .. } => QuerySource::Custom,
        MetricSource::External { .. } => QuerySource::External,
        MetricSource::Resource(_) => QuerySource::Resource,
        MetricSource::Prometheus { .. } => QuerySource::Prometheus,
        MetricSource::Pods(_) => QuerySource::Pods,
        MetricSource::Given { .. } => QuerySource::Given,
        MetricSource::Other { .. } => QuerySource::Other,
    }
}

/// What is read, for people.
fn describe(source: &MetricSource) -> String {
    match source {
        MetricSource::ObservedTraffic => "observed traffic".to_owned(),
        MetricSource::DlxConcurrency => "dlx-concurrency".to_owned(),
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
        MetricSource::Given { name, .. } => name.clone(),
        MetricSource::Other { kind, .. } => kind.clone(),
    }
}

fn selected(name: &str, selector: Option<&str>) -> String {
    match selector {
        Some(selector) => format!("{name}{{{selector}}}"),
        None => name.to_owned(),
    }
}
