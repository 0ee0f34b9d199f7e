//! The line of one source: it is listed when it says so, and each of its targets runs when it is due.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{Phase, Shards, Target, TargetKey, fnv1a};
use dormouse_sleepers::SleeperKey;
use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::declare::retire_missing;
use crate::key::{sleeper_key, target_key};
use crate::queue::{DueQueue, Pace};
use crate::report::{Report, of_source_failure};
use crate::run::{Context, Ended, Memory};
use crate::sleepers::{SleeperChange, state};
use crate::{CONCURRENCY, SourceError};

/// Longest delay before the first listing: many sources do not all begin at once.
const LONGEST_JITTER: Duration = Duration::from_secs(5);
/// Time between the first runs of two targets that were listed together: what a process that starts finds there is due over as long as it
/// takes to run it, within an interval, and keeps to these places.
const APART: Duration = Duration::from_millis(3);
/// The part of an interval that the jitter of a target takes off at most.
const JITTER_PART: u32 = 20;

type Id = Arc<TargetKey>;
type BySleeper = HashMap<(String, String), Id>;

/// What is known of a target.
struct Entry {
    target: Arc<Target>,
    memory: Memory,
    /// The phase of its Sleeper in its last run.
    seen: Option<Phase>,
    /// Ends its run, if it runs.
    abort: Option<AbortHandle>,
}

type Listed = Result<Vec<Arc<Target>>, SourceError>;
type Run = BoxFuture<'static, (Id, Result<Ended, Aborted>)>;

/// The line of one source.
pub(crate) struct Line {
    context: Arc<Context>,
    shards: Shards,
    entries: HashMap<Id, Entry>,
    /// By namespace and name of the Sleeper.
    by_sleeper: BySleeper,
    queue: DueQueue<Id>,
    runs: FuturesUnordered<Run>,
    /// Runs that have not come to their readings yet.
    starting: Arc<Semaphore>,
    /// The last listing failed: what is known of the targets may not be true any more, so nothing is decided about them.
    source_failed: bool,
}

impl Line {
    pub fn new(context: Context) -> Self {
        Self {
            context: Arc::new(context),
            shards: Shards::none(),
            entries: HashMap::new(),
            by_sleeper: HashMap::new(),
            queue: DueQueue::default(),
            runs: FuturesUnordered::new(),
            starting: Arc::new(Semaphore::new(CONCURRENCY)),
            source_failed: false,
        }
    }

