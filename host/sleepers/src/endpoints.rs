//! Where the pods behind a Service are, and where the DLX is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dormouse_kubernetes::IndexKey;
use dormouse_kubernetes::pods::{PodEndpoint, endpoint, trouble};
use dormouse_kubernetes::services::{ServicePort, target_port, tcp_ports};
use dormouse_kubernetes::slices::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL, addresses};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::Cluster;
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

/// The DLX, from the endpoints of its own Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DlxEndpoints {
    /// Addresses of ready replicas, sorted, of one address family (IPv4 if there is any).
    pub ready: Vec<IpAddr>,
    /// Addresses of ready replicas of all families, sorted: on a dual-stack cluster, two for each.
    pub addresses: Vec<IpAddr>,
    /// Addresses of replicas that are ending but still serve: they may hold requests.
    pub draining: Vec<IpAddr>,
    /// Number of the port named `admin`.
    pub admin_port: Option<u16>,
    /// Since when there has been no ready replica, if so.
    pub absent_since: Option<Timestamp>,
}

impl Cluster {
    /// Ready pods behind a Service port. From the reflectors: no request is made.
    pub fn endpoints(&self, namespace: &str, service: &str, port: &ServicePort) -> Endpoints {
        let Some(service) = self.service(namespace, service) else {
            return Endpoints::none(NoEndpoints::NoService);
        };
        self.endpoints_of(namespace, &service, port)
    }

    pub(crate) fn endpoints_of(&self, namespace: &str, service: &Service, port: &ServicePort) -> Endpoints {
        let Some(target) = target_port(service, port) else {
            return Endpoints::none(NoEndpoints::NoPort);
        };
        let Some(selector) = original_selector(service).ok().flatten() else {
            return Endpoints::none(NoEndpoints::NoSelector);
        };
        let dlx = self.dlx_addresses();
        let mut ready: Vec<_> = self
            .inner
            .caches
            .pods
            .selected(namespace, &selector)
            .iter()
            .filter_map(|pod| endpoint(pod, &target))
            .filter(|endpoint| !dlx.contains(&endpoint.address.ip()))
            .collect();
        ready.sort();
        Endpoints { ready, problem: None }
    }

    /// The DLX. From the reflectors: no request is made.
    pub fn dlx_endpoints(&self) -> DlxEndpoints {
        let Some((namespace, service)) = &self.inner.config.dlx_service else {
            return DlxEndpoints {
                absent_since: self.inner.absence.update((), true, self.now()),
                ..DlxEndpoints::default()
            };
        };
        let slices = self.slices_of(namespace, service);
        let every = addresses(slices.iter().map(AsRef::as_ref), |ready, terminating| {
            ready && !terminating
        });
        let ready = one_family(every.clone());
        let draining = addresses(slices.iter().map(AsRef::as_ref), |_, terminating| terminating);
        let admin_port = self
            .any_service(namespace, service)
            .and_then(|service| admin_port(&service));
        let admin_port = admin_port.or_else(|| {
            let ports = slices.iter().flat_map(|slice| slice.ports.iter().flatten());
            ports
                .filter(|port| port.name.as_deref() == Some("admin"))
                .find_map(|port| u16::try_from(port.port?).ok())
        });
        let absent_since = self.inner.absence.update((), ready.is_empty(), self.now());
        DlxEndpoints {
            ready,
            addresses: every,
            draining,
            admin_port,
            absent_since,
        }
    }

