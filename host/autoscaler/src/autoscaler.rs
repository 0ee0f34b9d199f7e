//! One task for each source, and one for what no source looks after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::deciding::Deciding;
use crate::metrics::Metrics;
use crate::orphans::sweep;
use crate::readings::{Lanes, Policy};
use crate::round::Line;
use crate::routes::Routes;
use crate::{Meters, Overrides, Roster, Sleepers, Source, Sources};

/// Longest delay before the first round: many sources do not all begin at once.
const LONGEST_JITTER: Duration = Duration::from_secs(5);

/// Changes that come close together are one: a manifest of many objects takes a moment to be applied.
const TOGETHER_WITHIN: Duration = Duration::from_millis(200);
/// Shortest pause between two rounds of one source because something changed.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);
/// And as a multiple of how long the last round took, so that changes without end cost a fifth of the time at most.
const ROUND_SHARE: u32 = 4;

/// Settings of the [`Autoscaler`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What flags say.
    pub overrides: Overrides,
    /// Calls to one source of metrics that a plugin has under way at once.
    pub metric_concurrency: usize,
    /// Deadline of each of them, and again of waiting for its turn; and of asking the DLX for demand.
    pub metric_timeout: Duration,
    /// How long a resource that was just declared or updated is left alone before its traffic is looked at.
    pub settle: Duration,
    /// Longest round. Everything in it has a deadline already; this is the last resort.
    pub round_limit: Duration,
    /// How often Sleepers without an owner are looked for.
    pub sweep_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            overrides: Overrides::default(),
            metric_concurrency: 16,
            metric_timeout: Duration::from_secs(10),
            settle: Duration::from_secs(10),
            round_limit: Duration::from_secs(300),
            sweep_interval: Duration::from_secs(60),
        }
    }
}

/// Says what time it is. Tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that is not the wall's.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

/// The line, for all sources.
pub struct Autoscaler {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) sources: Arc<dyn Sources>,
    pub(crate) sleepers: Arc<dyn Sleepers>,
    pub(crate) meters: Arc<dyn Meters>,
    pub(crate) metrics: Metrics,
}

impl Autoscaler {
    /// A line from these sources, which are all there ever are. `roster` says which owners there are beside them; see
    /// [`Autoscaler::of_plugins`].
    pub fn new(
        config: Config,
        sources: Vec<Arc<dyn Source>>,
        roster: Roster,
        sleepers: Arc<dyn Sleepers>,
        meters: Arc<dyn Meters>,
        metrics: Metrics,
    ) -> Self {
        Self::following(
            config,
            Arc::new(Fixed::new(sources, roster)),
            sleepers,
            meters,
            metrics,
        )
    }

    /// A line from sources that may still be coming.
    pub fn following(
        config: Config,
        sources: Arc<dyn Sources>,
        sleepers: Arc<dyn Sleepers>,
        meters: Arc<dyn Meters>,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            clock: Clock::default(),
            sources,
            sleepers,
            meters,
            metrics,
        }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs until `shutdown`. Does something only while `leads` is true, and stops at once when it is not any more.
    pub async fn run(self, leads: watch::Receiver<bool>, shutdown: CancellationToken) {
        let mut lines = JoinSet::new();
        tokio::select! {
            () = self.sweep(leads.clone(), &shutdown) => {}
            () = self.follow(&mut lines, &leads, &shutdown) => {}
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
        leads: &watch::Receiver<bool>,
        shutdown: &CancellationToken,
    ) {
        let mut begun = BTreeSet::new();
        let mut changes = self.sources.changes();
        // One for all lines: each looks at every Service and pod that changes.
        let declared = self.sleepers.changes();
        loop {
            for source in self.sources.ready() {
                if begun.insert(source.owner()) {
                    let span = tracing::info_span!("line", owner = %source.owner());
                    let line = self.line(source);
                    let mut changes = declared.clone();
                    changes.mark_unchanged();
                    // A task of its own: a source that computes for long holds up nobody else's timers.
                    lines.spawn(rounds(line, changes, leads.clone(), shutdown.clone()).instrument(span));
                }
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Some(ended) = lines.join_next() => tell_early_end(ended),
                else => std::future::pending().await,
            }
        }
    }

    fn line(&self, source: Arc<dyn Source>) -> Line {
        Line {
            source,
            sleepers: Arc::clone(&self.sleepers),
            meters: Arc::clone(&self.meters),
            config: self.config.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            settings: None,
            watched: std::collections::BTreeMap::new(),
            left_at_zero: std::collections::BTreeMap::new(),
            routes: Routes::default(),
            lanes: Lanes::new(
                Policy {
                    concurrency: self.config.metric_concurrency,
                    timeout: self.config.metric_timeout,
                },
                self.metrics.clone(),
            ),
        }
    }

    async fn sweep(&self, mut leads: watch::Receiver<bool>, shutdown: &CancellationToken) {
        let mut changes = self.sources.changes();
        loop {
            if !led(&mut leads, shutdown).await {
                return;
            }
            let work = async {
                changes.mark_unchanged();
                sweep(&self.sources.roster(), &self.sleepers, self.clock.now()).await;
                tokio::select! {
                    () = tokio::time::sleep(self.config.sweep_interval) => {}
                    Ok(()) = changes.changed() => {}
                }
            };
            while_leading(&mut leads, shutdown, work).await;
        }
    }
}

fn tell_early_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a line ended early: {error}");
    }
}

