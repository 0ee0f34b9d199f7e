//! Wakes that fail, pods that never get ready, clients that leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(a_wake_that_fails_is_a_503_with_retry_after_and_the_cause_on_the_sleeper),
        case!(pods_that_never_get_ready_are_a_504),
        case!(a_client_that_leaves_gives_up_its_place),
    ]
}

async fn a_wake_that_fails_is_a_503_with_retry_after_and_the_cause_on_the_sleeper(
    world: Arc<World>,
) -> Result<()> {
    let (ns, name) = ("refused", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world.refuse_scaling(ns, name).await?;
    let url = world.url(ns, name).await?;
    let answer = requests::get(&url).await;
    ensure!(answer.status == Ok(503), "{}", answer.describe());
    ensure!(answer.retry_after.is_some(), "no Retry-After");
    let cause = world
        .until("the cause on the Sleeper", async || {
            let sleeper = world.sleeper(ns, name).await?.context("no Sleeper")?;
            let conditions = sleeper.status.map(|status| status.conditions).unwrap_or_default();
            Ok(conditions
                .into_iter()
                .find(|condition| condition.type_ == "Wakeable" && condition.status == "False")
                .map(|condition| condition.message))
        })
        .await?;
    ensure!(cause.contains("quota"), "the condition says: {cause}");
    // The failure is not remembered against the next request.
    world.allow_scaling(ns, name).await?;
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "after the repair: {}", answer.describe());
    world.until_phase(ns, name, Phase::Awake).await?;
    Ok(())
}

async fn pods_that_never_get_ready_are_a_504(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("unready", "web");
    let annotations = [("dormouse.dev/wake-timeout", "2s")];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.put_to_sleep(ns, name).await?;
    world.never_ready(ns, name).await?;
    let start = Instant::now();
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(answer.status == Ok(504), "{}", answer.describe());
    let took = start.elapsed();
    ensure!(
        took >= Duration::from_millis(1900) && took < Duration::from_secs(20),
        "after {took:?}"
    );
    world
        .until("the cause on the Sleeper", async || {
            Ok(world.state(ns, name).await?.wake_failure)
        })
        .await?;
    Ok(())
}

async fn a_client_that_leaves_gives_up_its_place(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("leaving", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world.never_ready(ns, name).await?;
    let url = world.url(ns, name).await?;
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { requests::get(&url).await })
        })
        .collect();
    let key = world.key(ns, name).object_name();
    world
        .until("20 held requests", async || {
            Ok((world.held(&key).await? == 20).then_some(()))
        })
        .await?;
    for client in &clients {
        client.abort();
    }
    world
        .until("no held request", async || {
            Ok((world.held(&key).await? == 0).then_some(()))
        })
        .await?;
    Ok(())
}
