//! Back to Awake, from wherever it stands, and out of the way.

use std::time::Duration;

use super::common::{act_state, after, catching_up, existing, settled, wait, wake, wanted_replicas};
use super::{Next, Step, Timings, WaitReason};
use crate::{Listed, Observation, Phase, Selector, Service, WakeFailure, Wish, Workload, WorkloadReplicas};

/// How often the record of a wake that waits for a person is renewed.
const FAILURE_REFRESH: Duration = Duration::from_secs(1);

/// Settled, except for what came too late: a slice or a parked selector that an executor wrote on an old decision, or that
/// an executor with an old view did not see when it ended the wake.
pub(super) fn awake(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = recover(seen) {
        return next;
    }
    if restores(seen).is_empty() && seen.lost_selector().is_none() {
        return behind(seen, timings)
            .or_else(|| leave(seen))
            .unwrap_or_else(settled);
    }
    let now = seen.now;
    act_state(seen, |state| {
        state.epoch = state.epoch.max(seen.carried);
        state.enter(Phase::Ready, now, "a Service was still parked");
    })
}

/// What the Sleeper remembered is lost: it says awake, but a sleep has left its marks. It goes on sleeping where the DLX can stand in
/// as it did, and wakes otherwise.
pub(super) fn recover(seen: &Observation) -> Option<Next> {
    if !was_put_to_sleep(seen) {
        return None;
    }
    let parked = |selector: &Selector| matches!(selector, Selector::Parked(_));
    let whole = seen.obstacle().is_none()
        && existing(seen).any(|(_, selector)| parked(selector))
        && down(seen).count() == present(seen).count();
    let now = seen.now;
    Some(act_state(seen, |state| {
        // Nothing that was decided before can be taken for this turn's.
        state.epoch = state.epoch.max(seen.carried).saturating_add(1);
        state.at_zero = true;
        state.replicas = present(seen)
            .map(|workload| WorkloadReplicas {
                workload: workload.object.clone(),
                replicas: wanted_replicas(seen, workload, workload.noted),
            })
            .collect();
        if let Some(selectors) = seen.unrecorded_selectors() {
            state.selectors = selectors;
        }
        let why = "its Sleeper was lost while it was asleep";
        if whole {
            state.wish = Wish::Asleep;
            state.slept = Some(now);
            state.enter(Phase::Asleep, now, why);
        } else {
            state.wish = Wish::Awake;
            state.wake_started = Some(now);
            state.wake_failure = None;
            state.enter(Phase::Waking, now, why);
        }
    }))
}

/// A workload is at zero that a sleep put there, or its Services are parked besides.
fn was_put_to_sleep(seen: &Observation) -> bool {
    let parked = existing(seen).any(|(_, selector)| matches!(selector, Selector::Parked(_) | Selector::Lost));
    let all_down = present(seen).next().is_some() && down(seen).count() == present(seen).count();
    (parked && all_down) || down(seen).any(|workload| workload.noted.is_some())
}

fn present(seen: &Observation) -> impl Iterator<Item = &Workload> {
    seen.workloads.iter().filter(|workload| workload.exists)
}

fn down(seen: &Observation) -> impl Iterator<Item = &Workload> {
    present(seen).filter(|workload| workload.replicas == 0)
}

/// Selectors first: harmless while there are no pods, and if Dormouse dies in the middle the Service heals by itself.
pub(super) fn waking(seen: &Observation) -> Next {
    if let Some(next) = turn_back(seen) {
        return next;
    }
    let slices = stale_leftovers(seen);
    if !slices.is_empty() {
        return Next::Act(slices);
    }
    if let Some(why) = seen.lost_selector() {
        return failed(seen, why);
    }
    if seen.workloads.iter().any(|workload| workload.exists) && !seen.ready_pod {
        let deadline = after(seen.state.wake_started, seen.now, seen.readiness_timeout);
        if seen.now < deadline {
            let survived = seen.state.pods_survived().filter(|moment| *moment > seen.now);
            let until = survived.map_or(deadline, |moment| moment.min(deadline));
            return wait(WaitReason::NoReadyPod, Some(until));
        }
        if seen.state.current_wake_failure().is_some() {
            return wait(WaitReason::NoReadyPod, None);
        }
        let (now, seconds) = (seen.now, seen.readiness_timeout.as_secs_f64());
        return act_state(seen, |state| {
            let message = format!("no pod became ready within {seconds} s");
            state.wake_failure = Some(WakeFailure {
                epoch: state.epoch,
                message,
                at: now,
            });
        });
    }
    let now = seen.now;
    act_state(seen, |state| {
        state.wake_completed = Some(now);
        state.wake_failure = None;
        let reason = state.reason.clone();
        state.enter(Phase::Ready, now, reason);
    })
}

