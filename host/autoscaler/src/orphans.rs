//! Sleepers whose plugin is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dormouse_kubernetes::api::condition;
use dormouse_kubernetes::{ConditionUpdate, SleeperKey};
use futures::StreamExt;
use jiff::Timestamp;

use crate::declare::{CONCURRENCY, retire};
use crate::status::{camel, is_news};
use crate::{Sleepers, SourceError};

/// Which plugins there are, and which there should be.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Plugins that run.
    pub ready: BTreeSet<String>,
    /// Plugins that could not be loaded, or that are configured without a file.
    pub failed: BTreeMap<String, SourceError>,
    /// The plugins directory was read. If not, nobody knows what is missing from it.
    pub complete: bool,
}

/// A plugin that was removed on purpose leaves Sleepers behind: they are woken and retired. Those of a plugin that could not
/// be loaded stay as they are, and say why nobody looks after them.
pub(crate) async fn sweep(roster: &Roster, sleepers: &Arc<dyn Sleepers>, now: Timestamp) {
    let mut removed = Vec::new();
    let mut abandoned = Vec::new();
    for sleeper in sleepers.list() {
        let (key, plugin) = (SleeperKey::of(&sleeper), &sleeper.spec.plugin);
        if sleeper.metadata.deletion_timestamp.is_some() || roster.ready.contains(plugin) {
            continue;
        }
        match roster.failed.get(plugin) {
            Some(error) => {
                let message = format!("plugin {plugin} is not loaded: {error}");
                let update = ConditionUpdate::bad(condition::PLUGIN, camel(error.code), message);
                if is_news(&sleeper, &update, now) {
                    abandoned.push((key, update));
                }
            }
            None if roster.complete => removed.push(key),
            None => {}
        }
    }
    futures::stream::iter(abandoned)
        .for_each_concurrent(CONCURRENCY, |(key, update)| async move {
            if let Err(error) = sleepers.record_conditions(&key, &[update]).await {
                tracing::warn!(resource = %key, "a condition was not written: {error}");
            }
        })
        .await;
    retire(removed, "its plugin was removed", sleepers).await;
}
