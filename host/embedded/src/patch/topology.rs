//! Which lists are keyed and which maps are one value: what `x-kubernetes-list-type` and `x-kubernetes-map-type` say for
//! custom resources, and the same knowledge about built-in kinds as a table over field names.

use serde_json::{Map, Value, json};

use crate::resource::ResourceType;
use crate::value::canonical;

/// A place in an object's type.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    builtin: bool,
    schema: Option<&'a Value>,
    path: Vec<String>,
}

impl<'a> Node<'a> {
    pub fn root(rt: &'a ResourceType, version: &str) -> Self {
        Node {
            builtin: rt.builtin,
            schema: rt.schema(version),
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
            ..self.clone()
        }
    }

    /// Built-in rules apply to built-in kinds and to every object's metadata.
    fn by_table(&self) -> bool {
        self.builtin || self.path.first().is_some_and(|p| p == "metadata")
    }

    /// The fields that tell the items of a list apart; none for a set, whose items tell themselves apart. None: the
    /// list is one value.
    fn keys(&self) -> Option<Vec<&'a str>> {
        if self.by_table() {
            return list_keys(&self.path).map(<[_]>::to_vec);
        }
        let schema = self.schema?;
        match schema.get("x-kubernetes-list-type")?.as_str()? {
            "set" => Some(Vec::new()),
            "map" => {
                let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
                Some(keys.iter().filter_map(Value::as_str).collect())
            }
            _ => None,
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
        let kind = self.schema.and_then(|s| s.get("x-kubernetes-map-type"));
        kind.and_then(Value::as_str) == Some("atomic")
    }

    /// The names of a list's items as managed fields write them: `k:{"name":"web"}` or `v:"text"`. None: the list is
    /// one value.
    pub fn names(&self, items: &[Value]) -> Option<Vec<String>> {
        let keys = self.keys()?;
        items.iter().map(|item| item_name(&keys, item)).collect()
    }
}

fn item_name(keys: &[&str], item: &Value) -> Option<String> {
    if keys.is_empty() {
        return Some(format!("v:{}", canonical(item)));
    }
    let mut name = Map::new();
    for key in keys {
        let value = match item.get(key) {
            Some(v) if !v.is_null() => v.clone(),
            // The one key that has a default.
            _ if *key == "protocol" => json!("TCP"),
            _ => return None,
        };
        name.insert((*key).to_owned(), value);
    }
    Some(format!("k:{}", canonical(&Value::Object(name))))
}

/// The keys of a list of a built-in kind. Strategic merge patches go by the first one alone.
pub(crate) fn list_keys(path: &[String]) -> Option<&'static [&'static str]> {
    let last = path.last()?.as_str();
    let parent = path.len().checked_sub(2).map_or("", |i| path[i].as_str());
    Some(match last {
        "finalizers" if parent == "metadata" => &[],
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets" => &["name"],
        "conditions" => &["type"],
        "volumeMounts" => &["mountPath"],
        "hostAliases" | "podIPs" => &["ip"],
        "ownerReferences" => &["uid"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        "ports" if parent == "containers" || parent == "initContainers" => &["containerPort", "protocol"],
        "ports" if parent == "spec" => &["port", "protocol"],
        _ => return None,
    })
}
