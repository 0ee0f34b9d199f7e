//! Where the pods behind a Service are, and where the DLX is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::Cluster;
use crate::services::{original_selector, selects, tcp_ports};

/// The label that names the Service of an EndpointSlice.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label that names who writes an EndpointSlice.
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServicePort {
    /// By number.
    Number(u16),
    /// By name; empty for an unnamed port.
    Name(String),
    /// The first TCP port.
    #[default]
    First,
}

impl From<u16> for ServicePort {
    fn from(port: u16) -> Self {
        Self::Number(port)
    }
}

/// A pod that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodEndpoint {
    /// Pod address and target port.
    pub address: SocketAddr,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// When the pod was created.
    pub created: Option<Timestamp>,
}

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
            .stores
            .pods
            .in_namespace(namespace)
            .iter()
            .filter(|pod| selects(&selector, pod.labels()))
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
        let slices = self.inner.slices_of(namespace, service);
        let every = addresses(slices.iter().map(AsRef::as_ref), |ready, terminating| {
            ready && !terminating
        });
        let ready = one_family(every.clone());
        let draining = addresses(slices.iter().map(AsRef::as_ref), |_, terminating| terminating);
        let admin_port = self
            .inner
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
        for slice in self.inner.slices_of(namespace, service) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(node) = &endpoint.node_name else { continue };
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                nodes.extend(addresses.map(|address: IpAddr| (address, node.clone())));
            }
        }
        nodes
    }

    /// Dormouse's slice of a Service, as the reflector shows it.
    pub(crate) fn own_slice(&self, namespace: &str, service: &str) -> Option<Arc<EndpointSlice>> {
        let slice = self
            .inner
            .stores
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
        let slices = self.inner.slices_of(namespace, service);
        addresses(slices.iter().map(AsRef::as_ref), |_, _| true)
    }

    /// Why pods behind a Service do not become ready, as far as they say: the most telling reason.
    pub(crate) fn pod_trouble(&self, namespace: &str, service: &str) -> Option<String> {
        let service = self.service(namespace, service)?;
        let selector = original_selector(&service).ok().flatten()?;
        self.inner
            .stores
            .pods
            .in_namespace(namespace)
            .iter()
            .filter(|pod| selects(&selector, pod.labels()) && pod.metadata.deletion_timestamp.is_none())
            .find_map(|pod| trouble(pod))
    }
}

/// The port to dial on the pods.
fn target_port(service: &Service, port: &ServicePort) -> Option<IntOrString> {
    let found = tcp_ports(service).find(|candidate| match port {
        ServicePort::Number(number) => candidate.port == i32::from(*number),
        ServicePort::Name(name) => candidate.name.as_deref().unwrap_or_default() == name,
        ServicePort::First => true,
    })?;
    Some(match &found.target_port {
        None | Some(IntOrString::Int(0)) => IntOrString::Int(found.port),
        Some(target) => target.clone(),
    })
}

fn admin_port(service: &Service) -> Option<u16> {
    let port = tcp_ports(service).find(|port| port.name.as_deref() == Some("admin"))?;
    // The DLX is dialled at its pods' addresses, so the target port counts where it is a number.
    match &port.target_port {
        Some(IntOrString::Int(target)) if *target > 0 => u16::try_from(*target).ok(),
        _ => u16::try_from(port.port).ok(),
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn endpoint(pod: &Pod, target: &IntOrString) -> Option<PodEndpoint> {
    if !is_ready(pod) {
        return None;
    }
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let port = match target {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => named_port(pod, name)?,
    };
    Some(PodEndpoint {
        address: SocketAddr::new(ip, u16::try_from(port).ok()?),
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        created: pod.creation_timestamp().map(|time| time.0),
    })
}

fn named_port(pod: &Pod, name: &str) -> Option<i32> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .map(|port| port.container_port)
}

/// What a pod that is not ready says about it.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting
            .reason
            .as_deref()
            .filter(|reason| *reason != "ContainerCreating")?;
        Some(
            match waiting.message.as_deref().filter(|message| !message.is_empty()) {
                Some(message) => format!("container {}: {reason}: {message}", container.name),
                None => format!("container {}: {reason}", container.name),
            },
        )
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        conditions
            .into_iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")
            .map(|condition| {
                condition
                    .message
                    .clone()
                    .or_else(|| condition.reason.clone())
                    .unwrap_or_default()
            })
    };
    let text = waiting.or_else(unscheduled)?;
    Some(format!("pod {}: {text}", pod.name_any()))
}

