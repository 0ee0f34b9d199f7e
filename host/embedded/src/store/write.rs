//! Create and update, with everything that a real API server does between the request and etcd.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{ApiError, FieldError};
use crate::patch::fields::{self, Entry};
use crate::patch::topology::Node;
use crate::resource::ResourceType;
use crate::store::{EventKind, Inner, Key, Store};
use crate::value::{
    at, finalizers, i64_at, is_deleting, list_at, metadata, name_of, namespace_of, new_uid, now, object, set,
    str_at, suffix, version_of,
};
use crate::{defaults, schema, validate};

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but status (for kinds with the status subresource).
    Main,
    /// Only the status.
    Status,
    /// Only what a scale shows; a Main write that managed fields attribute to the subresource.
    Scale,
    /// Anything, unvalidated: the cluster's own doing (binding a pod, garbage collection).
    Internal,
}

/// How a write is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Write<'a> {
    pub manager: &'a str,
    pub part: Part,
    pub version: &'a str,
    pub dry_run: bool,
    /// `fieldValidation=Strict`: unknown fields are an error, not pruned.
    pub strict: bool,
}

impl<'a> Write<'a> {
    /// A write by one of the cluster's own controllers.
    pub fn by(manager: &'a str, part: Part) -> Self {
        Write {
            manager,
            part,
            version: "v1",
            dry_run: false,
            strict: false,
        }
    }
}

/// What an edit made of an object.
pub(crate) enum Edited {
    /// Ownership of fields follows from what changed.
    Update(Value),
    /// Ownership is already in the object: server-side apply.
    Applied(Value),
}

impl Store {
    pub fn create(
        &self,
        rt: &ResourceType,
        ns: &str,
        edited: Edited,
        w: &Write<'_>,
    ) -> Result<Arc<Value>, ApiError> {
        let (mut v, applied) = match edited {
            Edited::Update(v) => (v, false),
            Edited::Applied(v) => (v, true),
        };
        let mut inner = self.lock();
        let name = self.identify(&inner, rt, ns, &mut v)?;
        let key: Key = (ns.to_owned(), name.clone());
        check_namespace(&inner, rt, ns, &name)?;
        if inner.object(rt, &key).is_ok() {
            return Err(ApiError::already_exists(rt, &name));
        }
        if str_at(&v, "metadata.resourceVersion").is_some_and(|s| !s.is_empty()) {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let m = metadata(&mut v);
        for k in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
            "resourceVersion",
        ] {
            m.remove(k);
        }
        if !applied {
            m.remove("managedFields");
        }
        m.insert("uid".into(), json!(new_uid()));
        m.insert("creationTimestamp".into(), json!(now()));
        if rt.generation {
            m.insert("generation".into(), json!(1));
        }
        normalise(rt, &mut v, w)?;
        if rt.status {
            defaults::initial_status(rt, &mut v);
        }
        let allocated = self.allocate(rt, None, &mut v)?;
        let checked = check(rt, None, &v);
        if checked.is_err() || w.dry_run {
            if let Some(ip) = allocated {
                self.addresses.release_service(&ip);
            }
            checked?;
        }
        if !applied {
            let writer = Entry::new(
                w.manager,
                "Update",
                &rt.api_version(w.version),
                subresource(w.part),
            );
            fields::track_update(None, &mut v, &Node::root(rt, w.version), writer);
        }
        if w.dry_run {
            return Ok(Arc::new(v));
        }
        Ok(self.commit(&mut inner, rt, None, v, EventKind::Added))
    }

