//! The part of structural schemas that is enforced for custom resources: types, required fields, enums, bounds,
//! nested properties; unknown fields are pruned and defaults are filled in. `pattern`, `format` and CEL rules are not
//! evaluated.

use serde_json::{Map, Value};

use crate::error::FieldError;

/// Removes fields that the schema does not know. `metadata`, `apiVersion` and `kind` stay.
pub(crate) fn prune(schema: &Value, object: &mut Value) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let Some(m) = object.as_object_mut() else { return };
    m.retain(|k, _| top_level(k) || preserves(schema) || properties.is_some_and(|p| p.contains_key(k)));
    for (k, v) in m.iter_mut().filter(|(k, _)| !top_level(k)) {
        if let Some(s) = properties.and_then(|p| p.get(k)) {
            prune_at(s, v);
        }
    }
}

fn top_level(k: &str) -> bool {
    matches!(k, "apiVersion" | "kind" | "metadata")
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn preserves(schema: &Value) -> bool {
    flag(schema, "x-kubernetes-preserve-unknown-fields")
}

fn prune_at(schema: &Value, v: &mut Value) {
    match v {
        Value::Object(_) if flag(schema, "x-kubernetes-embedded-resource") => {}
        Value::Object(m) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema
                .get("additionalProperties")
                .filter(|a| **a != Value::Bool(false));
            m.retain(|k, _| {
                preserves(schema) || additional.is_some() || properties.is_some_and(|p| p.contains_key(k))
            });
            for (k, v) in m {
                if let Some(s) = properties
                    .and_then(|p| p.get(k))
                    .or(additional.filter(|a| a.is_object()))
                {
                    prune_at(s, v);
                }
            }
        }
        Value::Array(a) => {
            if let Some(items) = schema.get("items") {
                a.iter_mut().for_each(|v| prune_at(items, v));
            }
        }
        _ => {}
    }
}

/// Fills in `default`s, and drops nulls that a default replaces.
pub(crate) fn default(schema: &Value, v: &mut Value) {
    match v {
        Value::Object(m) => {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (k, s) in properties {
                    if let Some(d) = s.get("default") {
                        let null = m.get(k).is_some_and(Value::is_null) && !flag(s, "nullable");
                        if null || !m.contains_key(k) {
                            m.insert(k.clone(), d.clone());
                        }
                    }
                    if let Some(v) = m.get_mut(k) {
                        default(s, v);
                    }
                }
            }
            if let Some(s) = schema.get("additionalProperties").filter(|s| s.is_object()) {
                m.values_mut().for_each(|v| default(s, v));
            }
        }
        Value::Array(a) => {
            if let Some(s) = schema.get("items") {
                a.iter_mut().for_each(|v| default(s, v));
            }
        }
        _ => {}
    }
}

/// What the schema finds wrong with `object`, `metadata` aside.
pub(crate) fn validate(schema: &Value, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(m) = object.as_object() {
        required(schema, m, "", &mut errors);
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (k, v) in m.iter().filter(|(k, _)| !top_level(k)) {
                if let Some(s) = properties.get(k) {
                    validate_at(s, v, k, &mut errors);
                }
            }
        }
    }
    errors
}

fn required(schema: &Value, m: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for r in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !m.contains_key(r) {
            errors.push(FieldError::required(join(path, r), ""));
        }
    }
}

fn join(path: &str, k: &str) -> String {
    if path.is_empty() {
        k.to_owned()
    } else {
        format!("{path}.{k}")
    }
}

fn is_type(v: &Value, t: &str) -> bool {
    match t {
        "object" => v.is_object(),
        "array" => v.is_array(),
        "string" => v.is_string(),
        "boolean" => v.is_boolean(),
        "integer" => v.is_i64() || v.is_u64() || v.as_f64().is_some_and(|f| f.fract() == 0.0),
        "number" => v.is_number(),
        "null" => v.is_null(),
        _ => true,
    }
}

fn validate_at(schema: &Value, v: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if v.is_null() && flag(schema, "nullable") {
        return;
    }
    if flag(schema, "x-kubernetes-int-or-string") {
        if !(v.is_i64() || v.is_u64() || v.is_string()) {
            errors.push(FieldError::wrong_type(path, v, "integer,string"));
        }
        return;
    }
    if let Some(t) = schema.get("type").and_then(Value::as_str)
        && !is_type(v, t)
    {
        errors.push(FieldError::wrong_type(path, v, t));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(v)
    {
        errors.push(FieldError::not_supported(path, v, allowed));
    }
    bounds(schema, v, path, errors);
    match v {
        Value::Object(m) => {
            required(schema, m, path, errors);
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties").filter(|a| a.is_object());
            for (k, v) in m {
                if let Some(s) = properties.and_then(|p| p.get(k)).or(additional) {
                    validate_at(s, v, &join(path, k), errors);
                }
            }
        }
        Value::Array(a) => {
            if let Some(s) = schema.get("items") {
                for (i, v) in a.iter().enumerate() {
                    validate_at(s, v, &format!("{path}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn bounds(schema: &Value, v: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let size = |n: usize| Some(n as f64);
    let (number, min, max, unit) = match v {
        Value::Number(n) => (n.as_f64(), "minimum", "maximum", ""),
        Value::String(s) => (size(s.chars().count()), "minLength", "maxLength", " chars long"),
        Value::Array(a) => (size(a.len()), "minItems", "maxItems", " items"),
        Value::Object(m) => (size(m.len()), "minProperties", "maxProperties", " properties"),
        _ => return,
    };
    let Some(number) = number else { return };
    let limit = |k: &str| schema.get(k).and_then(Value::as_f64);
    for (bound, broken, word) in [
        (limit(min), limit(min).is_some_and(|min| number < min), "least"),
        (limit(max), limit(max).is_some_and(|max| number > max), "most"),
    ] {
        if let Some(bound) = bound.filter(|_| broken) {
            let why = format!("{path} in body should be at {word} {bound}{unit}");
            errors.push(FieldError::invalid(path, v, &why));
        }
    }
}
