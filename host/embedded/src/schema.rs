//! The part of structural schemas that is enforced for custom resources: types, required fields, enums, bounds,
//! nested properties; unknown fields are pruned and defaults are filled in. `pattern`, `format` and CEL rules are not
//! evaluated.

use serde_json::{Map, Value};

use crate::error::FieldError;

/// Removes fields that the schema does not know and returns their paths. `metadata`, `apiVersion` and `kind` stay.
pub(crate) fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        if !preserves(schema)
            && let Some(m) = object.as_object_mut()
        {
            m.retain(|k, _| {
                let keep = top_level(k);
                if !keep {
                    gone.push(k.clone());
                }
                keep
            });
        }
        return gone;
    };
    if let Some(m) = object.as_object_mut() {
        m.retain(|k, _| {
            let keep = top_level(k) || properties.contains_key(k) || preserves(schema);
            if !keep {
                gone.push(k.clone());
            }
            keep
        });
        for (k, v) in m.iter_mut().filter(|(k, _)| !top_level(k)) {
            if let Some(s) = properties.get(k) {
                prune_at(s, v, k, &mut gone);
            }
        }
    }
    gone
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

fn prune_at(schema: &Value, v: &mut Value, path: &str, gone: &mut Vec<String>) {
    match v {
        Value::Object(m) => {
            if flag(schema, "x-kubernetes-embedded-resource") {
                return;
            }
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            m.retain(|k, _| {
                let known = properties.is_some_and(|p| p.contains_key(k))
                    || additional.is_some_and(|a| a != &Value::Bool(false))
                    || preserves(schema);
                if !known {
                    gone.push(format!("{path}.{k}"));
                }
                known
            });
            for (k, v) in m.iter_mut() {
                if let Some(s) = properties
                    .and_then(|p| p.get(k))
                    .or(additional.filter(|a| a.is_object()))
                {
                    prune_at(s, v, &format!("{path}.{k}"), gone);
                }
            }
        }
        Value::Array(a) => {
            if let Some(items) = schema.get("items") {
                for (i, v) in a.iter_mut().enumerate() {
                    prune_at(items, v, &format!("{path}[{i}]"), gone);
                }
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
    let limit = |k: &str| schema.get(k).and_then(Value::as_f64);
    if let Some(n) = v.as_f64() {
        if let Some(min) = limit("minimum")
            && n < min
        {
            let why = format!("{path} in body should be greater than or equal to {min}");
            errors.push(FieldError::invalid(path, v, &why));
        }
        if let Some(max) = limit("maximum")
            && n > max
        {
            errors.push(FieldError::invalid(
                path,
                v,
                &format!("{path} in body should be less than or equal to {max}"),
            ));
        }
    }
    let (size, min, max, unit) = match v {
        Value::String(s) => (s.chars().count(), "minLength", "maxLength", "chars long"),
        Value::Array(a) => (a.len(), "minItems", "maxItems", "items"),
        Value::Object(m) => (m.len(), "minProperties", "maxProperties", "properties"),
        _ => return,
    };
    let limit = |k: &str| {
        schema
            .get(k)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
    };
    if let Some(min) = limit(min)
        && size < min
    {
        errors.push(FieldError::invalid(
            path,
            v,
            &format!("{path} in body should be at least {min} {unit}"),
        ));
    }
    if let Some(max) = limit(max)
        && size > max
    {
        errors.push(FieldError::invalid(
            path,
            v,
            &format!("{path} in body should be at most {max} {unit}"),
        ));
    }
}
