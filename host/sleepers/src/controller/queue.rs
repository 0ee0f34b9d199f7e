//! The work queue of the controller. Pure: time is an argument.
//!
//! Each Sleeper has one run at a time. What changes during a run is followed by another run. Wakes go first, and some places are
//! kept for them. A Sleeper that fails is retried after a pause and delays no other.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use dormouse_kubernetes::Backoff;
use tokio::time::Instant;

use super::index::Name;

/// Runs at once.
pub(crate) const MAX_RUNS: usize = 64;
/// Of these, for what is not urgent.
const MAX_ORDINARY_RUNS: usize = 48;
/// Pauses after errors.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// The same while traffic may be waiting.
const URGENT_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// A Sleeper that failed is not tried again sooner than this, whatever is requested.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// A request to reconcile a Sleeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Traffic may be waiting for it.
    pub(crate) urgent: bool,
    /// It cuts a pause after an error short. Not so for a change of the Sleeper itself: recording the error is one.
    pub(crate) cuts_pause: bool,
    /// How long it is left to other processes first.
    pub(crate) delay: Duration,
    /// The caches do not show what happened: everything has to be read.
    pub(crate) uncached: bool,
}

impl Request {
    /// Two requests that came during one run, as one.
    fn merge(self, other: Self) -> Self {
        Self {
            urgent: self.urgent || other.urgent,
            cuts_pause: self.cuts_pause || other.cuts_pause,
            delay: self.delay.min(other.delay),
            uncached: self.uncached || other.uncached,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunOutcome {
    /// Nothing to do until something changes.
    Settled,
    /// Run again after this time.
    RequeueAfter(Duration),
    /// It failed.
    Failed {
        /// Traffic may be waiting for it.
        urgent: bool,
    },
    /// It does not exist any more.
    Gone,
}

#[derive(Default)]
struct Entry {
    running: bool,
    queued: bool,
    queued_urgent: bool,
    /// The next run has to read everything.
    uncached: bool,
    /// What was requested while it was running.
    pending: Option<Request>,
    due: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

/// Sleepers that are to run, and those that are running.
#[derive(Default)]
pub(crate) struct Queue {
    entries: HashMap<Name, Entry>,
    timers: BTreeSet<(Instant, Name)>,
    urgent: VecDeque<Name>,
    ordinary: VecDeque<Name>,
    running: usize,
}

impl Queue {
    /// Adds a Sleeper: it runs as soon as there is a place.
    pub(crate) fn add(&mut self, name: &Name, request: Request, now: Instant) {
        let entry = self.entries.entry(name.clone()).or_default();
        if entry.running {
            entry.pending = Some(entry.pending.map_or(request, |before| before.merge(request)));
            return;
        }
        entry.uncached |= request.uncached;
        let wanted = now + request.delay;
        if entry.failures > 0 {
            if request.cuts_pause {
                let soonest = entry.not_before.unwrap_or(now).max(wanted);
                self.schedule_by(name, soonest);
            }
            return;
        }
        if request.delay.is_zero() {
            self.enqueue(name, request.urgent);
        } else if !entry.queued {
            self.schedule_by(name, wanted);
        }
    }

    /// Forgets a Sleeper that is gone, unless it is running.
    pub(crate) fn forget(&mut self, name: &Name) {
        if self.entries.get(name).is_none_or(|entry| entry.running) {
            return;
        }
        if let Some(due) = self.entries.remove(name).and_then(|entry| entry.due) {
            self.timers.remove(&(due, name.clone()));
        }
    }

    fn enqueue(&mut self, name: &Name, urgent: bool) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if let Some(due) = entry.due.take() {
            self.timers.remove(&(due, name.clone()));
        }
        if urgent {
            // It may be among the ordinary ones already: the place that comes first is taken, the other is void.
            if !entry.queued_urgent {
                entry.queued_urgent = true;
                self.urgent.push_back(name.clone());
            }
        } else if !entry.queued {
            self.ordinary.push_back(name.clone());
        }
        entry.queued = true;
    }

    fn schedule(&mut self, name: &Name, due: Instant) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if let Some(old) = entry.due.replace(due) {
            self.timers.remove(&(old, name.clone()));
        }
        self.timers.insert((due, name.clone()));
    }

    /// Schedules it, unless it is due sooner.
    fn schedule_by(&mut self, name: &Name, due: Instant) {
        let before = self.entries.get(name).and_then(|entry| entry.due);
        self.schedule(name, before.map_or(due, |before| before.min(due)));
    }

    /// Queues those that are due.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((due, name)) = self.timers.first().cloned() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.due = None;
                self.enqueue(&name, false);
            }
        }
    }

    /// The next to run, if there is a place, and whether it has to read everything.
    pub(crate) fn pop(&mut self) -> Option<(Name, bool)> {
        loop {
            let name = if self.running < MAX_RUNS && !self.urgent.is_empty() {
                self.urgent.pop_front()?
            } else if self.running < MAX_ORDINARY_RUNS {
                self.ordinary.pop_front()?
            } else {
                return None;
            };
            let Some(entry) = self
                .entries
                .get_mut(&name)
                .filter(|entry| entry.queued && !entry.running)
            else {
                continue;
            };
            entry.queued = false;
            entry.queued_urgent = false;
            entry.running = true;
            self.running += 1;
            return Some((name, std::mem::take(&mut entry.uncached)));
        }
    }

    #[cfg(test)]
    fn pop_name(&mut self) -> Option<Name> {
        self.pop().map(|(name, _)| name)
    }

    /// A run has ended. `spread` in 0.8..1.2 jitters pauses after errors.
    pub(crate) fn finish(&mut self, name: &Name, outcome: RunOutcome, now: Instant, spread: f64) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.running = false;
        self.running = self.running.saturating_sub(1);
        let pending = entry.pending.take();
        match outcome {
            RunOutcome::Gone => {
                if pending.is_none() {
                    self.entries.remove(name);
                    return;
                }
                (entry.failures, entry.not_before) = (0, None);
            }
            RunOutcome::Settled => (entry.failures, entry.not_before) = (0, None),
            RunOutcome::RequeueAfter(pause) => {
                (entry.failures, entry.not_before) = (0, None);
                // It may have changed unseen meanwhile.
                entry.uncached = true;
                self.schedule(name, now + pause);
            }
            RunOutcome::Failed { urgent } => {
                let pauses = if urgent { URGENT_PAUSES } else { PAUSES };
                let pause = pauses.after(entry.failures);
                entry.uncached = true;
                entry.failures = entry.failures.saturating_add(1);
                entry.not_before = Some(now + LEAST_PAUSE);
                self.schedule(name, now + pause.mul_f64(spread));
            }
        }
        if let Some(request) = pending {
            self.add(name, request, now);
        }
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// How many wait for a place, and how many have one.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.urgent.len() + self.ordinary.len(), self.running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URGENT: Request = Request {
        urgent: true,
        cuts_pause: true,
        delay: Duration::ZERO,
        uncached: false,
    };
    const ORDINARY: Request = Request {
        urgent: false,
        ..URGENT
    };
    const ECHO: Request = Request {
        cuts_pause: false,
        ..URGENT
    };
    const OTHERS: Request = Request {
        delay: Duration::from_millis(100),
        ..URGENT
    };

    fn name(text: &str) -> Name {
        ("a".to_owned(), text.to_owned())
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop_name())
            .map(|(_, name)| name)
            .collect()
    }

    #[test]
    fn one_run_at_a_time_and_one_more_after_a_change() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&name("x"), ORDINARY, now);
        queue.add(&name("x"), ORDINARY, now);
        assert_eq!(drain(&mut queue), ["x"]);
        queue.add(&name("x"), ORDINARY, now);
        queue.add(&name("x"), URGENT, now);
        assert!(drain(&mut queue).is_empty(), "it is running");
        queue.finish(&name("x"), RunOutcome::Settled, now, 1.0);
        assert_eq!(drain(&mut queue), ["x"]);
        queue.finish(&name("x"), RunOutcome::Settled, now, 1.0);
        assert!(drain(&mut queue).is_empty());
        assert_eq!(queue.load(), (0, 0));
    }

    #[test]
    fn wakes_go_first_and_have_places_of_their_own() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for index in 0..100 {
            queue.add(&name(&format!("o{index}")), ORDINARY, now);
        }
        queue.add(&name("o50"), URGENT, now);
        let first = drain(&mut queue);
        assert_eq!((first.len(), first[0].as_str()), (MAX_ORDINARY_RUNS, "o50"));
        queue.add(&name("wake"), URGENT, now);
        assert_eq!(drain(&mut queue), ["wake"]);
        assert!(first.iter().filter(|n| *n == "o50").count() == 1);
    }

    #[test]
    fn failures_pause_longer_and_longer_and_do_not_hold_up_others() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut at = now;
        let mut pauses = Vec::new();
        queue.add(&name("bad"), ORDINARY, at);
        for _ in 0..12 {
            assert_eq!(drain(&mut queue), ["bad"]);
            queue.finish(&name("bad"), RunOutcome::Failed { urgent: false }, at, 1.0);
            let due = queue.next_due().unwrap();
            pauses.push(due - at);
            queue.add(&name("good"), ORDINARY, at);
            assert_eq!(drain(&mut queue), ["good"]);
            queue.finish(&name("good"), RunOutcome::Settled, at, 1.0);
            at = due;
            queue.advance(at);
        }
        assert_eq!(pauses[0], PAUSES.after(0));
        assert!(pauses.is_sorted());
        assert_eq!(*pauses.last().unwrap(), Duration::from_secs(30));
    }

    #[test]
    fn one_that_somebody_may_wait_for_never_pauses_for_long() {
        let mut queue = Queue::default();
        let mut at = Instant::now();
        queue.add(&name("x"), URGENT, at);
        for _ in 0..20 {
            assert_eq!(drain(&mut queue), ["x"]);
            queue.finish(&name("x"), RunOutcome::Failed { urgent: true }, at, 1.0);
            let due = queue.next_due().unwrap();
            assert!(due - at <= Duration::from_secs(5), "{:?}", due - at);
            at = due;
            queue.advance(at);
        }
    }

    #[test]
    fn asking_for_a_failed_one_shortens_its_pause_to_the_least() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&name("x"), URGENT, now);
        let mut at = now;
        for _ in 0..5 {
            assert_eq!(drain(&mut queue), ["x"]);
            queue.finish(&name("x"), RunOutcome::Failed { urgent: true }, at, 1.0);
            at = queue.next_due().unwrap();
            queue.advance(at);
        }
        assert_eq!(drain(&mut queue), ["x"]);
        queue.finish(&name("x"), RunOutcome::Failed { urgent: true }, at, 1.0);
        let due = queue.next_due().unwrap();
        assert!(due - at > LEAST_PAUSE);
        queue.add(&name("x"), ECHO, at);
        assert_eq!(
            queue.next_due().unwrap(),
            due,
            "our own record of the failure is no reason to try again"
        );
        queue.add(&name("x"), URGENT, at);
        assert!(drain(&mut queue).is_empty());
        assert_eq!(queue.next_due().unwrap(), at + LEAST_PAUSE);
        queue.advance(at + LEAST_PAUSE);
        assert_eq!(drain(&mut queue), ["x"]);
    }

    #[test]
    fn what_is_left_to_others_comes_later_unless_it_becomes_ours() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&name("x"), OTHERS, now);
        queue.add(&name("x"), OTHERS, now + OTHERS.delay / 2);
        assert!(drain(&mut queue).is_empty());
        assert_eq!(
            queue.next_due(),
            Some(now + OTHERS.delay),
            "news does not put it off further"
        );
        queue.add(&name("x"), URGENT, now);
        assert_eq!(drain(&mut queue), ["x"]);
        assert_eq!(queue.next_due(), None);
        queue.add(&name("x"), OTHERS, now);
        queue.finish(&name("x"), RunOutcome::Settled, now, 1.0);
        assert!(drain(&mut queue).is_empty());
        queue.advance(now + OTHERS.delay);
        assert_eq!(drain(&mut queue), ["x"]);
        queue.add(&name("x"), OTHERS, now);
        queue.add(&name("x"), URGENT, now);
        queue.finish(&name("x"), RunOutcome::Settled, now, 1.0);
        assert_eq!(drain(&mut queue), ["x"]);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&name("x"), ORDINARY, now);
        drain(&mut queue);
        queue.finish(&name("x"), RunOutcome::Gone, now, 1.0);
        assert!(queue.entries.is_empty() && queue.timers.is_empty());
    }
}
