//! Pauses that grow.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Growing counts no more failures than this: by then the longest pause is reached.
const MOST: u32 = 32;

/// Pauses that begin short and double up to a longest one.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// From `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after so many failures in a row, beginning with 0, without jitter.
    pub fn after(self, failures: u32) -> Duration {
        let mut pauses = self.builder().build();
        let nth = usize::try_from(failures.min(MOST)).unwrap_or(0);
        pauses.nth(nth).unwrap_or(self.longest).min(self.longest)
    }

    /// The pause after so many failures in a row, from half of it to half as much again, so that many do not come back at once.
    pub fn jittered(self, failures: u32) -> Duration {
        self.after(failures).mul_f64(rand::random_range(0.5..1.5))
    }

    fn builder(self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .without_max_times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let millis = Duration::from_millis;
        let backoff = Backoff::new(millis(100), millis(1000));
        let pauses: Vec<_> = (0..6)
            .map(|failures| backoff.after(failures).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.after(u32::MAX), millis(1000));
        for failures in 0..100 {
            let pause = backoff.jittered(failures);
            assert!(pause >= millis(50) && pause <= millis(1500), "{pause:?}");
        }
    }
}
