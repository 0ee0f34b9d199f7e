//! What was seen in the cluster. Plain facts; no decisions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dormouse_model::{ObjectRef, Phase};
use jiff::Timestamp;

use crate::{DivertedPort, Epoch, KeptSelector, Rival, SleeperState};

/// Everything that [`crate::next`] looks at.
///
/// Workloads, Services and slices are read *before* the Sleeper: a write that is conditional on their version can then
/// never slip past a wake that this observation has not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When this was seen.
    pub now: Timestamp,
    /// Its own number, from its name: spreads in time what many would do at the same moment.
    pub seed: u64,
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
    /// Since when there has been a diverted Service for which no DLX that is ready answers, if so.
    pub unanswered_since: Option<Timestamp>,
    /// When the API server was last known to be away. Nodes may lead where they led before for a while after that.
    pub last_outage: Option<Timestamp>,
    /// Demand that the DLX reports. Only asked for where it matters: while draining.
    pub demand: Demand,
    /// Another Sleeper owns something that this one names too.
    pub rival: Option<Rival>,
    /// Why its plugin may not put it to sleep, or nobody may. Known of what is to sleep or to be observed.
    pub denied: Option<String>,
    /// The highest epoch that the objects carry, whichever Sleeper wrote it.
    pub carried: Epoch,
    /// DLX ports that are recorded here and belong to an older claim of another Sleeper.
    pub lost_ports: Vec<u16>,
    /// Why a Service port that lacks a DLX port cannot get one, if so.
    pub no_port: Option<String>,
    /// Pods from before the workloads were at zero may be there that are not terminating. Only asked for while asleep and waking, until
    /// there are none.
    pub pods_left: bool,
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
    /// Desired replicas.
    pub replicas: i32,
    /// What zero replicas that somebody else set mean.
    pub zero: Zero,
    /// Minimum of the HPA that owns it, if any.
    pub autoscaler_minimum: Option<i32>,
    /// The epoch that the last wake of this very Sleeper wrote on it, which defeats older scale-downs. An epoch that
    /// an earlier Sleeper of the same name wrote does not count: epochs begin anew with every Sleeper.
    pub fence: Option<Epoch>,
    /// Replicas from before it was put to sleep, as the sleep noted them on the workload itself, for this Sleeper or for one that
    /// is gone.
    pub noted: Option<i32>,
    /// Another Sleeper, which exists and names it too, has put it to sleep.
    pub held_by: Option<String>,
}

/// What it means that somebody else, not Dormouse, set a workload to zero replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zero {
    /// It is asleep: the DLX stands in, and the next request wakes it.
    #[default]
    StandIn,
    /// It was turned off, and stays so.
    Off,
}

/// One Service of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// How it selects pods now. None: the Service does not exist.
    pub selector: Option<Selector>,
    /// The one address family by which clients reach it; none: any. Only DLX addresses of that family are of use to it.
    pub family: Option<Family>,
    /// Ports that DLX ports stand in for: name and number. TCP only.
    pub ports: Vec<(String, u16)>,
    /// Dormouse's own slice. Also for a Service that does not exist any more, as long as its slice does.
    pub own_slice: Option<OwnSlice>,
    /// What the cluster's own slices list.
    pub listed: Listed,
    /// Whether it is certain that a ready pod of this wake is listed: the slices were written by a controller that knew the
    /// Service as the wake left it. Otherwise what is listed may be a moment old.
    pub relisted: bool,
    /// Whether those of [`Observation::to_ask`] answer on this Service's DLX ports; if not, which and how.
    pub answers: BTreeMap<IpAddr, Result<(), String>>,
    /// The epoch that the last wake of this very Sleeper wrote on it, which defeats older attempts to park it.
    pub fence: Option<Epoch>,
    /// While it is parked: the annotation that keeps its selector is there and can be read.
    pub kept: bool,
    /// A workload that is not of this Sleeper has ready pods behind it.
    pub foreign: Option<String>,
    /// Another Sleeper, which exists and names it too, has parked it or let the DLX join it.
    pub held_by: Option<String>,
}

