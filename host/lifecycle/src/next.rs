//! From what was observed to the next steps.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Demand, Epoch, Listed, LookPolicy, ObjectRef, Observation, Phase, Probe, Selector, Service, SleeperState, Wish,
    Workload, WorkloadReplicas, request_wake,
};

/// Times that shape the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How long connections that are open when a Service is diverted may go on before its pods go away.
    pub drain_grace: Duration,
    /// How long diverting or draining may take before it is given up and rolled back.
    pub give_up: Duration,
    /// How long no DLX may be ready before what it stands in for is woken.
    pub dlx_absence: Duration,
    /// How long a deleted Sleeper waits for its workload's pods before the DLX leaves all the same.
    pub farewell: Duration,
    /// When to look at traffic again.
    pub look: LookPolicy,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            drain_grace: Duration::from_secs(5),
            give_up: Duration::from_secs(60),
            dlx_absence: Duration::from_secs(5),
            farewell: Duration::from_secs(30),
            look: LookPolicy::default(),
        }
    }
}

/// One write. Carrying it out twice is the same as once, and each is conditional on what was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Replace the Sleeper's state, if the Sleeper is still the one that was observed.
    SetState(Box<SleeperState>),
    /// Find DLX ports for these Service ports (service, port name, port) and record them on the Sleeper.
    AllocatePorts(Vec<(String, String, u16)>),
    /// Create or update Dormouse's slice of this Service so that it lists every ready DLX on the allocated ports.
    WriteSlice(String),
    /// Replace the selector of this Service by one that matches no pod, keeping the original in an annotation.
    ParkSelector(String),
    /// Put the original selector of this Service back.
    RestoreSelector(String),
    /// Delete Dormouse's slice of this Service.
    DeleteSlice(String),
    /// Write replicas, if the workload is still the version that was observed.
    Scale(ObjectRef, i32),
    /// Write the epoch on a workload, so that a scale-down that was decided earlier loses.
    Fence(ObjectRef, Epoch),
    /// Let a deleted Sleeper go.
    RemoveFinalizer,
}

/// Why nothing is to be done right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// As wished.
    Settled,
    /// No DLX is ready, so nothing can be diverted.
    NoDlx,
    /// A DLX does not answer for a Service yet.
    Probe(String),
    /// The Services are being left by the cluster's own endpoints.
    EndpointsLeaving,
    /// Open connections are given time.
    Grace,
    /// Demand could not be asked from every DLX.
    DemandUnknown,
    /// No ready pod yet.
    NoReadyPod,
    /// Ready pods are not listed in the Service's slices yet.
    NotListed,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Carry these out in order; stop at the first that fails or conflicts; then observe again.
    Act(Vec<Step>),
    /// Nothing until something changes, or until the given moment.
    Wait {
        /// Why.
        reason: WaitReason,
        /// When to look again even if nothing was seen to change.
        until: Option<Timestamp>,
    },
}

/// The protocol. Pure: the same observation gives the same answer.
pub fn next(seen: &Observation, timings: &Timings) -> Next {
    if seen.deleting {
        return farewell(seen, timings);
    }
    match (seen.state.wish, seen.state.phase) {
        (Wish::Awake, Phase::Awake) => settled(),
        (Wish::Awake, Phase::Waking) => waking(seen),
        (Wish::Awake, Phase::Ready) => ready(seen, timings),
        // A wake sets wish and phase in one write, so this is somebody's edit by hand: treat it as a wake.
        (Wish::Awake, _) => wake(seen, timings, "the wish was set to Awake"),
        (_, Phase::Awake) => begin(seen, timings),
        (_, Phase::Diverting) => diverting(seen, timings),
        (wish, Phase::Observing) => observing(seen, timings, wish),
        (_, Phase::Draining) => draining(seen, timings),
        (_, Phase::Asleep) => asleep(seen, timings),
        // Wake beats sleep: finish the wake; the wish is asked again when it is due.
        (_, Phase::Waking | Phase::Ready) => {
            act_state(seen, |state| state.wish = Wish::Awake)
        }
    }
}

fn settled() -> Next {
    Next::Wait { reason: WaitReason::Settled, until: None }
}

