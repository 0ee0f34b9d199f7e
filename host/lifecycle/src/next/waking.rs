//! Back to Awake, from wherever it stands, and out of the way. Each function is a phase, with the transitions out of it.

use std::time::Duration;

use dormouse_model::Phase;
use jiff::Timestamp;

use super::common::{
    act_state, after, all_at_zero, catching_up, caught_up, existing, note_zero, recorded, settled, wait,
    wake, wanted_replicas, workloads,
};
use super::{Next, Step, Timings, WaitReason};
use crate::traffic_check::spread;
use crate::{
    DesiredState, Listed, Observation, Selector, Service, SleeperState, WakeFailure, Workload,
    WorkloadReplicas, Zero,
};

/// How often the record of a wake that waits for a person is renewed.
const FAILURE_REFRESH: Duration = Duration::from_secs(1);

/// ## Awake => (Awake / Ready / Waking / Asleep)
///
/// Settled, except for what came too late: a slice or a parked selector that an executor wrote on an old decision, or that
/// an executor with an old view did not see when it ended the wake.
pub(super) fn awake(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = recover(seen) {
        return next;
    }
    if restores(seen).is_empty() && seen.lost_selector().is_none() {
        return behind(seen, timings)
            .or_else(|| leave(seen))
            .or_else(|| give_ports_back(seen, timings))
            .unwrap_or_else(settled);
    }
    let now = seen.now;
    act_state(seen, |state| {
        state.epoch = state.epoch.max(seen.carried);
        state.enter(Phase::Ready, now, "a Service was still parked");
    })
}

/// The ports of what has been awake for long are for others: there are only so many.
fn give_ports_back(seen: &Observation, timings: &Timings) -> Option<Next> {
    if seen.state.ports.is_empty() || seen.state.desired != DesiredState::Awake {
        return None;
    }
    let left = after(
        seen.state.since.or(Some(Timestamp::MIN)),
        seen.now,
        timings.port_grace,
    );
    let until = caught_up(seen, timings).map_or(left, |caught_up| left.max(caught_up));
    Some(if seen.now < until {
        wait(WaitReason::Settled, Some(until))
    } else {
        act_state(seen, |state| state.ports.clear())
    })
}

/// ## Awake => (Asleep / Waking)
///
/// What the Sleeper remembered is lost: it says awake, but a sleep has left its marks. It goes on sleeping where the DLX can stand in
/// as it did, and wakes otherwise.
pub(super) fn recover(seen: &Observation) -> Option<Next> {
    if !was_put_to_sleep(seen) {
        return None;
    }
    let whole = seen.obstacle().is_none()
        && existing(seen).any(|(_, selector)| matches!(selector, Selector::Parked(_)))
        && down(seen).count() == workloads(seen).count();
    let now = seen.now;
    Some(act_state(seen, |state| {
        // Nothing that was decided before can be taken for this generation's.
        state.epoch = state.epoch.max(seen.carried).saturating_add(1);
        state.forget_zero();
        state.zero_observed = true;
        state.replicas = workloads(seen)
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
            state.desired = DesiredState::Asleep;
            state.slept = Some(now);
            state.enter(Phase::Asleep, now, why);
        } else {
            state.desired = DesiredState::Awake;
            state.wake_started = Some(now);
            state.wake_failure = None;
            state.enter(Phase::Waking, now, why);
        }
    }))
}

/// A workload is at zero that a sleep put there, or its Services are parked besides.
fn was_put_to_sleep(seen: &Observation) -> bool {
    let parked = existing(seen).any(|(_, selector)| selector.is_parked());
    let all_down = workloads(seen).next().is_some() && down(seen).count() == workloads(seen).count();
    (parked && all_down) || down(seen).any(|workload| workload.noted.is_some())
}

fn down(seen: &Observation) -> impl Iterator<Item = &Workload> {
    workloads(seen).filter(|workload| workload.replicas == 0)
}

