//! What was seen in the cluster. Plain facts; no decisions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::{DivertedPort, Epoch, ObjectRef, SleeperState};

/// Everything that [`crate::next`] looks at.
///
/// Workloads, Services and slices are read *before* the Sleeper: a write that is conditional on their version can then
/// never slip past a wake that this observation has not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When this was seen.
    pub now: Timestamp,
    /// The protocol's memory.
    pub state: SleeperState,
    /// The Sleeper is being deleted: restore everything and let it go.
    pub deleting: bool,
    /// Readiness timeout that applies to this resource.
    pub readiness_timeout: Duration,
    /// Replicas that a wake restores, if the resource fixes them.
    pub restore_replicas: Option<i32>,
    /// Workloads to scale.
    pub workloads: Vec<Workload>,
    /// Services to divert.
    pub services: Vec<Service>,
    /// The DLX.
    pub dlx: Dlx,
    /// Demand that the DLX reports. Only asked for where it matters: while draining.
    pub demand: Demand,
    /// A ready, non-terminating pod accepts connections. Pods created before [`SleeperState::pods_since`] do not count.
    pub ready_pod: bool,
}

/// One object with a scale subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which.
    pub object: ObjectRef,
    /// Whether it exists (and is not being deleted).
    pub exists: bool,
    /// Wished replicas.
    pub replicas: i32,
    /// Minimum of the HPA that owns it, if any.
    pub autoscaler_minimum: Option<i32>,
    /// The epoch that the last wake of this very Sleeper wrote on it, which defeats older scale-downs. An epoch that
    /// an earlier Sleeper of the same name wrote does not count: epochs begin anew with every Sleeper.
    pub fence: Option<Epoch>,
}

/// One Service of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// How it selects pods now. None: the Service does not exist.
    pub selector: Option<Selector>,
    /// Ports that DLX ports stand in for: name and number. TCP only.
    pub ports: Vec<(String, u16)>,
    /// Dormouse's own slice. Also for a Service that does not exist any more, as long as its slice does.
    pub own_slice: Option<OwnSlice>,
    /// What the cluster's own slices list.
    pub listed: Listed,
    /// Whether it is certain that a ready pod of this wake is listed: the slices were written by a controller that knew the
    /// Service as the wake left it. Otherwise what is listed may be a moment old.
    pub relisted: bool,
    /// Whether every ready DLX answers on this Service's DLX ports. Only asked for while diverting.
    pub probe: Probe,
    /// The epoch that the last wake of this very Sleeper wrote on it, which defeats older attempts to park it.
    pub fence: Option<Epoch>,
}

/// How a Service selects pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By labels.
    Pods(BTreeMap<String, String>),
    /// Parked by Dormouse; the labels are what it was before.
    Parked(BTreeMap<String, String>),
    /// In a way that cannot be diverted.
    Undivertible(Undivertible),
}

/// Why a Service cannot be diverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undivertible {
    /// `clusterIP: None`: clients know the pods' addresses.
    Headless,
    /// `type: ExternalName`: nothing in this cluster.
    ExternalName,
    /// No selector: somebody else writes its endpoints.
    NoSelector,
    /// A port that is not TCP.
    NotTcp,
    /// `internalTrafficPolicy: Local`: clients reach endpoints of their own node only, and a DLX is not on every node.
    NodeLocal,
}

impl Undivertible {
    /// The reason, in words for people.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Headless => {
                "is headless, so clients connect to pods directly and could not wake it; give it a cluster IP, or leave it out of \
                 the Services that are named"
            }
            Self::ExternalName => "is of type ExternalName and has no pods in this cluster",
            Self::NoSelector => "has no selector, so its endpoints belong to somebody else",
            Self::NotTcp => "has a port that is not TCP",
            Self::NodeLocal => {
                "has internalTrafficPolicy: Local, so clients on a node without a DLX would find nobody; set it to Cluster"
            }
        }
    }
}

/// The EndpointSlice that Dormouse keeps for a diverted Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSlice {
    /// Addresses of the DLX in it, sorted.
    pub addresses: Vec<IpAddr>,
    /// Ports in it: name and DLX port, sorted.
    pub ports: Vec<(String, u16)>,
    /// [`SleeperState::turn`] of the state for which it was last written; none if it was written for another Sleeper.
    pub turn: Option<i64>,
}

/// What the cluster's own EndpointSlices of a Service list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// No endpoint that would get a new connection.
    #[default]
    Nothing,
    /// At least one ready pod.
    ReadyPods,
}

/// Result of probing the DLX ports of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// Not asked.
    #[default]
    NotAsked,
    /// Every ready DLX answered as this Sleeper's stand-in.
    Answered,
    /// At least one did not; the text says which and how.
    Unanswered(String),
}

/// The DLX as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dlx {
    /// Addresses of ready replicas, sorted.
    pub ready: Vec<IpAddr>,
    /// Since when there has been no ready replica, if so.
    pub absent_since: Option<Timestamp>,
}

/// What the DLX knows of demand for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Not asked, or a replica could not be asked. Unknown is not idle.
    #[default]
    Unknown,
    /// All replicas answered, and nobody needs it.
    None,
    /// Requests held or in flight, and open upgraded connections, over all replicas.
    Some(u64),
}

impl Observation {
    /// The slice that a Service should have, given the DLX and the allocated ports.
    pub fn wanted_slice(&self, service: &Service) -> OwnSlice {
        let mut ports: Vec<_> = self
            .state
            .ports
            .iter()
            .filter(|port| port.service == service.name)
            .map(|port: &DivertedPort| (port.name.clone(), port.dlx_port))
            .collect();
        ports.sort();
        let mut addresses = self.dlx.ready.clone();
        addresses.sort();
        OwnSlice {
            addresses,
            ports,
            turn: Some(self.state.turn()),
        }
    }

    /// Service ports without a DLX port.
    pub(crate) fn unallocated(&self) -> Vec<(String, String, u16)> {
        self.services
            .iter()
            .filter(|service| service.selector.is_some())
            .flat_map(|service| {
                service
                    .ports
                    .iter()
                    .map(|(name, port)| (service.name.clone(), name.clone(), *port))
            })
            .filter(|(service, name, port)| {
                !self
                    .state
                    .ports
                    .iter()
                    .any(|p| p.service == *service && p.name == *name && p.port == *port)
            })
            .collect()
    }
}
