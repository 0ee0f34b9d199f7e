//! From what a plugin says about a resource to a target.

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{
    DescribedObject, ExternalMetric, Metric, MetricIdentifier, MetricSpec, MetricTarget, MetricsPolicy,
    ObjectMetric, ObjectRef, Owner, PodsMetric, Policy, Quantity, ResourceMetric, Routing, Scale, Target,
    TargetKey, TargetState,
};
use dormouse_plugin::types::{Goal, MetricSource, Resource, ResourceState, Scaling};

use crate::Effective;
use crate::triggers::{Subject, describe, source};

/// The longest time between two decisions about a number of replicas: that of a HorizontalPodAutoscaler.
const METRICS_INTERVAL: Duration = Duration::from_secs(15);

/// A resource of a plugin as a target.
pub fn target(owner: &Owner, resource: Resource, routing: Routing, effective: &Effective) -> Target {
    let key = TargetKey {
        owner: owner.clone(),
        namespace: resource.id.namespace.clone(),
        name: resource.id.name.clone(),
    };
    let subject = Subject {
        key: &key,
        object: &resource.object,
        workloads: &resource.workloads,
        services: &resource.services,
        metrics_resource: effective.metrics_resource.as_ref(),
    };
    let triggers = resource.rules.iter().map(|rule| subject.trigger(rule)).collect();
    let policy = match &resource.scaling {
        Some(scaling) => Policy::Metrics(Arc::new(policy(&subject, scaling))),
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

fn policy(subject: &Subject<'_>, scaling: &Scaling) -> MetricsPolicy {
    let goals = scaling.goals.iter();
    MetricsPolicy {
        min_replicas: scaling.min_replicas,
        max_replicas: scaling.max_replicas,
        metrics: goals.map(|goal| metric(subject, goal)).collect(),
        behavior: scaling.behavior.clone(),
    }
}

fn metric(subject: &Subject<'_>, goal: &Goal) -> Metric {
    let spec = metric_spec(subject.object, goal);
    let (spec, query) = match spec {
        Ok(spec) => (spec, subject.goal_query(goal).map(Arc::new)),
        // It takes part, and says why it cannot be read.
        Err(why) => (unreadable(goal), Err(why)),
    };
    Metric {
        spec,
        source: source(&goal.source),
        query,
    }
}

/// A goal as a HorizontalPodAutoscaler would declare it. What that has no word for counts as an external metric: one number.
fn metric_spec(object: &ObjectRef, goal: &Goal) -> Result<MetricSpec, String> {
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
        MetricSource::DlxConcurrency | MetricSource::DlxRate if is_average => {
            Ok(external(describe(&goal.source)))
        }
        MetricSource::Pods(_) | MetricSource::DlxConcurrency | MetricSource::DlxRate => {
            Err(format!("{} has the goal average", describe(&goal.source)))
        }
        MetricSource::Custom { name, .. } => Ok(MetricSpec::Object {
            object: ObjectMetric {
                described_object: DescribedObject {
                    api_version: Some(object.api_version.clone()),
                    kind: object.kind.clone(),
                    name: object.name.clone(),
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
