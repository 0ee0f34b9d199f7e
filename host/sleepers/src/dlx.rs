//! The replicas of the DLX, from the EndpointSlices of its own Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dormouse_kubernetes::services::tcp_ports;
use dormouse_kubernetes::slices::addresses;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::caches::Caches;
use crate::since::Since;

/// Name of the port of the DLX's Service where demand is asked for.
const ADMIN: &str = "admin";

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

/// Finds the replicas of the DLX. It reads the caches and makes no request. Cheap to clone.
#[derive(Clone)]
pub struct DlxReplicas {
    caches: Arc<Caches>,
    /// Namespace and name of the DLX's Service. None: there is no DLX.
    service: Option<(String, String)>,
    /// Since when no replica has been ready.
    absence: Arc<Since<()>>,
}

impl DlxReplicas {
    pub(crate) fn new(caches: Arc<Caches>, service: Option<(String, String)>) -> Self {
        Self {
            caches,
            service,
            absence: Arc::default(),
        }
    }

    /// Whether this is the Service of the DLX.
    pub(crate) fn is_service(&self, namespace: &str, name: &str) -> bool {
        let service = self.service.as_ref();
        service.is_some_and(|(of, called)| of == namespace && called == name)
    }

    /// The endpoints of the DLX. Each call also notes whether there is none, which `absent_since` tells.
    pub fn endpoints(&self) -> DlxEndpoints {
        let Some((namespace, name)) = &self.service else {
            return DlxEndpoints {
                absent_since: self.absence.update((), true, Timestamp::now()),
                ..DlxEndpoints::default()
            };
        };
        let slices = self.caches.slices_of(namespace, name);
        let addresses = addresses_where(&slices, |ready, terminating| ready && !terminating);
        let ready = one_family(addresses.clone());
        let service = self.caches.service_or_dlx(namespace, name);
        let admin_port = service
            .and_then(|service| admin_port(&service))
            .or_else(|| admin_port_of_slices(&slices));
        DlxEndpoints {
            absent_since: self.absence.update((), ready.is_empty(), Timestamp::now()),
            draining: addresses_where(&slices, |_, terminating| terminating),
            ready,
            addresses,
            admin_port,
        }
    }

    /// On which node each replica runs, as far as the slices say.
    pub(crate) fn nodes(&self) -> BTreeMap<IpAddr, String> {
        let mut nodes = BTreeMap::new();
        for slice in self.slices() {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(node) = &endpoint.node_name else { continue };
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                nodes.extend(addresses.map(|address: IpAddr| (address, node.clone())));
            }
        }
        nodes
    }

    /// Every address at which a replica may be.
    pub(crate) fn all_addresses(&self) -> Vec<IpAddr> {
        addresses_where(&self.slices(), |_, _| true)
    }

    fn slices(&self) -> Vec<Arc<EndpointSlice>> {
        let service = self.service.as_ref();
        service.map_or_else(Vec::new, |(namespace, name)| {
            self.caches.slices_of(namespace, name)
        })
    }
}

/// Addresses of endpoints by whether they are ready and whether they are terminating.
fn addresses_where(slices: &[Arc<EndpointSlice>], counts: impl Fn(bool, bool) -> bool) -> Vec<IpAddr> {
    addresses(slices.iter().map(AsRef::as_ref), counts)
}

fn admin_port(service: &Service) -> Option<u16> {
    let port = tcp_ports(service).find(|port| port.name.as_deref() == Some(ADMIN))?;
    // The DLX is dialled at its pods' addresses, so the target port counts where it is a number.
    match &port.target_port {
        Some(IntOrString::Int(target)) if *target > 0 => u16::try_from(*target).ok(),
        _ => u16::try_from(port.port).ok(),
    }
}

fn admin_port_of_slices(slices: &[Arc<EndpointSlice>]) -> Option<u16> {
    let ports = slices.iter().flat_map(|slice| slice.ports.iter().flatten());
    ports
        .filter(|port| port.name.as_deref() == Some(ADMIN))
        .find_map(|port| u16::try_from(port.port?).ok())
}

/// A slice holds addresses of one family only: IPv4 where there is any.
fn one_family(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.into_iter().filter(IpAddr::is_ipv4).collect()
    } else {
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_families_come_down_to_ipv4() {
        let both = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(one_family(both), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let six = vec!["fd00::1".parse().unwrap()];
        assert_eq!(one_family(six.clone()), six);
    }
}
