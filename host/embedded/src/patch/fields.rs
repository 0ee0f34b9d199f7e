//! Field ownership (`metadata.managedFields`): sets of leaf paths per manager.
//!
//! A path is a list of elements as `fieldsV1` spells them: `f:spec`, `k:{"name":"web"}`, `v:"text"`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::patch::topology::{ListKind, Node};
use crate::value::{list_at, metadata, now, str_at};

pub(crate) type Path = Vec<String>;
pub(crate) type PathSet = BTreeSet<Path>;

/// Fields of metadata that nobody owns.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// The leaves of an object and their values. A keyed list item is a leaf of its own, with the value null.
pub(crate) fn leaves(object: &Value, root: &Node<'_>) -> BTreeMap<Path, Value> {
    let mut out = BTreeMap::new();
    let Some(m) = object.as_object() else { return out };
    for (k, v) in m {
        match k.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (k, v) in v
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(k, _)| !UNOWNED.contains(&k.as_str()))
                {
                    let path = vec!["f:metadata".to_owned(), format!("f:{k}")];
                    walk(v, &root.field("metadata").field(k), path, &mut out);
                }
            }
            _ => walk(v, &root.field(k), vec![format!("f:{k}")], &mut out),
        }
    }
    out
}

fn walk(v: &Value, node: &Node<'_>, path: Path, out: &mut BTreeMap<Path, Value>) {
    match v {
        Value::Object(m) if !m.is_empty() && !node.is_atomic_map() => {
            for (k, v) in m {
                let mut p = path.clone();
                p.push(format!("f:{k}"));
                walk(v, &node.field(k), p, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let kind = node.list_kind();
            let names: Option<Vec<String>> = items.iter().map(|i| node.item_name(&kind, i)).collect();
            let Some(names) = names else {
                out.insert(path, v.clone());
                return;
            };
            for (name, item) in names.into_iter().zip(items) {
                let mut p = path.clone();
                p.push(name);
                out.insert(p.clone(), Value::Null);
                if kind != ListKind::Set {
                    for (k, v) in item.as_object().into_iter().flatten() {
                        let mut p = p.clone();
                        p.push(format!("f:{k}"));
                        walk(v, &node.item().field(k), p, out);
                    }
                }
            }
        }
        _ => {
            out.insert(path, v.clone());
        }
    }
}

/// Removes what is at `path`.
pub(crate) fn remove(v: &mut Value, node: &Node<'_>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if let Some(k) = first.strip_prefix("f:") {
        let Some(m) = v.as_object_mut() else { return };
        if rest.is_empty() {
            m.remove(k);
        } else if let Some(child) = m.get_mut(k) {
            remove(child, &node.field(k), rest);
        }
        return;
    }
    let kind = node.list_kind();
    let Some(list) = v.as_array_mut() else { return };
    let Some(i) = list
        .iter()
        .position(|x| node.item_name(&kind, x).as_deref() == Some(first.as_str()))
    else {
        return;
    };
    if rest.is_empty() {
        list.remove(i);
    } else {
        remove(&mut list[i], &node.item(), rest);
    }
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub manager: String,
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub time: String,
    pub fields: PathSet,
}

impl Entry {
    pub fn new(manager: &str, operation: &str, api_version: &str, subresource: &str) -> Self {
        Entry {
            manager: manager.to_owned(),
            operation: operation.to_owned(),
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
            time: now(),
            fields: PathSet::new(),
        }
    }

    pub fn same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && self.api_version == other.api_version
    }
}

pub(crate) fn read(object: &Value) -> Vec<Entry> {
    list_at(object, "metadata.managedFields")
        .iter()
        .map(|e| {
            let text = |k: &str| str_at(e, k).unwrap_or("").to_owned();
            let mut fields = PathSet::new();
            if let Some(f) = e.get("fieldsV1") {
                parse(f, &mut Vec::new(), &mut fields);
            }
            Entry {
                manager: text("manager"),
                operation: text("operation"),
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: text("time"),
                fields,
            }
        })
        .collect()
}

fn parse(v: &Value, path: &mut Path, out: &mut PathSet) {
    let Some(m) = v.as_object() else { return };
    if m.is_empty() && !path.is_empty() {
        out.insert(path.clone());
    }
    for (k, v) in m {
        if k == "." {
            out.insert(path.clone());
        } else {
            path.push(k.clone());
            parse(v, path, out);
            path.pop();
        }
    }
}

fn tree(set: &PathSet) -> Value {
    let mut root = json!({});
    for path in set {
        let mut at = &mut root;
        for k in path {
            at = crate::value::object(at)
                .entry(k.clone())
                .or_insert_with(|| json!({}));
        }
    }
    // A path that is a member and has members below it is marked by ".".
    for path in set {
        let mut at = &mut root;
        for k in path {
            at = crate::value::object(at)
                .entry(k.clone())
                .or_insert_with(|| json!({}));
        }
        if at.as_object().is_some_and(|m| !m.is_empty()) {
            crate::value::object(at).insert(".".into(), json!({}));
        }
    }
    root
}

pub(crate) fn write(object: &mut Value, entries: &[Entry]) {
    let list: Vec<Value> = entries
        .iter()
        .filter(|e| !e.fields.is_empty())
        .map(|e| {
            let mut m = Map::new();
            m.insert("manager".into(), json!(e.manager));
            m.insert("operation".into(), json!(e.operation));
            m.insert("apiVersion".into(), json!(e.api_version));
            m.insert("time".into(), json!(e.time));
            m.insert("fieldsType".into(), json!("FieldsV1"));
            m.insert("fieldsV1".into(), tree(&e.fields));
            if !e.subresource.is_empty() {
                m.insert("subresource".into(), json!(e.subresource));
            }
            Value::Object(m)
        })
        .collect();
    let m = metadata(object);
    if list.is_empty() {
        m.remove("managedFields");
    } else {
        m.insert("managedFields".into(), Value::Array(list));
    }
}

/// After a PUT, PATCH or POST: what changed belongs to the writer now, and what is gone belongs to nobody.
pub(crate) fn track_update(old: Option<&Value>, new: &mut Value, root: &Node<'_>, writer: Entry) {
    let before = old.map(|o| leaves(o, root)).unwrap_or_default();
    let after = leaves(new, root);
    let changed: PathSet = after
        .iter()
        .filter(|(p, v)| before.get(*p) != Some(v))
        .map(|(p, _)| p.clone())
        .collect();
    let gone: Vec<&Path> = before.keys().filter(|p| !after.contains_key(*p)).collect();
    let mut entries = old.map(read).unwrap_or_default();
    for e in &mut entries {
        for p in &gone {
            e.fields.remove(*p);
        }
        if !e.same_manager(&writer) {
            e.fields.retain(|p| !changed.contains(p));
        }
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|e| e.same_manager(&writer)) {
            Some(e) => {
                e.fields.extend(changed);
                e.time = writer.time;
            }
            None => entries.push(Entry {
                fields: changed,
                ..writer
            }),
        }
    }
    write(new, &entries);
}
