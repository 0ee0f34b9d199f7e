//! Every fault in every phase: whatever is edited, removed or lost, and whenever, it ends in a defined state within seconds, and
//! nobody writes there any more.
//!
//! The cluster around the protocol is a simple one here: each step is carried out at once, and pods and endpoints follow at once.
//! What happens when they do not is for the simulation.

use std::net::{IpAddr, Ipv4Addr};

use dormouse_lifecycle::{
    Allocation, DesiredState, DivertedPort, Family, Listed, Next, Observation, PortRange, Precedence, Rival,
    Selector, Service, SleeperState, Step, Undivertible, WaitReason, Zero, allocate, next, request_sleep,
};
use dormouse_model::Phase;
use jiff::Timestamp;
use proptest::prelude::*;

use crate::fixture::*;

/// Steps and waits until it must be quiet.
const ENOUGH: usize = 60;
/// What it may take by the clock: as long as `give_up`, and a wake after that.
const LONGEST: i64 = 90;

/// Something that somebody does to the objects of a resource.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Undivertible(Undivertible),
    PortRenamed,
    PortAdded,
    PortRemoved,
    NoPorts,
    ServiceDeleted,
    ServiceRecreated,
    ServiceJoins,
    SelectorChanged,
    SelectorPutBack,
    AnnotationLost,
    SelectorLost,
    FenceRemoved,
    SliceDeleted,
    SliceOfAnother,
    SliceEdited,
    FamilyChanged(Family),
    ScaledUp,
    ScaledToZero,
    ZeroIsOff,
    WorkloadDeleted,
    WorkloadRecreated,
    WorkloadRecreatedAtZero,
    WorkloadJoins(i32),
    NoteRemoved,
    AutoscalerAdded,
    ReplicasFixed,
    SleeperRemovedByForce,
    StatusWiped,
    RecordsWiped,
    PortsWiped,
    WishEdited(DesiredState),
    OneDlxGoes,
    DlxReplaced,
    NoDlx,
    NobodyAnswers,
    ForeignPods,
    RivalAppears,
    PodsNeverReady,
    Demand,
    Deleted,
    NoPortLeft,
}

fn faults() -> Vec<Fault> {
    let mut all = vec![
        Fault::PortRenamed,
        Fault::PortAdded,
        Fault::PortRemoved,
        Fault::NoPorts,
        Fault::ServiceDeleted,
        Fault::ServiceRecreated,
        Fault::ServiceJoins,
        Fault::SelectorChanged,
        Fault::SelectorPutBack,
        Fault::AnnotationLost,
        Fault::SelectorLost,
        Fault::FenceRemoved,
        Fault::SliceDeleted,
        Fault::SliceOfAnother,
        Fault::SliceEdited,
        Fault::FamilyChanged(Family::V4),
        Fault::FamilyChanged(Family::V6),
        Fault::ScaledUp,
        Fault::ScaledToZero,
        Fault::ZeroIsOff,
        Fault::WorkloadDeleted,
        Fault::WorkloadRecreated,
        Fault::WorkloadRecreatedAtZero,
        Fault::WorkloadJoins(0),
        Fault::WorkloadJoins(1),
        Fault::NoteRemoved,
        Fault::AutoscalerAdded,
        Fault::ReplicasFixed,
        Fault::SleeperRemovedByForce,
        Fault::StatusWiped,
        Fault::RecordsWiped,
        Fault::PortsWiped,
        Fault::WishEdited(DesiredState::Awake),
        Fault::WishEdited(DesiredState::Observed),
        Fault::WishEdited(DesiredState::Asleep),
        Fault::OneDlxGoes,
        Fault::DlxReplaced,
        Fault::NoDlx,
        Fault::NobodyAnswers,
        Fault::ForeignPods,
        Fault::RivalAppears,
        Fault::PodsNeverReady,
        Fault::Demand,
        Fault::Deleted,
        Fault::NoPortLeft,
    ];
    all.extend(UNDIVERTIBLE.map(Fault::Undivertible));
    all
}

/// A resource and what is around it.
struct World {
    seen: Observation,
    never_ready: bool,
    nobody_answers: bool,
    /// No DLX port is left.
    full: bool,
    /// The Sleeper was let go.
    gone: bool,
    /// Steps other than of the Sleeper's own state, and what was waited for.
    told: Vec<String>,
}

