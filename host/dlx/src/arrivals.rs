//! When requests and connections arrived: how many in each second of the last minute.

use std::sync::Mutex;

use dormouse_sleepers::Arrivals;

use crate::lock;

/// The longest window of a rate in seconds, and the second that has only begun.
const SECONDS: usize = 61;
const SECOND: u64 = 1000;
/// After so long without any, counting begins anew: what came long before would thin out what comes now.
const PAUSE: u64 = 10 * SECOND;

/// Arrivals for one Sleeper. Nothing but a lock before the first. Times are milliseconds of whoever asks.
#[derive(Debug, Default)]
pub(crate) struct ArrivalLog(Mutex<Option<Box<Counts>>>);

#[derive(Debug)]
struct Counts {
    /// When the first second began: with the first arrival after a pause.
    began: u64,
    last: u64,
    /// By second since then; those of more than a minute ago are written over.
    in_second: [u32; SECONDS],
}

impl ArrivalLog {
    /// Counts one.
    pub(crate) fn note(&self, at: u64) {
        match &mut *lock(&self.0) {
            Some(counts) => counts.note(at),
            none => *none = Some(Box::new(Counts::beginning(at))),
        }
    }

    /// What came of late. None: nothing ever did.
    pub(crate) fn report(&self, now: u64) -> Option<Arrivals> {
        lock(&self.0).as_ref().map(|counts| counts.report(now))
    }
}

impl Counts {
    fn beginning(at: u64) -> Self {
        let mut in_second = [0; SECONDS];
        in_second[0] = 1;
        Self {
            began: at,
            last: at,
            in_second,
        }
    }

    fn note(&mut self, at: u64) {
        // Whoever came first may have had to wait for the lock.
        let at = at.max(self.last);
        if at - self.last >= PAUSE {
            *self = Self::beginning(at);
            return;
        }
        let (latest, second) = (self.second(self.last), self.second(at));
        for empty in latest + 1..=second {
            self.in_second[slot(empty)] = 0;
        }
        let count = &mut self.in_second[slot(second)];
        *count = count.saturating_add(1);
        self.last = at;
    }

    fn report(&self, now: u64) -> Arrivals {
        let now = now.max(self.last);
        let (latest, second) = (self.second(self.last), self.second(now));
        if second - latest >= SECONDS as u64 {
            return Arrivals::default();
        }
        let ages = 0..=second.min(SECONDS as u64 - 1);
        let counts = ages.map(|age| second - age).map(|second| match second {
            counted if counted <= latest => u64::from(self.in_second[slot(counted)]),
            _ => 0,
        });
        Arrivals {
            counts: counts.collect(),
            millis: (now - self.began) % SECOND,
        }
    }

    fn second(&self, at: u64) -> u64 {
        at.saturating_sub(self.began) / SECOND
    }
}

/// Where a second is counted.
fn slot(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// What is reported of arrivals at these moments.
    fn reported(arrivals: impl IntoIterator<Item = u64>, now: u64) -> (Vec<u64>, u64) {
        let log = ArrivalLog::default();
        for at in arrivals {
            log.note(at);
        }
        let Arrivals { counts, millis } = log.report(now).expect("something arrived");
        (counts, millis)
    }

    #[rstest]
    #[case::at_once(&[5_300, 5_300], 5_300, &[2], 0)]
    #[case::from_the_first_on(&[5_300, 6_299, 6_300], 7_000, &[1, 2], 700)]
    #[case::nothing_since(&[5_300], 8_400, &[0, 0, 0, 1], 100)]
    #[case::after_a_pause(&[5_300, 5_400, 15_400], 15_500, &[1], 100)]
    #[case::before_the_pause_is_over(&[5_300, 5_400, 15_300], 15_500, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 200)]
    #[case::out_of_order(&[5_300, 6_500, 6_200], 6_400, &[2, 1], 200)]
    #[case::long_ago(&[5_300], 66_300, &[], 0)]
    fn arrivals_are_counted_by_second(
        #[case] arrivals: &[u64],
        #[case] now: u64,
        #[case] counts: &[u64],
        #[case] millis: u64,
    ) {
        let expected = (counts.to_vec(), millis);
        assert_eq!(reported(arrivals.iter().copied(), now), expected);
    }

    #[test]
    fn only_the_last_minute_is_remembered_however_long_it_goes_on() {
        // Second n has n arrivals.
        let arrivals =
            (0..200).flat_map(|second| vec![7 + second * SECOND; usize::try_from(second + 1).unwrap()]);
        let (counts, millis) = reported(arrivals, 199_500);
        let expected: Vec<u64> = (0..61).map(|age| 200 - age).collect();
        assert_eq!((counts, millis), (expected, 493));
    }

    #[test]
    fn nothing_is_kept_before_the_first() {
        assert_eq!(ArrivalLog::default().report(9), None);
    }
}
