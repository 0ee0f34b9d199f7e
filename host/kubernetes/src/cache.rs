//! Reflector caches: objects by namespace and name, with indexes, that tell what changed.
//!
//! kube's own store answers every question by walking all objects. With thousands of pods each change would cost the whole
//! cluster, so this one keeps namespaces apart, and an index finds objects by what its kind says ([`Cached::index`]).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
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

use crate::metrics::Metrics;
use crate::outage::Outages;

/// How many changes a listener may lag behind before it has to look at everything.
const CHANGE_BACKLOG: usize = 4096;

/// A kind that is watched, by the plural name of its resource, as in RBAC rules and metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchedKind(&'static str);

impl WatchedKind {
    /// A Service.
    pub const SERVICE: Self = Self("services");
    /// An EndpointSlice; the name in a [`Change`] is that of its Service.
    pub const ENDPOINT_SLICE: Self = Self("endpointslices.discovery.k8s.io");
    /// A pod.
    pub const POD: Self = Self("pods");
    /// An Ingress.
    pub const INGRESS: Self = Self("ingresses.networking.k8s.io");
    /// A HorizontalPodAutoscaler; the name in a [`Change`] is that of its target.
    pub const HORIZONTAL_POD_AUTOSCALER: Self = Self("horizontalpodautoscalers.autoscaling");

    /// Another kind.
    pub const fn of(plural: &'static str) -> Self {
        Self(plural)
    }

    /// Plural name, as in RBAC rules and metric labels.
    pub fn plural(self) -> &'static str {
        self.0
    }
}

/// One object that changed, appeared or went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// What it is.
    pub kind: WatchedKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name; for an EndpointSlice, the name of its Service.
    pub name: String,
    /// For a pod: its labels, so that a pod that is gone still finds the Services that selected it.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
}

/// By what an object can be found beside its name: a hash, so that ten thousand objects with many labels stay small. Who asks
/// compares once more, since two things may have the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexKey(u64);

impl IndexKey {
    /// The key of anything that can be hashed, such as a word that says by what, a namespace and a value.
    pub fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Objects of a namespace that carry a label.
    pub fn label(namespace: &str, key: &str, value: &str) -> Self {
        Self::of(("label", namespace, key, value))
    }
}

/// What a kind must offer to be kept in a [`Cache`].
pub trait Cached:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Which kind.
    const KIND: WatchedKind;
    /// Drops what nobody reads, so that ten thousand objects stay small.
    fn prune(&mut self);
    /// Whether two versions say the same to us.
    fn same(&self, other: &Self) -> bool;
    /// By what it can be found beside its name.
    fn index(&self) -> Vec<IndexKey> {
        Vec::new()
    }
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

/// The keys of all labels of an object.
pub(crate) fn label_keys(object: &impl ResourceExt) -> Vec<IndexKey> {
    let namespace = object.namespace().unwrap_or_default();
    let labels = object.labels().iter();
    labels
        .map(|(key, value)| IndexKey::label(&namespace, key, value))
        .collect()
}

type Names<K> = HashMap<String, Arc<K>>;
/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

struct Objects<K> {
    by_name: HashMap<String, Names<K>>,
    indexed: HashMap<IndexKey, BTreeSet<Name>>,
}

/// Objects of one kind.
pub struct Cache<K> {
    objects: RwLock<Objects<K>>,
    synced: watch::Sender<bool>,
    last_error: Mutex<Option<String>>,
}

