//! Where a Sleeper stands between awake and asleep.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a resource stands between awake and asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Pods answer, Dormouse is not in the path.
    #[default]
    Awake,
    /// The DLX answers and joins the Services; then their selectors are parked.
    Diverting,
    /// All new connections go to the DLX, which forwards and counts. Replicas are untouched.
    Observing,
    /// No new connection reaches the pods; open ones get time to end.
    Draining,
    /// Scaled to zero, or being scaled to zero; the DLX holds whatever arrives.
    Asleep,
    /// Selectors and replicas are being restored.
    Waking,
    /// Pods are ready; the DLX leaves the Services.
    Ready,
}

impl Phase {
    /// Whether new connections are meant for the DLX, or about to be.
    pub fn is_away(self) -> bool {
        matches!(
            self,
            Phase::Diverting | Phase::Observing | Phase::Draining | Phase::Asleep
        )
    }
}
