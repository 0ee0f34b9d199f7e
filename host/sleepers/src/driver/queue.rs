//! Who is worked on when. Pure: time is an argument.
//!
//! Each Sleeper is worked on by one run at a time. What changes during a run makes for another run after it. Wakes go first, and
//! some places are kept for them. A Sleeper that fails waits, and nobody waits for it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::index::Name;

/// Runs at once.
pub(crate) const PLACES: usize = 64;
/// Of these, for what is not urgent.
const ORDINARY_PLACES: usize = 48;
/// First pause after an error.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause after an error.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause after an error while somebody may be waiting.
const LONGEST_URGENT_PAUSE: Duration = Duration::from_secs(5);
/// A Sleeper that failed is not tried again sooner than this, whoever asks.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// Something happened to a Sleeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touch {
    /// Somebody may be waiting for it.
    pub(crate) urgent: bool,
    /// It may cut a pause after an error short. Not so for changes of the Sleeper itself: recording the error is one.
    pub(crate) hopeful: bool,
    /// How long it is left to others first.
    pub(crate) after: Duration,
    /// Caches do not show what happened: everything has to be read.
    pub(crate) read: bool,
}

impl Touch {
    /// What two that came during one run amount to.
    fn and(self, other: Self) -> Self {
        Self {
            urgent: self.urgent || other.urgent,
            hopeful: self.hopeful || other.hopeful,
            after: self.after.min(other.after),
            read: self.read || other.read,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing to do until something changes.
    Settled,
    /// Look again after this time.
    Again(Duration),
    /// It failed.
    Failed {
        /// Somebody may be waiting for it.
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
    read: bool,
    /// What happened to it while it was running.
    again: Option<Touch>,
    due: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Queue {
    entries: HashMap<Name, Entry>,
    timers: BTreeSet<(Instant, Name)>,
    urgent: VecDeque<Name>,
    ordinary: VecDeque<Name>,
    running: usize,
}

impl Queue {
    /// Something happened to a Sleeper: work on it as soon as there is a place.
    pub(crate) fn touch(&mut self, name: &Name, touch: Touch, now: Instant) {
        let entry = self.entries.entry(name.clone()).or_default();
        if entry.running {
            entry.again = Some(entry.again.map_or(touch, |before| before.and(touch)));
            return;
        }
        entry.read |= touch.read;
        let wanted = now + touch.after;
        if entry.failures > 0 {
            if touch.hopeful {
                let soonest = entry.not_before.unwrap_or(now).max(wanted);
                self.schedule_by(name, soonest);
            }
            return;
        }
        if touch.after.is_zero() {
            self.enqueue(name, touch.urgent);
        } else if !entry.queued {
            self.schedule_by(name, wanted);
        }
    }

    /// A Sleeper that is gone need not be remembered, unless it is being worked on.
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
            // It may stand among the ordinary ones already: whichever place comes first is taken, the other is void.
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

    /// Schedules it, unless it is due sooner already.
    fn schedule_by(&mut self, name: &Name, due: Instant) {
        let before = self.entries.get(name).and_then(|entry| entry.due);
        self.schedule(name, before.map_or(due, |before| before.min(due)));
    }

    /// Lets those in whose time has come.
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

    /// The next to work on, if there is a place, and whether it has to read everything.
    pub(crate) fn pop(&mut self) -> Option<(Name, bool)> {
        loop {
            let name = if self.running < PLACES && !self.urgent.is_empty() {
                self.urgent.pop_front()?
            } else if self.running < ORDINARY_PLACES {
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
            return Some((name, std::mem::take(&mut entry.read)));
        }
    }

    #[cfg(test)]
    fn pop_name(&mut self) -> Option<Name> {
        self.pop().map(|(name, _)| name)
    }

    /// A run has ended. `spread` in 0.8..1.2 jitters pauses after errors.
    pub(crate) fn ended(&mut self, name: &Name, ended: Ended, now: Instant, spread: f64) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.running = false;
        self.running = self.running.saturating_sub(1);
        let again = entry.again.take();
        match ended {
            Ended::Gone => {
                if again.is_none() {
                    self.entries.remove(name);
                    return;
                }
                (entry.failures, entry.not_before) = (0, None);
            }
            Ended::Settled => (entry.failures, entry.not_before) = (0, None),
            Ended::Again(pause) => {
                (entry.failures, entry.not_before) = (0, None);
                // What is looked at for the time that has passed may have changed unseen.
                entry.read = true;
                self.schedule(name, now + pause);
            }
            Ended::Failed { urgent } => {
                let longest = if urgent {
                    LONGEST_URGENT_PAUSE
                } else {
                    LONGEST_PAUSE
                };
                let doubled = FIRST_PAUSE
                    .saturating_mul(2_u32.saturating_pow(entry.failures.min(16)))
                    .min(longest);
                entry.read = true;
                entry.failures = entry.failures.saturating_add(1);
                entry.not_before = Some(now + LEAST_PAUSE);
                self.schedule(name, now + doubled.mul_f64(spread));
            }
        }
        if let Some(touch) = again {
            self.touch(name, touch, now);
        }
    }

    /// When the next one's time comes.
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

    const URGENT: Touch = Touch {
        urgent: true,
        hopeful: true,
        after: Duration::ZERO,
        read: false,
    };
    const ORDINARY: Touch = Touch {
        urgent: false,
        ..URGENT
    };
    const ECHO: Touch = Touch {
        hopeful: false,
        ..URGENT
    };
    const OTHERS: Touch = Touch {
        after: Duration::from_millis(100),
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
        queue.touch(&name("x"), ORDINARY, now);
        queue.touch(&name("x"), ORDINARY, now);
        assert_eq!(drain(&mut queue), ["x"]);
        queue.touch(&name("x"), ORDINARY, now);
        queue.touch(&name("x"), URGENT, now);
        assert!(drain(&mut queue).is_empty(), "it is running");
        queue.ended(&name("x"), Ended::Settled, now, 1.0);
        assert_eq!(drain(&mut queue), ["x"]);
        queue.ended(&name("x"), Ended::Settled, now, 1.0);
        assert!(drain(&mut queue).is_empty());
        assert_eq!(queue.load(), (0, 0));
    }

    #[test]
    fn wakes_go_first_and_have_places_of_their_own() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for index in 0..100 {
            queue.touch(&name(&format!("o{index}")), ORDINARY, now);
        }
        queue.touch(&name("o50"), URGENT, now);
        let first = drain(&mut queue);
        assert_eq!((first.len(), first[0].as_str()), (ORDINARY_PLACES, "o50"));
        queue.touch(&name("wake"), URGENT, now);
        assert_eq!(drain(&mut queue), ["wake"]);
        assert!(first.iter().filter(|n| *n == "o50").count() == 1);
    }

    #[test]
    fn failures_pause_longer_and_longer_and_do_not_hold_up_others() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut at = now;
        let mut pauses = Vec::new();
        queue.touch(&name("bad"), ORDINARY, at);
        for _ in 0..12 {
            assert_eq!(drain(&mut queue), ["bad"]);
            queue.ended(&name("bad"), Ended::Failed { urgent: false }, at, 1.0);
            let due = queue.next_due().unwrap();
            pauses.push(due - at);
            queue.touch(&name("good"), ORDINARY, at);
            assert_eq!(drain(&mut queue), ["good"]);
            queue.ended(&name("good"), Ended::Settled, at, 1.0);
            at = due;
            queue.advance(at);
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(*pauses.last().unwrap(), LONGEST_PAUSE);
        assert!(Duration::from_secs(31) > LONGEST_URGENT_PAUSE);
    }

    #[test]
    fn asking_for_a_failed_one_shortens_its_pause_to_the_least() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.touch(&name("x"), URGENT, now);
        let mut at = now;
        for _ in 0..5 {
            assert_eq!(drain(&mut queue), ["x"]);
            queue.ended(&name("x"), Ended::Failed { urgent: true }, at, 1.0);
            at = queue.next_due().unwrap();
            queue.advance(at);
        }
        assert_eq!(drain(&mut queue), ["x"]);
        queue.ended(&name("x"), Ended::Failed { urgent: true }, at, 1.0);
        let due = queue.next_due().unwrap();
        assert!(due - at > LEAST_PAUSE);
        queue.touch(&name("x"), ECHO, at);
        assert_eq!(
            queue.next_due().unwrap(),
            due,
            "our own record of the failure is no reason to try again"
        );
        queue.touch(&name("x"), URGENT, at);
        assert!(drain(&mut queue).is_empty());
        assert_eq!(queue.next_due().unwrap(), at + LEAST_PAUSE);
        queue.advance(at + LEAST_PAUSE);
        assert_eq!(drain(&mut queue), ["x"]);
    }

    #[test]
    fn what_is_left_to_others_comes_later_unless_it_becomes_ours() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.touch(&name("x"), OTHERS, now);
        queue.touch(&name("x"), OTHERS, now + OTHERS.after / 2);
        assert!(drain(&mut queue).is_empty());
        assert_eq!(
            queue.next_due(),
            Some(now + OTHERS.after),
            "news does not put it off further"
        );
        queue.touch(&name("x"), URGENT, now);
        assert_eq!(drain(&mut queue), ["x"]);
        assert_eq!(queue.next_due(), None);
        queue.touch(&name("x"), OTHERS, now);
        queue.ended(&name("x"), Ended::Settled, now, 1.0);
        assert!(drain(&mut queue).is_empty());
        queue.advance(now + OTHERS.after);
        assert_eq!(drain(&mut queue), ["x"]);
        queue.touch(&name("x"), OTHERS, now);
        queue.touch(&name("x"), URGENT, now);
        queue.ended(&name("x"), Ended::Settled, now, 1.0);
        assert_eq!(drain(&mut queue), ["x"]);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.touch(&name("x"), ORDINARY, now);
        drain(&mut queue);
        queue.ended(&name("x"), Ended::Gone, now, 1.0);
        assert!(queue.entries.is_empty() && queue.timers.is_empty());
    }
}
