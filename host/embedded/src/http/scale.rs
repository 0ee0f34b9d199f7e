//! The scale subresource: `autoscaling/v1` Scale over whatever fields a kind keeps its replicas in.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::{ApiError, FieldError};
use crate::http::request::{Call, Target};
use crate::patch::{PatchKind, patched};
use crate::resource::ScalePaths;
use crate::selector::LabelSelector;
use crate::value::{at, at_path, metadata, name_of, namespace_of, set_path, str_at};

/// The Scale of an object.
pub(crate) fn of(paths: &ScalePaths, o: &Value) -> Value {
    let replicas = at_path(o, &paths.spec_replicas)
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let now = at_path(o, &paths.status_replicas)
        .and_then(Value::as_i64)
        .unwrap_or(0);
    // Zero is left out of the spec, as Go's omitempty does it on real clusters.
    let spec = if replicas == 0 {
        json!({})
    } else {
        json!({ "replicas": replicas })
    };
    let mut status = json!({ "replicas": now });
    let selector = paths
        .selector
        .as_ref()
        .and_then(|p| at_path(o, p))
        .map(|s| match s {
            Value::String(text) => text.clone(),
            object => LabelSelector::of_object(Some(object)).text(),
        });
    if let Some(s) = selector.filter(|s| !s.is_empty()) {
        status["selector"] = json!(s);
    }
    let meta = |k: &str| o["metadata"].get(k).cloned().unwrap_or_default();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": name_of(o),
            "namespace": namespace_of(o),
            "uid": meta("uid"),
            "resourceVersion": meta("resourceVersion"),
            "creationTimestamp": meta("creationTimestamp"),
        },
        "spec": spec,
        "status": status,
    })
}

fn replicas_of(scale: &Value) -> Result<i64, ApiError> {
    let invalid = |e: FieldError| {
        ApiError::new(
            422,
            "Invalid",
            format!(
                "Scale.autoscaling \"{}\" is invalid: {}: {}",
                name_of(scale),
                e.field,
                e.message
            ),
        )
    };
    match at(scale, "spec.replicas") {
        None => Ok(0),
        Some(v) => match v.as_i64() {
            None => Err(invalid(FieldError::wrong_type("spec.replicas", v, "integer"))),
            Some(n) if n < 0 => Err(invalid(FieldError::invalid(
                "spec.replicas",
                v,
                "must be greater than or equal to 0",
            ))),
            Some(n) => Ok(n),
        },
    }
}

pub(crate) fn handle(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let Some(paths) = t.rt.scale.as_ref() else {
        return Err(ApiError::no_such_path());
    };
    if t.verb == "get" {
        let o = core.store.get_or_404(&t.rt, &t.ns, &t.name)?;
        if at_path(&o, &paths.spec_replicas).is_none() {
            return Err(ApiError::internal(format!(
                "the spec replicas field \".{}\" does not exist",
                paths.spec_replicas.join(".")
            )));
        }
        return Ok(Json(of(paths, &o)).into_response());
    }
    let body = call.json()?;
    if !body.is_object() && !body.is_array() {
        return Err(ApiError::bad_request("the request body is not a Scale"));
    }
    let kind = match t.verb {
        "update" if str_at(&body, "kind").is_some_and(|k| k != "Scale") => {
            return Err(ApiError::bad_request("expected a Scale object"));
        }
        "update" => None,
        "patch" => match PatchKind::from_content_type(&call.content_type, true)? {
            // What is applied is the number of replicas, and that is set.
            PatchKind::Apply => Some(PatchKind::Merge),
            kind => Some(kind),
        },
        _ => return Err(ApiError::method_not_allowed()),
    };
    let o = core.store.update(&t.rt, &t.ns, &t.name, &t.write(call), |live| {
        let wanted = match kind {
            None => body.clone(),
            Some(kind) => patched(kind, &of(paths, live), &body)?,
        };
        if !name_of(&wanted).is_empty() && name_of(&wanted) != t.name {
            return Err(ApiError::bad_request(
                "the name of the object does not match the name on the URL",
            ));
        }
        let mut new = live.clone();
        set_path(&mut new, &paths.spec_replicas, json!(replicas_of(&wanted)?));
        // The Scale carries its parent's version and uid: stale ones are a conflict, absent ones are no condition.
        for k in ["resourceVersion", "uid"] {
            if let Some(v) = str_at(&wanted, &format!("metadata.{k}")).filter(|v| !v.is_empty()) {
                metadata(&mut new).insert(k.into(), json!(v));
            }
        }
        Ok(new)
    })?;
    Ok(Json(of(paths, &o)).into_response())
}
