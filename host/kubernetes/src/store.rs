//! Reflector stores, indexed by namespace, that tell what changed.
//!
//! kube's own store answers every question by walking all objects. With thousands of pods and Sleepers that would make
//! each change cost the whole cluster, so this one keeps namespaces apart.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::Outages;
use crate::metrics::Metrics;

/// Kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangedKind {
    /// A Sleeper.
    Sleeper,
    /// A Service.
    Service,
    /// An EndpointSlice; the name is that of its Service.
    EndpointSlice,
    /// A pod.
    Pod,
    /// An Ingress.
    Ingress,
}

impl ChangedKind {
    /// Plural name, as in RBAC rules and metric labels.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Sleeper => "sleepers.dormouse.dev",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Pod => "pods",
            Self::Ingress => "ingresses.networking.k8s.io",
        }
    }
}

/// One object that changed, appeared or went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// What it is.
    pub kind: ChangedKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name; for an EndpointSlice, the name of its Service.
    pub name: String,
    /// For a pod: its labels, so that a pod that is gone still finds the Services that selected it.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
}

/// What a kind must offer to be kept in a [`Store`].
pub(crate) trait Kept:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Which kind.
    const KIND: ChangedKind;
    /// Drops what nobody reads, so that ten thousand objects stay small.
    fn prune(&mut self);
    /// Whether two versions say the same to us.
    fn same(&self, other: &Self) -> bool;
    /// What to tell about a change.
    fn change(&self) -> Change {
        Change {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            labels: None,
        }
    }
}

type Names<K> = HashMap<String, Arc<K>>;

/// Objects by namespace and name.
pub(crate) struct Store<K> {
    objects: RwLock<HashMap<String, Names<K>>>,
    synced: watch::Sender<bool>,
    last_error: Mutex<Option<String>>,
}

impl<K: Kept> Store<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: RwLock::default(),
            synced: watch::Sender::new(false),
            last_error: Mutex::default(),
        })
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(namespace)?.get(name).cloned()
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read()
            .get(namespace)
            .map(|names| names.values().cloned().collect())
            .unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read()
            .values()
            .flat_map(|names| names.values().cloned())
            .collect()
    }

    pub(crate) fn synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(crate) async fn wait_synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Names<K>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Names<K>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an object in. The answer is what was there before.
    fn put(&self, object: K) -> (Option<Arc<K>>, Arc<K>) {
        let object = Arc::new(object);
        let mut objects = self.write();
        let names = objects.entry(object.namespace().unwrap_or_default()).or_default();
        (names.insert(object.name_any(), Arc::clone(&object)), object)
    }

    fn remove(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let mut objects = self.write();
        let names = objects.get_mut(namespace)?;
        let gone = names.remove(name);
        if names.is_empty() {
            objects.remove(namespace);
        }
        gone
    }
}

/// Told of every change: what was there, what is there now.
pub(crate) type Hook<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// Where changes are told.
#[derive(Clone)]
pub(crate) struct Signals {
    pub(crate) revision: watch::Sender<u64>,
    pub(crate) changes: broadcast::Sender<Change>,
}

impl Signals {
    fn tell(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
        self.revision.send_modify(|revision| *revision += 1);
    }
}

/// First pause after an error of a watch.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause, before jitter that may double it. kube's own goes up to a minute, after an API server that was
/// restarted for instance, and for so long a DLX would not know what fell asleep. There are few of us.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

pub(crate) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
}

/// Keeps a store up to date until it is cancelled. Errors of the watch are retried, with growing pauses.
pub(crate) async fn reflect<K: Kept>(
    api: Api<K>,
    store: Arc<Store<K>>,
    signals: Signals,
    hook: Hook<K>,
    metrics: Metrics,
    outages: Outages,
    cancel: CancellationToken,
) {
    let pauses = ExponentialBackoff::from(pauses());
    let stream = watch_kind(api, watcher::Config::default()).backoff(pauses);
    let mut stream = std::pin::pin!(stream);
    let mut fresh: Option<HashMap<(String, String), K>> = None;
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return,
            event = stream.next() => event,
        };
        let Some(event) = event else { return };
        match event {
            Err(error) => {
                metrics.watch_error(K::KIND);
                outages.failed(&error, Timestamp::now());
                tracing::warn!(kind = K::KIND.plural(), %error, "watch failed, trying again");
                *store.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
            Ok(event) => apply(event, &store, &mut fresh, &signals, &hook),
        }
    }
}

