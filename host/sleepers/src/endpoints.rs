//! The pods behind a Service.

use std::net::SocketAddr;
use std::sync::Arc;

use dormouse_kubernetes::pods::{PodEndpoint, endpoint, trouble};
use dormouse_kubernetes::services::{ServicePort, target_port, tcp_ports};
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::caches::Caches;
use crate::dlx::DlxReplicas;
use crate::services::original_selector;

/// Why a Service has no endpoints by its very shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoEndpoints {
    /// No such Service.
    NoService,
    /// The Service has no such TCP port.
    NoPort,
    /// The Service selects nothing, or its original selector is lost.
    NoSelector,
}

/// Pods behind a Service port, as its owner meant it: by the selector from before it was parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Ready pods that are not terminating, ordered by address. Never an address of the DLX.
    pub ready: Vec<PodEndpoint>,
    /// Why there can be none.
    pub problem: Option<NoEndpoints>,
}

impl Endpoints {
    /// The addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ready.iter().map(|endpoint| endpoint.address).collect()
    }

    fn none(problem: NoEndpoints) -> Self {
        Self {
            ready: Vec::new(),
            problem: Some(problem),
        }
    }
}

/// Finds the pods behind Services by their original selectors. It reads the caches and makes no request. Cheap to clone.
#[derive(Clone)]
pub struct ServiceEndpoints {
    caches: Arc<Caches>,
    dlx: DlxReplicas,
}

impl ServiceEndpoints {
    pub(crate) fn new(caches: Arc<Caches>, dlx: DlxReplicas) -> Self {
        Self { caches, dlx }
    }

    /// Ready pods behind a Service port.
    pub fn get(&self, namespace: &str, service: &str, port: &ServicePort) -> Endpoints {
        let Some(service) = self.caches.services.get(namespace, service) else {
            return Endpoints::none(NoEndpoints::NoService);
        };
        self.of_port(namespace, &service, port)
    }

    /// Ready pods behind any TCP port of a Service.
    pub(crate) fn of_service(&self, namespace: &str, service: &Service) -> impl Iterator<Item = PodEndpoint> {
        tcp_ports(service)
            .filter_map(|port| u16::try_from(port.port).ok())
            .flat_map(move |port| self.of_port(namespace, service, &ServicePort::Number(port)).ready)
    }

    fn of_port(&self, namespace: &str, service: &Service, port: &ServicePort) -> Endpoints {
        let Some(target) = target_port(service, port) else {
            return Endpoints::none(NoEndpoints::NoPort);
        };
        let Some(selector) = original_selector(service).ok().flatten() else {
            return Endpoints::none(NoEndpoints::NoSelector);
        };
        let dlx = self.dlx.all_addresses();
        let pods = self.caches.pods.selected(namespace, &selector);
        let mut ready: Vec<_> = pods
            .iter()
            .filter_map(|pod| endpoint(pod, &target))
            .filter(|endpoint| !dlx.contains(&endpoint.address.ip()))
            .collect();
        ready.sort();
        Endpoints { ready, problem: None }
    }

    /// Pods that the original selector of a Service selects, ready or not.
    pub(crate) fn pods_of(&self, namespace: &str, service: &Service) -> Vec<Arc<Pod>> {
        let selector = original_selector(service).ok().flatten().unwrap_or_default();
        self.caches.pods.selected(namespace, &selector)
    }

    /// Why pods behind a Service do not become ready, as far as they say: the most telling reason.
    pub(crate) fn pod_trouble(&self, namespace: &str, service: &str) -> Option<String> {
        let service = self.caches.services.get(namespace, service)?;
        let selector = original_selector(&service).ok().flatten()?;
        let pods = self.caches.pods.selected(namespace, &selector);
        pods.iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .find_map(|pod| trouble(pod))
    }
}
