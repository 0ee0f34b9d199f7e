//! The steps of a write: what is carried over, defaulted, pruned and checked.

use serde_json::{Map, Value, json};

use crate::error::{ApiError, FieldError};
use crate::resource::ResourceType;
use crate::store::{Inner, Part, Write};
use crate::value::{
    at, finalizers, i64_at, is_deleting, list_at, metadata, name_of, object, str_at, version_of,
};
use crate::{defaults, schema, validate};

pub(super) fn check_namespace(
    inner: &Inner,
    rt: &ResourceType,
    ns: &str,
    name: &str,
) -> Result<(), ApiError> {
    if !rt.namespaced {
        return Ok(());
    }
    let key = (String::new(), ns.to_owned());
    match inner.tables.get("namespaces").and_then(|t| t.objects.get(&key)) {
        None => Err(ApiError::new(
            404,
            "NotFound",
            format!("namespaces \"{ns}\" not found"),
        )),
        Some(n) if is_deleting(n) => {
            let why =
                format!("unable to create new content in namespace {ns} because it is being terminated");
            Err(ApiError::forbidden(rt, name, &why))
        }
        Some(_) => Ok(()),
    }
}

/// Checks name, uid and resourceVersion of an update and carries over what no client may change.
pub(super) fn identity(
    rt: &ResourceType,
    old: &Value,
    new: &mut Value,
    w: &Write<'_>,
) -> Result<(), ApiError> {
    if !new.is_object() {
        return Err(ApiError::bad_request("the object provided is not a JSON object"));
    }
    let name = name_of(old).to_owned();
    if name_of(new) != name && !name_of(new).is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            name_of(new)
        )));
    }
    if let Some(uid) = str_at(new, "metadata.uid").filter(|u| !u.is_empty())
        && Some(uid) != str_at(old, "metadata.uid")
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            crate::value::uid_of(old)
        );
        return Err(ApiError::conflict(rt, &name, &why));
    }
    match str_at(new, "metadata.resourceVersion").filter(|s| !s.is_empty()) {
        None if !rt.unconditional_update => {
            let e = FieldError::invalid(
                "metadata.resourceVersion",
                &json!(0),
                "must be specified for an update",
            );
            return Err(ApiError::invalid(rt, &name, &[e]));
        }
        None => {}
        Some(text) => {
            let Ok(rv) = text.parse::<u64>() else {
                let e = FieldError::invalid("metadata.resourceVersion", &json!(text), "must be an integer");
                return Err(ApiError::invalid(rt, &name, &[e]));
            };
            if rv != version_of(old) {
                return Err(ApiError::modified(rt, &name));
            }
        }
    }
    let api_version = rt.storage_api_version();
    let o = object(new);
    o.insert("apiVersion".into(), json!(api_version));
    o.insert("kind".into(), json!(rt.kind));
    let m = metadata(new);
    for k in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ] {
        if w.applied && k == "managedFields" {
            continue;
        }
        put(m, k, old["metadata"].get(k));
    }
    Ok(())
}

/// Puts back the part of the object that this write may not change.
pub(super) fn split(rt: &ResourceType, old: &Value, new: &mut Value, w: &Write<'_>) {
    match w.part {
        Part::Main if rt.status => put(object(new), "status", old.get("status")),
        Part::Main | Part::Internal => {}
        Part::Status => {
            let written = std::mem::replace(new, old.clone());
            put(object(new), "status", at(&written, "status"));
            if rt.builtin {
                // Built-in kinds let a status write touch annotations and finalizers, custom ones nothing.
                for k in ["annotations", "finalizers"] {
                    put(metadata(new), k, written["metadata"].get(k));
                }
            }
            if w.applied {
                put(
                    metadata(new),
                    "managedFields",
                    written["metadata"].get("managedFields"),
                );
            }
        }
    }
}

fn put(m: &mut Map<String, Value>, key: &str, v: Option<&Value>) {
    match v {
        Some(v) => m.insert(key.to_owned(), v.clone()),
        None => m.remove(key),
    };
}

/// Defaults and, for custom resources, pruning.
pub(super) fn normalise(rt: &ResourceType, v: &mut Value, w: &Write<'_>) {
    defaults::apply(rt, v);
    if let Some(schema) = rt.schema(w.version) {
        schema::prune(schema, v);
        schema::default(schema, v);
    }
}

pub(super) fn check(rt: &ResourceType, old: Option<&Value>, new: &Value) -> Result<(), ApiError> {
    let mut errors = validate::validate(rt, old, new);
    if let Some(schema) = rt.schema(&rt.storage_version) {
        errors.extend(schema::validate(schema, new));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(rt, name_of(new), &errors))
    }
}

pub(super) fn spec_changed(rt: &ResourceType, old: &Value, new: &Value) -> bool {
    let skip = |k: &str| {
        matches!(k, "apiVersion" | "kind" | "metadata") || (k == "status" && (rt.status || rt.builtin))
    };
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
        return true;
    };
    let changed = a
        .keys()
        .chain(b.keys())
        .filter(|k| !skip(k))
        .any(|k| a.get(k) != b.get(k));
    // A Deployment's observers also wait for its annotations.
    changed
        || (rt.id == "deployments.apps" && at(old, "metadata.annotations") != at(new, "metadata.annotations"))
}

/// Whether an object that is being deleted has nothing left that holds it.
pub(crate) fn may_go(rt: &ResourceType, v: &Value) -> bool {
    is_deleting(v)
        && finalizers(v).is_empty()
        && i64_at(v, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (rt.id != "namespaces" || list_at(v, "spec.finalizers").is_empty())
}