    /// Runs until `shutdown`. Looks after the namespaces of the shards that are held, and stops at once for those that are not any more.
    pub async fn run(mut self, mut shards: watch::Receiver<Shards>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                held = shards.wait_for(|shards| !shards.is_empty()) => if held.is_err() { return },
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.hold(&mut shards) => {}
            }
            tracing::info!("no shard is held any more");
            self.keep(&Shards::none());
        }
    }

    /// Works as long as a shard is held. State is in the cluster only, so nothing is lost when the work is dropped where it stands.
    async fn hold(&mut self, shards: &mut watch::Receiver<Shards>) {
        self.shards = shards.borrow_and_update().clone();
        let mut changes = self.context.source.changes();
        let mut sleepers = self.context.sleepers.sleeper_changes();
        let mut list_at = Some(Instant::now() + self.first_listing());
        let mut listing: Option<(Instant, AbortOnDropHandle<Option<Listed>>)> = None;
        loop {
            let due = self.queue.next_due();
            tokio::select! {
                Ok(()) = shards.changed() => {
                    let held = shards.borrow_and_update().clone();
                    self.keep(&held);
                    if held.is_empty() {
                        return;
                    }
                    // What was gained is in the next listing; one under way may retire what was lost.
                    listing = None;
                    list_at = Some(Instant::now());
                }
                Ok(()) = changes.changed(), if list_at.is_none() && listing.is_none() => {
                    list_at = Some(Instant::now());
                }
                () = at(list_at) => {
                    list_at = None;
                    changes.mark_unchanged();
                    let list = list(Arc::clone(&self.context), self.shards.clone());
                    listing = Some((Instant::now(), AbortOnDropHandle::new(tokio::spawn(list))));
                }
                listed = ended(&mut listing) => {
                    let begun = listing.take().map_or_else(Instant::now, |(begun, _)| begun);
                    self.listed(listed, begun);
                }
                Some((id, result)) = self.runs.next() => self.ended(&id, result),
                Some(change) = sleepers.next() => self.changed(&change),
                place = place_when_due(&self.starting, due), if !self.source_failed => self.start(place),
            }
        }
    }

    /// When the source is listed for the first time: the same for a source every time.
    fn first_listing(&self) -> Duration {
        let interval = self.context.config.overrides.scale_interval;
        let longest = interval.map_or(LONGEST_JITTER, |interval| interval.min(LONGEST_JITTER));
        part(longest, &self.context.owner.name)
    }

    /// Takes in what a listing said.
    fn listed(&mut self, listed: Option<Listed>, begun: Instant) {
        self.source_failed = !matches!(listed, Some(Ok(_)));
        let outcome = match listed {
            Some(Ok(targets)) => {
                self.take_in(targets);
                "ok"
            }
            Some(Err(_)) => "source-failed",
            None => "timeout",
        };
        let context = &self.context;
        context.metrics.round(&context.owner, outcome, begun.elapsed());
    }

    /// Targets that are new or have changed are due, and those that are gone are dropped.
    fn take_in(&mut self, targets: Vec<Arc<Target>>) {
        let context = Arc::clone(&self.context);
        context.metrics.targets(&context.owner, targets.len());
        let now = Instant::now();
        let mut listed = HashSet::with_capacity(targets.len());
        let mut first_runs = 0_u32;
        for target in targets {
            let namespace = &target.key.namespace;
            if !self.shards.holds(namespace) {
                continue;
            }
            if !context.sleepers.includes(namespace) {
                tracing::warn!(owner = %context.owner, resource = %target.key, "its namespace is not looked after (--namespace)");
                continue;
            }
            let id = Arc::new(target.key.clone());
            let known = self.entries.get_mut(&id);
            listed.insert(Arc::clone(&id));
            match known {
                Some(entry) if entry.target == target => {}
                Some(entry) => {
                    self.queue.set_pace(&id, pace(&target));
                    // Without a Sleeper it has no phase.
                    entry.seen = entry.seen.filter(|_| target.has_sleeper);
                    follow_sleeper(&mut self.by_sleeper, &id, &target);
                    entry.target = target;
                    self.queue.requeue(&id, now);
                }
                None => {
                    let place = APART.saturating_mul(first_runs);
                    first_runs = first_runs.saturating_add(1);
                    self.insert(id, target, now, place);
                }
            }
        }
        self.retain(|id, _| listed.contains(id));
        let known = self.queue.len();
        tracing::debug!(known, first_runs, "listed");
    }

    fn insert(&mut self, id: Id, target: Arc<Target>, now: Instant, place: Duration) {
        let key = sleeper_key(&id);
        let declared = !target.has_sleeper || self.context.sleepers.get(&key).is_some();
        let within = target.every.max(Duration::from_millis(1));
        let place =
            Duration::from_nanos(u64::try_from(place.as_nanos() % within.as_nanos()).unwrap_or_default());
        follow_sleeper(&mut self.by_sleeper, &id, &target);
        // What is new waits for others to be declared, not for the clock.
        let due = if declared { now + place } else { now };
        self.queue.insert(&id, pace(&target), due, !declared);
        self.entries.insert(
            id,
            Entry {
                target,
                memory: Memory::default(),
                seen: None,
                abort: None,
            },
        );
    }

    /// Keeps the targets of the shards that are held, and drops the others where they stand.
    fn keep(&mut self, shards: &Shards) {
        self.shards = shards.clone();
        self.retain(|id, shards| shards.holds(&id.namespace));
    }

    fn retain(&mut self, stays: impl Fn(&Id, &Shards) -> bool) {
        let (queue, shards) = (&mut self.queue, &self.shards);
        self.entries.retain(|id, entry| {
            let stays = stays(id, shards);
            if !stays {
                queue.remove(id);
                if let Some(abort) = &entry.abort {
                    abort.abort();
                }
            }
            stays
        });
        let entries = &self.entries;
        self.by_sleeper.retain(|_, id| entries.contains_key(id));
    }

    /// Starts what is due.
    fn start(&mut self, place: OwnedSemaphorePermit) {
        let now = Instant::now();
        let Some((id, due)) = self.queue.pop(now) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.context.metrics.late(now.saturating_duration_since(due));
        let (abort, registration) = AbortHandle::new_pair();
        entry.abort = Some(abort);
        let (context, target) = (Arc::clone(&self.context), Arc::clone(&entry.target));
        let memory = std::mem::take(&mut entry.memory);
        let run = async move { context.run(&target, memory, place).await };
        let run = Abortable::new(run, registration).map(move |result| (id, result));
        self.runs.push(run.boxed());
    }

    /// Says when a target whose run has ended is due again. One that was dropped is not.
    fn ended(&mut self, id: &Id, result: Result<Ended, Aborted>) {
        let Ok(ended) = result else { return };
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.abort = None;
        entry.memory = ended.memory;
        entry.seen = ended.seen;
        let now = Instant::now();
        let look_again = ended
            .look_again
            .map(|moment| now + until(moment, self.context.clock.now()));
        self.queue.finish(id, now, look_again);
        // It may have moved while it ran.
        self.requeue_if_moved(&Arc::clone(id));
    }

    /// A target whose Sleeper came to another phase is due. What else is written there was decided here, mostly.
    fn changed(&mut self, change: &SleeperChange) {
        match change {
            SleeperChange::One { namespace, name } => {
                let name = (namespace.clone(), name.clone());
                if let Some(id) = self.by_sleeper.get(&name).cloned() {
                    self.requeue_if_moved(&id);
                }
            }
            SleeperChange::Any => {
                let all: Vec<_> = self.entries.keys().cloned().collect();
                for id in all {
                    self.requeue_if_moved(&id);
                }
            }
        }
    }

    fn requeue_if_moved(&mut self, id: &Id) {
        let Some(entry) = self.entries.get(id) else { return };
        if entry.abort.is_some() {
            return;
        }
        let now = self.context.sleepers.get(&sleeper_key(id));
        if let Some(seen) = entry.seen
            && now.is_none_or(|sleeper| state(&sleeper).phase != seen)
        {
            self.queue.requeue(id, Instant::now());
        }
    }
}