impl<K: Cached> Cache<K> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: RwLock::new(Objects {
                by_name: HashMap::new(),
                indexed: HashMap::new(),
            }),
            synced: watch::Sender::new(false),
            last_error: Mutex::default(),
        })
    }

    /// An object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().by_name.get(namespace)?.get(name).cloned()
    }

    /// All objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read()
            .by_name
            .get(namespace)
            .map(|names| names.values().cloned().collect())
            .unwrap_or_default()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read()
            .by_name
            .values()
            .flat_map(|names| names.values().cloned())
            .collect()
    }

    /// Objects with this key, ordered by namespace and name. Compare once more: two things may have the same key.
    pub fn with(&self, key: IndexKey) -> Vec<Arc<K>> {
        let objects = self.read();
        let names = objects.indexed.get(&key).into_iter().flatten();
        names
            .filter_map(|(namespace, name)| objects.by_name.get(&**namespace)?.get(&**name).cloned())
            .collect()
    }

    /// Objects of a namespace that carry all these labels, for kinds that index theirs. An empty selector selects nothing, as in
    /// Services.
    pub fn selected(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Arc<K>> {
        let objects = self.read();
        let posting =
            |(key, value): (&String, &String)| objects.indexed.get(&IndexKey::label(namespace, key, value));
        let mut shortest: Option<&BTreeSet<Name>> = None;
        for pair in selector {
            match posting(pair) {
                None => return Vec::new(),
                Some(names) if shortest.is_none_or(|known| names.len() < known.len()) => {
                    shortest = Some(names)
                }
                Some(_) => {}
            }
        }
        let Some(names) = objects.by_name.get(namespace) else {
            return Vec::new();
        };
        shortest
            .into_iter()
            .flatten()
            .filter_map(|(_, name)| names.get(&**name))
            .filter(|object| crate::services::selects(selector, object.labels()))
            .cloned()
            .collect()
    }

    /// Whether the first list is there.
    pub fn synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits for the first list.
    pub async fn wait_synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// What last went wrong with the watch.
    pub fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Objects<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Objects<K>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a list of a namespace that was read by other means, for a kind that may not be watched.
    pub fn replace_namespace(&self, namespace: &str, objects: Vec<K>) {
        let known = self.in_namespace(namespace);
        let stays = |old: &Arc<K>| objects.iter().any(|new| new.name_any() == old.name_any());
        for gone in known.iter().filter(|old| !stays(old)) {
            self.remove(namespace, &gone.name_any());
        }
        for object in objects {
            self.put(pruned(object));
        }
    }

    /// Puts an object in. The answer is what was there before.
    fn put(&self, object: Arc<K>) -> (Option<Arc<K>>, Arc<K>) {
        let mut objects = self.write();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let names = objects.by_name.entry(namespace.clone()).or_default();
        let old = names.insert(name.clone(), Arc::clone(&object));
        let before: BTreeSet<_> = old.iter().flat_map(|old| old.index()).collect();
        let after: BTreeSet<_> = object.index().into_iter().collect();
        if before != after {
            let name: Name = (namespace.into(), name.into());
            objects.unindex(before.difference(&after), &name);
            for key in after.difference(&before) {
                objects.indexed.entry(*key).or_default().insert(name.clone());
            }
        }
        (old, object)
    }

    fn remove(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let mut objects = self.write();
        let names = objects.by_name.get_mut(namespace)?;
        let gone = names.remove(name);
        if names.is_empty() {
            objects.by_name.remove(namespace);
        }
        if let Some(gone) = &gone {
            objects.unindex(gone.index().iter(), &(namespace.into(), name.into()));
        }
        gone
    }
}

impl<K> Objects<K> {
    fn unindex<'a>(&mut self, keys: impl Iterator<Item = &'a IndexKey>, name: &Name) {
        for key in keys {
            if let Some(names) = self.indexed.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    self.indexed.remove(key);
                }
            }
        }
    }
}

/// What is kept of an object.
fn pruned<K: Cached>(mut object: K) -> Arc<K> {
    object.prune();
    Arc::new(object)
}

/// Told of every change: what was there, what is there now.
pub type Hook<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// Where changes are told.
#[derive(Clone)]
pub struct Signals {
    revision: watch::Sender<u64>,
    changes: broadcast::Sender<Change>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            revision: watch::Sender::new(0),
            changes: broadcast::channel(CHANGE_BACKLOG).0,
        }
    }
}

impl Signals {
    /// A number that rises with every change.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Every single change. A receiver that lags must look at everything.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn tell(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
        self.revision.send_modify(|revision| *revision += 1);
    }
}

/// What it means that a kind may not be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forbidden {
    IsAnError,
    IsFine,
}

/// Starts reflectors that tell the same listeners, and end together.
#[derive(Clone)]
pub struct Reflectors {
    /// Where changes are told.
    pub signals: Signals,
    /// Counts watches that failed.
    pub metrics: Metrics,
    /// Remembers when the API server was away.
    pub outages: Outages,
    /// Ends them.
    pub cancel: CancellationToken,
}

impl Reflectors {
    /// Starts one.
    pub fn start<K: Cached>(&self, api: Api<K>) -> Arc<Cache<K>> {
        self.start_with(api, Box::new(|_, _| {}))
    }

    /// Starts one of a kind that may be forbidden: then it is tried again now and then, and told once.
    pub fn start_optional<K: Cached>(&self, api: Api<K>) -> Arc<Cache<K>> {
        self.spawn(api, Box::new(|_, _| {}), Forbidden::IsFine)
    }