/// A family of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether an address is of this family.
    pub fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// How a Service selects pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By labels.
    Pods(BTreeMap<String, String>),
    /// Parked by Dormouse; the labels are what it was before.
    Parked(BTreeMap<String, String>),
    /// Parked by Dormouse, and nothing is left that tells what it was before.
    Lost,
    /// In a way that cannot be diverted.
    Undivertible(Undivertible),
    /// Parked by Dormouse, and since then changed so that it cannot be diverted any more; the labels are what it was before.
    Stranded(BTreeMap<String, String>, Undivertible),
}

impl Selector {
    /// Why nothing can stand in for the pods, if so.
    pub fn obstacle(&self) -> Option<Undivertible> {
        match self {
            Self::Pods(_) | Self::Parked(_) | Self::Lost => None,
            Self::Undivertible(why) | Self::Stranded(_, why) => Some(*why),
        }
    }

    /// Whether Dormouse replaced it.
    pub fn is_parked(&self) -> bool {
        matches!(self, Self::Parked(_) | Self::Lost | Self::Stranded(..))
    }

    /// What it selects, once it is not parked, as far as that is known.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Pods(labels) | Self::Parked(labels) | Self::Stranded(labels, _) => Some(labels),
            Self::Lost | Self::Undivertible(_) => None,
        }
    }

    /// Whether the cluster lists pods for it, once it is not parked.
    pub fn leads_to_pods(&self) -> bool {
        self.obstacle().is_none_or(Undivertible::leads_to_pods)
    }
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
    /// Clients reach it by an address family of which the DLX has no address: an EndpointSlice holds one family.
    Family,
}

impl Undivertible {
    /// Whether the cluster lists pods for such a Service all the same.
    pub fn leads_to_pods(self) -> bool {
        !matches!(self, Self::ExternalName | Self::NoSelector)
    }

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
            Self::Family => {
                "has an address family (ipFamilies) that the DLX could not answer on: the DLX has no address of that family, or the \
                 Service has both families, and one EndpointSlice holds only one; set ipFamilyPolicy: SingleStack with a family that \
                 the DLX has"
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
    /// [`SleeperState::traffic_generation`] of the state for which it was last written; none if it was written for another Sleeper.
    pub generation: Option<i64>,
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

/// The DLX as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dlx {
    /// Addresses of ready replicas, of all families, sorted.
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
    /// Requests and connections held, requests in flight, and open connections that are in use, over all replicas.
    Some(u64),
}

/// Why a Service that leads to pods of somebody else cannot be diverted.
pub fn also_leads_to(foreign: &str) -> String {
    format!(
        "also leads to pods of {foreign}, from which its requests would be taken; give each a Service of its own"
    )
}

fn lost(service: &str) -> String {
    format!(
        "the selector of Service {service} is parked, and neither its annotation dormouse.dev/parked-selector nor anything else \
         tells what it was: set the selector by hand"
    )
}

impl Observation {
    /// What keeps the resource from being diverted, in words for people. It is asked in every phase.
    pub fn obstacle(&self) -> Option<String> {
        if let Some(why) = &self.denied {
            return Some(why.clone());
        }
        if let Some(rival) = &self.rival {
            return Some(rival.explain());
        }
        let of_service = self.services.iter().find_map(|service| {
            let name = &service.name;
            match (service.selector.as_ref()?, &service.foreign) {
                (Selector::Undivertible(why) | Selector::Stranded(_, why), _) => {
                    Some(format!("Service {name} {}", why.explain()))
                }
                (Selector::Lost, _) => Some(lost(name)),
                (_, Some(foreign)) => Some(format!("Service {name} {}", also_leads_to(foreign))),
                (Selector::Pods(_) | Selector::Parked(_), None) => None,
            }
        });
        // A port that nobody answers on is worse than pods that nobody needs.
        of_service.or_else(|| self.no_port.clone())
    }

