//! Create, read, update, patch and delete objects and their status.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::ApiError;
use crate::http::present::{self, Form, list_as, list_meta, object_as};
use crate::http::request::{Call, Target};
use crate::http::{scale, watch};
use crate::patch::{PatchKind, patched};
use crate::selector::FieldSelector;
use crate::store::delete::DeleteOptions;
use crate::store::list::{ListOptions, parse_version};
use crate::value::{at, name_of, str_at, uid_of};

pub(crate) fn handle(core: &Arc<Core>, t: &Target, call: &Call) -> Result<Response, ApiError> {
    if t.rt.namespaced && t.ns.is_empty() && matches!(t.verb, "create" | "deletecollection") {
        return Err(ApiError::method_not_allowed());
    }
    match t.sub.as_str() {
        "" => {}
        "status" if t.rt.status => {}
        "scale" if t.rt.scale.is_some() => return scale::handle(core, t, call),
        "log" if t.rt.id == "pods" && t.verb == "get" => {
            core.store.get_or_404(&t.rt, &t.ns, &t.name)?;
            return Ok(core.output.log(&t.ns, &t.name).into_response());
        }
        "finalize" if t.rt.id == "namespaces" && t.verb == "update" => {}
        _ => return Err(ApiError::no_such_path()),
    }
    match t.verb {
        "get" => {
            let version = parse_version(call.query.get("resourceVersion"))?;
            let current = core.store.version();
            if let Some(rv) = version.filter(|rv| *rv > current) {
                return Err(ApiError::too_large_version(rv, current));
            }
            let o = core.store.get_or_404(&t.rt, &t.ns, &t.name)?;
            Ok(show(t, call, StatusCode::OK, &o))
        }
        "list" => list(core, t, call),
        "watch" => watch::handle(core, t, call),
        "create" if t.sub.is_empty() => create(core, t, call),
        "update" => update(core, t, call),
        "patch" => patch(core, t, call),
        "delete" if t.sub.is_empty() => delete(core, t, call),
        "deletecollection" => delete_collection(core, t, call),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn show(t: &Target, call: &Call, code: StatusCode, o: &Value) -> Response {
    let form = Form::of(&call.accept);
    let mut v = object_as(&t.rt, &t.group, &t.version, form, o);
    if form == Form::Table && code == StatusCode::OK {
        let meta = json!({ "resourceVersion": str_at(&v, "metadata.resourceVersion") });
        v = list_as(&t.rt, &t.group, &t.version, form, vec![v], &meta);
    }
    (code, Json(v)).into_response()
}

fn list_options(t: &Target, call: &Call) -> Result<ListOptions, ApiError> {
    let q = &call.query;
    Ok(ListOptions {
        labels: q.labels()?,
        fields: FieldSelector::parse(q.get("fieldSelector"), &t.rt)?,
        limit: q.get("limit").parse().unwrap_or(0),
        continue_token: q.get("continue").to_owned(),
        resource_version: q.get("resourceVersion").to_owned(),
    })
}

fn list(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let page = core.store.list(&t.rt, &t.ns, &list_options(t, call)?)?;
    let form = Form::of(&call.accept);
    let items = page.items.iter();
    let items = items.map(|o| object_as(&t.rt, &t.group, &t.version, form, o));
    let meta = list_meta(page.rv, page.continue_token.as_deref(), page.remaining);
    let list = list_as(&t.rt, &t.group, &t.version, form, items.collect(), &meta);
    Ok(Json(list).into_response())
}

/// The body as an object of the kind in the path.
fn body_object(t: &Target, call: &Call) -> Result<Value, ApiError> {
    let v = call.json()?;
    if !v.is_object() {
        return Err(ApiError::bad_request("the request body is not an object"));
    }
    let want = if t.group == crate::resource::EVENTS_GROUP {
        format!("{}/{}", t.group, t.version)
    } else {
        t.rt.api_version(&t.version)
    };
    let kind = str_at(&v, "kind").unwrap_or(&t.rt.kind);
    let api_version = str_at(&v, "apiVersion").unwrap_or(&want);
    if kind != t.rt.kind || api_version != want {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{api_version}\" cannot be handled as a {}: the API version in the data ({api_version}) does not match the expected API version ({want})",
            t.rt.kind
        )));
    }
    Ok(present::to_stored(&t.group, v))
}

