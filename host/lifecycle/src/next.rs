//! From what was observed to the next steps.

mod common;
mod sleeping;
mod waking;

use std::time::Duration;

use dormouse_model::{ObjectRef, Phase};
use jiff::Timestamp;

use crate::{DesiredState, Epoch, Observation, SleeperState, TrafficCheckPolicy};

/// Times that shape the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How long connections that are open when a Service is diverted may go on before its pods go away.
    pub drain_grace: Duration,
    /// How long after an outage of the API server nothing is taken away that nodes may still lead to: no pods, and no DLX.
    pub outage_grace: Duration,
    /// How long diverting or draining may take before it is given up and rolled back.
    pub give_up: Duration,
    /// How long no DLX may be ready, or none that is ready may answer for a Service, before what it stands in for is woken.
    pub dlx_absence: Duration,
    /// How long a deleted Sleeper waits for its workload's pods before the DLX leaves all the same.
    pub finalize: Duration,
    /// How long selectors stay parked after no pod from before a wake was left: who writes EndpointSlices may learn of the end of pods
    /// later than of a selector that finds them. Meanwhile the DLX answers.
    pub endpoints_lag: Duration,
    /// How long the DLX stays in a Service after a wake although pods of this wake are listed. The times at which pods were
    /// created are known to the second only, so within one second a pod of before may pass for one of this wake.
    /// Meanwhile the DLX answers.
    pub relist: Duration,
    /// How long it stays when there is no proof that the list is of this wake ([`crate::Service::relisted`]). It may be a
    /// moment old: when a wake follows a parked selector closely, the cluster's own controller may still be about to empty
    /// its slices and fill them again. Far longer than it takes for that.
    pub unproven: Duration,
    /// How long after it was read something may still be acted on. A process that was stopped, and goes on, must not create what belongs
    /// to an earlier generation: a create is conditional on no version. Less than [`Timings::port_grace`], so that it cannot lead to a port that
    /// somebody else has by then.
    pub decision_limit: Duration,
    /// How long an awake resource keeps its DLX ports, so that late connections still find their target: longer than nodes take to
    /// hear that the DLX has left, an outage of the API server included. Then others may have them.
    pub port_grace: Duration,
    /// When to look at traffic again.
    pub traffic_check: TrafficCheckPolicy,
}

impl Timings {
    /// When nodes have caught up with an outage of the API server.
    pub fn caught_up(&self, outage: Timestamp) -> Timestamp {
        common::after(Some(outage), outage, self.outage_grace)
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            drain_grace: Duration::from_secs(5),
            // client-go pauses for up to a minute between attempts, and the first that gets through may be turned away once more.
            outage_grace: Duration::from_secs(120),
            give_up: Duration::from_secs(60),
            dlx_absence: Duration::from_secs(5),
            finalize: Duration::from_secs(30),
            endpoints_lag: Duration::from_secs(3),
            relist: Duration::from_secs(1),
            unproven: Duration::from_secs(10),
            decision_limit: Duration::from_secs(60),
            port_grace: Duration::from_secs(300),
            traffic_check: TrafficCheckPolicy::default(),
        }
    }
}

/// One write. Carrying it out twice is the same as once, and each is conditional on the version of the one object that it
/// writes being the one that was observed: an update or a delete names that version, and what was not there is
/// created, never replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Replace the Sleeper's state, if the Sleeper is still the one that was observed.
    SetState(Box<SleeperState>),
    /// Find DLX ports for these Service ports (service, port name, port) and record them on the Sleeper.
    AllocatePorts(Vec<(String, String, u16)>),
    /// Create or update Dormouse's slice of this Service so that it is [`Observation::wanted_slice`].
    WriteSlice(String),
    /// Replace the selector of this Service by one that matches no pod, keeping the original in an annotation.
    ParkSelector(String),
    /// Put the original selector of this Service back, and write the epoch on it, as [`Step::FenceService`] does.
    RestoreSelector(String),
    /// Write the epoch on a Service whose selector is as it was, so that an attempt to park it that was decided earlier
    /// loses.
    FenceService(String, Epoch),
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
    /// As desired.
    Settled,
    /// No DLX is ready, so nothing can be diverted.
    NoDlx,
    /// A DLX that is ready does not answer for a Service yet.
    Probe(String),
    /// The Services are being left by the cluster's own endpoints.
    EndpointsLeaving,
    /// Open connections are given time.
    Grace,
    /// The API server was away, and nodes may not have caught up.
    CatchingUp,
    /// Another Sleeper still has its hands on something that belongs to this one.
    Held(String),
    /// A person has to put something right, which is told on the Sleeper.
    Lost,
    /// Demand could not be asked from every DLX.
    DemandUnknown,
    /// No ready pod yet.
    NoReadyPod,
    /// Pods from before the wake are on their way out, and may still be listed as ready.
    PodsLeaving,
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
    match seen.held() {
        None => mine(seen, timings, None),
        held => mine(&seen.without_what_others_hold(), timings, held),
    }
}

/// What to do with what no other Sleeper has its hands on.
fn mine(seen: &Observation, timings: &Timings, held: Option<String>) -> Next {
    if let Some(next) = common::dated(seen, timings) {
        return next;
    }
    if seen.deleting {
        return waking::finalize(seen, timings);
    }
    match (seen.state.desired, seen.state.phase) {
        (DesiredState::Awake, Phase::Awake) => waking::awake(seen, timings),
        (DesiredState::Awake, Phase::Waking) => waking::waking(seen, timings),
        (DesiredState::Awake, Phase::Ready) => waking::ready(seen, timings),
        // A wake sets desired state and phase in one write, so this is somebody's edit by hand: treat it as a wake.
        (DesiredState::Awake, _) => common::wake(seen, timings, "the desired state was set to Awake"),
        (_, Phase::Awake) => sleeping::begin(seen, timings, held),
        (_, Phase::Diverting | Phase::Draining) if held.is_some() => {
            sleeping::held_up(seen, timings, held.unwrap_or_default())
        }
        (_, Phase::Diverting) => sleeping::diverting(seen, timings),
        (desired, Phase::Observing) => sleeping::observing(seen, timings, desired),
        (_, Phase::Draining) => sleeping::draining(seen, timings),
        (_, Phase::Asleep) => sleeping::asleep(seen, timings),
        // Wake beats sleep: finish the wake; sleep is asked for again when it is due.
        (_, Phase::Waking | Phase::Ready) => {
            common::act_state(seen, |state| state.desired = DesiredState::Awake)
        }
    }
}
