//! Which target is due when. Pure: the time is an argument.
//!
//! A target is either waiting for its moment or running, so that it never runs twice at once. It runs again after its own interval, or
//! at the moment that its last run named, if that is sooner. Changes and such moments are urgent: they come before a routine
//! run that is due as well, but for one that is a whole interval late. Intervals are shortened by a jitter of the target's own,
//! so that those that once ran together spread over the interval in time.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time from the end of a run to the next one, whatever changes.
const SOONEST: Duration = Duration::from_millis(100);

/// How often a target runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The longest time between two runs.
    pub every: Duration,
    /// What is taken off.
    pub jitter: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { due: Instant, urgent: bool },
    Running { again: bool },
}

#[derive(Debug)]
struct Entry {
    pace: Pace,
    state: State,
    /// When it may run again.
    earliest: Option<Instant>,
}

/// Targets by the moment at which they are due. It holds what is put in and not removed again, so it is bounded by whoever
/// bounds the targets.
#[derive(Debug)]
pub(crate) struct DueQueue<K> {
    entries: HashMap<K, Entry>,
    urgent: BTreeSet<(Instant, K)>,
    routine: BTreeSet<(Instant, K)>,
}

impl<K> Default for DueQueue<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            urgent: BTreeSet::new(),
            routine: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> DueQueue<K> {
    /// Puts a target in that is due at a moment. One that is there already starts anew.
    pub fn insert(&mut self, key: K, pace: Pace, due: Instant, urgent: bool) {
        self.remove(&key);
        let state = State::Running { again: false };
        let entry = Entry {
            pace,
            state,
            earliest: None,
        };
        self.entries.insert(key.clone(), entry);
        self.wait(&key, due, urgent);
    }

    /// Takes a target out, whatever it does.
    pub fn remove(&mut self, key: &K) {
        if let Some((key, entry)) = self.entries.remove_entry(key)
            && let State::Waiting { due, urgent } = entry.state
        {
            self.order(urgent).remove(&(due, key));
        }
    }

    /// Changes how often a target runs, from its next run on.
    pub fn set_pace(&mut self, key: &K, pace: Pace) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.pace = pace;
        }
    }

    /// Something changed for a target: it is due now, or again when its run has ended.
    pub fn requeue(&mut self, key: &K, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let moment = entry.earliest.map_or(now, |earliest| earliest.max(now));
        match &mut entry.state {
            State::Running { again } => *again = true,
            State::Waiting { due, urgent } if *urgent && *due <= moment => {}
            State::Waiting { .. } => self.wait(key, moment, true),
        }
    }

    /// The next target that is due, and since when. It runs from now on.
    pub fn pop(&mut self, now: Instant) -> Option<(K, Instant)> {
        let urgent = self.urgent.first().filter(|(due, _)| *due <= now);
        let routine = self.routine.first().filter(|(due, _)| *due <= now);
        let from_routine = match (urgent, routine) {
            (None, None) => return None,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((urgent, _)), Some((routine, key))) => {
                let every = self
                    .entries
                    .get(key)
                    .map_or(Duration::ZERO, |entry| entry.pace.every);
                *routine + every <= *urgent
            }
        };
        let (due, key) = self.order(!from_routine).pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::Running { again: false };
        }
        Some((key, due))
    }

    /// A run has ended. The target is due after its interval, or at the moment that is named if that is sooner.
    pub fn finish(&mut self, key: &K, now: Instant, look_again: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let State::Running { again } = entry.state else {
            return;
        };
        let earliest = now + SOONEST;
        entry.earliest = Some(earliest);
        let routine = now + entry.pace.every.saturating_sub(entry.pace.jitter);
        if again {
            return self.wait(key, earliest, true);
        }
        match look_again.map(|moment| moment.max(earliest)) {
            Some(moment) if moment < routine => self.wait(key, moment, true),
            _ => self.wait(key, routine, false),
        }
    }

    /// When the next target is due, if any waits.
    pub fn next_due(&self) -> Option<Instant> {
        let first = |order: &BTreeSet<(Instant, K)>| order.first().map(|(due, _)| *due);
        [first(&self.urgent), first(&self.routine)]
            .into_iter()
            .flatten()
            .min()
    }

    /// All targets, waiting or running.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn wait(&mut self, key: &K, due: Instant, urgent: bool) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.state, State::Waiting { due, urgent });
        if let State::Waiting { due, urgent } = before {
            self.order(urgent).remove(&(due, key.clone()));
        }
        self.order(urgent).insert((due, key.clone()));
    }

    fn order(&mut self, urgent: bool) -> &mut BTreeSet<(Instant, K)> {
        if urgent {
            &mut self.urgent
        } else {
            &mut self.routine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVERY: Duration = Duration::from_secs(30);
    const PACE: Pace = Pace {
        every: EVERY,
        jitter: Duration::ZERO,
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn names(queue: &mut DueQueue<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop(now))
            .map(|(key, _)| key)
            .collect()
    }

    #[test]
    fn a_target_is_due_at_its_moment_and_then_after_its_interval() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        queue.insert("a", PACE, now + seconds(1), false);
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.next_due(), Some(now + seconds(1)));
        assert_eq!(queue.pop(now + seconds(2)), Some(("a", now + seconds(1))));
        assert_eq!(queue.next_due(), None, "it runs");
        queue.finish(&"a", now + seconds(5), None);
        assert_eq!(queue.next_due(), Some(now + seconds(35)));
    }

    #[test]
    fn the_moment_that_a_run_names_counts_if_it_is_sooner() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        for (named, due) in [
            (Some(seconds(7)), seconds(7)),
            (Some(seconds(70)), EVERY),
            (Some(Duration::ZERO), SOONEST),
        ] {
            queue.insert("a", PACE, now, false);
            assert!(queue.pop(now).is_some());
            queue.finish(&"a", now, named.map(|span| now + span));
            assert_eq!(queue.next_due(), Some(now + due), "{named:?}");
        }
    }

    #[test]
    fn the_jitter_shortens_the_interval() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        let pace = Pace {
            jitter: seconds(2),
            ..PACE
        };
        queue.insert("a", pace, now, false);
        assert!(queue.pop(now).is_some());
        queue.finish(&"a", now, None);
        assert_eq!(queue.next_due(), Some(now + seconds(28)));
    }

    #[test]
    fn what_changed_comes_before_what_is_merely_due() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        queue.insert("routine", PACE, now, false);
        queue.insert("deadline", PACE, now + seconds(1), true);
        queue.insert("changed", PACE, now + seconds(20), false);
        queue.requeue(&"changed", now + seconds(2));
        assert_eq!(
            names(&mut queue, now + seconds(3)),
            ["deadline", "changed", "routine"]
        );
    }

    #[test]
    fn changes_without_end_do_not_keep_others_from_running() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        queue.insert("routine", PACE, now, false);
        queue.insert("busy", PACE, now + seconds(29), true);
        assert_eq!(queue.pop(now + seconds(40)).map(|(key, _)| key), Some("busy"));
        queue.requeue(&"busy", now + seconds(40));
        queue.finish(&"busy", now + seconds(40), None);
        assert_eq!(queue.pop(now + seconds(40)).map(|(key, _)| key), Some("routine"));
    }

    #[test]
    fn a_change_during_a_run_makes_another_run_and_never_two_at_once() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        queue.insert("a", PACE, now, false);
        assert!(queue.pop(now).is_some());
        queue.requeue(&"a", now);
        queue.requeue(&"a", now);
        assert_eq!(queue.pop(now + EVERY), None);
        queue.finish(&"a", now + seconds(1), None);
        assert_eq!(queue.pop(now + seconds(1)), None, "not at once");
        assert!(queue.pop(now + seconds(2)).is_some());
        queue.finish(&"a", now + seconds(2), None);
        assert_eq!(queue.pop(now + seconds(3)), None, "once");
    }

    #[test]
    fn a_target_that_changes_without_end_rests_after_each_run() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        queue.insert("a", PACE, now, false);
        let mut runs = 0;
        for millis in 0..1000 {
            let now = now + Duration::from_millis(millis);
            queue.requeue(&"a", now);
            if queue.pop(now).is_some() {
                runs += 1;
                queue.finish(&"a", now, None);
            }
        }
        assert_eq!(runs, 10);
    }

    #[test]
    fn what_is_removed_is_never_due_and_the_end_of_its_run_is_nothing() {
        let (mut queue, now) = (DueQueue::default(), Instant::now());
        queue.insert("a", PACE, now, true);
        queue.insert("b", PACE, now, true);
        assert!(queue.pop(now).is_some());
        queue.remove(&"a");
        queue.remove(&"b");
        queue.finish(&"a", now, None);
        assert_eq!(
            (queue.len(), queue.next_due(), queue.pop(now + EVERY)),
            (0, None, None)
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, bool),
        Remove(u8),
        Requeue(u8),
        Finish(u8, Option<u8>),
        Pop,
        Pass(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0_u8..4;
        prop_oneof![
            (key.clone(), any::<bool>()).prop_map(|(key, urgent)| Step::Insert(key, urgent)),
            key.clone().prop_map(Step::Remove),
            key.clone().prop_map(Step::Requeue),
            (key, proptest::option::of(0_u8..60)).prop_map(|(key, moment)| Step::Finish(key, moment)),
            Just(Step::Pop),
            (0_u8..20).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: a target that is in runs at most once at a time, and within an interval of the end of its last run.
        #[test]
        fn every_target_runs_and_none_twice_at_once(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut queue, mut now) = (DueQueue::default(), Instant::now());
            let mut running = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(key, urgent) => {
                        running.remove(&key);
                        queue.insert(key, PACE, now, urgent);
                    }
                    Step::Remove(key) => {
                        running.remove(&key);
                        queue.remove(&key);
                    }
                    Step::Requeue(key) => queue.requeue(&key, now),
                    Step::Finish(key, moment) => {
                        running.remove(&key);
                        let moment = moment.map(|moment| now + seconds(moment.into()));
                        queue.finish(&key, now, moment);
                    }
                    Step::Pop => {
                        if let Some((key, due)) = queue.pop(now) {
                            prop_assert!(due <= now);
                            prop_assert!(running.insert(key), "it runs already");
                        }
                    }
                    Step::Pass(span) => now += seconds(span.into()),
                }
                let waiting = queue.urgent.len() + queue.routine.len();
                prop_assert_eq!(waiting + running.len(), queue.len());
            }
            now += EVERY;
            while let Some((key, _)) = queue.pop(now) {
                prop_assert!(running.insert(key));
            }
            prop_assert_eq!(running.len(), queue.len());
        }
    }
}
