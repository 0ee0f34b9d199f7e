//! Caches of everything that the protocol reads, and how a Sleeper is found in them.

use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::slices::SERVICE_NAME_LABEL;
use dormouse_kubernetes::{
    ApiServer, Cache, Cached, ClusterError, Hook, IndexKey, Reflectors, Scope, WatchedKind, scaled_by,
};
use dormouse_model::{ObjectRef, Owner};
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use tokio_util::sync::DropGuard;

use crate::api::Sleeper;
use crate::slices::{is_own, own_slice_name};
use crate::{Config, SleeperKey};

/// The kind of Sleepers.
pub const SLEEPER: WatchedKind = WatchedKind::of("sleepers.dormouse.dev");

/// Caches of everything that is watched. Their reflectors end when the caches are dropped.
pub struct Caches {
    /// Sleepers, found by [`of_owner`], [`naming_service`], [`naming_workload`] and [`claiming_port`].
    pub sleepers: Arc<Cache<Sleeper>>,
    /// Services.
    pub services: Arc<Cache<Service>>,
    /// EndpointSlices, found by the name of their Service.
    pub slices: Arc<Cache<EndpointSlice>>,
    /// Pods, found by their labels.
    pub pods: Arc<Cache<Pod>>,
    /// HorizontalPodAutoscalers, found by what they scale. Nobody waits for its first list: where they may not be watched, they are
    /// listed when they are asked for.
    pub autoscalers: Arc<Cache<HorizontalPodAutoscaler>>,
    /// Ingresses, where they are watched.
    pub ingresses: Option<Arc<Cache<Ingress>>>,
    /// Slices of the DLX's own Service when that is outside the scope.
    pub dlx_slices: Option<Arc<Cache<EndpointSlice>>>,
    /// The DLX's own Service when that is outside the scope.
    pub dlx_services: Option<Arc<Cache<Service>>>,
    /// Which namespaces all but the last two hold.
    scope: Scope,
    _ends_reflectors: DropGuard,
}

impl Caches {
    /// Starts the reflectors without waiting for them. `ends_reflectors` cancels the token of `reflectors`.
    pub(crate) fn start(
        server: &ApiServer,
        config: &Config,
        reflectors: &Reflectors,
        phase_hook: Hook<Sleeper>,
        ends_reflectors: DropGuard,
    ) -> Self {
        let (client, scope) = (server.client(), &config.scope);
        let outside = config
            .dlx_service
            .as_ref()
            .filter(|(namespace, _)| !scope.includes(namespace))
            .map(|(namespace, _)| namespace.as_str());
        Self {
            sleepers: reflectors.start_with(scope.api(client), phase_hook),
            services: reflectors.start(scope.api(client)),
            slices: reflectors.start(scope.api(client)),
            pods: reflectors.start(scope.api(client)),
            autoscalers: reflectors.start_optional(scope.api(client)),
            ingresses: config.ingresses.then(|| reflectors.start(scope.api(client))),
            dlx_slices: outside.map(|namespace| reflectors.start(server.api(namespace))),
            dlx_services: outside.map(|namespace| reflectors.start(server.api(namespace))),
            scope: scope.clone(),
            _ends_reflectors: ends_reflectors,
        }
    }

    /// The Sleeper of a resource.
    pub fn sleeper(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        let found = self.sleepers.get(&key.namespace, &key.object_name());
        found.filter(|sleeper| SleeperKey::of(sleeper) == *key)
    }

    /// All Sleepers of an owner, or of all objects of a kind together.
    pub fn sleepers_of(&self, owner: &Owner) -> Vec<Arc<Sleeper>> {
        let mut found = self.sleepers.with(of_owner(owner));
        found.retain(|sleeper| owner.includes(&sleeper.spec.owner()));
        found
    }

    /// All Sleepers that name a workload.
    pub(crate) fn sleepers_naming(&self, namespace: &str, workload: &ObjectRef) -> Vec<Arc<Sleeper>> {
        let mut found = self.sleepers.with(naming_workload(namespace, workload));
        found.retain(|sleeper| {
            let mut named = sleeper.spec.workloads.iter();
            sleeper.namespace().as_deref() == Some(namespace) && named.any(|named| named.is_same(workload))
        });
        found
    }

    /// All Ingresses; none where they are not watched.
    pub fn all_ingresses(&self) -> Vec<Arc<Ingress>> {
        let ingresses = self.ingresses.as_ref();
        ingresses.map(|cache| cache.all()).unwrap_or_default()
    }

