//! Lists that plugins ask for again and again, each kept up to date by a watch.
//!
//! A plugin lists its kinds in every round. Read from the API server each time, ten thousand objects are tens of megabytes a
//! round, and what somebody changes in between waits for the next one. So the first time that a list is asked for, it is read,
//! and a watch begins that keeps the fields which are wanted, and nothing else. As long as the watch works, it answers; what
//! changed is told, so that the next round comes at once. When it does not work, or may not be, the list is read as before.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_model::{LabelSelector, SelectorError};
use futures::StreamExt;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::{FORBIDDEN, is_forbidden, pauses};
use crate::fields::{Fields, has_annotation};

/// Lists that are watched at once. Plugins ask the same few ones all the time; who makes up others reads them as before.
const MOST: usize = 64;
/// A list that nobody asked for in this time is not watched any more.
const UNUSED: Duration = Duration::from_secs(15 * 60);
/// After an error of a watch its list is read as before for this long: while errors last, nobody knows what is missing.
const DOUBT: Duration = Duration::from_secs(60);

/// Which objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListQuery {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// None: every namespace that is watched.
    pub namespace: Option<String>,
    /// As in `kubectl -l`.
    pub label_selector: Option<String>,
    /// Only objects with an annotation whose key starts with this.
    pub annotation_prefix: Option<String>,
    /// Dotted paths of the fields that are wanted. Empty: all.
    pub fields: Vec<String>,
}

impl ListQuery {
    /// What is wanted of an object. None: it does not belong to the list. `fields` are those of the query, made ready.
    pub(crate) fn pick(&self, mut object: Value, fields: &Fields) -> Option<Value> {
        if !has_annotation(&object, self.annotation_prefix.as_deref()) {
            return None;
        }
        // Items of a list do not always say what they are.
        if let Some(object) = object.as_object_mut() {
            object
                .entry("apiVersion")
                .or_insert_with(|| self.api_version.clone().into());
            object.entry("kind").or_insert_with(|| self.kind.clone().into());
        }
        Some(fields.of_object(object))
    }

    /// What of these objects belongs to the list, as the API server would answer.
    ///
    /// # Errors
    /// The label selector is none.
    pub fn among(&self, objects: &[Value]) -> Result<Vec<Text>, SelectorError> {
        let selector = self.label_selector.as_deref().map(str::parse::<LabelSelector>);
        let selector = selector.transpose()?;
        let text = |object: &Value, pointer: &str| {
            let found = object.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let labels = |object: &Value| -> BTreeMap<String, String> {
            let found = object.pointer("/metadata/labels").cloned();
            found
                .and_then(|labels| serde_json::from_value(labels).ok())
                .unwrap_or_default()
        };
        let fields = Fields::of(&self.fields);
        let listed = objects
            .iter()
            .filter(|object| {
                text(object, "/apiVersion") == self.api_version && text(object, "/kind") == self.kind
            })
            .filter(|object| {
                let namespace = self.namespace.as_deref();
                namespace.is_none_or(|namespace| text(object, "/metadata/namespace") == namespace)
            })
            .filter(|object| {
                selector
                    .as_ref()
                    .is_none_or(|selector| selector.match_labels(&labels(object)))
            })
            .filter_map(|object| self.pick(object.clone(), &fields));
        Ok(listed.map(|object| object.to_string().into()).collect())
    }
}

/// An object as it is given to plugins: the fields that they want, as JSON text.
pub type Text = Arc<str>;

/// Leaves of an object what its owner says with it, beside what is no owner's in any object (status, replicas, versions).
pub type OwnersPart = fn(&mut Value);

/// All watched lists.
pub(crate) struct Lists {
    watched: Mutex<HashMap<ListQuery, Watched>>,
    changes: watch::Sender<u64>,
    owners_part: OwnersPart,
}

struct Watched {
    list: Arc<List>,
    used: Instant,
    /// Ends the watch.
    _guard: DropGuard,
}

/// One list.
struct List(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Name, Kept>,
    synced: bool,
    /// Until then the list is read as before.
    doubted_until: Option<Instant>,
}

struct Kept {
    text: Text,
    /// What its owner says with it, as a number.
    meaning: u64,
}

impl Kept {
    fn of(object: Value, owners_part: OwnersPart) -> Self {
        Self {
            text: object.to_string().into(),
            meaning: meaning(object, owners_part),
        }
    }
}

/// Namespace and name.
pub(crate) type Name = (String, String);

/// Where an object is in a list.
pub(crate) fn key(object: &Value) -> Name {
    let text = |path| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    (text("/metadata/namespace"), text("/metadata/name"))
}

impl Lists {
    pub(crate) fn new(owners_part: OwnersPart) -> Self {
        Self {
            watched: Mutex::default(),
            changes: watch::Sender::new(0),
            owners_part,
        }
    }

