//! How long a column has been at or below a threshold.

use dormouse_model::Quantity;
use jiff::{SignedDuration, Timestamp};

use super::recording::Row;

/// Watches a column. What is not known is not at or below anything.
#[derive(Clone, Debug)]
pub(super) struct Quiet {
    column: usize,
    threshold: Quantity,
    /// When it was last above, or not known; or when the recording began.
    since: Timestamp,
}

impl Quiet {
    pub fn new(column: usize, threshold: Quantity, begin: Timestamp) -> Self {
        Self {
            column,
            threshold,
            since: begin,
        }
    }

    /// Whether it has been so for this time, and still is.
    pub fn has_lasted(&self, span: SignedDuration, row: &Row, now: Timestamp) -> bool {
        self.is(row) && now.duration_since(self.since) >= span
    }

    /// Time passes, with these readings.
    pub fn pass(&mut self, row: &Row, until: Timestamp) {
        if !self.is(row) {
            self.since = until;
        }
    }

    fn is(&self, row: &Row) -> bool {
        row.get(self.column).is_some_and(|value| value <= self.threshold)
    }
}
