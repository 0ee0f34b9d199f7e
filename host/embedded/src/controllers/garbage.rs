//! What goes when something else goes: dependents of deleted owners, the content of deleted namespaces, the
//! instances of deleted definitions. New namespaces get what every namespace has.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::controllers::{Controller, keys};
use crate::core::Core;
use crate::error::ApiError;
use crate::resource::ResourceType;
use crate::store::delete::{CLEANUP, FOREGROUND, ORPHAN};
use crate::store::{CRDS, Event, EventKind, Key, Part, Store};
use crate::value::{
    finalizers, is_deleting, list_at, metadata, name_of, namespace_of, object, str_at, uid_of,
};

/// Keys are (table, "namespace/name").
pub(crate) struct Garbage;

fn key_for(table: &str, key: &Key) -> Key {
    (table.to_owned(), format!("{}/{}", key.0, key.1))
}

fn delete(store: &Store, rt: &ResourceType, o: &Value) -> Result<(), ApiError> {
    store.remove(&rt.id, o, Some("Background"))
}

fn edit(store: &Store, rt: &ResourceType, o: &Value, f: impl FnOnce(&mut Value)) -> Result<(), ApiError> {
    store.edit(&rt.id, namespace_of(o), name_of(o), Part::Internal, f)
}

/// Removes the items that are `gone` from a list in the metadata, and the list when nothing is left.
fn drop_items(v: &mut Value, list: &str, gone: impl Fn(&Value) -> bool) {
    let m = metadata(v);
    if let Some(items) = m.get_mut(list).and_then(Value::as_array_mut) {
        items.retain(|item| !gone(item));
        if items.is_empty() {
            m.remove(list);
        }
    }
}

fn drop_finalizer(v: &mut Value, gone: &str) {
    drop_items(v, "finalizers", |f| f == gone);
}

fn drop_owner(v: &mut Value, uids: &[&str]) {
    drop_items(v, "ownerReferences", |o| {
        str_at(o, "uid").is_some_and(|u| uids.contains(&u))
    });
}

impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store
            .kinds()
            .iter()
            .flat_map(|rt| {
                keys(store, &rt.id)
                    .into_iter()
                    .map(|k| key_for(&rt.id, &k))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn affected(&self, store: &Store, e: &Event) -> Vec<Key> {
        let mut out = Vec::new();
        let owners = |v: &Value| list_at(v, "metadata.ownerReferences").len();
        if e.kind == EventKind::Deleted {
            out.extend(
                store
                    .dependents(uid_of(&e.object))
                    .iter()
                    .map(|(t, k)| key_for(t, k)),
            );
            // An owner that waits for its dependents, a namespace or a definition that waits for its content.
            for o in list_at(&e.object, "metadata.ownerReferences") {
                out.extend(owner_key(store, &e.object, o));
            }
            out.extend(holder(store, e));
        } else {
            let special = matches!(e.table.as_str(), "namespaces" | CRDS);
            let relevant = special
                || is_deleting(&e.object)
                || (owners(&e.object) > 0
                    && e.previous.as_ref().is_none_or(|p| owners(p) != owners(&e.object)));
            if relevant {
                out.push(key_for(&e.table, &e.key));
            }
        }
        out
    }

    fn reconcile(&self, core: &Arc<Core>, key: &Key) -> Result<Option<Duration>, ApiError> {
        let store = &core.store;
        let (Some(rt), Some((ns, name))) = (store.kind(&key.0), key.1.split_once('/')) else {
            return Ok(None);
        };
        let Some(o) = store.get(&rt.id, ns, name) else {
            return Ok(None);
        };
        match rt.id.as_str() {
            "namespaces" if is_deleting(&o) => return namespace_goes(store, &rt, &o),
            "namespaces" => return furnish(store, name).map(|()| None),
            CRDS if is_deleting(&o) => return definition_goes(store, &rt, &o),
            _ => {}
        }
        if is_deleting(&o) {
            return dependents_first(store, &rt, &o);
        }
        orphaned(store, &rt, &o).map(|()| None)
    }
}

fn owner_key(store: &Store, o: &Value, owner: &Value) -> Option<Key> {
    let (rt, _) = store.kind_of(owner)?;
    let ns = if rt.namespaced { namespace_of(o) } else { "" };
    Some((rt.id.clone(), format!("{ns}/{}", str_at(owner, "name")?)))
}

/// The namespace or definition of a deleted object, when that is being deleted too.
fn holder(store: &Store, e: &Event) -> Vec<Key> {
    let mut out = Vec::new();
    if !e.key.0.is_empty()
        && store
            .get("namespaces", "", &e.key.0)
            .is_some_and(|n| is_deleting(&n))
    {
        out.push(("namespaces".to_owned(), format!("/{}", e.key.0)));
    }
    if store.get(CRDS, "", &e.table).is_some_and(|c| is_deleting(&c)) {
        out.push((CRDS.to_owned(), format!("/{}", e.table)));
    }
    out
}

/// Deletes an object none of whose owners exists, and forgets owners that do not.
fn orphaned(store: &Store, rt: &ResourceType, o: &Value) -> Result<(), ApiError> {
    let owners = list_at(o, "metadata.ownerReferences");
    let gone: Vec<&str> = owners
        .iter()
        .filter_map(|r| str_at(r, "uid"))
        .filter(|uid| !store.uid_exists(uid))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    if gone.len() == owners.len() {
        return delete(store, rt, o);
    }
    edit(store, rt, o, |v| drop_owner(v, &gone))
}

/// The finalizers behind `propagationPolicy: Orphan` and `Foreground`.
fn dependents_first(store: &Store, rt: &ResourceType, o: &Value) -> Result<Option<Duration>, ApiError> {
    let waits = finalizers(o);
    let dependents: Vec<(Arc<ResourceType>, Arc<Value>)> = store
        .dependents(uid_of(o))
        .into_iter()
        .filter_map(|(t, k)| Some((store.kind(&t)?, store.get(&t, &k.0, &k.1)?)))
        .collect();
    if waits.contains(&ORPHAN) {
        for (rt, d) in &dependents {
            edit(store, rt, d, |v| drop_owner(v, &[uid_of(o)]))?;
        }
        edit(store, rt, o, |v| drop_finalizer(v, ORPHAN))?;
    } else if waits.contains(&FOREGROUND) {
        let mut blocking = false;
        for (rt, d) in &dependents {
            let blocks = list_at(d, "metadata.ownerReferences").iter().any(|r| {
                str_at(r, "uid") == Some(uid_of(o)) && r.get("blockOwnerDeletion") == Some(&json!(true))
            });
            blocking |= blocks;
            if !is_deleting(d) {
                delete(store, rt, d)?;
            }
        }
        let left = store.dependents(uid_of(o)).len();
        if left == 0 || !blocking {
            edit(store, rt, o, |v| drop_finalizer(v, FOREGROUND))?;
        }
    }
    Ok(None)
}

fn namespace_goes(store: &Store, rt: &ResourceType, ns: &Value) -> Result<Option<Duration>, ApiError> {
    let mut left = 0;
    for kind in store.kinds().iter().filter(|k| k.namespaced) {
        for o in store.all(&kind.id, name_of(ns)) {
            if !is_deleting(&o) {
                delete(store, kind, &o)?;
            }
        }
        left += store.all(&kind.id, name_of(ns)).len();
    }
    if left == 0 {
        edit(store, rt, ns, |v| {
            object(&mut v["spec"]).remove("finalizers");
        })?;
    }
    Ok(None)
}

fn definition_goes(store: &Store, rt: &ResourceType, crd: &Value) -> Result<Option<Duration>, ApiError> {
    let Some(kind) = store.kind(name_of(crd)) else {
        edit(store, rt, crd, |v| drop_finalizer(v, CLEANUP))?;
        return Ok(None);
    };
    for o in store.all(&kind.id, "") {
        if !is_deleting(&o) {
            delete(store, &kind, &o)?;
        }
    }
    if store.all(&kind.id, "").is_empty() {
        edit(store, rt, crd, |v| drop_finalizer(v, CLEANUP))?;
    }
    Ok(None)
}

/// The default ServiceAccount and the CA bundle that every namespace has.
fn furnish(store: &Store, ns: &str) -> Result<(), ApiError> {
    let things = [
        ("serviceaccounts", json!({ "metadata": { "name": "default" } })),
        (
            "configmaps",
            json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "" } }),
        ),
    ];
    for (table, o) in things {
        if store.get(table, ns, name_of(&o)).is_none() {
            match store.add(table, ns, o) {
                Err(e) if !matches!(e.code, 403 | 404 | 409) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}