    /// As if it did not name what another Sleeper has its hands on.
    pub(crate) fn without_what_others_hold(&self) -> Self {
        let mut mine = self.clone();
        mine.services.retain(|service| service.held_by.is_none());
        mine.workloads.retain(|workload| workload.held_by.is_none());
        mine
    }

    /// What another Sleeper has its hands on, and who.
    pub(crate) fn held(&self) -> Option<String> {
        let services = self
            .services
            .iter()
            .filter_map(|service| Some((format!("Service {}", service.name), service.held_by.as_ref()?)));
        let workloads = self.workloads.iter().filter_map(|workload| {
            let object = &workload.object;
            Some((
                format!("{} {}", object.kind, object.name),
                workload.held_by.as_ref()?,
            ))
        });
        let (what, who) = services.chain(workloads).next()?;
        Some(format!("{what} is still in the hands of Sleeper {who}"))
    }

    /// The first Service whose selector is lost.
    pub(crate) fn lost_selector(&self) -> Option<String> {
        let mut services = self.services.iter();
        let found = services.find(|service| service.selector == Some(Selector::Lost))?;
        Some(lost(&found.name))
    }

    /// How the Services select their pods, as far as it is known, if the Sleeper does not remember it so.
    pub(crate) fn unrecorded_selectors(&self) -> Option<Vec<KeptSelector>> {
        let recorded = |name: &str| self.state.selectors.iter().find(|kept| kept.service == name);
        let known: Vec<_> = self
            .services
            .iter()
            .filter_map(|service| match service.selector.as_ref()?.labels() {
                Some(labels) => Some(KeptSelector {
                    service: service.name.clone(),
                    labels: labels.clone(),
                }),
                None => recorded(&service.name).cloned(),
            })
            .collect();
        let all_recorded = known.iter().all(|kept| self.state.selectors.contains(kept));
        (!all_recorded).then_some(known)
    }

    /// Whom to ask, before anything is decided, whether it answers on the DLX ports of a Service.
    ///
    /// A DLX that is ready may still not know this Sleeper: what it watches may come late, or not at all for a while. To
    /// lead to it would be to lead to a closed port. So a slice names who has answered, and whom it named already.
    pub fn to_ask(&self, service: &Service) -> Vec<IpAddr> {
        let Some(selector) = &service.selector else {
            return Vec::new();
        };
        let ready = || self.dlx_for(service);
        let new = || ready().filter(|address| !self.is_named(service, *address));
        match self.state.phase {
            Phase::Awake => Vec::new(),
            // It wakes before anything else, and then it is as below.
            phase if self.deleting && phase.is_away() => Vec::new(),
            // Once more before the pods are taken out.
            Phase::Diverting if matches!(selector, Selector::Pods(_)) => ready().collect(),
            Phase::Diverting | Phase::Observing | Phase::Draining | Phase::Asleep => new().collect(),
            // A wake does not wait for answers as long as there is somebody to lead to.
            Phase::Waking | Phase::Ready => {
                let new: Vec<_> = new().collect();
                let needed = self.keeps_slice(service) && new.len() == ready().count();
                if needed { new } else { Vec::new() }
            }
        }
    }

    /// Addresses of ready DLX replicas that may stand in for this Service.
    pub(crate) fn dlx_for(&self, service: &Service) -> impl Iterator<Item = IpAddr> + use<'_> {
        let family = service.family;
        let ready = self.dlx.ready.iter().copied();
        ready.filter(move |address| family.is_none_or(|family| family.includes(*address)))
    }

