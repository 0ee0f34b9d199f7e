//! Two Sleepers that name the same things: one owns, and the other one never gets in its way.

use dormouse_lifecycle::{DesiredState, request_observation, request_sleep, request_wake};
use dormouse_model::Phase;
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::cases::cases;
use crate::cluster::{Cluster, Sleeper};
use crate::executor::{Executor, Outcome, Role};
use crate::world::LOOK;

/// Something happens. The first number says to whom: executors 0 and 2 work on the first Sleeper, 1 and 3 on the second.
#[derive(Clone, Debug)]
enum Event {
    ReadObjects(usize),
    ReadSleeper(usize),
    Observe(usize),
    Step(usize),
    Run(usize, u8),
    Crash(usize),
    Sleep(usize),
    TrafficCheck(usize),
    Wake(usize),
    Delete(usize),
    Revert(usize),
    Tick(u16),
    WatchServices,
    SyncService(usize),
    WatchWorkloads,
    SyncWorkloads,
    PodsReady,
    /// A Sleeper is removed by force.
    Rob(usize),
    /// Its plugin still lists its resource.
    Declare(usize),
}

struct World {
    cluster: Cluster,
    executors: Vec<Executor>,
    names: [(Vec<usize>, Vec<usize>); 2],
    uids: u64,
    /// A Sleeper was removed by force. What was decided for it before may still be carried out, and then only the end counts.
    robbed: bool,
    writes: usize,
}

/// How two come to share.
#[derive(Clone, Copy, Debug)]
enum Sharing {
    /// Two plugins look after one Deployment with its Services.
    Everything,
    /// One looks after two Deployments, the other one after one of them.
    Part,
}

impl World {
    fn new(sharing: Sharing, second_is_older: bool) -> Self {
        let (count, second) = match sharing {
            Sharing::Everything => (1, (vec![0, 1], vec![0])),
            Sharing::Part => (2, (vec![1], vec![1])),
        };
        let mut cluster = Cluster::new(count, vec![1, 2]);
        let names = [(vec![0, 1], (0..count).collect()), second];
        let first = cluster.sleeper.clone().expect("the first");
        let age = SignedDuration::from_secs(if second_is_older { -5 } else { 5 });
        cluster.other = Some(Sleeper {
            uid: 2,
            created: first.created + age,
            services: names[1].0.clone(),
            workloads: names[1].1.clone(),
            ..first
        });
        let executors = (0..4).map(|index| {
            let role = if index < 2 { Role::Leader } else { Role::Waker };
            Executor::of(role, index % 2)
        });
        Self {
            cluster,
            executors: executors.collect(),
            names,
            uids: 2,
            robbed: false,
            writes: 0,
        }
    }

    fn sleeper(&mut self, which: usize) -> Option<Sleeper> {
        self.cluster.focus(which);
        self.cluster.sleeper.clone()
    }

