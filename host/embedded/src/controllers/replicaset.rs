//! ReplicaSets: as many pods as asked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::controllers::{
    Controller, MANAGER, controlled, controller_key, is_active, keys, record_event, set_counts,
    until_available, with_condition, write_status,
};
use crate::core::Core;
use crate::error::ApiError;
use crate::faults::RequestInfo;
use crate::selector::LabelSelector;
use crate::store::{Event, Key, Part, Store};
use crate::value::{
    at, condition, controller_of, i64_at, is_deleting, is_ready, list_at, metadata, name_of, namespace_of,
    owned_by, str_at, string_map, uid_of, version_of,
};

pub(crate) const TABLE: &str = "replicasets.apps";

pub(crate) struct ReplicaSets;

/// A pod from the template of a workload.
pub(crate) fn pod_from(owner: &Value, kind: &str) -> Value {
    let template = at(owner, "spec.template").cloned().unwrap_or_else(|| json!({}));
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": template["spec"] });
    let m = metadata(&mut pod);
    for k in ["labels", "annotations", "finalizers"] {
        if let Some(v) = template.get("metadata").and_then(|t| t.get(k)) {
            m.insert(k.to_owned(), v.clone());
        }
    }
    m.insert(
        "ownerReferences".into(),
        json!([owned_by(owner, "apps/v1", kind)]),
    );
    pod
}

/// Creates a pod, unless an injected fault forbids it (quota).
pub(crate) fn create_pod(core: &Core, ns: &str, pod: Value) -> Result<Arc<Value>, ApiError> {
    let info = RequestInfo {
        verb: "create",
        resource: "pods".into(),
        namespace: ns.to_owned(),
        name: String::new(),
        user_agent: MANAGER.into(),
    };
    if let Some(fault) = core.faults.take(&info).filter(|fault| fault.status != 0) {
        return Err(fault.error());
    }
    core.store.add("pods", ns, pod)
}

pub(crate) fn delete_pod(core: &Core, pod: &Value) -> Result<(), ApiError> {
    core.store.remove("pods", pod, None)
}

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        keys(store, TABLE)
    }

    fn affected(&self, store: &Store, e: &Event) -> Vec<Key> {
        match e.table.as_str() {
            TABLE => vec![e.key.clone()],
            "pods" => {
                let mut out: Vec<Key> = controller_key(&e.object, "ReplicaSet").into_iter().collect();
                if controller_of(&e.object).is_none() {
                    // An orphan may be somebody's to adopt.
                    out.extend(
                        store
                            .all(TABLE, &e.key.0)
                            .iter()
                            .filter(|rs| LabelSelector::of_object(at(rs, "spec.selector")).matches(&e.object))
                            .map(|rs| (e.key.0.clone(), name_of(rs).to_owned())),
                    );
                }
                out
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, core: &Arc<Core>, key: &Key) -> Result<Option<Duration>, ApiError> {
        let store = &core.store;
        let Some(rs) = store.get(TABLE, &key.0, &key.1) else {
            return Ok(None);
        };
        let selector = LabelSelector::of_object(at(&rs, "spec.selector"));
        if !is_deleting(&rs) {
            adopt(store, &rs, &selector)?;
        }
        let mut pods: Vec<Arc<Value>> = controlled(store, "pods", &key.0, uid_of(&rs))
            .into_iter()
            .filter(|p| is_active(p))
            .collect();
        let want = usize::try_from(i64_at(&rs, "spec.replicas").unwrap_or(1)).unwrap_or(0);
        let mut failure = None;
        if !is_deleting(&rs) {
            if pods.len() < want {
                for _ in pods.len()..want {
                    let mut pod = pod_from(&rs, "ReplicaSet");
                    metadata(&mut pod).insert("generateName".into(), json!(format!("{}-", key.1)));
                    match create_pod(core, &key.0, pod) {
                        Ok(p) => pods.push(p),
                        Err(e) => {
                            let known = condition(&rs, "ReplicaFailure").is_some();
                            if !known {
                                let message = format!("Error creating: {}", e.message);
                                record_event(
                                    store,
                                    &rs,
                                    "replicaset-controller",
                                    "Warning",
                                    "FailedCreate",
                                    &message,
                                );
                            }
                            failure = Some(("FailedCreate", e.message));
                            break;
                        }
                    }
                }
            } else if pods.len() > want {
                // Those that matter least go first: unscheduled, pending, not ready, then the youngest.
                pods.sort_by_key(|p| {
                    let rank = if str_at(p, "spec.nodeName").is_none() {
                        0
                    } else if str_at(p, "status.phase") != Some("Running") {
                        1
                    } else if !is_ready(p) {
                        2
                    } else {
                        3
                    };
                    let age = str_at(p, "metadata.creationTimestamp").unwrap_or("").to_owned();
                    (rank, std::cmp::Reverse((age, version_of(p))))
                });
                let extra = pods.len() - want;
                for p in pods.drain(..extra) {
                    delete_pod(core, &p)?;
                }
            }
        }
        let min_ready = i64_at(&rs, "spec.minReadySeconds").unwrap_or(0);
        let waits: Vec<Duration> = pods
            .iter()
            .filter_map(|p| until_available(p, min_ready))
            .collect();
        let available = waits.iter().filter(|w| w.is_zero()).count();
        let again = waits.iter().filter(|w| !w.is_zero()).min().copied();
        let template_labels = LabelSelector::of_map(&string_map(at(&rs, "spec.template.metadata.labels")));
        let labelled = pods.iter().filter(|p| template_labels.matches(p)).count();
        let failed = failure.is_some();
        write_status(store, TABLE, key, |live| {
            let mut s =
                json!({ "replicas": pods.len(), "observedGeneration": live["metadata"]["generation"] });
            let counts = [
                ("fullyLabeledReplicas", labelled),
                ("readyReplicas", waits.len()),
                ("availableReplicas", available),
            ];
            set_counts(&mut s, &counts);
            if let Some((reason, message)) = &failure {
                s["conditions"] = json!(with_condition(
                    list_at(live, "status.conditions"),
                    "ReplicaFailure",
                    true,
                    reason,
                    message
                ));
            }
            s
        })?;
        if failed {
            return Ok(Some(Duration::from_millis(200)));
        }
        Ok(again)
    }
}

/// Takes pods in that nobody owns, and lets those go that the selector does not mean any more.
fn adopt(store: &Store, rs: &Value, selector: &LabelSelector) -> Result<(), ApiError> {
    let ns = namespace_of(rs);
    for pod in store.all("pods", ns) {
        let controller = controller_of(&pod).and_then(|c| str_at(c, "uid"));
        let matches = selector.matches(&pod);
        let wanted = controller.is_none() && matches && is_active(&pod);
        let unwanted = controller == Some(uid_of(rs)) && !matches;
        if !wanted && !unwanted {
            continue;
        }
        store.edit("pods", ns, name_of(&pod), Part::Main, |pod| {
            let list = metadata(pod)
                .entry("ownerReferences")
                .or_insert_with(|| json!([]));
            if let Some(owners) = list.as_array_mut() {
                owners.retain(|o| str_at(o, "uid") != Some(uid_of(rs)));
                if wanted {
                    owners.push(owned_by(rs, "apps/v1", "ReplicaSet"));
                }
            }
        })?;
    }
    Ok(())
}
