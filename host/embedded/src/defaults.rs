//! Defaults that a real API server fills in when it decodes built-in kinds.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::resource::ResourceType;
use crate::value::{at, drop_nulls, metadata, now, object, str_at};

fn default(m: &mut Map<String, Value>, key: &str, v: Value) {
    if m.get(key).is_none_or(Value::is_null) {
        m.insert(key.to_owned(), v);
    }
}

fn sub<'a>(v: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    object(object(v).entry(key).or_insert_with(|| json!({})))
}

fn each(v: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    v.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills in what the version of `rt` defaults. Built-in kinds only; custom ones have defaults in their schema.
pub(crate) fn apply(rt: &ResourceType, v: &mut Value) {
    if !rt.builtin {
        return;
    }
    drop_nulls(v);
    if rt.id != "customresourcedefinitions.apiextensions.k8s.io" {
        // Labels and annotations that became empty are omitted.
        let m = metadata(v);
        for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
            let empty = m.get(key).is_some_and(|x| match x {
                Value::Object(o) => o.is_empty(),
                Value::Array(a) => a.is_empty(),
                _ => false,
            });
            if empty {
                m.remove(key);
            }
        }
    }
    match rt.id.as_str() {
        "namespaces" => namespace(v),
        "pods" => pod_spec(sub(v, "spec"), true),
        "services" => service(v),
        "secrets" => secret(v),
        "deployments.apps" => deployment(v),
        "replicasets.apps" => {
            let spec = sub(v, "spec");
            default(spec, "replicas", json!(1));
            template(spec);
        }
        "statefulsets.apps" => statefulset(v),
        "endpointslices.discovery.k8s.io" => endpoint_slice(v),
        "horizontalpodautoscalers.autoscaling" => default(sub(v, "spec"), "minReplicas", json!(1)),
        "events" => {
            let m = object(v);
            default(m, "metadata", json!({}));
            default(m, "source", json!({}));
            for (new, old) in [("reportingComponent", "component"), ("reportingInstance", "host")] {
                let from = m
                    .get("source")
                    .and_then(|s| s.get(old))
                    .cloned()
                    .unwrap_or_else(|| json!(""));
                default(m, new, from);
            }
        }
        _ => {}
    }
}

fn namespace(v: &mut Value) {
    let name = str_at(v, "metadata.name").unwrap_or("").to_owned();
    let m = metadata(v);
    let labels = object(m.entry("labels").or_insert_with(|| json!({})));
    labels.insert("kubernetes.io/metadata.name".into(), json!(name));
    default(sub(v, "spec"), "finalizers", json!(["kubernetes"]));
    default(sub(v, "status"), "phase", json!("Active"));
}

fn secret(v: &mut Value) {
    let m = object(v);
    default(m, "type", json!("Opaque"));
    if let Some(Value::Object(text)) = m.remove("stringData") {
        let data = object(m.entry("data").or_insert_with(|| json!({})));
        for (k, t) in text {
            let encoded = base64::engine::general_purpose::STANDARD.encode(t.as_str().unwrap_or(""));
            data.insert(k, json!(encoded));
        }
    }
}

fn probe(p: &mut Value) {
    let p = object(p);
    for (k, n) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if p.get(k).and_then(Value::as_i64).unwrap_or(0) == 0 {
            p.insert(k.into(), json!(n));
        }
    }
    if let Some(g) = p.get_mut("httpGet") {
        let g = object(g);
        default(g, "path", json!("/"));
        default(g, "scheme", json!("HTTP"));
    }
}

fn container(c: &mut Value) {
    let pull = match str_at(c, "image") {
        Some(i)
            if i.rsplit('/')
                .next()
                .is_some_and(|l| l.contains(':') && !l.ends_with(":latest")) =>
        {
            "IfNotPresent"
        }
        _ => "Always",
    };
    let c = object(c);
    default(c, "resources", json!({}));
    default(c, "terminationMessagePath", json!("/dev/termination-log"));
    default(c, "terminationMessagePolicy", json!("File"));
    default(c, "imagePullPolicy", json!(pull));
    for p in each(c.get_mut("ports")) {
        default(object(p), "protocol", json!("TCP"));
    }
    for e in each(c.get_mut("env")) {
        if let Some(f) = e.pointer_mut("/valueFrom/fieldRef") {
            default(object(f), "apiVersion", json!("v1"));
        }
    }
    for k in ["readinessProbe", "livenessProbe", "startupProbe"] {
        if let Some(p) = c.get_mut(k) {
            probe(p);
        }
    }
}

fn pod_spec(spec: &mut Map<String, Value>, is_pod: bool) {
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", json!("default-scheduler"));
    if is_pod {
        default(spec, "serviceAccountName", json!("default"));
        let sa = spec.get("serviceAccountName").cloned().unwrap_or_default();
        default(spec, "serviceAccount", sa);
        default(spec, "enableServiceLinks", json!(true));
        default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
        default(spec, "priority", json!(0));
    }
    for list in ["containers", "initContainers"] {
        each(spec.get_mut(list)).for_each(container);
    }
}

fn template(spec: &mut Map<String, Value>) {
    if let Some(t) = spec.get_mut("template") {
        object(object(t).entry("metadata").or_insert_with(|| json!({})));
        pod_spec(sub(t, "spec"), false);
    }
}

fn deployment(v: &mut Value) {
    let spec = sub(v, "spec");
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "progressDeadlineSeconds", json!(600));
    let strategy = object(spec.entry("strategy").or_insert_with(|| json!({})));
    default(strategy, "type", json!("RollingUpdate"));
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        let r = object(strategy.entry("rollingUpdate").or_insert_with(|| json!({})));
        default(r, "maxUnavailable", json!("25%"));
        default(r, "maxSurge", json!("25%"));
    }
    template(spec);
}

fn statefulset(v: &mut Value) {
    let spec = sub(v, "spec");
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "podManagementPolicy", json!("OrderedReady"));
    let u = object(spec.entry("updateStrategy").or_insert_with(|| json!({})));
    default(u, "type", json!("RollingUpdate"));
    if u.get("type") == Some(&json!("RollingUpdate")) {
        default(
            object(u.entry("rollingUpdate").or_insert_with(|| json!({}))),
            "partition",
            json!(0),
        );
    }
    default(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
    );
    template(spec);
}

fn service(v: &mut Value) {
    let spec = sub(v, "spec");
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    for p in each(spec.get_mut("ports")) {
        let p = object(p);
        default(p, "protocol", json!("TCP"));
        let same = match p.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::String(s)) => s.is_empty(),
            Some(n) => n == &json!(0),
        };
        if same {
            let port = p.get("port").cloned().unwrap_or_default();
            p.insert("targetPort".into(), port);
        }
    }
    if spec.get("type") != Some(&json!("ExternalName")) {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
        default(spec, "ipFamilies", json!(["IPv4"]));
        default(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    if spec
        .get("selector")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        spec.remove("selector");
    }
    default(sub(v, "status"), "loadBalancer", json!({}));
}

fn endpoint_slice(v: &mut Value) {
    let m = object(v);
    for p in each(m.get_mut("ports")) {
        let p = object(p);
        default(p, "name", json!(""));
        default(p, "protocol", json!("TCP"));
    }
    // Go encodes both as null when they are empty; clients see that on real clusters too.
    for key in ["endpoints", "ports"] {
        if m.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty) {
            m.insert(key.into(), Value::Null);
        }
    }
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
    let stored: Vec<Value> = crate::value::list_at(v, "spec.versions")
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
