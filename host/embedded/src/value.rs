//! Small helpers for JSON objects that are Kubernetes objects.

use std::collections::BTreeMap;

use dormouse_model::fnv1a;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Value at a dotted path.
pub(crate) fn at<'a>(v: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(v, |v, k| v.get(k))
        .filter(|v| !v.is_null())
}

pub(crate) fn str_at<'a>(v: &'a Value, path: &str) -> Option<&'a str> {
    at(v, path).and_then(Value::as_str)
}

pub(crate) fn i64_at(v: &Value, path: &str) -> Option<i64> {
    at(v, path).and_then(Value::as_i64)
}

pub(crate) fn list_at<'a>(v: &'a Value, path: &str) -> &'a [Value] {
    at(v, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Value at a path of field names.
pub(crate) fn at_path<'a>(v: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(v, |v, k| v.get(k)).filter(|v| !v.is_null())
}

/// Sets the value at a path of field names, making objects on the way.
pub(crate) fn set_path(v: &mut Value, path: &[String], new: Value) {
    let Some((last, front)) = path.split_last() else {
        return;
    };
    let mut at = v;
    for k in front {
        at = object(at).entry(k.clone()).or_insert_with(|| json!({}));
    }
    object(at).insert(last.clone(), new);
}

/// Sets the value at a dotted path.
pub(crate) fn set(v: &mut Value, path: &str, new: Value) {
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    set_path(v, &path, new);
}

/// The object in `v`, which becomes one if it is something else.
pub(crate) fn object(v: &mut Value) -> &mut Map<String, Value> {
    if !v.is_object() {
        *v = json!({});
    }
    match v {
        Value::Object(m) => m,
        // Made one two lines above.
        _ => unreachable!("not an object"),
    }
}

/// The object under a key, which becomes one if it is something else.
pub(crate) fn child<'a>(m: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    object(m.entry(key).or_insert_with(|| json!({})))
}

pub(crate) fn metadata(v: &mut Value) -> &mut Map<String, Value> {
    child(object(v), "metadata")
}

pub(crate) fn name_of(v: &Value) -> &str {
    str_at(v, "metadata.name").unwrap_or("")
}

pub(crate) fn namespace_of(v: &Value) -> &str {
    str_at(v, "metadata.namespace").unwrap_or("")
}

pub(crate) fn uid_of(v: &Value) -> &str {
    str_at(v, "metadata.uid").unwrap_or("")
}

pub(crate) fn version_of(v: &Value) -> u64 {
    str_at(v, "metadata.resourceVersion")
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}

pub(crate) fn is_deleting(v: &Value) -> bool {
    at(v, "metadata.deletionTimestamp").is_some()
}

pub(crate) fn finalizers(v: &Value) -> Vec<&str> {
    list_at(v, "metadata.finalizers")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

/// An annotation; keys have dots, so a dotted path cannot reach them.
pub(crate) fn annotation<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    v.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

pub(crate) fn label<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    v.get("metadata")?.get("labels")?.get(key)?.as_str()
}

pub(crate) fn set_annotation(v: &mut Value, key: &str, text: &str) {
    child(metadata(v), "annotations").insert(key.to_owned(), json!(text));
}

/// Entries of a string map.
pub(crate) fn string_map(v: Option<&Value>) -> BTreeMap<String, String> {
    v.and_then(Value::as_object)
        .map(|m| {
            m.iter()
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect()
        })
        .unwrap_or_default()
}

/// Whether `pod` has the condition `Ready` with status True.
pub(crate) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| str_at(c, "status") == Some("True"))
}

pub(crate) fn condition<'a>(v: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(v, "status.conditions")
        .iter()
        .find(|c| str_at(c, "type") == Some(kind))
}

/// The owner that controls `v`: its uid.
pub(crate) fn controller_of(v: &Value) -> Option<&Value> {
    list_at(v, "metadata.ownerReferences")
        .iter()
        .find(|o| o.get("controller") == Some(&Value::Bool(true)))
}

/// An owner reference to `owner` that makes it the controller.
pub(crate) fn owned_by(owner: &Value, api_version: &str, kind: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A timestamp as Kubernetes writes `metav1.Time`: whole seconds, UTC.
pub(crate) fn time(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn now() -> String {
    time(Timestamp::now())
}

pub(crate) fn new_uid() -> String {
    let n: u128 = rand::random();
    // Version 4, variant 1.
    let n = (n & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let h = format!("{n:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &h[..8],
        &h[8..12],
        &h[12..16],
        &h[16..20],
        &h[20..]
    )
}

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five letters as generateName appends them.
pub(crate) fn suffix() -> String {
    (0..5)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect()
}

/// A stable short hash in the same alphabet, for pod-template-hash.
pub(crate) fn short_hash(v: &Value) -> String {
    let h = fnv1a(&canonical(v));
    let h = (h >> 32) ^ (h & 0xffff_ffff);
    h.to_string()
        .bytes()
        .map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()]))
        .collect()
}

/// JSON text with sorted keys, whatever map type serde_json was built with.
pub(crate) fn canonical(v: &Value) -> String {
    match v {
        Value::Object(m) => {
            let mut keys: Vec<_> = m.iter().collect();
            keys.sort_by_key(|(k, _)| k.as_str());
            let parts: Vec<String> = keys
                .into_iter()
                .map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canonical(v)))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(a) => format!("[{}]", a.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Drops nulls inside objects, as decoding into a typed object and encoding it again does.
pub(crate) fn drop_nulls(v: &mut Value) {
    match v {
        Value::Object(m) => {
            m.retain(|_, v| !v.is_null());
            m.values_mut().for_each(drop_nulls);
        }
        Value::Array(a) => a.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_four() {
        let u = new_uid();
        assert_eq!(u.len(), 36);
        assert_eq!(&u[14..15], "4");
        assert!(matches!(&u[19..20], "8" | "9" | "a" | "b"));
    }
}
