//! Which objects a list wants, and which fields of them.

use serde_json::{Map, Value};

use crate::kubernetes::ObjectKey;

/// One term of a label selector.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// Reads a label selector as `kubectl -l` does.
pub(super) fn parse(selector: &str) -> Result<Vec<Term>, String> {
    split(selector)
        .into_iter()
        .filter(|term| !term.is_empty())
        .map(term)
        .collect()
}

/// Splits at commas outside parentheses.
fn split(selector: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (index, letter) in selector.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(selector[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(selector[start..].trim());
    terms
}

fn term(text: &str) -> Result<Term, String> {
    let bad = || format!("`{text}` is not a term of a label selector");
    let key = |key: &str| {
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            Err(bad())
        } else {
            Ok(key.to_owned())
        }
    };
    let values = |list: &str| -> Result<Vec<String>, String> {
        let inner = list
            .trim()
            .strip_prefix('(')
            .and_then(|list| list.strip_suffix(')'))
            .ok_or_else(bad)?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((left, right)) = text.split_once(" notin ") {
        return Ok(Term::NotIn(key(left)?, values(right)?));
    }
    if let Some((left, right)) = text.split_once(" in ") {
        return Ok(Term::In(key(left)?, values(right)?));
    }
    if let Some((left, right)) = text.split_once("!=") {
        return Ok(Term::NotIn(key(left)?, vec![right.trim().into()]));
    }
    if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Term::In(key(left)?, vec![right.trim().into()]));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Term::Absent(key(name)?)),
        None => Ok(Term::Exists(key(text)?)),
    }
}

pub(super) fn matches(selector: &[Term], object: &Value) -> bool {
    let label = |key: &String| object["metadata"]["labels"].get(key).and_then(Value::as_str);
    selector.iter().all(|term| match term {
        Term::In(key, values) => label(key).is_some_and(|value| values.iter().any(|wanted| wanted == value)),
        Term::NotIn(key, values) => {
            !label(key).is_some_and(|value| values.iter().any(|wanted| wanted == value))
        }
        Term::Exists(key) => label(key).is_some(),
        Term::Absent(key) => label(key).is_none(),
    })
}

/// Whether an annotation's key starts with the prefix.
pub(super) fn annotated(prefix: &str, object: &Value) -> bool {
    let annotations = object["metadata"]["annotations"].as_object();
    annotations.is_some_and(|annotations| annotations.keys().any(|key| key.starts_with(prefix)))
}

/// The fields that always come along.
const ALWAYS: [&str; 6] = [
    "apiVersion",
    "kind",
    "metadata.namespace",
    "metadata.name",
    "metadata.uid",
    "metadata.resourceVersion",
];

/// Only the wanted fields of an object; with none named, all.
pub(super) fn project(object: &Value, fields: &[String]) -> Value {
    if fields.is_empty() {
        return object.clone();
    }
    let mut projected = Value::Object(Map::new());
    for path in ALWAYS.into_iter().chain(fields.iter().map(String::as_str)) {
        let parts: Vec<&str> = path.split('.').collect();
        let found = parts.iter().try_fold(object, |value, part| value.get(part));
        if let Some(found) = found {
            let mut place = &mut projected;
            for part in parts {
                if place.is_null() {
                    *place = Value::Object(Map::new());
                }
                place = &mut place[part];
            }
            *place = found.clone();
        }
    }
    projected
}

/// What an object calls itself.
pub(super) fn key_of(object: &Value) -> Result<ObjectKey, String> {
    let text = |value: &Value, what: &str| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("the object has no {what}"))
    };
    Ok(ObjectKey {
        api_version: text(&object["apiVersion"], "apiVersion")?,
        kind: text(&object["kind"], "kind")?,
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name: text(&object["metadata"]["name"], "metadata.name")?,
    })
}