/// Whether an endpoint is ready, and whether it is terminating. Unknown readiness counts as ready, by the API's own definition.
pub(crate) fn conditions(endpoint: &Endpoint) -> (bool, bool) {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    (ready, terminating)
}

/// Addresses in slices whose endpoint conditions (ready, terminating) are as asked, sorted, each once.
pub(crate) fn addresses<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    wanted: impl Fn(bool, bool) -> bool,
) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = slices
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| {
            let (ready, terminating) = conditions(endpoint);
            wanted(ready, terminating)
        })
        .flat_map(|endpoint| {
            endpoint
                .addresses
                .iter()
                .filter_map(|address| address.parse().ok())
        })
        .collect();
    found.sort();
    found.dedup();
    found
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

    fn pod(ready: &str, deleted: bool) -> Pod {
        let mut value = json!({
            "metadata": {"name": "web-1", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": 8080}, {"name": "http", "containerPort": 9, "protocol": "UDP"}]}]},
            "status": {"podIP": "127.0.0.9", "conditions": [{"type": "Ready", "status": ready}]},
        });
        if deleted {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
        }
        serde_json::from_value(value).unwrap()
    }

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

    #[rstest]
    #[case("True", false, true)]
    #[case("False", false, false)]
    #[case("True", true, false)]
    fn only_ready_pods_that_are_not_terminating_count(
        #[case] ready: &str,
        #[case] deleted: bool,
        #[case] counts: bool,
    ) {
        assert_eq!(
            endpoint(&pod(ready, deleted), &IntOrString::Int(80)).is_some(),
            counts
        );
    }

    #[rstest]
    #[case(json!([{"port": 80}]), ServicePort::First, Some(80))]
    #[case(json!([{"port": 80, "targetPort": 8081}]), ServicePort::Number(80), Some(8081))]
    #[case(json!([{"port": 80, "targetPort": "http"}]), ServicePort::Number(80), Some(8080))]
    #[case(json!([{"port": 80, "targetPort": "none"}]), ServicePort::Number(80), None)]
    #[case(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]), ServicePort::Name("b".into()), Some(81))]
    #[case(json!([{"port": 80}]), ServicePort::Number(81), None)]
    #[case(json!([{"port": 80, "protocol": "UDP"}]), ServicePort::First, None)]
    fn target_ports_are_resolved_for_each_pod(
        #[case] ports: serde_json::Value,
        #[case] port: ServicePort,
        #[case] expected: Option<u16>,
    ) {
        let service: Service =
            serde_json::from_value(json!({"metadata": {}, "spec": {"ports": ports}})).unwrap();
        let found = target_port(&service, &port).and_then(|target| endpoint(&pod("True", false), &target));
        assert_eq!(found.map(|endpoint| endpoint.address.port()), expected);
    }

    #[test]
    fn mixed_families_come_down_to_ipv4() {
        let both = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(one_family(both), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let six = vec!["fd00::1".parse().unwrap()];
        assert_eq!(one_family(six.clone()), six);
    }

    #[test]
    fn a_pod_that_cannot_start_says_why() {
        let stuck: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1"},
            "status": {"containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        }))
        .unwrap();
        assert_eq!(
            trouble(&stuck).as_deref(),
            Some("pod web-1: container c: ImagePullBackOff: no such image")
        );
        assert_eq!(trouble(&pod("False", false)), None);
    }
}
