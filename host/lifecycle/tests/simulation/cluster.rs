//! A cluster with just enough in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dormouse_lifecycle::{
    Claimant, Demand, Dlx, Epoch, Listed, Observation, OwnSlice, Selector, Service, SleeperState, Timings,
    TrafficCheckPolicy, Workload, Zero, owner,
};
use dormouse_model::ObjectRef;
use jiff::{SignedDuration, Timestamp};

use crate::node::Node;

/// How far the endpoints controller may be behind.
const ENDPOINTS_LAG: SignedDuration = SignedDuration::from_millis(900);

pub const READINESS_TIMEOUT: Duration = Duration::from_secs(30);

pub fn timings() -> Timings {
    Timings {
        drain_grace: Duration::from_secs(2),
        outage_grace: Duration::from_secs(10),
        give_up: Duration::from_secs(20),
        dlx_absence: Duration::from_secs(3),
        finalize: Duration::from_secs(10),
        endpoints_lag: Duration::from_secs(1),
        relist: Duration::from_secs(1),
        unproven: Duration::from_secs(1),
        decision_limit: Duration::from_secs(20),
        port_grace: Duration::from_secs(30),
        traffic_check: TrafficCheckPolicy {
            settle: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        },
    }
}

#[derive(Clone, Debug)]
pub struct Sleeper {
    pub state: SleeperState,
    /// One that is created anew in the place of one that was removed is another one.
    pub uid: u64,
    pub created: Timestamp,
    /// Which Services and workloads it names.
    pub services: Vec<usize>,
    pub workloads: Vec<usize>,
    pub deleting: bool,
    pub version: u64,
}

#[derive(Clone, Debug)]
pub struct Slice {
    pub content: OwnSlice,
    /// Which Sleeper, and which uid.
    pub owner: (usize, u64),
    pub version: u64,
}

#[derive(Clone, Debug)]
pub struct SimService {
    pub name: String,
    pub parked: bool,
    /// Which Sleeper parked it last.
    pub parked_by: usize,
    /// What wakes wrote, by uid of the Sleeper.
    pub fences: BTreeMap<u64, Epoch>,
    pub version: u64,
    pub slice: Option<Slice>,
    /// The cluster's own slices list a ready pod.
    pub listed: bool,
    /// Whether the endpoints controller believes it to be parked.
    believed_parked: bool,
    /// Index of the workload whose pods it selects.
    pub workload: usize,
}

#[derive(Clone, Debug)]
pub struct SimWorkload {
    pub object: ObjectRef,
    pub replicas: i32,
    pub fences: BTreeMap<u64, Epoch>,
    /// Which Sleeper put it to zero, with which uid, and from how many replicas.
    pub noted: Option<(usize, u64, i32)>,
    pub version: u64,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub workload: usize,
    pub created: Timestamp,
    pub ready: bool,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub now: Timestamp,
    /// The Sleeper that is looked at.
    pub sleeper: Option<Sleeper>,
    /// Which of the two that is.
    pub focus: usize,
    /// The other one, if there are two.
    pub other: Option<Sleeper>,
    /// Those DLX that know the other one's ports.
    other_knowing: BTreeSet<u8>,
    pub services: Vec<SimService>,
    pub workloads: Vec<SimWorkload>,
    pub pods: Vec<Pod>,
    /// Ready pods that were removed, and when: the endpoints controller may not have heard of it.
    removed: Vec<(Pod, Timestamp)>,
    pub dlx: Vec<u8>,
    /// Those DLX that know the Sleeper's ports. The others refuse connections to them.
    knowing: BTreeSet<u8>,
    /// Those that learn of nothing any more.
    deaf: BTreeSet<u8>,
    pub absent_since: Option<Timestamp>,
    pub demand: Demand,
    pub node: Node,
    versions: u64,
    /// The replicas that the workloads' controllers believe to be desired.
    believed: Vec<i32>,
    /// How long the workloads' controllers have not looked.
    unsynced: SignedDuration,
    /// How long the endpoints controller has not looked.
    unlisted: SignedDuration,
}

