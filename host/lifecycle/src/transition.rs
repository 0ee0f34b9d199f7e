//! Desired states, as changes to the Sleeper's state. Each is meant to be written by compare-and-set; on a conflict, read
//! again and ask again.

use dormouse_model::Phase;
use jiff::Timestamp;
use thiserror::Error;

use crate::traffic_check::spread;
use crate::{DesiredState, SleeperState, TrafficCheck, TrafficCheckPolicy};

/// Why a desired state was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// A wake is under way, and wake beats sleep.
    #[error("a wake is under way")]
    Waking,
    /// The state is so already.
    #[error("it is so already")]
    Already,
}

/// Somebody needs it: raises the epoch and turns the protocol round, wherever it stands.
///
/// # Errors
/// [`Refused::Already`] when it is awake or waking.
pub fn request_wake(
    state: &SleeperState,
    now: Timestamp,
    reason: &str,
    traffic_check: TrafficCheckPolicy,
    seed: u64,
) -> Result<SleeperState, Refused> {
    if state.desired == DesiredState::Awake
        && matches!(state.phase, Phase::Awake | Phase::Waking | Phase::Ready)
    {
        return Err(Refused::Already);
    }
    let mut next = state.clone();
    next.traffic_check = match state.phase {
        // The last look was right: start over with short waits.
        Phase::Asleep => TrafficCheck::default(),
        _ => traffic_check.disturbed(state.traffic_check, now, spread(seed, state.epoch)),
    };
    next.epoch += 1;
    next.desired = DesiredState::Awake;
    next.wake_started = Some(now);
    next.wake_failure = None;
    next.enter(Phase::Waking, now, reason);
    Ok(next)
}

/// It has been idle: send it to sleep.
///
/// # Errors
/// [`Refused`] when a wake is under way, or it is on its way to sleep already.
pub fn request_sleep(state: &SleeperState, reason: &str) -> Result<SleeperState, Refused> {
    match (state.desired, state.phase) {
        (DesiredState::Asleep, _) => Err(Refused::Already),
        (_, Phase::Waking | Phase::Ready) => Err(Refused::Waking),
        _ => Ok(SleeperState {
            desired: DesiredState::Asleep,
            reason: reason.into(),
            ..state.clone()
        }),
    }
}

/// Nobody knows whether it is idle: step into its traffic and count.
///
/// # Errors
/// [`Refused`] when a wake is under way, or it is diverted already.
pub fn request_observation(state: &SleeperState, reason: &str) -> Result<SleeperState, Refused> {
    match (state.desired, state.phase) {
        (DesiredState::Asleep | DesiredState::Observed, _) => Err(Refused::Already),
        (_, Phase::Waking | Phase::Ready) => Err(Refused::Waking),
        _ => Ok(SleeperState {
            desired: DesiredState::Observed,
            reason: reason.into(),
            ..state.clone()
        }),
    }
}
