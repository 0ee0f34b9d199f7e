//! The targets of the current plan, and their endpoints.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dormouse_kubernetes::api::{PARKED_LABEL, PARKED_SELECTOR};
use dormouse_kubernetes::{Change, Cluster, ServicePort};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use tokio::sync::watch;

use crate::cluster::plan::{Facts, Plan};
use crate::cluster::view::{answers, view};
use crate::{EndpointsView, Ledger, PortRoute, Routes, Target, TargetKey, TargetSpec};

type Labels = BTreeMap<String, String>;

pub(super) struct Targets {
    cluster: Cluster,
    ledger: Ledger,
    entries: BTreeMap<TargetKey, Entry>,
    /// Keys by namespace, because that is how changes come.
    namespaces: HashMap<String, Vec<TargetKey>>,
}

struct Entry {
    facts: Facts,
    target: Arc<Target>,
    sender: watch::Sender<Arc<EndpointsView>>,
    /// Labels that its Service selects, or selected before it was parked.
    selector: Option<Labels>,
    /// Pods that are endpoints now; one that is labelled anew has to be noticed too.
    pods: Vec<String>,
    /// Which pods count depends on time at the moment.
    aging: bool,
}

impl Targets {
    pub(super) fn new(cluster: Cluster, ledger: Ledger) -> Self {
        Self {
            cluster,
            ledger,
            entries: BTreeMap::new(),
            namespaces: HashMap::new(),
        }
    }

    /// Takes over the targets of a plan, and makes the table of routes. A target that is the same keeps those who wait for
    /// it; one that is gone lets them go.
    pub(super) fn adopt(&mut self, plan: &Plan) -> Routes {
        self.entries.retain(|key, _| plan.targets.contains_key(key));
        for (key, facts) in &plan.targets {
            match self.entries.get_mut(key) {
                Some(entry) if entry.facts == *facts => {}
                Some(entry) => {
                    entry.target = Target::new(&self.ledger, spec(key, facts, entry.sender.subscribe()));
                    entry.facts = facts.clone();
                }
                None => {
                    let sender = watch::Sender::new(Arc::default());
                    let target = Target::new(&self.ledger, spec(key, facts, sender.subscribe()));
                    let facts = facts.clone();
                    let mut entry = Entry {
                        facts,
                        target,
                        sender,
                        selector: None,
                        pods: Vec::new(),
                        aging: false,
                    };
                    entry.select(&self.cluster, key);
                    entry.refresh(&self.cluster, key);
                    self.entries.insert(key.clone(), entry);
                }
            }
        }
        self.namespaces.clear();
        for key in self.entries.keys() {
            self.namespaces
                .entry(key.namespace.clone())
                .or_default()
                .push(key.clone());
        }
        self.table(plan)
    }

    fn table(&self, plan: &Plan) -> Routes {
        let mut routes = Routes::default();
        let target = |key: &TargetKey| self.entries.get(key).map(|entry| Arc::clone(&entry.target));
        for (port, key) in &plan.ports {
            if let Some(target) = target(key) {
                routes.add_port(*port, PortRoute { target });
            }
        }
        for (at, first, second) in &plan.hosts {
            if let Some(first) = target(first) {
                routes.add_host(at.clone(), first, second.as_ref().and_then(&target));
            }
        }
        for (namespace, name, key) in &plan.names {
            if let Some(target) = target(key) {
                routes.add_name(namespace, name, target);
            }
        }
        routes
    }

    pub(super) fn refresh_all(&mut self) {
        for (key, entry) in &mut self.entries {
            entry.select(&self.cluster, key);
            entry.refresh(&self.cluster, key);
        }
    }

    pub(super) fn refresh_sleeper(&mut self, namespace: &str, name: &str) {
        self.refresh_where(namespace, |key, _| key.sleeper == name, false);
    }

    pub(super) fn refresh_service(&mut self, namespace: &str, name: &str) {
        self.refresh_where(namespace, |key, _| key.service == name, true);
    }

    pub(super) fn refresh_pod(&mut self, pod: &Change) {
        let concerned = |_: &TargetKey, entry: &Entry| {
            entry.pods.contains(&pod.name) || selects(entry.selector.as_ref(), pod.labels.as_deref())
        };
        self.refresh_where(&pod.namespace, concerned, false);
    }

