//! Validation of metadata and of built-in kinds: what a real API server refuses and a test or a plugin could trip over.

mod network;
mod objects;

use std::collections::BTreeMap;

use dormouse_model::{is_dns_label, is_dns_subdomain};
use serde_json::{Value, json};

use crate::error::FieldError;
use crate::resource::ResourceType;
use crate::value::{at, finalizers, is_deleting, list_at, map_at, name_of, str_at, string_map};

type Errors = Vec<FieldError>;

const MAX_ANNOTATIONS: usize = 256 * 1024;

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
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name_part(name),
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
        "services" => network::service(old, new, &mut errors),
        "pods" => objects::pod(old, new, &mut errors),
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" => {
            objects::workload(rt, old, new, &mut errors)
        }
        "endpointslices.discovery.k8s.io" => network::slice(old, new, &mut errors),
        "leases.coordination.k8s.io" => objects::lease(new, &mut errors),
        "events" => objects::event(new, &mut errors),
        "ingresses.networking.k8s.io" => network::ingress(new, &mut errors),
        "customresourcedefinitions.apiextensions.k8s.io" => objects::crd(old, new, &mut errors),
        "horizontalpodautoscalers.autoscaling" => objects::hpa(new, &mut errors),
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
            !is_dns_subdomain(name)
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

/// Labels of a selector map, for callers that need them parsed.
pub(crate) fn selector_map(service: &Value) -> BTreeMap<String, String> {
    string_map(map_at(service, "spec.selector").map(|_| &service["spec"]["selector"]))
}