    /// On which node each DLX runs, as far as its slices say.
    pub(crate) fn dlx_nodes(&self) -> BTreeMap<IpAddr, String> {
        let Some((namespace, service)) = &self.inner.config.dlx_service else {
            return BTreeMap::new();
        };
        let mut nodes = BTreeMap::new();
        for slice in self.slices_of(namespace, service) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(node) = &endpoint.node_name else { continue };
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                nodes.extend(addresses.map(|address: IpAddr| (address, node.clone())));
            }
        }
        nodes
    }

    /// Slices of a Service, from the reflectors.
    pub(crate) fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let caches = &self.inner.caches;
        let slices = match &caches.dlx_slices {
            Some(slices) if !self.inner.config.scope.includes(namespace) => slices,
            _ => &caches.slices,
        };
        let mut found = slices.with(IndexKey::label(namespace, SERVICE_NAME_LABEL, service));
        found.retain(|slice| {
            slice.namespace().as_deref() == Some(namespace)
                && slice
                    .labels()
                    .get(SERVICE_NAME_LABEL)
                    .is_some_and(|of| of == service)
        });
        found
    }

    /// A Service, also when it is the DLX's own outside the scope.
    fn any_service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let caches = &self.inner.caches;
        caches
            .services
            .get(namespace, name)
            .or_else(|| caches.dlx_services.as_ref()?.get(namespace, name))
    }

    /// Dormouse's slice of a Service, as the reflector shows it.
    pub(crate) fn own_slice(&self, namespace: &str, service: &str) -> Option<Arc<EndpointSlice>> {
        let slice = self
            .inner
            .caches
            .slices
            .get(namespace, &own_slice_name(service))?;
        let of = slice.labels().get(SERVICE_NAME_LABEL);
        (is_own(slice.labels()) && of.is_some_and(|of| of == service)).then_some(slice)
    }

    /// Every address at which a DLX may be.
    fn dlx_addresses(&self) -> Vec<IpAddr> {
        let Some((namespace, service)) = &self.inner.config.dlx_service else {
            return Vec::new();
        };
        let slices = self.slices_of(namespace, service);
        addresses(slices.iter().map(AsRef::as_ref), |_, _| true)
    }

    /// Why pods behind a Service do not become ready, as far as they say: the most telling reason.
    pub(crate) fn pod_trouble(&self, namespace: &str, service: &str) -> Option<String> {
        let service = self.service(namespace, service)?;
        let selector = original_selector(&service).ok().flatten()?;
        self.inner
            .caches
            .pods
            .selected(namespace, &selector)
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .find_map(|pod| trouble(pod))
    }
}

fn admin_port(service: &Service) -> Option<u16> {
    let port = tcp_ports(service).find(|port| port.name.as_deref() == Some("admin"))?;
    // The DLX is dialled at its pods' addresses, so the target port counts where it is a number.
    match &port.target_port {
        Some(IntOrString::Int(target)) if *target > 0 => u16::try_from(*target).ok(),
        _ => u16::try_from(port.port).ok(),
    }
}

/// A slice holds addresses of one family only: IPv4 where there is any.
fn one_family(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.into_iter().filter(IpAddr::is_ipv4).collect()
    } else {
        addresses
    }
}

/// Whether a slice is Dormouse's.
pub(crate) fn is_own(labels: &BTreeMap<String, String>) -> bool {
    labels
        .get(MANAGED_BY_LABEL)
        .is_some_and(|manager| manager == crate::api::MANAGED_BY)
}

/// Whether a slice leads to a DLX that is gone, or to nobody, although there is one that is ready. Ready ones that are missing
/// besides another may wait; one too many costs requests.
pub(crate) fn leads_astray(slice: &EndpointSlice, ready: &[IpAddr]) -> bool {
    let addresses = addresses(std::iter::once(slice), |_, _| true);
    let leads_right = !addresses.is_empty() && addresses.iter().all(|address| ready.contains(address));
    !ready.is_empty() && !leads_right
}

/// Name of Dormouse's slice of a Service.
pub(crate) fn own_slice_name(service: &str) -> String {
    format!("{service}-dormouse")
}

/// The Service of a slice that has the name of one of Dormouse's.
pub(crate) fn service_of_own(slice: &str) -> Option<String> {
    slice.strip_suffix("-dormouse").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(&["127.0.0.1"], &["127.0.0.1"], false)]
    #[case(&["127.0.0.1"], &["127.0.0.1", "127.0.0.2"], false)]
    #[case(&["127.0.0.1", "127.0.0.2"], &["127.0.0.1"], true)]
    #[case(&["127.0.0.2"], &["127.0.0.1"], true)]
    #[case(&[], &["127.0.0.1"], true)]
    #[case(&["127.0.0.2"], &[], false)]
    #[case(&[], &[], false)]
    fn a_slice_leads_astray_only_if_there_is_somebody_to_lead_to(
        #[case] listed: &[&str],
        #[case] ready: &[&str],
        #[case] astray: bool,
    ) {
        let endpoints: Vec<_> = listed
            .iter()
            .map(|address| json!({ "addresses": [address] }))
            .collect();
        let slice = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": endpoints });
        let ready: Vec<IpAddr> = ready.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(
            leads_astray(&serde_json::from_value(slice).unwrap(), &ready),
            astray
        );
    }

    #[test]
    fn mixed_families_come_down_to_ipv4() {
        let both = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(one_family(both), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let six = vec!["fd00::1".parse().unwrap()];
        assert_eq!(one_family(six.clone()), six);
    }
}
