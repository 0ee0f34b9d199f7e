//! From a rule, as plugins and annotations write it, to what is asked about a target.

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{
    GroupKind, ObjectRef, Quantity, QuantityError, Query, QuerySource, TargetKey, Trigger, metric_name,
    window_name,
};
use dormouse_plugin::types::Goal;
pub use dormouse_plugin::types::{MetricSource, Rule};
use dormouse_readings::template;

use crate::key::sleeper_key;

/// Longest part of a query in texts for people.
const SHOWN: usize = 80;
/// How far back the reading of a goal looks that does not say.
const GOAL_WINDOW: Duration = Duration::from_secs(60);
/// For how long the DLX remembers what arrived.
const LONGEST_RATE_WINDOW: Duration = Duration::from_secs(60);

/// Whom the rules of a target are about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The target.
    pub key: &'a TargetKey,
    /// The object that custom metrics describe, and whose name queries may have.
    pub object: &'a ObjectRef,
    /// Whose pods are read.
    pub workloads: &'a [ObjectRef],
    /// Whose traffic is observed.
    pub services: &'a [String],
    /// The kind that custom metrics describe. None: that of the object.
    pub metrics_resource: Option<&'a GroupKind>,
}

impl Subject<'_> {
    /// A rule, with what is asked for it; or why nothing can be.
    pub fn trigger(&self, rule: &Rule) -> Trigger {
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

    /// What to ask for a rule; an error for what cannot be asked.
    fn query(&self, rule: &Rule, threshold: Quantity) -> Result<Query, String> {
        let window = rule.window;
        match &rule.source {
            MetricSource::ObservedTraffic => {
                if !threshold.is_zero() {
                    return Err("the threshold of observed traffic must be 0".to_owned());
                }
                if self.services.is_empty() {
                    return Err("it has no Service whose traffic could be observed".to_owned());
                }
                Ok(Query::Traffic {
                    sleeper: sleeper_key(self.key).object_name(),
                    namespace: self.key.namespace.clone(),
                    window,
                    since: None,
                })
            }
            MetricSource::DlxConcurrency | MetricSource::DlxRate => Err(format!(
                "{} says how many replicas there should be, not whether nobody needs any; observed-traffic does",
                describe(&rule.source)
            )),
            MetricSource::Custom { name, selector } => Ok(self.custom(metric_name(name, window), selector)),
            other => self.plain_query(other, window),
        }
    }

    /// What to ask for a goal; an error for what cannot be asked.
    pub(crate) fn goal_query(&self, goal: &Goal) -> Result<Query, String> {
        match &goal.source {
            MetricSource::ObservedTraffic => Err(
                "observed-traffic says whether nobody needs it, not how many replicas it needs; dlx-concurrency does"
                    .to_owned(),
            ),
            MetricSource::DlxRate => {
                let window = goal.window.unwrap_or(GOAL_WINDOW);
                if window > LONGEST_RATE_WINDOW {
                    return Err(format!(
                        "the DLX remembers what arrived for {}, and dlx-rate is to look back {}",
                        window_name(LONGEST_RATE_WINDOW),
                        window_name(window)
                    ));
                }
                Ok(Query::ArrivalRate {
                    namespace: self.key.namespace.clone(),
                    sleeper: sleeper_key(self.key).object_name(),
                    window,
                })
            }
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
                workloads: self.named_workloads()?,
                resource: measured.clone(),
                window,
            },
            MetricSource::Prometheus { server, query } => Query::Prometheus {
                query: expand(query, &namespace, &self.object.name, window)?,
                namespace,
                server: server.clone(),
            },
            MetricSource::Pods(scrape) => Query::Pods {
                namespace,
                workloads: self.named_workloads()?,
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
            MetricSource::ObservedTraffic
            | MetricSource::DlxConcurrency
            | MetricSource::DlxRate
            | MetricSource::Custom { .. } => return Err("it is asked for in another way".to_owned()),
        })
    }

    /// The complete name of a custom metric, for the kind that it describes.
    fn custom(&self, metric: String, selector: &Option<String>) -> Query {
        let object = self.object;
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

    fn named_workloads(&self) -> Result<Vec<ObjectRef>, String> {
        if self.workloads.is_empty() {
            return Err("its plugin names no workload, so nobody knows which pods are its own".to_owned());
        }
        Ok(self.workloads.to_vec())
    }
}

fn expand(query: &str, namespace: &str, name: &str, window: Duration) -> Result<String, String> {
    template::expand(query, namespace, name, window).map_err(|error| error.to_string())
}

/// What kind of thing is asked.
pub(crate) fn source(source: &MetricSource) -> QuerySource {
    match source {
        MetricSource::ObservedTraffic => QuerySource::ObservedTraffic,
        MetricSource::DlxConcurrency => QuerySource::DlxConcurrency,
        MetricSource::DlxRate => QuerySource::DlxRate,
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
pub(crate) fn describe(source: &MetricSource) -> String {
    match source {
        MetricSource::ObservedTraffic => "observed traffic".to_owned(),
        MetricSource::DlxConcurrency => "dlx-concurrency".to_owned(),
        MetricSource::DlxRate => "dlx-rate".to_owned(),
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
