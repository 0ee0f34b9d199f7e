//! Cases that once went wrong, as the simulation found them.

use dormouse_lifecycle::DesiredState;
use dormouse_model::Phase;

use crate::executor::Role;
use crate::world::Event::{self, *};
use crate::world::World;

fn leaders() -> World {
    World::new(1, Role::Leader, vec![1, 2])
}

fn play(world: &mut World, events: &[Event]) {
    for (position, event) in events.iter().enumerate() {
        world
            .apply(event)
            .unwrap_or_else(|what| panic!("event {position} {event:?}: {what}"));
    }
}

/// Lets the first executor run until the phase is reached.
fn run_to(world: &mut World, who: usize, phase: Phase) {
    for _ in 0..40 {
        if world.phase() == phase {
            return;
        }
        play(world, &[Run(who, 1)]);
    }
    panic!("{phase:?} was not reached: {:?}", world.state());
}

#[test]
fn the_story_without_disturbance() {
    let mut world = World::new(2, Role::Waker, vec![1, 2]);
    play(&mut world, &[WishObserve]);
    run_to(&mut world, 0, Phase::Observing);
    play(&mut world, &[Run(0, 20)]);
    assert_eq!(world.phase(), Phase::Observing, "a look stays where it is");
    assert!(
        world
            .cluster
            .workloads
            .iter()
            .all(|workload| workload.replicas == 2),
        "and scales nothing"
    );

    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    world.settle().unwrap();
    assert_eq!(world.state().desired, DesiredState::Asleep);
    assert!(world.cluster.pods.is_empty());

    play(&mut world, &[WishWake]);
    run_to(&mut world, 1, Phase::Awake);
    world.settle().unwrap();
    assert_eq!(world.cluster.pods.len(), 4, "the waker needs no leader");
    assert_eq!(world.state().epoch, 1);
}

/// A leader stalls just before it parks. Meanwhile a request turns everything round, and the wake ends without ever
/// having touched the Service. Nothing but a fence on the Service keeps the late write from succeeding.
#[test]
fn a_late_park_after_a_whole_wake() {
    let mut world = leaders();
    play(&mut world, &[WishSleep, Run(0, 3), Observe(0), WishWake]);
    run_to(&mut world, 1, Phase::Awake);
    play(&mut world, &[Step(0), Step(0)]);
    assert!(world.cluster.services.iter().all(|service| !service.parked));
}

/// The same leader stalls just before it lets the DLX join. Its slice appears after the wake has ended.
#[test]
fn a_late_slice_after_a_whole_wake_is_taken_back() {
    let mut world = leaders();
    play(&mut world, &[WishSleep, Run(0, 2), Observe(0), WishWake]);
    run_to(&mut world, 1, Phase::Awake);
    play(&mut world, &[Step(0), Step(0)]);
    assert!(
        world
            .cluster
            .services
            .iter()
            .all(|service| service.slice.is_some())
    );
    world.settle().unwrap();
    assert!(
        world
            .cluster
            .services
            .iter()
            .all(|service| service.slice.is_none())
    );
}

/// As above, but no DLX is ready any more and sleep is desired again: the slice would send traffic to nobody.
#[test]
fn a_late_slice_is_taken_back_even_if_sleep_is_wished_and_no_dlx_is_ready() {
    let mut world = leaders();
    play(&mut world, &[WishSleep, Run(0, 2), Observe(1), Dlx(vec![])]);
    run_to(&mut world, 0, Phase::Awake);
    play(&mut world, &[Step(1), WishSleep]);
    assert!(world.cluster.services[0].slice.is_some());
    world.settle().unwrap();
    assert!(world.cluster.services[0].slice.is_none());
}

/// One executor is about to let the DLX leave; the other, whose view of the slices is old, ends the wake before it does.
/// The next sleep finds the slice in place. The late delete must not fit it any more.
#[test]
fn a_late_departure_of_the_dlx_in_the_next_sleep() {
    let mut world = leaders();
    play(&mut world, &[ReadObjects(0), WishSleep]);
    run_to(&mut world, 1, Phase::Asleep);
    play(&mut world, &[WishWake]);
    run_to(&mut world, 1, Phase::Ready);
    play(&mut world, &[Observe(1), ReadSleeper(0), Step(0)]);
    assert_eq!(world.phase(), Phase::Awake, "the old view saw no slice");
    assert!(world.cluster.services[0].slice.is_some());
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[Step(1), Step(1)]);
    assert!(
        world
            .cluster
            .services
            .iter()
            .all(|service| service.slice.is_some())
    );
}

