//! Comparison of what comes out with what was recorded.

use dormouse_model::Quantity;
use serde_json::{Map, Value};

/// Texts for people, wherever they are.
const INFORMATIVE: &str = "message";
/// Texts of which only matters whether they are there.
const PRESENT_OR_NOT: &str = "error";
/// Quantities, of which only the value matters: Kubernetes writes some of them with a binary suffix.
const QUANTITIES: [&str; 2] = ["averageValue", "value"];
/// What amd64 makes of a float that is too large or not a number.
const NOT_A_NUMBER: &str = "-9223372036854775808";

/// Every key in which two outputs differ. Outputs that depend on the processor are not compared.
pub fn differences(expected: &Value, actual: &Value, platform_dependent: &[String]) -> Vec<String> {
    let (mut expected, mut actual) = (significant(expected), significant(actual));
    for key in platform_dependent {
        if key == "current_metrics" {
            drop_entries(&mut expected, &mut actual, key);
        } else {
            for output in [&mut expected, &mut actual] {
                output.as_object_mut().unwrap().remove(key);
            }
        }
    }
    let mut found = Vec::new();
    walk("", &expected, &actual, &mut found);
    found
}

/// Where Go's integers wrap around, ours must not: the answer is that of the larger number, which is at least as many replicas.
pub fn saturated(expected: &Map<String, Value>, actual: &Value) -> Vec<String> {
    let replicas = |output: Option<&Value>| output.and_then(Value::as_i64);
    let (wrapped, ours) = (
        replicas(expected.get("replicas")),
        replicas(actual.get("replicas")),
    );
    if wrapped.is_some() && ours >= wrapped {
        Vec::new()
    } else {
        vec![format!(
            "{ours:?} replicas although they do not wrap around, to {wrapped:?}"
        )]
    }
}

/// Without what is informative and what is empty, which is the same as absent.
fn significant(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (key, field) in fields {
                let field = match (key.as_str(), field) {
                    (INFORMATIVE, _) | (_, Value::Null) => continue,
                    // The error of a calculator is a kind, that of a round a text.
                    (PRESENT_OR_NOT, Value::String(text)) if text.contains(' ') => Value::Bool(true),
                    (key, Value::String(text)) if QUANTITIES.contains(&key) => {
                        let quantity: Quantity = text.parse().unwrap();
                        quantity.saturating_millis().into()
                    }
                    (_, field) => significant(field),
                };
                let empty = field.as_array().is_some_and(Vec::is_empty)
                    || field.as_object().is_some_and(Map::is_empty);
                if !empty {
                    kept.insert(key.clone(), field);
                }
            }
            Value::Object(kept)
        }
        Value::Array(entries) => Value::Array(entries.iter().map(significant).collect()),
        other => other.clone(),
    }
}

/// Takes those entries out of both lists that hold no number in the expected one.
fn drop_entries(expected: &mut Value, actual: &mut Value, key: &str) {
    let entries = |output: &Value| {
        output
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let (before, ours) = (entries(expected), entries(actual));
    let undefined = |entry: &Value| entry.to_string().contains(NOT_A_NUMBER);
    assert!(before.iter().any(undefined), "no entry depends on the processor");
    let keep: Vec<_> = before.iter().map(|entry| !undefined(entry)).collect();
    let kept = |entries: Vec<Value>| -> Value {
        let marked = entries.into_iter().enumerate();
        marked
            .filter(|(index, _)| keep.get(*index).copied().unwrap_or(true))
            .map(|(_, entry)| entry)
            .collect()
    };
    expected[key] = kept(before);
    actual[key] = kept(ours);
}

fn walk(path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<_> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let absent = Value::Null;
                let (left, right) = (
                    left.get(key).unwrap_or(&absent),
                    right.get(key).unwrap_or(&absent),
                );
                walk(&format!("{path}.{key}"), left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                walk(&format!("{path}[{index}]"), left, right, found);
            }
        }
        (Value::Number(left), Value::Number(right))
            if left.as_f64() == right.as_f64() && !(left.is_i64() && right.is_i64()) => {}
        (left, right) if left == right => {}
        (left, right) => found.push(format!("{path}: {right} where {left} is recorded")),
    }
}

/// Checks that nothing of an input is unknown to a type that ignores what it does not know: what is read and written again has the
/// same keys.
pub fn assert_all_read(given: &Value, read: &Value) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            for (key, value) in given {
                let empty = value.as_array().is_some_and(Vec::is_empty);
                match read.get(key) {
                    Some(read) => assert_all_read(value, read),
                    None => assert!(empty, "the key {key} is unknown"),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            assert_eq!(given.len(), read.len());
            for (given, read) in given.iter().zip(read) {
                assert_all_read(given, read);
            }
        }
        _ => {}
    }
}