    fn phase(&mut self, which: usize) -> Option<Phase> {
        self.sleeper(which).map(|sleeper| sleeper.state.phase)
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::ReadObjects(who) => self.executors[*who].read_objects(&self.cluster),
            Event::ReadSleeper(who) => self.executors[*who].read_sleeper(&self.cluster),
            Event::Observe(who) => self.executors[*who].observe(&self.cluster),
            Event::Step(who) => {
                self.step(*who)?;
            }
            Event::Run(who, rounds) => {
                for _ in 0..*rounds {
                    self.round(*who)?;
                }
            }
            Event::Crash(who) => self.executors[*who].crash(),
            // Not even the door is asked: whoever asks may have an old view of the other one.
            Event::Sleep(which) => {
                self.cluster.focus(*which);
                self.cluster.request(|state, _| request_sleep(state, "idle").ok());
            }
            Event::TrafficCheck(which) => {
                self.cluster.focus(*which);
                self.cluster
                    .request(|state, _| request_observation(state, "a look").ok());
            }
            Event::Wake(which) => {
                self.cluster.focus(*which);
                self.cluster
                    .request(|state, now| request_wake(state, now, "a request", LOOK, 7).ok());
            }
            Event::Delete(which) => {
                self.cluster.focus(*which);
                self.cluster.delete_sleeper();
            }
            Event::Revert(service) => self.cluster.revert_selector(*service),
            Event::Tick(millis) => self.cluster.tick(SignedDuration::from_millis(i64::from(*millis))),
            Event::WatchServices => self.cluster.watch_services(),
            Event::SyncService(index) => self.cluster.sync_service(*index),
            Event::WatchWorkloads => self.cluster.watch_workloads(),
            Event::SyncWorkloads => self.cluster.sync_workloads(),
            Event::PodsReady => self.cluster.pods_become_ready(),
            Event::Rob(which) => {
                self.cluster.focus(*which);
                if self.cluster.sleeper.take().is_some() {
                    self.robbed = true;
                    self.cluster.forget_ports();
                }
            }
            Event::Declare(which) => self.declare(*which),
        }
        self.check()
    }

    fn declare(&mut self, which: usize) {
        self.cluster.focus(which);
        if self.cluster.sleeper.is_some() {
            return;
        }
        self.uids += 1;
        let version = self.cluster.version();
        self.cluster.sleeper = Some(Sleeper {
            state: Default::default(),
            uid: self.uids,
            created: self.cluster.now,
            services: self.names[which].0.clone(),
            workloads: self.names[which].1.clone(),
            deleting: false,
            version,
        });
        self.cluster.forget_ports();
    }

    fn step(&mut self, who: usize) -> Result<Outcome, String> {
        match self.executors[who].step(&mut self.cluster) {
            Outcome::Violation(what) if !self.robbed => Err(what),
            outcome => {
                self.writes += usize::from(outcome == Outcome::Done);
                self.check()?;
                Ok(outcome)
            }
        }
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

    /// No Service leads to nobody, or to a DLX that does not know who it stands in for.
    fn check(&mut self) -> Result<(), String> {
        if self.robbed {
            return Ok(());
        }
        for index in 0..self.cluster.services.len() {
            let service = &self.cluster.services[index];
            let ignorant = self.cluster.led_to_ignorant(service).is_some();
            if self.cluster.led_astray(index).is_some() || ignorant {
                let name = service.name.clone();
                let phases = (self.phase(0), self.phase(1));
                return Err(format!("Service {name} leads to nobody: {phases:?}"));
            }
        }
        Ok(())
    }

    /// Time passes, and plugins find whatever is awake idle.
    fn settle(&mut self, plugins: bool) -> Result<(), String> {
        const ROUNDS: usize = 150;
        // Many rounds without any write: nobody pulls at anything any more.
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            let before = self.writes;
            for which in 0..2 {
                if plugins {
                    self.cluster.focus(which);
                    let view = self.cluster.clone();
                    if self.cluster.rival(&view).is_none() {
                        self.writes +=
                            usize::from(self.cluster.request(|state, _| request_sleep(state, "idle").ok()));
                    }
                }
                self.round(which)?;
            }
            quiet = if self.writes == before { quiet + 1 } else { 0 };
            if quiet > 30 {
                return Ok(());
            }
        }
        let state = |sleeper: Option<Sleeper>| sleeper.map(|sleeper| sleeper.state);
        let states = (state(self.sleeper(0)), state(self.sleeper(1)));
        Err(format!("writes do not end: {states:?}"))
    }

    /// Exactly one sleeps, and the other one is awake.
    fn one_owns(&mut self) -> Result<usize, String> {
        match (self.phase(0), self.phase(1)) {
            (Some(Phase::Asleep), Some(Phase::Awake) | None) => Ok(0),
            (Some(Phase::Awake) | None, Some(Phase::Asleep)) => Ok(1),
            phases => Err(format!("{phases:?}")),
        }
    }

    /// Whoever is awake is told why.
    fn loser_knows(&mut self, owner: usize) -> Result<(), String> {
        self.cluster.focus(1 - owner);
        let view = self.cluster.clone();
        if self.cluster.sleeper.is_none() {
            return Ok(());
        }
        match self.cluster.rival(&view) {
            Some(rival) if rival.sleeper == format!("s{owner}") => Ok(()),
            other => Err(format!("the loser is told of {other:?}")),
        }
    }
}

fn event(forced: bool) -> impl Strategy<Value = Event> {
    let who = || 0_usize..4;
    let which = || 0_usize..2;
    prop_oneof![
        6 => who().prop_map(Event::Observe),
        3 => who().prop_map(Event::ReadObjects),
        3 => who().prop_map(Event::ReadSleeper),
        12 => who().prop_map(Event::Step),
        8 => (who(), 1_u8..12).prop_map(|(who, rounds)| Event::Run(who, rounds)),
        1 => who().prop_map(Event::Crash),
        4 => which().prop_map(Event::Sleep),
        2 => which().prop_map(Event::TrafficCheck),
        3 => which().prop_map(Event::Wake),
        1 => which().prop_map(Event::Delete),
        2 => which().prop_map(Event::Declare),
        1 => which().prop_map(Event::Revert),
        3 => (0_u16..4000).prop_map(Event::Tick),
        2 => Just(Event::WatchServices),
        3 => which().prop_map(Event::SyncService),
        2 => Just(Event::WatchWorkloads),
        2 => Just(Event::SyncWorkloads),
        2 => Just(Event::PodsReady),
        2 => which().prop_map(move |which| if forced { Event::Rob(which) } else { Event::PodsReady }),
    ]
}