/// A wake arrives between the scale-down and the note that it was done. The old pods still look ready, although their
/// controller is about to remove them.
#[test]
fn pods_that_are_about_to_go_are_not_taken_for_woken_ones() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    // The phase was entered in an undisturbed round; now the scale-down alone, which the controller learns of.
    play(&mut world, &[Observe(0), Step(0), WatchWorkloads]);
    assert_eq!(world.cluster.workloads[0].replicas, 0);
    assert!(!world.state().zero_observed && !world.cluster.pods.is_empty());
    play(&mut world, &[WishWake]);
    for _ in 0..6 {
        play(
            &mut world,
            &[
                Observe(1),
                Step(1),
                Step(1),
                Step(1),
                SyncService(0),
                SyncService(1),
            ],
        );
    }
    assert_eq!(world.phase(), Phase::Waking);
    play(&mut world, &[SyncWorkloads]);
    world.settle().unwrap();
}

/// As above, but the controller never saw the zero and keeps its pods. Waiting for younger ones would never end.
#[test]
fn pods_that_were_kept_end_the_wake_after_a_while() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[Observe(0), Step(0), WishWake]);
    for _ in 0..3 {
        play(&mut world, &[Observe(1), Step(1), Step(1), Step(1), Step(1)]);
    }
    assert_eq!(
        world.cluster.workloads[0].replicas, 2,
        "to zero and back before anybody looked"
    );
    let pods = world.cluster.pods.len();
    world.settle().unwrap();
    assert_eq!(world.phase(), Phase::Awake);
    assert_eq!(world.cluster.pods.len(), pods);
    assert!(
        world
            .cluster
            .pods
            .iter()
            .all(|pod| pod.created < world.state().wake_started.unwrap())
    );
}

/// A wake arrives before the scale-down: replicas were never touched, so the pods that are there are the right ones.
#[test]
fn pods_that_were_never_scaled_down_count_at_once() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[WishWake, Run(0, 6)]);
    assert_eq!(world.phase(), Phase::Awake);
}

/// A leader stalls just before it scales down.
#[test]
fn a_late_scale_down_after_a_whole_wake() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[Observe(0), WishWake]);
    run_to(&mut world, 1, Phase::Awake);
    play(&mut world, &[Step(0)]);
    assert_eq!(world.cluster.workloads[0].replicas, 2);
}

/// A leader has read a workload that sleeps, and reads its Sleeper when a wake has come nearly to its end: nobody has scaled to zero.
#[test]
fn zero_that_was_read_before_a_wake_is_nobodys_scaling() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[Run(0, 2), WishWake, ReadObjects(0)]);
    run_to(&mut world, 1, Phase::Ready);
    play(&mut world, &[ReadSleeper(0), Step(0)]);
    assert_ne!(world.phase(), Phase::Diverting);
    world.settle().unwrap();
}

/// A wake follows a sleep so closely that no controller has acted on the zero: the pods are ready, and about to go.
#[test]
fn a_selector_waits_for_pods_that_a_sleep_takes_away() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Draining);
    for _ in 0..8 {
        if world.phase() == Phase::Asleep && world.cluster.workloads[0].replicas == 0 {
            break;
        }
        play(&mut world, &[Tick(4000), Observe(0), Step(0), Step(0), Step(0)]);
    }
    assert!(!world.cluster.pods.is_empty(), "nobody has acted on it");
    play(&mut world, &[WatchWorkloads, WishWake]);
    for _ in 0..4 {
        play(&mut world, &[Observe(1), Step(1), Step(1), Step(1), Step(1)]);
    }
    assert!(world.cluster.services.iter().all(|service| service.parked));
    assert!(world.cluster.workloads[0].replicas > 0, "the wake goes on");
    play(&mut world, &[SyncWorkloads]);
    world.settle().unwrap();
}

