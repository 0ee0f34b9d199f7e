//! Objects as they go over the wire: the version that was asked for, metadata only, or a table.

use serde_json::{Map, Value, json};

use crate::resource::{EVENTS_GROUP, ResourceType};
use crate::value::{at, name_of, object, str_at};

/// The form that the Accept header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Full,
    Metadata,
    Table,
}

impl Form {
    pub fn of(accept: &str) -> Form {
        for option in accept.split(',') {
            if option.contains("protobuf") {
                continue;
            }
            if option.contains("as=PartialObjectMetadata") {
                return Form::Metadata;
            }
            if option.contains("as=Table") {
                return Form::Table;
            }
        }
        Form::Full
    }
}

/// One object in the version and form of a request.
pub(crate) fn object_as(rt: &ResourceType, group: &str, version: &str, form: Form, stored: &Value) -> Value {
    let mut v = if group == EVENTS_GROUP {
        event_to_new(stored)
    } else if version == rt.storage_version {
        stored.clone()
    } else {
        let mut v = stored.clone();
        object(&mut v).insert("apiVersion".into(), json!(rt.api_version(version)));
        v
    };
    match form {
        Form::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": v["metadata"].take(),
        }),
        Form::Full | Form::Table => v,
    }
}

/// A list in the form of a request.
pub(crate) fn list_as(
    rt: &ResourceType,
    group: &str,
    version: &str,
    form: Form,
    items: Vec<Value>,
    meta: &Value,
) -> Value {
    match form {
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "items": items,
        }),
        Form::Table => table(rt, version, &items, meta),
        Form::Full => {
            let items: Vec<Value> = items
                .into_iter()
                .map(|mut v| {
                    // Items of built-in lists do not repeat their kind; items of custom ones do.
                    if rt.builtin {
                        let m = object(&mut v);
                        m.remove("kind");
                        m.remove("apiVersion");
                    }
                    v
                })
                .collect();
            let api_version = if group == EVENTS_GROUP {
                format!("{group}/{version}")
            } else {
                rt.api_version(version)
            };
            json!({ "kind": rt.list_kind, "apiVersion": api_version, "metadata": meta, "items": items })
        }
    }
}

fn age(created: &str) -> String {
    let Ok(t) = created.parse::<jiff::Timestamp>() else {
        return "<unknown>".into();
    };
    let s = jiff::Timestamp::now().duration_since(t).as_secs().max(0);
    match s {
        0..120 => format!("{s}s"),
        120..7200 => format!("{}m", s / 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// What kubectl prints besides the name: title, type and path of the printer columns of a definition, and the age.
fn columns(rt: &ResourceType, version: &str) -> Vec<(String, String, String)> {
    let defined = rt.columns.get(version).and_then(Value::as_array);
    let text = |c: &Value, k: &str| str_at(c, k).unwrap_or("").to_owned();
    let mut out: Vec<_> = defined
        .into_iter()
        .flatten()
        .map(|c| (text(c, "name"), text(c, "type"), text(c, "jsonPath")))
        .collect();
    if out.iter().all(|(_, kind, _)| kind != "date") {
        out.push(("Age".into(), "date".into(), ".metadata.creationTimestamp".into()));
    }
    out
}

fn cell(v: &Value, kind: &str, path: &str) -> Value {
    let found = at(v, path.trim_start_matches('.'));
    match (kind, found) {
        (_, None) => json!(""),
        ("date", Some(Value::String(s))) => json!(age(s)),
        (_, Some(other)) => other.clone(),
    }
}

fn table(rt: &ResourceType, version: &str, items: &[Value], meta: &Value) -> Value {
    let columns = columns(rt, version);
    let mut definitions =
        vec![json!({ "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 })];
    for (name, kind, _) in &columns {
        let kind = if kind == "date" { "string" } else { kind };
        definitions
            .push(json!({ "name": name, "type": kind, "format": "", "description": "", "priority": 0 }));
    }
    let rows: Vec<Value> = items
        .iter()
        .map(|v| {
            let mut cells = vec![json!(name_of(v))];
            cells.extend(columns.iter().map(|(_, kind, path)| cell(v, kind, path)));
            json!({
                "cells": cells,
                "object": { "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": v["metadata"] },
            })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// (field of core/v1, field of events.k8s.io/v1)
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(v: &Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) -> Map<String, Value> {
    let mut m = v.as_object().cloned().unwrap_or_default();
    for (from, to) in pairs {
        if let Some(x) = m.remove(from) {
            m.insert(to.to_owned(), x);
        }
    }
    m
}

fn event_to_new(v: &Value) -> Value {
    let mut m = rename(v, EVENT_FIELDS.iter().copied());
    m.insert("apiVersion".into(), json!("events.k8s.io/v1"));
    Value::Object(m)
}

/// An object from a request in the version that is stored.
pub(crate) fn to_stored(group: &str, v: Value) -> Value {
    if group == EVENTS_GROUP && v.is_object() {
        let mut m = rename(&v, EVENT_FIELDS.iter().map(|(old, new)| (*new, *old)));
        m.insert("apiVersion".into(), json!("v1"));
        return Value::Object(m);
    }
    v
}

/// Metadata of a list.
pub(crate) fn list_meta(rv: u64, continue_token: Option<&str>, remaining: Option<usize>) -> Value {
    let mut m = json!({ "resourceVersion": rv.to_string() });
    if let Some(c) = continue_token {
        m["continue"] = json!(c);
    }
    if let Some(n) = remaining {
        m["remainingItemCount"] = json!(n);
    }
    m
}