    /// The name of a new object, made up from generateName when it has none.
    fn identify(
        &self,
        inner: &Inner,
        rt: &ResourceType,
        ns: &str,
        v: &mut Value,
    ) -> Result<String, ApiError> {
        if !v.is_object() {
            return Err(ApiError::bad_request("the object provided is not a JSON object"));
        }
        let given = namespace_of(v).to_owned();
        if rt.namespaced && !given.is_empty() && given != ns {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given} != {ns})"
            )));
        }
        let mut name = name_of(v).to_owned();
        if name.is_empty()
            && let Some(prefix) = str_at(v, "metadata.generateName").map(str::to_owned)
        {
            // Long prefixes are cut so that the suffix fits.
            let prefix: String = prefix.chars().take(58).collect();
            for _ in 0..8 {
                name = format!("{prefix}{}", suffix());
                if inner.object(rt, &(ns.to_owned(), name.clone())).is_err() {
                    break;
                }
            }
        }
        let api_version = rt.storage_api_version();
        let o = object(v);
        o.insert("apiVersion".into(), json!(api_version));
        o.insert("kind".into(), json!(rt.kind));
        let m = metadata(v);
        if !name.is_empty() {
            m.insert("name".into(), json!(name));
        }
        if rt.namespaced {
            m.insert("namespace".into(), json!(ns));
        } else {
            m.remove("namespace");
        }
        Ok(name)
    }

    /// Reads the object, lets `edit` change it and writes the outcome, all under the lock: an edit never loses a race.
    pub fn update(
        &self,
        rt: &ResourceType,
        ns: &str,
        name: &str,
        w: &Write<'_>,
        edit: impl FnOnce(&Value) -> Result<Edited, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let mut inner = self.lock();
        let key: Key = (ns.to_owned(), name.to_owned());
        let old = inner.object(rt, &key)?;
        let (mut new, applied) = match edit(&old)? {
            Edited::Update(v) => (v, false),
            Edited::Applied(v) => (v, true),
        };
        identity(rt, &old, &mut new)?;
        if !applied && metadata(&mut new).get("managedFields") != old["metadata"].get("managedFields") {
            let reset = list_at(&new, "metadata.managedFields")
                .iter()
                .all(|e| e == &json!({}))
                && new["metadata"].get("managedFields").is_some();
            let kept = old["metadata"].get("managedFields").cloned();
            match kept.filter(|_| !reset) {
                Some(k) => metadata(&mut new).insert("managedFields".into(), k),
                None => metadata(&mut new).remove("managedFields"),
            };
        }
        split(rt, &old, &mut new, w.part, applied);
        if w.part != Part::Internal {
            normalise(rt, &mut new, w)?;
        }
        let allocated = self.allocate(rt, Some(&old), &mut new)?;
        if w.part != Part::Internal
            && let Err(e) = check(rt, Some(&old), &new)
        {
            if let Some(ip) = allocated {
                self.addresses.release_service(&ip);
            }
            return Err(e);
        }
        if same(&old, &new, applied) {
            return Ok(old);
        }
        if rt.generation && w.part != Part::Status && spec_changed(rt, &old, &new) {
            let g = i64_at(&old, "metadata.generation").unwrap_or(0) + 1;
            metadata(&mut new).insert("generation".into(), json!(g));
        }
        if !applied {
            let writer = Entry::new(
                w.manager,
                "Update",
                &rt.api_version(w.version),
                subresource(w.part),
            );
            let before = if new["metadata"].get("managedFields").is_none() {
                let mut o = (*old).clone();
                metadata(&mut o).remove("managedFields");
                Some(o)
            } else {
                None
            };
            fields::track_update(
                Some(before.as_ref().unwrap_or(&old)),
                &mut new,
                &Node::root(rt, w.version),
                writer,
            );
        }
        if w.dry_run {
            return Ok(Arc::new(new));
        }
        let kind = if may_go(rt, &new) {
            EventKind::Deleted
        } else {
            EventKind::Modified
        };
        if kind == EventKind::Deleted {
            self.released(rt, &new);
        }
        Ok(self.commit(&mut inner, rt, Some(old), new, kind))
    }

    /// A Service's ClusterIP. Returns the address when this call took it.
    fn allocate(
        &self,
        rt: &ResourceType,
        old: Option<&Value>,
        v: &mut Value,
    ) -> Result<Option<String>, ApiError> {
        if rt.id != "services" {
            return Ok(None);
        }
        if str_at(v, "spec.type") == Some("ExternalName") {
            for k in ["clusterIP", "clusterIPs"] {
                object(object(v).entry("spec").or_insert_with(|| json!({}))).remove(k);
            }
            return Ok(None);
        }
        let before = old
            .and_then(|o| str_at(o, "spec.clusterIP"))
            .unwrap_or("")
            .to_owned();
        let wanted = str_at(v, "spec.clusterIP").unwrap_or("").to_owned();
        let mut taken = None;
        let ip = if !wanted.is_empty() {
            if wanted != before && wanted != "None" && before.is_empty() {
                if !self.addresses.claim_service(&wanted) {
                    let why = "failed to allocate IP: the provided IP is not in the valid range or is already allocated";
                    let e = FieldError::invalid("spec.clusterIPs", &json!([wanted]), why);
                    return Err(ApiError::invalid(rt, name_of(v), &[e]));
                }
                taken = Some(wanted.clone());
            }
            wanted
        } else if before.is_empty() {
            let ip = self
                .addresses
                .allocate_service()
                .ok_or_else(|| ApiError::internal("no free cluster IP"))?;
            taken = Some(ip.clone());
            ip
        } else {
            before
        };
        set(v, "spec.clusterIP", json!(ip));
        set(v, "spec.clusterIPs", json!([ip]));
        Ok(taken)
    }

    /// Gives back what an object held when it goes.
    pub(crate) fn released(&self, rt: &ResourceType, v: &Value) {
        if rt.id == "services"
            && let Some(ip) = str_at(v, "spec.clusterIP")
        {
            self.addresses.release_service(ip);
        }
    }
}