/// Deleted in the one phase that is neither waking nor awake.
#[test]
fn finalizing_in_ready_comes_to_an_end() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[WishWake]);
    run_to(&mut world, 0, Phase::Ready);
    play(&mut world, &[Delete]);
    world.settle().unwrap();
    assert!(world.cluster.sleeper.is_none());
}

/// Of two Services, pods are listed for one only: a Sleeper that is being deleted leaves that one first.
#[test]
fn finalizing_leaves_each_service_when_its_pods_are_listed() {
    let mut world = leaders();
    play(
        &mut world,
        &[WishSleep, Run(0, 4), Delete, Revert(0), WishWake, Run(0, 1)],
    );
    world.settle().unwrap();
}

/// A wake follows a parked selector so closely that the endpoints controller has acted on neither. What is listed is still
/// from before; the controller is about to take it away and put it back.
#[test]
fn slices_that_are_about_to_be_emptied_are_not_taken_for_new_ones() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Diverting);
    for _ in 0..6 {
        if world.cluster.services.iter().all(|service| service.parked) {
            break;
        }
        play(&mut world, &[Observe(0), Step(0), Step(0)]);
    }
    play(&mut world, &[WatchServices, WishWake]);
    for _ in 0..6 {
        play(&mut world, &[Observe(0), Step(0), Step(0), Step(0), Step(0)]);
    }
    assert_eq!(
        world.phase(),
        Phase::Ready,
        "it waits, although ready pods are listed"
    );
    play(&mut world, &[SyncService(0), SyncService(1)]);
    world.settle().unwrap();
}

/// The same for a Sleeper that is being deleted.
#[test]
fn finalizing_does_not_trust_slices_that_are_about_to_be_emptied() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Diverting);
    for _ in 0..6 {
        if world.cluster.services.iter().all(|service| service.parked) {
            break;
        }
        play(&mut world, &[Observe(0), Step(0), Step(0)]);
    }
    play(&mut world, &[WatchServices, Delete]);
    for _ in 0..8 {
        play(&mut world, &[Observe(0), Step(0), Step(0), Step(0), Step(0)]);
    }
    play(&mut world, &[SyncService(0), SyncService(1)]);
    world.settle().unwrap();
    assert!(world.cluster.sleeper.is_none());
}

/// A deletion right after a scale-down that no controller has acted on: the old pods are ready and listed, but not for long.
#[test]
fn finalizing_does_not_trust_pods_that_are_about_to_go() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(&mut world, &[Observe(0), Step(0), WatchWorkloads]);
    assert_eq!(world.cluster.workloads[0].replicas, 0);
    play(
        &mut world,
        &[Delete, Rush(0, 4), Tick(1000), Rush(0, 1), SyncWorkloads],
    );
    world.settle().unwrap();
    assert!(world.cluster.sleeper.is_none());
}

/// An executor whose view of the slices is old ends a wake without knowing that the DLX is there. Nodes are behind, and
/// may not have heard of the pods.
#[test]
fn a_leftover_stays_until_nodes_have_caught_up() {
    let mut world = leaders();
    play(
        &mut world,
        &[WishSleep, ReadObjects(0), Run(1, 4), Outage, WishWake],
    );
    run_to(&mut world, 1, Phase::Ready);
    play(&mut world, &[ReadSleeper(0), Step(0), Run(0, 1)]);
    assert_eq!(world.phase(), Phase::Awake);
    play(&mut world, &[NodeHears(0, false), Run(0, 2)]);
    world.settle().unwrap();
}

/// Somebody puts a selector back just before a scale-down, and the node hears no more than that.
#[test]
fn a_scale_down_waits_until_nodes_have_caught_up() {
    let mut world = leaders();
    play(&mut world, &[WishSleep]);
    run_to(&mut world, 0, Phase::Asleep);
    play(
        &mut world,
        &[Revert(0), SyncService(0), WatchServices, SyncService(0)],
    );
    assert!(world.cluster.services[0].listed);
    play(&mut world, &[Outage, Run(0, 4)]);
    assert_eq!(world.cluster.workloads[0].replicas, 2);
    world.settle().unwrap();
    assert_eq!(world.cluster.workloads[0].replicas, 0);
}
