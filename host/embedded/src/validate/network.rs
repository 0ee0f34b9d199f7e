//! Services and EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dormouse_model::is_dns_subdomain;
use serde_json::Value;

use super::{Errors, IMMUTABLE};
use crate::value::{at, i64_at, list_at, str_at};

pub(super) fn service(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    let ports = list_at(new, "spec.ports");
    let is_external = str_at(new, "spec.type") == Some("ExternalName");
    let ip = str_at(new, "spec.clusterIP").unwrap_or("");
    if ports.is_empty() && ip != "None" && !is_external {
        errors.required("spec.ports", "");
    }
    errors.labels("spec.selector", at(new, "spec.selector"));
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, p) in ports.iter().enumerate() {
        let path = |f: &str| format!("spec.ports[{i}].{f}");
        errors.port_number(path("port"), p.get("port"));
        match p.get("targetPort") {
            Some(Value::String(name)) => errors.port_name(path("targetPort"), name),
            Some(n @ Value::Number(_)) => errors.port_number(path("targetPort"), Some(n)),
            _ => {}
        }
        let name = str_at(p, "name").unwrap_or("");
        if !name.is_empty() || ports.len() > 1 {
            errors.dns_label(path("name"), name);
            if !name.is_empty() && !names.insert(name) {
                errors.duplicate(path("name"), name);
            }
        }
        if !numbers.insert((i64_at(p, "port"), str_at(p, "protocol"))) {
            errors.duplicate(format!("spec.ports[{i}]"), p.clone());
        }
    }
    let before = old.and_then(|o| str_at(o, "spec.clusterIP"));
    if before.is_some_and(|before| before != ip) && !is_external {
        errors.invalid("spec.clusterIPs[0]", ip, "may not change once set");
    }
}

/// As on real clusters but for one thing: loopback addresses are accepted, because here every address is one.
pub(super) fn slice(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    let kind = str_at(new, "addressType").unwrap_or("");
    match kind {
        "" => errors.required("addressType", ""),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => errors.not_supported("addressType", other, &["FQDN", "IPv4", "IPv6"]),
    }
    if old.is_some_and(|o| str_at(o, "addressType") != Some(kind)) {
        errors.invalid("addressType", kind, IMMUTABLE);
    }
    let endpoints = list_at(new, "endpoints");
    if endpoints.len() > 1000 {
        errors.invalid("endpoints", endpoints.len(), "must have at most 1000 items");
    }
    for (i, e) in endpoints.iter().enumerate() {
        let addresses = list_at(e, "addresses");
        if addresses.is_empty() {
            let path = format!("endpoints[{i}].addresses");
            errors.required(path, "must contain at least 1 address");
        }
        for (j, a) in addresses.iter().enumerate() {
            let text = a.as_str().unwrap_or("");
            let why = match (kind, text.parse()) {
                ("IPv4", Ok(IpAddr::V4(ip)))
                    if ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() =>
                {
                    "may not be unspecified, link-local or multicast"
                }
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => continue,
                ("IPv4", _) => "must be an IPv4 address",
                ("IPv6", _) => "must be an IPv6 address",
                ("FQDN", _) if !is_dns_subdomain(text) => "must be a fully qualified domain name",
                _ => continue,
            };
            errors.invalid(format!("endpoints[{i}].addresses[{j}]"), text, why);
        }
    }
    let mut names = BTreeSet::new();
    for (i, p) in list_at(new, "ports").iter().enumerate() {
        let path = |f: &str| format!("ports[{i}].{f}");
        let name = str_at(p, "name").unwrap_or("");
        if !name.is_empty() {
            errors.dns_label(path("name"), name);
        }
        if !names.insert(name) {
            errors.duplicate(path("name"), name);
        }
        let protocol = str_at(p, "protocol").unwrap_or("");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.not_supported(path("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        if p.get("port").is_some() {
            errors.port_number(path("port"), p.get("port"));
        }
    }
}
