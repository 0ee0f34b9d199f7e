//! Patience.

use std::time::Duration;

use tokio::time::Instant;

/// Longest that anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what nobody tells of.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for what must be there soon; says what was not.
pub async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for something that must happen soon; says what did not.
pub async fn eventually<F, R>(what: &str, holds: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    assert!(soon(holds).await, "never: {what}");
}

/// Whether it happens soon.
pub async fn soon<F, R>(mut holds: F) -> bool
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let begun = Instant::now();
    while !holds().await {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}
