//! EndpointSlices of Services that have a selector, as the EndpointSlice controller keeps them.
//!
//! A Service without a selector is left alone: slices from the time when it had one go stale and stay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::annotations::ACTUAL_PORT;
use crate::controllers::{Controller, keys};
use crate::core::Core;
use crate::error::ApiError;
use crate::selector::LabelSelector;
use crate::store::{Event, Key, Part, Store};
use crate::value::{
    annotation, at, is_deleting, is_ready, label, list_at, metadata, name_of, namespace_of, now, object,
    owned_by, str_at, string_map,
};

pub(crate) const TABLE: &str = "endpointslices.discovery.k8s.io";
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const PER_SLICE: usize = 100;

pub(crate) struct Slices;

impl Controller for Slices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        keys(store, "services")
    }

    fn affected(&self, store: &Store, e: &Event) -> Vec<Key> {
        match e.table.as_str() {
            "services" => vec![e.key.clone()],
            TABLE if label(&e.object, MANAGED_BY) == Some(CONTROLLER) => label(&e.object, SERVICE_NAME)
                .map(|s| (e.key.0.clone(), s.to_owned()))
                .into_iter()
                .collect(),
            "pods" => store
                .all("services", &e.key.0)
                .iter()
                .filter(|s| {
                    let map = selector_map(s);
                    let selector = LabelSelector::of_map(&map);
                    !map.is_empty()
                        && (selector.matches(&e.object)
                            || e.previous.as_ref().is_some_and(|p| selector.matches(p)))
                })
                .map(|s| (e.key.0.clone(), name_of(s).to_owned()))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, core: &Arc<Core>, key: &Key) -> Result<Option<Duration>, ApiError> {
        let store = &core.store;
        let Some(svc) = store.get("services", &key.0, &key.1) else {
            return Ok(None);
        };
        let selector = selector_map(&svc);
        if is_deleting(&svc) || selector.is_empty() || str_at(&svc, "spec.type") == Some("ExternalName") {
            return Ok(None);
        }
        let wanted = wanted(store, &svc, &LabelSelector::of_map(&selector));
        write(store, &svc, wanted)?;
        Ok(None)
    }
}

fn selector_map(service: &Value) -> BTreeMap<String, String> {
    string_map(at(service, "spec.selector"))
}

/// Number of a container port that a Service port means on this pod.
fn target_port(port: &Value, pod: &Value) -> Option<u64> {
    match port.get("targetPort") {
        Some(Value::String(name)) => list_at(pod, "spec.containers")
            .iter()
            .flat_map(|c| list_at(c, "ports"))
            .find(|p| {
                str_at(p, "name") == Some(name)
                    && str_at(p, "protocol").unwrap_or("TCP") == str_at(port, "protocol").unwrap_or("TCP")
            })
            .and_then(|p| p.get("containerPort")?.as_u64()),
        other => {
            let n = other
                .and_then(Value::as_u64)
                .or_else(|| port.get("port")?.as_u64())?;
            Some(
                annotation(pod, &format!("{ACTUAL_PORT}{n}"))
                    .and_then(|p| p.parse().ok())
                    .unwrap_or(n),
            )
        }
    }
}

