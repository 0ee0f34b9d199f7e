//! DELETE: preconditions, grace, finalizers, propagation.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::resource::ResourceType;
use crate::store::prepare::may_go;
use crate::store::{EventKind, Key, Store};
use crate::value::{
    finalizers, i64_at, is_deleting, list_at, metadata, name_of, namespace_of, str_at, time, uid_of,
    version_of,
};

pub(crate) const ORPHAN: &str = "orphan";
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// Holds a CustomResourceDefinition until its instances are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The body of a DELETE.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    pub fn read(v: &Value) -> Self {
        DeleteOptions {
            grace: i64_at(v, "gracePeriodSeconds"),
            uid: str_at(v, "preconditions.uid").map(str::to_owned),
            resource_version: str_at(v, "preconditions.resourceVersion").map(str::to_owned),
            propagation: str_at(v, "propagationPolicy").map(str::to_owned).or_else(|| {
                match v.get("orphanDependents").and_then(Value::as_bool) {
                    Some(true) => Some("Orphan".into()),
                    _ => None,
                }
            }),
            dry_run: list_at(v, "dryRun").iter().any(|d| d == "All"),
        }
    }
}

/// What a DELETE did.
pub(crate) struct Deleted {
    pub object: Arc<Value>,
    /// False while finalizers or a grace period hold the object.
    pub gone: bool,
}

impl Store {
    /// Deletes this very object: a write of the cluster's own. That it is gone, or another by now, is no error.
    pub fn remove(&self, table: &str, object: &Value, propagation: Option<&str>) -> Result<(), ApiError> {
        let Some(rt) = self.kind(table) else {
            return Ok(());
        };
        let options = DeleteOptions {
            uid: Some(uid_of(object).to_owned()),
            propagation: propagation.map(str::to_owned),
            ..DeleteOptions::default()
        };
        match self.delete(&rt, namespace_of(object), name_of(object), &options) {
            Err(e) if !matches!(e.code, 404 | 409) => Err(e),
            _ => Ok(()),
        }
    }

    pub fn delete(
        &self,
        rt: &ResourceType,
        ns: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let mut inner = self.lock();
        let key: Key = (ns.to_owned(), name.to_owned());
        let old = inner.object(rt, &key)?;
        if let Some(uid) = options.uid.as_deref().filter(|u| *u != uid_of(&old)) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                uid_of(&old)
            );
            return Err(ApiError::conflict(rt, name, &why));
        }
        if let Some(rv) = options.resource_version.as_deref()
            && rv != version_of(&old).to_string()
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {rv}, ResourceVersion in object meta: {}",
                version_of(&old)
            );
            return Err(ApiError::conflict(rt, name, &why));
        }
        let mut new = (*old).clone();
        propagate(&mut new, options.propagation.as_deref());
        let grace = grace(rt, &old, options.grace);
        if is_deleting(&old) {
            let left = i64_at(&old, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
            if grace < left {
                metadata(&mut new).insert("deletionGracePeriodSeconds".into(), json!(grace));
            }
        } else {
            let m = metadata(&mut new);
            let at = Timestamp::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            m.insert("deletionTimestamp".into(), json!(time(at)));
            m.insert("deletionGracePeriodSeconds".into(), json!(grace));
            if let Some(g) = m.get("generation").and_then(Value::as_i64) {
                m.insert("generation".into(), json!(g + 1));
            }
            if rt.id == crate::store::CRDS {
                // Its instances go first.
                let mut list = finalizers(&new)
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>();
                list.push(CLEANUP.into());
                metadata(&mut new).insert("finalizers".into(), json!(list));
            }
            if rt.id == "namespaces" {
                crate::value::set(&mut new, "status.phase", json!("Terminating"));
            }
        }
        if may_go(rt, &new) {
            // What nothing held was never marked as being deleted.
            let last = if is_deleting(&old) || !finalizers(&old).is_empty() {
                new
            } else {
                (*old).clone()
            };
            if options.dry_run {
                return Ok(Deleted {
                    object: Arc::new(last),
                    gone: true,
                });
            }
            self.released(rt, &last);
            let object = self.commit(&mut inner, rt, Some(old), last, EventKind::Deleted);
            return Ok(Deleted { object, gone: true });
        }
        if new == *old || options.dry_run {
            return Ok(Deleted {
                object: Arc::new(new),
                gone: false,
            });
        }
        let object = self.commit(&mut inner, rt, Some(old), new, EventKind::Modified);
        Ok(Deleted { object, gone: false })
    }
}

fn grace(rt: &ResourceType, old: &Value, asked: Option<i64>) -> i64 {
    if rt.id != "pods" {
        return 0;
    }
    let phase = str_at(old, "status.phase").unwrap_or("");
    let unscheduled = str_at(old, "spec.nodeName").is_none_or(str::is_empty);
    if unscheduled || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    asked
        .or_else(|| i64_at(old, "spec.terminationGracePeriodSeconds"))
        .unwrap_or(30)
        .max(0)
}

/// Adds the finalizer that makes the garbage collector act before the object goes.
fn propagate(v: &mut Value, policy: Option<&str>) {
    let mut list: Vec<String> = finalizers(v)
        .into_iter()
        .filter(|f| policy.is_none() || !matches!(*f, ORPHAN | FOREGROUND))
        .map(str::to_owned)
        .collect();
    match policy {
        Some("Orphan") => list.push(ORPHAN.into()),
        Some("Foreground") => list.push(FOREGROUND.into()),
        _ => {}
    }
    if list.is_empty() {
        metadata(v).remove("finalizers");
    } else {
        metadata(v).insert("finalizers".into(), json!(list));
    }
}
