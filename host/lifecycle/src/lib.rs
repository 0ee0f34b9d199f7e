//! The sleep and wake protocol as a pure function.
//!
//! [`next`] looks at what was observed ([`Observation`]) and answers with the next steps ([`Next`]). It knows no clock,
//! no client and no memory: everything that it needs to know is in the cluster and arrives in the observation. So
//! any process may die between any two steps, and whoever looks next finishes the work or rolls it back. The simulation
//! (tests/simulation, random schedules of several executors) and production run this very function.
//!
//! ```text
//! Awake -> Diverting -> Observing -> Draining -> Asleep
//!   ^          |            |            |          |
//!   |          +------------+------------+----------+   any demand: the epoch rises, the desired state becomes Awake
//!   |                              v
//!   +---- Ready <-------------- Waking
//! ```
//!
//! * **Make before break.** The DLX joins a Service before its selector is parked; the selector is restored
//!   before replicas come back; the DLX leaves only once ready pods are listed.
//! * **Wake beats sleep.** A wake is one compare-and-set on the Sleeper that raises its epoch. Sleep steps are
//!   compare-and-sets against the state that they were decided on, and a wake fences workloads, so a late scale-down loses.
//! * **Ownership is judged in every phase.** What another Sleeper owns is left to it, and so is what another one holds: the steps of
//!   a Sleeper are decided as if it did not name what another one has its hands on.
//! * **What is lost is derived again** from what is left on the objects: a Sleeper that finds itself awake beside a parked
//!   Service and a workload at zero goes on sleeping.
//! * **One to many is not ours**, but where it may write is: [`may_resize`].
//! * **Observing** is the stage between diverted and draining. A workload that is only being looked at stays there.

mod answers;
mod epoch;
mod next;
mod observation;
mod ownership;
mod ports;
mod resize;
mod state;
mod traffic_check;
mod transition;

pub use answers::Answers;
pub use epoch::Epoch;
pub use next::{Next, Step, Timings, WaitReason, next};
pub use observation::{
    Demand, Dlx, Family, Listed, Observation, OwnSlice, Selector, Service, Undivertible, Workload, Zero,
    also_leads_to,
};
pub use ownership::{Claimant, Precedence, Rival, owner};
pub use ports::{Allocation, Claim, PortRange, PortsExhausted, allocate};
pub use resize::{NotNow, may_resize};
pub use state::{
    DesiredState, DivertedPort, KeptSelector, SURVIVAL, SleeperState, WakeFailure, WorkloadReplicas,
};
pub use traffic_check::{TrafficCheck, TrafficCheckPolicy};
pub use transition::{Refused, request_observation, request_sleep, request_wake};
