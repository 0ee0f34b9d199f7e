//! The targets of the current plan, and their endpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{Change, SelectorIndex, ServicePort};
use dormouse_sleepers::{Caches, ServiceEndpoints, original_selector};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::cluster::plan::{Facts, Plan};
use crate::cluster::view::{answers, view};
use crate::{DemandCounters, EndpointsView, PortRoute, RouteTarget, RouteTargetKey, RouteTargetSpec, Routes};

pub(super) struct Targets {
    source: Source,
    demand_counters: DemandCounters,
    entries: BTreeMap<RouteTargetKey, Entry>,
    index: Index,
}

/// Where the endpoints of targets come from.
struct Source {
    caches: Arc<Caches>,
    endpoints: ServiceEndpoints,
    drain_grace: Duration,
}

/// Targets by what changes.
#[derive(Default)]
struct Index {
    /// By namespace and name.
    by_sleeper: HashMap<(String, String), BTreeSet<RouteTargetKey>>,
    /// By namespace and name.
    by_service: HashMap<(String, String), BTreeSet<RouteTargetKey>>,
    /// By the labels that their Services select, or selected before they were parked.
    by_selector: SelectorIndex<RouteTargetKey>,
    /// By namespace and name of a pod that is an endpoint; one that is labelled anew has to be noticed too.
    by_pod: HashMap<(String, String), BTreeSet<RouteTargetKey>>,
}

impl Index {
    fn add(&mut self, key: &RouteTargetKey) {
        self.by_sleeper
            .entry(of_sleeper(key))
            .or_default()
            .insert(key.clone());
        self.by_service
            .entry(of_service(key))
            .or_default()
            .insert(key.clone());
    }

    fn remove(&mut self, key: &RouteTargetKey, pods: &BTreeSet<String>) {
        take(&mut self.by_sleeper, &of_sleeper(key), key);
        take(&mut self.by_service, &of_service(key), key);
        self.by_selector.set(key, Vec::new());
        for pod in pods {
            take(&mut self.by_pod, &(key.namespace.clone(), pod.clone()), key);
        }
    }

    fn pods_changed(&mut self, key: &RouteTargetKey, before: &BTreeSet<String>, now: &BTreeSet<String>) {
        for pod in before.difference(now) {
            take(&mut self.by_pod, &(key.namespace.clone(), pod.clone()), key);
        }
        for pod in now.difference(before) {
            let at = (key.namespace.clone(), pod.clone());
            self.by_pod.entry(at).or_default().insert(key.clone());
        }
    }
}

fn of_sleeper(key: &RouteTargetKey) -> (String, String) {
    (key.namespace.clone(), key.sleeper.clone())
}

fn of_service(key: &RouteTargetKey) -> (String, String) {
    (key.namespace.clone(), key.service.clone())
}

/// Takes a key out of a set, and the set out of the map when it is empty.
fn take(
    map: &mut HashMap<(String, String), BTreeSet<RouteTargetKey>>,
    at: &(String, String),
    key: &RouteTargetKey,
) {
    if let Some(keys) = map.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(at);
        }
    }
}

struct Entry {
    facts: Facts,
    target: Arc<RouteTarget>,
    sender: watch::Sender<Arc<EndpointsView>>,
    /// Pods that are endpoints now.
    pods: BTreeSet<String>,
    /// Which pods count depends on time at the moment.
    aging: bool,
}

impl Targets {
    pub(super) fn new(
        caches: Arc<Caches>,
        endpoints: ServiceEndpoints,
        drain_grace: Duration,
        demand_counters: DemandCounters,
    ) -> Self {
        let source = Source {
            caches,
            endpoints,
            drain_grace,
        };
        Self {
            source,
            demand_counters,
            entries: BTreeMap::new(),
            index: Index::default(),
        }
    }

