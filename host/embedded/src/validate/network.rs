//! Services, EndpointSlices, Ingresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dormouse_model::{is_dns_label, is_dns_subdomain};
use serde_json::{Value, json};

use super::{Errors, is_port_name, labels, port_number};
use crate::error::FieldError;
use crate::value::{at, i64_at, list_at, str_at};

pub(super) fn service(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    let ports = list_at(new, "spec.ports");
    let kind = str_at(new, "spec.type").unwrap_or("ClusterIP");
    let headless = str_at(new, "spec.clusterIP") == Some("None");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" && str_at(new, "spec.externalName").is_none_or(str::is_empty) {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    labels("spec.selector", at(new, "spec.selector"), errors);
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, p) in ports.iter().enumerate() {
        let path = |f: &str| format!("spec.ports[{i}].{f}");
        port_number(path("port"), p.get("port"), errors);
        match p.get("targetPort") {
            Some(Value::String(s)) if !is_port_name(s) => {
                errors.push(FieldError::invalid(
                    path("targetPort"),
                    &json!(s),
                    "must be an IANA service name",
                ));
            }
            Some(n @ Value::Number(_)) => port_number(path("targetPort"), Some(n), errors),
            _ => {}
        }
        let name = str_at(p, "name").unwrap_or("");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(path("name"), ""));
        } else if !name.is_empty() && !is_dns_label(name) {
            errors.push(FieldError::invalid(
                path("name"),
                &json!(name),
                "must be a lowercase RFC 1123 label",
            ));
        }
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(path("name"), &json!(name)));
        }
        if !numbers.insert((i64_at(p, "port"), str_at(p, "protocol"))) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}]"), p));
        }
    }
    if let Some(old) = old {
        let (before, after) = (str_at(old, "spec.clusterIP"), str_at(new, "spec.clusterIP"));
        if before.is_some() && before != after && kind != "ExternalName" {
            let shown = json!(after.unwrap_or(""));
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                &shown,
                "may not change once set",
            ));
        }
    }
}

/// As on real clusters but for one thing: loopback addresses are accepted, because here every address is one.
pub(super) fn slice(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    let kind = str_at(new, "addressType").unwrap_or("");
    match kind {
        "" => errors.push(FieldError::required("addressType", "")),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => errors.push(FieldError::not_supported(
            "addressType",
            &json!(other),
            &[json!("FQDN"), json!("IPv4"), json!("IPv6")],
        )),
    }
    if let Some(before) = old.and_then(|o| str_at(o, "addressType"))
        && before != kind
    {
        errors.push(FieldError::invalid(
            "addressType",
            &json!(kind),
            "field is immutable",
        ));
    }
    let endpoints = list_at(new, "endpoints");
    if endpoints.len() > 1000 {
        errors.push(FieldError {
            field: "endpoints".into(),
            reason: "FieldValueTooMany",
            message: format!("Too many: {}: must have at most 1000 items", endpoints.len()),
        });
    }
    for (i, e) in endpoints.iter().enumerate() {
        let addresses = list_at(e, "addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(
                format!("endpoints[{i}].addresses"),
                "must contain at least 1 address",
            ));
        }
        for (j, a) in addresses.iter().enumerate() {
            let path = format!("endpoints[{i}].addresses[{j}]");
            let text = a.as_str().unwrap_or("");
            match (kind, text.parse::<IpAddr>()) {
                ("IPv4", Ok(IpAddr::V4(ip)))
                    if ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() =>
                {
                    let why = "may not be unspecified, link-local or multicast";
                    errors.push(FieldError::invalid(path, a, why));
                }
                ("IPv4", Ok(IpAddr::V4(_))) => {}
                ("IPv6", Ok(IpAddr::V6(_))) => {}
                ("IPv4", _) => errors.push(FieldError::invalid(path, a, "must be an IPv4 address")),
                ("IPv6", _) => errors.push(FieldError::invalid(path, a, "must be an IPv6 address")),
                ("FQDN", _) if is_dns_subdomain(text) => {}
                ("FQDN", _) => errors.push(FieldError::invalid(
                    path,
                    a,
                    "must be a fully qualified domain name",
                )),
                _ => {}
            }
        }
    }
    let mut names = BTreeSet::new();
    for (i, p) in list_at(new, "ports").iter().enumerate() {
        let name = str_at(p, "name").unwrap_or("");
        if !name.is_empty() && !is_dns_label(name) {
            errors.push(FieldError::invalid(
                format!("ports[{i}].name"),
                &json!(name),
                "must be a lowercase RFC 1123 label",
            ));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("ports[{i}].name"), &json!(name)));
        }
        match str_at(p, "protocol") {
            Some("TCP" | "UDP" | "SCTP") => {}
            other => errors.push(FieldError::not_supported(
                format!("ports[{i}].protocol"),
                &json!(other.unwrap_or("")),
                &[json!("SCTP"), json!("TCP"), json!("UDP")],
            )),
        }
        if p.get("port").is_some() {
            port_number(format!("ports[{i}].port"), p.get("port"), errors);
        }
    }
}

pub(super) fn ingress(new: &Value, errors: &mut Errors) {
    let rules = list_at(new, "spec.rules");
    if rules.is_empty() && at(new, "spec.defaultBackend").is_none() {
        errors.push(FieldError::invalid(
            "spec",
            &json!({}),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    for (i, r) in rules.iter().enumerate() {
        for (j, p) in list_at(r, "http.paths").iter().enumerate() {
            let path = format!("spec.rules[{i}].http.paths[{j}]");
            match str_at(p, "pathType") {
                Some("Exact" | "Prefix") if !str_at(p, "path").is_some_and(|p| p.starts_with('/')) => {
                    errors.push(FieldError::invalid(
                        format!("{path}.path"),
                        &p["path"],
                        "must be an absolute path",
                    ));
                }
                Some("Exact" | "Prefix" | "ImplementationSpecific") => {}
                _ => errors.push(FieldError::required(
                    format!("{path}.pathType"),
                    "pathType must be specified",
                )),
            }
            if at(p, "backend.service.name").is_none() && at(p, "backend.resource").is_none() {
                errors.push(FieldError::required(
                    format!("{path}.backend"),
                    "one of service or resource is required",
                ));
            }
        }
    }
}
