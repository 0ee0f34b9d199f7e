//! Changes that may change what there is to scale.
//!
//! Plugins are asked in rounds. What an owner changes between two rounds, a Service that is new for instance, should not wait
//! for the next one. What Dormouse itself writes, and what controllers write all the time, is no such change.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use dormouse_kubernetes::WatchedKind;
use dormouse_kubernetes::services::current_selector;
use dormouse_model::Phase;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::Cluster;
use crate::api::{FENCE, FENCE_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS};
use crate::caches::naming_service;
use crate::services::original_selector;

impl Cluster {
    /// A number that rises when an owner changed a Service or an object that plugins list, or made or deleted one, and when the last
    /// pod of what is awake went. It ends with the reflectors.
    pub fn declared_changes(&self) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        let cluster = self.clone();
        let cancel = self.inner.cancel.clone();
        let mut changes = self.change_stream();
        tokio::spawn(async move {
            let mut known = cluster.meanings();
            let mut lists = cluster.inner.objects.changes();
            loop {
                let change = tokio::select! {
                    () = cancel.cancelled() => return,
                    () = sender.closed() => return,
                    Ok(()) = lists.changed() => {
                        sender.send_modify(|count| *count += 1);
                        continue;
                    }
                    change = changes.recv() => change,
                };
                let matters = match change {
                    Ok(change) if change.kind == WatchedKind::SERVICE => {
                        let service = cluster.service(&change.namespace, &change.name);
                        let name = (change.namespace, change.name);
                        match service {
                            Some(service) => {
                                let meaning = meaning(&service);
                                known.insert(name, meaning) != Some(meaning)
                            }
                            None => known.remove(&name).is_some(),
                        }
                    }
                    Ok(change) if change.kind == WatchedKind::POD => {
                        let labels = change.labels.as_deref();
                        labels.is_some_and(|labels| cluster.emptied(&change.namespace, &change.name, labels))
                    }
                    Ok(_) => false,
                    // Some were missed, so nobody knows.
                    Err(RecvError::Lagged(_)) => {
                        let now = cluster.meanings();
                        let matters = now != known;
                        known = now;
                        matters
                    }
                    Err(RecvError::Closed) => return,
                };
                if matters {
                    sender.send_modify(|count| *count += 1);
                }
            }
        });
        receiver
    }

    /// Whether the pod of this name was the last one behind a Service of a Sleeper that is awake: somebody scaled it to zero, perhaps.
    fn emptied(&self, namespace: &str, pod: &str, labels: &BTreeMap<String, String>) -> bool {
        let pods = &self.inner.caches.pods;
        let lives = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
        if pods.get(namespace, pod).is_some_and(|pod| lives(&pod)) {
            return false;
        }
        let caches = &self.inner.caches;
        let awake = |service: &Service| {
            let sleepers = caches
                .sleepers
                .with(naming_service(namespace, &service.name_any()));
            sleepers.iter().any(|sleeper| sleeper.phase() == Phase::Awake)
        };
        let mut services = caches.services.selecting(namespace, labels);
        services.retain(|service| awake(service));
        let left = |service: &Service| {
            let selector = current_selector(service);
            let pods = selector.map(|selector| pods.selected(namespace, selector));
            pods.is_some_and(|pods| pods.iter().any(|pod| lives(pod)))
        };
        !services.is_empty() && !services.iter().any(|service| left(service))
    }

    fn meanings(&self) -> HashMap<(String, String), u64> {
        let services = self.inner.caches.services.all();
        services
            .iter()
            .map(|service| {
                let name = (service.namespace().unwrap_or_default(), service.name_any());
                (name, meaning(service))
            })
            .collect()
    }
}

/// What an owner says with a Service, as a number: the same as long as only Dormouse writes to it.
fn meaning(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.uid().hash(&mut hasher);
    service.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    for own in [service.labels(), service.annotations()] {
        let ours = [FENCE, FENCE_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS];
        let theirs = own.iter().filter(|(key, _)| !ours.contains(&key.as_str()));
        theirs.collect::<Vec<_>>().hash(&mut hasher);
    }
    original_selector(service).ok().flatten().hash(&mut hasher);
    if let Some(spec) = &service.spec {
        spec.type_.hash(&mut hasher);
        spec.cluster_ip.hash(&mut hasher);
        spec.ip_families.hash(&mut hasher);
        spec.internal_traffic_policy.hash(&mut hasher);
        for port in spec.ports.iter().flatten() {
            (&port.name, port.port, &port.protocol).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PARKED_LABEL;
    use serde_json::json;

    fn service(selector: &serde_json::Value, annotations: &serde_json::Value, port: u16) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u", "annotations": annotations},
            "spec": {"selector": selector, "ports": [{"port": port}]},
        }))
        .unwrap()
    }

    #[test]
    fn field_02_only_what_its_owner_changes_is_a_change_of_a_service() {
        let before = service(&json!({"app": "web"}), &json!({}), 80);
        let kept = json!({PARKED_SELECTOR: r#"{"app":"web"}"#, PARKED_WORKLOADS: "[]", FENCE: "3@u"});
        let parked = service(&json!({PARKED_LABEL: "web.workloads"}), &kept, 80);
        assert_eq!(meaning(&before), meaning(&parked), "parking is our own doing");
        for changed in [
            service(&json!({"app": "other"}), &json!({}), 80),
            service(&json!({"app": "web"}), &json!({}), 81),
            service(&json!({"app": "web"}), &json!({"team": "shop"}), 80),
        ] {
            assert_ne!(meaning(&before), meaning(&changed));
        }
    }
}
