//! What holds for everything that the chart renders, whatever the values.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{list, text};

const LABELS: [&str; 5] = ["name", "instance", "version", "managed-by", "part-of"];
/// Kinds without a namespace.
const OF_THE_CLUSTER: [&str; 3] = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];

/// Everything that does not hold.
pub fn wrong(objects: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for object in objects {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        let namespace = text(object, "/metadata/namespace");
        let mut say = |what: String| wrong.push(format!("{kind} {name}: {what}"));
        if !seen.insert((kind, namespace, name)) {
            say("is rendered twice".to_owned());
        }
        if namespace.is_empty() != OF_THE_CLUSTER.contains(&kind) {
            say("its namespace is missing, or it should have none".to_owned());
        }
        for label in LABELS {
            if text(object, &format!("/metadata/labels/app.kubernetes.io~1{label}")).is_empty() {
                say(format!("has no label app.kubernetes.io/{label}"));
            }
        }
        if let Some(pod) = pod(object) {
            pod_spec(pod).into_iter().for_each(&mut say);
        }
        match kind {
            "Deployment" => deployment(object).into_iter().for_each(&mut say),
            "Role" | "ClusterRole" => rules(object).into_iter().for_each(&mut say),
            "RoleBinding" | "ClusterRoleBinding" => binding(object, objects).into_iter().for_each(&mut say),
            "Service" => service(object, objects).into_iter().for_each(&mut say),
            _ => {}
        }
    }
    wrong.extend(scope(objects));
    wrong
}

/// The pod that an object is or makes.
fn pod(object: &Value) -> Option<&Value> {
    match text(object, "/kind") {
        "Pod" => object.get("spec"),
        "Deployment" | "Job" => object.pointer("/spec/template/spec"),
        _ => None,
    }
}

/// The restricted pod security standard and more, resources, no access to the node.
fn pod_spec(pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |object: &Value, what: &str, pointer: &str, wanted: Value| {
        if object.pointer(pointer) != Some(&wanted) {
            let found = object.pointer(pointer).unwrap_or(&Value::Null);
            wrong.push(format!("{what}{pointer} is {found} and should be {wanted}"));
        }
    };
    must(pod, "", "/enableServiceLinks", json!(false));
    must(pod, "", "/securityContext/runAsNonRoot", json!(true));
    must(
        pod,
        "",
        "/securityContext/seccompProfile/type",
        json!("RuntimeDefault"),
    );
    for container in list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"))
    {
        let name = text(container, "/name");
        for (pointer, wanted) in [
            ("/allowPrivilegeEscalation", json!(false)),
            ("/readOnlyRootFilesystem", json!(true)),
            ("/runAsNonRoot", json!(true)),
            ("/capabilities", json!({"drop": ["ALL"]})),
            ("/seccompProfile/type", json!("RuntimeDefault")),
        ] {
            must(container, name, &format!("/securityContext{pointer}"), wanted);
        }
    }
    for forbidden in ["/hostNetwork", "/hostPID", "/hostIPC"] {
        if pod.pointer(forbidden).is_some() {
            wrong.push(format!("{forbidden} is set"));
        }
    }
    let on_the_node = list(pod, "/volumes")
        .iter()
        .filter(|volume| volume.get("hostPath").is_some());
    wrong.extend(on_the_node.map(|volume| format!("volume {} is of the node", text(volume, "/name"))));
    let mounts = list(pod, "/containers")
        .iter()
        .flat_map(|container| list(container, "/volumeMounts"));
    for mount in mounts {
        let name = text(mount, "/name");
        if !list(pod, "/volumes")
            .iter()
            .any(|volume| text(volume, "/name") == name)
        {
            wrong.push(format!("there is no volume {name}"));
        }
    }
    for container in list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"))
    {
        for resource in [
            "/resources/requests/cpu",
            "/resources/requests/memory",
            "/resources/limits/memory",
        ] {
            if container.pointer(resource).is_none() {
                wrong.push(format!("{} has no {resource}", text(container, "/name")));
            }
        }
    }
    wrong
}