    /// A number that rises when an object of a watched list appeared, went, or was changed by its owner.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The list, if its watch works.
    pub(crate) fn get(&self, query: &ListQuery) -> Option<Vec<Text>> {
        self.look(query, |objects| {
            let texts = objects.values().map(|kept| Arc::clone(&kept.text));
            texts.collect()
        })
    }

    /// Those of the list that are named, if its watch works.
    pub(crate) fn find(&self, query: &ListQuery, names: &BTreeSet<Name>) -> Option<Vec<Text>> {
        self.look(query, |objects| {
            let found = names.iter().filter_map(|name| objects.get(name));
            found.map(|kept| Arc::clone(&kept.text)).collect()
        })
    }

    fn look<T>(&self, query: &ListQuery, look: impl FnOnce(&BTreeMap<Name, Kept>) -> T) -> Option<T> {
        let list = {
            let mut watched = lock(&self.watched);
            let known = watched.get_mut(query)?;
            known.used = Instant::now();
            Arc::clone(&known.list)
        };
        let state = lock(&list.0);
        let doubted = state.doubted_until.is_some_and(|until| Instant::now() < until);
        (state.synced && !doubted).then(|| look(&state.objects))
    }

    /// Begins to watch a list, if it is not watched yet and there is room. `listed` is what was just read: what differs from it is
    /// a change.
    pub(crate) fn watch(
        &self,
        query: &ListQuery,
        listed: &[Value],
        client: &kube::Client,
        resource: &ApiResource,
        namespace: Option<&str>,
        cancel: &CancellationToken,
    ) {
        let mut watched = lock(&self.watched);
        watched.retain(|_, known| known.used.elapsed() < UNUSED);
        if watched.contains_key(query) || watched.len() >= MOST {
            return;
        }
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        let state = State {
            objects: listed
                .iter()
                .map(|object| (key(object), Kept::of(object.clone(), self.owners_part)))
                .collect(),
            ..State::default()
        };
        let (list, ended) = (Arc::new(List(Mutex::new(state))), cancel.child_token());
        let list_watch = ListWatch {
            list: Arc::clone(&list),
            fields: Fields::of(&query.fields),
            query: query.clone(),
            changes: self.changes.clone(),
            owners_part: self.owners_part,
        };
        let following = list_watch.run(api);
        let cancelled = ended.clone();
        tokio::spawn(async move { cancelled.run_until_cancelled(following).await });
        let known = Watched {
            list,
            used: Instant::now(),
            _guard: ended.drop_guard(),
        };
        watched.insert(query.clone(), known);
    }
}

/// Keeps a list up to date.
struct ListWatch {
    list: Arc<List>,
    fields: Fields,
    query: ListQuery,
    changes: watch::Sender<u64>,
    owners_part: OwnersPart,
}

impl ListWatch {
    async fn run(self, api: Api<DynamicObject>) {
        let mut config = watcher::Config::default();
        if let Some(selector) = &self.query.label_selector {
            config = config.labels(selector);
        }
        let stream = watcher::watcher(api, config).backoff(ExponentialBackoff::from(pauses()));
        let mut stream = std::pin::pin!(stream);
        let mut fresh = BTreeMap::new();
        while let Some(event) = stream.next().await {
            match event {
                Err(error) => {
                    let pause = self.pause_after(&error);
                    lock(&self.list.0).doubted_until = Some(Instant::now() + pause + DOUBT);
                    tokio::time::sleep(pause).await;
                }
                Ok(Event::Init) => fresh = BTreeMap::new(),
                Ok(Event::InitApply(object)) => {
                    let key = name(&object);
                    fresh.extend(self.kept(object).map(|kept| (key, kept)));
                }
                Ok(Event::InitDone) => self.replace(std::mem::take(&mut fresh)),
                Ok(Event::Apply(object)) => self.put(name(&object), self.kept(object)),
                Ok(Event::Delete(object)) => self.put(name(&object), None),
            }
        }
    }

