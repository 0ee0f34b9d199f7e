//! How often what is costly may be done: at once after a quiet time, and less often the longer it takes.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after something, as a multiple of how long it took: it gets a fifth of the time at most.
const SHARE: u32 = 4;
/// The longest pause, however long it took.
const LONGEST: Duration = Duration::from_secs(2);

/// When something may be done again.
#[derive(Debug)]
pub(super) struct Pace {
    free: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { free: Instant::now() }
    }
}

impl Pace {
    /// Whether it may be done now.
    pub(super) fn is_free(&self) -> bool {
        Instant::now() >= self.free
    }

    /// Waits until it may be done.
    pub(super) fn free(&self) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep_until(self.free)
    }

    /// It was done, from that moment until now.
    pub(super) fn took(&mut self, began: Instant) {
        let now = Instant::now();
        self.free = now + ((now - began) * SHARE).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_done_a_fifth_of_the_time() {
        let mut pace = Pace::default();
        assert!(pace.is_free());
        let began = Instant::now();
        let mut plans = 0;
        while began.elapsed() < Duration::from_secs(10) {
            pace.free().await;
            let plan = Instant::now();
            tokio::time::advance(Duration::from_millis(100)).await;
            pace.took(plan);
            assert!(!pace.is_free());
            plans += 1;
        }
        assert!((19..=21).contains(&plans), "{plans}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_no_time_is_not_held_up_and_no_pause_is_long() {
        let mut pace = Pace::default();
        pace.took(Instant::now());
        assert!(pace.is_free());
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(60)).await;
        pace.took(began);
        let done = Instant::now();
        pace.free().await;
        assert_eq!(done.elapsed(), LONGEST);
    }
}
