//! A Sleeper for every target, and none for what is no longer one.

use std::collections::HashSet;
use std::sync::Arc;

use dormouse_kubernetes::ClusterError;
use dormouse_model::{Owner, Phase, Shards, Target};
use dormouse_sleepers::{Declared, Sleeper, SleeperKey, SleeperSpec};
use futures::StreamExt;

use crate::key::sleeper_key;
use crate::sleepers::is_going;
use crate::spec::spec;
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

/// Makes sure that a target has its Sleeper. Writes nothing if so.
pub(crate) async fn declare(sleepers: &dyn Sleepers, target: &Target) -> Result<Arc<Sleeper>, ClusterError> {
    let key = sleeper_key(&target.key);
    let existing = sleepers.get(&key);
    let existing = existing.as_deref();
    let wanted = spec(target, existing);
    let namespace = &target.key.namespace;
    let lost = existing
        .and_then(|known| taken_away(&wanted, known, |service| sleepers.has_service(namespace, service)));
    let spec = permitted(wanted, existing).saying_who_wakes();
    if let Some(why) = lost
        && let Err(error) = sleepers.wake(&key, &why).await
    {
        tracing::warn!(owner = %key.owner, resource = %key, "what it lost is not restored yet: {error}");
    }
    sleepers.declare(&Declared { key, spec }).await
}

/// Retires the Sleepers of targets that the owner does not list any more, or that have none any more, in namespaces that are looked
/// after. Only to be called with what a *successful* listing returned.
pub(crate) async fn retire_missing(
    owner: &Owner,
    listed: &[Arc<Target>],
    shards: &Shards,
    sleepers: &dyn Sleepers,
) {
    let listed: HashSet<_> = listed
        .iter()
        .filter(|target| target.has_sleeper)
        .map(|target| (&target.key.owner, &*target.key.namespace, &*target.key.name))
        .collect();
    let mut gone = Vec::new();
    for sleeper in sleepers.of_owner(owner) {
        let key = SleeperKey::of(&sleeper);
        if !listed.contains(&(&key.owner, &*key.namespace, &*key.resource))
            && !is_going(&sleeper)
            && shards.holds(&key.namespace)
        {
            gone.push(key);
        }
    }
    retire(gone, "its owner does not list it any more", sleepers).await;
}

pub(crate) async fn retire(keys: Vec<SleeperKey>, why: &str, sleepers: &dyn Sleepers) {
    futures::stream::iter(keys)
        .for_each_concurrent(CONCURRENCY, |key| async move {
            tracing::info!(owner = %key.owner, resource = %key, "retiring a Sleeper: {why}");
            if let Err(error) = sleepers.retire(&key).await {
                tracing::warn!(owner = %key.owner, resource = %key, "a Sleeper was not retired: {error}");
            }
        })
        .await;
}
