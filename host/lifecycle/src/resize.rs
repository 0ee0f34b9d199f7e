//! Whether the number of replicas of a workload may be changed between one and many.

use dormouse_model::Phase;
use thiserror::Error;

use crate::{DesiredState, SleeperState};

/// Why the number of replicas is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotNow {
    /// There are no replicas: only a wake brings the first one.
    #[error("it is at zero replicas, which only a wake leaves")]
    AtZero,
    /// None would be left: only a sleep takes the last one.
    #[error("zero replicas are only reached by going to sleep")]
    ToZero,
    /// It is on its way to sleep, asleep, or on its way back.
    #[error("it is {0:?}")]
    Moving(Phase),
}

/// Whether a workload may be resized from `from` to `to` replicas. `state` is what its Sleeper remembers, if it has one. The write must be
/// conditional on the version of the scale that says `from`: then it loses against a sleep and against a wake.
///
/// While it wakes there may be more than the wake restores, since as many requests may be waiting, but not fewer.
///
/// # Errors
/// [`NotNow`].
pub fn may_resize(state: Option<&SleeperState>, from: i32, to: i32) -> Result<(), NotNow> {
    if from <= 0 {
        return Err(NotNow::AtZero);
    }
    if to <= 0 {
        return Err(NotNow::ToZero);
    }
    let Some(state) = state else { return Ok(()) };
    match (state.desired, state.phase) {
        (DesiredState::Awake | DesiredState::Observed, Phase::Awake)
        | (DesiredState::Observed, Phase::Diverting | Phase::Observing) => Ok(()),
        (DesiredState::Awake, Phase::Waking | Phase::Ready) if to > from => Ok(()),
        (_, phase) => Err(NotNow::Moving(phase)),
    }
}
