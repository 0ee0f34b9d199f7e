//! Defaults that a real API server fills in when it decodes built-in kinds.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::resource::ResourceType;
use crate::value::{at, child, drop_nulls, list_at, metadata, name_of, now, object, str_at};

/// Fills in what is not there.
fn fill(v: &mut Value, defaults: Value) {
    let Value::Object(defaults) = defaults else {
        return;
    };
    let m = object(v);
    for (key, default) in defaults {
        match m.get_mut(&key).filter(|v| !v.is_null()) {
            None => {
                m.insert(key, default);
            }
            Some(v) => fill(v, default),
        }
    }
}

fn each<'a>(v: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    v.get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Fills in what the version of `rt` defaults. Built-in kinds only; custom ones have defaults in their schema.
pub(crate) fn apply(rt: &ResourceType, v: &mut Value) {
    if !rt.builtin {
        return;
    }
    drop_nulls(v);
    // Labels and annotations that became empty are omitted.
    metadata(v).retain(|key, x| {
        !matches!(
            key.as_str(),
            "labels" | "annotations" | "finalizers" | "ownerReferences"
        ) || !(x == &json!({}) || x == &json!([]))
    });
    match rt.id.as_str() {
        "namespaces" => {
            let name = json!(name_of(v));
            child(metadata(v), "labels").insert("kubernetes.io/metadata.name".into(), name);
            fill(
                v,
                json!({ "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" } }),
            );
        }
        "pods" => {
            let pod = json!({
                "serviceAccountName": "default",
                "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
                "priority": 0,
            });
            fill(v, json!({ "spec": pod }));
            let account = v["spec"]["serviceAccountName"].clone();
            fill(v, json!({ "spec": { "serviceAccount": account } }));
            pod_spec(&mut v["spec"]);
        }
        "services" => service(v),
        "secrets" => secret(v),
        "deployments.apps" => {
            let deployment = json!({
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "strategy": { "type": "RollingUpdate" },
            });
            fill(v, json!({ "spec": deployment }));
            let strategy = &mut v["spec"]["strategy"];
            if str_at(strategy, "type") == Some("RollingUpdate") {
                let rolling = json!({ "maxUnavailable": "25%", "maxSurge": "25%" });
                fill(strategy, json!({ "rollingUpdate": rolling }));
            }
            template(v);
        }
        "replicasets.apps" => {
            fill(v, json!({ "spec": { "replicas": 1 } }));
            template(v);
        }
        "statefulsets.apps" => {
            let set = json!({
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": { "type": "RollingUpdate" },
                "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" },
            });
            fill(v, json!({ "spec": set }));
            let strategy = &mut v["spec"]["updateStrategy"];
            if str_at(strategy, "type") == Some("RollingUpdate") {
                fill(strategy, json!({ "rollingUpdate": { "partition": 0 } }));
            }
            template(v);
        }
        "endpointslices.discovery.k8s.io" => {
            each(v, "ports").for_each(|p| fill(p, json!({ "name": "", "protocol": "TCP" })));
            // Go encodes both as null when they are empty; clients see that on real clusters too.
            for key in ["endpoints", "ports"] {
                if list_at(v, key).is_empty() {
                    v[key] = Value::Null;
                }
            }
        }
        "horizontalpodautoscalers.autoscaling" => fill(v, json!({ "spec": { "minReplicas": 1 } })),
        "events" => {
            fill(v, json!({ "source": {} }));
            let from = |field: &str| v["source"].get(field).cloned().unwrap_or_else(|| json!(""));
            let reporting =
                json!({ "reportingComponent": from("component"), "reportingInstance": from("host") });
            fill(v, reporting);
        }
        _ => {}
    }
}

fn secret(v: &mut Value) {
    fill(v, json!({ "type": "Opaque" }));
    let m = object(v);
    if let Some(Value::Object(text)) = m.remove("stringData") {
        let data = child(m, "data");
        for (k, t) in text {
            let encoded = base64::engine::general_purpose::STANDARD.encode(t.as_str().unwrap_or(""));
            data.insert(k, json!(encoded));
        }
    }
}

