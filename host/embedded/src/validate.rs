//! Validation of metadata and of built-in kinds: what a real API server refuses and a test or a plugin could trip over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::resource::ResourceType;
use crate::selector::LabelSelector;
use crate::value::{at, finalizers, i64_at, is_deleting, list_at, map_at, name_of, str_at, string_map};

type Errors = Vec<FieldError>;

const MAX_ANNOTATIONS: usize = 256 * 1024;

pub(crate) fn is_dns_label(s: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    s.len() <= 63
        && edge(s.chars().next())
        && edge(s.chars().last())
        && s.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_subdomain(s: &str) -> bool {
    s.len() <= 253 && s.split('.').all(is_dns_label)
}

fn is_name_part(s: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    !s.is_empty()
        && s.len() <= 63
        && edge(s.chars().next())
        && edge(s.chars().last())
        && s.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_qualified_name(s: &str) -> bool {
    match s.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(s),
    }
}

fn is_port_name(s: &str) -> bool {
    s.len() <= 15 && is_dns_label(s) && !s.contains("--") && s.chars().any(|c| c.is_ascii_lowercase())
}

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn labels(path: &str, map: Option<&Value>, errors: &mut Errors) {
    for (k, v) in string_map(map) {
        if !is_qualified_name(&k) {
            errors.push(FieldError::invalid(path, &json!(k), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
        if v.len() > 63 {
            errors.push(FieldError::invalid(
                path,
                &json!(v),
                "must be no more than 63 bytes",
            ));
        } else if !v.is_empty() && !is_name_part(&v) {
            errors.push(FieldError::invalid(path, &json!(v), LABEL_VALUE));
        }
    }
    non_strings(path, map, errors);
}

fn non_strings(path: &str, map: Option<&Value>, errors: &mut Errors) {
    for (k, v) in map.and_then(Value::as_object).into_iter().flatten() {
        if !v.is_string() {
            errors.push(FieldError::wrong_type(format!("{path}.{k}"), v, "string"));
        }
    }
}

/// Everything that is wrong with `new`, on creation when `old` is None.
pub(crate) fn validate(rt: &ResourceType, old: Option<&Value>, new: &Value) -> Errors {
    let mut errors = Vec::new();
    meta(rt, old, new, &mut errors);
    if !rt.builtin {
        return errors;
    }
    match rt.id.as_str() {
        "services" => service(old, new, &mut errors),
        "pods" => pod(old, new, &mut errors),
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" => workload(rt, old, new, &mut errors),
        "endpointslices.discovery.k8s.io" => slice(old, new, &mut errors),
        "leases.coordination.k8s.io" => lease(new, &mut errors),
        "events" => event(new, &mut errors),
        "ingresses.networking.k8s.io" => ingress(new, &mut errors),
        "customresourcedefinitions.apiextensions.k8s.io" => crd(old, new, &mut errors),
        "horizontalpodautoscalers.autoscaling" => hpa(new, &mut errors),
        _ => {}
    }
    errors
}

fn meta(rt: &ResourceType, old: Option<&Value>, new: &Value, errors: &mut Errors) {
    let name = name_of(new);
    let label_only = matches!(rt.id.as_str(), "services" | "namespaces");
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if old.is_none()
        && (if label_only {
            !is_dns_label(name)
        } else {
            !is_subdomain(name)
        })
    {
        let why = if label_only {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character"
        } else {
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        };
        errors.push(FieldError::invalid("metadata.name", &json!(name), why));
    }
    labels("metadata.labels", at(new, "metadata.labels"), errors);
    let annotations = at(new, "metadata.annotations");
    non_strings("metadata.annotations", annotations, errors);
    let mut size = 0;
    for (k, v) in string_map(annotations) {
        size += k.len() + v.len();
        if !is_qualified_name(&k.to_lowercase()) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                &json!(k),
                "name part must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        errors.push(FieldError {
            field: "metadata.annotations".into(),
            reason: "FieldValueTooLong",
            message,
        });
    }
    for o in list_at(new, "metadata.ownerReferences") {
        for f in ["apiVersion", "kind", "name", "uid"] {
            if str_at(o, f).is_none_or(str::is_empty) {
                errors.push(FieldError::invalid(
                    format!("metadata.ownerReferences.{f}"),
                    &json!(""),
                    "must not be empty",
                ));
            }
        }
    }
    let controllers = list_at(new, "metadata.ownerReferences")
        .iter()
        .filter(|o| o.get("controller") == Some(&json!(true)))
        .count();
    if controllers > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            &json!("[]"),
            "Only one reference can have Controller set to true",
        ));
    }
    for f in finalizers(new) {
        if !is_qualified_name(f) {
            errors.push(FieldError::invalid(
                "metadata.finalizers",
                &json!(f),
                "name is not a qualified name",
            ));
        }
    }
    if let Some(old) = old.filter(|o| is_deleting(o)) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(new)
            .into_iter()
            .filter(|f| !before.contains(f))
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &why));
        }
    }
}

