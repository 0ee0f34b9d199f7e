//! What pods use of what they may use, and what is assumed of those whose usage is not known.

use std::collections::HashMap;

use crate::saturate::{to_i32, to_i64};

/// An amount of the same thing for each pod, by its name.
pub(crate) type Amounts<'a> = HashMap<&'a str, i64>;

/// What pods use on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utilization {
    /// Percent of what they may use together, cut to a whole number.
    pub percent: i32,
    /// In the unit of the amounts, cut to a whole number.
    pub average: i64,
}

impl Utilization {
    /// Of the pods that are in both. None if they may use nothing.
    pub fn of(used: &Amounts<'_>, allowed: &Amounts<'_>) -> Option<Self> {
        let (mut usage, mut limit, mut pods) = (0_i128, 0_i128, 0_i128);
        for (pod, amount) in used {
            // A sample of a pod that is not the target's is compared with nothing.
            if let Some(allowed) = allowed.get(pod) {
                usage += i128::from(*amount);
                limit += i128::from(*allowed);
                pods += 1;
            }
        }
        (limit != 0).then(|| Self {
            percent: to_i32(usage * 100 / limit),
            average: to_i64(usage / pods),
        })
    }

    /// How many times the target it is, which is in percent. Made of the whole number, so it is as coarse as that.
    pub fn ratio_to(self, target: i32) -> f64 {
        f64::from(self.percent) / f64::from(target)
    }
}

/// Adds pods whose usage is not known, as if it spoke against what the others ask for by their `ratio`: pods without a sample use all
/// they may if the others use too little, and nothing if they use too much. Then pods that are not ready use nothing either.
pub(crate) fn assume_opposite<'a>(
    used: &mut Amounts<'a>,
    ratio: f64,
    missing: &[&'a str],
    unready: impl IntoIterator<Item = &'a str>,
    full: impl Fn(&str) -> i64,
) {
    if ratio < 1.0 {
        used.extend(missing.iter().map(|pod| (*pod, full(pod))));
    } else if ratio > 1.0 {
        used.extend(missing.iter().map(|pod| (*pod, 0)));
        used.extend(unready.into_iter().map(|pod| (pod, 0)));
    }
}

/// Whether one ratio asks for more and the other for less.
pub(crate) fn contradict(one: f64, other: f64) -> bool {
    (one < 1.0 && other > 1.0) || (one > 1.0 && other < 1.0)
}
