//! The objects, their versions and their history: everything that is true about the cluster, behind one mutex.
//!
//! One counter numbers every write. Each table keeps the last writes (a bounded number) for watches; whoever asks for
//! older ones is told `410 Gone`. No queue exists per watcher: a watch reads the history from where it stopped.

mod apply;
pub(crate) mod delete;
pub(crate) mod list;
mod prepare;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::addresses::Addresses;
use crate::error::ApiError;
use crate::resource::{self, EVENTS_GROUP, ResourceType};
use crate::value::{list_at, metadata, name_of, namespace_of, str_at, uid_of};

/// Namespace (empty for cluster-scoped objects) and name.
pub(crate) type Key = (String, String);

pub(crate) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but status (for kinds with the status subresource).
    Main,
    /// Only the status.
    Status,
    /// Anything, unvalidated: the cluster's own doing (binding a pod, garbage collection).
    Internal,
}

/// How a write is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub part: Part,
    pub version: &'a str,
    pub dry_run: bool,
    /// The managed fields are the writer's: server-side apply.
    pub applied: bool,
}

impl<'a> Write<'a> {
    /// A write of the cluster's own, or of a client that asks for nothing special.
    pub fn of(part: Part, version: &'a str) -> Self {
        Write {
            part,
            version,
            dry_run: false,
            applied: false,
        }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One write.
#[derive(Debug)]
pub(crate) struct Event {
    pub rv: u64,
    pub table: String,
    pub key: Key,
    pub kind: EventKind,
    /// The object as it is now; for deletions as it was, with the version of the deletion.
    pub object: Arc<Value>,
    pub previous: Option<Arc<Value>>,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub objects: BTreeMap<Key, Arc<Value>>,
    pub history: VecDeque<Arc<Event>>,
    /// Writes up to this version have left the history.
    pub floor: u64,
    signal: watch::Sender<u64>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub rv: u64,
    pub types: BTreeMap<String, Arc<ResourceType>>,
    pub tables: BTreeMap<String, Table>,
    uids: HashSet<String>,
    /// Objects that name a uid in an owner reference.
    dependents: HashMap<String, BTreeSet<(String, Key)>>,
    snapshots: VecDeque<list::Snapshot>,
    next_snapshot: u64,
}

/// The object store of one cluster.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Arc<Event>>,
    history: usize,
    pub addresses: Arc<Addresses>,
}

impl Store {
    /// `history`: writes kept per table for watches.
    pub fn new(history: usize, addresses: Arc<Addresses>) -> Self {
        let mut inner = Inner {
            // Not 0 or 1: clients treat 0 as "any version".
            rv: 10,
            types: BTreeMap::new(),
            tables: BTreeMap::new(),
            uids: HashSet::new(),
            dependents: HashMap::new(),
            snapshots: VecDeque::new(),
            next_snapshot: 1,
        };
        for rt in resource::builtins() {
            inner.register(rt);
        }
        let (events, _) = broadcast::channel(8192);
        Store {
            inner: Mutex::new(inner),
            events,
            history,
            addresses,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every write from now on. A subscriber that falls behind is told so and must look at everything again.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    pub fn version(&self) -> u64 {
        self.lock().rv
    }

    /// The kind behind a table id such as `deployments.apps`.
    pub fn kind(&self, id: &str) -> Option<Arc<ResourceType>> {
        self.lock().types.get(id).cloned()
    }

    pub fn kinds(&self) -> Vec<Arc<ResourceType>> {
        self.lock().types.values().cloned().collect()
    }

    /// The kind that serves a group, version and plural.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<Arc<ResourceType>> {
        let id = if group == EVENTS_GROUP && plural == "events" {
            "events".to_owned()
        } else {
            resource::table_id(group, plural)
        };
        self.kind(&id)
            .filter(|rt| rt.versions.iter().any(|v| v == version))
    }

    /// The kind that an object says it is, with the version it says.
    pub fn kind_of(&self, object: &Value) -> Option<(Arc<ResourceType>, String)> {
        let api_version = str_at(object, "apiVersion")?;
        let kind = str_at(object, "kind")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let group = if group == EVENTS_GROUP { "" } else { group };
        let rt = self
            .lock()
            .types
            .values()
            .find(|t| t.group == group && t.kind == kind)
            .cloned()?;
        Some((rt, version.to_owned()))
    }

    pub fn get(&self, table: &str, ns: &str, name: &str) -> Option<Arc<Value>> {
        self.lock()
            .tables
            .get(table)?
            .objects
            .get(&(ns.to_owned(), name.to_owned()))
            .cloned()
    }

    pub fn get_or_404(&self, rt: &ResourceType, ns: &str, name: &str) -> Result<Arc<Value>, ApiError> {
        self.get(&rt.id, ns, name)
            .ok_or_else(|| ApiError::not_found(rt, name))
    }

    /// Objects of a table in one namespace, or in all when `ns` is empty.
    pub fn all(&self, table: &str, ns: &str) -> Vec<Arc<Value>> {
        let inner = self.lock();
        let Some(t) = inner.tables.get(table) else {
            return Vec::new();
        };
        t.objects
            .iter()
            .filter(|(k, _)| ns.is_empty() || k.0 == ns)
            .map(|(_, o)| o.clone())
            .collect()
    }

    /// Objects whose owner references name `uid`.
    pub fn dependents(&self, uid: &str) -> Vec<(String, Key)> {
        self.lock()
            .dependents
            .get(uid)
            .map(|s| s.iter().cloned().collect())
            .unwrap_or_default()
    }

    pub fn uid_exists(&self, uid: &str) -> bool {
        self.lock().uids.contains(uid)
    }

    /// The versions of a table as they change. None when the table is gone.
    pub fn signal(&self, table: &str) -> Option<watch::Receiver<u64>> {
        self.lock().tables.get(table).map(|t| t.signal.subscribe())
    }

    /// Forgets the history of every table, as etcd's compaction does: watches from older versions get 410.
    pub fn compact(&self) {
        let mut inner = self.lock();
        let rv = inner.rv;
        for t in inner.tables.values_mut() {
            t.history.clear();
            t.floor = rv;
        }
        inner.snapshots.clear();
    }

    /// The writes to a table after `rv`, and the version up to which this is everything.
    pub fn events_after(&self, table: &str, rv: u64) -> Result<(Vec<Arc<Event>>, u64), ApiError> {
        let inner = self.lock();
        let t = inner.tables.get(table).ok_or_else(ApiError::no_such_path)?;
        if rv < t.floor {
            return Err(ApiError::expired(rv, t.floor));
        }
        let start = t.history.partition_point(|e| e.rv <= rv);
        Ok((t.history.range(start..).cloned().collect(), inner.rv))
    }

    /// Writes one change: gives it a version, tells watches and controllers. Returns the object as stored.
    pub(crate) fn commit(
        &self,
        inner: &mut Inner,
        rt: &ResourceType,
        old: Option<Arc<Value>>,
        mut object: Value,
        kind: EventKind,
    ) -> Arc<Value> {
        inner.rv += 1;
        let rv = inner.rv;
        metadata(&mut object).insert("resourceVersion".into(), json!(rv.to_string()));
        let object = Arc::new(object);
        let key: Key = (namespace_of(&object).to_owned(), name_of(&object).to_owned());
        inner.index(
            rt,
            &key,
            old.as_deref(),
            (kind != EventKind::Deleted).then_some(&*object),
        );
        let event = Arc::new(Event {
            rv,
            table: rt.id.clone(),
            key: key.clone(),
            kind,
            object: object.clone(),
            previous: old,
        });
        if let Some(t) = inner.tables.get_mut(&rt.id) {
            if kind == EventKind::Deleted {
                t.objects.remove(&key);
            } else {
                t.objects.insert(key, object.clone());
            }
            t.history.push_back(event.clone());
            while t.history.len() > self.history {
                if let Some(e) = t.history.pop_front() {
                    t.floor = e.rv;
                }
            }
            t.signal.send_replace(rv);
        }
        if rt.id == CRDS {
            inner.definition_changed(&object, kind);
        }
        // Nobody may be listening yet.
        let _ = self.events.send(event);
        object
    }
}

impl Inner {
    fn register(&mut self, rt: ResourceType) {
        let floor = self.rv;
        self.tables.entry(rt.id.clone()).or_insert_with(|| Table {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            floor,
            signal: watch::Sender::new(floor),
        });
        self.types.insert(rt.id.clone(), Arc::new(rt));
    }