    /// Starts one that also tells a hook.
    pub fn start_with<K: Cached>(&self, api: Api<K>, hook: Hook<K>) -> Arc<Cache<K>> {
        self.spawn(api, hook, Forbidden::IsAnError)
    }

    fn spawn<K: Cached>(&self, api: Api<K>, hook: Hook<K>, forbidden: Forbidden) -> Arc<Cache<K>> {
        let cache = Cache::new();
        tokio::spawn(reflect(api, Arc::clone(&cache), self.clone(), hook, forbidden));
        cache
    }
}

/// First pause after an error of a watch.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause, before jitter that may double it. kube's own goes up to a minute, after an API server that was
/// restarted for instance, and for so long a DLX would not know what fell asleep. There are few of us.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// A watch that is forbidden, and need not be there, is tried again after this time: a role may be mended.
pub(crate) const FORBIDDEN: Duration = Duration::from_secs(10 * 60);

/// Whether the API server does not let us watch.
pub(crate) fn is_forbidden(error: &watcher::Error) -> bool {
    let refused = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.is_forbidden());
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => refused(error),
        watcher::Error::WatchError(status) => status.is_forbidden(),
        watcher::Error::NoResourceVersion => false,
    }
}

pub(crate) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
}

/// Keeps a store up to date until it is cancelled. Errors of the watch are retried, with growing pauses.
async fn reflect<K: Cached>(
    api: Api<K>,
    cache: Arc<Cache<K>>,
    with: Reflectors,
    hook: Hook<K>,
    forbidden: Forbidden,
) {
    let pauses = ExponentialBackoff::from(pauses());
    let stream = watch_kind(api, watcher::Config::default()).backoff(pauses);
    let mut stream = std::pin::pin!(stream);
    let mut fresh = None;
    let mut told = false;
    loop {
        let event = tokio::select! {
            () = with.cancel.cancelled() => return,
            event = stream.next() => event,
        };
        let Some(event) = event else { return };
        match event {
            Err(error) if forbidden == Forbidden::IsFine && is_forbidden(&error) => {
                if !std::mem::replace(&mut told, true) {
                    let kind = K::KIND.plural();
                    tracing::info!(
                        kind,
                        "may not be watched, so they are listed when they are needed; allow `watch` beside `list`"
                    );
                }
                if with
                    .cancel
                    .run_until_cancelled(tokio::time::sleep(FORBIDDEN))
                    .await
                    .is_none()
                {
                    return;
                }
            }
            Err(error) => {
                with.metrics.watch_error(K::KIND.plural());
                with.outages.failed(&error, Timestamp::now());
                tracing::warn!(kind = K::KIND.plural(), %error, "watch failed, trying again");
                *cache.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
            Ok(event) => apply(event, &cache, &mut fresh, &with.signals, &hook),
        }
    }
}

/// What a list has told so far, by namespace and name.
type Fresh<K> = HashMap<(String, String), Arc<K>>;

fn apply<K: Cached>(
    event: Event<K>,
    cache: &Cache<K>,
    fresh: &mut Option<Fresh<K>>,
    signals: &Signals,
    hook: &Hook<K>,
) {
    let put = |object: Arc<K>| {
        let (old, new) = cache.put(object);
        hook(old.as_ref(), Some(&new));
        if old.as_ref().is_none_or(|old| !old.same(&new)) {
            signals.tell(new.change());
        }
    };
    let remove = |namespace: &str, name: &str| {
        if let Some(old) = cache.remove(namespace, name) {
            hook(Some(&old), None);
            signals.tell(old.change());
        }
    };
    match event {
        Event::Init => *fresh = Some(HashMap::new()),
        Event::InitApply(object) => {
            let key = (object.namespace().unwrap_or_default(), object.name_any());
            // Page by page: ten thousand whole objects are several hundred megabytes, and what is kept of them would hold on to all of it.
            fresh.get_or_insert_default().insert(key, pruned(object));
        }
        Event::InitDone => {
            let listed = fresh.take().unwrap_or_default();
            let gone: Vec<_> = cache
                .all()
                .iter()
                .map(|object| (object.namespace().unwrap_or_default(), object.name_any()))
                .filter(|key| !listed.contains_key(key))
                .collect();
            for (namespace, name) in gone {
                remove(&namespace, &name);
            }
            listed.into_values().for_each(put);
            cache.synced.send_replace(true);
            signals.revision.send_modify(|revision| *revision += 1);
        }
        Event::Apply(object) => put(pruned(object)),
        Event::Delete(object) => remove(&object.namespace().unwrap_or_default(), &object.name_any()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backon::BackoffBuilder;
    use k8s_openapi::api::core::v1::{Pod, Service};

    fn service(namespace: &str, name: &str, version: &str, port: i32) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
            "spec": {"ports": [{"port": port}]},
        }))
        .unwrap()
    }

    struct Fixture {
        cache: Arc<Cache<Service>>,
        fresh: Option<Fresh<Service>>,
        signals: Signals,
        told: broadcast::Receiver<Change>,
    }

    impl Fixture {
        fn new() -> Self {
            let signals = Signals::default();
            let told = signals.changes();
            Self {
                cache: Cache::new(),
                fresh: None,
                signals,
                told,
            }
        }

        fn apply(&mut self, event: Event<Service>) -> Vec<String> {
            let hook: Hook<Service> = Box::new(|_, _| {});
            apply(event, &self.cache, &mut self.fresh, &self.signals, &hook);
            std::iter::from_fn(|| self.told.try_recv().ok())
                .map(|change| change.name)
                .collect()
        }
    }

    #[test]
    fn a_list_under_way_holds_nothing_that_nobody_reads() {
        let mut fixture = Fixture::new();
        fixture.apply(Event::Init);
        let mut whole = service("shop", "web", "1", 80);
        whole.metadata.managed_fields = Some(vec![Default::default()]);
        whole.status = Some(Default::default());
        fixture.apply(Event::InitApply(whole));
        let mut listed = fixture.fresh.iter().flatten().map(|(_, object)| object);
        let kept = listed.next().unwrap();
        assert_eq!((&kept.metadata.managed_fields, &kept.status), (&None, &None));
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
        assert!(!fixture.cache.synced());
        fixture.apply(Event::InitDone);
        assert!(fixture.cache.synced());
        fixture.apply(Event::Init);
        fixture.apply(Event::InitApply(service("a", "same", "2", 80)));
        fixture.apply(Event::InitApply(service("a", "changes", "2", 81)));
        assert_eq!(
            fixture.cache.in_namespace("a").len(),
            3,
            "the old list stands until the new one is complete"
        );
        let mut told = fixture.apply(Event::InitDone);
        told.sort();
        assert_eq!(told, ["changes", "goes"]);
        assert!(fixture.cache.get("a", "goes").is_none());
        let version = fixture.cache.get("a", "same").and_then(|s| s.resource_version());
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
        assert!(fixture.cache.get("a", "web").is_none());
        assert!(fixture.cache.get("b", "web").is_some());
        assert_eq!(fixture.cache.all().len(), 1);
    }

    fn pod(name: &str, app: &str, tier: &str) -> Pod {
        let labels = serde_json::json!({"app": app, "tier": tier});
        serde_json::from_value(
            serde_json::json!({"metadata": {"namespace": "a", "name": name, "labels": labels}}),
        )
        .unwrap()
    }

    fn names(found: &[Arc<Pod>]) -> Vec<String> {
        let mut names: Vec<_> = found.iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }

    #[test]
    fn pods_are_found_by_their_labels_as_they_are_now() {
        let cache = Cache::new();
        let found = |namespace: &str, pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            names(&cache.selected(namespace, &pairs.collect()))
        };
        for (name, app, tier) in [
            ("one", "web", "front"),
            ("two", "web", "back"),
            ("three", "db", "back"),
        ] {
            cache.put(Arc::new(pod(name, app, tier)));
        }
        assert_eq!(found("a", &[("app", "web")]), ["one", "two"]);
        assert_eq!(found("a", &[("app", "web"), ("tier", "back")]), ["two"]);
        assert!(found("a", &[("app", "web"), ("tier", "none")]).is_empty());
        assert!(found("a", &[]).is_empty(), "an empty selector selects nothing");
        assert!(found("b", &[("app", "web")]).is_empty());
        cache.put(Arc::new(pod("one", "db", "front")));
        cache.remove("a", "two");
        assert!(found("a", &[("app", "web")]).is_empty());
        assert_eq!(found("a", &[("app", "db")]), ["one", "three"]);
        let back = cache.with(IndexKey::label("a", "tier", "back"));
        assert_eq!(names(&back), ["three"]);
    }
}