/// Endpoints by the ports that they have.
fn wanted(store: &Store, svc: &Value, selector: &LabelSelector) -> Vec<(Value, Vec<Value>)> {
    let ns = namespace_of(svc);
    let always_ready = at(svc, "spec.publishNotReadyAddresses") == Some(&json!(true));
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in store.all("pods", ns) {
        let Some(ip) = str_at(&pod, "status.podIP").filter(|ip| !ip.is_empty()) else {
            continue;
        };
        if !selector.matches(&pod) || matches!(str_at(&pod, "status.phase"), Some("Succeeded" | "Failed")) {
            continue;
        }
        let ports: Vec<Value> = list_at(svc, "spec.ports")
            .iter()
            .filter_map(|p| {
                let n = target_port(p, &pod)?;
                let mut out = json!({
                    "name": str_at(p, "name").unwrap_or(""),
                    "protocol": str_at(p, "protocol").unwrap_or("TCP"),
                    "port": n,
                });
                if let Some(a) = at(p, "appProtocol") {
                    out["appProtocol"] = a.clone();
                }
                Some(out)
            })
            .collect();
        if ports.is_empty() && !list_at(svc, "spec.ports").is_empty() {
            continue;
        }
        let (serving, terminating) = (is_ready(&pod), is_deleting(&pod));
        let mut endpoint = json!({
            "addresses": [ip],
            "conditions": {
                "ready": always_ready || (serving && !terminating),
                "serving": serving,
                "terminating": terminating,
            },
            "nodeName": str_at(&pod, "spec.nodeName"),
            "targetRef": {
                "kind": "Pod", "namespace": ns, "name": name_of(&pod), "uid": crate::value::uid_of(&pod),
            },
        });
        if let Some(h) = str_at(&pod, "spec.hostname")
            && str_at(&pod, "spec.subdomain") == Some(name_of(svc))
        {
            endpoint["hostname"] = json!(h);
        }
        let ports = json!(ports);
        groups
            .entry(ports.to_string())
            .or_insert_with(|| (ports, Vec::new()))
            .1
            .push(endpoint);
    }
    let mut out = Vec::new();
    for (ports, endpoints) in groups.into_values() {
        for chunk in endpoints.chunks(PER_SLICE) {
            out.push((ports.clone(), chunk.to_vec()));
        }
    }
    if out.is_empty() {
        // The slice stays as a placeholder, with neither endpoints nor ports.
        out.push((Value::Null, Vec::new()));
    }
    out
}

fn labels(svc: &Value) -> Value {
    let mut l = svc["metadata"]
        .get("labels")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let m = object(&mut l);
    m.insert(SERVICE_NAME.into(), json!(name_of(svc)));
    m.insert(MANAGED_BY.into(), json!(CONTROLLER));
    if str_at(svc, "spec.clusterIP") == Some("None") {
        m.insert(HEADLESS.into(), json!(""));
    }
    l
}

fn write(store: &Store, svc: &Value, wanted: Vec<(Value, Vec<Value>)>) -> Result<(), ApiError> {
    let ns = namespace_of(svc);
    let mut have: Vec<Arc<Value>> = store
        .all(TABLE, ns)
        .into_iter()
        .filter(|s| {
            label(s, SERVICE_NAME) == Some(name_of(svc))
                && label(s, MANAGED_BY) == Some(CONTROLLER)
                && !is_deleting(s)
        })
        .collect();
    let labels = labels(svc);
    // Slices with the right ports first, so that they change least.
    let mut rest = Vec::new();
    let mut pairs = Vec::new();
    for (ports, endpoints) in wanted {
        match have.iter().position(|s| s["ports"] == ports) {
            Some(i) => pairs.push((Some(have.remove(i)), ports, endpoints)),
            None => rest.push((ports, endpoints)),
        }
    }
    for (ports, endpoints) in rest {
        pairs.push((have.pop(), ports, endpoints));
    }
    for (slice, ports, endpoints) in pairs {
        let endpoints = if endpoints.is_empty() {
            Value::Null
        } else {
            json!(endpoints)
        };
        match slice {
            Some(s) => store.edit(TABLE, ns, name_of(&s), Part::Main, |slice| {
                let m = object(slice);
                m.insert("ports".into(), ports);
                m.insert("endpoints".into(), endpoints);
                metadata(slice).insert("labels".into(), labels.clone());
            })?,
            None => {
                let slice = json!({
                    "metadata": {
                        "generateName": format!("{}-", name_of(svc)),
                        "labels": labels,
                        "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": now() },
                        "ownerReferences": [owned_by(svc, "v1", "Service")],
                    },
                    "addressType": "IPv4",
                    "endpoints": endpoints,
                    "ports": ports,
                });
                store.add(TABLE, ns, slice)?;
            }
        }
    }
    for s in have {
        store.remove(TABLE, &s, None)?;
    }
    Ok(())
}