impl Cluster {
    /// Services `a` and `b`, over one workload or over one each, awake and listed.
    pub fn new(workloads: usize, dlx: Vec<u8>) -> Self {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a timestamp");
        let mut cluster = Self {
            now,
            sleeper: Some(Sleeper {
                state: SleeperState::default(),
                uid: 1,
                created: now,
                services: vec![0, 1],
                workloads: (0..workloads).collect(),
                deleting: false,
                version: 0,
            }),
            focus: 0,
            other: None,
            other_knowing: BTreeSet::new(),
            services: Vec::new(),
            workloads: Vec::new(),
            pods: Vec::new(),
            removed: Vec::new(),
            absent_since: dlx.is_empty().then_some(now),
            dlx,
            knowing: BTreeSet::new(),
            deaf: BTreeSet::new(),
            demand: Demand::None,
            node: Node::default(),
            versions: 0,
            believed: Vec::new(),
            unsynced: SignedDuration::ZERO,
            unlisted: SignedDuration::ZERO,
        };
        for index in 0..workloads {
            let object = ObjectRef {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: format!("w{index}"),
            };
            cluster.workloads.push(SimWorkload {
                object,
                replicas: 2,
                fences: BTreeMap::new(),
                noted: None,
                version: 0,
            });
        }
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            cluster.services.push(SimService {
                name: name.into(),
                parked: false,
                parked_by: 0,
                fences: BTreeMap::new(),
                version: 0,
                slice: None,
                listed: false,
                believed_parked: false,
                workload: index % workloads,
            });
        }
        cluster.watch_workloads();
        cluster.sync_workloads();
        cluster.pods_become_ready();
        cluster.sync_endpoints();
        cluster.now += SignedDuration::from_secs(100);
        cluster
    }

    /// Looks at this Sleeper from now on.
    pub fn focus(&mut self, which: usize) {
        if self.focus != which {
            std::mem::swap(&mut self.sleeper, &mut self.other);
            std::mem::swap(&mut self.knowing, &mut self.other_knowing);
            self.focus = which;
        }
    }

    /// Whether a Sleeper exists, by its place and uid.
    pub fn lives(&self, (which, uid): (usize, u64)) -> bool {
        let sleeper = if which == self.focus {
            &self.sleeper
        } else {
            &self.other
        };
        sleeper.as_ref().is_some_and(|sleeper| sleeper.uid == uid)
    }

    fn claimant(which: usize, sleeper: &Sleeper) -> Claimant {
        Claimant {
            name: format!("s{which}"),
            created: Some(sleeper.created),
            phase: sleeper.state.phase,
            deleting: sleeper.deleting,
            services: sleeper
                .services
                .iter()
                .map(|index| format!("service {index}"))
                .collect(),
            workloads: sleeper
                .workloads
                .iter()
                .map(|index| ObjectRef {
                    name: format!("w{index}"),
                    ..ObjectRef::default()
                })
                .collect(),
        }
    }

    /// Who owns something that the Sleeper which is looked at names too, as `others` knew the other one.
    pub fn rival(&self, others: &Cluster) -> Option<dormouse_lifecycle::Rival> {
        let me = Self::claimant(self.focus, self.sleeper.as_ref()?);
        let other = Self::claimant(1 - self.focus, others.other.as_ref()?);
        owner(&me, &[other])
    }

    pub fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    pub fn sync_endpoints(&mut self) {
        self.watch_services();
        for index in 0..self.services.len() {
            self.sync_service(index);
        }
    }

    /// The endpoints controller learns of selectors.
    pub fn watch_services(&mut self) {
        self.unlisted = SignedDuration::ZERO;
        self.services
            .iter_mut()
            .for_each(|service| service.believed_parked = service.parked);
    }

    /// The endpoints controller writes the slices of one Service, as it believes the selector to be.
    pub fn sync_service(&mut self, index: usize) {
        let service = &self.services[index];
        let listed = !service.believed_parked
            && self
                .pods
                .iter()
                .any(|pod| pod.workload == service.workload && pod.ready);
        self.services[index].listed = listed;
    }

    /// Whether a Service, if its selector is put back now as it was decided on `objects`, leads to pods that go because of a sleep: their controller has not heard of
    /// anything but zero, or will hear of nothing else.
    pub fn leads_to_leaving_pods(&self, index: usize, objects: &Cluster) -> bool {
        let Some(state) = self.sleeper.as_ref().map(|sleeper| &sleeper.state) else {
            return false;
        };
        let of = self.services[index].workload;
        let uid = self.sleeper.as_ref().map(|sleeper| sleeper.uid);
        let own = self.services[index].slice.iter();
        let own = own.filter(|own| Some(own.owner.1) == uid && own.content.generation.is_some());
        let mut dlx = own.flat_map(|own| &own.content.addresses);
        // Where no DLX stood in when it was decided, one that goes is better than nobody.
        let ready = |dlx: &[u8], address| dlx.iter().any(|last| address_of(*last) == address);
        let stands_in = dlx.any(|address| ready(&self.dlx, *address) && ready(&objects.dlx, *address));
        let zero = self.believed.get(of) == Some(&0) || self.workloads[of].replicas == 0;
        let put_to_sleep = self.workloads[of].noted.is_some();
        let kept = state.pods_survived().is_some_and(|moment| self.now >= moment);
        let before = |pod: &Pod| state.wake_started.is_some_and(|started| pod.created < started);
        let listed = |pod: &&Pod| pod.workload == of && pod.ready && before(pod);
        let goes = zero && self.pods.iter().any(|pod| listed(&pod));
        // One that has gone is listed as long as the controller lags.
        let lags = |removed: &Timestamp| self.now.duration_since(*removed) <= ENDPOINTS_LAG;
        let mut removed = self.removed.iter().filter(|(_, removed)| lags(removed));
        stands_in && put_to_sleep && !kept && (goes || removed.any(|(pod, _)| listed(&pod)))
    }

    /// The workloads' controllers learn what is desired.
    pub fn watch_workloads(&mut self) {
        self.believed = self.workloads.iter().map(|workload| workload.replicas).collect();
    }

    /// The workloads' controllers create and remove pods, as they believe is desired.
    pub fn sync_workloads(&mut self) {
        self.unsynced = SignedDuration::ZERO;
        for (index, replicas) in self.believed.iter().enumerate() {
            let wanted = usize::try_from(*replicas).unwrap_or(0);
            let mut kept = 0;
            let (pods, removed) = std::mem::take(&mut self.pods).into_iter().partition(|pod| {
                kept += usize::from(pod.workload == index);
                pod.workload != index || kept <= wanted
            });
            self.pods = pods;
            let removed: Vec<Pod> = removed;
            let removed = removed.into_iter().filter(|pod| pod.ready);
            self.removed.extend(removed.map(|pod| (pod, self.now)));
            for _ in kept..wanted {
                let created = Timestamp::from_second(self.now.as_second()).expect("a timestamp");
                self.pods.push(Pod {
                    workload: index,
                    created,
                    ready: false,
                });
            }
        }
        // A pod that has gone is not listed for long: kubelet and endpoints controller agree on terminating pods.
        for index in 0..self.services.len() {
            if !self
                .pods
                .iter()
                .any(|pod| pod.workload == self.services[index].workload && pod.ready)
            {
                self.services[index].listed = false;
            }
        }
    }

    pub fn pods_become_ready(&mut self) {
        self.pods.iter_mut().for_each(|pod| pod.ready = true);
    }

    /// Time passes. Controllers may lag, but those of workloads not for longer than a few seconds, and that of endpoints for
    /// less than what the protocol allows for.
    pub fn tick(&mut self, span: SignedDuration) {
        self.unlisted += span;
        if self.unlisted > ENDPOINTS_LAG {
            self.sync_endpoints();
        }
        self.unsynced += span;
        if self.unsynced > SignedDuration::from_secs(8) {
            self.sync_workloads();
            self.watch_workloads();
            self.sync_workloads();
        }
        self.now += span;
        self.node_catches_up();
    }

    pub fn set_dlx(&mut self, dlx: Vec<u8>) {
        self.absent_since = match (dlx.is_empty(), self.absent_since) {
            (true, None) => Some(self.now),
            (true, since) => since,
            (false, _) => None,
        };
        // One that comes back at its address is the same and knows what it knew, or has read all there is before it was ready.
        // Another one may have read it before the Sleeper was there.
        let named: BTreeSet<_> = self
            .services
            .iter()
            .flat_map(|service| self.named(service))
            .collect();
        self.knowing
            .extend(dlx.iter().filter(|last| named.contains(last)));
        self.dlx = dlx;
        self.node_loses_dlx();
    }

    /// A DLX learns of the Sleeper's ports.
    pub fn learn(&mut self, last: u8) {
        if self.dlx.contains(&last) && !self.deaf.contains(&last) {
            self.knowing.insert(last);
        }
    }

    pub fn all_learn(&mut self) {
        let hearing: Vec<_> = self
            .dlx
            .iter()
            .copied()
            .filter(|last| !self.deaf.contains(last))
            .collect();
        self.knowing.extend(&hearing);
        self.other_knowing.extend(&hearing);
    }

    /// A DLX is ready, but learns of nothing from now on.
    pub fn deafen(&mut self, last: u8) {
        self.deaf.insert(last);
    }

    /// How many DLX are ready and know the Sleeper.
    pub fn answering(&self) -> usize {
        self.dlx.iter().filter(|last| self.knowing.contains(last)).count()
    }

    /// Nobody knows ports that were just given.
    pub fn forget_ports(&mut self) {
        self.knowing.clear();
    }

    /// Which DLX that is ready a Service leads to, although it does not know the Sleeper.
    pub fn led_to_ignorant(&self, service: &SimService) -> Option<u8> {
        let mut named = self.named(service);
        let others = service
            .slice
            .as_ref()
            .is_some_and(|slice| slice.owner.0 != self.focus);
        let knowing = if others {
            &self.other_knowing
        } else {
            &self.knowing
        };
        named.find(|last| self.dlx.contains(last) && !knowing.contains(last))
    }

    pub fn named<'a>(&self, service: &'a SimService) -> impl Iterator<Item = u8> + use<'a> {
        let slices = service.slice.iter();
        slices.flat_map(|slice| {
            slice.content.addresses.iter().map(|address| match address {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(address) => address.octets()[15],
            })
        })
    }

    /// A GitOps tool puts back what the manifest says.
    pub fn revert_selector(&mut self, index: usize) {
        if self.services[index].parked {
            self.services[index].version = self.version();
            self.services[index].parked = false;
        }
    }

    pub fn scale_by_hand(&mut self, index: usize, replicas: i32) {
        self.workloads[index].version = self.version();
        self.workloads[index].replicas = replicas;
    }

    /// Changes the Sleeper's state, as a new desired state does.
    pub fn request(&mut self, change: impl FnOnce(&SleeperState, Timestamp) -> Option<SleeperState>) -> bool {
        let (now, version) = (self.now, self.version());
        let Some(sleeper) = &mut self.sleeper else {
            return false;
        };
        let Some(state) = change(&sleeper.state, now) else {
            return false;
        };
        *sleeper = Sleeper {
            state,
            version,
            ..sleeper.clone()
        };
        true
    }

    pub fn delete_sleeper(&mut self) {
        let version = self.version();
        if let Some(sleeper) = &mut self.sleeper {
            sleeper.deleting = true;
            sleeper.version = version;
        }
    }

    /// Slices are owned by the Sleeper: once it has gone, so do they.
    pub fn collect_garbage(&mut self) {
        for index in 0..self.services.len() {
            let owner = self.services[index].slice.as_ref().map(|slice| slice.owner);
            if owner.is_some_and(|owner| !self.lives(owner)) {
                self.services[index].slice = None;
            }
        }
    }

    /// What an executor sees when it read objects from `objects` and then the Sleeper from `self`.
    pub fn observe(&self, objects: &Cluster) -> Option<Observation> {
        let sleeper = self.sleeper.as_ref()?;
        let since = sleeper.state.pods_since(self.now);
        let labels = || BTreeMap::from([("app".to_owned(), "x".to_owned())]);
        let other = objects.other.as_ref();
        let mine = |uid: u64| uid == sleeper.uid;
        let named = |index: &usize| objects.services.get(*index);
        let services = sleeper
            .services
            .iter()
            .filter_map(named)
            .enumerate()
            .map(|(place, service)| Service {
                name: service.name.clone(),
                selector: Some(if service.parked {
                    Selector::Parked(labels())
                } else {
                    Selector::Pods(labels())
                }),
                family: None,
                ports: vec![(String::new(), 80)],
                own_slice: service.slice.as_ref().map(|slice| OwnSlice {
                    generation: slice.content.generation.filter(|_| mine(slice.owner.1)),
                    ..slice.content.clone()
                }),
                listed: if service.listed {
                    Listed::ReadyPods
                } else {
                    Listed::Nothing
                },
                // Without proof, so that the time has to do.
                relisted: false,
                answers: BTreeMap::new(),
                fence: service.fences.get(&sleeper.uid).copied(),
                kept: true,
                foreign: None,
                held_by: other
                    .filter(|other| {
                        // This one is there: who parked it comes before whose slice is in it.
                        let slice = service
                            .slice
                            .as_ref()
                            .is_some_and(|slice| slice.owner.1 == other.uid);
                        let holds = if service.parked && (service.parked_by == self.focus) {
                            false
                        } else {
                            service.parked || slice
                        };
                        other.services.contains(&sleeper.services[place]) && holds
                    })
                    .map(|_| "the other".to_owned()),
            });
        let named = |index: &usize| objects.workloads.get(*index);
        let workloads = sleeper
            .workloads
            .iter()
            .filter_map(named)
            .map(|workload| Workload {
                object: workload.object.clone(),
                exists: true,
                replicas: workload.replicas,
                zero: Zero::StandIn,
                autoscaler_minimum: None,
                fence: workload.fences.get(&sleeper.uid).copied(),
                noted: workload.noted.map(|(_, _, replicas)| replicas),
                held_by: other
                    .filter(|other| {
                        let active =
                            workload.replicas == 0 || other.state.phase != dormouse_model::Phase::Awake;
                        active && workload.noted.is_some_and(|(_, uid, _)| uid == other.uid)
                    })
                    .map(|_| "the other".to_owned()),
            });
        let fences = objects.services.iter().map(|service| &service.fences);
        let fences = fences.chain(objects.workloads.iter().map(|workload| &workload.fences));
        let generations = objects
            .services
            .iter()
            .filter_map(|service| service.slice.as_ref()?.content.generation);
        let carried = fences
            .flat_map(|fences| fences.values().copied())
            .chain(generations.map(|generation| generation / 2))
            .max();
        let mut seen = Observation {
            now: self.now,
            seed: 0,
            state: sleeper.state.clone(),
            deleting: sleeper.deleting,
            readiness_timeout: READINESS_TIMEOUT,
            restore_replicas: None,
            workloads: workloads.collect(),
            services: services.collect(),
            dlx: Dlx {
                ready: objects.dlx.iter().map(|last| address_of(*last)).collect(),
                absent_since: objects.absent_since,
            },
            unanswered_since: None,
            last_outage: self.last_outage(),
            demand: self.demand.clone(),
            rival: self.rival(objects),
            denied: None,
            carried: carried.unwrap_or(0),
            lost_ports: Vec::new(),
            no_port: None,
            pods_left: objects.pods.iter().any(|pod| {
                let started = sleeper.state.wake_started;
                let waking = sleeper.state.phase == dormouse_model::Phase::Waking;
                !waking || started.is_none_or(|started| pod.created.as_second() < started.as_second())
            }),
            ready_pod: objects
                .pods
                .iter()
                .any(|pod| pod.ready && since.is_none_or(|since| pod.created >= since)),
        };
        let asked: Vec<_> = seen.services.iter().map(|service| seen.to_ask(service)).collect();
        for (service, asked) in seen.services.iter_mut().zip(asked) {
            let answers = asked.into_iter().map(|address| {
                let knows = self.knowing.iter().any(|last| address_of(*last) == address);
                (address, if knows { Ok(()) } else { Err("refused".into()) })
            });
            service.answers = answers.collect();
        }
        Some(seen)
    }
}

fn address_of(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 9, last))
}
