//! The cluster's side of the data plane: routes and endpoints from the reflectors, wakes through the plugins.
//!
//! Every change of the cluster touches only what it concerns: a pod the targets whose Service selects it, a Sleeper its
//! own targets. The table of routes is made anew only when something that routes depend on has changed, and changes that come
//! while it costs much to make are taken together.

mod ingress_paths;
mod pace;
mod plan;
mod resolve;
mod targets;
mod view;
mod waker;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{Change, Signals, WatchedKind};
use dormouse_plugin::PluginSet;
use dormouse_sleepers::lifecycle::DivertedPort;
use dormouse_sleepers::{Caches, Cluster, SLEEPER, ServiceEndpoints};
use k8s_openapi::api::core::v1::ServicePort;
use kube::ResourceExt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::cluster::pace::Pace;
use crate::cluster::plan::Plan;
use crate::cluster::resolve::Resolver;
use crate::cluster::targets::Targets;
use crate::cluster::waker::ClusterWaker;
use crate::{DemandCounters, RouteTable, Waker};

/// How often targets are looked at whose pods are not old enough, or too old, to count: time changes that, not an event.
const AGING: Duration = Duration::from_secs(1);

/// Keeps the routes and endpoints of a data plane as the cluster and the plugins say, and wakes through them.
pub struct RouteController {
    caches: Arc<Caches>,
    signals: Signals,
    endpoints: ServiceEndpoints,
    waker: Arc<ClusterWaker>,
    /// Namespace and name of the DLX's own Service.
    dlx_service: Option<(String, String)>,
    drain_grace: Duration,
    plugins: Arc<PluginSet>,
    target_port: Option<u16>,
    routes: Arc<RouteTable>,
}

impl RouteController {
    /// `target_port` is the Service port of requests that name their target by header, where the plugin names none. None: what
    /// the settings of the plugins say.
    pub fn new(cluster: &Cluster, plugins: Arc<PluginSet>, target_port: Option<u16>) -> Self {
        let config = cluster.config();
        Self {
            caches: Arc::clone(cluster.caches()),
            signals: cluster.signals().clone(),
            endpoints: cluster.endpoints().clone(),
            waker: Arc::new(ClusterWaker::new(cluster, Arc::clone(&plugins))),
            dlx_service: config.dlx_service.clone(),
            drain_grace: config.timings.drain_grace,
            plugins,
            target_port,
            routes: Arc::default(),
        }
    }

    /// The routes that [`run`](Self::run) publishes.
    pub fn routes(&self) -> Arc<RouteTable> {
        Arc::clone(&self.routes)
    }

    /// Wakes what the routes lead to.
    pub fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    /// Publishes routes and endpoints as they change, until `shutdown`. `demand_counters` is that of the data plane which uses the routes.
    pub async fn run(self, demand_counters: DemandCounters, shutdown: CancellationToken) {
        let mut changes = self.signals.changes();
        let mut loaded = self.plugins.changes();
        let resolver = Resolver::new(Arc::clone(&self.plugins), shutdown.child_token());
        let targets = Targets::new(
            Arc::clone(&self.caches),
            self.endpoints.clone(),
            self.drain_grace,
            demand_counters,
        );
        let mut publisher = RoutePublisher {
            controller: self,
            resolver,
            targets,
            plan: None,
            facts: RouteFacts::default(),
            stale: false,
            pace: Pace::default(),
        };
        // What is there from the beginning has not changed when it is heard of.
        publisher.facts.take_in(&publisher.controller.caches);
        publisher.replan();
        // Not a sleep that begins anew with each change: where something changes every second it would never end.
        let mut ages = tokio::time::interval(AGING);
        ages.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let seen = tokio::select! {
                seen = next_batch(&mut changes) => match seen {
                    Some(seen) => seen,
                    None => return,
                },
                Ok(()) = loaded.changed() => ChangeBatch { routes: true, ..ChangeBatch::default() },
                () = publisher.resolver.changed() => ChangeBatch { routes: true, ..ChangeBatch::default() },
                _ = ages.tick() => ChangeBatch { aging: true, ..ChangeBatch::default() },
                () = publisher.pace.free(), if publisher.stale => ChangeBatch::default(),
                () = shutdown.cancelled() => return,
            };
            publisher.take(seen);
        }
    }
}

/// What has changed since the last look.
#[derive(Default)]
struct ChangeBatch {
    changes: Vec<Change>,
    /// Changes were missed: look at everything.
    everything: bool,
    /// Routes may have changed for another reason.
    routes: bool,
    /// Time has passed.
    aging: bool,
}

/// Waits for a change and takes along what has come with it. None: the cluster has been shut down.
async fn next_batch(changes: &mut Receiver<Change>) -> Option<ChangeBatch> {
    let mut seen = ChangeBatch::default();
    match changes.recv().await {
        Ok(change) => seen.changes.push(change),
        Err(RecvError::Lagged(_)) => seen.everything = true,
        Err(RecvError::Closed) => return None,
    }
    loop {
        match changes.try_recv() {
            Ok(change) => seen.changes.push(change),
            Err(TryRecvError::Lagged(_)) => seen.everything = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(seen),
        }
    }
}

