//! What every part of the protocol uses.

use std::time::Duration;

use dormouse_model::Phase;
use jiff::{SignedDuration, Timestamp};

use super::{Next, Step, Timings, WaitReason};
use crate::{Observation, Selector, Service, SleeperState, Workload, WorkloadReplicas, Zero, request_wake};

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

/// The step that remembers that workloads are at zero, and since when no pod is left. None: both are remembered as far as they are so.
pub(super) fn note_zero(seen: &Observation) -> Option<Step> {
    let newly_gone = !seen.state.pods_gone && !seen.pods_left;
    if seen.state.zero_observed && !newly_gone {
        return None;
    }
    let mut state = seen.state.clone();
    state.zero_observed = true;
    if newly_gone {
        (state.pods_gone, state.pods_gone_at) = (true, Some(seen.now));
    }
    Some(Step::SetState(Box::new(state)))
}

pub(super) fn after(from: Option<Timestamp>, now: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    from.unwrap_or(now).saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// A wake that the protocol itself asks for.
pub(super) fn wake(seen: &Observation, timings: &Timings, reason: &str) -> Next {
    match request_wake(&seen.state, seen.now, reason, timings.traffic_check, seen.seed) {
        Ok(state) => Next::Act(vec![Step::SetState(Box::new(state))]),
        Err(_) => settled(),
    }
}

/// A moment from which a patience counts, and that was lost or lies in the future, is now: otherwise the patience never ends.
pub(super) fn dated(seen: &Observation, timings: &Timings) -> Option<Next> {
    let state = &seen.state;
    // Clocks of two writers differ a little.
    let latest = after(Some(seen.now), seen.now, timings.give_up);
    let lost = |moment: Option<Timestamp>| moment.is_none_or(|moment| moment > latest);
    let leaving = seen.deleting && seen.services.iter().any(|service| service.own_slice.is_some());
    let since = (state.phase != Phase::Awake || leaving) && lost(state.since);
    let started = state.phase == Phase::Waking && lost(state.wake_started);
    let now = seen.now;
    (since || started).then(|| {
        act_state(seen, |state| {
            if since {
                state.since = Some(now);
            }
            if started {
                state.wake_started = Some(now);
            }
        })
    })
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

/// What a wake restores. Zero for what was at zero without us: a request wakes it, but who takes Dormouse away leaves it there.
pub(super) fn record(seen: &Observation, workload: &Workload) -> WorkloadReplicas {
    let replicas = match workload.replicas {
        0 => workload.noted.unwrap_or(0),
        up => wanted_replicas(seen, workload, Some(up)),
    };
    WorkloadReplicas {
        workload: workload.object.clone(),
        replicas,
    }
}

/// How many replicas the workload had when it was put to sleep, as the Sleeper remembers it, or else as the workload tells; zero: it
/// was at zero without us. None: it was not put to sleep.
pub(super) fn recorded(seen: &Observation, workload: &Workload) -> Option<i32> {
    let mut known = seen.state.replicas.iter();
    known
        .find(|recorded| recorded.workload == workload.object)
        .map(|recorded| recorded.replicas)
        .or(workload.noted)
}

/// Workloads that exist.
pub(super) fn workloads(seen: &Observation) -> impl Iterator<Item = &Workload> {
    seen.workloads.iter().filter(|workload| workload.exists)
}

/// Whether there are workloads, all of them at zero, and for all of them that means `zero`.
pub(super) fn all_at_zero(seen: &Observation, zero: Zero) -> bool {
    workloads(seen).next().is_some()
        && workloads(seen).all(|workload| workload.replicas == 0 && workload.zero == zero)
}

pub(super) fn wanted_replicas(seen: &Observation, workload: &Workload, recorded: Option<i32>) -> i32 {
    seen.restore_replicas
        .or(workload.autoscaler_minimum)
        .or(recorded)
        .unwrap_or(1)
        .max(1)
}
