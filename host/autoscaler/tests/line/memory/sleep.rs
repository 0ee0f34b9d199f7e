//! One that may sleep: it has a Sleeper, and its source remembers its number all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dormouse_autoscaler::Source;
use dormouse_model::Phase;
use dormouse_scaling::Sample;
use dormouse_sleepers::lifecycle::DesiredState;
use tokio_util::sync::CancellationToken;

use super::{ByMemory, SECOND, WEB, usage};
use crate::fakes::lock;
use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn one_that_may_sleep_does_so_when_its_rules_say_idle() {
    let line = ByMemory::that_may_sleep(3);
    line.uses(50);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.state().desired, DesiredState::Asleep);
    assert_eq!(
        line.state().reason,
        "idle: requests over 15m at most 0",
        "the line asks for it, its source does not"
    );
    assert_eq!(line.world.cluster.written("sleep"), 1);
    line.carry_through(0);
    minutes(10).await;
    assert_eq!((line.state().phase, line.replicas()), (Phase::Asleep, 0));
    assert_eq!(line.world.cluster.written("resize"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_woke_keeps_its_replicas_until_memory_says_otherwise() {
    let line = ByMemory::that_may_sleep(1);
    line.uses(50);
    line.run();
    pass(SECOND * 8).await;
    line.carry_through(0);
    minutes(1).await;
    // A request comes.
    line.requests("1");
    line.world.cluster.edit_state(&line.key(), |state| {
        (state.desired, state.phase) = (DesiredState::Awake, Phase::Waking);
        state.epoch += 1;
    });
    line.world.cluster.set_replicas(WEB, 1);
    line.uses(100);
    minutes(2).await;
    assert_eq!(line.world.cluster.written("resize"), 0, "it is on its way up");
    line.carry_through(1);
    line.uses(50);
    minutes(1).await;
    assert_eq!((line.state().phase, line.replicas()), (Phase::Awake, 1));
    line.uses(100);
    minutes(1).await;
    assert_eq!(line.replicas(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_may_sleep_is_scaled_while_it_is_up_and_its_source_hears_of_it() {
    let line = ByMemory::that_may_sleep(1);
    line.requests("7");
    line.uses(100);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.replicas(), 2);
    assert_eq!(
        line.last_text(),
        "scale from 1 to 2: memory is 100%, target 50% of limits, proposes 2"
    );
    assert!(lock(&line.source.last_scale).is_some(), "it remembers");
    let status = line.world.cluster.status(&line.key());
    assert_eq!(
        status.scaling.and_then(|scaling| scaling.desired_replicas),
        Some(2)
    );
    let told = lock(&line.world.cluster.events).clone();
    let rescaled = ("shop/by-memory".to_owned(), "SuccessfulRescale".to_owned());
    assert_eq!(told, [rescaled]);
}

#[tokio::test(start_paused = true)]
async fn the_interval_after_a_rescale_holds_for_the_new_leader_of_one_that_may_sleep() {
    let line = ByMemory::that_may_sleep(1);
    line.requests("7");
    line.uses(100);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.replicas(), 2);
    line.world.cluster.set_replicas(WEB, 1);
    line.world.leads(false);
    pass(SECOND).await;
    line.world.leads(true);
    minutes(1).await;
    assert_eq!(line.replicas(), 1);
    minutes(3).await;
    assert_eq!(line.replicas(), 2, "three minutes have passed");
}

#[tokio::test(start_paused = true)]
async fn memory_that_nobody_knows_keeps_nothing_from_sleeping_and_is_told_once() {
    let line = ByMemory::that_may_sleep(2);
    line.requests("7");
    line.world
        .api
        .reads(&usage(), Some(Sample::Error("it is down".into())));
    line.run();
    minutes(2).await;
    assert_eq!(line.trouble("ScalingActive").as_deref(), Some("FailedGetMetrics"));
    let readings = line.world.cluster.condition(&line.key(), "ReadingsAvailable");
    assert_eq!(readings, None, "its rules can be read");
    assert!(
        lock(&line.world.cluster.events).is_empty(),
        "its source tells it, in its own words"
    );
    line.requests("0");
    minutes(1).await;
    assert_eq!(line.state().desired, DesiredState::Asleep);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_diverted_says_so_and_stays_up() {
    let line = ByMemory::that_may_sleep(2);
    lock(&line.world.cluster.undivertible).insert("shop/by-memory".to_owned());
    line.uses(50);
    line.run();
    minutes(1).await;
    let (status, reason, _) = line
        .world
        .cluster
        .condition(&line.key(), "Divertible")
        .expect("told");
    assert_eq!((&*status, &*reason), ("False", "Undivertible"));
    assert_eq!((line.state().desired, line.replicas()), (DesiredState::Awake, 2));
}

#[tokio::test(start_paused = true)]
async fn without_its_rules_the_sleeper_goes_and_it_is_scaled_as_before() {
    let line = ByMemory::that_may_sleep(1);
    line.uses(50);
    line.run();
    pass(SECOND * 8).await;
    line.carry_through(0);
    line.edit(|source| lock(&source.rules).clear());
    pass(SECOND * 8).await;
    assert_eq!(line.world.cluster.keys(), [], "its finalizer wakes it");
    line.world.cluster.set_replicas(WEB, 1);
    line.uses(100);
    minutes(1).await;
    assert_eq!(line.replicas(), 2);
    // And it may sleep again.
    line.edit(|source| *lock(&source.rules) = vec![custom("requests", 15, "0")]);
    pass(SECOND * 8).await;
    assert_eq!(line.state().desired, DesiredState::Asleep);
}

#[tokio::test(start_paused = true)]
async fn the_sleeper_of_an_object_that_is_gone_goes() {
    let line = ByMemory::that_may_sleep(1);
    line.uses(50);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.world.cluster.keys(), [line.key()]);
    line.edit(|source| source.is_gone.store(true, Ordering::Relaxed));
    pass(SECOND * 8).await;
    assert_eq!(line.world.cluster.keys(), []);
}

#[tokio::test(start_paused = true)]
async fn sleepers_of_a_kind_go_when_nobody_looks_after_it_any_more() {
    for is_looked_after in [true, false] {
        let mut line = ByMemory::that_may_sleep(1);
        line.requests("7");
        line.uses(50);
        line.run();
        pass(SECOND * 8).await;
        line.world.shutdown.cancel();
        pass(SECOND).await;
        // A process that is started anew.
        line.world.shutdown = CancellationToken::new();
        let sources: Vec<_> = is_looked_after
            .then(|| Arc::clone(&line.source) as Arc<dyn Source>)
            .into_iter()
            .collect();
        line.world.roster = std::mem::take(&mut line.world.roster).with_built_in(&sources);
        line.world.run_sources(sources);
        minutes(2).await;
        let expected = if is_looked_after { vec![line.key()] } else { vec![] };
        assert_eq!(line.world.cluster.keys(), expected);
    }
}
