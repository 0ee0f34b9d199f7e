//! The custom metrics API: values that tests and demos set, served as metrics adapters do.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::selector::LabelSelector;
use crate::store::Store;
use crate::value::now;

/// The group of the API.
pub(crate) const GROUP: &str = "custom.metrics.k8s.io";

/// One metric of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomMetric {
    /// `deployments.apps`, `pods`; singular or kind instead of the plural will do.
    pub resource: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the metric.
    pub metric: String,
    /// A Kubernetes quantity (`3`, `250m`). None removes the metric from the object.
    pub value: Option<String>,
    /// More values of the same object: an adapter that finds two series answers with both.
    pub more: Vec<String>,
    /// The timestamp that is shown, RFC 3339. None: the time of the answer.
    pub timestamp: Option<String>,
}

/// (resource, namespace, metric).
type Series = (String, String, String);

#[derive(Debug, Default)]
pub(crate) struct CustomMetrics {
    values: Mutex<BTreeMap<Series, BTreeMap<String, CustomMetric>>>,
}

/// The plural with group that a resource name in a path means.
fn canonical(store: &Store, resource: &str) -> String {
    let lower = resource.to_lowercase();
    let (name, group) = lower.split_once('.').unwrap_or((lower.as_str(), ""));
    store
        .kinds()
        .iter()
        .find(|rt| {
            rt.group.to_lowercase() == group
                && (rt.plural == name || rt.singular == name || rt.kind.to_lowercase() == name)
        })
        .map_or(lower.clone(), |rt| rt.id.clone())
}

impl CustomMetrics {
    pub fn set(&self, store: &Store, m: CustomMetric) {
        let series = (
            canonical(store, &m.resource),
            m.namespace.clone(),
            m.metric.clone(),
        );
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = values.entry(series).or_default();
        if m.value.is_none() {
            objects.remove(&m.name);
        } else {
            objects.insert(m.name.clone(), m);
        }
    }

    /// The resources of the API, for discovery.
    pub fn discovery(&self, version: &str) -> Value {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let resources: Vec<Value> = values
            .keys()
            .map(|(resource, _, metric)| format!("{resource}/{metric}"))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .map(|name| {
                json!({ "name": name, "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"] })
            })
            .collect();
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": format!("{GROUP}/{version}"),
            "resources": resources,
        })
    }

    /// `GET …/namespaces/{ns}/{resource}/{name or *}/{metric}`.
    pub fn get(
        &self,
        store: &Store,
        version: &str,
        path: &[&str],
        selector: &LabelSelector,
    ) -> Result<Value, ApiError> {
        let (ns, resource, name, metric) = match path {
            ["namespaces", ns, resource, name, metric] => (*ns, *resource, *name, *metric),
            ["namespaces", ns, "metrics", metric] => ("", "namespaces", *ns, *metric),
            [resource, name, metric] => ("", *resource, *name, *metric),
            _ => return Err(ApiError::no_such_path()),
        };
        let id = canonical(store, resource);
        let rt = store.kind(&id);
        let missing = || {
            let about = if name == "*" {
                id.clone()
            } else {
                format!("{id} {name}")
            };
            ApiError::new(
                404,
                "NotFound",
                format!("the server could not find the metric {metric} for {about}"),
            )
        };
        let objects = {
            let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values
                .get(&(id.clone(), ns.to_owned(), metric.to_owned()))
                .cloned()
                .ok_or_else(missing)?
        };
        let mut items = Vec::new();
        for (object, m) in objects.iter().filter(|(o, _)| name == "*" || name == *o) {
            if !selector.is_empty() && !store.get(&id, ns, object).is_some_and(|o| selector.matches(&o)) {
                continue;
            }
            for value in m.value.iter().chain(&m.more) {
                let (kind, api_version) = match &rt {
                    Some(rt) => (rt.kind.clone(), rt.storage_api_version()),
                    None => (id.clone(), String::new()),
                };
                let mut item = json!({
                    "describedObject": { "kind": kind, "namespace": ns, "name": object, "apiVersion": api_version },
                    "timestamp": m.timestamp.clone().unwrap_or_else(now),
                    "value": value,
                });
                if version == "v1beta1" {
                    item["metricName"] = json!(metric);
                    item["selector"] = Value::Null;
                } else {
                    item["metric"] = json!({ "name": metric, "selector": null });
                }
                items.push(item);
            }
        }
        if items.is_empty() && name != "*" {
            return Err(missing());
        }
        Ok(json!({
            "kind": "MetricValueList",
            "apiVersion": format!("{GROUP}/{version}"),
            "metadata": {},
            "items": items,
        }))
    }
}
