//! Defects that were verified in the system that Dormouse re-does, as tests that pass here.

use std::sync::Arc;

use anyhow::{Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(two_targets_with_one_failing_wake_crash_nothing),
        case!(a_failed_wake_is_not_cached),
        case!(one_name_in_two_namespaces_is_two_resources),
        case!(forwarding_headers_never_choose_an_address),
    ]
}

const TARGET: &str = "X-Dormouse-Target";

async fn two_targets_with_one_failing_wake_crash_nothing(world: Arc<World>) -> Result<()> {
    let ns = "pair";
    for name in ["bad", "good"] {
        world.deploy_known(ns, name, Wanted::never()).await?;
        world.put_to_sleep(ns, name).await?;
    }
    world.refuse_scaling(ns, "bad").await?;
    let dlx = world.dlx_url().await?;
    // Whichever of the two the strategy picks, every request gets an answer from a DLX that is alive.
    let mut seen = Vec::new();
    for _ in 0..12 {
        let answer = requests::get_with(&dlx, &[(TARGET, "pair/bad,pair/good")]).await;
        ensure!(matches!(answer.status, Ok(200 | 503)), "{}", answer.describe());
        if answer.is_ok() {
            ensure!(answer.body.contains("good"), "answered by {}", answer.body);
        }
        seen.push(answer.status);
    }
    world.allow_scaling(ns, "bad").await?;
    let answer = requests::get_with(&dlx, &[(TARGET, "pair/good")]).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    world.until_phase(ns, "good", Phase::Awake).await?;
    let restarts = world.dlx_restarts().await?;
    ensure!(
        restarts == 0,
        "the DLX was restarted {restarts} times; answers: {seen:?}"
    );
    Ok(())
}

async fn a_failed_wake_is_not_cached(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("uncached", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    let url = world.url(ns, name).await?;
    world.refuse_scaling(ns, name).await?;
    ensure!(
        requests::get(&url).await.status == Ok(503),
        "the wake did not fail"
    );
    world.allow_scaling(ns, name).await?;
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "right after the repair: {}", answer.describe());
    Ok(())
}

async fn one_name_in_two_namespaces_is_two_resources(world: Arc<World>) -> Result<()> {
    let name = "twin";
    for ns in ["north", "south"] {
        world.deploy_known(ns, name, Wanted::never()).await?;
    }
    world.put_to_sleep("north", name).await?;
    ensure!(
        world.state("south", name).await?.phase == Phase::Awake,
        "the twin fell asleep too"
    );
    ensure!(world.replicas("south", name).await? == 1, "the twin was scaled");
    // A bare name that fits two resources is refused rather than guessed.
    let dlx = world.dlx_url().await?;
    let answer = requests::get_with(&dlx, &[(TARGET, name)]).await;
    ensure!(matches!(answer.status, Ok(400 | 404)), "{}", answer.describe());
    let answer = requests::get_with(&dlx, &[(TARGET, "north/twin")]).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    ensure!(world.state("south", name).await?.epoch == 0, "the twin was woken");
    Ok(())
}

async fn forwarding_headers_never_choose_an_address(world: Arc<World>) -> Result<()> {
    // An address of ours that must never be dialled.
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = trap.local_addr()?.port().to_string();
    let headers = [
        ("X-Forwarded-Host", "127.0.0.1"),
        ("X-Forwarded-Port", port.as_str()),
        ("X-Resource-Name", "web"),
        ("X-Original-Uri", "/secret"),
    ];
    let answer = requests::get_with(&world.dlx_url().await?, &headers).await;
    ensure!(answer.status == Ok(404), "{}", answer.describe());
    let dialled = tokio::time::timeout(std::time::Duration::from_millis(300), trap.accept()).await;
    ensure!(
        dialled.is_err(),
        "the DLX connected to an address that a client chose"
    );
    Ok(())
}
