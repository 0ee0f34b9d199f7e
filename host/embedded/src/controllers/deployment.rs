//! Deployments: one ReplicaSet per template, rolled over from the old to the new.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::controllers::replicaset;
use crate::controllers::{
    Controller, controlled, controller_key, keys, record_event, set_counts, with_condition, write_status,
};
use crate::core::Core;
use crate::error::ApiError;
use crate::store::{Event, EventKind, Key, Part, Store};
use crate::value::{
    annotation, at, canonical, child, condition, i64_at, is_deleting, list_at, metadata, name_of,
    namespace_of, object, owned_by, set, set_annotation, short_hash, str_at, uid_of,
};

pub(crate) const TABLE: &str = "deployments.apps";
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(crate) struct Deployments;

fn replicas(v: &Value) -> i64 {
    i64_at(v, "spec.replicas").unwrap_or(1)
}

fn count(v: &Value, field: &str) -> i64 {
    i64_at(v, &format!("status.{field}")).unwrap_or(0)
}

/// A number or a percentage of `of`.
fn resolve(v: Option<&Value>, of: i64, up: bool) -> i64 {
    match v {
        Some(Value::String(s)) => {
            let percent: i64 = s.trim_end_matches('%').parse().unwrap_or(25);
            let n = of * percent;
            if up { (n + 99) / 100 } else { n / 100 }
        }
        Some(n) => n.as_i64().unwrap_or(0),
        None => 0,
    }
}

fn template_text(v: &Value) -> String {
    let mut t = at(v, "spec.template").cloned().unwrap_or_default();
    if let Some(labels) = t.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
        if labels.is_empty()
            && let Some(m) = t.get_mut("metadata").and_then(Value::as_object_mut)
        {
            m.remove("labels");
        }
    }
    canonical(&t)
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        keys(store, TABLE)
    }

    fn affected(&self, store: &Store, e: &Event) -> Vec<Key> {
        match e.table.as_str() {
            TABLE => vec![e.key.clone()],
            replicaset::TABLE => controller_key(&e.object, "Deployment").into_iter().collect(),
            // Recreate waits for the old pods to be gone.
            "pods" if e.kind == EventKind::Deleted => controller_key(&e.object, "ReplicaSet")
                .and_then(|k| store.get(replicaset::TABLE, &k.0, &k.1))
                .and_then(|rs| controller_key(&rs, "Deployment"))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, core: &Arc<Core>, key: &Key) -> Result<Option<Duration>, ApiError> {
        let store = &core.store;
        let Some(d) = store.get(TABLE, &key.0, &key.1) else {
            return Ok(None);
        };
        let owned = controlled(store, replicaset::TABLE, &key.0, uid_of(&d));
        if is_deleting(&d) {
            return status(store, key, &d, &owned).map(|()| None);
        }
        let text = template_text(&d);
        let paused = at(&d, "spec.paused") == Some(&json!(true));
        let new = owned.iter().find(|rs| template_text(rs) == text).cloned();
        let new = match new {
            Some(rs) => Some(rs),
            None if paused => None,
            None => Some(create(store, &d, &owned)?),
        };
        let mut old: Vec<Arc<Value>> = owned
            .iter()
            .filter(|rs| new.as_ref().is_none_or(|n| uid_of(n) != uid_of(rs)))
            .cloned()
            .collect();
        old.sort_by_key(|rs| revision_of(rs));
        if let Some(new) = &new {
            let revision = revision(store, &d, new, &old)?;
            // Through the status, as the real controller does it, so that the generation stays.
            store.edit(TABLE, &key.0, &key.1, Part::Status, |d| {
                set_annotation(d, REVISION, &revision.to_string());
            })?;
            if str_at(&d, "spec.strategy.type") == Some("Recreate") {
                recreate(core, &d, new, &old)?;
            } else {
                rolling(store, &d, new, &old)?;
            }
        } else {
            // Paused: scaling still works, on the newest one there is.
            if let Some(last) = old.last() {
                scale(store, last, replicas(&d), &d)?;
            }
        }
        clean_up(store, &d, &old)?;
        let owned = controlled(store, replicaset::TABLE, &key.0, uid_of(&d));
        let d = store.get(TABLE, &key.0, &key.1).unwrap_or(d);
        status(store, key, &d, &owned)?;
        Ok(None)
    }
}

