//! What changes while a workload sleeps, or is at zero without us.

use std::sync::Arc;

use anyhow::{Result, ensure};
use dormouse::requests;
use dormouse_lifecycle::Phase;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{NEVER, Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(field_02_a_service_that_appears_while_it_sleeps_is_answered_for),
        case!(field_04_what_is_born_at_zero_wakes_for_a_request),
        case!(field_04_what_is_scaled_to_zero_by_hand_wakes_for_a_request),
        case!(field_04_what_is_turned_off_stays_at_zero_and_says_so),
        case!(field_16_a_service_that_cannot_be_diverted_any_more_wakes_it_and_says_why),
        case!(chaos_2_a_port_that_is_renamed_while_it_wakes_is_answered),
    ]
}

async fn edit_service(world: &World, ns: &str, name: &str, patch: Value) -> Result<()> {
    Api::<Service>::namespaced(world.client.clone(), ns)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

async fn until_answered(world: &World, ns: &str, name: &str) -> Result<()> {
    world
        .until("an answer", async || {
            let answer = requests::get(&world.url(ns, name).await?).await;
            ensure!(answer.is_ok(), "{}", answer.describe());
            Ok(Some(()))
        })
        .await
}

async fn field_02_a_service_that_appears_while_it_sleeps_is_answered_for(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("appears", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.put_to_sleep(ns, name).await?;
    let second = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "second", "namespace": ns},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    world.apply(&second.to_string()).await?;
    until_answered(&world, ns, "second").await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    world.assert_undiverted(ns, "second").await
}

async fn field_04_what_is_born_at_zero_wakes_for_a_request(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("born", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        replicas: 0,
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    until_answered(&world, ns, name).await?;
    ensure!(world.replicas(ns, name).await? == 1, "it was not woken to one");
    Ok(())
}

async fn field_04_what_is_scaled_to_zero_by_hand_wakes_for_a_request(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("tozero", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.scale(ns, name, 0).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    until_answered(&world, ns, name).await
}

async fn field_04_what_is_turned_off_stays_at_zero_and_says_so(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("turnedoff", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        replicas: 0,
        annotations: &[("dormouse.dev/at-zero", "off")],
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.complaint(ns, name, "Wakeable", "at-zero").await?;
    ensure!(
        world.state(ns, name).await?.phase == Phase::Awake,
        "it left Awake"
    );
    ensure!(world.replicas(ns, name).await? == 0, "it was scaled up");
    world.scale(ns, name, 1).await?;
    until_answered(&world, ns, name).await
}

async fn field_16_a_service_that_cannot_be_diverted_any_more_wakes_it_and_says_why(
    world: Arc<World>,
) -> Result<()> {
    let (ns, name) = ("stranded", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.put_to_sleep(ns, name).await?;
    edit_service(
        &world,
        ns,
        name,
        json!({"spec": {"internalTrafficPolicy": "Local"}}),
    )
    .await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    world
        .complaint(ns, name, "Divertible", "internalTrafficPolicy")
        .await?;
    world.assert_undiverted(ns, name).await
}

async fn chaos_2_a_port_that_is_renamed_while_it_wakes_is_answered(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("renamed", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.put_to_sleep(ns, name).await?;
    // So that the wake does not end while the port is renamed.
    world.never_ready(ns, name).await?;
    world.scale(ns, name, 1).await?;
    world.until_phase(ns, name, Phase::Waking).await?;
    let ports = world.service(ns, name).await?.spec.unwrap_or_default().ports;
    let mut ports = serde_json::to_value(ports)?;
    ports[0]["name"] = json!("renamed");
    edit_service(&world, ns, name, json!({"spec": {"ports": ports}})).await?;
    world
        .until("the slice to follow the Service", async || {
            let slices = world.slices(ns, name).await?;
            let own = slices.into_iter().filter(crate::world::managed);
            let names: Vec<_> = own
                .flat_map(|slice| slice.ports.unwrap_or_default())
                .filter_map(|port| port.name)
                .collect();
            Ok((names == ["renamed"]).then_some(()))
        })
        .await?;
    world
        .until_connected(std::time::Duration::from_secs(10), ns, name)
        .await
}