fn sharing() -> impl Strategy<Value = (Sharing, bool)> {
    (
        prop_oneof![Just(Sharing::Everything), Just(Sharing::Part)],
        any::<bool>(),
    )
}

/// Cases that failed once.
const FAILED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulation/sharing.failed.txt");

fn play(world: &mut World, events: &[Event]) -> Result<(), TestCaseError> {
    for (position, event) in events.iter().enumerate() {
        world
            .apply(event)
            .map_err(|what| TestCaseError::fail(format!("event {position} {event:?}: {what}")))?;
    }
    Ok(())
}

fn ends_well(world: &mut World) -> Result<(), TestCaseError> {
    let fail = |at: &'static str| move |what: String| TestCaseError::fail(format!("{at}: {what}"));
    world.settle(true).map_err(fail("settling"))?;
    for which in 0..2 {
        world.declare(which);
    }
    world.settle(true).map_err(fail("with both"))?;
    let owner = world.one_owns().map_err(fail("who owns"))?;
    world.loser_knows(owner).map_err(fail("the loser"))?;
    // Late writes of whoever slept over all this.
    for who in [2, 3, 2, 3] {
        world.apply(&Event::Step(who)).map_err(fail("a late step"))?;
    }
    world.settle(true).map_err(fail("after late steps"))?;
    let owner = world.one_owns().map_err(fail("who owns after late steps"))?;
    // It goes, and the other one takes over, without anybody doing anything.
    world.apply(&Event::Delete(owner)).map_err(fail("it goes"))?;
    world.settle(true).map_err(fail("after it has gone"))?;
    let heir = world.one_owns().map_err(fail("who took over"))?;
    prop_assert_eq!(heir, 1 - owner);
    // And when nobody wants anything asleep any more, nothing is left.
    world
        .apply(&Event::Delete(heir))
        .map_err(fail("the last one goes"))?;
    world.settle(false).map_err(fail("at the end"))?;
    let cluster = &world.cluster;
    prop_assert!(
        cluster
            .services
            .iter()
            .all(|service| !service.parked && service.slice.is_none() && service.listed)
    );
    prop_assert!(cluster.workloads.iter().all(|workload| workload.replicas > 0));
    Ok(())
}

proptest! {
    #![proptest_config(cases(300, FAILED))]

    /// Whatever two Sleepers over shared objects do, no connection is refused, writes end, one owns, and the other one takes over.
    #[test]
    fn field_a_two_never_fight(setting in sharing(), events in prop::collection::vec(event(false), 0..80)) {
        let mut world = World::new(setting.0, setting.1);
        play(&mut world, &events)?;
        ends_well(&mut world)?;
    }

    /// Sleepers that are removed by force lose nothing for ever.
    #[test]
    fn chaos_1_what_is_removed_by_force_is_derived_again(
        setting in sharing(),
        events in prop::collection::vec(event(true), 0..80),
    ) {
        let mut world = World::new(setting.0, setting.1);
        play(&mut world, &events)?;
        for which in 0..2 {
            world.declare(which);
        }
        ends_well(&mut world)?;
    }
}

/// The tutorial's plugin beside the bundled one: as soon as one sleeps, the other one used to restore what it had parked.
#[test]
fn field_a_the_younger_leaves_alone_what_the_older_parked() {
    let mut world = World::new(Sharing::Everything, false);
    world.apply(&Event::Sleep(0)).unwrap();
    world.settle(false).unwrap();
    assert_eq!(world.phase(0), Some(Phase::Asleep));
    let before = world.writes;
    world.apply(&Event::Sleep(1)).unwrap();
    world.settle(false).unwrap();
    let loser = world.sleeper(1).unwrap().state;
    assert_eq!((loser.phase, loser.desired), (Phase::Awake, DesiredState::Awake));
    assert!(loser.reason.contains("s0"), "{}", loser.reason);
    assert_eq!(world.writes - before, 1, "one refusal");
}