/// A Deployment's name may be as long as that of its ReplicaSet, so it is cut to make room for the hash.
fn replica_set_name(d: &Value, hash: &str) -> String {
    let room = 253_usize.saturating_sub(hash.len() + 1);
    let name: String = name_of(d).chars().take(room).collect();
    format!("{name}-{hash}")
}

fn create(store: &Store, d: &Value, owned: &[Arc<Value>]) -> Result<Arc<Value>, ApiError> {
    let mut template = at(d, "spec.template").cloned().unwrap_or_else(|| json!({}));
    let mut hash = short_hash(&json!([template, uid_of(d)]));
    // A collision of hashes: another template already has the name.
    while owned.iter().any(|rs| name_of(rs) == replica_set_name(d, &hash)) {
        hash = short_hash(&json!([template, hash]));
    }
    let labels = child(metadata(&mut template), "labels");
    labels.insert(HASH.into(), json!(hash));
    let labels = labels.clone();
    let mut selector = at(d, "spec.selector").cloned().unwrap_or_else(|| json!({}));
    child(object(&mut selector), "matchLabels").insert(HASH.into(), json!(hash));
    let mut annotations = d["metadata"]
        .get("annotations")
        .cloned()
        .unwrap_or_else(|| json!({}));
    object(&mut annotations)
        .retain(|k, _| k != "kubectl.kubernetes.io/last-applied-configuration" && k != REVISION);
    let mut rs = json!({
        "metadata": {
            "name": replica_set_name(d, &hash),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owned_by(d, "apps/v1", "Deployment")],
        },
        "spec": { "replicas": 0, "selector": selector, "template": template },
    });
    if let Some(s) = i64_at(d, "spec.minReadySeconds").filter(|s| *s > 0) {
        rs["spec"]["minReadySeconds"] = json!(s);
    }
    store.add(replicaset::TABLE, namespace_of(d), rs)
}

fn edit(store: &Store, rs: &Value, f: impl FnOnce(&mut Value)) -> Result<(), ApiError> {
    store.edit(replicaset::TABLE, namespace_of(rs), name_of(rs), Part::Main, f)
}

