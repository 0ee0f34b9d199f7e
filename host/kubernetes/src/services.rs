//! What a Service says about ports and pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort as Port};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

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

/// Labels that a Service selects now.
pub fn current_selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service
        .spec
        .as_ref()?
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

/// TCP ports of a Service: name (empty when unnamed) and number.
pub fn ports(service: &Service) -> Vec<(String, u16)> {
    tcp_ports(service)
        .filter_map(|port| {
            Some((
                port.name.clone().unwrap_or_default(),
                u16::try_from(port.port).ok()?,
            ))
        })
        .collect()
}

/// TCP ports of a Service.
pub fn tcp_ports(service: &Service) -> impl Iterator<Item = &Port> {
    service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .filter(|port| is_tcp(port))
}

fn is_tcp(port: &Port) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

/// Whether all labels of a selector are on an object. An empty selector selects nothing, as in Services.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The port to dial on the pods.
pub fn target_port(service: &Service, port: &ServicePort) -> Option<IntOrString> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        assert!(!selects(&BTreeMap::new(), &labels(&[("app", "web")])));
        assert!(selects(
            &labels(&[("app", "web")]),
            &labels(&[("app", "web"), ("x", "y")])
        ));
        assert!(!selects(&labels(&[("app", "web")]), &labels(&[("app", "other")])));
    }
}
