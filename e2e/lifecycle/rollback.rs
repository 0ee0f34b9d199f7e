//! Any demand before Asleep turns the protocol round.
//!
//! The autoscaler is stopped and the case takes its steps one by one, so that the demand arrives in exactly the phase
//! that is meant. Turning round is then the work of the DLX alone: the wake path needs no leader.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use dormouse_sleepers::Role;

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(exclusive demand_while_diverting_rolls_back),
        case!(exclusive demand_while_observing_rolls_back),
        case!(exclusive demand_while_draining_rolls_back),
    ]
}

async fn demand_while_diverting_rolls_back(world: Arc<World>) -> Result<()> {
    demand_in(&world, "rollback-diverting", Phase::Diverting).await
}

async fn demand_while_observing_rolls_back(world: Arc<World>) -> Result<()> {
    demand_in(&world, "rollback-observing", Phase::Observing).await
}

async fn demand_while_draining_rolls_back(world: Arc<World>) -> Result<()> {
    demand_in(&world, "rollback-draining", Phase::Draining).await
}

async fn demand_in(world: &World, ns: &str, phase: Phase) -> Result<()> {
    let name = "web";
    world.deploy_known(ns, name, Wanted::never()).await?;
    world
        .without_autoscaler(async || Box::pin(disturbed(world, ns, name, phase)).await)
        .await
}

async fn disturbed(world: &World, ns: &str, name: &str, phase: Phase) -> Result<()> {
    let generation = world.deployment(ns, name).await?.metadata.generation;
    world.request_sleep(ns, name).await?;
    step_until(world, ns, name, phase).await?;
    // While diverting, pods and DLX share the Service, and afterwards nodes may take a moment to follow: take the way
    // through the DLX, which is where demand is noticed.
    let port = world.dlx_port(ns, name).await?;
    let addresses = world.dlx_addresses().await?;
    // The slice brings the port to the DLX; only then is there traffic to disturb with.
    let url = format!("http://{}:{port}/", addresses.first().map_or("", String::as_str));
    world
        .until("the DLX port", async || {
            Ok(tokio::net::TcpStream::connect(url[7..].trim_end_matches('/'))
                .await
                .ok())
        })
        .await?;
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    let state = world.until_phase(ns, name, Phase::Awake).await?;
    ensure!(state.epoch == 1, "epoch {}", state.epoch);
    ensure!(state.slept.is_none(), "it slept");
    let untouched = world.deployment(ns, name).await?.metadata.generation == generation;
    ensure!(untouched, "its replicas were written");
    world.assert_undiverted(ns, name).await
}

/// Takes the leader's steps, one at a time, until the phase is reached.
pub async fn step_until(world: &World, ns: &str, name: &str, phase: Phase) -> Result<()> {
    let key = world.key(ns, name);
    for _ in 0..500 {
        if world.state(ns, name).await?.phase == phase {
            return Ok(());
        }
        world
            .cluster
            .reconciler()
            .reconcile(&key, Role::Leader, 1)
            .await?;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    bail!(
        "500 rounds did not lead to {phase:?}: {:?}",
        world.state(ns, name).await?
    )
}
