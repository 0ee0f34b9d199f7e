//! What every part of the protocol uses.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Next, Step, Timings, WaitReason};
use crate::{Observation, Selector, Service, SleeperState, Workload, WorkloadReplicas, request_wake};

pub(super) fn settled() -> Next {
    Next::Wait {
        reason: WaitReason::Settled,
        until: None,
    }
}

pub(super) fn wait(reason: WaitReason, until: Option<Timestamp>) -> Next {
    Next::Wait { reason, until }
}

pub(super) fn act_state(seen: &Observation, change: impl FnOnce(&mut SleeperState)) -> Next {
    let mut state = seen.state.clone();
    change(&mut state);
    Next::Act(vec![Step::SetState(Box::new(state))])
}

pub(super) fn after(from: Option<Timestamp>, now: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    from.unwrap_or(now).saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// A wake that the protocol itself asks for.
pub(super) fn wake(seen: &Observation, timings: &Timings, reason: &str) -> Next {
    let seed = u64::try_from(seen.state.epoch).unwrap_or(0);
    match request_wake(&seen.state, seen.now, reason, timings.look, seed) {
        Ok(state) => Next::Act(vec![Step::SetState(Box::new(state))]),
        Err(_) => settled(),
    }
}

/// Until when nodes may not have caught up with an outage of the API server. What is added and what is taken away may reach
/// them at once then, in any order, so nothing that they may still lead to is taken away.
pub(super) fn catching_up(seen: &Observation, timings: &Timings) -> Option<Timestamp> {
    caught_up(seen, timings).filter(|until| seen.now < *until)
}

/// When nodes have caught up with the last outage, be it to come or past.
pub(super) fn caught_up(seen: &Observation, timings: &Timings) -> Option<Timestamp> {
    let last = seen.last_outage.filter(|_| existing(seen).next().is_some())?;
    Some(timings.caught_up(last))
}

pub(super) fn existing(seen: &Observation) -> impl Iterator<Item = (&Service, &Selector)> {
    seen.services
        .iter()
        .filter_map(|service| Some((service, service.selector.as_ref()?)))
}

pub(super) fn record(seen: &Observation, workload: &Workload) -> WorkloadReplicas {
    WorkloadReplicas {
        workload: workload.object.clone(),
        replicas: wanted_replicas(seen, workload, Some(workload.replicas)),
    }
}

pub(super) fn wanted_replicas(seen: &Observation, workload: &Workload, recorded: Option<i32>) -> i32 {
    seen.restore_replicas
        .or(workload.autoscaler_minimum)
        .or(recorded)
        .unwrap_or(1)
        .max(1)
}
