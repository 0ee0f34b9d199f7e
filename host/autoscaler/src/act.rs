//! Carries recommendations out.
//!
//! * [`Lifecycle`]: targets that the protocol puts to sleep and wakes. Observing and waking are desired states, and so is sleep, unless the
//!   source asks for it itself, as plugins may do in their own way.
//! * [`Platform`]: targets that scale themselves. They are asked to sleep, and nothing else.

mod lifecycle;
mod platform;
mod set_scale;

use async_trait::async_trait;
use dormouse_kubernetes::ClusterError;
use dormouse_model::Target;
use dormouse_plugin::types::FieldCondition;
use dormouse_scaling::Desired;
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, DesiredStateError};
use thiserror::Error;

use crate::error::SourceError;
use crate::report::of_source_failure;
pub(crate) use lifecycle::Lifecycle;
pub(crate) use platform::Platform;
pub(crate) use set_scale::SetScale;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Nothing: it is as it should be.
    Unchanged,
    /// It was asked to sleep.
    Asked,
    /// It was asked to sleep, and the field of an object says how that goes.
    Watch(FieldCondition),
    /// It is to be observed.
    Observed,
    /// It is to be awake.
    Awake,
}

/// Why nothing was done.
#[derive(Clone, Debug, Error)]
pub(crate) enum ActError {
    /// The call of the source failed, for all that were in it.
    #[error(transparent)]
    SetScale(SourceError),
    /// The source says that it failed for this target.
    #[error("{0}")]
    Refused(String),
    /// It may not be put to sleep.
    #[error("{0}")]
    Denied(String),
    /// Its traffic cannot be diverted.
    #[error("{0}")]
    Unsupported(String),
    /// Somebody else's desired state came first, or its Sleeper is gone. The next run tells.
    #[error("something else was asked for meanwhile")]
    Superseded,
    /// What the API server said.
    #[error(transparent)]
    Cluster(ClusterError),
}

impl ActError {
    /// What it says about its target, if it says anything.
    pub fn condition(&self) -> Option<ConditionUpdate> {
        match self {
            Self::SetScale(error) => Some(of_source_failure(error)),
            Self::Refused(why) => Some(ConditionUpdate::bad(condition::PLUGIN, "SleepFailed", why)),
            Self::Denied(why) => Some(ConditionUpdate::bad(condition::DIVERTIBLE, "Denied", why)),
            Self::Unsupported(why) => Some(ConditionUpdate::bad(condition::DIVERTIBLE, "Undivertible", why)),
            Self::Superseded | Self::Cluster(_) => None,
        }
    }
}

impl From<DesiredStateError> for ActError {
    fn from(error: DesiredStateError) -> Self {
        match error {
            DesiredStateError::Denied(why) => Self::Denied(why),
            DesiredStateError::Unsupported(why) => Self::Unsupported(why),
            DesiredStateError::Superseded | DesiredStateError::Unknown(_) => Self::Superseded,
            DesiredStateError::Cluster(error) => Self::Cluster(error),
        }
    }
}

/// Brings a kind of target to where it should be.
#[async_trait]
pub(crate) trait Actuator: Send + Sync {
    /// Does it, or records the desired state for it. Holds nobody up but this target.
    async fn apply(&self, target: &Target, desired: Desired, why: &str) -> Result<Applied, ActError>;
}
