//! Sleep and wake when nothing goes wrong.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use kube::Api;
use kube::api::{Patch, PatchParams};

use crate::world::{Wanted, World, managed};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(an_idle_workload_goes_to_sleep),
        case!(a_request_wakes_it_and_gets_its_answer),
        case!(a_wake_restores_the_replicas_from_before),
        case!(a_burst_on_a_sleeping_workload_is_answered),
        case!(requests_keep_a_workload_awake),
        case!(two_dlx_replicas_waking_at_once_write_replicas_once),
        case!(opting_out_while_asleep_wakes),
        case!(deleting_the_workload_removes_the_sleeper_and_restores_the_service),
        case!(scaling_up_by_hand_is_respected_as_a_wake),
        case!(a_wrong_annotation_leaves_it_awake_and_says_so),
    ]
}

async fn an_idle_workload_goes_to_sleep(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("idle", "web");
    world.deploy_known(ns, name, Wanted::default()).await?;
    let state = world.until_phase(ns, name, Phase::Asleep).await?;
    world
        .until("replicas 0", async || {
            Ok((world.replicas(ns, name).await? == 0).then_some(()))
        })
        .await?;
    ensure!(!state.ports.is_empty(), "no DLX port was allocated");

    let service = world.service(ns, name).await?;
    let parked = service
        .metadata
        .annotations
        .unwrap_or_default()
        .remove(dormouse_sleepers::api::PARKED_SELECTOR);
    let parked: serde_json::Value = serde_json::from_str(&parked.unwrap_or_default())?;
    ensure!(
        parked == serde_json::json!({ "app": name }),
        "the annotation holds {parked}"
    );

    let mut listed: Vec<String> = Vec::new();
    for slice in world.slices(ns, name).await? {
        let own = managed(&slice);
        let endpoints = slice.endpoints.unwrap_or_default();
        if !own && !endpoints.is_empty() {
            bail!("pods are still listed: {endpoints:?}");
        }
        listed.extend(endpoints.into_iter().flat_map(|endpoint| endpoint.addresses));
    }
    let mut dlx = world.dlx_addresses().await?;
    listed.sort();
    dlx.sort();
    ensure!(listed == dlx, "the Service lists {listed:?}, the DLX is {dlx:?}");
    Ok(())
}

async fn a_request_wakes_it_and_gets_its_answer(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("wake", "web");
    world.deploy_known(ns, name, Wanted::default()).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    let before = world.state(ns, name).await?;
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    ensure!(
        answer.body.contains(name),
        "answered by something else: {}",
        answer.body
    );
    let after = world.until_phase(ns, name, Phase::Awake).await?;
    ensure!(
        after.epoch == before.epoch + 1,
        "epoch {} after {}",
        after.epoch,
        before.epoch
    );
    world.assert_undiverted(ns, name).await
}

async fn a_wake_restores_the_replicas_from_before(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("replicas", "web");
    world
        .deploy_known(
            ns,
            name,
            Wanted {
                replicas: 3,
                ..Wanted::never()
            },
        )
        .await?;
    world.put_to_sleep(ns, name).await?;
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    ensure!(
        world.replicas(ns, name).await? == 3,
        "{} replicas",
        world.replicas(ns, name).await?
    );
    Ok(())
}

