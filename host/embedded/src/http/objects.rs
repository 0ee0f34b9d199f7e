//! Create, read, update, patch and delete objects and their status.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::core::Core;
use crate::error::ApiError;
use crate::http::present::{self, Form, list_as, list_meta, object_as};
use crate::http::request::{Call, Target};
use crate::http::{Reply, full, scale, text, watch};
use crate::patch::apply::Applier;
use crate::patch::{PatchKind, apply, patched};
use crate::selector::FieldSelector;
use crate::store::delete::DeleteOptions;
use crate::store::list::{ListOptions, parse_version};
use crate::store::write::{Edited, Part, Write};
use crate::value::{metadata, name_of, object, str_at, uid_of};

pub(crate) fn handle(core: &Arc<Core>, t: &Target, call: &Call) -> Result<Reply, ApiError> {
    if t.rt.namespaced && t.ns.is_empty() && matches!(t.verb, "create" | "deletecollection") {
        return Err(ApiError::method_not_allowed());
    }
    match t.sub.as_str() {
        "" => {}
        "status" if t.rt.status => {}
        "scale" if t.rt.scale.is_some() => return scale::handle(core, t, call),
        "log" if t.rt.id == "pods" && t.verb == "get" => {
            core.store.get_or_404(&t.rt, &t.ns, &t.name)?;
            return Ok(text(200, "text/plain", core.output.log(&t.ns, &t.name)));
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
            Ok(show(t, call, 200, &o))
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

pub(crate) fn write_of<'a>(t: &'a Target, call: &Call, manager: &'a str) -> Write<'a> {
    Write {
        manager,
        part: if t.sub == "status" {
            Part::Status
        } else {
            Part::Main
        },
        version: &t.version,
        dry_run: call.query.dry_run(),
        strict: call.query.get("fieldValidation") == "Strict",
    }
}

fn show(t: &Target, call: &Call, code: u16, o: &Value) -> Reply {
    let form = Form::of(&call.accept);
    let v = object_as(&t.rt, &t.group, &t.version, form, o);
    if form == Form::Table && code == 200 {
        let meta = json!({ "resourceVersion": str_at(&v, "metadata.resourceVersion") });
        return full(
            code,
            &list_as(&t.rt, &t.group, &t.version, form, std::iter::once(v), &meta),
        );
    }
    full(code, &v)
}

fn list_options(t: &Target, call: &Call) -> Result<ListOptions, ApiError> {
    let q = &call.query;
    Ok(ListOptions {
        labels: q.labels()?,
        fields: FieldSelector::parse(q.get("fieldSelector"), &t.rt)?,
        limit: q.get("limit").parse().unwrap_or(0),
        continue_token: q.get("continue").to_owned(),
        resource_version: q.get("resourceVersion").to_owned(),
        version_match: q.get("resourceVersionMatch").to_owned(),
    })
}

fn list(core: &Core, t: &Target, call: &Call) -> Result<Reply, ApiError> {
    let options = list_options(t, call)?;
    let page = core.store.list(&t.rt, &t.ns, &options)?;
    let form = Form::of(&call.accept);
    let items = page
        .items
        .iter()
        .map(|o| object_as(&t.rt, &t.group, &t.version, form, o));
    let meta = list_meta(page.rv, page.continue_token.as_deref(), page.remaining);
    Ok(full(
        200,
        &list_as(&t.rt, &t.group, &t.version, form, items, &meta),
    ))
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

fn create(core: &Core, t: &Target, call: &Call) -> Result<Reply, ApiError> {
    let v = body_object(t, call)?;
    let manager = call.manager();
    let o = core
        .store
        .create(&t.rt, &t.ns, Edited::Update(v), &write_of(t, call, &manager))?;
    Ok(show(t, call, 201, &o))
}

fn update(core: &Core, t: &Target, call: &Call) -> Result<Reply, ApiError> {
    let v = body_object(t, call)?;
    let given = str_at(&v, "metadata.namespace").unwrap_or("");
    if !given.is_empty() && given != t.ns {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let manager = call.manager();
    let mut w = write_of(t, call, &manager);
    if t.sub == "finalize" {
        w.part = Part::Internal;
    }
    let creates = matches!(t.rt.id.as_str(), "leases.coordination.k8s.io" | "events");
    let fresh = str_at(&v, "metadata.resourceVersion").is_none_or(str::is_empty);
    if creates && fresh && core.store.get(&t.rt.id, &t.ns, &t.name).is_none() {
        let o = core.store.create(&t.rt, &t.ns, Edited::Update(v), &w)?;
        return Ok(show(t, call, 201, &o));
    }
    let o = core
        .store
        .update(&t.rt, &t.ns, &t.name, &w, |_| Ok(Edited::Update(v)))?;
    Ok(show(t, call, 200, &o))
}

fn patch(core: &Core, t: &Target, call: &Call) -> Result<Reply, ApiError> {
    let kind = PatchKind::from_content_type(&call.content_type, t.rt.builtin)?;
    let body = call.json()?;
    let manager = call.manager();
    let w = write_of(t, call, &manager);
    if kind == PatchKind::Apply {
        return apply_patch(core, t, call, &body, &w);
    }
    let o = core.store.update(&t.rt, &t.ns, &t.name, &w, |live| {
        // The patch is made for the version in the path.
        let seen = object_as(&t.rt, &t.group, &t.version, Form::Full, live);
        let out = patched(kind, &seen, &body)?;
        Ok(Edited::Update(present::to_stored(&t.group, out)))
    })?;
    Ok(show(t, call, 200, &o))
}

fn apply_patch(core: &Core, t: &Target, call: &Call, body: &Value, w: &Write<'_>) -> Result<Reply, ApiError> {
    let manager = call.query.get("fieldManager");
    if manager.is_empty() {
        return Err(ApiError::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if !body.is_object() {
        return Err(ApiError::bad_request("an apply patch is an object"));
    }
    if str_at(body, "kind") != Some(&t.rt.kind) || str_at(body, "apiVersion").is_none() {
        return Err(ApiError::bad_request(
            "apiVersion and kind must be set in an apply patch, and match the path",
        ));
    }
    let mut body = present::to_stored(&t.group, body.clone());
    if name_of(&body).is_empty() {
        metadata(&mut body).insert("name".into(), json!(t.name));
    } else if name_of(&body) != t.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            name_of(&body),
            t.name
        )));
    }
    if body["metadata"]
        .get("managedFields")
        .is_some_and(|f| !f.is_null())
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let by = Applier {
        manager,
        force: call.query.flag("force"),
        subresource: &t.sub,
        version: &t.version,
    };
    let precondition = str_at(&body, "metadata.resourceVersion").map(str::to_owned);
    for _ in 0..2 {
        let outcome = core.store.update(&t.rt, &t.ns, &t.name, w, |live| {
            let mut out = apply::apply(&t.rt, Some(live), &body, &by)?;
            // Merging copied the body's version; without one the live version stands.
            if precondition.is_none() {
                let rv = live["metadata"]["resourceVersion"].clone();
                metadata(&mut out).insert("resourceVersion".into(), rv);
            }
            Ok(Edited::Applied(out))
        });
        match outcome {
            Err(e) if e.code == 404 && t.sub.is_empty() => {}
            other => return Ok(show(t, call, 200, &*other?)),
        }
        if precondition.is_some() || body["metadata"].get("uid").is_some_and(|u| !u.is_null()) {
            return Err(ApiError::conflict(
                &t.rt,
                &t.name,
                "the object does not exist, and the patch has a uid or resourceVersion",
            ));
        }
        let out = apply::apply(&t.rt, None, &body, &by)?;
        match core.store.create(&t.rt, &t.ns, Edited::Applied(out), w) {
            // Somebody created it in between: apply to that.
            Err(e) if e.reason == "AlreadyExists" => {}
            other => return Ok(show(t, call, 201, &*other?)),
        }
    }
    Err(ApiError::conflict(
        &t.rt,
        &t.name,
        "the object keeps appearing and disappearing",
    ))
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

fn delete(core: &Core, t: &Target, call: &Call) -> Result<Reply, ApiError> {
    let d = core.store.delete(&t.rt, &t.ns, &t.name, &delete_options(call)?)?;
    let returns_object = matches!(t.rt.id.as_str(), "pods" | "services" | "serviceaccounts");
    if !d.gone || returns_object {
        return Ok(show(t, call, 200, &d.object));
    }
    Ok(full(
        200,
        &json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": { "name": t.name, "group": t.rt.group, "kind": t.rt.plural, "uid": uid_of(&d.object) },
        }),
    ))
}

fn delete_collection(core: &Core, t: &Target, call: &Call) -> Result<Reply, ApiError> {
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
    let mut v = list_as(
        &t.rt,
        &t.group,
        &t.version,
        Form::Full,
        gone.into_iter(),
        &list_meta(page.rv, None, None),
    );
    object(&mut v);
    Ok(full(200, &v))
}
