//! A resource with one Deployment and one Service, seen in a phase, with everything as that phase leaves it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dormouse_lifecycle::{
    Demand, DesiredState, DivertedPort, Dlx, KeptSelector, Listed, Next, Observation, OwnSlice, Selector,
    Service, SleeperState, Step, Timings, TrafficCheckPolicy, Undivertible, WaitReason, Workload,
    WorkloadReplicas, Zero, next,
};
use dormouse_model::{ObjectRef, Phase};
use jiff::{SignedDuration, Timestamp};

pub const EPOCH: i64 = 5;

pub const PHASES: [Phase; 7] = [
    Phase::Awake,
    Phase::Diverting,
    Phase::Observing,
    Phase::Draining,
    Phase::Asleep,
    Phase::Waking,
    Phase::Ready,
];

pub const UNDIVERTIBLE: [Undivertible; 6] = [
    Undivertible::Headless,
    Undivertible::ExternalName,
    Undivertible::NoSelector,
    Undivertible::NotTcp,
    Undivertible::NodeLocal,
    Undivertible::Family,
];

pub fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a timestamp")
}

pub fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

pub fn in_secs(seconds: i64) -> Timestamp {
    ago(-seconds)
}

pub fn timings() -> Timings {
    Timings {
        drain_grace: Duration::from_secs(5),
        outage_grace: Duration::from_secs(120),
        give_up: Duration::from_secs(60),
        dlx_absence: Duration::from_secs(5),
        finalize: Duration::from_secs(30),
        endpoints_lag: Duration::from_secs(3),
        relist: Duration::from_secs(1),
        unproven: Duration::from_secs(3),
        decision_limit: Duration::from_secs(30),
        port_grace: Duration::from_secs(300),
        traffic_check: TrafficCheckPolicy {
            settle: Duration::from_secs(10),
            longest: Duration::from_secs(1800),
        },
    }
}

pub fn web() -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: "web".into(),
    }
}

pub fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "web".to_owned())])
}

pub fn workload(name: &str, replicas: i32) -> Workload {
    let object = ObjectRef {
        name: name.into(),
        ..web()
    };
    Workload {
        object,
        exists: true,
        replicas,
        zero: Zero::StandIn,
        autoscaler_minimum: None,
        fence: None,
        noted: None,
        held_by: None,
    }
}

pub fn service(name: &str, selector: Selector) -> Service {
    let mut service = Service {
        name: name.into(),
        selector: Some(selector),
        family: None,
        ports: vec![("http".into(), 80)],
        own_slice: None,
        listed: Listed::ReadyPods,
        relisted: false,
        answers: BTreeMap::new(),
        fence: None,
        kept: true,
        foreign: None,
        held_by: None,
    };
    answer(&mut service, &[1, 2, 3]);
    service
}

pub fn dlx(last: &[u8]) -> Dlx {
    let ready: Vec<_> = last
        .iter()
        .map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 9, *last)))
        .collect();
    Dlx {
        absent_since: ready.is_empty().then(|| ago(2)),
        ready,
    }
}

pub fn port(service: &str, dlx_port: u16) -> DivertedPort {
    DivertedPort {
        service: service.into(),
        name: "http".into(),
        port: 80,
        dlx_port,
    }
}

/// A state in `phase` for ten seconds.
pub fn state(phase: Phase, desired: DesiredState) -> SleeperState {
    let mut state = SleeperState {
        phase,
        desired,
        epoch: EPOCH,
        since: Some(ago(10)),
        reason: "because".into(),
        ..SleeperState::default()
    };
    if phase != Phase::Awake {
        state.ports = vec![port("web", 20_000)];
        state.selectors = vec![KeptSelector {
            service: "web".into(),
            labels: labels(),
        }];
    }
    if matches!(phase, Phase::Asleep | Phase::Waking | Phase::Ready) {
        state.replicas = vec![WorkloadReplicas {
            workload: web(),
            replicas: 3,
        }];
        state.zero_observed = true;
        state.pods_gone = phase == Phase::Asleep;
        state.pods_gone_at = (phase == Phase::Asleep).then(|| ago(90));
        state.slept = Some(ago(100));
    }
    if matches!(phase, Phase::Waking | Phase::Ready) {
        state.wake_started = Some(ago(10));
    }
    state
}

