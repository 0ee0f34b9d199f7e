//! Version, health and discovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::ApiError;
use crate::metrics;
use crate::resource::EVENTS_GROUP;

/// The Kubernetes version whose behaviour this follows.
const MINOR: &str = "37";
/// The verbs of every main resource.
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

pub(crate) fn router() -> Router<Arc<Core>> {
    let shown = |v: Value| get(|| async { Json(v) });
    let health = || get(|| async { "ok" });
    Router::new()
        .route("/healthz", health())
        .route("/livez", health())
        .route("/readyz", health())
        .route("/version", shown(version()))
        .route(
            "/",
            shown(
                json!({ "paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version"] }),
            ),
        )
        .route(
            "/api",
            shown(json!({
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1" }],
            })),
        )
        .route("/api/{version}", get(core_resources))
        .route("/apis", get(group_list))
        .route("/apis/{group}", get(one_group))
        .route("/apis/{group}/{version}", get(resources))
        // Enough for clients that look for a schema to find none and go on.
        .route("/openapi/v3", shown(json!({ "paths": {} })))
        .route(
            "/openapi/v2",
            shown(
                json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "v1" }, "paths": {} }),
            ),
        )
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
    let metrics_versions = &core.options.custom_metrics_versions;
    if !metrics_versions.is_empty() {
        versions.insert(metrics::GROUP.into(), metrics_versions.clone());
    }
    let group = |(name, versions): (String, Vec<String>)| {
        let list: Vec<Value> = versions
            .iter()
            .map(|v| json!({ "groupVersion": format!("{name}/{v}"), "version": v }))
            .collect();
        let group = json!({ "name": name, "versions": list, "preferredVersion": list.first() });
        (name, group)
    };
    versions.into_iter().map(group).collect()
}

async fn group_list(State(core): State<Arc<Core>>) -> Json<Value> {
    let groups: Vec<Value> = groups(&core).into_values().collect();
    Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
}

async fn one_group(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let mut group = groups(&core).remove(&name).ok_or_else(ApiError::no_such_path)?;
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Ok(Json(group))
}

async fn core_resources(
    core: State<Arc<Core>>,
    Path(version): Path<String>,
) -> Result<Json<Value>, ApiError> {
    resources(core, Path((String::new(), version))).await
}

async fn resources(
    State(core): State<Arc<Core>>,
    Path((group, version)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    if group == metrics::GROUP && core.options.custom_metrics_versions.contains(&version) {
        return Ok(Json(core.metrics.discovery(&version)));
    }
    let mut kinds = core.store.kinds();
    kinds.retain(|rt| rt.group == group && rt.versions.contains(&version));
    if group == EVENTS_GROUP && version == "v1" {
        kinds.extend(core.store.kind("events"));
    }
    if kinds.is_empty() && !(group == "autoscaling" && version == "v1") {
        return Err(ApiError::no_such_path());
    }
    let mut list = Vec::new();
    for rt in kinds {
        list.push(json!({
            "name": rt.plural,
            "singularName": rt.singular,
            "namespaced": rt.namespaced,
            "kind": rt.kind,
            "verbs": VERBS,
            "shortNames": rt.short_names,
            "categories": rt.categories,
        }));
        let sub = |name: &str, verbs: &[&str]| {
            json!({
                "name": format!("{}/{name}", rt.plural),
                "singularName": "",
                "namespaced": rt.namespaced,
                "kind": rt.kind,
                "verbs": verbs,
            })
        };
        if rt.status {
            list.push(sub("status", &["get", "patch", "update"]));
        }
        if rt.scale.is_some() {
            let mut s = sub("scale", &["get", "patch", "update"]);
            s["kind"] = json!("Scale");
            s["group"] = json!("autoscaling");
            s["version"] = json!("v1");
            list.push(s);
        }
        if rt.id == "pods" {
            list.push(sub("log", &["get"]));
        }
    }
    let gv = if group.is_empty() {
        version
    } else {
        format!("{group}/{version}")
    };
    Ok(Json(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": list }),
    ))
}
