//! One line for each source, and one sweep for what no source looks after.

use std::collections::BTreeSet;
use std::sync::Arc;

use dormouse_model::Shards;
use dormouse_readings::Meter;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::act::{Lifecycle, Platform, SetScale};
use crate::config::{Clock, Config};
use crate::line::Line;
use crate::metrics::Metrics;
use crate::orphans::sweep;
use crate::run::Context;
use crate::source::Fixed;
use crate::{CONCURRENCY, Roster, Sleepers, Source, Sources};

/// The line, for all sources.
pub struct Autoscaler {
    config: Config,
    clock: Clock,
    sources: Arc<dyn Sources>,
    sleepers: Arc<dyn Sleepers>,
    meter: Arc<dyn Meter>,
    metrics: Metrics,
}

impl Autoscaler {
    /// A line from these sources, which are all there ever are. `roster` says which owners there are beside them; see
    /// [`Autoscaler::of_plugins`].
    pub fn new(
        config: Config,
        sources: Vec<Arc<dyn Source>>,
        roster: Roster,
        sleepers: Arc<dyn Sleepers>,
        meter: Arc<dyn Meter>,
        metrics: Metrics,
    ) -> Self {
        let sources = Arc::new(Fixed::new(sources, roster));
        Self::following(config, sources, sleepers, meter, metrics)
    }

    /// A line from sources that may still be coming.
    pub fn following(
        config: Config,
        sources: Arc<dyn Sources>,
        sleepers: Arc<dyn Sleepers>,
        meter: Arc<dyn Meter>,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            clock: Clock::default(),
            sources,
            sleepers,
            meter,
            metrics,
        }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs until `shutdown`. Looks after the namespaces of the shards that are held, and stops at once for those that are not any
    /// more.
    pub async fn run(self, shards: watch::Receiver<Shards>, shutdown: CancellationToken) {
        let mut lines = JoinSet::new();
        tokio::select! {
            () = self.sweep(shards.clone(), &shutdown) => {}
            () = self.follow(&mut lines, &shards, &shutdown) => {}
        }
        // They have the same reasons to end.
        while let Some(ended) = lines.join_next().await {
            tell_early_end(ended);
        }
    }

    /// Begins a line for each source as soon as it is there. Does not end by itself.
    async fn follow(
        &self,
        lines: &mut JoinSet<()>,
        shards: &watch::Receiver<Shards>,
        shutdown: &CancellationToken,
    ) {
        let mut begun = BTreeSet::new();
        let mut changes = self.sources.changes();
        loop {
            for source in self.sources.ready() {
                if begun.insert(source.owner()) {
                    let span = tracing::info_span!("line", owner = %source.owner());
                    let line = self.line(source, shards);
                    // A task of its own: a source that computes for long holds up nobody else's timers.
                    lines.spawn(line.run(shards.clone(), shutdown.clone()).instrument(span));
                }
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Some(ended) = lines.join_next() => tell_early_end(ended),
                else => std::future::pending().await,
            }
        }
    }

    fn line(&self, source: Arc<dyn Source>, shards: &watch::Receiver<Shards>) -> Line {
        let set_scale = SetScale::new(Arc::clone(&source), self.metrics.clone(), shards.clone());
        let writing = Arc::new(Semaphore::new(CONCURRENCY));
        let puts_to_sleep = source.puts_to_sleep();
        Line::new(Context {
            owner: source.owner(),
            source,
            sleepers: Arc::clone(&self.sleepers),
            meter: Arc::clone(&self.meter),
            config: self.config.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            lifecycle: Lifecycle {
                set_scale: puts_to_sleep.then(|| Arc::clone(&set_scale)),
                sleepers: Arc::clone(&self.sleepers),
                writing: Arc::clone(&writing),
                metrics: self.metrics.clone(),
            },
            platform: Platform {
                set_scale,
                sleepers: Arc::clone(&self.sleepers),
            },
            writing,
        })
    }

    /// Looks for Sleepers that no source looks after, as long as a shard is held.
    async fn sweep(&self, mut shards: watch::Receiver<Shards>, shutdown: &CancellationToken) {
        let mut changes = self.sources.changes();
        loop {
            let held = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                held = shards.wait_for(|shards| !shards.is_empty()) => match held {
                    Ok(held) => held.clone(),
                    Err(_) => return,
                },
            };
            let work = async {
                changes.mark_unchanged();
                sweep(&self.sources.roster(), &held, &*self.sleepers, self.clock.now()).await;
                tokio::select! {
                    () = tokio::time::sleep(self.config.sweep_interval) => {}
                    Ok(()) = changes.changed() => {}
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = shards.changed() => if changed.is_err() { return },
                () = work => {}
            }
        }
    }
}

fn tell_early_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a line ended early: {error}");
    }
}
