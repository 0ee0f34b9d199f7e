//! How many replicas there may be.

use crate::{Limit, LimitKind};

/// By which factor a target may grow in one step where nothing else is declared.
const SCALE_UP_FACTOR: i64 = 2;
/// How far a target may grow in one step in any case, in replicas.
const SCALE_UP_MINIMUM: i64 = 4;

/// How few and how many replicas there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The fewest.
    pub min: i32,
    /// The most. May be below `min`, then `min` wins.
    pub max: i32,
}

impl Bounds {
    /// How many replicas may follow on `current` if `desired` are asked for and no `behavior` is declared, and what limits
    /// them: the bounds, and no more than twice as many or four.
    ///
    /// HorizontalPodAutoscalers without `behavior` and MemHpa have this rule in common.
    pub fn limit(self, current: i32, desired: i32) -> (i32, Option<Limit>) {
        let rate = (i64::from(current) * SCALE_UP_FACTOR).max(SCALE_UP_MINIMUM);
        let rate = i32::try_from(rate).unwrap_or(i32::MAX);
        let (most, kind) = if self.max > rate {
            (rate, LimitKind::ScaleUpPolicy)
        } else {
            (self.max, LimitKind::MaxReplicas)
        };
        if desired < self.min {
            limited(LimitKind::MinReplicas, desired, self.min)
        } else if desired > most {
            limited(kind, desired, most)
        } else {
            (desired, None)
        }
    }

    /// What a count outside of the bounds is set to at once, whatever the metrics say. None: it is within them.
    pub fn correction(self, current: i32) -> Option<Limit> {
        let correct = |kind, to| Limit {
            kind,
            from: current,
            to,
        };
        if current > self.max {
            Some(correct(LimitKind::MaxReplicas, self.max))
        } else if current < self.min {
            Some(correct(LimitKind::MinReplicas, self.min))
        } else {
            None
        }
    }
}

/// A count that was limited.
pub(crate) fn limited(kind: LimitKind, from: i32, to: i32) -> (i32, Option<Limit>) {
    (to, Some(Limit { kind, from, to }))
}
