//! Pods, workloads, Events, CustomResourceDefinitions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Errors, IMMUTABLE};
use crate::selector::LabelSelector;
use crate::value::{at, list_at, name_of, str_at};

fn containers(path: &str, spec: Option<&Value>, errors: &mut Errors) {
    let list = spec.map_or(&[][..], |s| list_at(s, "containers"));
    if list.is_empty() {
        errors.required(format!("{path}.containers"), "");
    }
    let mut names = BTreeSet::new();
    for (i, c) in list.iter().enumerate() {
        let at = |f: &str| format!("{path}.containers[{i}].{f}");
        let name = str_at(c, "name").unwrap_or("");
        errors.dns_label(at("name"), name);
        if !names.insert(name) {
            errors.duplicate(at("name"), name);
        }
        if str_at(c, "image").is_none_or(str::is_empty) {
            errors.required(at("image"), "");
        }
        for (j, p) in list_at(c, "ports").iter().enumerate() {
            errors.port_number(at(&format!("ports[{j}].containerPort")), p.get("containerPort"));
            if let Some(name) = str_at(p, "name") {
                errors.port_name(at(&format!("ports[{j}].name")), name);
            }
        }
        for (j, e) in list_at(c, "env").iter().enumerate() {
            if str_at(e, "name").is_none_or(str::is_empty) {
                errors.required(at(&format!("env[{j}].name")), "");
            }
            if let Some(v) = e.get("value").filter(|v| !v.is_string()) {
                errors.wrong_type(at(&format!("env[{j}].value")), v, "string");
            }
        }
    }
}

pub(super) fn pod(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    containers("spec", at(new, "spec"), errors);
    // A pod's spec is fixed but for its images and a few deadlines.
    let fixed = |v: &Value| {
        let mut v = v["spec"].clone();
        if let Some(spec) = v.as_object_mut() {
            for k in [
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
            ] {
                spec.remove(k);
            }
        }
        for c in v["containers"].as_array_mut().into_iter().flatten() {
            c["image"].take();
        }
        v
    };
    if old.is_some_and(|old| fixed(old) != fixed(new)) {
        errors.forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)");
    }
}

pub(super) fn workload(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    match at(new, "spec.replicas").map(|v| (v, v.as_i64())) {
        Some((v, None)) => errors.wrong_type("spec.replicas", v, "integer"),
        Some((_, Some(n))) if n < 0 => {
            errors.invalid("spec.replicas", n, "must be greater than or equal to 0");
        }
        _ => {}
    }
    let labels_path = "spec.template.metadata.labels";
    let selector = at(new, "spec.selector");
    let parsed = LabelSelector::of_object(selector);
    if selector.is_none() {
        errors.required("spec.selector", "");
    } else if parsed.is_empty() {
        errors.invalid(
            "spec.selector",
            json!({}),
            "empty selector is invalid for deployment",
        );
    } else if at(new, "spec.template").is_some_and(|t| !parsed.matches(t)) {
        let shown = at(new, labels_path).cloned().unwrap_or_default();
        errors.invalid(labels_path, shown, "`selector` does not match template `labels`");
    }
    errors.labels("spec.selector.matchLabels", at(new, "spec.selector.matchLabels"));
    errors.labels("spec.template.labels", at(new, labels_path));
    match at(new, "spec.template") {
        None => errors.required("spec.template", ""),
        Some(template) => containers("spec.template.spec", at(template, "spec"), errors),
    }
    if old.is_some_and(|old| at(old, "spec.selector") != selector) {
        let shown = selector.cloned().unwrap_or_default();
        errors.invalid("spec.selector", shown, IMMUTABLE);
    }
}

pub(super) fn event(new: &Value, errors: &mut Errors) {
    let own = str_at(new, "metadata.namespace").unwrap_or("");
    let about = str_at(new, "involvedObject.namespace").unwrap_or("");
    let matches = match about {
        "" => matches!(own, "default" | "kube-system"),
        about => about == own,
    };
    if !matches {
        let field = "involvedObject.namespace";
        errors.invalid(field, about, "does not match event.namespace");
    }
    // Events with an eventTime are "new" events and validated more strictly, whichever API wrote them.
    if at(new, "eventTime").is_none() {
        return;
    }
    for (f, shown, max) in [
        ("reportingComponent", "reportingController", 253),
        ("reportingInstance", "reportingInstance", 128),
        ("action", "action", 128),
        ("reason", "reason", 128),
    ] {
        let text = str_at(new, f).unwrap_or("");
        if text.is_empty() {
            errors.required(shown, "");
        } else if text.len() > max {
            errors.invalid(shown, text, &format!("can have at most {max} characters"));
        }
    }
    let kind = str_at(new, "type").unwrap_or("");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid("type", kind, "has invalid value");
    }
    if str_at(new, "message").is_some_and(|m| m.len() > 1024) {
        errors.invalid("message", "", "can have at most 1024 characters");
    }
}

pub(super) fn crd(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    match crate::resource::from_crd(new) {
        Err(why) => errors.required("spec", &why),
        Ok(rt) if name_of(new) != rt.id => {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.invalid("metadata.name", name_of(new), why);
        }
        Ok(_) => {}
    }
    let versions = list_at(new, "spec.versions");
    for (i, v) in versions.iter().enumerate() {
        if v.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
            errors.required(field, "schemas are required");
        }
    }
    let stored = |v: &&Value| v.get("storage") == Some(&Value::Bool(true));
    if versions.iter().filter(stored).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.invalid("spec.versions", json!([]), why);
    }
    let fixed = |v: &Value| {
        ["spec.scope", "spec.group", "spec.names.plural", "spec.names.kind"].map(|p| at(v, p).cloned())
    };
    if old.is_some_and(|old| fixed(old) != fixed(new)) {
        errors.invalid("spec", json!({}), IMMUTABLE);
    }
}
