//! Which lists are keyed and which maps are atomic: what `x-kubernetes-list-type` and `x-kubernetes-map-type` say for
//! custom resources, and the same knowledge about built-in kinds as a table over field names.

use serde_json::{Value, json};

use crate::resource::ResourceType;
use crate::value::canonical;

/// How a list merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A place in an object's type.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    builtin: bool,
    kind: &'a str,
    schema: Option<&'a Value>,
    path: Vec<String>,
}

impl<'a> Node<'a> {
    pub fn root(rt: &'a ResourceType, version: &str) -> Self {
        let schema = rt
            .schemas
            .get(version)
            .or_else(|| rt.schemas.get(&rt.storage_version));
        Node {
            builtin: rt.builtin,
            kind: &rt.kind,
            schema,
            path: Vec::new(),
        }
    }

    pub fn field(&self, name: &str) -> Node<'a> {
        let mut path = self.path.clone();
        path.push(name.to_owned());
        let schema = self.schema.and_then(|s| {
            s.get("properties")
                .and_then(|p| p.get(name))
                .or_else(|| s.get("additionalProperties").filter(|a| a.is_object()))
        });
        Node {
            schema,
            path,
            ..*self
        }
    }

    pub fn item(&self) -> Node<'a> {
        Node {
            schema: self.schema.and_then(|s| s.get("items")),
            path: self.path.clone(),
            ..*self
        }
    }

    /// Built-in rules apply to built-in kinds and to every object's metadata.
    fn by_table(&self) -> bool {
        self.builtin || self.path.first().is_some_and(|p| p == "metadata")
    }

    pub fn list_kind(&self) -> ListKind {
        if self.by_table() {
            return table_list(self.kind, &self.path);
        }
        let Some(s) = self.schema else {
            return ListKind::Atomic;
        };
        match s.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListKind::Set,
            Some("map") => ListKind::Map(
                s.get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|k| k.as_str().map(str::to_owned))
                    .collect(),
            ),
            _ => ListKind::Atomic,
        }
    }

    pub fn is_atomic_map(&self) -> bool {
        if self.by_table() {
            let last = self.path.last().map_or("", String::as_str);
            return match last {
                // A Service's selector and every LabelSelector and object reference is one value.
                "selector" => self.path.first().is_some_and(|p| p == "spec"),
                "labelSelector" | "nodeSelector" | "fieldRef" | "resourceFieldRef" | "configMapKeyRef"
                | "secretKeyRef" | "claimRef" | "targetRef" => true,
                _ => false,
            };
        }
        self.schema
            .and_then(|s| s.get("x-kubernetes-map-type"))
            .and_then(Value::as_str)
            == Some("atomic")
    }

    /// The name of a list item as managed fields write it: `k:{"name":"web"}` or `v:"text"`.
    pub fn item_name(&self, list: &ListKind, item: &Value) -> Option<String> {
        match list {
            ListKind::Atomic => None,
            ListKind::Set => Some(format!("v:{}", canonical(item))),
            ListKind::Map(keys) => {
                let mut name = serde_json::Map::new();
                for k in keys {
                    let v = match item.get(k) {
                        Some(v) if !v.is_null() => v.clone(),
                        // The one key that has a default.
                        _ if k == "protocol" => json!("TCP"),
                        _ => return None,
                    };
                    name.insert(k.clone(), v);
                }
                Some(format!("k:{}", canonical(&Value::Object(name))))
            }
        }
    }
}

fn keys(names: &[&str]) -> ListKind {
    ListKind::Map(names.iter().map(|s| (*s).to_owned()).collect())
}

fn table_list(kind: &str, path: &[String]) -> ListKind {
    let last = path.last().map_or("", String::as_str);
    let parent = path.len().checked_sub(2).map_or("", |i| path[i].as_str());
    match last {
        "finalizers" if parent == "metadata" => ListKind::Set,
        "ownerReferences" => keys(&["uid"]),
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => {
            keys(&["name"])
        }
        "conditions" => keys(&["type"]),
        "volumeMounts" => keys(&["mountPath"]),
        "hostAliases" | "podIPs" => keys(&["ip"]),
        "topologySpreadConstraints" => keys(&["topologyKey", "whenUnsatisfiable"]),
        "ports" if parent == "containers" || parent == "initContainers" => {
            keys(&["containerPort", "protocol"])
        }
        "ports" if kind == "Service" => keys(&["port", "protocol"]),
        "secrets" if kind == "ServiceAccount" => keys(&["name"]),
        _ => ListKind::Atomic,
    }
}

/// The merge key of strategic merge patches, which differs from the keys of server-side apply for ports.
pub(crate) fn strategic_key(path: &[String]) -> Option<&'static str> {
    let last = path.last()?.as_str();
    let parent = path.len().checked_sub(2).map_or("", |i| path[i].as_str());
    Some(match last {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets" => "name",
        "conditions" => "type",
        "volumeMounts" => "mountPath",
        "hostAliases" | "podIPs" => "ip",
        "ownerReferences" => "uid",
        "topologySpreadConstraints" => "topologyKey",
        "ports" if parent == "containers" || parent == "initContainers" => "containerPort",
        "ports" if parent == "spec" => "port",
        _ => return None,
    })
}
