//! Either process may be gone, for a moment or for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use dormouse::requests;
use dormouse_model::Phase;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::world::{AUTOSCALER, Wanted, World, managed};
use crate::{Case, case};

/// How long a DLX answers after it was told to end: `dlx.shutdownDelay`.
const SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

pub fn cases() -> Vec<Case> {
    vec![
        case!(exclusive a_killed_leader_is_replaced_within_fifteen_seconds),
        case!(exclusive slices_follow_the_dlx_pods_as_they_come_and_go),
        case!(exclusive without_any_dlx_everything_wakes_and_services_go_back),
        case!(exclusive without_an_autoscaler_requests_still_wake),
        case!(exclusive what_sleeps_survives_both_being_deleted),
    ]
}

/// When at the latest a DLX leaves a Service without being told by a leader: its `outageGrace`, and some.
const LEAVES: Duration = Duration::from_secs(90);

async fn leader(world: &World) -> Result<Option<String>> {
    let lease = Api::<Lease>::namespaced(world.client.clone(), SYSTEM_NAMESPACE)
        .get(AUTOSCALER)
        .await?;
    Ok(lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .filter(|holder| !holder.is_empty()))
}

async fn a_killed_leader_is_replaced_within_fifteen_seconds(world: Arc<World>) -> Result<()> {
    world.run_replicas(AUTOSCALER, 2).await?;
    let first = world.until("a leader", async || leader(&world).await).await?;
    let pods = world.pods(AUTOSCALER).await?;
    let victim = pods
        .iter()
        .filter_map(|pod| pod.metadata.name.clone())
        .find(|pod| first.starts_with(pod.as_str()))
        .with_context(|| format!("no pod is the leader {first}"))?;
    let (ns, name) = ("leader", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    let start = Instant::now();
    world.kill(&victim).await?;
    world
        .until("another leader", async || {
            Ok(leader(&world).await?.filter(|holder| *holder != first))
        })
        .await?;
    let took = start.elapsed();
    println!(
        "          a new leader {:.1} s after the old one was killed",
        took.as_secs_f64()
    );
    ensure!(took < Duration::from_secs(15), "after {took:?}");
    // It does not only hold the lease, it works.
    world.put_to_sleep(ns, name).await?;
    world.run_replicas(AUTOSCALER, 2).await
}

async fn slices_follow_the_dlx_pods_as_they_come_and_go(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("follow", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    let outcome = follow(&world, ns, name).await;
    world.run_replicas("dormouse-dlx", 2).await?;
    outcome
}

async fn follow(world: &World, ns: &str, name: &str) -> Result<()> {
    for replicas in [3, 1, 2] {
        world.run_replicas("dormouse-dlx", replicas).await?;
        let start = Instant::now();
        world
            .until("the slice to list the DLX pods", async || {
                let mut listed: Vec<String> = world
                    .slices(ns, name)
                    .await?
                    .into_iter()
                    .filter(managed)
                    .flat_map(|slice| slice.endpoints.unwrap_or_default())
                    .flat_map(|endpoint| endpoint.addresses)
                    .collect();
                let mut there = world.dlx_addresses().await?;
                listed.sort();
                there.sort();
                Ok((listed == there).then_some(()))
            })
            .await?;
        let took = start.elapsed();
        println!("          {replicas} replicas listed {took:.1?} after they were ready");
        ensure!(
            took < SHUTDOWN_DELAY,
            "{replicas} replicas were ready, and listed {took:?} later, when one that goes answers no more"
        );
    }
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    Ok(())
}

async fn without_any_dlx_everything_wakes_and_services_go_back(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("no-dlx", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world.run_replicas("dormouse-dlx", 0).await?;
    let outcome = awake_again(&world, ns, name).await;
    world.run_replicas("dormouse-dlx", 2).await?;
    outcome
}

async fn awake_again(world: &World, ns: &str, name: &str) -> Result<()> {
    let state = world.until_phase(ns, name, Phase::Awake).await?;
    ensure!(state.reason.contains("DLX"), "the reason is {:?}", state.reason);
    world.assert_undiverted(ns, name).await?;
    let url = world.url(ns, name).await?;
    world
        .until("the Service to answer", async || answers(&url).await)
        .await
}

/// Whether there is an answer soon. A connection to an address that has just gone would hang for longer than the case.
async fn answers(url: &str) -> Result<Option<()>> {
    let answer = tokio::time::timeout(Duration::from_secs(3), requests::get(url)).await;
    Ok(answer.is_ok_and(|answer| answer.is_ok()).then_some(()))
}

async fn without_an_autoscaler_requests_still_wake(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("no-autoscaler", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world
        .without_autoscaler(async || {
            let answer = requests::get(&world.url(ns, name).await?).await;
            ensure!(answer.is_ok(), "{}", answer.describe());
            // A DLX that has just started does not know of outages before, so it leaves no Service for `outageGrace`.
            world.until_phase_within(LEAVES, ns, name, Phase::Awake).await
        })
        .await?;
    world.assert_undiverted(ns, name).await
}

async fn what_sleeps_survives_both_being_deleted(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("both", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    let back = async || {
        world.run_replicas("dormouse-dlx", 0).await?;
        // Nobody is there to wake it. A client waits or is refused, and nothing is lost for good.
        let asleep = world.state(ns, name).await?.phase;
        world.run_replicas("dormouse-dlx", 2).await?;
        ensure!(asleep == Phase::Asleep, "{asleep:?}");
        let url = world.url(ns, name).await?;
        world
            .until("an answer once the DLX is back", async || answers(&url).await)
            .await
    };
    world.without_autoscaler(back).await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    world.assert_undiverted(ns, name).await
}
