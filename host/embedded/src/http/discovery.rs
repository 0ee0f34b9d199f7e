//! Version, health and discovery.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::ApiError;
use crate::http::request::Call;
use crate::http::{Reply, failure, full, text};
use crate::metrics;
use crate::resource::{EVENTS_GROUP, ResourceType};

/// The Kubernetes version whose behaviour this follows.
pub(crate) const MINOR: &str = "37";

/// Answers discovery requests; None for everything else.
pub(crate) fn handle(core: &Core, segments: &[&str], call: &Call) -> Option<Reply> {
    let body = match segments {
        ["version"] => version(),
        ["healthz" | "readyz" | "livez", ..] => return Some(text(200, "text/plain; charset=utf-8", "ok")),
        [] => json!({ "paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version"] }),
        ["api"] => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1" }],
        }),
        ["apis"] => {
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups(core).into_values().collect::<Vec<_>>() })
        }
        ["api", "v1"] => resources(core, "", "v1")?,
        ["api", _] => return Some(failure(&ApiError::no_such_path())),
        ["apis", group] => match groups(core).remove(*group) {
            Some(mut g) => {
                g["kind"] = json!("APIGroup");
                g["apiVersion"] = json!("v1");
                g
            }
            None => return Some(failure(&ApiError::no_such_path())),
        },
        ["apis", metrics::GROUP, v] if serves_metrics(core, v) => core.metrics.discovery(v),
        ["apis", metrics::GROUP, v, ..] if !serves_metrics(core, v) => {
            return Some(failure(&ApiError::no_such_path()));
        }
        ["apis", group, v] => match resources(core, group, v) {
            Some(r) => r,
            None => return Some(failure(&ApiError::no_such_path())),
        },
        // Enough for clients that look for a schema to find none and go on.
        ["openapi", "v3"] => json!({ "paths": {} }),
        ["openapi", "v2"] => {
            json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "v1" }, "paths": {} })
        }
        _ => return None,
    };
    if call.method != Method::GET && call.method != Method::HEAD {
        return Some(failure(&ApiError::method_not_allowed()));
    }
    Some(full(200, &body))
}

fn serves_metrics(core: &Core, version: &str) -> bool {
    core.options.custom_metrics_versions.iter().any(|v| v == version)
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+embedded"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2025-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn group(name: &str, versions: &[String]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|v| json!({ "groupVersion": format!("{name}/{v}"), "version": v }))
        .collect();
    json!({ "name": name, "versions": list, "preferredVersion": list.first() })
}

fn groups(core: &Core) -> BTreeMap<String, Value> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rt in core.store.kinds().iter().filter(|rt| !rt.group.is_empty()) {
        let list = versions.entry(rt.group.clone()).or_default();
        for v in &rt.versions {
            if !list.contains(v) {
                list.push(v.clone());
            }
        }
    }
    versions.insert(EVENTS_GROUP.into(), vec!["v1".into()]);
    // Scale objects have their own version, which discovery names too.
    versions
        .entry("autoscaling".into())
        .or_default()
        .push("v1".into());
    if !core.options.custom_metrics_versions.is_empty() {
        versions.insert(
            metrics::GROUP.into(),
            core.options.custom_metrics_versions.clone(),
        );
    }
    versions
        .into_iter()
        .map(|(g, v)| (g.clone(), group(&g, &v)))
        .collect()
}

fn resources(core: &Core, group: &str, version: &str) -> Option<Value> {
    let mut kinds: Vec<_> = core
        .store
        .kinds()
        .into_iter()
        .filter(|rt| rt.group == group && rt.versions.iter().any(|v| v == version))
        .collect();
    if group == EVENTS_GROUP && version == "v1" {
        kinds.extend(core.store.kind("events"));
    }
    if kinds.is_empty() && !(group == "autoscaling" && version == "v1") {
        return None;
    }
    let mut list = Vec::new();
    for rt in kinds {
        list.push(json!({
            "name": rt.plural,
            "singularName": rt.singular,
            "namespaced": rt.namespaced,
            "kind": rt.kind,
            "verbs": ResourceType::verbs(),
            "shortNames": rt.short_names,
            "categories": rt.categories,
        }));
        let sub = |name: &str| {
            json!({
                "name": format!("{}/{name}", rt.plural),
                "singularName": "",
                "namespaced": rt.namespaced,
                "kind": rt.kind,
                "verbs": ["get", "patch", "update"],
            })
        };
        if rt.status {
            list.push(sub("status"));
        }
        if rt.scale.is_some() {
            let mut s = sub("scale");
            s["kind"] = json!("Scale");
            s["group"] = json!("autoscaling");
            s["version"] = json!("v1");
            list.push(s);
        }
        if rt.id == "pods" {
            let mut s = sub("log");
            s["verbs"] = json!(["get"]);
            list.push(s);
        }
    }
    let gv = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": list }))
}