    pub(super) fn refresh_aging(&mut self) {
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.aging) {
            entry.refresh(&self.cluster, key);
        }
    }

    fn refresh_where(
        &mut self,
        namespace: &str,
        wanted: impl Fn(&TargetKey, &Entry) -> bool,
        reselect: bool,
    ) {
        for key in self.namespaces.get(namespace).into_iter().flatten() {
            let Some(entry) = self.entries.get_mut(key).filter(|entry| wanted(key, entry)) else {
                continue;
            };
            if reselect {
                entry.select(&self.cluster, key);
            }
            entry.refresh(&self.cluster, key);
        }
    }
}

impl Entry {
    fn select(&mut self, cluster: &Cluster, key: &TargetKey) {
        self.selector = cluster
            .service(&key.namespace, &key.service)
            .and_then(|service| selector(&service));
    }

    /// Tells the data plane what is new, if anything is.
    fn refresh(&mut self, cluster: &Cluster, key: &TargetKey) {
        let sleeper = cluster.sleeper_named(&key.namespace, &key.sleeper);
        let state = sleeper
            .as_ref()
            .and_then(|sleeper| sleeper.status.as_ref())
            .map(|status| &status.state);
        let Some(state) = state.cloned().or_else(|| sleeper.map(|_| Default::default())) else {
            return;
        };
        let endpoints = cluster.endpoints(&key.namespace, &key.service, &ServicePort::Number(key.port));
        let now = Timestamp::now();
        let drain_grace = cluster.config().timings.drain_grace;
        self.aging = answers(&state, now, drain_grace).is_some();
        let seen = view(&state, &endpoints.ready, now, drain_grace);
        self.pods = endpoints.ready.into_iter().map(|pod| pod.pod).collect();
        self.sender.send_if_modified(|shown| {
            let changed = **shown != seen;
            if changed {
                tracing::debug!(
                    namespace = key.namespace,
                    service = key.service,
                    port = key.port,
                    ?seen
                );
                *shown = Arc::new(seen);
            }
            changed
        });
    }
}

fn spec(key: &TargetKey, facts: &Facts, endpoints: watch::Receiver<Arc<EndpointsView>>) -> TargetSpec {
    TargetSpec {
        key: key.clone(),
        owner: facts.owner.clone(),
        wake: facts.wake,
        resource: facts.resource.clone(),
        readiness_timeout: facts.readiness_timeout,
        protocol: facts.protocol,
        connection_idle: facts.connection_idle,
        endpoints,
    }
}

/// The labels that a Service's owner meant. Only used to tell which pods may concern a target, so an odd annotation is
/// no error here: the cluster's own view of endpoints reports it.
fn selector(service: &Service) -> Option<Labels> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    if !selector.contains_key(PARKED_LABEL) {
        return Some(selector.clone());
    }
    let mut beside = selector.clone();
    beside.remove(PARKED_LABEL);
    if !beside.is_empty() {
        return Some(beside);
    }
    serde_json::from_str(service.annotations().get(PARKED_SELECTOR)?).ok()
}

/// Unknown labels may be any.
fn selects(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let (Some(selector), Some(labels)) = (selector, labels) else {
        return selector.is_some();
    };
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_parked_service_still_means_its_pods() {
        let service = |selector: serde_json::Value, kept: &str| -> Service {
            let metadata = json!({"name": "s", "annotations": {PARKED_SELECTOR: kept}});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"selector": selector}})).unwrap()
        };
        let plain = service(json!({"app": "a"}), "{}");
        assert_eq!(selector(&plain), Some(labels(&[("app", "a")])));
        let parked = service(json!({PARKED_LABEL: "s"}), r#"{"app":"a"}"#);
        assert_eq!(selector(&parked), Some(labels(&[("app", "a")])));
        let applied_over = service(json!({PARKED_LABEL: "s", "app": "b"}), r#"{"app":"a"}"#);
        assert_eq!(selector(&applied_over), Some(labels(&[("app", "b")])));
        assert_eq!(selector(&service(json!({PARKED_LABEL: "s"}), "odd")), None);
    }

    #[test]
    fn pods_concern_those_who_select_them() {
        let (web, pod) = (
            labels(&[("app", "web")]),
            labels(&[("app", "web"), ("hash", "1")]),
        );
        assert!(selects(Some(&web), Some(&pod)));
        assert!(!selects(Some(&labels(&[("app", "db")])), Some(&pod)));
        assert!(selects(Some(&web), None));
        assert!(!selects(None, Some(&pod)));
    }
}