fn create(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let v = body_object(t, call)?;
    let o = core.store.create(&t.rt, &t.ns, v, &t.write(call))?;
    Ok(show(t, call, StatusCode::CREATED, &o))
}

fn update(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let v = body_object(t, call)?;
    let given = str_at(&v, "metadata.namespace").unwrap_or("");
    if !given.is_empty() && given != t.ns {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let o = core
        .store
        .update(&t.rt, &t.ns, &t.name, &t.write(call), |_| Ok(v))?;
    Ok(show(t, call, StatusCode::OK, &o))
}

fn patch(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let kind = PatchKind::from_content_type(&call.content_type, t.rt.builtin)?;
    let body = call.json()?;
    if kind == PatchKind::Apply {
        return apply_patch(core, t, call, &body);
    }
    let w = t.write(call);
    let o = core.store.update(&t.rt, &t.ns, &t.name, &w, |live| {
        // The patch is made for the version in the path.
        let seen = object_as(&t.rt, &t.group, &t.version, Form::Full, live);
        let out = patched(kind, &seen, &body)?;
        Ok(present::to_stored(&t.group, out))
    })?;
    Ok(show(t, call, StatusCode::OK, &o))
}

fn apply_patch(core: &Core, t: &Target, call: &Call, body: &Value) -> Result<Response, ApiError> {
    let manager = call.query.get("fieldManager");
    if manager.is_empty() {
        return Err(ApiError::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if str_at(body, "kind") != Some(&t.rt.kind) || str_at(body, "apiVersion").is_none() {
        return Err(ApiError::bad_request(
            "apiVersion and kind must be set in an apply patch, and match the path",
        ));
    }
    if !name_of(body).is_empty() && name_of(body) != t.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            name_of(body),
            t.name
        )));
    }
    if at(body, "metadata.managedFields").is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let body = present::to_stored(&t.group, body.clone());
    let w = t.write(call);
    let (o, is_new) = core.store.apply(&t.rt, &t.ns, &t.name, &body, manager, &w)?;
    let code = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(show(t, call, code, &o))
}

fn delete_options(call: &Call) -> Result<DeleteOptions, ApiError> {
    let body = call.json()?;
    let mut o = DeleteOptions::read(&body);
    let q = &call.query;
    if let Ok(g) = q.get("gracePeriodSeconds").parse() {
        o.grace = Some(g);
    }
    if !q.get("propagationPolicy").is_empty() {
        o.propagation = Some(q.get("propagationPolicy").to_owned());
    }
    o.dry_run |= q.dry_run();
    if let Some(p) = &o.propagation
        && !matches!(p.as_str(), "Background" | "Foreground" | "Orphan")
    {
        return Err(ApiError::new(
            422,
            "Invalid",
            format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{p}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ),
        ));
    }
    Ok(o)
}

fn delete(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let d = core.store.delete(&t.rt, &t.ns, &t.name, &delete_options(call)?)?;
    let returns_object = matches!(t.rt.id.as_str(), "pods" | "services" | "serviceaccounts");
    if !d.gone || returns_object {
        return Ok(show(t, call, StatusCode::OK, &d.object));
    }
    let done = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": { "name": t.name, "group": t.rt.group, "kind": t.rt.plural, "uid": uid_of(&d.object) },
    });
    Ok(Json(done).into_response())
}

fn delete_collection(core: &Core, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let mut options = list_options(t, call)?;
    options.limit = 0;
    let how = delete_options(call)?;
    let page = core.store.list(&t.rt, &t.ns, &options)?;
    let mut gone = Vec::new();
    for o in &page.items {
        match core.store.delete(&t.rt, &t.ns, name_of(o), &how) {
            Ok(d) => gone.push(object_as(&t.rt, &t.group, &t.version, Form::Full, &d.object)),
            Err(e) if e.code == 404 => {}
            Err(e) => return Err(e),
        }
    }
    let meta = list_meta(page.rv, None, None);
    let list = list_as(&t.rt, &t.group, &t.version, Form::Full, gone, &meta);
    Ok(Json(list).into_response())
}