/// ## Waking => Ready
///
/// Selectors before replicas: harmless while there are no pods, and if Dormouse dies in the middle the Service heals by itself. As long as
/// pods of before may be listed although they go, selectors stay parked: half of all connections would end at such a pod.
pub(super) fn waking(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = turn_back(seen, timings) {
        return next;
    }
    // Not before a wake that is over already.
    if let Some(repairs) = repairs(seen).filter(|_| !seen.ready_pod) {
        return repairs;
    }
    let slices = stale_leftovers(seen);
    if !slices.is_empty() {
        return Next::Act(slices);
    }
    if let Some(why) = seen.lost_selector() {
        return failed(seen, why);
    }
    if pods_wanted(seen) && !seen.ready_pod {
        let deadline = after(seen.state.wake_started, seen.now, seen.readiness_timeout);
        if seen.now < deadline {
            let survived = seen.state.pods_survived().filter(|moment| *moment > seen.now);
            let moments = [survived, leaving_until(seen, timings)].into_iter().flatten();
            let until = moments.fold(deadline, Timestamp::min);
            let reason = unserved(seen).map_or(WaitReason::NoReadyPod, WaitReason::Probe);
            return wait(reason, Some(until));
        }
        if seen.state.current_wake_failure().is_some() {
            return wait(WaitReason::NoReadyPod, leaving_until(seen, timings));
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
    if let Some(until) = leaving_until(seen, timings) {
        return wait(WaitReason::PodsLeaving, Some(until));
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

/// What every wake does first, that of a Sleeper that is being deleted included: nothing of the old generation can be carried out afterwards.
pub(super) fn turn_back(seen: &Observation, timings: &Timings) -> Option<Next> {
    let at_zero = workloads(seen).any(|workload| workload.replicas == 0 && !stays_at_zero(seen, workload));
    let newly_at_zero = at_zero && !seen.state.zero_observed;
    // A scale-down that is still under way must have lost before pods are listed. When it has, its pods are as good as any.
    let mut steps = fences(seen);
    let never_at_zero = !at_zero && seen.state.may_be_at_zero();
    let pods_leave = newly_at_zero || (!never_at_zero && leaving(seen, timings).is_some());
    let waits = |service: &Service| pods_leave && stands_in(seen, service);
    let restored = parked(seen).filter(|service| !waits(service));
    steps.extend(restored.map(|service| Step::RestoreSelector(service.name.clone())));
    steps.extend(
        existing(seen)
            .filter(|(_, selector)| matches!(selector, Selector::Pods(_)))
            .filter_map(|(service, _)| {
                let fenced = service.fence.is_some_and(|fence| fence >= seen.state.epoch);
                (!fenced).then(|| Step::FenceService(service.name.clone(), seen.state.epoch))
            }),
    );
    // Remember it before anything is scaled up: pods of before may look ready although they are going away.
    if newly_at_zero {
        steps.extend(note_zero(seen));
    } else if never_at_zero {
        steps.push(Step::SetState(Box::new(SleeperState {
            slept: None,
            ..seen.state.clone()
        })));
    } else {
        steps.extend(scale_ups(seen));
        // From when on it is known how long selectors wait.
        if leaving_until(seen, timings).is_some() {
            steps.extend(note_zero(seen));
        }
    }
    (!steps.is_empty()).then_some(Next::Act(steps))
}

/// ## (Awake / Ready) => Waking
///
/// Awake is not what a Service is whose selector is lost: back to a wake, which tells whoever waits.
fn lost(seen: &Observation) -> Option<Next> {
    let (why, now) = (seen.lost_selector()?, seen.now);
    Some(act_state(seen, |state| {
        state.wake_started = Some(now);
        state.enter(Phase::Waking, now, why);
    }))
}

/// ## Ready => (Awake / Waking / Diverting)
///
/// A pod takes connections. The DLX leaves each Service as soon as its pods are certainly listed, and the memory of the sleep is
/// dropped.
pub(super) fn ready(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = lost(seen).or_else(|| stand_in_again(seen)) {
        return next;
    }
    let mut steps = restores(seen);
    steps.extend(stale_leftovers(seen));
    if !steps.is_empty() {
        return Next::Act(steps);
    }
    let staying = not_listed_long_enough(seen, timings).or_else(|| leave(seen));
    match staying {
        // As long as the DLX stays, it follows the Service.
        Some(waiting @ Next::Wait { .. }) => return repairs(seen).unwrap_or(waiting),
        Some(leaves) => return leaves,
        None => {}
    }
    let now = seen.now;
    act_state(seen, |state| {
        state.replicas.clear();
        state.selectors.clear();
        state.forget_zero();
        if state.traffic_check.disturbed == 0 {
            state.traffic_check = timings.traffic_check.settled(now, spread(seen.seed, state.epoch));
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

/// ## Any phase, deleted => Waking => gone
///
/// A deleted Sleeper leaves nothing parked and nothing at zero.
pub(super) fn finalize(seen: &Observation, timings: &Timings) -> Next {
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
            if let Some(next) = turn_back(seen, timings) {
                return next;
            }
            // Who went now would leave a Service parked for ever.
            if let Some(why) = seen.lost_selector() {
                return failed(seen, why);
            }
            if let Some(until) = leaving_until(seen, timings) {
                return repairs(seen).unwrap_or_else(|| wait(WaitReason::PodsLeaving, Some(until)));
            }
        }
        Phase::Diverting | Phase::Observing | Phase::Draining | Phase::Asleep => {
            return wake(seen, timings, "the Sleeper is being deleted");
        }
    }
    if let Some(next) = not_listed_long_enough(seen, timings) {
        return repairs(seen).unwrap_or(next);
    }
    let patience = after(seen.state.since, seen.now, timings.finalize);
    // Listed pods may be those of before the sleep, on their way out.
    let unready = seen.state.phase == Phase::Waking && pods_wanted(seen) && !seen.ready_pod;
    if unready && own_slices(seen).next().is_some() && seen.now < patience {
        if let Some(repairs) = repairs(seen) {
            return repairs;
        }
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

/// Slices that are about to go, but not yet: they follow the DLX too, and they take on the new generation, so that a late
/// delete of an earlier generation loses.
pub(super) fn stale_leftovers(seen: &Observation) -> Vec<Step> {
    if seen.dlx.ready.is_empty() {
        return Vec::new();
    }
    existing(seen)
        .filter(|(service, _)| seen.keeps_slice(service) && seen.needs_slice(service))
        .map(|(service, _)| Step::WriteSlice(service.name.clone()))
        .collect()
}

/// As long as the DLX answers, it does so on the ports that the Services have now, not on those that they had.
fn repairs(seen: &Observation) -> Option<Next> {
    let slices = stale_leftovers(seen);
    if !slices.is_empty() {
        return Some(Next::Act(slices));
    }
    let missing = seen.unallocated(|service| seen.keeps_slice(service));
    (!missing.is_empty() && seen.no_port.is_none()).then(|| Next::Act(vec![Step::AllocatePorts(missing)]))
}

/// A Service that leads to the DLX, but not on all of its ports yet: no DLX answers on them. Nothing will tell when.
fn unserved(seen: &Observation) -> Option<String> {
    let mut kept = existing(seen).filter(|(service, _)| seen.keeps_slice(service));
    let ready = !seen.dlx.ready.is_empty();
    let (service, _) = kept.find(|(service, _)| ready && !seen.has_stand_in(service))?;
    Some(format!("no DLX answers for Service {}", service.name))
}

pub(super) fn restores(seen: &Observation) -> Vec<Step> {
    parked(seen)
        .map(|service| Step::RestoreSelector(service.name.clone()))
        .collect()
}

fn parked(seen: &Observation) -> impl Iterator<Item = &Service> {
    existing(seen)
        .filter(|(_, selector)| matches!(selector, Selector::Parked(_) | Selector::Stranded(..)))
        .map(|(service, _)| service)
}

/// Whether the slice of a Service, written for this Sleeper, leads to a DLX that is ready and answers.
fn stands_in(seen: &Observation, service: &Service) -> bool {
    let mut ready = seen.dlx.ready.iter();
    seen.has_stand_in(service) && ready.any(|address| seen.is_named(service, *address))
}

pub(super) fn own_slices(seen: &Observation) -> impl Iterator<Item = &Service> {
    seen.services.iter().filter(|service| service.own_slice.is_some())
}

fn pods_wanted(seen: &Observation) -> bool {
    workloads(seen).any(|workload| workload.replicas > 0)
}

/// At zero without us, and it was not somebody's request that brought us here, or it is to be left so.
fn stays_at_zero(seen: &Observation, workload: &Workload) -> bool {
    let ours = recorded(seen, workload).is_some_and(|replicas| replicas > 0);
    !ours && (seen.deleting || workload.zero == Zero::Off)
}

/// ## Ready => Diverting
///
/// Scaled to zero by somebody else before the DLX has left: it stays, instead of leaving a Service with nobody behind it.
fn stand_in_again(seen: &Observation) -> Option<Next> {
    let possible = own_slices(seen).next().is_some() && !seen.dlx.ready.is_empty();
    // The wake has written on every workload. What does not show it was read before.
    let is_stale = workloads(seen).any(|workload| !is_fenced(seen, workload));
    if !possible || is_stale || !all_at_zero(seen, Zero::StandIn) || seen.obstacle().is_some() {
        return None;
    }
    let now = seen.now;
    Some(act_state(seen, |state| {
        state.desired = DesiredState::Asleep;
        state.replicas.clear();
        state.forget_zero();
        state.enter(Phase::Diverting, now, "scaled to zero by somebody else");
    }))
}

/// The DLX leaves every Service whose pods are listed, or that will not have any. None: it has left all.
pub(super) fn leave(seen: &Observation) -> Option<Next> {
    let pods_wanted = pods_wanted(seen);
    let lists = |service: &Service| service.selector.as_ref().is_some_and(Selector::leads_to_pods);
    let stays = |service: &Service| pods_wanted && lists(service) && service.listed == Listed::Nothing;
    let leaves: Vec<_> = own_slices(seen)
        .filter(|service| !stays(service))
        .map(|service| Step::DeleteSlice(service.name.clone()))
        .collect();
    if !leaves.is_empty() {
        return Some(Next::Act(leaves));
    }
    own_slices(seen).next().map(|_| wait(WaitReason::NotListed, None))
}

/// Until when a Service whose selector is put back could lead to pods that are on their way out. None: it leads to none of them.
fn leaving(seen: &Observation, timings: &Timings) -> Option<Timestamp> {
    seen.state
        .listed_until(timings.endpoints_lag)
        .filter(|until| *until > seen.now)
}

/// Until when a selector waits for such pods. Where no DLX stands in, one that goes is better than nobody.
fn leaving_until(seen: &Observation, timings: &Timings) -> Option<Timestamp> {
    leaving(seen, timings).filter(|_| parked(seen).any(|service| stands_in(seen, service)))
}

/// Replicas for workloads that have none.
fn scale_ups(seen: &Observation) -> impl Iterator<Item = Step> {
    let down = workloads(seen).filter(|workload| workload.replicas == 0 && !stays_at_zero(seen, workload));
    down.map(|workload| {
        let wanted = wanted_replicas(seen, workload, recorded(seen, workload));
        Step::Scale(workload.object.clone(), wanted)
    })
}

/// Whether this wake has written on the workload.
fn is_fenced(seen: &Observation, workload: &Workload) -> bool {
    workload.fence.is_some_and(|fence| fence >= seen.state.epoch)
}

/// Fences for workloads that are up, and for which a scale-down may still be under way.
fn fences(seen: &Observation) -> Vec<Step> {
    workloads(seen)
        .filter(|workload| workload.replicas > 0 && recorded(seen, workload).is_some())
        .filter(|workload| !is_fenced(seen, workload))
        .map(|workload| Step::Fence(workload.object.clone(), seen.state.epoch))
        .collect()
}