/// Whose changes a target is to hear of.
fn follow_sleeper(by_sleeper: &mut BySleeper, id: &Id, target: &Target) {
    let key = sleeper_key(id);
    let name = (key.namespace.clone(), key.object_name());
    if target.has_sleeper {
        by_sleeper.insert(name, Arc::clone(id));
    } else {
        by_sleeper.remove(&name);
    }
}

/// Asks the source what there is, and retires what is not any more. None: it took too long.
async fn list(context: Arc<Context>, shards: Shards) -> Option<Listed> {
    let limit = context.config.round_limit;
    let work = async {
        let listed = context.source.targets().await;
        match &listed {
            Ok(targets) => retire_missing(&context.owner, targets, &shards, &*context.sleepers).await,
            // Nothing is known about its targets now, so nothing changes for them.
            Err(error) => report_failure(&context, &shards, error).await,
        }
        listed
    };
    let listed = tokio::time::timeout(limit, work).await.ok();
    if listed.is_none() {
        tracing::error!("a listing did not end within {limit:?}");
    }
    listed
}

/// Says on all targets of the source that it fails.
async fn report_failure(context: &Context, shards: &Shards, error: &SourceError) {
    tracing::debug!(owner = %context.owner, code = error.code, "the source failed: {error}");
    let (update, now) = (of_source_failure(error), context.clock.now());
    let mut reports = Vec::new();
    for sleeper in context.sleepers.of_owner(&context.owner) {
        let namespace = sleeper.metadata.namespace.as_deref().unwrap_or_default();
        if shards.holds(namespace) {
            let key = target_key(SleeperKey::of(&sleeper));
            reports.push((key, Report::of(update.clone(), now)));
        }
    }
    context.tell_all(reports).await;
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What a listing under way said. A task that ended early said nothing.
async fn ended(listing: &mut Option<(Instant, AbortOnDropHandle<Option<Listed>>)>) -> Option<Listed> {
    match listing {
        Some((_, task)) => task.await.unwrap_or_else(|error| {
            tracing::error!("a listing ended early: {error}");
            None
        }),
        None => std::future::pending().await,
    }
}

/// A place to start a run, as soon as one is due.
async fn place_when_due(places: &Arc<Semaphore>, due: Option<Instant>) -> OwnedSemaphorePermit {
    at(due).await;
    match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        // It is never closed.
        Err(_) => std::future::pending().await,
    }
}

fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}

/// What is taken off the interval of a target: its own and always the same, so that targets that began together spread in time.
pub fn jitter(target: &Target) -> Duration {
    part(target.every / JITTER_PART, &target.key.name)
}

/// How often a target runs.
fn pace(target: &Target) -> Pace {
    Pace {
        every: target.every,
        jitter: jitter(target),
    }
}

/// A part of a span by a name: the same for a name every time.
fn part(span: Duration, name: &str) -> Duration {
    let parts = u32::try_from(fnv1a(name) >> 33).unwrap_or(0) % 1000;
    span * parts / 1000
}