/// A [`RouteController`] at work.
struct RoutePublisher {
    controller: RouteController,
    resolver: Resolver,
    targets: Targets,
    plan: Option<Plan>,
    /// What routes depend on, of what was there at first and what has changed since.
    facts: RouteFacts,
    /// Routes have changed since the plan was made.
    stale: bool,
    pace: Pace,
}

/// What routes depend on. A Sleeper changes with every step of its protocol, and its routes hardly ever.
#[derive(Default)]
struct RouteFacts {
    sleepers: HashMap<(String, String), Option<SleeperFacts>>,
    services: HashMap<(String, String), Option<ServiceFacts>>,
}

type ServiceFacts = (Vec<ServicePort>, Option<String>);
type SleeperFacts = (Option<String>, Option<i64>, Vec<DivertedPort>);

impl RouteFacts {
    /// Notes what there is: all Sleepers, and the Services that they name.
    fn take_in(&mut self, caches: &Caches) {
        for sleeper in caches.sleepers.all() {
            let namespace = sleeper.namespace().unwrap_or_default();
            for service in &sleeper.spec.services {
                self.service_changed(caches, &(namespace.clone(), service.clone()));
            }
            self.sleeper_changed(caches, &(namespace, sleeper.name_any()));
        }
    }

    fn sleeper_changed(&mut self, caches: &Caches, at: &(String, String)) -> bool {
        let facts = caches.sleepers.get(&at.0, &at.1).map(|sleeper| {
            let ports = sleeper
                .status
                .as_ref()
                .map(|status| status.state.ports.clone())
                .unwrap_or_default();
            (sleeper.uid(), sleeper.metadata.generation, ports)
        });
        changed(&mut self.sleepers, at, facts)
    }

    fn service_changed(&mut self, caches: &Caches, at: &(String, String)) -> bool {
        let facts = caches.services.get(&at.0, &at.1).map(|service| {
            let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone());
            let idle = plan::connection_idle_text(&service).map(str::to_owned);
            (ports.unwrap_or_default(), idle)
        });
        changed(&mut self.services, at, facts)
    }
}

/// Notes the facts. What is gone is not kept.
fn changed<T: PartialEq>(
    known: &mut HashMap<(String, String), Option<T>>,
    at: &(String, String),
    facts: Option<T>,
) -> bool {
    if facts.is_none() {
        known.remove(at);
        return true;
    }
    match known.get_mut(at) {
        Some(before) if *before == facts => false,
        Some(before) => {
            *before = facts;
            true
        }
        None => {
            known.insert(at.clone(), facts);
            true
        }
    }
}

impl RoutePublisher {
    fn take(&mut self, seen: ChangeBatch) {
        let (mut routes, mut everything) = (seen.routes, seen.everything);
        let mut sleepers = BTreeSet::new();
        let mut services = BTreeSet::new();
        for change in seen.changes {
            match change.kind {
                WatchedKind::POD => self.targets.refresh_pod(&change),
                SLEEPER => {
                    sleepers.insert((change.namespace, change.name));
                }
                WatchedKind::SERVICE => {
                    services.insert((change.namespace, change.name));
                }
                WatchedKind::ENDPOINT_SLICE => {
                    // Only the DLX's own addresses matter: they are never endpoints.
                    let own = self.controller.dlx_service.as_ref();
                    everything |=
                        own.is_some_and(|(ns, name)| *ns == change.namespace && *name == change.name);
                }
                WatchedKind::INGRESS => routes = true,
                _ => {}
            }
        }
        if everything {
            self.replan();
            self.targets.refresh_all();
            return;
        }
        // First those who wait, then the routes.
        for at in &sleepers {
            self.targets.refresh_sleeper(&at.0, &at.1);
            routes |= self.facts.sleeper_changed(&self.controller.caches, at);
        }
        for at in &services {
            self.targets.refresh_service(&at.0, &at.1);
            routes |= self.facts.service_changed(&self.controller.caches, at);
        }
        self.stale |= routes;
        if self.stale && self.pace.is_free() {
            self.replan();
        }
        if seen.aging {
            self.targets.refresh_aging();
        }
    }

    /// Makes the routes anew, and publishes them if they are others.
    fn replan(&mut self) {
        let began = Instant::now();
        self.stale = false;
        self.plan_anew();
        self.pace.took(began);
    }

    fn plan_anew(&mut self) {
        let RouteController {
            caches,
            plugins,
            target_port,
            routes,
            ..
        } = &self.controller;
        let target_port = target_port.or_else(|| plugins.defaults().target_port);
        let plan = Plan::make(caches, plugins, &mut self.resolver, target_port);
        if self.plan.as_ref() == Some(&plan) {
            return;
        }
        for unclear in &plan.unclear {
            if self
                .plan
                .as_ref()
                .is_none_or(|before| !before.unclear.contains(unclear))
            {
                tracing::warn!(
                    path = unclear,
                    "a path of an Ingress is not routed: it looks like a regular expression that is not supported here, \
                     or its controller is not known"
                );
            }
        }
        for (service, text) in &plan.misread {
            let before = self.plan.as_ref().and_then(|before| before.misread.get(service));
            if before != Some(text) {
                tracing::warn!(
                    service,
                    text,
                    "{} is no span of time such as 90s or 5m; the default holds",
                    plan::CONNECTION_IDLE
                );
            }
        }
        // Endpoints are known before the first request can find the route.
        let table = self.targets.adopt(&plan);
        routes.publish(table);
        self.plan = Some(plan);
    }
}
