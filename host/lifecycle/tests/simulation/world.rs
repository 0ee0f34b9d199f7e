//! A cluster, its executors, what happens to them, and what must hold.

use dormouse_lifecycle::{
    Demand, DesiredState, SleeperState, TrafficCheckPolicy, request_observation, request_sleep, request_wake,
};
use dormouse_model::Phase;
use jiff::SignedDuration;

use crate::cluster::{Cluster, timings};
use crate::executor::{Executor, Outcome, Role};

/// Something happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// An executor reads everything but the Sleeper.
    ReadObjects(usize),
    /// An executor reads the Sleeper and decides.
    ReadSleeper(usize),
    /// Both at once.
    Observe(usize),
    /// An executor carries out one step of what it decided.
    Step(usize),
    /// An executor runs undisturbed for some rounds, the cluster's controllers too.
    Run(usize, u8),
    /// An executor runs for some rounds in no time; nobody else does anything.
    Rush(usize, u8),
    Crash(usize),
    WishSleep,
    WishObserve,
    WishWake,
    Tick(u16),
    /// The endpoints controller learns of selectors.
    WatchServices,
    /// The endpoints controller acts on what it learnt.
    SyncService(usize),
    /// The workloads' controllers learn what is desired.
    WatchWorkloads,
    /// The workloads' controllers act on what they learnt.
    SyncWorkloads,
    PodsReady,
    /// Which DLX replicas are ready.
    Dlx(Vec<u8>),
    /// GitOps.
    Revert(usize),
    ScaleUp(usize),
    Demand(Option<u64>),
    /// A DLX learns of the Sleeper's ports.
    Learn(u8),
    /// A DLX learns of nothing any more.
    Deafen(u8),
    /// The API server is away for a moment.
    Outage,
    /// A node that is behind hears of the pods of a Service, or else of its DLX.
    NodeHears(usize, bool),
    Delete,
}

#[derive(Clone, Debug)]
pub struct World {
    pub cluster: Cluster,
    pub executors: [Executor; 2],
    /// The last accepted desired state was a wake.
    pub woken: bool,
    /// Nobody but Dormouse changed what it relies on; otherwise a Service may be without pods for other reasons.
    pub finalize_over: bool,
    /// Steps that were carried out.
    pub writes: u64,
}

pub const LOOK: TrafficCheckPolicy = TrafficCheckPolicy {
    settle: std::time::Duration::from_secs(1),
    longest: std::time::Duration::from_secs(60),
};

impl World {
    pub fn new(workloads: usize, second: Role, dlx: Vec<u8>) -> Self {
        Self {
            cluster: Cluster::new(workloads, dlx),
            executors: [Executor::new(Role::Leader), Executor::new(second)],
            woken: false,
            finalize_over: false,
            writes: 0,
        }
    }

