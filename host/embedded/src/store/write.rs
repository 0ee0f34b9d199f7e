//! Create and update, with everything that a real API server does between the request and etcd.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::defaults;
use crate::error::{ApiError, FieldError};
use crate::resource::ResourceType;
use crate::store::prepare::{check, check_namespace, identity, may_go, normalise, spec_changed, split};
use crate::store::{EventKind, Inner, Key, Part, Store, Write};
use crate::value::{i64_at, metadata, name_of, namespace_of, new_uid, now, object, set, str_at, suffix};

impl Store {
    pub fn create(
        &self,
        rt: &ResourceType,
        ns: &str,
        mut v: Value,
        w: &Write<'_>,
    ) -> Result<Arc<Value>, ApiError> {
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
        if !w.applied {
            m.remove("managedFields");
        }
        m.insert("uid".into(), json!(new_uid()));
        m.insert("creationTimestamp".into(), json!(now()));
        if rt.generation {
            m.insert("generation".into(), json!(1));
        }
        normalise(rt, &mut v, w);
        if rt.status {
            defaults::initial_status(rt, &mut v);
        }
        let allocated = self.allocate(rt, None, &mut v)?;
        let checked = check(rt, None, &v);
        if checked.is_err() || w.dry_run {
            if let Some(ip) = allocated {
                self.addresses.release_service(&ip);
            }
            return checked.map(|()| Arc::new(v));
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
        edit: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let mut inner = self.lock();
        let key: Key = (ns.to_owned(), name.to_owned());
        let old = inner.object(rt, &key)?;
        let mut new = edit(&old)?;
        identity(rt, &old, &mut new, w)?;
        split(rt, &old, &mut new, w);
        if w.part != Part::Internal {
            normalise(rt, &mut new, w);
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
        if new == *old {
            return Ok(old);
        }
        if rt.generation && w.part != Part::Status && spec_changed(rt, &old, &new) {
            let g = i64_at(&old, "metadata.generation").unwrap_or(0) + 1;
            metadata(&mut new).insert("generation".into(), json!(g));
        }
        if w.dry_run {
            return Ok(Arc::new(new));
        }
        let kind = if may_go(rt, &new) {
            self.released(rt, &new);
            EventKind::Deleted
        } else {
            EventKind::Modified
        };
        Ok(self.commit(&mut inner, rt, Some(old), new, kind))
    }

    /// Creates an object of a built-in kind: a write of the cluster's own.
    pub fn add(&self, table: &str, ns: &str, object: Value) -> Result<Arc<Value>, ApiError> {
        let rt = self.kind(table).ok_or_else(ApiError::no_such_path)?;
        self.create(&rt, ns, object, &Write::of(Part::Main, &rt.storage_version))
    }

    /// Changes an object in place: a write of the cluster's own. That the object is gone is no error.
    pub fn edit(
        &self,
        table: &str,
        ns: &str,
        name: &str,
        part: Part,
        change: impl FnOnce(&mut Value),
    ) -> Result<(), ApiError> {
        let Some(rt) = self.kind(table) else {
            return Ok(());
        };
        let w = Write::of(part, &rt.storage_version);
        let done = self.update(&rt, ns, name, &w, |live| {
            let mut new = live.clone();
            change(&mut new);
            Ok(new)
        });
        match done {
            Err(e) if e.code != 404 => Err(e),
            _ => Ok(()),
        }
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
