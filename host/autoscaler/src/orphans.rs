//! Sleepers whose owner is not there.

use dormouse_model::Shards;
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, SleeperKey};
use futures::StreamExt;
use jiff::Timestamp;

use crate::declare::retire;
use crate::report::{camel, is_news};
use crate::sleepers::is_going;
use crate::{CONCURRENCY, Roster, Sleepers};

/// An owner that was removed on purpose leaves Sleepers behind: they are woken and retired. Those of a plugin that could not
/// be loaded stay as they are, and say why nobody looks after them.
pub(crate) async fn sweep(roster: &Roster, shards: &Shards, sleepers: &dyn Sleepers, now: Timestamp) {
    let mut removed = Vec::new();
    let mut abandoned = Vec::new();
    for sleeper in sleepers.list() {
        let key = SleeperKey::of(&sleeper);
        if is_going(&sleeper) || roster.looks_after(&key.owner) || !shards.holds(&key.namespace) {
            continue;
        }
        match roster.failed.get(&key.owner) {
            Some(error) => {
                let message = format!("{} is not loaded: {error}", key.owner);
                let update = ConditionUpdate::bad(condition::PLUGIN, camel(error.code), message);
                if is_news(&sleeper, &update, now) {
                    abandoned.push((key, update));
                }
            }
            None if roster.complete.contains(&key.owner.kind) => removed.push(key),
            None => {}
        }
    }
    futures::stream::iter(abandoned)
        .for_each_concurrent(CONCURRENCY, |(key, update)| async move {
            if let Err(error) = sleepers.record(&key, &update.into()).await {
                tracing::warn!(resource = %key, "a condition was not written: {error}");
            }
        })
        .await;
    retire(removed, "its owner was removed", sleepers).await;
}
