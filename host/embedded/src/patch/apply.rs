//! Server-side apply: merge what a manager declares, remove what it declared before and no longer does, and refuse
//! to overrule another manager unless forced.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::patch::fields::{self, Entry, Path, PathSet};
use crate::patch::topology::{ListKind, Node};
use crate::resource::ResourceType;
use crate::value::{drop_nulls, object};

/// Who applies and how.
pub(crate) struct Applier<'a> {
    pub manager: &'a str,
    pub force: bool,
    pub subresource: &'a str,
    pub version: &'a str,
}

/// The object after the apply, with its managed fields. `live` is None when the apply creates the object.
pub(crate) fn apply(
    rt: &ResourceType,
    live: Option<&Value>,
    applied: &Value,
    by: &Applier<'_>,
) -> Result<Value, ApiError> {
    let root = Node::root(rt, by.version);
    let mut applied = applied.clone();
    drop_nulls(&mut applied);
    if rt.status {
        // The other part is reset, whatever the body says.
        if by.subresource == "status" {
            object(&mut applied)
                .retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        } else {
            object(&mut applied).remove("status");
        }
    }
    let wanted = fields::leaves(&applied, &root);
    let wanted_paths: PathSet = wanted.keys().cloned().collect();
    let empty = json!({});
    let base = live.unwrap_or(&empty);
    let have = fields::leaves(base, &root);
    let mut me = Entry::new(by.manager, "Apply", &rt.api_version(by.version), by.subresource);
    let mut entries = fields::read(base);

    conflicts(rt, &mut entries, &me, &wanted, &have, by.force)?;

    let mut out = base.clone();
    merge(&mut out, &applied, &root);

    let mine = entries.iter().position(|e| e.same_manager(&me));
    let before = mine.map(|i| entries[i].fields.clone()).unwrap_or_default();
    for path in before.difference(&wanted_paths) {
        // Longer paths are covered by their prefix; removing twice does no harm.
        let shared = entries
            .iter()
            .enumerate()
            .any(|(i, e)| Some(i) != mine && e.fields.iter().any(|p| p.starts_with(path)));
        let still_wanted_below = wanted_paths.iter().any(|p| p.starts_with(path));
        if !shared && !still_wanted_below {
            fields::remove(&mut out, &root, path);
        }
    }
    let after = fields::leaves(&out, &root);
    for e in &mut entries {
        e.fields.retain(|p| after.contains_key(p));
    }
    me.fields = wanted_paths;
    match mine {
        Some(i) => {
            if entries[i].fields == me.fields && after == have {
                me.time.clone_from(&entries[i].time);
            }
            entries[i] = me;
        }
        None => entries.push(me),
    }
    fields::write(&mut out, &entries);
    Ok(out)
}

fn conflicts(
    rt: &ResourceType,
    entries: &mut [Entry],
    me: &Entry,
    wanted: &BTreeMap<Path, Value>,
    have: &BTreeMap<Path, Value>,
    force: bool,
) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    for e in entries.iter_mut().filter(|e| !e.same_manager(me)) {
        let contested: Vec<Path> = e
            .fields
            .iter()
            .filter(|p| wanted.get(*p).is_some_and(|w| have.get(*p) != Some(w)))
            .cloned()
            .collect();
        for p in contested {
            if force {
                e.fields.remove(&p);
            } else {
                let field = shown(&p);
                let how = if e.operation == "Apply" {
                    format!("conflict with \"{}\"", e.manager)
                } else {
                    format!("conflict with \"{}\" using {}", e.manager, e.api_version)
                };
                causes.push((e.manager.clone(), how, field));
            }
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let n = causes.len();
    let (how, field) = (&causes[0].1, &causes[0].2);
    let message = if n == 1 {
        format!("Apply failed with 1 conflict: {how}: {field}")
    } else {
        let lines: Vec<String> = causes.iter().map(|(_, how, f)| format!("{how}: {f}")).collect();
        format!("Apply failed with {n} conflicts: {}", lines.join("; "))
    };
    let mut e = ApiError::new(409, "Conflict", message);
    let causes: Vec<Value> = causes
        .iter()
        .map(|(_, how, field)| json!({ "reason": "FieldManagerConflict", "message": how, "field": field }))
        .collect();
    e.details = Some(json!({ "group": rt.group, "kind": rt.plural, "causes": causes }));
    Err(e)
}

/// `.spec.containers[name="web"].image`
fn shown(path: &Path) -> String {
    let mut out = String::new();
    for p in path {
        if let Some(f) = p.strip_prefix("f:") {
            out.push('.');
            out.push_str(f);
        } else if let Some(k) = p.strip_prefix("k:") {
            let keys: Value = serde_json::from_str(k).unwrap_or_default();
            let parts: Vec<String> = keys
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            out.push_str(&format!("[{}]", parts.join(",")));
        } else if let Some(v) = p.strip_prefix("v:") {
            out.push_str(&format!("[={v}]"));
        }
    }
    out
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
            let kind = node.list_kind();
            let names: Option<Vec<String>> = items.iter().map(|i| node.item_name(&kind, i)).collect();
            let (Some(names), Some(list)) = (names.filter(|_| kind != ListKind::Atomic), live.as_array_mut())
            else {
                *live = applied.clone();
                return;
            };
            for (name, item) in names.iter().zip(items) {
                match list
                    .iter_mut()
                    .find(|x| node.item_name(&kind, x).as_ref() == Some(name))
                {
                    Some(slot) => merge(slot, item, &node.item()),
                    None => list.push(item.clone()),
                }
            }
        }
        other => *live = other.clone(),
    }
}
