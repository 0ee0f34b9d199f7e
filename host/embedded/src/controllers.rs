//! The controllers: each looks at the store, decides what is missing and writes it. They are driven by the store's
//! events; a controller that fell behind looks at everything again.

pub(crate) mod deployment;
pub(crate) mod garbage;
pub(crate) mod replicaset;
pub(crate) mod slices;
pub(crate) mod statefulset;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;
use tracing::debug;

use crate::core::Core;
use crate::error::ApiError;
use crate::store::{Event, Key, Part, Store};
use crate::value::{controller_of, list_at, name_of, namespace_of, now, set, str_at};

/// The client name of what controllers write, for faults.
pub(crate) const MANAGER: &str = "kube-controller-manager";

/// One controller: keys of work, and what to do for a key.
pub(crate) trait Controller: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// All keys, to begin with and after falling behind.
    fn all(&self, store: &Store) -> Vec<Key>;
    /// The keys that a write concerns.
    fn affected(&self, store: &Store, e: &Event) -> Vec<Key>;
    /// Brings one key closer to what it should be. Some(delay): look again later.
    fn reconcile(&self, core: &Arc<Core>, key: &Key) -> Result<Option<Duration>, ApiError>;
}

/// After an error, which here is a race or an injected fault.
const RETRY: Duration = Duration::from_millis(50);

pub(crate) async fn run(core: Arc<Core>, c: impl Controller) {
    let mut events = core.store.subscribe();
    let mut queue: BTreeSet<Key> = c.all(&core.store).into_iter().collect();
    let mut later: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        loop {
            match events.try_recv() {
                Ok(e) => queue.extend(c.affected(&core.store, &e)),
                Err(TryRecvError::Lagged(_)) => queue.extend(c.all(&core.store)),
                Err(_) => break,
            }
        }
        if let Some(key) = queue.pop_first() {
            later.remove(&key);
            let again = match c.reconcile(&core, &key) {
                Ok(again) => again,
                Err(e) => {
                    debug!(controller = c.name(), namespace = %key.0, name = %key.1, error = %e.message, "will try again");
                    Some(RETRY)
                }
            };
            if let Some(d) = again {
                later.insert(key, Instant::now() + d);
            }
            // Other tasks share the thread.
            tokio::task::yield_now().await;
            if core.shutdown.is_cancelled() {
                return;
            }
            continue;
        }
        let next = later
            .iter()
            .min_by_key(|(_, t)| **t)
            .map(|(k, t)| (k.clone(), *t));
        let at = next
            .as_ref()
            .map_or_else(|| Instant::now() + Duration::from_secs(3600), |(_, t)| *t);
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep_until(at), if next.is_some() => {
                if let Some((k, _)) = next {
                    later.remove(&k);
                    queue.insert(k);
                }
            }
            e = events.recv() => match e {
                Ok(e) => queue.extend(c.affected(&core.store, &e)),
                Err(RecvError::Lagged(_)) => queue.extend(c.all(&core.store)),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

pub(crate) fn keys(store: &Store, table: &str) -> Vec<Key> {
    store
        .all(table, "")
        .iter()
        .map(|o| (namespace_of(o).to_owned(), name_of(o).to_owned()))
        .collect()
}

/// The key of the controller of `o`, if it is of this kind.
pub(crate) fn controller_key(o: &Value, kind: &str) -> Option<Key> {
    let c = controller_of(o).filter(|c| str_at(c, "kind") == Some(kind))?;
    Some((namespace_of(o).to_owned(), str_at(c, "name")?.to_owned()))
}

/// Objects of a table in a namespace that `uid` controls.
pub(crate) fn controlled(store: &Store, table: &str, ns: &str, uid: &str) -> Vec<Arc<Value>> {
    store
        .dependents(uid)
        .into_iter()
        .filter(|(t, k)| t == table && k.0 == ns)
        .filter_map(|(t, k)| store.get(&t, &k.0, &k.1))
        .filter(|o| controller_of(o).and_then(|c| str_at(c, "uid")) == Some(uid))
        .collect()
}

/// Writes a status if it differs.
pub(crate) fn write_status(
    store: &Store,
    table: &str,
    key: &Key,
    make: impl FnOnce(&Value) -> Value,
) -> Result<(), ApiError> {
    store.edit(table, &key.0, &key.1, Part::Status, |live| {
        let status = make(live);
        set(live, "status", status);
    })
}

/// Adds the numbers that are not zero, as Go's omitempty does it.
pub(crate) fn set_counts(status: &mut Value, counts: &[(&str, usize)]) {
    for (field, n) in counts.iter().filter(|(_, n)| *n > 0) {
        status[*field] = json!(n);
    }
}

/// Conditions with one set, keeping the transition time while its status stays.
pub(crate) fn with_condition(
    conditions: &[Value],
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
) -> Vec<Value> {
    let status = if status { "True" } else { "False" };
    let mut out: Vec<Value> = conditions.to_vec();
    let found = out.iter_mut().find(|c| str_at(c, "type") == Some(kind));
    match found {
        Some(c) => {
            if str_at(c, "status") != Some(status) {
                c["lastTransitionTime"] = json!(now());
                c["lastUpdateTime"] = json!(now());
            } else if str_at(c, "reason") != Some(reason) {
                c["lastUpdateTime"] = json!(now());
            }
            c["status"] = json!(status);
            c["reason"] = json!(reason);
            c["message"] = json!(message);
        }
        None => out.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now(), "lastUpdateTime": now(),
        })),
    }
    out
}

/// An Event about an object, as the component that writes it would.
pub(crate) fn record_event(
    store: &Store,
    about: &Value,
    component: &str,
    kind: &str,
    reason: &str,
    message: &str,
) {
    let ns = namespace_of(about);
    let name = format!("{}.{:016x}", name_of(about), rand::random::<u64>());
    let event = json!({
        "metadata": { "name": name },
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": ns,
            "name": name_of(about),
            "uid": about["metadata"]["uid"],
            "resourceVersion": about["metadata"]["resourceVersion"],
        },
        "reason": reason,
        "message": message,
        "type": kind,
        "source": { "component": component },
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
    });
    if let Err(e) = store.add("events", ns, event) {
        debug!(error = %e.message, reason, "event not written");
    }
}

/// Whether a pod still counts: neither finished nor on its way out.
pub(crate) fn is_active(pod: &Value) -> bool {
    !crate::value::is_deleting(pod) && !matches!(str_at(pod, "status.phase"), Some("Succeeded" | "Failed"))
}

/// How long until `pod` has been ready for `seconds`; None when it is not ready, zero when it has.
pub(crate) fn until_available(pod: &Value, seconds: i64) -> Option<Duration> {
    let c = list_at(pod, "status.conditions")
        .iter()
        .find(|c| str_at(c, "type") == Some("Ready"))?;
    if str_at(c, "status") != Some("True") {
        return None;
    }
    if seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let since: jiff::Timestamp = str_at(c, "lastTransitionTime")?.parse().ok()?;
    let due = since + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some(Duration::try_from(due.duration_since(jiff::Timestamp::now())).unwrap_or(Duration::ZERO))
}
