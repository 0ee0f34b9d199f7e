//! Changes by owners that may change what there is to scale.
//!
//! Plugins are asked at intervals. A change in between, a new Service for instance, should not wait for the next time. What Dormouse itself writes, and what controllers write all the time, does not count.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use dormouse_kubernetes::pods::is_alive;
use dormouse_kubernetes::services::current_selector;
use dormouse_kubernetes::{Change, Objects, Signals, WatchedKind};
use dormouse_model::Phase;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{FENCE, FENCE_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS};
use crate::caches::{Caches, naming_service};
use crate::services::original_selector;

/// A hash of each Service by namespace and name: the same as long as its owner does not change it.
type Hashes = HashMap<(String, String), u64>;

/// Notices changes by owners. Cheap to clone.
#[derive(Clone)]
pub struct OwnerChanges {
    caches: Arc<Caches>,
    signals: Signals,
    objects: Objects,
    cancel: CancellationToken,
}

impl OwnerChanges {
    pub(crate) fn new(
        caches: Arc<Caches>,
        signals: Signals,
        objects: Objects,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            caches,
            signals,
            objects,
            cancel,
        }
    }

    /// A number that rises when an owner changed, created or deleted a Service or an object that plugins list, and when the last pod
    /// of an awake resource went. It ends with the reflectors.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        let changes = self.signals.changes();
        tokio::spawn(self.clone().watch(sender, changes));
        receiver
    }

    async fn watch(self, sender: watch::Sender<u64>, mut changes: broadcast::Receiver<Change>) {
        let mut hashes = self.hashes();
        let mut lists = self.objects.changes();
        loop {
            let change = tokio::select! {
                () = self.cancel.cancelled() => return,
                () = sender.closed() => return,
                Ok(()) = lists.changed() => {
                    sender.send_modify(|count| *count += 1);
                    continue;
                }
                change = changes.recv() => change,
            };
            let by_owner = match change {
                Ok(change) => self.is_by_owner(&mut hashes, change),
                // Some changes were missed: all Services are compared.
                Err(RecvError::Lagged(_)) => {
                    let before = std::mem::replace(&mut hashes, self.hashes());
                    hashes != before
                }
                Err(RecvError::Closed) => return,
            };
            if by_owner {
                sender.send_modify(|count| *count += 1);
            }
        }
    }

    fn is_by_owner(&self, hashes: &mut Hashes, change: Change) -> bool {
        match change.kind {
            WatchedKind::SERVICE => {
                let service = self.caches.services.get(&change.namespace, &change.name);
                let name = (change.namespace, change.name);
                match service {
                    Some(service) => {
                        let hash = owner_hash(&service);
                        hashes.insert(name, hash) != Some(hash)
                    }
                    None => hashes.remove(&name).is_some(),
                }
            }
            WatchedKind::POD => {
                let labels = change.labels.as_deref();
                labels.is_some_and(|labels| self.was_last_pod(&change.namespace, &change.name, labels))
            }
            _ => false,
        }
    }

    /// Whether the pod of this name was the last one behind a Service of an awake Sleeper: its workload may have been scaled to zero.
    fn was_last_pod(&self, namespace: &str, pod: &str, labels: &BTreeMap<String, String>) -> bool {
        let pods = &self.caches.pods;
        if pods.get(namespace, pod).is_some_and(|pod| is_alive(&pod)) {
            return false;
        }
        let mut services = self.caches.services.selecting(namespace, labels);
        services.retain(|service| self.is_of_awake_sleeper(namespace, service));
        let has_pods = |service: &Service| {
            let selector = current_selector(service);
            let pods = selector.map(|selector| pods.selected(namespace, selector));
            pods.is_some_and(|pods| pods.iter().any(|pod| is_alive(pod)))
        };
        !services.is_empty() && !services.iter().any(|service| has_pods(service))
    }

    fn is_of_awake_sleeper(&self, namespace: &str, service: &Service) -> bool {
        let naming = naming_service(namespace, &service.name_any());
        let sleepers = self.caches.sleepers.with(naming);
        sleepers.iter().any(|sleeper| sleeper.phase() == Phase::Awake)
    }

    fn hashes(&self) -> Hashes {
        let services = self.caches.services.all();
        services
            .iter()
            .map(|service| {
                let name = (service.namespace().unwrap_or_default(), service.name_any());
                (name, owner_hash(service))
            })
            .collect()
    }
}

/// A hash of what the owner of a Service wrote: the same as long as only Dormouse writes to it.
fn owner_hash(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.uid().hash(&mut hasher);
    service.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    for own in [service.labels(), service.annotations()] {
        let dormouse = [FENCE, FENCE_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS];
        let by_owner = own.iter().filter(|(key, _)| !dormouse.contains(&key.as_str()));
        by_owner.collect::<Vec<_>>().hash(&mut hasher);
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
        assert_eq!(
            owner_hash(&before),
            owner_hash(&parked),
            "parking is no change by the owner"
        );
        for changed in [
            service(&json!({"app": "other"}), &json!({}), 80),
            service(&json!({"app": "web"}), &json!({}), 81),
            service(&json!({"app": "web"}), &json!({"team": "shop"}), 80),
        ] {
            assert_ne!(owner_hash(&before), owner_hash(&changed));
        }
    }
}