/// A wake that cannot end before a person has done something. Whoever waits is told so, and whoever begins to wait too: each look
/// that somebody asks for renews it.
fn failed(seen: &Observation, message: String) -> Next {
    let now = seen.now;
    let told = seen
        .state
        .current_wake_failure()
        .filter(|failure| failure.message == message && now < after(Some(failure.at), now, FAILURE_REFRESH));
    if told.is_some() {
        return wait(WaitReason::Lost, None);
    }
    act_state(seen, |state| {
        state.wake_failure = Some(WakeFailure {
            epoch: state.epoch,
            message,
            at: now,
        });
    })
}

/// What every wake does first, a farewell included: nothing of the old turn can be carried out afterwards.
pub(super) fn turn_back(seen: &Observation) -> Option<Next> {
    let mut steps = restores(seen);
    steps.extend(
        existing(seen)
            .filter(|(_, selector)| matches!(selector, Selector::Pods(_)))
            .filter_map(|(service, _)| {
                let fenced = service.fence.is_some_and(|fence| fence >= seen.state.epoch);
                (!fenced).then(|| Step::FenceService(service.name.clone(), seen.state.epoch))
            }),
    );
    let at_zero = seen
        .workloads
        .iter()
        .any(|workload| workload.exists && workload.replicas == 0);
    if at_zero && !seen.state.at_zero {
        // Its pods may still look ready although they are going away. Remember that before they are wished back.
        let mut state = seen.state.clone();
        state.at_zero = true;
        steps.push(Step::SetState(Box::new(state)));
    } else {
        steps.extend(revivals(seen));
    }
    (!steps.is_empty()).then_some(Next::Act(steps))
}

/// Awake is not what a Service is whose selector is lost: back to a wake, which tells whoever waits.
fn lost(seen: &Observation) -> Option<Next> {
    let (why, now) = (seen.lost_selector()?, seen.now);
    Some(act_state(seen, |state| {
        state.wake_started = Some(now);
        state.enter(Phase::Waking, now, why);
    }))
}

pub(super) fn ready(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = lost(seen) {
        return next;
    }
    let mut repairs = restores(seen);
    repairs.extend(stale_leftovers(seen));
    if !repairs.is_empty() {
        return Next::Act(repairs);
    }
    if let Some(next) = not_listed_long_enough(seen, timings) {
        return next;
    }
    if let Some(next) = leave(seen) {
        return next;
    }
    let now = seen.now;
    act_state(seen, |state| {
        state.replicas.clear();
        state.selectors.clear();
        state.at_zero = false;
        let seed = u64::try_from(state.epoch).unwrap_or(0);
        if state.look.disturbed == 0 {
            state.look = timings.look.settled(now, seed);
        }
        let reason = state.reason.clone();
        state.enter(Phase::Awake, now, reason);
    })
}

/// Right after a wake, what is listed may still be from before it.
fn not_listed_long_enough(seen: &Observation, timings: &Timings) -> Option<Next> {
    let own = || own_slices(seen).filter(|service| service.selector.is_some());
    let proven = own().all(|service| service.relisted);
    let stay = if proven { timings.relist } else { timings.unproven };
    let listed = after(seen.state.since, seen.now, stay);
    own_slices(seen).next()?;
    if seen.now < listed {
        return Some(wait(WaitReason::NotListed, Some(listed)));
    }
    behind(seen, timings)
}

/// Nodes that have not caught up may hear that the DLX leaves before they hear of the pods. One that is gone is no help to them.
fn behind(seen: &Observation, timings: &Timings) -> Option<Next> {
    own_slices(seen).next().filter(|_| !seen.dlx.ready.is_empty())?;
    catching_up(seen, timings).map(|until| wait(WaitReason::CatchingUp, Some(until)))
}

