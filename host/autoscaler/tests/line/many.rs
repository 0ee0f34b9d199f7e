//! Ten thousand targets.

use std::time::Duration;

use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::DesiredState;

use crate::harness::*;

const TARGETS: usize = 10_000;
const INTERVAL: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn the_window_of_ten_thousand_is_met_within_two_seconds_and_nothing_is_written_meanwhile() {
    let mut world = World::new();
    world.config.overrides.scale_interval = Some(INTERVAL);
    let resources =
        (0..TARGETS).map(|i| resource(&format!("team-{}", i % 10), &format!("w{i}"), vec![observed(4)]));
    let plugin = world.plugin("workloads", resources.collect());
    world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(world.cluster.keys().len(), TARGETS);
    // All are observed, one after the other over a minute.
    for key in world.cluster.keys() {
        assert_eq!(world.cluster.state(&key).desired, DesiredState::Observed);
    }
    let begun = world.cluster.now();
    for (place, key) in world.cluster.keys().iter().enumerate() {
        let span = jiff::SignedDuration::from_millis(i64::try_from(place * 6).unwrap_or(0));
        world.cluster.edit_state(key, |state| {
            (state.phase, state.since) = (Phase::Observing, Some(begun + span));
        });
    }
    world.cluster.moved.send_modify(|count| *count += 1);
    world.cluster.forget_writes();
    let demand = || {
        world
            .cluster
            .demand
            .calls
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    pass(MINUTE).await;
    let before = demand();
    pass(MINUTE * 2).await;
    let asked = demand() - before;
    assert!(
        asked <= 45,
        "demand is asked for once in three seconds, for all: {asked}"
    );
    assert!(
        world.cluster.writes.lock().unwrap().is_empty(),
        "nothing is written for what is idle"
    );

    pass(MINUTE - Duration::from_secs(1)).await;
    assert!(plugin.slept().is_empty());
    for second in 0..60_usize {
        pass(Duration::from_secs(1)).await;
        // What was quiet for its window two seconds ago is asked to sleep by now.
        let due = second.saturating_sub(2) * 1000 / 6;
        let slept = plugin.slept().len();
        assert!(slept >= due.min(TARGETS), "{slept} of {due} after {second} s");
    }
}
