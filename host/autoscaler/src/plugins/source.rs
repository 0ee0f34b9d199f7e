//! A plugin as a source.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_model::{Owner, Target, TargetKey};
use dormouse_plugin::types::{ResourceHandle, ResourceId, ScaleOutcome, Settings};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::ResourceScaler;
use super::routes::Routes;
use super::translate::target;
use crate::key::sleeper_key;
use crate::{Effective, Overrides, Sleepers, Source, SourceError};

/// Changes that come close together are one: a manifest of many objects takes a moment to be applied.
const TOGETHER_WITHIN: Duration = Duration::from_millis(200);
/// Shortest pause between two listings because something changed.
const BETWEEN_LISTINGS: Duration = Duration::from_millis(500);
/// And as a multiple of how long the last listing took, so that changes without end cost a fifth of the time at most.
const LISTING_SHARE: u32 = 4;

/// The last listing.
#[derive(Clone, Copy, Debug)]
struct Listing {
    begun: Instant,
    /// None while it is under way.
    took: Option<Duration>,
    interval: Duration,
}

/// A plugin as a source: its resources are listed again after its scale interval, and soon after what it looks at changed. What is
/// reported has no place but their Sleepers.
pub struct PluginSource {
    plugin: Arc<dyn ResourceScaler>,
    sleepers: Arc<dyn Sleepers>,
    overrides: Overrides,
    /// None until the plugin told them.
    settings: Mutex<Option<Settings>>,
    routes: tokio::sync::Mutex<Routes>,
    listing: watch::Sender<Option<Listing>>,
    changes: watch::Sender<u64>,
    _pace: AbortOnDropHandle<()>,
}

impl PluginSource {
    /// A plugin whose Sleepers these are. Needs a runtime.
    pub fn new(
        plugin: Arc<dyn ResourceScaler>,
        sleepers: Arc<dyn Sleepers>,
        overrides: Overrides,
    ) -> Arc<Self> {
        let (listing, changes) = (watch::Sender::new(None), watch::Sender::new(0));
        let pace = pace(listing.subscribe(), sleepers.changes(), changes.clone());
        Arc::new(Self {
            plugin,
            sleepers,
            overrides,
            settings: Mutex::default(),
            routes: tokio::sync::Mutex::default(),
            listing,
            changes,
            _pace: AbortOnDropHandle::new(tokio::spawn(pace)),
        })
    }

    /// What holds for the plugin, as far as is known.
    fn effective(&self) -> Effective {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        self.overrides
            .over(settings.as_ref().unwrap_or(&Settings::default()))
    }

    fn has_settings(&self) -> bool {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn note(&self, begun: Instant, took: Option<Duration>) {
        self.listing.send_replace(Some(Listing {
            begun,
            took,
            interval: self.effective().scale_interval,
        }));
    }

    /// A target as the plugin is to see it: with the cookie that stands on its Sleeper.
    fn handle(&self, key: &TargetKey) -> ResourceHandle {
        let sleeper = self.sleepers.get(&sleeper_key(key));
        ResourceHandle {
            id: ResourceId::new(&key.namespace, &key.name),
            cookie: sleeper.and_then(|sleeper| sleeper.spec.cookie.clone()),
        }
    }
}

#[async_trait]
impl Source for PluginSource {
    fn owner(&self) -> Owner {
        self.plugin.owner()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn targets(&self) -> Result<Vec<Arc<Target>>, SourceError> {
        let begun = Instant::now();
        // Before it answers, in case it never does.
        self.note(begun, None);
        if !self.has_settings() {
            match self.plugin.settings().await {
                Ok(settings) => {
                    *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
                }
                // The plugin's call has said it already, in its own span.
                Err(error) => tracing::debug!(code = error.code, "the plugin failed: {error}"),
            }
        }
        let listed = self.plugin.resources().await;
        let targets = match listed {
            Err(error) => Err(error),
            Ok(resources) => {
                let mut routes = self.routes.lock().await;
                routes.ask(&*self.plugin, &resources).await;
                let (owner, effective) = (self.owner(), self.effective());
                let targets = resources.into_iter().map(|resource| {
                    let routing = routes.of(&resource.id);
                    Arc::new(target(&owner, resource, routing, &effective))
                });
                Ok(targets.collect())
            }
        };
        self.note(begun, Some(begun.elapsed()));
        targets
    }

    fn puts_to_sleep(&self) -> bool {
        true
    }

    async fn set_scale(
        &self,
        targets: &[TargetKey],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        let handles: Vec<_> = targets.iter().map(|key| self.handle(key)).collect();
        self.plugin.set_scale(&handles, replicas, reason).await
    }
}

/// Says when the plugin should be listed again. Before it was listed for the first time nobody looks after it.
async fn pace(
    mut listing: watch::Receiver<Option<Listing>>,
    mut changed: watch::Receiver<u64>,
    changes: watch::Sender<u64>,
) {
    loop {
        let Some(last) = *listing.borrow_and_update() else {
            if listing.changed().await.is_err() {
                return;
            }
            changed.mark_unchanged();
            continue;
        };
        let took = last.took.unwrap_or_default();
        let earliest = last.begun + took + BETWEEN_LISTINGS.max(took * LISTING_SHARE);
        tokio::select! {
            listed = listing.changed() => if listed.is_err() { return } else { continue },
            () = tokio::time::sleep_until(last.begun + last.interval) => {}
            // What changes during a listing is listed after it.
            Ok(()) = changed.changed(), if last.took.is_some() => {
                let soon = earliest.max(Instant::now() + TOGETHER_WITHIN);
                tokio::time::sleep_until(soon.min(last.begun + last.interval)).await;
                changed.mark_unchanged();
            }
        }
        changes.send_modify(|count| *count += 1);
        // Until it was listed nothing else is due.
        if listing.changed().await.is_err() {
            return;
        }
    }
}
