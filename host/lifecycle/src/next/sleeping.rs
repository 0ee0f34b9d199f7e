//! From Awake to Asleep. Each function is a phase, with the transitions out of it; whatever forbids diverting leads from each of
//! them to Waking.

use dormouse_model::Phase;

use super::common::{
    act_state, after, all_at_zero, catching_up, caught_up, existing, note_zero, record, recorded, settled,
    wait, wake, workloads,
};
use super::waking::{awake, recover};
use super::{Next, Step, Timings, WaitReason};
use crate::{Demand, DesiredState, Listed, Observation, Selector, Service, Zero};

/// ## Awake => (Diverting / Awake)
///
/// Wished observed or asleep. With a DLX that is ready and a DLX port for each Service port it begins to divert. What cannot be diverted
/// takes the desired state back, with the reason.
pub(super) fn begin(seen: &Observation, timings: &Timings, held: Option<String>) -> Next {
    if let Some(next) = recover(seen) {
        return next;
    }
    if let Some(why) = seen.obstacle() {
        return act_state(seen, |state| {
            state.desired = DesiredState::Awake;
            state.reason = why;
        });
    }
    if let Some(what) = held {
        return wait(WaitReason::Held(what), None);
    }
    let services = existing(seen).count();
    if services > 0 && seen.dlx.ready.is_empty() {
        return match awake(seen, timings) {
            Next::Wait {
                reason: WaitReason::Settled,
                ..
            } => wait(WaitReason::NoDlx, None),
            repairs => repairs,
        };
    }
    if let Some(until) = catching_up(seen, timings) {
        return wait(WaitReason::CatchingUp, Some(until));
    }
    let missing = seen.unallocated(|_| true);
    if !missing.is_empty() {
        return Next::Act(vec![Step::AllocatePorts(missing)]);
    }
    let (now, reason) = (seen.now, seen.state.reason.clone());
    act_state(seen, |state| {
        state.epoch = state.epoch.max(seen.carried);
        if let Some(selectors) = seen.unrecorded_selectors() {
            state.selectors = selectors;
        }
        state.enter(Phase::Diverting, now, reason);
    })
}

/// ## (Diverting / Draining) => Waking
///
/// Another Sleeper is about to give back what belongs to this one. That is waited for, and then given up.
pub(super) fn held_up(seen: &Observation, timings: &Timings, held: String) -> Next {
    if let Some(rollback) = cannot_divert(seen, timings) {
        return rollback;
    }
    let until = after(seen.state.since, seen.now, timings.give_up);
    if seen.now < until {
        wait(WaitReason::Held(held), Some(until))
    } else {
        wake(seen, timings, &format!("sleep was given up: {held}"))
    }
}

/// Remembers how Services select their pods, before that can get lost.
fn record_selectors(seen: &Observation) -> Option<Next> {
    let selectors = seen.unrecorded_selectors()?;
    Some(act_state(seen, |state| state.selectors = selectors))
}

/// ## Diverting => (Observing / Waking)
///
/// Every DLX answers, then joins the Services, then the selectors are parked, then the cluster's own endpoints leave: a Service always has somebody behind it, and
/// never somebody who does not know it yet.
pub(super) fn diverting(seen: &Observation, timings: &Timings) -> Next {
    if let Some(rollback) = cannot_divert(seen, timings) {
        return rollback;
    }
    let until = after(seen.state.since, seen.now, timings.give_up);
    let unless_overdue = |what: &str, next: Next| {
        if seen.now < until {
            next
        } else {
            wake(seen, timings, &format!("diverting was given up: {what}"))
        }
    };
    let missing = seen.unallocated(|_| true);
    if !missing.is_empty() {
        return unless_overdue(
            "no DLX ports could be recorded",
            Next::Act(vec![Step::AllocatePorts(missing)]),
        );
    }
    if let Some(record) = record_selectors(seen) {
        return unless_overdue("the selectors could not be recorded", record);
    }
    let slices = stale_slices(seen);
    if !slices.is_empty() {
        return unless_overdue("the slices of the DLX could not be written", Next::Act(slices));
    }
    if let Some(why) = silent(seen) {
        let what = format!("the DLX does not answer for {why}");
        return unless_overdue(&what, wait(WaitReason::Probe(why), Some(until)));
    }
    let parks = parks(seen);
    if !parks.is_empty() {
        if let Some(until) = catching_up(seen, timings) {
            return unless_overdue(
                "nodes may not have caught up",
                wait(WaitReason::CatchingUp, Some(until)),
            );
        }
        return unless_overdue("the Services could not be parked", Next::Act(parks));
    }
    // From here on `since` of the next phase says from when on no new connection reached the pods.
    if existing(seen).any(|(service, _)| service.listed == Listed::ReadyPods) {
        let what = "the Services' own endpoints do not leave";
        return unless_overdue(what, wait(WaitReason::EndpointsLeaving, Some(until)));
    }
    let (now, reason) = (seen.now, seen.state.reason.clone());
    act_state(seen, |state| state.enter(Phase::Observing, now, reason))
}