fn probe(p: &mut Value) {
    // Zero is not set.
    object(p).retain(|k, v| !k.ends_with("Seconds") && !k.ends_with("Threshold") || v != &json!(0));
    fill(
        p,
        json!({ "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3 }),
    );
    if let Some(get) = p.get_mut("httpGet") {
        fill(get, json!({ "path": "/", "scheme": "HTTP" }));
    }
}

fn container(c: &mut Value) {
    let name = str_at(c, "image").and_then(|image| image.rsplit('/').next());
    let is_pinned = name.is_some_and(|name| name.contains(':') && !name.ends_with(":latest"));
    fill(
        c,
        json!({
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": if is_pinned { "IfNotPresent" } else { "Always" },
        }),
    );
    each(c, "ports").for_each(|p| fill(p, json!({ "protocol": "TCP" })));
    for e in each(c, "env") {
        if let Some(field) = e.pointer_mut("/valueFrom/fieldRef") {
            fill(field, json!({ "apiVersion": "v1" }));
        }
    }
    for k in ["readinessProbe", "livenessProbe", "startupProbe"] {
        if let Some(p) = c.get_mut(k) {
            probe(p);
        }
    }
}

fn pod_spec(spec: &mut Value) {
    fill(
        spec,
        json!({
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        }),
    );
    for list in ["containers", "initContainers"] {
        each(spec, list).for_each(container);
    }
}

/// The pod template of a workload that has one.
fn template(v: &mut Value) {
    if let Some(template) = v.pointer_mut("/spec/template") {
        fill(template, json!({ "metadata": {}, "spec": {} }));
        pod_spec(&mut template["spec"]);
    }
}

fn service(v: &mut Value) {
    fill(v, json!({ "spec": {}, "status": { "loadBalancer": {} } }));
    let spec = &mut v["spec"];
    fill(spec, json!({ "type": "ClusterIP", "sessionAffinity": "None" }));
    for p in each(spec, "ports") {
        let port = p.get("port").cloned().unwrap_or_default();
        object(p).retain(|k, v| k != "targetPort" || v != &json!("") && v != &json!(0));
        fill(p, json!({ "protocol": "TCP", "targetPort": port }));
    }
    if str_at(spec, "type") != Some("ExternalName") {
        fill(
            spec,
            json!({ "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack" }),
        );
    }
    object(spec).retain(|k, v| k != "selector" || !v.as_object().is_some_and(Map::is_empty));
}

/// What is set once, at creation: the status that a new object starts with.
pub(crate) fn initial_status(rt: &ResourceType, v: &mut Value) {
    let status = match rt.id.as_str() {
        "namespaces" => json!({ "phase": "Active" }),
        "pods" => json!({ "phase": "Pending", "qosClass": "BestEffort" }),
        "services" => json!({ "loadBalancer": {} }),
        "deployments.apps" => json!({}),
        "replicasets.apps" => json!({ "replicas": 0 }),
        "statefulsets.apps" => json!({ "replicas": 0, "availableReplicas": 0 }),
        "ingresses.networking.k8s.io" => json!({ "loadBalancer": {} }),
        "horizontalpodautoscalers.autoscaling" => json!({ "desiredReplicas": 0, "currentMetrics": null }),
        "customresourcedefinitions.apiextensions.k8s.io" => crd_status(v),
        // A Node has no kubelet here that would fill in its status.
        "nodes" => return,
        _ => {
            object(v).remove("status");
            return;
        }
    };
    object(v).insert("status".into(), status);
}

/// Real clusters set these a moment after creation; here a kind is served from the moment its definition exists.
fn crd_status(v: &Value) -> Value {
    let names = at(v, "spec.names").cloned().unwrap_or_else(|| json!({}));
    let stored: Vec<Value> = list_at(v, "spec.versions")
        .iter()
        .filter(|v| v.get("storage") == Some(&json!(true)))
        .filter_map(|v| v.get("name").cloned())
        .collect();
    let t = now();
    json!({
        "acceptedNames": names,
        "storedVersions": stored,
        "conditions": [
            { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
              "lastTransitionTime": t },
            { "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
              "message": "the initial names have been accepted", "lastTransitionTime": t },
        ],
    })
}
