//! StatefulSets: pods with stable names, started in order and stopped in reverse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::controllers::replicaset::{create_pod, delete_pod, pod_from};
use crate::controllers::{
    Controller, controlled, controller_key, is_active, keys, record_event, set_counts, until_available,
    write_status,
};
use crate::core::Core;
use crate::error::ApiError;
use crate::store::{Event, Key, Store};
use crate::value::{
    at, child, i64_at, is_deleting, is_ready, label, metadata, name_of, namespace_of, set, short_hash,
    str_at, uid_of,
};

pub(crate) const TABLE: &str = "statefulsets.apps";
const REVISION: &str = "controller-revision-hash";

pub(crate) struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        keys(store, TABLE)
    }

    fn affected(&self, _: &Store, e: &Event) -> Vec<Key> {
        match e.table.as_str() {
            TABLE => vec![e.key.clone()],
            "pods" => controller_key(&e.object, "StatefulSet").into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, core: &Arc<Core>, key: &Key) -> Result<Option<Duration>, ApiError> {
        let store = &core.store;
        let Some(set_) = store.get(TABLE, &key.0, &key.1) else {
            return Ok(None);
        };
        let revision = format!("{}-{}", key.1, short_hash(&set_["spec"]["template"]));
        let want = i64_at(&set_, "spec.replicas").unwrap_or(1);
        let first = i64_at(&set_, "spec.ordinals.start").unwrap_or(0);
        let min_ready = i64_at(&set_, "spec.minReadySeconds").unwrap_or(0);
        let mut pods: BTreeMap<i64, Arc<Value>> = BTreeMap::new();
        for p in controlled(store, "pods", &key.0, uid_of(&set_)) {
            if let Some(n) = name_of(&p).rsplit('-').next().and_then(|n| n.parse().ok()) {
                pods.insert(n, p);
            }
        }
        let mut again = None;
        if !is_deleting(&set_) {
            let ordered = str_at(&set_, "spec.podManagementPolicy") != Some("Parallel");
            match act(core, &set_, &mut pods, first..first + want, ordered, &revision) {
                Ok(()) => {}
                Err(e) => {
                    record_event(
                        store,
                        &set_,
                        "statefulset-controller",
                        "Warning",
                        "FailedCreate",
                        &e.message,
                    );
                    again = Some(Duration::from_millis(200));
                }
            }
        }
        let live: Vec<&Arc<Value>> = pods.values().filter(|p| is_active(p)).collect();
        let waits: Vec<Duration> = live
            .iter()
            .filter_map(|p| until_available(p, min_ready))
            .collect();
        let updated = live
            .iter()
            .filter(|p| label(p, REVISION) == Some(&revision))
            .count();
        let available = waits.iter().filter(|w| w.is_zero()).count();
        let generation = set_["metadata"]["generation"].clone();
        write_status(store, TABLE, key, |old| {
            let settled = updated == live.len();
            let current = if settled {
                revision.clone()
            } else {
                str_at(old, "status.currentRevision")
                    .unwrap_or(&revision)
                    .to_owned()
            };
            let on_current = live
                .iter()
                .filter(|p| label(p, REVISION) == Some(&current))
                .count();
            let mut s = json!({
                "observedGeneration": generation,
                "replicas": live.len(),
                "availableReplicas": available,
                "currentRevision": current,
                "updateRevision": revision,
                "collisionCount": 0,
            });
            let counts = [
                ("readyReplicas", waits.len()),
                ("currentReplicas", on_current),
                ("updatedReplicas", updated),
            ];
            set_counts(&mut s, &counts);
            s
        })?;
        Ok(again.or(waits.into_iter().filter(|w| !w.is_zero()).min()))
    }
}

fn act(
    core: &Core,
    set_: &Value,
    pods: &mut BTreeMap<i64, Arc<Value>>,
    range: std::ops::Range<i64>,
    ordered: bool,
    revision: &str,
) -> Result<(), ApiError> {
    let ns = namespace_of(set_);
    for n in range.clone() {
        match pods.get(&n) {
            None => {
                let p = create_pod(core, ns, make(set_, n, revision))?;
                pods.insert(n, p);
                if ordered {
                    return Ok(());
                }
            }
            Some(p)
                if matches!(str_at(p, "status.phase"), Some("Failed" | "Succeeded")) && !is_deleting(p) =>
            {
                delete_pod(core, p)?;
                if ordered {
                    return Ok(());
                }
            }
            // The next one starts when this one is ready, and a terminating one is replaced when it is gone.
            Some(p) if ordered && (is_deleting(p) || !is_ready(p)) => return Ok(()),
            Some(_) => {}
        }
    }
    let extra: Vec<(i64, Arc<Value>)> = pods
        .iter()
        .rev()
        .filter(|(n, _)| !range.contains(n))
        .map(|(n, p)| (*n, p.clone()))
        .collect();
    for (_, p) in &extra {
        if !is_deleting(p) {
            delete_pod(core, p)?;
        }
        if ordered {
            return Ok(());
        }
    }
    if str_at(set_, "spec.updateStrategy.type") == Some("OnDelete") {
        return Ok(());
    }
    let partition = i64_at(set_, "spec.updateStrategy.rollingUpdate.partition").unwrap_or(0);
    // From the highest number down, one at a time, each ready before the next.
    for n in range.rev().filter(|n| *n >= partition) {
        match pods.get(&n) {
            Some(p) if label(p, REVISION) != Some(revision) && !is_deleting(p) => return delete_pod(core, p),
            Some(p) if is_deleting(p) || !is_ready(p) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

fn make(set_: &Value, n: i64, revision: &str) -> Value {
    let mut pod = pod_from(set_, "StatefulSet");
    let name = format!("{}-{n}", name_of(set_));
    let m = metadata(&mut pod);
    m.insert("name".into(), json!(name));
    let labels = child(m, "labels");
    labels.insert("statefulset.kubernetes.io/pod-name".into(), json!(name));
    labels.insert("apps.kubernetes.io/pod-index".into(), json!(n.to_string()));
    labels.insert(REVISION.into(), json!(revision));
    set(&mut pod, "spec.hostname", json!(name));
    if let Some(s) = at(set_, "spec.serviceName") {
        set(&mut pod, "spec.subdomain", s.clone());
    }
    pod
}
