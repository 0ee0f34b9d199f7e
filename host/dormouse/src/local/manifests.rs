//! What the installation applies: Dormouse itself, its configuration, and workloads.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{ADMIN_PORT, DEMO_NAMESPACE, DEMO_WORKLOADS, Options, SYSTEM_NAMESPACE};

/// What the demo's operator allows every plugin: reading workloads and Services, sleep and wake, events.
pub(super) fn config_file(options: &Options) -> String {
    let mut grants: Vec<Value> = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("v1", "Service"),
    ]
    .map(|(version, kind)| json!({ "apiVersion": version, "kind": kind, "verbs": ["get", "list"] }))
    .into();
    let more = options.more_grants.iter();
    grants.extend(
        more.map(|(version, kind, verbs)| json!({ "apiVersion": version, "kind": kind, "verbs": verbs })),
    );
    let plugins: Map<_, _> = options
        .plugins
        .iter()
        .filter_map(|file| file.file_stem()?.to_str().map(str::to_owned))
        .map(|name| {
            let plugin = json!({
                "grants": { "kubernetes": grants, "lifecycle": true, "events": true },
                "config": options.plugin_config.get(&name).cloned().unwrap_or_default(),
            });
            (name, plugin)
        })
        .collect();
    // JSON is YAML.
    json!({
        "common": {
            "namespace": "*",
            "dlxService": format!("{SYSTEM_NAMESPACE}/dormouse-dlx"),
            "drainGrace": "300ms",
            // Everything is far faster than in production, because nobody watches a demo for fifteen minutes.
            // The only proxy is in this process.
            "outageGrace": "0s",
            "lookSettle": "1s",
            "lookLongest": "4s",
            "dlxAbsence": "3s",
            "log": "info,dormouse=debug",
        },
        "autoscaler": {
            "scaleInterval": "250ms",
            "leaderLease": format!("{SYSTEM_NAMESPACE}/dormouse-autoscaler"),
            "memhpa": options.memhpa,
        },
        "dlx": { "targetNameHeader": "X-Dormouse-Target", "shutdownDelay": "300ms" },
        "plugins": plugins,
    })
    .to_string()
}

/// The label selector of a part of Dormouse, as the chart labels them too.
pub fn labels_of(part: &str) -> String {
    let component = part.strip_prefix("dormouse-").unwrap_or(part);
    format!("app.kubernetes.io/name=dormouse,app.kubernetes.io/component={component}")
}

fn labels(part: &str) -> Value {
    let pairs = labels_of(part);
    let pairs = pairs.split(',').filter_map(|pair| pair.split_once('='));
    pairs.collect()
}

fn process(name: &str, replicas: u32, binary: &Path, args: &[String], ports: &[(&str, u16)]) -> Value {
    let labels = labels(name);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": { "embedded.dormouse.dev/probe-period": "50ms" },
                },
                "spec": { "containers": [{
                    "name": name,
                    "image": "dormouse",
                    "command": [binary.display().to_string()],
                    "args": args,
                    "env": [
                        { "name": "DORMOUSE_BIND_ADDRESS", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                        { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    ],
                    "ports": ports
                        .iter()
                        .map(|(name, port)| json!({ "name": name, "containerPort": port }))
                        .collect::<Vec<_>>(),
                    "readinessProbe": {
                        "httpGet": { "path": "/readyz", "port": ADMIN_PORT },
                        "periodSeconds": 1,
                        "failureThreshold": 1,
                    },
                }] },
            },
        },
    })
}

fn documents(values: &[Value]) -> String {
    values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n---\n")
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// Dormouse itself.
pub(super) fn system(binary: &Path, common: &[String]) -> String {
    let with = |command: &str| [&[command.to_owned()], common].concat();
    let admin = ("admin", ADMIN_PORT);
    let autoscaler = process("dormouse-autoscaler", 1, binary, &with("autoscaler"), &[admin]);
    let dlx = process("dormouse-dlx", 2, binary, &with("dlx"), &[admin, ("http", 8080)]);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "dormouse-dlx", "namespace": SYSTEM_NAMESPACE },
        "spec": {
            "selector": labels("dormouse-dlx"),
            "ports": [
                { "name": "http", "port": 80, "targetPort": 8080 },
                { "name": "admin", "port": ADMIN_PORT, "targetPort": ADMIN_PORT },
            ],
        },
    });
    documents(&[namespace(SYSTEM_NAMESPACE), service, dlx, autoscaler])
}

/// A Deployment and its Service. The embedded cluster reads its annotations and ignores the image; on a real one the image
/// does the same by what it finds in its environment.
pub fn workload(
    namespace: &str,
    name: &str,
    annotations: &[(&str, &str)],
    pod_annotations: &[(&str, &str)],
) -> String {
    let labels = json!({ "app": name, "tier": "preview" });
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect::<Map<_, _>>()
    };
    let from = |name: &str, field: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } });
    let mut pod_annotations = map(pod_annotations);
    pod_annotations.insert("embedded.dormouse.dev/probe-period".to_owned(), "50ms".into());
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": namespace, "labels": labels, "annotations": map(annotations) },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": labels, "annotations": pod_annotations },
                "spec": { "containers": [{
                    "name": name,
                    "image": "dormouse.test/workload:1",
                    "env": [
                        from("POD_NAME", "metadata.name"),
                        from("POD_NAMESPACE", "metadata.namespace"),
                        from("START_DELAY", "metadata.annotations['embedded.dormouse.dev/start-delay']"),
                    ],
                    "ports": [{ "name": "http", "containerPort": 8080 }],
                    // Patient: on a node without processor to spare a probe may take long, and a pod that fails one leaves its
                    // Service although it serves, with nobody to hold the requests of an awake workload.
                    "readinessProbe": { "httpGet": { "path": "/", "port": "http" }, "periodSeconds": 1, "timeoutSeconds": 10 },
                }] },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    });
    documents(&[service, deployment])
}

/// The demo's workloads.
pub(super) fn workloads() -> String {
    let mut text = namespace(DEMO_NAMESPACE).to_string();
    for name in DEMO_WORKLOADS {
        text.push_str("\n---\n");
        text.push_str(&workload(
            DEMO_NAMESPACE,
            name,
            &[("dormouse.dev/sleep-after", "3s")],
            &[("embedded.dormouse.dev/start-delay", "400ms")],
        ));
    }
    text
}