/// A deleted Sleeper leaves nothing parked and nothing at zero.
pub(super) fn farewell(seen: &Observation, timings: &Timings) -> Next {
    match seen.state.phase {
        Phase::Awake | Phase::Ready => {
            if let Some(next) = recover(seen).or_else(|| lost(seen)) {
                return next;
            }
            let restores = restores(seen);
            if !restores.is_empty() {
                return Next::Act(restores);
            }
        }
        Phase::Waking => {
            if let Some(next) = turn_back(seen) {
                return next;
            }
            // Who went now would leave a Service parked for ever.
            if let Some(why) = seen.lost_selector() {
                return failed(seen, why);
            }
        }
        Phase::Diverting | Phase::Observing | Phase::Draining | Phase::Asleep => {
            return wake(seen, timings, "the Sleeper is being deleted");
        }
    }
    if let Some(next) = not_listed_long_enough(seen, timings) {
        return next;
    }
    let patience = after(seen.state.since, seen.now, timings.farewell);
    // Listed pods may be those of before the sleep, on their way out.
    let unready = seen.state.phase == Phase::Waking && pods_wanted(seen) && !seen.ready_pod;
    if unready && own_slices(seen).next().is_some() && seen.now < patience {
        return wait(WaitReason::NoReadyPod, Some(patience));
    }
    match leave(seen) {
        Some(Next::Wait { reason, .. }) if seen.now < patience => wait(reason, Some(patience)),
        Some(Next::Wait { .. }) => Next::Act(
            own_slices(seen)
                .map(|service| Step::DeleteSlice(service.name.clone()))
                .collect(),
        ),
        Some(leaves) => leaves,
        None => forget(seen, timings),
    }
}

/// The DLX has left all Services, but nodes take a moment to follow. It answers for this Sleeper as long as that is there.
fn forget(seen: &Observation, timings: &Timings) -> Next {
    if existing(seen).next().is_none() {
        return Next::Act(vec![Step::RemoveFinalizer]);
    }
    if seen.state.phase != Phase::Awake {
        let now = seen.now;
        return act_state(seen, |state| {
            state.enter(Phase::Awake, now, "the Sleeper is being deleted");
        });
    }
    let left = seen.state.since;
    match left.map(|left| after(Some(left), seen.now, timings.drain_grace)) {
        Some(until) if seen.now < until => wait(WaitReason::Grace, Some(until)),
        _ => Next::Act(vec![Step::RemoveFinalizer]),
    }
}

/// Slices that are about to go, but not yet: they follow the DLX too, and they take on the new turn, so that a late
/// delete of an earlier turn loses.
pub(super) fn stale_leftovers(seen: &Observation) -> Vec<Step> {
    if seen.dlx.ready.is_empty() {
        return Vec::new();
    }
    existing(seen)
        .filter(|(service, _)| service.own_slice.is_some() && seen.needs_slice(service))
        .map(|(service, _)| Step::WriteSlice(service.name.clone()))
        .collect()
}

pub(super) fn restores(seen: &Observation) -> Vec<Step> {
    existing(seen)
        .filter(|(_, selector)| matches!(selector, Selector::Parked(_)))
        .map(|(service, _)| Step::RestoreSelector(service.name.clone()))
        .collect()
}

pub(super) fn own_slices(seen: &Observation) -> impl Iterator<Item = &Service> {
    seen.services.iter().filter(|service| service.own_slice.is_some())
}

fn pods_wanted(seen: &Observation) -> bool {
    seen.workloads
        .iter()
        .any(|workload| workload.exists && workload.replicas > 0)
}

/// The DLX leaves every Service whose pods are listed, or that will not have any. None: it has left all.
pub(super) fn leave(seen: &Observation) -> Option<Next> {
    let pods_wanted = seen
        .workloads
        .iter()
        .any(|workload| workload.exists && workload.replicas > 0);
    let stays =
        |service: &Service| pods_wanted && service.selector.is_some() && service.listed == Listed::Nothing;
    let leaves: Vec<_> = own_slices(seen)
        .filter(|service| !stays(service))
        .map(|service| Step::DeleteSlice(service.name.clone()))
        .collect();
    if !leaves.is_empty() {
        return Some(Next::Act(leaves));
    }
    own_slices(seen).next().map(|_| wait(WaitReason::NotListed, None))
}

/// What brings workloads back: replicas where there are none, a fence where a scale-down may still be under way.
pub(super) fn revivals(seen: &Observation) -> Vec<Step> {
    seen.workloads
        .iter()
        .filter(|workload| workload.exists)
        .filter_map(|workload| {
            let recorded = seen
                .state
                .replicas
                .iter()
                .find(|recorded| recorded.workload == workload.object)
                .map(|recorded| recorded.replicas)
                .or(workload.noted);
            if workload.replicas == 0 {
                let wanted = wanted_replicas(seen, workload, recorded);
                return Some(Step::Scale(workload.object.clone(), wanted));
            }
            let fenced = workload.fence.is_some_and(|fence| fence >= seen.state.epoch);
            (recorded.is_some() && !fenced).then(|| Step::Fence(workload.object.clone(), seen.state.epoch))
        })
        .collect()
}