fn revision_of(v: &Value) -> i64 {
    annotation(v, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Gives the new ReplicaSet the highest revision.
fn revision(store: &Store, d: &Value, new: &Value, old: &[Arc<Value>]) -> Result<i64, ApiError> {
    let highest = old.iter().map(|rs| revision_of(rs)).max().unwrap_or(0);
    let revision = revision_of(new).max(highest + 1);
    let want = replicas(d);
    let most = want + resolve(at(d, "spec.strategy.rollingUpdate.maxSurge"), want, true);
    edit(store, new, |rs| {
        set_annotation(rs, REVISION, &revision.to_string());
        set_annotation(rs, "deployment.kubernetes.io/desired-replicas", &want.to_string());
        set_annotation(rs, "deployment.kubernetes.io/max-replicas", &most.to_string());
    })?;
    Ok(revision)
}

fn scale(store: &Store, rs: &Value, n: i64, d: &Value) -> Result<(), ApiError> {
    let from = replicas(rs);
    if from == n {
        return Ok(());
    }
    edit(store, rs, |rs| set(rs, "spec.replicas", json!(n)))?;
    let kind = if n > from { "up" } else { "down" };
    let message = format!("Scaled {kind} replica set {} from {from} to {n}", name_of(rs));
    record_event(
        store,
        d,
        "deployment-controller",
        "Normal",
        "ScalingReplicaSet",
        &message,
    );
    Ok(())
}

fn recreate(core: &Core, d: &Value, new: &Value, old: &[Arc<Value>]) -> Result<(), ApiError> {
    for rs in old {
        scale(&core.store, rs, 0, d)?;
    }
    let ns = namespace_of(d);
    let left = old
        .iter()
        .any(|rs| !controlled(&core.store, "pods", ns, uid_of(rs)).is_empty());
    if !left {
        scale(&core.store, new, replicas(d), d)?;
    }
    Ok(())
}

fn rolling(store: &Store, d: &Value, new: &Value, old: &[Arc<Value>]) -> Result<(), ApiError> {
    let want = replicas(d);
    let old_total: i64 = old.iter().map(|rs| replicas(rs)).sum();
    if old_total == 0 {
        return scale(store, new, want, d);
    }
    let surge = resolve(at(d, "spec.strategy.rollingUpdate.maxSurge"), want, true);
    let mut missing = resolve(at(d, "spec.strategy.rollingUpdate.maxUnavailable"), want, false);
    if surge == 0 && missing == 0 {
        missing = 1;
    }
    let have = replicas(new);
    let room = (want + surge - old_total - have).max(0);
    let target = if have > want {
        want
    } else {
        have + room.min(want - have)
    };
    scale(store, new, target, d)?;
    // Old pods may go as far as enough others serve; those that do not serve anyway go first.
    let least = want - missing;
    let unavailable_new = (target - count(new, "availableReplicas")).max(0);
    let mut may_go = old_total + target - least - unavailable_new;
    if may_go <= 0 {
        return Ok(());
    }
    let mut left: Vec<(Arc<Value>, i64)> = old.iter().map(|rs| (rs.clone(), replicas(rs))).collect();
    for (rs, n) in &mut left {
        let broken = (*n - count(rs, "availableReplicas")).clamp(0, may_go);
        *n -= broken;
        may_go -= broken;
    }
    let available: i64 =
        old.iter().map(|rs| count(rs, "availableReplicas")).sum::<i64>() + count(new, "availableReplicas");
    // Statuses may lag behind the specs, so both counts must allow it.
    let mut may_go = (available - least).clamp(0, may_go);
    for (_, n) in &mut left {
        let go = (*n).min(may_go);
        *n -= go;
        may_go -= go;
    }
    for (rs, n) in left {
        scale(store, &rs, n, d)?;
    }
    Ok(())
}

fn clean_up(store: &Store, d: &Value, old: &[Arc<Value>]) -> Result<(), ApiError> {
    let keep = usize::try_from(i64_at(d, "spec.revisionHistoryLimit").unwrap_or(10)).unwrap_or(10);
    let idle: Vec<_> = old
        .iter()
        .filter(|rs| replicas(rs) == 0 && count(rs, "replicas") == 0 && !is_deleting(rs))
        .collect();
    for rs in idle.iter().take(idle.len().saturating_sub(keep)) {
        store.remove(replicaset::TABLE, rs, None)?;
    }
    Ok(())
}

fn status(store: &Store, key: &Key, d: &Value, owned: &[Arc<Value>]) -> Result<(), ApiError> {
    let text = template_text(d);
    let sum = |field: &str| -> i64 { owned.iter().map(|rs| count(rs, field)).sum() };
    let (total, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
    let current = owned.iter().find(|rs| template_text(rs) == text);
    let updated = current.map_or(0, |rs| count(rs, "replicas"));
    let want = replicas(d);
    let missing = resolve(at(d, "spec.strategy.rollingUpdate.maxUnavailable"), want, false);
    let enough = available >= want - missing;
    let complete = updated == want && total == want && available == want;
    let failure = owned
        .iter()
        .find_map(|rs| condition(rs, "ReplicaFailure").cloned());
    let generation = d["metadata"]["generation"].clone();
    write_status(store, TABLE, key, |live| {
        let mut s = json!({ "observedGeneration": generation });
        let counts = [
            ("replicas", total),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", (total.max(want) - available).max(0)),
        ];
        set_counts(
            &mut s,
            &counts.map(|(field, n)| (field, usize::try_from(n).unwrap_or(0))),
        );
        let (reason, message) = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        let conditions: Vec<Value> = list_at(live, "status.conditions")
            .iter()
            .filter(|c| str_at(c, "type") != Some("ReplicaFailure"))
            .cloned()
            .collect();
        let conditions = with_condition(&conditions, "Available", enough, reason, message);
        let name = current.map_or("", |rs| name_of(rs));
        let (reason, message) = if complete {
            (
                "NewReplicaSetAvailable",
                format!("ReplicaSet \"{name}\" has successfully progressed."),
            )
        } else {
            (
                "ReplicaSetUpdated",
                format!("ReplicaSet \"{name}\" is progressing."),
            )
        };
        // Scaling alone does not make a finished rollout unfinished.
        let finished = list_at(live, "status.conditions").iter().any(|c| {
            str_at(c, "type") == Some("Progressing") && str_at(c, "reason") == Some("NewReplicaSetAvailable")
        });
        let mut conditions = if finished && !complete && updated == total {
            conditions
        } else {
            with_condition(&conditions, "Progressing", true, reason, &message)
        };
        conditions.extend(failure);
        s["conditions"] = json!(conditions);
        s
    })
}