fn apply<K: Kept>(
    event: Event<K>,
    store: &Store<K>,
    fresh: &mut Option<HashMap<(String, String), K>>,
    signals: &Signals,
    hook: &Hook<K>,
) {
    let put = |mut object: K| {
        object.prune();
        let (old, new) = store.put(object);
        hook(old.as_ref(), Some(&new));
        if old.as_ref().is_none_or(|old| !old.same(&new)) {
            signals.tell(new.change());
        }
    };
    let remove = |namespace: &str, name: &str| {
        if let Some(old) = store.remove(namespace, name) {
            hook(Some(&old), None);
            signals.tell(old.change());
        }
    };
    match event {
        Event::Init => *fresh = Some(HashMap::new()),
        Event::InitApply(object) => {
            let key = (object.namespace().unwrap_or_default(), object.name_any());
            fresh.get_or_insert_default().insert(key, object);
        }
        Event::InitDone => {
            let listed = fresh.take().unwrap_or_default();
            let gone: Vec<_> = store
                .all()
                .iter()
                .map(|object| (object.namespace().unwrap_or_default(), object.name_any()))
                .filter(|key| !listed.contains_key(key))
                .collect();
            for (namespace, name) in gone {
                remove(&namespace, &name);
            }
            listed.into_values().for_each(put);
            store.synced.send_replace(true);
            signals.revision.send_modify(|revision| *revision += 1);
        }
        Event::Apply(object) => put(object),
        Event::Delete(object) => remove(&object.namespace().unwrap_or_default(), &object.name_any()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backon::BackoffBuilder;
    use k8s_openapi::api::core::v1::Service;

    fn service(namespace: &str, name: &str, version: &str, port: i32) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
            "spec": {"ports": [{"port": port}]},
        }))
        .unwrap()
    }

    struct Fixture {
        store: Arc<Store<Service>>,
        fresh: Option<HashMap<(String, String), Service>>,
        signals: Signals,
        told: broadcast::Receiver<Change>,
    }

    impl Fixture {
        fn new() -> Self {
            let (changes, told) = broadcast::channel(64);
            let signals = Signals {
                revision: watch::Sender::new(0),
                changes,
            };
            Self {
                store: Store::new(),
                fresh: None,
                signals,
                told,
            }
        }

        fn apply(&mut self, event: Event<Service>) -> Vec<String> {
            let hook: Hook<Service> = Box::new(|_, _| {});
            apply(event, &self.store, &mut self.fresh, &self.signals, &hook);
            std::iter::from_fn(|| self.told.try_recv().ok())
                .map(|change| change.name)
                .collect()
        }
    }

    #[test]
    fn a_relist_tells_what_went_and_what_changed_and_nothing_else() {
        let mut fixture = Fixture::new();
        fixture.apply(Event::Init);
        for name in ["same", "changes", "goes"] {
            assert!(
                fixture
                    .apply(Event::InitApply(service("a", name, "1", 80)))
                    .is_empty()
            );
        }
        assert!(!fixture.store.synced());
        fixture.apply(Event::InitDone);
        assert!(fixture.store.synced());
        fixture.apply(Event::Init);
        fixture.apply(Event::InitApply(service("a", "same", "2", 80)));
        fixture.apply(Event::InitApply(service("a", "changes", "2", 81)));
        assert_eq!(
            fixture.store.in_namespace("a").len(),
            3,
            "the old list stands until the new one is complete"
        );
        let mut told = fixture.apply(Event::InitDone);
        told.sort();
        assert_eq!(told, ["changes", "goes"]);
        assert!(fixture.store.get("a", "goes").is_none());
        let version = fixture.store.get("a", "same").and_then(|s| s.resource_version());
        assert_eq!(version.as_deref(), Some("2"));
    }

    #[test]
    fn a_watch_is_never_away_for_long() {
        let pauses: Vec<_> = pauses().build().take(50).collect();
        assert_eq!(pauses.len(), 50, "it is never given up");
        assert!(pauses[0] < FIRST_PAUSE * 2, "{pauses:?}");
        assert!(
            pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 2),
            "{pauses:?}"
        );
        assert!(pauses[49] >= LONGEST_PAUSE, "{pauses:?}");
    }

    #[test]
    fn one_name_in_two_namespaces_is_two_objects() {
        let mut fixture = Fixture::new();
        fixture.apply(Event::Apply(service("a", "web", "1", 80)));
        fixture.apply(Event::Apply(service("b", "web", "1", 81)));
        fixture.apply(Event::Delete(service("a", "web", "2", 80)));
        assert!(fixture.store.get("a", "web").is_none());
        assert!(fixture.store.get("b", "web").is_some());
        assert_eq!(fixture.store.all().len(), 1);
    }
}
