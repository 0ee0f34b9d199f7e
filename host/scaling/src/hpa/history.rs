//! What was recommended and done before.

use std::time::Duration;

use jiff::Timestamp;

use crate::saturate::to_i32;
use crate::time::before;

/// What was recommended for a target and done to it before, as long as it can matter.
///
/// It is stored in the order and with the replacements of Kubernetes, because replacements show in later decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What was recommended before any window or limit.
    pub recommendations: Vec<TimedRecommendation>,
    /// Replicas that were added.
    pub scale_ups: Vec<ReplicaChange>,
    /// Replicas that were removed.
    pub scale_downs: Vec<ReplicaChange>,
}

/// A number of replicas that was recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedRecommendation {
    /// When.
    pub at: Timestamp,
    /// How many.
    pub replicas: i32,
}

/// Replicas that were added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaChange {
    /// When.
    pub at: Timestamp,
    /// How many, above zero.
    pub change: i32,
    /// Whether it may be replaced, because it was older than every policy of its own direction when the direction last changed. The
    /// policies of the other direction may still look back at it.
    pub outdated: bool,
}

impl History {
    /// Records a recommendation, in place of the last one that is expired.
    pub(super) fn recommend(
        &mut self,
        replicas: i32,
        now: Timestamp,
        expired: impl Fn(&TimedRecommendation) -> bool,
    ) {
        let recommendation = TimedRecommendation { at: now, replicas };
        store(&mut self.recommendations, recommendation, expired);
    }

    /// Records how many replicas there are, unless something was recommended before. So nothing is scaled down before a window has
    /// passed since the start.
    pub fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommend(replicas, now, |_| false);
        }
    }

    /// Records that the number of replicas was changed. What is older than `longest_period` may be replaced from now on, within the
    /// same direction.
    pub(super) fn rescaled(&mut self, from: i32, to: i32, longest_period: Duration, now: Timestamp) {
        let changes = if to > from {
            &mut self.scale_ups
        } else {
            &mut self.scale_downs
        };
        let oldest = before(now, longest_period);
        for change in changes.iter_mut().filter(|change| change.at < oldest) {
            change.outdated = true;
        }
        let change = ReplicaChange {
            at: now,
            change: to_i32((i128::from(to) - i128::from(from)).abs()),
            outdated: false,
        };
        store(changes, change, |change| change.outdated);
    }

    /// How many replicas there were before the changes within the last `period`.
    pub(super) fn replicas_before(&self, current: i32, period: Duration, now: Timestamp) -> i64 {
        let since = before(now, period);
        let total = |changes: &[ReplicaChange]| -> i64 {
            let recent = changes.iter().filter(|change| change.at > since);
            recent.map(|change| i64::from(change.change)).sum()
        };
        i64::from(current) - total(&self.scale_ups) + total(&self.scale_downs)
    }
}

/// Puts an entry in place of the last one that is expired, or at the end.
fn store<T>(entries: &mut Vec<T>, entry: T, expired: impl Fn(&T) -> bool) {
    match entries.iter_mut().rev().find(|entry| expired(entry)) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}