    /// The slice that a Service should have: the DLX replicas that answer, on the allocated ports.
    pub fn wanted_slice(&self, service: &Service) -> OwnSlice {
        let answers = |address: &IpAddr| match service.answers.get(address) {
            Some(answer) => answer.is_ok(),
            None => self.is_named(service, *address),
        };
        let mut addresses: Vec<_> = self.dlx_for(service).filter(answers).collect();
        addresses.sort();
        let generation = Some(self.state.traffic_generation());
        match &service.own_slice {
            // Nobody answers. What is there is not worse than nothing, and may come back.
            Some(own) if addresses.is_empty() => OwnSlice {
                generation,
                ..own.clone()
            },
            _ => OwnSlice {
                addresses,
                ports: self.dlx_ports(service),
                generation,
            },
        }
    }

    /// A Service that should be diverted, and has no DLX behind it that is ready, nor any that could be led to.
    pub fn unanswered(&self) -> Option<&Service> {
        let diverted = self.state.phase.is_away() && !self.deleting;
        self.services
            .iter()
            .filter(|service| diverted && service.selector.is_some())
            .find(|service| !self.has_stand_in(service))
    }

    /// Whether a DLX that is ready is behind this Service, or about to be, on all of its ports.
    pub(crate) fn has_stand_in(&self, service: &Service) -> bool {
        let wanted = self.wanted_slice(service);
        let addresses = &wanted.addresses;
        addresses.iter().any(|address| self.dlx.ready.contains(address))
            && wanted.ports == self.dlx_ports(service)
            && self.has_ports(service)
    }

    /// Whether a DLX port stands in for at least one of its ports; none are needed where it has none.
    fn has_ports(&self, service: &Service) -> bool {
        service.ports.is_empty() || !self.dlx_ports(service).is_empty()
    }

    /// Whether the DLX is, or should be, behind this Service during a wake: it was before, or the Service is new and its pods
    /// are still to come.
    pub(crate) fn keeps_slice(&self, service: &Service) -> bool {
        let pods_to_come = self.state.phase == Phase::Waking && !self.state.replicas.is_empty();
        let new = pods_to_come && service.listed == Listed::Nothing;
        service.own_slice.is_some() || (new && matches!(service.selector, Some(Selector::Pods(_))))
    }

    /// Whether the slice of a Service is as it should be, as far as anybody is there to be named in it.
    pub(crate) fn needs_slice(&self, service: &Service) -> bool {
        let wanted = self.wanted_slice(service);
        self.has_ports(service) && !wanted.addresses.is_empty() && service.own_slice.as_ref() != Some(&wanted)
    }

    /// Whether Dormouse's slice of a Service, written for this Sleeper, names this DLX on every port.
    pub(crate) fn is_named(&self, service: &Service, address: IpAddr) -> bool {
        service.own_slice.as_ref().is_some_and(|own| {
            let ports = self.dlx_ports(service);
            own.generation.is_some()
                && own.addresses.contains(&address)
                && ports.iter().all(|port| own.ports.contains(port))
        })
    }

    /// The DLX ports of a Service, by name.
    pub fn dlx_ports(&self, service: &Service) -> Vec<(String, u16)> {
        let mut ports: Vec<_> = self
            .state
            .ports
            .iter()
            .filter(|port| port.service == service.name)
            .map(|port: &DivertedPort| (port.name.clone(), port.dlx_port))
            .collect();
        ports.sort();
        ports
    }

    /// Whether a Service port has no DLX port.
    pub fn lacks_ports(&self) -> bool {
        !self.unallocated(|_| true).is_empty()
    }

    /// Service ports without a DLX port.
    pub(crate) fn unallocated(&self, of: impl Fn(&Service) -> bool) -> Vec<(String, String, u16)> {
        self.services
            .iter()
            .filter(|service| service.selector.is_some() && of(service))
            .flat_map(|service| {
                service
                    .ports
                    .iter()
                    .map(|(name, port)| (service.name.clone(), name.clone(), *port))
            })
            .filter(|(service, name, port)| {
                let held = |p: &DivertedPort| {
                    p.service == *service
                        && p.name == *name
                        && p.port == *port
                        && !self.lost_ports.contains(&p.dlx_port)
                };
                !self.state.ports.iter().any(held)
            })
            .collect()
    }
}