async fn a_burst_on_a_sleeping_workload_is_answered(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("burst", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    let answers = requests::burst(&world.url(ns, name).await?, 200).await;
    let lost: Vec<_> = answers
        .iter()
        .filter(|answer| !answer.is_ok())
        .map(|answer| answer.describe())
        .collect();
    ensure!(lost.is_empty(), "{} lost, such as {:?}", lost.len(), lost.first());
    let state = world.state(ns, name).await?;
    ensure!(state.epoch == 1, "200 requests made {} wakes", state.epoch);
    Ok(())
}

async fn requests_keep_a_workload_awake(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("busy", "web");
    world
        .deploy_known(
            ns,
            name,
            Wanted {
                sleep_after: "2s",
                ..Wanted::default()
            },
        )
        .await?;
    let url = world.url(ns, name).await?;
    // Four times the window, with never more than a tenth of it between two requests.
    for _ in 0..40 {
        let answer = requests::get(&url).await;
        ensure!(answer.is_ok(), "{}", answer.describe());
        ensure!(
            world.replicas(ns, name).await? == 1,
            "it was put to sleep under traffic"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let slept = world.state(ns, name).await?.slept;
    ensure!(slept.is_none(), "it slept at {slept:?}");
    Ok(())
}

async fn two_dlx_replicas_waking_at_once_write_replicas_once(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("twice", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world
        .until("at zero", async || {
            Ok(world.state(ns, name).await?.zero_observed.then_some(()))
        })
        .await?;
    let before = world.installation().scale_writes(ns)?;
    let port = world.dlx_port(ns, name).await?;
    let addresses = world.dlx_addresses().await?;
    ensure!(addresses.len() == 2, "{} DLX replicas", addresses.len());
    let urls: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}:{port}/"))
        .collect();
    let answers = futures::future::join_all(urls.iter().map(|url| requests::get(url))).await;
    for answer in &answers {
        ensure!(answer.is_ok(), "{}", answer.describe());
    }
    let scalings = world.installation().scale_writes(ns)? - before;
    ensure!(scalings == 1, "{scalings} writes of replicas for one wake");
    ensure!(world.state(ns, name).await?.epoch == 1, "more than one wake");
    Ok(())
}

async fn opting_out_while_asleep_wakes(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("optout", "web");
    world.deploy_known(ns, name, Wanted::default()).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    let patch = serde_json::json!({ "metadata": { "annotations": { "dormouse.dev/sleep-after": null } } });
    Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(world.client.clone(), ns)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    world
        .until("the Sleeper to go", async || {
            Ok(world.sleeper(ns, name).await?.is_none().then_some(()))
        })
        .await?;
    ensure!(
        world.replicas(ns, name).await? == 1,
        "left at {} replicas",
        world.replicas(ns, name).await?
    );
    world.assert_undiverted(ns, name).await
}

async fn deleting_the_workload_removes_the_sleeper_and_restores_the_service(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("gone", "web");
    world.deploy_known(ns, name, Wanted::default()).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(world.client.clone(), ns)
        .delete(name, &kube::api::DeleteParams::default())
        .await?;
    world
        .until("the Sleeper to go", async || {
            Ok(world.sleeper(ns, name).await?.is_none().then_some(()))
        })
        .await?;
    world.assert_undiverted(ns, name).await
}

async fn scaling_up_by_hand_is_respected_as_a_wake(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("byhand", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world
        .until("at zero", async || {
            Ok(world.state(ns, name).await?.zero_observed.then_some(()))
        })
        .await?;
    world.scale(ns, name, 2).await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    ensure!(
        world.replicas(ns, name).await? == 2,
        "{} replicas",
        world.replicas(ns, name).await?
    );
    world.assert_undiverted(ns, name).await
}

async fn a_wrong_annotation_leaves_it_awake_and_says_so(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("wrong", "web");
    world
        .deploy(
            ns,
            name,
            Wanted {
                sleep_after: "soon",
                ..Wanted::default()
            },
        )
        .await?;
    let events = Api::<k8s_openapi::api::core::v1::Event>::namespaced(world.client.clone(), ns);
    let message = world
        .until("an Event", async || {
            let events = events.list(&kube::api::ListParams::default()).await?;
            Ok(events.items.into_iter().find_map(|event| {
                let message = event.message?;
                (event.type_.as_deref() == Some("Warning") && message.contains("sleep-after"))
                    .then_some(message)
            }))
        })
        .await?;
    ensure!(message.contains("soon") && message.contains("15m"), "{message}");
    ensure!(
        world.sleeper(ns, name).await?.is_none(),
        "it has a Sleeper all the same"
    );
    ensure!(world.replicas(ns, name).await? == 1, "it was scaled");
    Ok(())
}
