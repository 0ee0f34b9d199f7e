//! Whatever happens, in whatever order.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::cases::cases;
use crate::executor::Role;
use crate::world::{Event, World};

fn event() -> impl Strategy<Value = Event> {
    let who = || 0_usize..2;
    prop_oneof![
        6 => who().prop_map(Event::Observe),
        3 => who().prop_map(Event::ReadObjects),
        3 => who().prop_map(Event::ReadSleeper),
        12 => who().prop_map(Event::Step),
        8 => (who(), 1_u8..12).prop_map(|(who, rounds)| Event::Run(who, rounds)),
        6 => (who(), 1_u8..6).prop_map(|(who, rounds)| Event::Rush(who, rounds)),
        1 => who().prop_map(Event::Crash),
        4 => Just(Event::WishSleep),
        2 => Just(Event::WishObserve),
        4 => Just(Event::WishWake),
        3 => (0_u16..4000).prop_map(Event::Tick),
        2 => Just(Event::WatchServices),
        3 => who().prop_map(Event::SyncService),
        2 => Just(Event::WatchWorkloads),
        2 => Just(Event::SyncWorkloads),
        2 => Just(Event::PodsReady),
        1 => prop_oneof![
            3 => prop::sample::subsequence(vec![1, 2, 3], 1..=3),
            1 => Just(Vec::new()),
        ].prop_map(Event::Dlx),
        1 => who().prop_map(Event::Revert),
        1 => who().prop_map(Event::ScaleUp),
        1 => prop_oneof![Just(None), (0_u64..3).prop_map(Some)].prop_map(Event::Demand),
        2 => (1_u8..=3).prop_map(Event::Learn),
        1 => (1_u8..=3).prop_map(Event::Deafen),
        1 => Just(Event::Outage),
        3 => (0_usize..2, any::<bool>()).prop_map(|(service, of_pods)| Event::NodeHears(service, of_pods)),
    ]
}

fn setting() -> impl Strategy<Value = (usize, Role, Vec<u8>)> {
    let second = prop_oneof![3 => Just(Role::Waker), 1 => Just(Role::Leader)];
    let dlx = prop_oneof![5 => Just(vec![1, 2]), 1 => Just(vec![1]), 1 => Just(vec![])];
    (1_usize..=2, second, dlx)
}

/// Cases that failed once.
const FAILED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/simulation/properties.failed.txt"
);

fn fail(position: impl std::fmt::Display) -> impl FnOnce(String) -> TestCaseError {
    move |what| TestCaseError::fail(format!("{position}: {what}"))
}

fn play(world: &mut World, events: &[Event]) -> Result<(), TestCaseError> {
    for (position, event) in events.iter().enumerate() {
        world
            .apply(event)
            .map_err(fail(format!("event {position} {event:?}")))?;
    }
    Ok(())
}

/// The other executor wakes up and carries out what it decided long ago; then all is as desired again.
fn late(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..4 {
        world.apply(&Event::Step(1)).map_err(fail("a late step"))?;
    }
    world.cluster.collect_garbage();
    world.settle().map_err(fail("after late steps"))
}

proptest! {
    #![proptest_config(cases(3_000, FAILED))]

    /// A Service always has somebody behind it, nothing old is carried out, and it ends as desired.
    #[test]
    fn it_ends_as_wished(setting in setting(), events in prop::collection::vec(event(), 0..80)) {
        let mut world = World::new(setting.0, setting.1, setting.2);
        play(&mut world, &events)?;
        world.settle().map_err(fail("settling"))?;
        late(&mut world)?;
    }

    /// Deleting the Sleeper at any moment leaves nothing parked, no slice and nothing at zero.
    #[test]
    fn finalizing_leaves_nothing_behind(
        setting in setting(),
        before in prop::collection::vec(event(), 0..50),
        after in prop::collection::vec(event(), 0..20),
    ) {
        let mut world = World::new(setting.0, setting.1, setting.2);
        play(&mut world, &before)?;
        play(&mut world, &[Event::Delete])?;
        play(&mut world, &after)?;
        world.settle().map_err(fail("settling"))?;
        prop_assert!(world.cluster.sleeper.is_none());
        late(&mut world)?;
    }

    /// A wake at the end wins over whatever was under way.
    #[test]
    fn a_wake_is_never_lost(setting in setting(), events in prop::collection::vec(event(), 0..60)) {
        let mut world = World::new(setting.0, setting.1, setting.2);
        play(&mut world, &events)?;
        play(&mut world, &[Event::WishWake])?;
        world.settle().map_err(fail("settling"))?;
        prop_assert_eq!(world.phase(), dormouse_model::Phase::Awake);
        late(&mut world)?;
    }
}