impl World {
    fn new(phase: Phase) -> Self {
        let desired = match phase {
            Phase::Awake | Phase::Waking | Phase::Ready => DesiredState::Awake,
            Phase::Observing => DesiredState::Observed,
            _ => DesiredState::Asleep,
        };
        let mut seen = seen(phase, desired);
        if phase == Phase::Asleep {
            seen.workloads[0].noted = Some(3);
        }
        Self {
            seen,
            never_ready: false,
            nobody_answers: false,
            full: false,
            gone: false,
            told: Vec::new(),
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let seen = &mut self.seen;
        let joined = (seen.services.len() > 1, seen.workloads.len() > 1);
        let service = &mut seen.services[0];
        let workload = &mut seen.workloads[0];
        match fault {
            Fault::Undivertible(why) => make_undivertible(service, why),
            Fault::PortRenamed => service.ports = vec![("web".into(), 80)],
            Fault::PortAdded => service.ports.push(("more".into(), 81)),
            Fault::PortRemoved => service.ports = vec![("http".into(), 8080)],
            Fault::NoPorts => service.ports.clear(),
            Fault::ServiceDeleted => service.selector = None,
            Fault::ServiceRecreated => {
                service.selector = Some(Selector::Pods(labels()));
                service.fence = None;
            }
            // One that joined already is not named twice.
            Fault::ServiceJoins if joined.0 => {}
            Fault::WorkloadJoins(_) if joined.1 => {}
            Fault::ServiceJoins => {
                let mut joins = crate::fixture::service("second", Selector::Pods(labels()));
                joins.answers.clear();
                seen.services.push(joins);
            }
            Fault::SelectorChanged => {
                let new = [("app".to_owned(), "new".to_owned())].into_iter().collect();
                service.selector = service.selector.take().map(|selector| match selector {
                    Selector::Parked(_) | Selector::Lost => Selector::Parked(new),
                    Selector::Stranded(_, why) => Selector::Stranded(new, why),
                    Selector::Pods(_) => Selector::Pods(new),
                    undivertible @ Selector::Undivertible(_) => undivertible,
                });
            }
            Fault::SelectorPutBack => put_back(service),
            Fault::AnnotationLost => service.kept = false,
            Fault::SelectorLost => {
                if service.selector.as_ref().is_some_and(Selector::is_parked) {
                    (service.selector, service.kept) = (Some(Selector::Lost), false);
                }
            }
            Fault::FenceRemoved => (service.fence, workload.fence) = (None, None),
            Fault::SliceDeleted => service.own_slice = None,
            Fault::SliceOfAnother => service.own_slice = Some(stale_slice()),
            Fault::SliceEdited => {
                if let Some(own) = &mut service.own_slice {
                    own.addresses.push(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
                    own.ports.clear();
                }
            }
            Fault::FamilyChanged(family) => {
                service.family = Some(family);
                if !seen.dlx.ready.iter().any(|address| family.includes(*address))
                    && !seen.dlx.ready.is_empty()
                {
                    make_undivertible(service, Undivertible::Family);
                }
            }
            Fault::ScaledUp => workload.replicas = workload.replicas.max(0) + 2,
            Fault::ScaledToZero => workload.replicas = 0,
            Fault::ZeroIsOff => workload.zero = Zero::Off,
            Fault::WorkloadDeleted => (workload.exists, workload.replicas) = (false, 0),
            Fault::WorkloadRecreated => *workload = crate::fixture::workload("web", 2),
            Fault::WorkloadRecreatedAtZero => *workload = crate::fixture::workload("web", 0),
            Fault::WorkloadJoins(replicas) => {
                seen.workloads.push(crate::fixture::workload("worker", replicas));
            }
            Fault::NoteRemoved => workload.noted = None,
            Fault::AutoscalerAdded => workload.autoscaler_minimum = Some(4),
            Fault::ReplicasFixed => seen.restore_replicas = Some(5),
            Fault::SleeperRemovedByForce => {
                // Its source declares it anew.
                self.gone = false;
                seen.state = SleeperState::default();
                seen.deleting = false;
                for service in &mut seen.services {
                    (service.own_slice, service.fence) = (None, None);
                }
                for workload in &mut seen.workloads {
                    workload.fence = None;
                }
                seen.carried = EPOCH;
            }
            Fault::StatusWiped => {
                seen.state = SleeperState::default();
                seen.carried = EPOCH;
            }
            Fault::RecordsWiped => {
                seen.state.replicas.clear();
                seen.state.selectors.clear();
                seen.state.since = None;
                seen.state.wake_started = None;
            }
            Fault::PortsWiped => seen.state.ports.clear(),
            Fault::WishEdited(desired) => seen.state.desired = desired,
            Fault::OneDlxGoes => seen.dlx.ready.truncate(1),
            Fault::DlxReplaced => seen.dlx = dlx(&[7, 8]),
            Fault::NoDlx => {
                seen.dlx = dlx(&[]);
                seen.dlx.absent_since = Some(seen.now);
            }
            Fault::NobodyAnswers => self.nobody_answers = true,
            Fault::ForeignPods => service.foreign = Some("Deployment canary".into()),
            Fault::RivalAppears => {
                seen.rival = Some(Rival {
                    sleeper: "web.other".into(),
                    what: "Service web".into(),
                    because: Precedence::Holds,
                });
            }
            Fault::PodsNeverReady => self.never_ready = true,
            Fault::Demand => seen.demand = dormouse_lifecycle::Demand::Some(1),
            Fault::Deleted => seen.deleting = true,
            Fault::NoPortLeft => self.full = true,
        }
    }

    /// What controllers, the DLX and the autoscaler do meanwhile.
    fn settle(&mut self) {
        let up = self
            .seen
            .workloads
            .iter()
            .any(|workload| workload.exists && workload.replicas > 0);
        let pods = up && !self.never_ready;
        for service in &mut self.seen.services {
            let leads = service
                .selector
                .as_ref()
                .is_some_and(|selector| !selector.is_parked() && selector.leads_to_pods());
            let listed = leads && (pods || service.foreign.is_some());
            service.listed = if listed {
                Listed::ReadyPods
            } else {
                Listed::Nothing
            };
            service.relisted = leads && pods && service.fence.is_some();
            service.answers.clear();
        }
        self.seen.ready_pod = pods;
        let lacking = self.full && self.seen.lacks_ports();
        self.seen.no_port = lacking.then(|| "all DLX ports are taken".to_owned());
        self.seen.pods_left = up;
        for index in 0..self.seen.services.len() {
            let asked = self.seen.to_ask(&self.seen.services[index]);
            let answer = if self.nobody_answers {
                Err("refused".to_owned())
            } else {
                Ok(())
            };
            self.seen.services[index].answers = asked.into_iter().map(|ip| (ip, answer.clone())).collect();
        }
        let diverted = self.seen.unanswered().is_some();
        let since = self.seen.unanswered_since.unwrap_or(self.seen.now);
        self.seen.unanswered_since = diverted.then_some(since);
    }

    /// The autoscaler stands in for what is at zero without us.
    fn stand_in(&mut self) -> bool {
        let state = &self.seen.state;
        let zero = |workload: &dormouse_lifecycle::Workload| {
            workload.replicas == 0 && workload.zero == Zero::StandIn
        };
        let mut there = self
            .seen
            .workloads
            .iter()
            .filter(|workload| workload.exists)
            .peekable();
        let all_zero = there.peek().is_some() && there.all(zero);
        let ask = state.phase == Phase::Awake && state.desired != DesiredState::Asleep && all_zero;
        if !ask || self.seen.deleting || self.seen.obstacle().is_some() {
            return false;
        }
        self.seen.state = request_sleep(state, "at zero").unwrap();
        true
    }

    fn carry_out(&mut self, step: &Step) {
        let epoch = self.seen.state.epoch;
        match step {
            Step::SetState(state) => self.seen.state = (**state).clone(),
            Step::AllocatePorts(_) => self.allocate(),
            Step::WriteSlice(name) => {
                let service = self.service(name).clone();
                let wanted = self.seen.wanted_slice(&service);
                self.service(name).own_slice = Some(wanted);
            }
            Step::ParkSelector(name) => {
                let service = self.service(name);
                let labels = service
                    .selector
                    .as_ref()
                    .and_then(Selector::labels)
                    .unwrap()
                    .clone();
                (service.selector, service.kept) = (Some(Selector::Parked(labels)), true);
            }
            Step::RestoreSelector(name) => {
                let service = self.service(name);
                put_back(service);
                service.fence = Some(epoch);
            }
            Step::FenceService(name, epoch) => self.service(name).fence = Some(*epoch),
            Step::DeleteSlice(name) => self.service(name).own_slice = None,
            Step::Scale(object, replicas) => {
                let recorded = self
                    .seen
                    .state
                    .replicas
                    .iter()
                    .find(|one| one.workload == *object);
                let noted = recorded.map_or(1, |recorded| recorded.replicas);
                let workload = self
                    .seen
                    .workloads
                    .iter_mut()
                    .find(|one| one.object == *object)
                    .unwrap();
                if *replicas == 0 {
                    workload.noted = Some(noted);
                }
                workload.replicas = *replicas;
            }
            Step::Fence(object, epoch) => {
                let workload = self
                    .seen
                    .workloads
                    .iter_mut()
                    .find(|one| one.object == *object)
                    .unwrap();
                (workload.fence, workload.noted) = (Some(*epoch), None);
            }
            Step::RemoveFinalizer => self.gone = true,
        }
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.seen
            .services
            .iter_mut()
            .find(|service| service.name == name)
            .unwrap()
    }

    fn allocate(&mut self) {
        assert!(!self.full, "there is none");
        let there = self
            .seen
            .services
            .iter()
            .filter(|service| service.selector.is_some());
        let wanted: Vec<_> = there
            .flat_map(|service| {
                let port = |(name, port): &(String, u16)| (service.name.clone(), name.clone(), *port);
                service.ports.iter().map(port)
            })
            .collect();
        let me = ("shop".to_owned(), "web".to_owned());
        let range = PortRange {
            first: 20_000,
            last: 20_050,
        };
        let ports: &[DivertedPort] = &self.seen.state.ports;
        let Allocation { ports, .. } = allocate(range, (&me, None), ports, &wanted, |_| None, 7).unwrap();
        self.seen.state.ports = ports;
    }

    /// Goes on until nothing is to be done any more; how long it took, in seconds.
    fn quiet(&mut self) -> Result<i64, String> {
        let begun = self.seen.now;
        let mut last: Option<(WaitReason, Option<Timestamp>)> = None;
        for _ in 0..ENOUGH {
            self.settle();
            if self.gone {
                return Ok((self.seen.now - begun).get_seconds());
            }
            match next(&self.seen, &timings()) {
                Next::Act(steps) => {
                    last = None;
                    for step in &steps {
                        self.told.push(format!("{step:?}"));
                        self.carry_out(step);
                    }
                }
                Next::Wait { reason, until } => {
                    self.told.push(format!("{reason:?} until {until:?}"));
                    // What is settled only keeps its ports for a while.
                    let until = until.filter(|until| *until > self.seen.now && reason != WaitReason::Settled);
                    match until {
                        Some(until) => self.seen.now = until,
                        None if self.stand_in() => {}
                        None if last == Some((reason.clone(), until)) => {
                            return Ok((self.seen.now - begun).get_seconds());
                        }
                        None => {}
                    }
                    last = Some((reason, until));
                }
            }
        }
        let last = self.told.len().saturating_sub(12);
        Err(format!("it does not come to rest: {:#?}", &self.told[last..]))
    }

    /// What is wrong with where it came to rest, if anything.
    fn undefined(&self) -> Option<String> {
        let seen = &self.seen;
        let there = || seen.services.iter().filter(|service| service.selector.is_some());
        let workloads = || seen.workloads.iter().filter(|workload| workload.exists);
        if self.gone {
            let left = there().find(|service| service.selector.as_ref().is_some_and(Selector::is_parked));
            return left.map(|service| format!("{} is parked, and its Sleeper gone", service.name));
        }
        match seen.state.phase {
            Phase::Awake => {
                let held = there().find(|service| {
                    // The DLX does not leave a Service with nobody behind it.
                    (service.own_slice.is_some() && !self.never_ready)
                        || service.selector.as_ref().is_some_and(Selector::is_parked)
                });
                if let Some(service) = held {
                    return Some(format!("awake, and {} is not", service.name));
                }
                let zero = workloads().next().is_some() && workloads().all(|workload| workload.replicas == 0);
                let explained = workloads().any(|workload| workload.zero == Zero::Off)
                    || seen.obstacle().is_some()
                    || seen.deleting
                    || seen.dlx.ready.is_empty();
                (zero && !explained).then(|| "awake at zero, and nobody knows why".to_owned())
            }
            Phase::Diverting | Phase::Observing | Phase::Asleep => {
                if let Some(why) = seen.obstacle() {
                    return Some(format!("away, although {why}"));
                }
                let open = there().find(|service| {
                    let parked = matches!(service.selector, Some(Selector::Parked(_))) && service.kept;
                    let wanted = seen.wanted_slice(service);
                    let served = service.ports.iter().all(|(name, port)| {
                        let recorded = seen.state.ports.iter().find(|recorded| {
                            recorded.service == service.name
                                && recorded.name == *name
                                && recorded.port == *port
                        });
                        recorded
                            .is_some_and(|recorded| wanted.ports.contains(&(name.clone(), recorded.dlx_port)))
                    });
                    !parked || !served || wanted.addresses.is_empty() || service.own_slice != Some(wanted)
                });
                open.map(|service| format!("away, and nobody answers for {service:?}"))
            }
            // Whoever waits is told so.
            Phase::Waking if seen.state.current_wake_failure().is_some() => None,
            Phase::Ready if self.never_ready && seen.state.desired == DesiredState::Awake => None,
            phase => Some(format!("it came to rest in {phase:?}")),
        }
    }
}

fn put_back(service: &mut Service) {
    service.selector = service.selector.take().map(|selector| match selector {
        Selector::Parked(labels) => Selector::Pods(labels),
        Selector::Stranded(_, why) => Selector::Undivertible(why),
        Selector::Lost => Selector::Pods(labels()),
        as_it_was => as_it_was,
    });
}

fn make_undivertible(service: &mut Service, why: Undivertible) {
    service.selector = service.selector.take().map(|selector| match selector {
        // Who takes the selector away takes the parked one away.
        _ if why == Undivertible::NoSelector => Selector::Undivertible(why),
        Selector::Parked(labels) | Selector::Stranded(labels, _) => Selector::Stranded(labels, why),
        Selector::Lost => Selector::Lost,
        _ => Selector::Undivertible(why),
    });
}

#[test]
fn every_fault_in_every_phase_ends_in_a_defined_state() {
    let mut wrong = Vec::new();
    for phase in PHASES {
        for fault in faults() {
            let mut world = World::new(phase);
            world.inflict(fault);
            // A wake that brings nothing is told after its own time.
            let limit = if world.never_ready { 130 } else { LONGEST };
            let what = match world.quiet() {
                Err(restless) => Some(restless),
                Ok(took) if took > limit => Some(format!("took {took} s")),
                Ok(_) => world.undefined(),
            };
            wrong.extend(what.map(|what| format!("{fault:?} while {phase:?}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Several of them, one after the other, each after some steps of what the one before has caused.
    #[test]
    fn several_faults_at_any_time_end_in_a_defined_state(
        phase in prop::sample::select(PHASES.to_vec()),
        faults in prop::collection::vec((prop::sample::select(faults()), 0_usize..6), 1..5),
    ) {
        let mut world = World::new(phase);
        for (fault, steps) in faults {
            world.inflict(fault);
            for _ in 0..steps {
                if world.gone {
                    break;
                }
                world.settle();
                match next(&world.seen, &timings()) {
                    Next::Act(steps) => if let Some(step) = steps.first() { world.carry_out(step) },
                    Next::Wait { until: Some(until), .. } => world.seen.now = world.seen.now.max(until),
                    Next::Wait { .. } => break,
                }
            }
        }
        let wrong = world.quiet().err().or_else(|| world.undefined());
        prop_assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
    }
}