/// Sources that are all there.
struct Fixed {
    sources: Vec<Arc<dyn Source>>,
    roster: Roster,
    // Nothing ever changes.
    changes: watch::Sender<u64>,
}

impl Fixed {
    fn new(sources: Vec<Arc<dyn Source>>, roster: Roster) -> Self {
        Self {
            sources,
            roster,
            changes: watch::Sender::new(0),
        }
    }
}

impl Sources for Fixed {
    fn ready(&self) -> Vec<Arc<dyn Source>> {
        self.sources.clone()
    }

    fn roster(&self) -> Roster {
        self.roster.clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Rounds of one source, one after the other.
async fn rounds(
    mut line: Line,
    mut changes: watch::Receiver<u64>,
    mut leads: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let owner = line.source.owner();
    loop {
        if !led(&mut leads, &shutdown).await {
            return;
        }
        let cadence = async {
            let mut interval = line.effective().scale_interval;
            let mut ticks =
                tokio::time::interval_at(Instant::now() + jitter(&owner.name, interval), interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // What was asked before this process led is of no use any more.
            let mut deciding = Deciding::default();
            // The next round after a change, and the earliest moment for one.
            let mut soon: Option<Instant> = None;
            let mut earliest = Instant::now();
            loop {
                let limit = line.config.round_limit;
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = at(soon) => {}
                    Ok(()) = changes.changed(), if soon.is_none() => {
                        soon = Some(earliest.max(Instant::now() + TOGETHER_WITHIN));
                        continue;
                    }
                    decided = deciding.some() => {
                        if tokio::time::timeout(limit, line.act(&decided)).await.is_err() {
                            tracing::error!("{} decisions were not acted on within {limit:?}", decided.len());
                        }
                        continue;
                    }
                }
                soon = None;
                let begun = Instant::now();
                let outcome = match tokio::time::timeout(limit, line.round(&mut deciding)).await {
                    Ok(Ok(())) => "ok",
                    Ok(Err(_)) => "source-failed",
                    Err(_) => {
                        tracing::error!("a round did not end within {limit:?}");
                        "timeout"
                    }
                };
                line.metrics.round(&owner, outcome, begun.elapsed());
                earliest = Instant::now() + BETWEEN_ROUNDS.max(begun.elapsed() * ROUND_SHARE);
                // The source's own settings are known after its first round.
                let effective = line.effective().scale_interval;
                if effective != interval {
                    interval = effective;
                    ticks = tokio::time::interval_at(begun + interval, interval);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
            }
        };
        while_leading(&mut leads, &shutdown, cadence).await;
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits until this process leads. False: it is time to end.
async fn led(leads: &mut watch::Receiver<bool>, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        led = leads.wait_for(|leads| *leads) => led.is_ok(),
    }
}

/// Works as long as this process leads; then drops the work where it stands. State is in the cluster only, so nothing is
/// lost by it.
async fn while_leading(
    leads: &mut watch::Receiver<bool>,
    shutdown: &CancellationToken,
    work: impl Future<Output = ()>,
) {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        _ = leads.wait_for(|leads| !*leads) => tracing::info!("not the leader any more"),
        () = work => {}
    }
}

/// When the first round begins, so that many sources spread: the same for a source every time.
fn jitter(name: &str, interval: Duration) -> Duration {
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let parts = u32::try_from(hash >> 33).unwrap_or(0) % 1000;
    interval.min(LONGEST_JITTER) * parts / 1000
}