    fn definition_changed(&mut self, crd: &Value, kind: EventKind) {
        let Ok(rt) = resource::from_crd(crd) else { return };
        if kind == EventKind::Deleted {
            self.types.remove(&rt.id);
            // Dropping the table's signal ends its watches.
            self.tables.remove(&rt.id);
        } else {
            self.register(rt);
        }
    }

    fn index(&mut self, rt: &ResourceType, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        let owners = |v: Option<&Value>| -> Vec<String> {
            v.map_or(&[][..], |v| list_at(v, "metadata.ownerReferences"))
                .iter()
                .filter_map(|o| str_at(o, "uid").map(str::to_owned))
                .collect()
        };
        let (before, after) = (owners(old), owners(new));
        for uid in before.iter().filter(|u| !after.contains(u)) {
            if let Some(set) = self.dependents.get_mut(uid) {
                set.remove(&(rt.id.clone(), key.clone()));
                if set.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
        for uid in after {
            self.dependents
                .entry(uid)
                .or_default()
                .insert((rt.id.clone(), key.clone()));
        }
        match (old, new) {
            (Some(o), None) => {
                self.uids.remove(uid_of(o));
            }
            (None, Some(n)) => {
                self.uids.insert(uid_of(n).to_owned());
            }
            _ => {}
        }
    }

    pub fn object(&self, rt: &ResourceType, key: &Key) -> Result<Arc<Value>, ApiError> {
        self.tables
            .get(&rt.id)
            .and_then(|t| t.objects.get(key))
            .cloned()
            .ok_or_else(|| ApiError::not_found(rt, &key.1))
    }
}
