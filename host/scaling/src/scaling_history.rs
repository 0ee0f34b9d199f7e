//! What was recommended and done before, as it is kept between two decisions.

use std::time::Duration;

use dormouse_model::Behavior;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hpa::{History, ReplicaChange, TimedRecommendation, with_defaults};
use crate::time::{before, seconds};

/// Entries of each list. Windows of an hour at a decision every 15 s have 240 recommendations, of which hardly any two matter.
const MOST: usize = 100;

/// What was recommended for a target and done to it, as far as later decisions can depend on it. It is kept in the status of the object
/// that declares the target, so that whoever decides next decides as the one before would have.
///
/// Lists are in the order of time. A recommendation that stays the same is not written again, so the last one may be younger than it
/// says: see [`ScalingHistory::resumed`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingHistory {
    /// What was recommended before any window or limit, and when last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recommendations: Vec<Recommended>,
    /// Replicas that were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scale_ups: Vec<Rescaled>,
    /// Replicas that were removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scale_downs: Vec<Rescaled>,
}

/// A number of replicas that was recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recommended {
    /// When last.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// How many.
    pub replicas: i32,
}

/// Replicas that were added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rescaled {
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// How many, above zero.
    pub change: i32,
}

impl ScalingHistory {
    /// The history that somebody else has written, taken up at `now` with `current` replicas. Its last recommendation may have been repeated
    /// until now, and counts as if it had, as far as it keeps what there is: nothing is added for what is only remembered.
    #[must_use]
    pub fn resumed(self, current: i32, now: Timestamp) -> Self {
        let mut resumed = self.until(now);
        if let Some(last) = resumed.recommendations.last_mut() {
            *last = Recommended {
                at: now,
                replicas: last.replicas.min(current),
            };
        }
        resumed
    }

    /// What was noted for later than `now`, by a clock that was ahead, was now.
    #[must_use]
    pub fn until(mut self, now: Timestamp) -> Self {
        for one in &mut self.recommendations {
            one.at = one.at.min(now);
        }
        for one in self.scale_ups.iter_mut().chain(&mut self.scale_downs) {
            one.at = one.at.min(now);
        }
        self
    }

    /// Whether it says the same, but for how long the last recommendation was repeated: then it need not be written.
    pub fn is_same(&self, other: &Self) -> bool {
        let recommended = match (
            self.recommendations.split_last(),
            other.recommendations.split_last(),
        ) {
            (Some((last, earlier)), Some((others, before))) => {
                last.replicas == others.replicas && earlier == before
            }
            (one, two) => one == two,
        };
        recommended && self.scale_ups == other.scale_ups && self.scale_downs == other.scale_downs
    }

    /// As decisions read it.
    pub(crate) fn to_history(&self) -> History {
        let changes = |all: &[Rescaled]| {
            let changes = all.iter().map(|one| ReplicaChange {
                at: one.at,
                change: one.change,
                outdated: false,
            });
            changes.collect()
        };
        History {
            recommendations: self
                .recommendations
                .iter()
                .map(|one| TimedRecommendation {
                    at: one.at,
                    replicas: one.replicas,
                })
                .collect(),
            scale_ups: changes(&self.scale_ups),
            scale_downs: changes(&self.scale_downs),
        }
    }

    /// What of a history can still matter after `now`.
    pub(crate) fn of(
        history: &History,
        behavior: Option<&Behavior>,
        downscale_window: Duration,
        now: Timestamp,
    ) -> Self {
        let spans = Spans::of(behavior, downscale_window);
        let changes = |all: &[ReplicaChange]| {
            let since = before(now, spans.longest_period);
            let recent = all.iter().filter(|one| one.at > since);
            let mut recent: Vec<_> = recent
                .map(|one| Rescaled {
                    at: one.at,
                    change: one.change,
                })
                .collect();
            recent.sort_by_key(|one| one.at);
            merged(recent)
        };
        Self {
            recommendations: significant(&history.recommendations, before(now, spans.longest_window)),
            scale_ups: changes(&history.scale_ups),
            scale_downs: changes(&history.scale_downs),
        }
    }
}

/// How far decisions look back.
struct Spans {
    longest_window: Duration,
    longest_period: Duration,
}

impl Spans {
    fn of(behavior: Option<&Behavior>, downscale_window: Duration) -> Self {
        let Some(rules) = behavior.map(with_defaults) else {
            return Self {
                longest_window: downscale_window,
                longest_period: Duration::ZERO,
            };
        };
        let down = rules.scale_down.stabilization_window_seconds;
        let up = rules.scale_up.stabilization_window_seconds;
        let policies = [&rules.scale_up, &rules.scale_down];
        let periods = policies.into_iter().flat_map(|rules| &rules.policies);
        let longest = periods.map(|policy| policy.period_seconds).max();
        Self {
            longest_window: down
                .map_or(downscale_window, seconds)
                .max(up.map_or(Duration::ZERO, seconds)),
            longest_period: seconds(longest.unwrap_or(0)),
        }
    }
}

/// The recommendations since a moment, without those that cannot be the highest or the lowest of any window that ends later: as high
/// a one and as low a one came after them.
fn significant(all: &[TimedRecommendation], since: Timestamp) -> Vec<Recommended> {
    let mut recent: Vec<_> = all.iter().filter(|one| one.at >= since).copied().collect();
    // Of the same moment the one that was stored last comes last.
    recent.sort_by_key(|one| one.at);
    let mut kept: Vec<Recommended> = Vec::new();
    let (mut highest, mut lowest) = (None, None);
    for one in recent.iter().rev() {
        let is_highest = highest.is_none_or(|highest| one.replicas > highest);
        let is_lowest = lowest.is_none_or(|lowest| one.replicas < lowest);
        if is_highest || is_lowest {
            kept.push(Recommended {
                at: one.at,
                replicas: one.replicas,
            });
        }
        highest = highest.max(Some(one.replicas));
        lowest = Some(lowest.map_or(one.replicas, |lowest: i32| lowest.min(one.replicas)));
    }
    // The youngest come first. The highest and the lowest of what is too much stay, as young as the youngest of it.
    if kept.len() > MOST {
        let surplus = kept.split_off(MOST - 2);
        let extremes = [
            surplus.iter().map(|one| one.replicas).max(),
            surplus.iter().map(|one| one.replicas).min(),
        ];
        let at = surplus.first().map(|one| one.at);
        kept.extend(
            extremes
                .into_iter()
                .flatten()
                .zip(at.into_iter().cycle())
                .map(|(replicas, at)| Recommended { at, replicas }),
        );
    }
    kept.reverse();
    kept
}

/// At most [`MOST`] changes: the oldest count as one, at the time of the latest of them, so that nothing is forgotten too soon.
fn merged(mut changes: Vec<Rescaled>) -> Vec<Rescaled> {
    let surplus = changes.len().saturating_sub(MOST);
    if surplus > 0 {
        let oldest = changes.drain(..surplus);
        let change = oldest.fold(0_i32, |sum, one| sum.saturating_add(one.change));
        if let Some(first) = changes.first_mut() {
            first.change = first.change.saturating_add(change);
        }
    }
    changes
}