    /// How long to wait before the next attempt, beside the growing pauses of the stream itself.
    fn pause_after(&self, error: &watcher::Error) -> Duration {
        let kind = &self.query.kind;
        if is_forbidden(error) {
            tracing::info!(
                "plugins list {kind}, and Dormouse may not watch it: it is read anew in every round, and what changes is noticed \
                 in the next one only. Allow `watch` beside `list` (rbac.extraRules of the chart)"
            );
            return FORBIDDEN;
        }
        tracing::debug!(kind, %error, "the watch of a list failed, trying again");
        Duration::ZERO
    }

    /// What is kept of an object. None: it does not belong to the list.
    fn kept(&self, object: DynamicObject) -> Option<Kept> {
        let object = serde_json::to_value(object).ok()?;
        let picked = self.query.pick(object, &self.fields)?;
        Some(Kept::of(picked, self.owners_part))
    }

    fn replace(&self, objects: BTreeMap<Name, Kept>) {
        let mut state = lock(&self.list.0);
        let meanings = |objects: &BTreeMap<_, Kept>| -> Vec<_> {
            objects
                .iter()
                .map(|(key, kept): (&Name, _)| (key.clone(), kept.meaning))
                .collect()
        };
        let changed = meanings(&state.objects) != meanings(&objects);
        state.objects = objects;
        (state.synced, state.doubted_until) = (true, None);
        drop(state);
        if changed {
            self.tell();
        }
    }

    fn put(&self, key: Name, kept: Option<Kept>) {
        let meaning = kept.as_ref().map(|kept| kept.meaning);
        let before = {
            let objects = &mut lock(&self.list.0).objects;
            match kept {
                Some(kept) => objects.insert(key, kept),
                None => objects.remove(&key),
            }
        };
        if before.map(|before| before.meaning) != meaning {
            self.tell();
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

fn name(object: &DynamicObject) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// What its owner says with an object, as a number: not its status, and not how many replicas it has.
fn meaning(mut object: Value, owners_part: OwnersPart) -> u64 {
    remove(&mut object, "", "status");
    remove(&mut object, "/spec", "replicas");
    for key in ["resourceVersion", "generation", "managedFields"] {
        remove(&mut object, "/metadata", key);
    }
    owners_part(&mut object);
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Removes a field of the object at a JSON pointer.
pub fn remove(object: &mut Value, pointer: &str, field: &str) {
    if let Some(fields) = object.pointer_mut(pointer).and_then(Value::as_object_mut) {
        fields.remove(field);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(annotations: &Value, replicas: u32) -> Value {
        json!({
            "metadata": {"name": "web", "resourceVersion": replicas.to_string(), "annotations": annotations},
            "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web"}}}},
            "status": {"replicas": replicas},
        })
    }

    #[test]
    fn only_what_an_owner_says_is_a_change() {
        let noted: OwnersPart = |object| remove(object, "/metadata/annotations", "note");
        let meaning = |object: Value| meaning(object, noted);
        let before = meaning(deployment(&json!({"team": "shop"}), 1));
        let ours = json!({"team": "shop", "note": "3"});
        assert_eq!(meaning(deployment(&ours, 0)), before);
        let theirs = json!({"team": "shop", "sleep-after": "5m"});
        assert_ne!(meaning(deployment(&theirs, 1)), before);
        assert_ne!(meaning(deployment(&json!({}), 1)), before);
    }
}
