//! A process may die between any two steps; the next one finishes or rolls back.
//!
//! The case takes the steps of the dying process itself, through the very code that the processes run, and stops after
//! each possible number of them. Then the real processes are started and have to cope with what they find.

use std::sync::Arc;

use anyhow::{Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use dormouse_sleepers::{ReconcileOutcome, Role};

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(exclusive a_leader_that_dies_between_any_two_steps_of_a_sleep),
        case!(exclusive a_dlx_that_dies_between_any_two_steps_of_a_wake),
    ]
}

/// More than either direction takes; the case checks that.
const STEPS: usize = 10;

fn name(step: usize) -> String {
    format!("w{step}")
}

/// Takes exactly `steps` steps, or fewer when there is nothing left to do. Answers how many.
async fn take(world: &World, ns: &str, name: &str, role: Role, steps: usize) -> Result<usize> {
    let mut taken = 0;
    let mut idle = 0;
    while taken < steps && idle < 150 {
        let done = match world
            .cluster
            .reconciler()
            .reconcile(&world.key(ns, name), role, 1)
            .await?
        {
            ReconcileOutcome::Acted { steps } | ReconcileOutcome::Conflicted { steps } => steps,
            ReconcileOutcome::Gone | ReconcileOutcome::NotOurs | ReconcileOutcome::Waiting { .. } => 0,
        };
        taken += done;
        idle = if done == 0 { idle + 1 } else { 0 };
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(taken)
}

async fn a_leader_that_dies_between_any_two_steps_of_a_sleep(world: Arc<World>) -> Result<()> {
    let ns = "crash-sleep";
    for step in 0..=STEPS {
        world.deploy_known(ns, &name(step), Wanted::never()).await?;
    }
    let reached = world
        .without_autoscaler(async || {
            let mut reached = Vec::new();
            for step in 0..=STEPS {
                world.request_sleep(ns, &name(step)).await?;
                take(&world, ns, &name(step), Role::Leader, step).await?;
                reached.push(world.state(ns, &name(step)).await?.phase);
            }
            Ok(reached)
        })
        .await?;
    ensure!(
        reached.contains(&Phase::Diverting) && reached.contains(&Phase::Draining),
        "{reached:?}"
    );
    ensure!(
        reached.last() == Some(&Phase::Asleep),
        "more steps than the case takes: {reached:?}"
    );
    for step in 0..=STEPS {
        let name = name(step);
        world.until_phase(ns, &name, Phase::Asleep).await?;
        world
            .until("replicas 0", async || {
                Ok((world.replicas(ns, &name).await? == 0).then_some(()))
            })
            .await?;
        let answer = requests::get(&world.url(ns, &name).await?).await;
        ensure!(answer.is_ok(), "after {step} steps: {}", answer.describe());
        world.until_phase(ns, &name, Phase::Awake).await?;
        world.assert_undiverted(ns, &name).await?;
    }
    Ok(())
}

async fn a_dlx_that_dies_between_any_two_steps_of_a_wake(world: Arc<World>) -> Result<()> {
    let ns = "crash-wake";
    for step in 0..=STEPS {
        world.deploy_known(ns, &name(step), Wanted::never()).await?;
        world.put_to_sleep(ns, &name(step)).await?;
    }
    world.run_replicas("dormouse-autoscaler", 0).await?;
    world.run_replicas("dormouse-dlx", 0).await?;
    let mut reached = Vec::new();
    for step in 0..=STEPS {
        world
            .cluster
            .desired()
            .request_wake(&world.key(ns, &name(step)), "the case says so")
            .await?;
        take(&world, ns, &name(step), Role::Waker, step).await?;
        reached.push(world.state(ns, &name(step)).await?.phase);
    }
    world.run_replicas("dormouse-dlx", 2).await?;
    world.run_replicas("dormouse-autoscaler", 1).await?;
    ensure!(
        reached.contains(&Phase::Waking) && reached.contains(&Phase::Awake),
        "{reached:?}"
    );
    for step in 0..=STEPS {
        let name = name(step);
        world.until_phase(ns, &name, Phase::Awake).await?;
        let answer = requests::get(&world.url(ns, &name).await?).await;
        ensure!(answer.is_ok(), "after {step} steps: {}", answer.describe());
        world.assert_undiverted(ns, &name).await?;
        ensure!(world.state(ns, &name).await?.epoch == 1, "woken more than once");
    }
    Ok(())
}