fn deployment(object: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for container in list(object, "/spec/template/spec/containers") {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if text(container, &format!("/{probe}/httpGet/path")).is_empty() {
                wrong.push(format!("{} has no {probe}", text(container, "/name")));
            }
        }
    }
    let rolling = object
        .pointer("/spec/strategy/rollingUpdate")
        .cloned()
        .unwrap_or_default();
    // One autoscaler at a time may be wished for; a DLX that goes before another is there wakes what sleeps.
    let one_at_a_time = text(object, "/spec/strategy/type") == "Recreate"
        && text(object, "/metadata/labels/app.kubernetes.io~1component") == "autoscaler";
    if !one_at_a_time && rolling.get("maxUnavailable") != Some(&json!(0)) {
        wrong.push(format!("a rolling update takes pods away first: {rolling}"));
    }
    let selector = object
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    let labels = object.pointer("/spec/template/metadata/labels");
    for (key, value) in selector.into_iter().flatten() {
        if labels.and_then(|labels| labels.get(key)) != Some(value) {
            wrong.push(format!("its pods do not carry {key}={value}"));
        }
    }
    for label in ["component", "name", "instance"] {
        if !selector.is_some_and(|selector| selector.contains_key(&format!("app.kubernetes.io/{label}"))) {
            wrong.push(format!("its selector does not ask for app.kubernetes.io/{label}"));
        }
    }
    wrong
}

/// A wildcard grants what nobody thought of.
fn rules(object: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for rule in list(object, "/rules") {
        for part in ["/apiGroups", "/resources", "/verbs"] {
            if list(rule, part).is_empty() {
                wrong.push(format!("a rule without {part}: {rule}"));
            }
            if list(rule, part)
                .iter()
                .filter_map(Value::as_str)
                .any(|word| word.contains('*'))
            {
                wrong.push(format!("a wildcard in {part}: {rule}"));
            }
        }
    }
    if list(object, "/rules").is_empty() {
        wrong.push("has no rules".to_owned());
    }
    wrong
}

