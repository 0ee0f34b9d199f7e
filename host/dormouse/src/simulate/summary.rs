//! What a simulation says, for people and for programs.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::target::Target;
use super::timeline::{Change, Timeline, hours};

/// What became of it, in numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    name: String,
    begin: Timestamp,
    end: Timestamp,
    rounds: usize,
    /// Rounds in which nothing could be decided.
    undecided: usize,
    min_replicas: i32,
    max_replicas: i32,
    replica_hours: f64,
    /// With the most replicas that are allowed, all the time.
    replica_hours_at_most: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica_hours_recorded: Option<f64>,
    hours_at_zero: f64,
    cold_starts: usize,
    /// How long somebody needed it while no pod was ready.
    waited_seconds: f64,
    /// What is used instead of what is wrong in the target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    corrections: Vec<String>,
    changes: Vec<Change>,
}

impl Summary {
    pub fn new(target: &Target, most: i32, timeline: Timeline, recorded: Option<f64>) -> Self {
        let (min_replicas, max_replicas) = timeline.range();
        Self {
            name: target.name.clone(),
            corrections: target.corrections.clone(),
            begin: timeline.begin,
            end: timeline.end,
            rounds: timeline.rounds,
            undecided: timeline.undecided,
            min_replicas,
            max_replicas,
            replica_hours: timeline.replica_hours(),
            replica_hours_at_most: hours(timeline.begin, timeline.end) * f64::from(most),
            replica_hours_recorded: recorded,
            hours_at_zero: timeline.hours_at_zero(),
            cold_starts: timeline.cold_starts(),
            waited_seconds: timeline.waited.as_secs_f64(),
            changes: timeline.changes,
        }
    }

    /// The timeline, a line for each change, and the numbers under it.
    pub fn text(&self, with_changes: bool) -> String {
        let mut lines = Vec::new();
        if with_changes {
            for change in &self.changes {
                lines.push(format!(
                    "{}  {:>4} -> {:<4}  {}",
                    change.at, change.from, change.to, change.why
                ));
            }
            lines.push(String::new());
        }
        lines.push(format!(
            "{}, {} to {}, {} rounds",
            self.name, self.begin, self.end, self.rounds
        ));
        let mut hours = format!(
            "replica-hours  {:.1}, {} of {:.1} with the most replicas all the time",
            self.replica_hours,
            percent(self.replica_hours, self.replica_hours_at_most),
            self.replica_hours_at_most
        );
        if let Some(recorded) = self.replica_hours_recorded {
            hours += &format!(
                "; {} of {recorded:.1} as recorded",
                percent(self.replica_hours, recorded)
            );
        }
        lines.push(hours);
        let ups = self
            .changes
            .iter()
            .filter(|change| change.to > change.from)
            .count();
        lines.push(format!(
            "replicas       {} to {}, {} up, {} down",
            self.min_replicas,
            self.max_replicas,
            ups,
            self.changes.len() - ups
        ));
        let waited = SignedDuration::try_from_secs_f64(self.waited_seconds.round()).unwrap_or_default();
        lines.push(format!(
            "zero           {:.1} hours; cold starts: {}; somebody waited {waited:#} in all",
            self.hours_at_zero, self.cold_starts
        ));
        if self.undecided > 0 {
            lines.push(format!(
                "undecided      {} rounds: a reading was missing, or no pod was ready",
                self.undecided
            ));
        }
        let corrections = self.corrections.iter();
        lines.extend(corrections.map(|correction| format!("corrected      {correction}")));
        lines.join("\n") + "\n"
    }
}

fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 {
        format!("{:.0} %", part / whole * 100.0)
    } else {
        "-".to_owned()
    }
}