fn port_number(path: String, v: Option<&Value>, errors: &mut Errors) {
    match v.and_then(Value::as_i64) {
        Some(1..=65535) => {}
        Some(n) => errors.push(FieldError::invalid(
            path,
            &json!(n),
            "must be between 1 and 65535, inclusive",
        )),
        None => match v {
            Some(other) if !other.is_null() => errors.push(FieldError::wrong_type(path, other, "integer")),
            _ => errors.push(FieldError::required(path, "")),
        },
    }
}

fn service(old: Option<&Value>, new: &Value, errors: &mut Errors) {
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

fn containers(path: &str, spec: Option<&Value>, errors: &mut Errors) {
    let list = spec.map_or(&[][..], |s| list_at(s, "containers"));
    if list.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for (i, c) in list.iter().enumerate() {
        let at = |f: &str| format!("{path}.containers[{i}].{f}");
        match str_at(c, "name") {
            None | Some("") => errors.push(FieldError::required(at("name"), "")),
            Some(n) if !is_dns_label(n) => {
                errors.push(FieldError::invalid(
                    at("name"),
                    &json!(n),
                    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
                ));
            }
            Some(n) if !names.insert(n) => errors.push(FieldError::duplicate(at("name"), &json!(n))),
            Some(_) => {}
        }
        if str_at(c, "image").is_none_or(str::is_empty) {
            errors.push(FieldError::required(at("image"), ""));
        }
        for (j, p) in list_at(c, "ports").iter().enumerate() {
            port_number(
                at(&format!("ports[{j}].containerPort")),
                p.get("containerPort"),
                errors,
            );
            if let Some(n) = str_at(p, "name").filter(|n| !is_port_name(n)) {
                errors.push(FieldError::invalid(
                    at(&format!("ports[{j}].name")),
                    &json!(n),
                    "must be an IANA service name of at most 15 characters",
                ));
            }
        }
        for (j, e) in list_at(c, "env").iter().enumerate() {
            if str_at(e, "name").is_none_or(str::is_empty) {
                errors.push(FieldError::required(at(&format!("env[{j}].name")), ""));
            }
            if let Some(v) = e.get("value").filter(|v| !v.is_string()) {
                errors.push(FieldError::wrong_type(
                    at(&format!("env[{j}].value")),
                    v,
                    "string",
                ));
            }
        }
    }
}

fn pod(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    containers("spec", at(new, "spec"), errors);
    let Some(old) = old else { return };
    // A pod's spec is fixed but for its images and a few deadlines.
    let fixed = |v: &Value| {
        let mut s = at(v, "spec").cloned().unwrap_or_default();
        if let Some(m) = s.as_object_mut() {
            for k in [
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
            ] {
                m.remove(k);
            }
            for c in m
                .get_mut("containers")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(c) = c.as_object_mut() {
                    c.remove("image");
                }
            }
        }
        s
    };
    if fixed(old) != fixed(new) {
        errors.push(FieldError::forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
    }
}

fn workload(rt: &ResourceType, old: Option<&Value>, new: &Value, errors: &mut Errors) {
    match at(new, "spec.replicas") {
        Some(v) if v.as_i64().is_none() => errors.push(FieldError::wrong_type("spec.replicas", v, "integer")),
        Some(v) if v.as_i64().is_some_and(|n| n < 0) => {
            errors.push(FieldError::invalid(
                "spec.replicas",
                v,
                "must be greater than or equal to 0",
            ));
        }
        _ => {}
    }
    let selector = at(new, "spec.selector");
    let parsed = LabelSelector::of_object(selector);
    if selector.is_none() {
        errors.push(FieldError::required("spec.selector", ""));
    } else if parsed.is_empty() {
        errors.push(FieldError::invalid(
            "spec.selector",
            &json!({}),
            "empty selector is invalid for deployment",
        ));
    } else if at(new, "spec.template").is_some_and(|t| !parsed.matches(t)) {
        let shown = at(new, "spec.template.metadata.labels")
            .cloned()
            .unwrap_or_else(|| json!({}));
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
    if let Some(s) = selector {
        labels("spec.selector.matchLabels", s.get("matchLabels"), errors);
    }
    labels(
        "spec.template.labels",
        at(new, "spec.template.metadata.labels"),
        errors,
    );
    if at(new, "spec.template").is_none() {
        errors.push(FieldError::required("spec.template", ""));
    } else {
        containers("spec.template.spec", at(new, "spec.template.spec"), errors);
    }
    let Some(old) = old else { return };
    if at(old, "spec.selector") != selector {
        let shown = selector.cloned().unwrap_or_default();
        errors.push(FieldError::invalid("spec.selector", &shown, "field is immutable"));
    }
    if rt.kind == "StatefulSet" {
        let fixed = |v: &Value| ["serviceName", "podManagementPolicy"].map(|k| v["spec"].get(k).cloned());
        if fixed(old) != fixed(new) {
            errors.push(FieldError::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
        }
    }
}

/// As on real clusters but for one thing: loopback addresses are accepted, because here every address is one.
fn slice(old: Option<&Value>, new: &Value, errors: &mut Errors) {
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
                ("IPv4", Ok(IpAddr::V4(ip))) => {
                    if ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() {
                        errors.push(FieldError::invalid(
                            path,
                            a,
                            "may not be unspecified, link-local or multicast",
                        ));
                    }
                }
                ("IPv6", Ok(IpAddr::V6(_))) => {}
                ("IPv4", _) => errors.push(FieldError::invalid(path, a, "must be an IPv4 address")),
                ("IPv6", _) => errors.push(FieldError::invalid(path, a, "must be an IPv6 address")),
                ("FQDN", _) if is_subdomain(text) => {}
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

fn lease(new: &Value, errors: &mut Errors) {
    for f in ["leaseDurationSeconds", "leaseTransitions"] {
        let path = format!("spec.{f}");
        match at(new, &path) {
            Some(v) if v.as_i64().is_none() => errors.push(FieldError::wrong_type(path, v, "integer")),
            Some(v) if v.as_i64() < Some(i64::from(f == "leaseDurationSeconds")) => {
                errors.push(FieldError::invalid(path, v, "must be greater than 0"));
            }
            _ => {}
        }
    }
}

fn event(new: &Value, errors: &mut Errors) {
    let own = str_at(new, "metadata.namespace").unwrap_or("");
    let about = str_at(new, "involvedObject.namespace").unwrap_or("");
    let matches = if about.is_empty() {
        own == "default" || own == "kube-system"
    } else {
        about == own
    };
    if !matches {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            &json!(about),
            "does not match event.namespace",
        ));
    }
    // Events with an eventTime are "new" events and validated more strictly, whichever API wrote them.
    if at(new, "eventTime").is_none() {
        return;
    }
    for (f, max) in [
        ("reportingComponent", 253),
        ("reportingInstance", 128),
        ("action", 128),
        ("reason", 128),
    ] {
        let shown = if f == "reportingComponent" {
            "reportingController"
        } else {
            f
        };
        match str_at(new, f) {
            None | Some("") => errors.push(FieldError::required(shown, "")),
            Some(s) if s.len() > max => {
                errors.push(FieldError::invalid(
                    shown,
                    &json!(s),
                    &format!("can have at most {max} characters"),
                ));
            }
            Some(_) => {}
        }
    }
    if !matches!(str_at(new, "type"), Some("Normal" | "Warning")) {
        errors.push(FieldError::invalid(
            "type",
            at(new, "type").unwrap_or(&json!("")),
            "has invalid value",
        ));
    }
    if str_at(new, "message").is_some_and(|m| m.len() > 1024) {
        errors.push(FieldError::invalid(
            "message",
            &json!(""),
            "can have at most 1024 characters",
        ));
    }
}

fn ingress(new: &Value, errors: &mut Errors) {
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

fn hpa(new: &Value, errors: &mut Errors) {
    if i64_at(new, "spec.maxReplicas").is_none_or(|n| n < 1) {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            &new["spec"]["maxReplicas"],
            "must be greater than 0",
        ));
    }
    for f in ["kind", "name"] {
        if at(new, &format!("spec.scaleTargetRef.{f}")).is_none() {
            errors.push(FieldError::required(format!("spec.scaleTargetRef.{f}"), ""));
        }
    }
}

fn crd(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    match crate::resource::from_crd(new) {
        Err(why) => errors.push(FieldError::required("spec", &why)),
        Ok(rt) => {
            if name_of(new) != rt.id {
                errors.push(FieldError::invalid(
                    "metadata.name",
                    &json!(name_of(new)),
                    "must be spec.names.plural+\".\"+spec.group",
                ));
            }
            for (i, v) in list_at(new, "spec.versions").iter().enumerate() {
                if v.pointer("/schema/openAPIV3Schema").is_none() {
                    errors.push(FieldError::required(
                        format!("spec.versions[{i}].schema.openAPIV3Schema"),
                        "schemas are required",
                    ));
                }
            }
        }
    }
    let stored = list_at(new, "spec.versions")
        .iter()
        .filter(|v| v.get("storage") == Some(&json!(true)))
        .count();
    if stored != 1 {
        errors.push(FieldError::invalid(
            "spec.versions",
            &json!([]),
            "must have exactly one version marked as storage version",
        ));
    }
    if let Some(old) = old {
        let fixed = |v: &Value| {
            ["spec.scope", "spec.group", "spec.names.plural", "spec.names.kind"].map(|p| at(v, p).cloned())
        };
        if fixed(old) != fixed(new) {
            errors.push(FieldError::invalid("spec", &json!({}), "field is immutable"));
        }
    }
}

/// Labels of a selector map, for callers that need them parsed.
pub(crate) fn selector_map(service: &Value) -> BTreeMap<String, String> {
    string_map(map_at(service, "spec.selector").map(|_| &service["spec"]["selector"]))
}