    pub fn state(&self) -> SleeperState {
        self.cluster
            .sleeper
            .as_ref()
            .map(|sleeper| sleeper.state.clone())
            .unwrap_or_default()
    }

    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Lets something happen and checks what must hold at all times.
    pub fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::ReadObjects(who) => self.executors[*who].read_objects(&self.cluster),
            Event::ReadSleeper(who) => self.executors[*who].read_sleeper(&self.cluster),
            Event::Observe(who) => self.executors[*who].observe(&self.cluster),
            Event::Step(who) => {
                self.step(*who)?;
            }
            Event::Run(who, rounds) => self.run(*who, usize::from(*rounds))?,
            Event::Rush(who, rounds) => {
                for _ in 0..*rounds {
                    self.executors[*who].observe(&self.cluster);
                    while self.step(*who)? == Outcome::Done {}
                }
            }
            Event::Crash(who) => self.executors[*who].crash(),
            Event::WishSleep => {
                if self.cluster.request(|state, _| request_sleep(state, "idle").ok()) {
                    self.woken = false;
                }
            }
            Event::WishObserve => {
                if self
                    .cluster
                    .request(|state, _| request_observation(state, "a look").ok())
                {
                    self.woken = false;
                }
            }
            Event::WishWake => {
                self.cluster
                    .request(|state, now| request_wake(state, now, "a request", LOOK, 7).ok());
                self.woken = true;
            }
            Event::Tick(millis) => self.cluster.tick(SignedDuration::from_millis(i64::from(*millis))),
            Event::WatchServices => self.cluster.watch_services(),
            Event::SyncService(index) => self.cluster.sync_service(*index),
            Event::WatchWorkloads => self.cluster.watch_workloads(),
            Event::SyncWorkloads => self.cluster.sync_workloads(),
            Event::PodsReady => self.cluster.pods_become_ready(),
            Event::Dlx(ready) => self.cluster.set_dlx(ready.clone()),
            Event::Revert(index) => self.cluster.revert_selector(*index),
            Event::ScaleUp(index) => {
                let index = index % self.cluster.workloads.len();
                // Not while a scale-down may have been written but not noted: see `SleeperState::pods_since`.
                let state = self.state();
                if state.phase == Phase::Awake || (state.phase == Phase::Asleep && state.zero_observed) {
                    self.cluster.scale_by_hand(index, 3);
                }
            }
            Event::Demand(count) => {
                self.cluster.demand = match count {
                    None => Demand::Unknown,
                    Some(0) => Demand::None,
                    Some(count) => Demand::Some(*count),
                };
            }
            Event::Learn(last) => self.cluster.learn(*last),
            Event::Deafen(last) => self.cluster.deafen(*last),
            Event::Outage => {
                self.cluster.outage();
                self.executors.iter_mut().for_each(Executor::requests_fail);
            }
            Event::NodeHears(service, of_pods) => self.cluster.node_hears(*service, *of_pods),
            Event::Delete => self.cluster.delete_sleeper(),
        }
        self.check()
    }

    fn step(&mut self, who: usize) -> Result<Outcome, String> {
        match self.executors[who].step(&mut self.cluster) {
            Outcome::Violation(what) => Err(what),
            outcome => {
                self.writes += u64::from(outcome == Outcome::Done);
                self.check()?;
                Ok(outcome)
            }
        }
    }

    /// One executor runs undisturbed, and so do the cluster's controllers.
    pub fn run(&mut self, who: usize, rounds: usize) -> Result<(), String> {
        for _ in 0..rounds {
            self.round(who)?;
        }
        Ok(())
    }

    fn round(&mut self, who: usize) -> Result<(), String> {
        self.executors[who].observe(&self.cluster);
        while self.step(who)? == Outcome::Done {}
        self.cluster.all_learn();
        self.cluster.watch_workloads();
        self.cluster.sync_workloads();
        self.check()?;
        self.cluster.pods_become_ready();
        self.cluster.sync_endpoints();
        self.cluster.collect_garbage();
        self.cluster.tick(SignedDuration::from_millis(700));
        self.check()
    }

    /// No Service ever leads to nobody, to pods that are gone, or to a DLX that does not know it.
    fn check(&mut self) -> Result<(), String> {
        if let Some(sleeper) = &self.cluster.sleeper
            && sleeper.deleting
        {
            let patience = SignedDuration::try_from(timings().finalize).unwrap_or_default();
            self.finalize_over |= sleeper
                .state
                .since
                .is_some_and(|since| self.cluster.now >= since + patience);
        }
        for (index, service) in self.cluster.services.iter().enumerate() {
            if let Some(last) = self.cluster.led_to_ignorant(service) {
                return Err(format!(
                    "Service {} leads to DLX {last}, which does not know it, in phase {:?}",
                    service.name,
                    self.phase()
                ));
            }
            if let Some(what) = self.cluster.led_astray(index)
                && !self.finalize_over
            {
                return Err(format!(
                    "Service {} {what} in phase {:?}",
                    service.name,
                    self.phase()
                ));
            }
        }
        Ok(())
    }

    /// Without new requests, everything ends up as desired, in a bounded number of rounds, and then nobody writes any more.
    pub fn settle(&mut self) -> Result<(), String> {
        self.cluster.demand = Demand::None;
        const ROUNDS: usize = 120;
        let mut last = None;
        for _ in 0..ROUNDS {
            self.round(0)?;
            last = self.unsettled();
            if last.is_none() {
                return self.quiet();
            }
        }
        Err(format!(
            "not settled after {ROUNDS} rounds: {}; {:?}",
            last.unwrap_or_default(),
            self.state()
        ))
    }

    /// The last notes are written, and nothing after them.
    fn quiet(&mut self) -> Result<(), String> {
        const NOTES: usize = 5;
        for _ in 0..NOTES {
            self.round(0)?;
        }
        let before = self.writes;
        for _ in 0..NOTES {
            self.round(0)?;
        }
        if self.writes > before {
            return Err(format!("it is settled and goes on writing: {:?}", self.state()));
        }
        Ok(())
    }

    /// What is not as desired, if anything.
    pub fn unsettled(&self) -> Option<String> {
        let parked = self.cluster.services.iter().any(|service| service.parked);
        let unparked = self.cluster.services.iter().any(|service| !service.parked);
        let slices = self
            .cluster
            .services
            .iter()
            .filter(|service| service.slice.is_some())
            .count();
        let down = self
            .cluster
            .workloads
            .iter()
            .any(|workload| workload.replicas == 0);
        let up = self
            .cluster
            .workloads
            .iter()
            .any(|workload| workload.replicas > 0);
        let unlisted = self.cluster.services.iter().any(|service| !service.listed);
        let restored = || {
            (parked || slices > 0 || down || unlisted).then(|| {
                format!(
                    "parked {parked}, {slices} own slices, at zero {down}, without listed pods {unlisted}"
                )
            })
        };
        let Some(sleeper) = &self.cluster.sleeper else {
            return restored();
        };
        if sleeper.deleting {
            return Some("the deleted Sleeper is still there".into());
        }
        let stale = self.cluster.services.iter().any(|service| {
            let listed = service.slice.as_ref().map(|slice| slice.content.addresses.len());
            listed != Some(self.cluster.answering())
        });
        let state = &sleeper.state;
        let diverted = |phase: Phase, wrong: bool| {
            (state.phase != phase || unparked || stale || wrong).then(|| {
                format!("{state:?}, not parked {unparked}, slices stale {stale}, replicas wrong {wrong}")
            })
        };
        if self.cluster.dlx.is_empty() || state.desired == DesiredState::Awake {
            let kept = state.desired == DesiredState::Awake && !state.ports.is_empty();
            return if state.phase == Phase::Awake && !kept {
                restored()
            } else {
                Some(format!("{state:?}"))
            };
        }
        if self.woken {
            return Some(format!("the wake was lost: {state:?}"));
        }
        match state.desired {
            DesiredState::Awake => None,
            DesiredState::Observed => diverted(Phase::Observing, down),
            DesiredState::Asleep => diverted(Phase::Asleep, up || !state.zero_observed),
        }
    }
}
