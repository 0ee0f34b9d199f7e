//! Server-side apply: merges what a manager declares and removes what it declared before and no longer does. It always
//! overrules others, as with `force`; of the writers only those that apply are in `managedFields`.

use serde_json::{Map, Value, json};

use crate::patch::topology::Node;
use crate::resource::ResourceType;
use crate::value::{drop_nulls, list_at, metadata, now, object, str_at};

/// Who applies and how.
pub(crate) struct Applier<'a> {
    pub manager: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    pub version: &'a str,
}

/// The object after the apply. `live` is None when the apply creates the object.
pub(crate) fn apply(rt: &ResourceType, live: Option<&Value>, body: &Value, by: &Applier<'_>) -> Value {
    let root = Node::root(rt, by.version);
    let mut body = body.clone();
    drop_nulls(&mut body);
    // The other part is reset, whatever the body says.
    if by.subresource == "status" {
        object(&mut body).retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    } else if rt.status {
        object(&mut body).remove("status");
    }
    let fields = owned(&body, &root);
    let mut out = live.cloned().unwrap_or_else(|| json!({}));
    merge(&mut out, &body, &root);

    let mut entries = list_at(&out, "metadata.managedFields").to_vec();
    let mine = entries.iter().position(|e| {
        str_at(e, "manager") == Some(by.manager) && str_at(e, "subresource").unwrap_or("") == by.subresource
    });
    let before = mine.map(|i| entries.remove(i));
    if let Some(before) = &before {
        let mut kept = vec![&fields];
        kept.extend(entries.iter().filter_map(|e| e.get("fieldsV1")));
        prune(&mut out, &before["fieldsV1"], &kept, &root);
    }
    let unchanged = before.filter(|before| before["fieldsV1"] == fields);
    entries.push(unchanged.unwrap_or_else(|| {
        let mut entry = json!({
            "manager": by.manager,
            "operation": "Apply",
            "apiVersion": rt.api_version(by.version),
            "time": now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        });
        if !by.subresource.is_empty() {
            entry["subresource"] = json!(by.subresource);
        }
        entry
    }));
    // A stable order: an apply that changes nothing is not a write.
    entries.sort_by_cached_key(|e| {
        [str_at(e, "manager"), str_at(e, "subresource")].map(|t| t.map(str::to_owned))
    });
    metadata(&mut out).insert("managedFields".into(), Value::Array(entries));
    out
}

/// What a body declares, as `fieldsV1` spells it: `{"f:spec":{"f:replicas":{}}}`. Nobody owns what the server sets.
fn owned(body: &Value, root: &Node<'_>) -> Value {
    let mut body = body.clone();
    object(&mut body).retain(|k, _| !matches!(k.as_str(), "apiVersion" | "kind"));
    metadata(&mut body).retain(|k, _| {
        matches!(
            k.as_str(),
            "labels" | "annotations" | "finalizers" | "ownerReferences"
        )
    });
    declared(&body, root)
}

fn declared(v: &Value, node: &Node<'_>) -> Value {
    let mut out = Map::new();
    match v {
        Value::Object(m) if !node.is_atomic_map() => {
            for (k, v) in m {
                out.insert(format!("f:{k}"), declared(v, &node.field(k)));
            }
        }
        Value::Array(items) => {
            for (name, item) in node.names(items).into_iter().flatten().zip(items) {
                out.insert(name, declared(item, &node.item()));
            }
        }
        _ => {}
    }
    Value::Object(out)
}

/// Removes what was declared `before` and is in none of `kept`.
fn prune(live: &mut Value, before: &Value, kept: &[&Value], node: &Node<'_>) {
    for (element, below) in before.as_object().into_iter().flatten() {
        let kept: Vec<&Value> = kept.iter().filter_map(|k| k.get(element)).collect();
        let is_leaf = below.as_object().is_none_or(Map::is_empty);
        if let (Some(k), Some(m)) = (element.strip_prefix("f:"), live.as_object_mut()) {
            let Some(child) = m.get_mut(k) else { continue };
            if !is_leaf {
                prune(child, below, &kept, &node.field(k));
            }
            // What others put below stays.
            let is_empty = matches!(child, Value::Object(m) if m.is_empty())
                || matches!(child, Value::Array(a) if a.is_empty());
            if kept.is_empty() && (is_leaf || is_empty) {
                m.remove(k);
            }
        } else if let Some(list) = live.as_array_mut() {
            let names = node.names(list).unwrap_or_default();
            let Some(i) = names.iter().position(|name| name == element) else {
                continue;
            };
            if kept.is_empty() {
                list.remove(i);
            } else {
                prune(&mut list[i], below, &kept, &node.item());
            }
        }
    }
}

fn merge(live: &mut Value, applied: &Value, node: &Node<'_>) {
    match applied {
        Value::Object(m) if !node.is_atomic_map() => {
            let live = object(live);
            for (k, v) in m {
                match live.get_mut(k) {
                    Some(slot) => merge(slot, v, &node.field(k)),
                    None => {
                        live.insert(k.clone(), v.clone());
                    }
                }
            }
        }
        Value::Array(items) => {
            let (Some(names), Some(list)) = (node.names(items), live.as_array_mut()) else {
                *live = applied.clone();
                return;
            };
            for (name, item) in names.iter().zip(items) {
                let known = node.names(list).unwrap_or_default();
                match known.iter().position(|known| known == name) {
                    Some(i) => merge(&mut list[i], item, &node.item()),
                    None => list.push(item.clone()),
                }
            }
        }
        other => *live = other.clone(),
    }
}