/// ## Observing => (Draining / Waking)
///
/// All traffic goes through the DLX, and the pods are as they were. Only a request to sleep goes on from here.
pub(super) fn observing(seen: &Observation, timings: &Timings, desired: DesiredState) -> Next {
    if let Some(next) = keep_diverted(seen, timings) {
        return next;
    }
    match desired {
        DesiredState::Asleep => {
            let (now, reason) = (seen.now, seen.state.reason.clone());
            act_state(seen, |state| state.enter(Phase::Draining, now, reason))
        }
        DesiredState::Observed | DesiredState::Awake => settled(),
    }
}

/// ## Draining => (Asleep / Waking)
///
/// Nothing new reaches the pods, as far as nodes know of it. Give nodes and open connections their grace, then ask once more
/// whether anybody needs the pods.
pub(super) fn draining(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = keep_diverted(seen, timings) {
        return next;
    }
    let drained = after(seen.state.since, seen.now, timings.drain_grace);
    let grace = caught_up(seen, timings).map_or(drained, |until| until.max(drained));
    let give_up = after(Some(grace), seen.now, timings.give_up);
    let overdue = seen.now >= give_up;
    if existing(seen).any(|(service, _)| service.listed == Listed::ReadyPods) {
        if overdue {
            return wake(
                seen,
                timings,
                "draining was given up: the Services' endpoints do not leave",
            );
        }
        return wait(WaitReason::EndpointsLeaving, Some(give_up));
    }
    if seen.now < grace {
        let reason = if seen.now < drained {
            WaitReason::Grace
        } else {
            WaitReason::CatchingUp
        };
        return wait(reason, Some(grace));
    }
    match &seen.demand {
        Demand::Some(count) => wake(
            seen,
            timings,
            &format!("{count} requests or connections arrived while draining"),
        ),
        Demand::Unknown if overdue => wake(seen, timings, "draining was given up: demand is unknown"),
        Demand::Unknown if existing(seen).next().is_some() => wait(WaitReason::DemandUnknown, Some(give_up)),
        Demand::Unknown | Demand::None => {
            let replicas = workloads(seen).map(|workload| record(seen, workload)).collect();
            let (now, reason) = (seen.now, seen.state.reason.clone());
            act_state(seen, |state| {
                state.replicas = replicas;
                state.forget_zero();
                state.slept = Some(now);
                state.enter(Phase::Asleep, now, reason);
            })
        }
    }
}

/// ## Asleep => Waking
///
/// Workloads are scaled to zero, and kept there. From then on replicas above zero are somebody else's scaling, and a wake.
pub(super) fn asleep(seen: &Observation, timings: &Timings) -> Next {
    if seen.state.zero_observed
        && let Some(workload) = workloads(seen).find(|workload| workload.replicas > 0)
    {
        let who = format!(
            "{} {} was scaled up by somebody else",
            workload.object.kind, workload.object.name
        );
        return wake(seen, timings, &who);
    }
    let untouched = || workloads(seen).all(|workload| recorded(seen, workload) == Some(0));
    if all_at_zero(seen, Zero::Off) && untouched() {
        return wake(
            seen,
            timings,
            "it was turned off by somebody else, and is left so",
        );
    }
    if let Some(next) = keep_diverted(seen, timings) {
        return next;
    }
    let up = || workloads(seen).filter(|workload| workload.replicas > 0);
    // Only what is recorded is scaled down: a wake restores and fences what is recorded.
    let appeared: Vec<_> = up()
        .filter(|workload| {
            let mut known = seen.state.replicas.iter();
            !known.any(|recorded| recorded.workload == workload.object)
        })
        .map(|workload| record(seen, workload))
        .collect();
    if !appeared.is_empty() {
        return act_state(seen, |state| state.replicas.extend(appeared));
    }
    let downs: Vec<_> = up()
        .map(|workload| Step::Scale(workload.object.clone(), 0))
        .collect();
    if !downs.is_empty() {
        return match catching_up(seen, timings) {
            Some(until) => wait(WaitReason::CatchingUp, Some(until)),
            None => Next::Act(downs),
        };
    }
    note_zero(seen).map_or_else(settled, |note| Next::Act(vec![note]))
}