/// Everything as the phase leaves it when it is done, just before the next one begins.
pub fn seen(phase: Phase, desired: DesiredState) -> Observation {
    let mut seen = Observation {
        now: now(),
        seed: 0,
        state: state(phase, desired),
        deleting: false,
        readiness_timeout: Duration::from_secs(120),
        restore_replicas: None,
        workloads: vec![workload("web", if phase == Phase::Asleep { 0 } else { 3 })],
        services: vec![service("web", Selector::Pods(labels()))],
        dlx: dlx(&[1, 2]),
        unanswered_since: None,
        last_outage: None,
        demand: Demand::None,
        rival: None,
        denied: None,
        carried: 0,
        lost_ports: Vec::new(),
        no_port: None,
        pods_left: false,
        ready_pod: phase != Phase::Asleep,
    };
    if matches!(
        phase,
        Phase::Diverting | Phase::Observing | Phase::Draining | Phase::Asleep
    ) {
        park(&mut seen);
        seen.services[0].listed = Listed::Nothing;
    }
    if phase != Phase::Awake {
        give_slice(&mut seen);
    }
    if matches!(phase, Phase::Waking | Phase::Ready) {
        seen.services[0].fence = Some(EPOCH);
        seen.workloads[0].fence = Some(EPOCH);
    }
    seen
}

pub fn park(seen: &mut Observation) {
    for service in &mut seen.services {
        service.selector = Some(Selector::Parked(labels()));
    }
}

/// These DLX answer for the Service.
pub fn answer(service: &mut Service, last: &[u8]) {
    service
        .answers
        .extend(dlx(last).ready.into_iter().map(|address| (address, Ok(()))));
}

/// This DLX refuses connections to the Service's ports.
pub fn refuse(service: &mut Service, last: u8) {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 9, last));
    service.answers.insert(address, Err(format!("{address} refused")));
}

/// Dormouse's slices, as they should be, where all of the DLX answer.
pub fn give_slice(seen: &mut Observation) {
    for index in 0..seen.services.len() {
        seen.services[index].own_slice = Some(seen.wanted_slice(&seen.services[index]));
    }
}

pub fn stale_slice() -> OwnSlice {
    OwnSlice {
        addresses: vec![IpAddr::V4(Ipv4Addr::new(127, 0, 9, 99))],
        ports: vec![],
        generation: None,
    }
}

/// The steps; it must not be a wait.
pub fn steps(seen: &Observation) -> Vec<Step> {
    match next(seen, &timings()) {
        Next::Act(steps) => steps,
        waiting => panic!("{waiting:?}"),
    }
}

/// The state that is written; there must be no other step.
pub fn written(seen: &Observation) -> SleeperState {
    match &steps(seen)[..] {
        [Step::SetState(state)] => (**state).clone(),
        others => panic!("{others:?}"),
    }
}

/// Where it goes; everything else about the step must be a change of phase.
pub fn phase_after(seen: &Observation) -> Phase {
    written(seen).phase
}

/// It turns round: the wake that the protocol itself asks for, with its reason.
pub fn rolls_back(seen: &Observation) -> String {
    let state = written(seen);
    assert_eq!((state.phase, state.desired), (Phase::Waking, DesiredState::Awake));
    assert_eq!(state.epoch, seen.state.epoch + 1, "a wake raises the epoch");
    assert_eq!(state.wake_started, Some(seen.now));
    assert_eq!(state.since, Some(seen.now));
    state.reason
}

pub fn waits(seen: &Observation) -> (WaitReason, Option<Timestamp>) {
    match next(seen, &timings()) {
        Next::Wait { reason, until } => (reason, until),
        acting @ Next::Act(_) => panic!("{acting:?}"),
    }
}

pub fn settled(seen: &Observation) -> bool {
    next(seen, &timings())
        == Next::Wait {
            reason: WaitReason::Settled,
            until: None,
        }
}
