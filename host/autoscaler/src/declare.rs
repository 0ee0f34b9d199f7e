//! A Sleeper for every resource, and none for what is no longer one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dormouse_model::{Owner, Phase};
use dormouse_plugin::types::Resource;
use dormouse_sleepers::{Declared, Sleeper, SleeperKey, SleeperSpec};
use futures::StreamExt;

use crate::routes::Routes;
use crate::spec::spec;
use crate::target::Target;
use crate::{CONCURRENCY, Sleepers};

/// What may be written now. As long as a resource is diverted or asleep, what is new joins, and what is no longer listed stays:
/// it has to be restored first.
fn permitted(wanted: SleeperSpec, known: Option<&Sleeper>) -> SleeperSpec {
    let Some(known) = known else { return wanted };
    if known.phase() == Phase::Awake || known.spec.scales_itself() {
        return wanted;
    }
    SleeperSpec {
        workloads: joined(&known.spec.workloads, &wanted.workloads),
        services: joined(&known.spec.services, &wanted.services),
        ..wanted
    }
}

/// All of the one, and what only the other has.
fn joined<T: Clone + PartialEq>(known: &[T], wanted: &[T]) -> Vec<T> {
    let new = wanted.iter().filter(|one| !known.contains(one));
    known.iter().chain(new).cloned().collect()
}

/// What a diverted resource lost: a workload, or a Service that exists, which its source does not list any more. It is restored
/// by a wake, and then left out. A Service that is gone has nothing to restore, and may come back under its name.
fn taken_away(wanted: &SleeperSpec, known: &Sleeper, exists: impl Fn(&str) -> bool) -> Option<String> {
    if !known.phase().is_away() {
        return None;
    }
    let services = known.spec.services.iter();
    // A source that knows none at all any more reads selectors as they are, most likely, and they are parked.
    let service = services
        .filter(|_| !wanted.services.is_empty())
        .filter(|name| !wanted.services.contains(name))
        .find(|name| exists(name));
    let workload = || {
        let mut workloads = known.spec.workloads.iter();
        workloads.find(|workload| !wanted.workloads.contains(workload))
    };
    service
        .map(|name| format!("Service {name} does not belong to it any more"))
        .or_else(|| {
            workload().map(|gone| format!("{} {} does not belong to it any more", gone.kind, gone.name))
        })
}

/// Makes sure that every resource has its Sleeper. One that cannot be declared is left out, with a log line, and holds up
/// nobody.
pub(crate) async fn declare(
    owner: &Owner,
    resources: Vec<Resource>,
    routes: &Routes,
    sleepers: &Arc<dyn Sleepers>,
) -> Vec<Target> {
    let known: HashMap<SleeperKey, Arc<Sleeper>> = of_owner(sleepers, owner)
        .into_iter()
        .map(|sleeper| (SleeperKey::of(&sleeper), sleeper))
        .collect();
    let known = &known;
    let targets = futures::stream::iter(resources).map(|resource| async move {
        let key = SleeperKey::new(owner.clone(), &resource.id.namespace, &resource.id.name);
        if !sleepers.includes(&resource.id.namespace) {
            tracing::warn!(%owner, resource = %resource.id, "its namespace is not looked after (--namespace)");
            return None;
        }
        let existing = known.get(&key).map(Arc::as_ref);
        let route = routes.of(&resource, existing);
        let wanted = spec(owner, &resource, route);
        let namespace = &resource.id.namespace;
        let lost = existing.and_then(|known| {
            taken_away(&wanted, known, |service| sleepers.has_service(namespace, service))
        });
        let spec = permitted(wanted, existing).saying_who_wakes();
        if let Some(why) = lost
            && let Err(error) = sleepers.wake(&key, &why).await
        {
            tracing::warn!(%owner, resource = %resource.id, "what it lost is not restored yet: {error}");
        }
        match sleepers.declare(&Declared { key: key.clone(), spec }).await {
            Ok(sleeper) => Some(Target { key, resource, sleeper }),
            Err(error) => {
                tracing::warn!(%owner, resource = %resource.id, "no Sleeper: {error}");
                None
            }
        }
    });
    targets
        .buffer_unordered(CONCURRENCY)
        .filter_map(|target| async move { target })
        .collect()
        .await
}

/// Retires the Sleepers of resources that the owner does not list any more. Only to be called with what a *successful* call
/// of the source returned.
pub(crate) async fn retire_missing(
    owner: &Owner,
    listed: &BTreeSet<SleeperKey>,
    sleepers: &Arc<dyn Sleepers>,
) {
    let gone = of_owner(sleepers, owner)
        .into_iter()
        .map(|sleeper| (SleeperKey::of(&sleeper), sleeper))
        .filter(|(key, sleeper)| !listed.contains(key) && sleeper.metadata.deletion_timestamp.is_none());
    retire(
        gone.map(|(key, _)| key).collect(),
        "its owner does not list it any more",
        sleepers,
    )
    .await;
}

pub(crate) async fn retire(keys: Vec<SleeperKey>, why: &str, sleepers: &Arc<dyn Sleepers>) {
    futures::stream::iter(keys)
        .for_each_concurrent(CONCURRENCY, |key| async move {
            tracing::info!(owner = %key.owner, resource = %key, "retiring a Sleeper: {why}");
            if let Err(error) = sleepers.retire(&key).await {
                tracing::warn!(owner = %key.owner, resource = %key, "a Sleeper was not retired: {error}");
            }
        })
        .await;
}

/// All Sleepers of an owner.
pub(crate) fn of_owner(sleepers: &Arc<dyn Sleepers>, owner: &Owner) -> Vec<Arc<Sleeper>> {
    sleepers
        .list()
        .into_iter()
        .filter(|sleeper| sleeper.spec.owner() == *owner)
        .collect()
}