    /// EndpointSlices of a Service, also of the DLX's own outside the scope.
    pub(crate) fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let slices = match &self.dlx_slices {
            Some(slices) if !self.scope.includes(namespace) => slices,
            _ => &self.slices,
        };
        let mut found = slices.with(IndexKey::label(namespace, SERVICE_NAME_LABEL, service));
        found.retain(|slice| slice.namespace().as_deref() == Some(namespace) && is_slice_of(slice, service));
        found
    }

    /// The HorizontalPodAutoscaler that scales a workload, if there is one, as far as is known.
    pub(crate) fn autoscaler_of(
        &self,
        namespace: &str,
        workload: &ObjectRef,
    ) -> Option<Arc<HorizontalPodAutoscaler>> {
        let scaling = self
            .autoscalers
            .with(scaled_by(namespace, &workload.kind, &workload.name));
        scaling.into_iter().find(|autoscaler| {
            let target = &autoscaler.spec.scale_target_ref;
            target.kind == workload.kind && target.name == workload.name
        })
    }

    /// Dormouse's slice of a Service.
    pub(crate) fn own_slice(&self, namespace: &str, service: &str) -> Option<Arc<EndpointSlice>> {
        let slice = self.slices.get(namespace, &own_slice_name(service))?;
        (is_own(slice.labels()) && is_slice_of(&slice, service)).then_some(slice)
    }

    /// A Service, also when it is the DLX's own outside the scope.
    pub(crate) fn service_or_dlx(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let service = self.services.get(namespace, name);
        service.or_else(|| self.dlx_services.as_ref()?.get(namespace, name))
    }

    /// Waits for the first lists of all reflectors.
    ///
    /// # Errors
    /// [`ClusterError::Sync`], naming the kind that is missing and what helps.
    pub(crate) async fn wait_synced(&self, after: Duration) -> Result<(), ClusterError> {
        let deadline = tokio::time::Instant::now() + after;
        for waiting in self.waits() {
            if tokio::time::timeout_at(deadline, waiting.wait).await.is_err() {
                let error = (waiting.error)().unwrap_or_else(|| "no answer from the API server".to_owned());
                let hint = if waiting.kind == SLEEPER {
                    format!("{error}. Is the Sleeper CRD installed? (`dormouse crd | kubectl apply -f -`)")
                } else {
                    format!("{error}. Does the service account have get, list and watch on it?")
                };
                return Err(ClusterError::Sync {
                    kind: waiting.kind.plural(),
                    after,
                    hint,
                });
            }
        }
        Ok(())
    }

    /// Whether all reflectors have their first list.
    pub fn synced(&self) -> bool {
        self.waits().iter().all(|waiting| (waiting.synced)())
    }

    fn waits(&self) -> Vec<Waiting<'_>> {
        let mut waits = vec![
            waiting(&self.sleepers),
            waiting(&self.services),
            waiting(&self.slices),
            waiting(&self.pods),
        ];
        waits.extend(self.ingresses.as_ref().map(waiting));
        waits.extend(self.dlx_slices.as_ref().map(waiting));
        waits.extend(self.dlx_services.as_ref().map(waiting));
        waits
    }
}

fn is_slice_of(slice: &EndpointSlice, service: &str) -> bool {
    let of = slice.labels().get(SERVICE_NAME_LABEL);
    of.is_some_and(|of| of == service)
}

struct Waiting<'a> {
    kind: WatchedKind,
    wait: BoxFuture<'a, ()>,
    synced: Box<dyn Fn() -> bool + 'a>,
    error: Box<dyn Fn() -> Option<String> + Send + Sync + 'a>,
}

fn waiting<K: Cached>(cache: &Arc<Cache<K>>) -> Waiting<'_> {
    Waiting {
        kind: K::KIND,
        wait: Box::pin(cache.wait_synced()),
        synced: Box::new(|| cache.synced()),
        error: Box::new(|| cache.last_error()),
    }
}

/// Sleepers of an owner; all objects of a kind together are one, too.
pub fn of_owner(owner: &Owner) -> IndexKey {
    IndexKey::of(("owner", owner))
}

/// Sleepers that name a Service.
pub fn naming_service(namespace: &str, service: &str) -> IndexKey {
    IndexKey::of(("service", namespace, service))
}

/// Sleepers that name a workload, whatever its version.
pub fn naming_workload(namespace: &str, workload: &ObjectRef) -> IndexKey {
    IndexKey::of(("workload", namespace, &workload.kind, &workload.name))
}

/// Sleepers that hold a DLX port.
pub fn claiming_port(port: u16) -> IndexKey {
    IndexKey::of(("dlx-port", port))
}

impl Cached for Sleeper {
    const KIND: WatchedKind = SLEEPER;

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
    }

    // Every version counts: writes are conditional on it.
    fn same(&self, other: &Self) -> bool {
        self == other
    }

    fn index(&self) -> Vec<IndexKey> {
        let namespace = self.namespace().unwrap_or_default();
        let owner = self.spec.owner();
        let mut keys = vec![of_owner(&owner), of_owner(&Owner::all_of(owner.kind))];
        keys.extend(
            self.spec
                .services
                .iter()
                .map(|service| naming_service(&namespace, service)),
        );
        let workloads = self.spec.workloads.iter();
        keys.extend(workloads.map(|workload| naming_workload(&namespace, workload)));
        let ports = self.status.iter().flat_map(|status| &status.state.ports);
        keys.extend(ports.map(|port| claiming_port(port.dlx_port)));
        keys
    }
}
