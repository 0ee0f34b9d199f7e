//! Accepting that fails, for the log.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Door;
use crate::lock;

/// How often it is said that accepting fails.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

/// Says that accepting fails, once in a while for all doors together.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<(Instant, u64)>>);

impl Trouble {
    pub(crate) fn warn(&self, error: &io::Error, door: Door) {
        let mut last = lock(&self.0);
        match &mut *last {
            Some((said, unsaid)) if said.elapsed() < TROUBLE_INTERVAL => *unsaid += 1,
            last => {
                let unsaid = last.map_or(0, |(_, unsaid)| unsaid);
                tracing::warn!(%error, ?door, unsaid, "accepting a connection failed");
                *last = Some((Instant::now(), 0));
            }
        }
    }
}
