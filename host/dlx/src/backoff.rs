//! Growing pauses between attempts.

use std::time::Duration;

/// The pause after that many failures and one more: doubled by each, with jitter, so that those who failed together do not
/// come back together.
pub(crate) fn pause(failures: u32, first: Duration, longest: Duration) -> Duration {
    first
        .saturating_mul(1 << failures.min(10))
        .min(longest)
        .mul_f64(rand::random_range(0.5..1.0))
}