fn check_namespace(inner: &Inner, rt: &ResourceType, ns: &str, name: &str) -> Result<(), ApiError> {
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

fn subresource(part: Part) -> &'static str {
    match part {
        Part::Status => "status",
        Part::Scale => "scale",
        Part::Main | Part::Internal => "",
    }
}

/// Checks name, uid and resourceVersion of an update and carries over what no client may change.
fn identity(rt: &ResourceType, old: &Value, new: &mut Value) -> Result<(), ApiError> {
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
    ] {
        match old["metadata"].get(k) {
            Some(v) => m.insert(k.to_owned(), v.clone()),
            None => m.remove(k),
        };
    }
    Ok(())
}

/// Puts back the part of the object that this write may not change.
fn split(rt: &ResourceType, old: &Value, new: &mut Value, part: Part, applied: bool) {
    match part {
        Part::Internal => {}
        Part::Main | Part::Scale if rt.status => match old.get("status") {
            Some(s) => {
                object(new).insert("status".into(), s.clone());
            }
            None => {
                object(new).remove("status");
            }
        },
        Part::Main | Part::Scale => {}
        Part::Status => {
            let mut out = old.clone();
            match new.get("status") {
                Some(s) if !s.is_null() => object(&mut out).insert("status".into(), s.clone()),
                _ => object(&mut out).remove("status"),
            };
            if rt.builtin {
                // Built-in kinds let a status write touch annotations and finalizers, custom ones nothing.
                for k in ["annotations", "finalizers"] {
                    match new["metadata"].get(k) {
                        Some(v) => metadata(&mut out).insert(k.into(), v.clone()),
                        None => metadata(&mut out).remove(k),
                    };
                }
            }
            if applied && let Some(f) = new["metadata"].get("managedFields") {
                metadata(&mut out).insert("managedFields".into(), f.clone());
            }
            *new = out;
        }
    }
}

/// Defaults and, for custom resources, pruning.
fn normalise(rt: &ResourceType, v: &mut Value, w: &Write<'_>) -> Result<(), ApiError> {
    defaults::apply(rt, v);
    if rt.builtin {
        return Ok(());
    }
    let schema = rt
        .schemas
        .get(w.version)
        .or_else(|| rt.schemas.get(&rt.storage_version));
    if let Some(schema) = schema {
        let unknown = schema::prune(schema, v);
        if w.strict && !unknown.is_empty() {
            let list: Vec<String> = unknown.iter().map(|f| format!("unknown field \"{f}\"")).collect();
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                rt.kind,
                w.version,
                rt.kind,
                list.join(", ")
            )));
        }
        schema::default(schema, v);
    }
    Ok(())
}

fn check(rt: &ResourceType, old: Option<&Value>, new: &Value) -> Result<(), ApiError> {
    let mut errors = validate::validate(rt, old, new);
    if let Some(schema) = rt.schemas.get(&rt.storage_version) {
        errors.extend(schema::validate(schema, new));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(rt, name_of(new), &errors))
    }
}

fn same(old: &Value, new: &Value, applied: bool) -> bool {
    if applied {
        return old == new;
    }
    let strip = |v: &Value| {
        let mut v = v.clone();
        metadata(&mut v).remove("managedFields");
        v
    };
    old == new
        || (old["metadata"].get("managedFields").is_none() || new["metadata"].get("managedFields").is_some())
            && strip(old) == strip(new)
}

fn spec_changed(rt: &ResourceType, old: &Value, new: &Value) -> bool {
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
