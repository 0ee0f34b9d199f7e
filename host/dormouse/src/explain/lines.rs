//! How it is told.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// A span of time without fractions.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    format!("{:#}", SignedDuration::from_secs(seconds))
}

/// A title, and what is said under it in two columns.
#[derive(Default)]
pub(super) struct Lines {
    pub text: String,
}

impl Lines {
    pub fn title(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }

    pub fn add(&mut self, word: &str, text: &str) {
        // What was written by others has no say in the form.
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(self.text, "  {word:<10} {flat}");
    }

    /// What does not hold.
    pub fn add_problems<'a>(&mut self, conditions: impl IntoIterator<Item = &'a Condition>) {
        let bad = |condition: &&Condition| condition.status == "False";
        for condition in conditions.into_iter().filter(bad) {
            let text = format!(
                "{} ({}): {}",
                condition.type_, condition.reason, condition.message
            );
            self.add("problem", &text);
        }
    }
}