fn binding(object: &Value, objects: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let namespace = text(object, "/metadata/namespace");
    let (kind, name) = (text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
    let is_role = |other: &&Value| {
        text(other, "/kind") == kind
            && text(other, "/metadata/name") == name
            && text(other, "/metadata/namespace") == namespace
    };
    match objects.iter().find(is_role) {
        None => wrong.push(format!("there is no {kind} {name}")),
        // A hook's role must be there before its binding is of use, and a role that stays must not need one that goes.
        Some(role) => {
            let hook = "/metadata/annotations/helm.sh~1hook";
            if text(role, hook) != text(object, hook) {
                wrong.push("role and binding do not come and go together".to_owned());
            }
        }
    }
    for subject in list(object, "/subjects") {
        let is_account = |other: &&Value| {
            text(other, "/kind") == "ServiceAccount"
                && text(other, "/metadata/name") == text(subject, "/name")
                && text(other, "/metadata/namespace") == text(subject, "/namespace")
        };
        if !objects.iter().any(|object| is_account(&object)) {
            wrong.push(format!("there is no ServiceAccount {}", text(subject, "/name")));
        }
    }
    wrong
}

/// Ports of a Service lead to named ports of the pods that it selects.
fn service(object: &Value, objects: &[Value]) -> Vec<String> {
    let selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
    let selects = |other: &&Value| {
        other.pointer("/spec/selector/matchLabels") == Some(&selector) && text(other, "/kind") == "Deployment"
    };
    let Some(deployment) = objects.iter().find(selects) else {
        return vec!["selects no Deployment's pods".to_owned()];
    };
    let containers = list(deployment, "/spec/template/spec/containers");
    let ports: Vec<&str> = containers
        .iter()
        .flat_map(|container| list(container, "/ports"))
        .map(|port| text(port, "/name"))
        .collect();
    list(object, "/spec/ports")
        .iter()
        .map(|port| text(port, "/targetPort"))
        .filter(|target| !ports.contains(target))
        .map(|target| format!("no container has a port {target}"))
        .collect()
}

/// Whoever looks after one namespace gets nothing in the others.
fn scope(objects: &[Value]) -> Vec<String> {
    let config = objects
        .iter()
        .map(|object| text(object, "/data/dormouse.yaml"))
        .find(|text| !text.is_empty());
    let Some(config) = config.and_then(|text| serde_yaml::from_str::<Value>(text).ok()) else {
        return vec!["there is no configuration file, or it is not YAML".to_owned()];
    };
    let wide = objects
        .iter()
        .any(|object| text(object, "/kind") == "ClusterRole");
    let namespace = text(&config, "/common/namespace");
    if namespace != "*" && wide {
        return vec![format!(
            "a ClusterRole, although only {namespace} is looked after"
        )];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Value {
        json!({
            "app.kubernetes.io/name": "d", "app.kubernetes.io/instance": "d", "app.kubernetes.io/version": "1",
            "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/part-of": "d", "app.kubernetes.io/component": "x",
        })
    }

    fn fine() -> Vec<Value> {
        let selector = json!({
            "app.kubernetes.io/name": "d", "app.kubernetes.io/instance": "d", "app.kubernetes.io/component": "x",
        });
        let probe = json!({"httpGet": {"path": "/healthz"}});
        vec![
            json!({
                "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d", "labels": labels()},
                "data": {"dormouse.yaml": "common: {namespace: shop}"},
            }),
            json!({
                "kind": "Role", "metadata": {"name": "r", "namespace": "d", "labels": labels()},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
            }),
            json!({
                "kind": "Deployment", "metadata": {"name": "x", "namespace": "d", "labels": labels()},
                "spec": {
                    "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                    "selector": {"matchLabels": selector},
                    "template": {"metadata": {"labels": labels()}, "spec": {
                        "enableServiceLinks": false,
                        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [{
                            "name": "x",
                            "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe,
                            "resources": {"requests": {"cpu": "1", "memory": "1"}, "limits": {"memory": "1"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
                            },
                        }],
                    }},
                },
            }),
        ]
    }

    #[test]
    fn what_is_fine_is_fine() {
        assert_eq!(wrong(&fine()), Vec::<String>::new());
    }

    /// What is said after the value at `pointer` of one object was changed (`null`: removed).
    fn after(object: usize, pointer: &str, value: Value) -> String {
        let mut objects = fine();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = objects[object].pointer_mut(parent).unwrap();
        match parent {
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
            _ if value.is_null() => drop(parent.as_object_mut().unwrap().remove(key)),
            _ => parent[key] = value,
        }
        wrong(&objects).join("; ")
    }

    #[test]
    fn everything_that_is_taken_away_is_noticed() {
        let container = "/spec/template/spec/containers/0";
        for (object, pointer, value, said) in [
            (
                2,
                format!("{container}/securityContext/readOnlyRootFilesystem"),
                Value::Null,
                "readOnlyRootFilesystem",
            ),
            (
                2,
                format!("{container}/securityContext/capabilities"),
                json!({"drop": []}),
                "capabilities",
            ),
            (
                2,
                format!("{container}/resources/limits"),
                Value::Null,
                "limits/memory",
            ),
            (
                2,
                format!("{container}/startupProbe"),
                Value::Null,
                "startupProbe",
            ),
            (
                2,
                format!("{container}/volumeMounts"),
                json!([{"name": "v"}]),
                "no volume v",
            ),
            (
                2,
                "/spec/template/spec/hostNetwork".to_owned(),
                json!(true),
                "hostNetwork",
            ),
            (
                2,
                "/spec/template/spec/volumes".to_owned(),
                json!([{"name": "v", "hostPath": {}}]),
                "of the node",
            ),
            (2, "/spec/strategy".to_owned(), Value::Null, "pods away first"),
            (
                2,
                "/spec/template/metadata/labels".to_owned(),
                json!({}),
                "do not carry",
            ),
            (1, "/rules/0/verbs".to_owned(), json!(["*"]), "wildcard in /verbs"),
            (
                1,
                "/rules/0/resources".to_owned(),
                json!(["*/scale"]),
                "wildcard in /resources",
            ),
            (1, "/rules".to_owned(), json!([]), "no rules"),
            (1, "/metadata/namespace".to_owned(), Value::Null, "namespace"),
            (
                1,
                "/metadata/labels".to_owned(),
                Value::Null,
                "no label app.kubernetes.io/version",
            ),
        ] {
            let said_now = after(object, &pointer, value);
            assert!(said_now.contains(said), "{pointer}: {said_now}");
        }
    }

    #[test]
    fn one_namespace_needs_no_cluster_role() {
        let mut objects = fine();
        objects[1]["kind"] = json!("ClusterRole");
        objects[1]["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("namespace");
        assert!(wrong(&objects).join("; ").contains("only shop is looked after"));
        objects[0]["data"]["dormouse.yaml"] = json!("common: {namespace: '*'}");
        assert_eq!(wrong(&objects), Vec::<String>::new());
    }

    #[test]
    fn a_binding_needs_its_role_and_its_account() {
        let mut objects = fine();
        objects.push(json!({
            "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "d", "labels": labels()},
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "d"}],
        }));
        assert_eq!(wrong(&objects), ["RoleBinding b: there is no ServiceAccount a"]);
        objects[3]["roleRef"]["name"] = json!("other");
        assert!(wrong(&objects)[0].contains("no Role other"));
    }
}
