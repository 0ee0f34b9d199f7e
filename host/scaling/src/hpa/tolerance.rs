//! How far a metric may be from its target without consequence.

use dormouse_model::Behavior;

/// How far the ratio of a metric to its target may be from 1, as fractions: 0.1 is 10 %.
///
/// Not a number is never within tolerance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Below 1.
    pub scale_down: f64,
    /// Above 1.
    pub scale_up: f64,
}

impl Tolerances {
    /// The same in both directions.
    pub fn both(tolerance: f64) -> Self {
        Self {
            scale_down: tolerance,
            scale_up: tolerance,
        }
    }

    /// Those of a `behavior`, and `default` where it says nothing.
    pub fn of(behavior: Option<&Behavior>, default: f64) -> Self {
        let scale_down = behavior.and_then(|behavior| behavior.scale_down.as_ref()?.tolerance);
        let scale_up = behavior.and_then(|behavior| behavior.scale_up.as_ref()?.tolerance);
        Self {
            scale_down: scale_down.map_or(default, |tolerance| tolerance.approximate()),
            scale_up: scale_up.map_or(default, |tolerance| tolerance.approximate()),
        }
    }

    /// Whether a ratio is close enough to 1. Both ends count, in floats as Kubernetes calculates them.
    pub fn contain(self, ratio: f64) -> bool {
        1.0 - self.scale_down <= ratio && ratio <= 1.0 + self.scale_up
    }
}
