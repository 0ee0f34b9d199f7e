//! Pods, workloads, Leases, Events, HorizontalPodAutoscalers, CustomResourceDefinitions.

use std::collections::BTreeSet;

use dormouse_model::is_dns_label;
use serde_json::{Value, json};

use super::{Errors, is_port_name, labels, port_number};
use crate::error::FieldError;
use crate::resource::ResourceType;
use crate::selector::LabelSelector;
use crate::value::{at, i64_at, list_at, name_of, str_at};

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

pub(super) fn pod(old: Option<&Value>, new: &Value, errors: &mut Errors) {
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

pub(super) fn workload(rt: &ResourceType, old: Option<&Value>, new: &Value, errors: &mut Errors) {
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

pub(super) fn lease(new: &Value, errors: &mut Errors) {
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

pub(super) fn event(new: &Value, errors: &mut Errors) {
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

pub(super) fn hpa(new: &Value, errors: &mut Errors) {
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

pub(super) fn crd(old: Option<&Value>, new: &Value, errors: &mut Errors) {
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
