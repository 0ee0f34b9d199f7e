//! A MemHpa whose workload sleeps by annotations of the MemHpa alone.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_lifecycle::SleeperState;
use dormouse_model::Phase;
use dormouse_sleepers::Sleeper;
use dormouse_sources::memhpa::{MemHpa, MemHpaStatus};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{World, manifests};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(a_memhpa_with_zero_as_its_minimum_sleeps_and_a_request_wakes_it),
        case!(a_memhpa_without_its_annotation_is_woken_and_only_scaled),
    ]
}

const WEB: &str = "web";
const NAME: &str = "by-memory";

/// A workload with its Service, without any annotation, and a MemHpa that asks for sleep.
async fn deploy(world: &World, ns: &str) -> Result<()> {
    world.namespace(ns).await?;
    let delay = [("embedded.dormouse.dev/start-delay", "150ms")];
    world
        .apply(&manifests(ns, WEB, &[], &delay).join("\n---\n"))
        .await?;
    world
        .until("a ready pod", async || {
            let status = world.deployment(ns, WEB).await?.status.unwrap_or_default();
            Ok((status.ready_replicas == Some(1)).then_some(()))
        })
        .await?;
    world.until_connected(crate::world::PATIENCE, ns, WEB).await?;
    let memhpa = json!({
        "apiVersion": "xinhuang.com/v1",
        "kind": "MemHpa",
        "metadata": {"name": NAME, "namespace": ns, "annotations": {"dormouse.dev/sleep-after": "3s"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": WEB},
            "minReplicas": 0,
            "maxReplicas": 5,
            "targetUtilizationPercentage": 50,
        },
    });
    world.apply(&memhpa.to_string()).await
}

async fn sleeper(world: &World, ns: &str) -> Result<Option<Sleeper>> {
    let api = Api::<Sleeper>::namespaced(world.client.clone(), ns);
    Ok(api.get_opt(&format!("{NAME}.memhpa")).await?)
}

async fn until_phase(world: &World, ns: &str, phase: Phase) -> Result<SleeperState> {
    world
        .until(
            &format!("the Sleeper of the MemHpa to be {phase:?}"),
            async || {
                let state = sleeper(world, ns).await?.and_then(|sleeper| sleeper.status);
                let state = state.map(|status| status.state).unwrap_or_default();
                Ok((state.phase == phase).then_some(state))
            },
        )
        .await
}

async fn status(world: &World, ns: &str) -> Result<MemHpaStatus> {
    let api = Api::<MemHpa>::namespaced(world.client.clone(), ns);
    Ok(api.get(NAME).await?.status.unwrap_or_default())
}

/// Status and reason of a condition of the MemHpa.
fn condition(status: &MemHpaStatus, kind: &str) -> Option<(String, String)> {
    let found = status.conditions.iter().find(|known| known.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone()))
}

/// Messages of events of this reason about the MemHpa.
async fn told(world: &World, ns: &str, reason: &str) -> Result<Vec<String>> {
    let of_it = ListParams::default().fields(&format!("involvedObject.name={NAME}"));
    let events = Api::<Event>::namespaced(world.client.clone(), ns)
        .list(&of_it)
        .await?;
    let mut events = events.items;
    events.retain(|event| event.reason.as_deref() == Some(reason));
    Ok(events.into_iter().filter_map(|event| event.message).collect())
}

async fn until_asleep(world: &World, ns: &str) -> Result<()> {
    until_phase(world, ns, Phase::Asleep).await?;
    world
        .until("replicas to be 0", async || {
            Ok((world.replicas(ns, WEB).await? == 0).then_some(()))
        })
        .await
}

async fn a_memhpa_with_zero_as_its_minimum_sleeps_and_a_request_wakes_it(world: Arc<World>) -> Result<()> {
    let ns = "memhpa-sleep";
    deploy(&world, ns).await?;
    until_asleep(&world, ns).await?;
    let asleep = world
        .until("the MemHpa to say that it sleeps", async || {
            let status = status(&world, ns).await?;
            let says = ("False".to_owned(), "Asleep".to_owned());
            Ok((condition(&status, "ScalingActive") == Some(says)).then_some(status))
        })
        .await?;
    ensure!(
        (asleep.current_replicas, asleep.desired_replicas) == (0, 0),
        "{asleep:?}"
    );
    let able = condition(&asleep, "AbleToSleep").context("nothing says whether it can sleep")?;
    ensure!(able.0 == "True", "{asleep:?}");
    let corrected = told(&world, ns, "ValidationPolicy").await?;
    ensure!(corrected.is_empty(), "{corrected:?}");
    ensure!(
        !told(&world, ns, "Asleep").await?.is_empty(),
        "no event of its sleep"
    );

    let answer = requests::get(&world.url(ns, WEB).await?).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    ensure!(
        answer.body.contains(WEB),
        "answered by something else: {}",
        answer.body
    );
    until_phase(&world, ns, Phase::Awake).await?;
    world.assert_undiverted(ns, WEB).await?;
    ensure!(
        world.replicas(ns, WEB).await? == 1,
        "not the replicas from before"
    );
    world
        .until("the MemHpa to say that it is up", async || {
            let status = status(&world, ns).await?;
            let woke = status
                .decision
                .is_none_or(|decision| !decision.starts_with("it wakes"));
            Ok((status.current_replicas == 1 && woke).then_some(()))
        })
        .await
}

async fn a_memhpa_without_its_annotation_is_woken_and_only_scaled(world: Arc<World>) -> Result<()> {
    let ns = "memhpa-woken";
    deploy(&world, ns).await?;
    until_asleep(&world, ns).await?;
    let without = json!({"metadata": {"annotations": {"dormouse.dev/sleep-after": null}}});
    Api::<MemHpa>::namespaced(world.client.clone(), ns)
        .patch(NAME, &PatchParams::default(), &Patch::Merge(without))
        .await?;
    world
        .until("the Sleeper to go", async || {
            Ok(sleeper(&world, ns).await?.is_none().then_some(()))
        })
        .await?;
    ensure!(world.replicas(ns, WEB).await? == 1, "it was not woken");
    world.assert_undiverted(ns, WEB).await?;
    let corrected = world
        .until("word that zero is no minimum now", async || {
            let told = told(&world, ns, "ValidationPolicy").await?;
            Ok(told.into_iter().next())
        })
        .await?;
    ensure!(corrected.contains("dormouse.dev/sleep-after"), "{corrected}");
    let after = world
        .until("the MemHpa to be about scaling alone", async || {
            let status = status(&world, ns).await?;
            Ok(condition(&status, "AbleToSleep").is_none().then_some(status))
        })
        .await?;
    ensure!(
        condition(&after, "AbleToScale").is_none_or(|(_, reason)| reason != "OtherScaler"),
        "its own Sleeper is in its way: {after:?}"
    );
    Ok(())
}
