//! Two that name one Service, and workloads of others behind it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse::requests;
use dormouse_lifecycle::SleeperState;
use dormouse_model::Phase;
use dormouse_sleepers::api::condition;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams};

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(a_canary_beside_a_sleeper_keeps_its_requests),
        case!(of_two_that_name_one_service_nobody_loses_a_request),
    ]
}

/// The same Deployment once more, under another name, with a label more and without Dormouse's annotations.
async fn canary(world: &World, ns: &str, name: &str) -> Result<String> {
    let mut twin = world.deployment(ns, name).await?;
    let twin_name = format!("{name}-canary");
    twin.metadata = kube::core::ObjectMeta {
        name: Some(twin_name.clone()),
        namespace: Some(ns.to_owned()),
        ..Default::default()
    };
    twin.status = None;
    let spec = &mut twin.spec;
    spec.replicas = Some(1);
    let track = ("track".to_owned(), "canary".to_owned());
    let selector = &mut spec.selector.match_labels;
    selector.get_or_insert_default().extend([track.clone()]);
    let metadata = spec.template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend([track]);
    Api::<Deployment>::namespaced(world.client.clone(), ns)
        .create(&Default::default(), &twin)
        .await?;
    Ok(twin_name)
}

async fn a_canary_beside_a_sleeper_keeps_its_requests(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("canary", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    let epoch = world.state(ns, name).await?.epoch;

    // It comes while the other one sleeps. Its requests are not to be held for that one.
    let twin = canary(&world, ns, name).await?;
    world
        .complaint(ns, name, condition::DIVERTIBLE, &format!("Deployment {twin}"))
        .await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    ensure!(world.state(ns, name).await?.epoch > epoch, "it did not wake");
    world.assert_undiverted(ns, name).await?;
    let refused = world.request_sleep(ns, name).await;
    ensure!(refused.is_err(), "it was to sleep beside its canary: {refused:?}");
    let url = world.url(ns, name).await?;
    for _ in 0..20 {
        let answer = requests::get(&url).await;
        ensure!(answer.is_ok(), "{}", answer.describe());
    }

    // The canary goes, and it may sleep again.
    Api::<Deployment>::namespaced(world.client.clone(), ns)
        .delete(&twin, &DeleteParams::foreground())
        .await?;
    world
        .until("a sleep without the canary", async || {
            Ok(world.request_sleep(ns, name).await.ok())
        })
        .await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    Ok(())
}

async fn of_two_that_name_one_service_nobody_loses_a_request(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("sharing", "web");
    let wanted = |annotations| Wanted {
        annotations,
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted(&[])).await?;
    // The older one owns, and creation is noted in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world
        .deploy_known(ns, "other", wanted(&[("dormouse.dev/services", "other,web")]))
        .await?;
    world.put_to_sleep(ns, name).await?;
    let loser = world.request_sleep(ns, "other").await;
    ensure!(
        loser
            .as_ref()
            .is_err_and(|error| error.to_string().contains("web.workloads")),
        "{loser:?}"
    );
    let (asleep, left) = (world.state(ns, name).await?, world.state(ns, "other").await?);
    world.until_a_witness_sleeps(ns).await?;
    // That its pods have gone is noted when they have.
    let place = |state: &SleeperState| (state.phase, state.epoch, state.since);
    let still = world.state(ns, name).await?;
    ensure!(place(&still) == place(&asleep), "somebody pulls at it: {still:?}");
    ensure!(
        world.state(ns, "other").await? == left,
        "somebody pulls at the other one"
    );
    for service in [name, "other"] {
        let answer = requests::get(&world.url(ns, service).await?).await;
        ensure!(answer.is_ok(), "{service}: {}", answer.describe());
    }
    // The owner goes, and the other one takes over.
    world.until_phase(ns, name, Phase::Awake).await?;
    Api::<Deployment>::namespaced(world.client.clone(), ns)
        .delete(name, &DeleteParams::default())
        .await?;
    world
        .until("the other one to take over", async || {
            Ok(world.request_sleep(ns, "other").await.ok())
        })
        .await?;
    world.until_phase(ns, "other", Phase::Asleep).await?;
    Ok(())
}