fn wait(reason: WaitReason, until: Option<Timestamp>) -> Next {
    Next::Wait { reason, until }
}

fn act_state(seen: &Observation, change: impl FnOnce(&mut SleeperState)) -> Next {
    let mut state = seen.state.clone();
    change(&mut state);
    Next::Act(vec![Step::SetState(Box::new(state))])
}

fn after(from: Option<Timestamp>, now: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    from.unwrap_or(now).saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// A wake that the protocol itself asks for.
fn wake(seen: &Observation, timings: &Timings, reason: &str) -> Next {
    let seed = u64::try_from(seen.state.epoch).unwrap_or(0);
    match request_wake(&seen.state, seen.now, reason, timings.look, seed) {
        Ok(state) => Next::Act(vec![Step::SetState(Box::new(state))]),
        Err(_) => settled(),
    }
}

fn existing(seen: &Observation) -> impl Iterator<Item = (&Service, &Selector)> {
    seen.services.iter().filter_map(|service| Some((service, service.selector.as_ref()?)))
}

/// Awake, and wished observed or asleep.
fn begin(seen: &Observation, _timings: &Timings) -> Next {
    let undivertible = existing(seen).find_map(|(service, selector)| match selector {
        Selector::Undivertible(why) => Some((service.name.clone(), *why)),
        Selector::Pods(_) | Selector::Parked(_) => None,
    });
    if let Some((service, why)) = undivertible {
        return act_state(seen, |state| {
            state.wish = Wish::Awake;
            state.reason = format!("Service {service} {}", why.explain());
        });
    }
    let services = existing(seen).count();
    if services > 0 && seen.dlx.ready.is_empty() {
        return wait(WaitReason::NoDlx, None);
    }
    let missing = seen.unallocated();
    if !missing.is_empty() {
        return Next::Act(vec![Step::AllocatePorts(missing)]);
    }
    let (now, reason) = (seen.now, seen.state.reason.clone());
    act_state(seen, |state| state.enter(Phase::Diverting, now, reason))
}

/// The slices first, then a probe, then the selectors: a Service always has somebody behind it.
fn diverting(seen: &Observation, timings: &Timings) -> Next {
    if let Some(rollback) = no_dlx(seen, timings) {
        return rollback;
    }
    let missing = seen.unallocated();
    if !missing.is_empty() {
        return Next::Act(vec![Step::AllocatePorts(missing)]);
    }
    let slices = stale_slices(seen);
    if !slices.is_empty() {
        return Next::Act(slices);
    }
    let unanswered = existing(seen)
        .filter(|(_, selector)| !matches!(selector, Selector::Parked(_)))
        .find_map(|(service, _)| match &service.probe {
            Probe::Answered => None,
            Probe::NotAsked => Some("not asked".to_owned()),
            Probe::Unanswered(why) => Some(format!("Service {}: {why}", service.name)),
        });
    if let Some(why) = unanswered {
        let until = after(seen.state.since, seen.now, timings.give_up);
        if seen.now >= until {
            return wake(seen, timings, &format!("diverting was given up: the DLX does not answer for {why}"));
        }
        return wait(WaitReason::Probe(why), Some(until));
    }
    let parks: Vec<_> = existing(seen)
        .filter(|(_, selector)| matches!(selector, Selector::Pods(_)))
        .map(|(service, _)| Step::ParkSelector(service.name.clone()))
        .collect();
    if !parks.is_empty() {
        return Next::Act(parks);
    }
    let (now, reason) = (seen.now, seen.state.reason.clone());
    act_state(seen, |state| state.enter(Phase::Observing, now, reason))
}

fn observing(seen: &Observation, timings: &Timings, wish: Wish) -> Next {
    if let Some(next) = keep_diverted(seen, timings) {
        return next;
    }
    match wish {
        Wish::Asleep => {
            let (now, reason) = (seen.now, seen.state.reason.clone());
            act_state(seen, |state| state.enter(Phase::Draining, now, reason))
        }
        Wish::Observed | Wish::Awake => settled(),
    }
}

/// Nothing new reaches the pods. Give what is open its grace, then ask once more whether anybody needs them.
fn draining(seen: &Observation, timings: &Timings) -> Next {
    if let Some(next) = keep_diverted(seen, timings) {
        return next;
    }
    let give_up = after(seen.state.since, seen.now, timings.give_up.saturating_add(timings.drain_grace));
    let overdue = seen.now >= give_up;
    if existing(seen).any(|(service, _)| service.listed == Listed::ReadyPods) {
        if overdue {
            return wake(seen, timings, "draining was given up: the Services' endpoints do not leave");
        }
        return wait(WaitReason::EndpointsLeaving, Some(give_up));
    }
    let grace = after(seen.state.since, seen.now, timings.drain_grace);
    if seen.now < grace {
        return wait(WaitReason::Grace, Some(grace));
    }
    match &seen.demand {
        Demand::Some(count) => wake(seen, timings, &format!("{count} requests or connections arrived while draining")),
        Demand::Unknown if overdue => wake(seen, timings, "draining was given up: demand is unknown"),
        Demand::Unknown if existing(seen).next().is_some() => wait(WaitReason::DemandUnknown, Some(give_up)),
        Demand::Unknown | Demand::None => {
            let replicas = seen
                .workloads
                .iter()
                .filter(|workload| workload.exists)
                .map(|workload| WorkloadReplicas {
                    workload: workload.object.clone(),
                    replicas: wanted_replicas(seen, workload, Some(workload.replicas)),
                })
                .collect();
            let (now, reason) = (seen.now, seen.state.reason.clone());
            act_state(seen, |state| {
                state.replicas = replicas;
                state.at_zero = false;
                state.slept = Some(now);
                state.enter(Phase::Asleep, now, reason);
            })
        }
    }
}

fn asleep(seen: &Observation, timings: &Timings) -> Next {
    if seen.state.at_zero
        && let Some(workload) = seen.workloads.iter().find(|workload| workload.exists && workload.replicas > 0)
    {
        let who = format!("{} {} was scaled up by somebody else", workload.object.kind, workload.object.name);
        return wake(seen, timings, &who);
    }
    if let Some(next) = keep_diverted(seen, timings) {
        return next;
    }
    let up: Vec<_> = seen
        .workloads
        .iter()
        .filter(|workload| workload.exists && workload.replicas > 0)
        .map(|workload| Step::Scale(workload.object.clone(), 0))
        .collect();
    if !up.is_empty() {
        return Next::Act(up);
    }
    if !seen.state.at_zero {
        return act_state(seen, |state| state.at_zero = true);
    }
    settled()
}

/// Selectors first: harmless while there are no pods, and if Dormouse dies in the middle the Service heals by itself.
fn waking(seen: &Observation) -> Next {
    let mut steps = restores(seen);
    steps.extend(revivals(seen));
    if !steps.is_empty() {
        return Next::Act(steps);
    }
    if seen.workloads.iter().any(|workload| workload.exists) && !seen.ready_pod {
        let deadline = after(seen.state.wake_started, seen.now, seen.readiness_timeout);
        if seen.now < deadline {
            return wait(WaitReason::NoReadyPod, Some(deadline));
        }
        if seen.state.current_wake_failure().is_some() {
            return wait(WaitReason::NoReadyPod, None);
        }
        let (now, seconds) = (seen.now, seen.readiness_timeout.as_secs_f64());
        return act_state(seen, |state| {
            let message = format!("no pod became ready within {seconds} s");
            state.wake_failure = Some(crate::WakeFailure { epoch: state.epoch, message, at: now });
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

fn ready(seen: &Observation, timings: &Timings) -> Next {
    let restores = restores(seen);
    if !restores.is_empty() {
        return Next::Act(restores);
    }
    let has_pods = seen.workloads.iter().any(|workload| workload.exists);
    let unlisted = existing(seen)
        .any(|(service, _)| service.own_slice.is_some() && service.listed == Listed::Nothing);
    if has_pods && unlisted {
        return wait(WaitReason::NotListed, None);
    }
    let leaves = leaves(seen);
    if !leaves.is_empty() {
        return Next::Act(leaves);
    }
    let now = seen.now;
    act_state(seen, |state| {
        state.replicas.clear();
        state.at_zero = false;
        let seed = u64::try_from(state.epoch).unwrap_or(0);
        if state.look.disturbed == 0 {
            state.look = timings.look.settled(now, seed);
        }
        let reason = state.reason.clone();
        state.enter(Phase::Awake, now, reason);
    })
}

/// A deleted Sleeper leaves nothing parked and nothing at zero.
fn farewell(seen: &Observation, timings: &Timings) -> Next {
    let mut steps = restores(seen);
    if seen.state.phase != Phase::Awake {
        steps.extend(revivals(seen));
    }
    if !steps.is_empty() {
        return Next::Act(steps);
    }
    let waiting_for_pods = existing(seen)
        .any(|(service, _)| service.own_slice.is_some() && service.listed == Listed::Nothing)
        && seen.workloads.iter().any(|workload| workload.exists);
    let patience = after(seen.state.since, seen.now, timings.farewell);
    if seen.state.phase != Phase::Awake && seen.state.phase != Phase::Waking {
        return wake(seen, timings, "the Sleeper is being deleted");
    }
    if waiting_for_pods && seen.now < patience {
        return wait(WaitReason::NotListed, Some(patience));
    }
    let leaves = leaves(seen);
    if leaves.is_empty() { Next::Act(vec![Step::RemoveFinalizer]) } else { Next::Act(leaves) }
}

/// While diverted: slices follow the DLX, selectors stay parked, and without any DLX the resource wakes (fail open).
fn keep_diverted(seen: &Observation, timings: &Timings) -> Option<Next> {
    if let Some(next) = no_dlx(seen, timings) {
        return Some(next);
    }
    let missing = seen.unallocated();
    if !missing.is_empty() {
        return Some(Next::Act(vec![Step::AllocatePorts(missing)]));
    }
    let mut steps = stale_slices(seen);
    steps.extend(
        existing(seen)
            .filter(|(_, selector)| matches!(selector, Selector::Pods(_)))
            .map(|(service, _)| Step::ParkSelector(service.name.clone())),
    );
    (!steps.is_empty()).then_some(Next::Act(steps))
}

fn no_dlx(seen: &Observation, timings: &Timings) -> Option<Next> {
    if !seen.dlx.ready.is_empty() || existing(seen).next().is_none() {
        return None;
    }
    let until = after(seen.dlx.absent_since, seen.now, timings.dlx_absence);
    if seen.now >= until {
        return Some(wake(seen, timings, "no DLX is ready"));
    }
    Some(wait(WaitReason::NoDlx, Some(until)))
}

fn stale_slices(seen: &Observation) -> Vec<Step> {
    existing(seen)
        .filter(|(service, _)| service.own_slice.as_ref() != Some(&seen.wanted_slice(service)))
        .map(|(service, _)| Step::WriteSlice(service.name.clone()))
        .collect()
}

fn restores(seen: &Observation) -> Vec<Step> {
    existing(seen)
        .filter(|(_, selector)| matches!(selector, Selector::Parked(_)))
        .map(|(service, _)| Step::RestoreSelector(service.name.clone()))
        .collect()
}

fn leaves(seen: &Observation) -> Vec<Step> {
    existing(seen)
        .filter(|(service, _)| service.own_slice.is_some())
        .map(|(service, _)| Step::DeleteSlice(service.name.clone()))
        .collect()
}

/// What brings workloads back: replicas where there are none, a fence where a scale-down may still be under way.
fn revivals(seen: &Observation) -> Vec<Step> {
    seen.workloads
        .iter()
        .filter(|workload| workload.exists)
        .filter_map(|workload| {
            let recorded =
                seen.state.replicas.iter().find(|recorded| recorded.workload == workload.object).map(|r| r.replicas);
            if workload.replicas == 0 {
                let wanted = wanted_replicas(seen, workload, recorded);
                return Some(Step::Scale(workload.object.clone(), wanted));
            }
            let fenced = workload.fence.is_some_and(|fence| fence >= seen.state.epoch);
            (recorded.is_some() && !fenced).then(|| Step::Fence(workload.object.clone(), seen.state.epoch))
        })
        .collect()
}

fn wanted_replicas(seen: &Observation, workload: &Workload, recorded: Option<i32>) -> i32 {
    seen.restore_replicas.or(workload.autoscaler_minimum).or(recorded).unwrap_or(1).max(1)
}
