//! Targets that the protocol puts to sleep and wakes.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_model::Target;
use dormouse_scaling::Desired;
use tokio::sync::Semaphore;

use super::{ActError, Actuator, Applied, SetScale};
use crate::Sleepers;
use crate::key::sleeper_key;
use crate::metrics::Metrics;

/// Sleep by the source, if it does that itself; everything else by desired states.
pub(crate) struct Lifecycle {
    pub set_scale: Option<Arc<SetScale>>,
    pub sleepers: Arc<dyn Sleepers>,
    pub writing: Arc<Semaphore>,
    pub metrics: Metrics,
}

#[async_trait]
impl Actuator for Lifecycle {
    async fn apply(&self, target: &Target, desired: Desired, why: &str) -> Result<Applied, ActError> {
        let owner = &target.key.owner;
        match desired {
            // A number of replicas is written where it was read.
            Desired::Hold | Desired::Exactly(_) => Ok(Applied::Unchanged),
            Desired::Zero => match &self.set_scale {
                Some(set_scale) => set_scale.to_zero(target, why).await,
                None => self.sleep(target, why).await,
            },
            Desired::Observe => {
                let _place = self.writing.acquire().await;
                if self.sleepers.observe(&sleeper_key(&target.key), why).await? {
                    self.metrics.observation(owner, "begun");
                }
                Ok(Applied::Observed)
            }
            Desired::Activate | Desired::StopObserving => {
                let _place = self.writing.acquire().await;
                if self.sleepers.wake(&sleeper_key(&target.key), why).await? {
                    self.metrics.observation(owner, "disturbed");
                }
                Ok(Applied::Awake)
            }
        }
    }
}

impl Lifecycle {
    async fn sleep(&self, target: &Target, why: &str) -> Result<Applied, ActError> {
        let (owner, resource) = (&target.key.owner, &target.key);
        let place = self.writing.acquire().await;
        let asked = self.sleepers.sleep(&sleeper_key(resource), why).await;
        drop(place);
        self.metrics
            .sleep(owner, if asked.is_ok() { "accepted" } else { "failed" });
        if !asked? {
            return Ok(Applied::Unchanged);
        }
        tracing::info!(%owner, %resource, "asked to sleep: {why}");
        Ok(Applied::Asked)
    }
}