/// Which ready DLX does not answer for a Service whose pods are still to be taken out, and how.
fn silent(seen: &Observation) -> Option<String> {
    existing(seen)
        .filter(|(_, selector)| !selector.is_parked())
        .flat_map(|(service, _)| seen.dlx_for(service).map(move |address| (service, address)))
        .find_map(|(service, address)| match service.answers.get(&address) {
            Some(Ok(())) => None,
            Some(Err(why)) => Some(format!("Service {}: {why}", service.name)),
            None => Some(format!("Service {}: {address} was not asked", service.name)),
        })
}

/// While diverted: slices follow the DLX, selectors stay parked, and without any DLX, or any that answers, the resource wakes
/// (fail open).
pub(super) fn keep_diverted(seen: &Observation, timings: &Timings) -> Option<Next> {
    if let Some(next) = cannot_divert(seen, timings) {
        return Some(next);
    }
    if let Some(record) = record_selectors(seen) {
        return Some(record);
    }
    // First what is possible whatever becomes of the ports: none may be left.
    let mut steps = stale_slices(seen);
    steps.extend(parks(seen));
    if !steps.is_empty() {
        return Some(Next::Act(steps));
    }
    let missing = seen.unallocated(|_| true);
    if !missing.is_empty() {
        return Some(Next::Act(vec![Step::AllocatePorts(missing)]));
    }
    nobody_answers(seen, timings)
}

/// A DLX is ready, but none that a Service leads to, and those that are ready do not answer for it.
fn nobody_answers(seen: &Observation, timings: &Timings) -> Option<Next> {
    let why = format!("no DLX answers for Service {}", seen.unanswered()?.name);
    let until = after(seen.unanswered_since, seen.now, timings.dlx_absence);
    Some(if seen.now >= until {
        wake(seen, timings, &why)
    } else {
        wait(WaitReason::Probe(why), Some(until))
    })
}

/// A Service changed so that nothing can stand in for it, or nobody is there to stand in.
pub(super) fn cannot_divert(seen: &Observation, timings: &Timings) -> Option<Next> {
    match seen.obstacle() {
        Some(why) => Some(wake(seen, timings, &why)),
        None => no_dlx(seen, timings),
    }
}

pub(super) fn no_dlx(seen: &Observation, timings: &Timings) -> Option<Next> {
    if !seen.dlx.ready.is_empty() || existing(seen).next().is_none() {
        return None;
    }
    let until = after(seen.dlx.absent_since, seen.now, timings.dlx_absence);
    if seen.now >= until {
        return Some(wake(seen, timings, "no DLX is ready"));
    }
    Some(wait(WaitReason::NoDlx, Some(until)))
}

pub(super) fn stale_slices(seen: &Observation) -> Vec<Step> {
    existing(seen)
        .filter(|(service, _)| seen.needs_slice(service))
        .map(|(service, _)| Step::WriteSlice(service.name.clone()))
        .collect()
}

pub(super) fn parks(seen: &Observation) -> Vec<Step> {
    let unparked = |service: &Service, selector: &Selector| match selector {
        Selector::Pods(_) => true,
        // The selector is known from elsewhere: put it back where a person finds it.
        Selector::Parked(_) => !service.kept,
        Selector::Lost | Selector::Undivertible(_) | Selector::Stranded(..) => false,
    };
    existing(seen)
        .filter(|(service, selector)| unparked(service, selector) && seen.has_stand_in(service))
        .map(|(service, _)| Step::ParkSelector(service.name.clone()))
        .collect()
}