    /// Takes over the targets of a plan, and makes the table of routes. A target that is the same keeps those who wait for
    /// it; one that is gone lets them go.
    pub(super) fn adopt(&mut self, plan: &Plan) -> Routes {
        let index = &mut self.index;
        self.entries.retain(|key, entry| {
            let stays = plan.targets.contains_key(key);
            if !stays {
                index.remove(key, &entry.pods);
            }
            stays
        });
        for (key, facts) in &plan.targets {
            match self.entries.get_mut(key) {
                Some(entry) if entry.facts == *facts => {}
                Some(entry) => {
                    entry.target =
                        RouteTarget::new(&self.demand_counters, spec(key, facts, entry.sender.subscribe()));
                    entry.facts = facts.clone();
                }
                None => {
                    let sender = watch::Sender::new(Arc::default());
                    let target =
                        RouteTarget::new(&self.demand_counters, spec(key, facts, sender.subscribe()));
                    let facts = facts.clone();
                    let mut entry = Entry {
                        facts,
                        target,
                        sender,
                        pods: BTreeSet::new(),
                        aging: false,
                    };
                    self.index.add(key);
                    self.index.select(&self.source.caches, key);
                    entry.refresh(&self.source, key, &mut self.index);
                    self.entries.insert(key.clone(), entry);
                }
            }
        }
        self.table(plan)
    }

    fn table(&self, plan: &Plan) -> Routes {
        let mut routes = Routes::default();
        let target = |key: &RouteTargetKey| self.entries.get(key).map(|entry| Arc::clone(&entry.target));
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
            self.index.select(&self.source.caches, key);
            entry.refresh(&self.source, key, &mut self.index);
        }
    }

    pub(super) fn refresh_sleeper(&mut self, namespace: &str, name: &str) {
        let at = (namespace.to_owned(), name.to_owned());
        let keys = self.index.by_sleeper.get(&at).cloned();
        self.refresh(keys.unwrap_or_default());
    }

    pub(super) fn refresh_service(&mut self, namespace: &str, name: &str) {
        let at = (namespace.to_owned(), name.to_owned());
        let keys = self.index.by_service.get(&at).cloned().unwrap_or_default();
        for key in &keys {
            self.index.select(&self.source.caches, key);
        }
        self.refresh(keys);
    }

    pub(super) fn refresh_pod(&mut self, pod: &Change) {
        let at = (pod.namespace.clone(), pod.name.clone());
        let mut keys = self.index.by_pod.get(&at).cloned().unwrap_or_default();
        if let Some(labels) = &pod.labels {
            keys.extend(self.index.by_selector.selecting(&pod.namespace, labels));
        }
        self.refresh(keys);
    }

    pub(super) fn refresh_aging(&mut self) {
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.aging) {
            entry.refresh(&self.source, key, &mut self.index);
        }
    }

    fn refresh(&mut self, keys: BTreeSet<RouteTargetKey>) {
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.refresh(&self.source, &key, &mut self.index);
            }
        }
    }
}

impl Index {
    fn select(&mut self, caches: &Caches, key: &RouteTargetKey) {
        let service = caches.services.get(&key.namespace, &key.service);
        // What is damaged is no error here: the cluster's own view of endpoints reports it.
        let selector = service.and_then(|service| original_selector(&service).ok().flatten());
        let selectors = selector.map(|selector| (key.namespace.clone(), selector));
        self.by_selector.set(key, selectors.into_iter().collect());
    }
}

impl Entry {
    /// Tells the data plane what is new, if anything is.
    fn refresh(&mut self, source: &Source, key: &RouteTargetKey, index: &mut Index) {
        let sleeper = source.caches.sleepers.get(&key.namespace, &key.sleeper);
        let state = sleeper
            .as_ref()
            .and_then(|sleeper| sleeper.status.as_ref())
            .map(|status| &status.state);
        let Some(state) = state.cloned().or_else(|| sleeper.map(|_| Default::default())) else {
            return;
        };
        let port = ServicePort::Number(key.port);
        let endpoints = source.endpoints.get(&key.namespace, &key.service, &port);
        let now = Timestamp::now();
        let drain_grace = source.drain_grace;
        self.aging = answers(&state, now, drain_grace).is_some();
        let seen = view(&state, &endpoints.ready, now, drain_grace);
        let pods: BTreeSet<_> = endpoints.ready.into_iter().map(|pod| pod.pod).collect();
        index.pods_changed(key, &self.pods, &pods);
        self.pods = pods;
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

fn spec(
    key: &RouteTargetKey,
    facts: &Facts,
    endpoints: watch::Receiver<Arc<EndpointsView>>,
) -> RouteTargetSpec {
    RouteTargetSpec {
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
