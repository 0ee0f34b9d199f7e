//! Which pods answer a wake: those that the wake brought, and not those that the sleep is still taking away.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::SleeperState;

/// The clocks of API server and Dormouse may differ by this much. Never more than half the drain grace is allowed for, by
/// which pods from before the sleep are older at least.
const SKEW: Duration = Duration::from_secs(2);

/// Which pods count as answers to the wake of a Sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// None: all of them.
    not_before: Option<Timestamp>,
}

impl Answers {
    /// Those that count now.
    pub fn of(state: &SleeperState, now: Timestamp, drain_grace: Duration) -> Self {
        let skew = SignedDuration::try_from(SKEW.min(drain_grace / 2)).unwrap_or(SignedDuration::ZERO);
        let not_before = state
            .pods_since(now)
            .map(|since| since.saturating_sub(skew).unwrap_or(since));
        Self { not_before }
    }

    /// Whether a pod counts, by when it was created.
    pub fn include(self, created: Option<Timestamp>) -> bool {
        match (self.not_before, created) {
            (None, _) => true,
            (Some(not_before), Some(created)) => created >= not_before,
            (Some(_), None) => false,
        }
    }

    /// Whether the age of a pod decides.
    pub fn depend_on_age(self) -> bool {
        self.not_before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use dormouse_model::Phase;
    use rstest::rstest;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[rstest]
    // At zero before: only pods from after the wake, and a little skew of clocks that the drain grace allows for.
    #[case(true, Duration::ZERO, 100, true)]
    #[case(true, Duration::ZERO, 99, false)]
    #[case(true, Duration::from_secs(2), 99, true)]
    #[case(true, Duration::from_secs(60), 98, true)]
    #[case(true, Duration::from_secs(60), 97, false)]
    // Never at zero: its old pods are as good as any.
    #[case(false, Duration::ZERO, 1, true)]
    fn pods_count_by_age(
        #[case] zero_observed: bool,
        #[case] grace: Duration,
        #[case] created: i64,
        #[case] counts: bool,
    ) {
        let woken = SleeperState {
            phase: Phase::Waking,
            zero_observed,
            wake_started: Some(at(100)),
            ..SleeperState::default()
        };
        let answers = Answers::of(&woken, at(101), grace);
        assert_eq!(answers.include(Some(at(created))), counts);
        assert_eq!(answers.depend_on_age(), zero_observed);
        assert_eq!(answers.include(None), !zero_observed);
    }
}
