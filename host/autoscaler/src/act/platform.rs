//! Targets whose platform scales them.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_model::{Phase, Target, TargetState};
use dormouse_scaling::Desired;
use dormouse_sleepers::{Sleeper, SleeperKey};

use super::{ActError, Actuator, Applied, SetScale};
use crate::Sleepers;
use crate::sleepers::state;

/// Asks the source; the platform does the rest.
pub(crate) struct Platform {
    pub set_scale: Arc<SetScale>,
    pub sleepers: Arc<dyn Sleepers>,
}

#[async_trait]
impl Actuator for Platform {
    async fn apply(&self, target: &Target, desired: Desired, why: &str) -> Result<Applied, ActError> {
        match desired {
            Desired::Zero => {
                let applied = self.set_scale.to_zero(target, why).await?;
                // Sleepers that the protocol carries out tell their own story.
                if applied != Applied::Unchanged {
                    let (namespace, object) = (&target.key.namespace, &target.object);
                    self.sleepers
                        .tell(namespace, object, false, "SleepRequested", why)
                        .await;
                }
                Ok(applied)
            }
            Desired::Hold
            | Desired::Activate
            | Desired::Exactly(_)
            | Desired::Observe
            | Desired::StopObserving => Ok(Applied::Unchanged),
        }
    }
}

impl Platform {
    /// Shows on its Sleeper what the platform of a target says.
    pub async fn mirror(&self, target: &Target, sleeper: &Sleeper) {
        let shown = state(sleeper).phase;
        let seen = phase(target.state, shown);
        if seen == shown {
            return;
        }
        let key = SleeperKey::of(sleeper);
        if let Err(error) = self.sleepers.mirror(&key, seen, "its platform says so").await {
            tracing::warn!(resource = %key, "its phase was not shown: {error}");
        }
    }
}

/// The phase of a target that scales itself.
fn phase(state: TargetState, shown: Phase) -> Phase {
    match state {
        TargetState::Awake => Phase::Awake,
        TargetState::Asleep => Phase::Asleep,
        TargetState::Changing if matches!(shown, Phase::Asleep | Phase::Waking | Phase::Ready) => {
            Phase::Waking
        }
        TargetState::Changing => Phase::Draining,
    }
}
