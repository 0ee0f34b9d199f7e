//! What changes while a workload sleeps, or is at zero without us.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(field_02_a_service_that_appears_while_it_sleeps_is_answered_for),
        case!(field_04_what_is_born_at_zero_wakes_for_a_request),
        case!(field_04_what_is_scaled_to_zero_by_hand_wakes_for_a_request),
        case!(field_04_what_is_turned_off_stays_at_zero_and_says_so),
        case!(field_16_a_service_that_cannot_be_diverted_any_more_wakes_it_and_says_why),
        case!(chaos_2_a_port_that_is_renamed_while_it_wakes_is_answered),
        case!(whatever_is_edited_while_it_sleeps_requests_are_answered),
    ]
}

/// How long one request may take, held until a pod is up.
const TRY: Duration = Duration::from_secs(12);

async fn until_answered(world: &World, ns: &str, name: &str) -> Result<()> {
    world
        .until("an answer", async || {
            // A connection to the address of a Service that kube-proxy does not know yet never gets anywhere; the next one does.
            let url = world.url(ns, name).await?;
            let answer = tokio::time::timeout(TRY, requests::get(&url)).await?;
            ensure!(answer.is_ok(), "{}", answer.describe());
            Ok(Some(()))
        })
        .await
}

async fn field_02_a_service_that_appears_while_it_sleeps_is_answered_for(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("appears", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
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
    world.assert_undiverted(ns, name).await?;
    let selector = world
        .service(ns, "second")
        .await?
        .spec
        .and_then(|spec| spec.selector);
    let app = selector.as_ref().and_then(|selector| selector.get("app"));
    ensure!(app.is_some_and(|app| app == name), "the selector is {selector:?}");
    let own = world
        .slices(ns, "second")
        .await?
        .iter()
        .any(crate::world::managed);
    ensure!(!own, "Dormouse's slice is still there");
    Ok(())
}

async fn field_04_what_is_born_at_zero_wakes_for_a_request(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("born", "web");
    let wanted = Wanted {
        replicas: 0,
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    until_answered(&world, ns, name).await?;
    ensure!(world.replicas(ns, name).await? == 1, "it was not woken to one");
    Ok(())
}

async fn field_04_what_is_scaled_to_zero_by_hand_wakes_for_a_request(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("tozero", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.scale(ns, name, 0).await?;
    world.until_phase(ns, name, Phase::Asleep).await?;
    until_answered(&world, ns, name).await
}

async fn field_04_what_is_turned_off_stays_at_zero_and_says_so(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("turnedoff", "web");
    let wanted = Wanted {
        replicas: 0,
        annotations: &[("dormouse.dev/at-zero", "off")],
        ..Wanted::never()
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
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    world
        .edit_service(ns, name, json!({"spec": {"internalTrafficPolicy": "Local"}}))
        .await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    world
        .complaint(ns, name, "Divertible", "internalTrafficPolicy")
        .await?;
    world.assert_undiverted(ns, name).await
}

async fn chaos_2_a_port_that_is_renamed_while_it_wakes_is_answered(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("renamed", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    world.put_to_sleep(ns, name).await?;
    // So that the wake does not end while the port is renamed.
    world.never_ready(ns, name).await?;
    world.scale(ns, name, 1).await?;
    world.until_phase(ns, name, Phase::Waking).await?;
    let ports = world.service(ns, name).await?.spec.unwrap_or_default().ports;
    let mut ports = serde_json::to_value(ports)?;
    ports[0]["name"] = json!("renamed");
    world
        .edit_service(ns, name, json!({"spec": {"ports": ports}}))
        .await?;
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

/// What somebody does to a sleeping workload, its Service or what Dormouse keeps for it.
#[derive(Clone, Copy, Debug)]
enum Edit {
    UdpPort,
    NamedTargetPort,
    OtherPort,
    MorePorts,
    SessionAffinity,
    PublishNotReady,
    NodeLocal,
    SelectorGone,
    SelectorBack,
    AnnotationsGone,
    ServiceAnew,
    SliceGone,
    SliceLabelsGone,
    WorkloadAnew,
    WorkloadAnewAtZero,
    RolloutPaused,
    TemplateChanged,
}

const EDITS: [Edit; 17] = [
    Edit::UdpPort,
    Edit::NamedTargetPort,
    Edit::OtherPort,
    Edit::MorePorts,
    Edit::SessionAffinity,
    Edit::PublishNotReady,
    Edit::NodeLocal,
    Edit::SelectorGone,
    Edit::SelectorBack,
    Edit::AnnotationsGone,
    Edit::ServiceAnew,
    Edit::SliceGone,
    Edit::SliceLabelsGone,
    Edit::WorkloadAnew,
    Edit::WorkloadAnewAtZero,
    Edit::RolloutPaused,
    Edit::TemplateChanged,
];

impl Edit {
    async fn make(self, world: &World, ns: &str, name: &str) -> Result<()> {
        let port = json!({"name": "http", "port": 80, "targetPort": 8080});
        let ports = |more: Value| json!({"spec": {"ports": [port.clone(), more]}});
        let patch = match self {
            Edit::UdpPort => ports(json!({"name": "dns", "port": 53, "protocol": "UDP"})),
            Edit::NamedTargetPort => {
                json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}})
            }
            Edit::OtherPort => json!({"spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}}),
            Edit::MorePorts => ports(json!({"name": "more", "port": 81, "targetPort": 8080})),
            Edit::SessionAffinity => json!({"spec": {"sessionAffinity": "ClientIP"}}),
            Edit::PublishNotReady => json!({"spec": {"publishNotReadyAddresses": true}}),
            Edit::NodeLocal => json!({"spec": {"internalTrafficPolicy": "Local"}}),
            Edit::SelectorGone => json!({"spec": {"selector": null}}),
            Edit::SelectorBack => {
                json!({"spec": {"selector": {"app": name, dormouse_sleepers::api::PARKED_LABEL: null}}})
            }
            Edit::AnnotationsGone => json!({"metadata": {"annotations": null}}),
            Edit::ServiceAnew => {
                let services = Api::<Service>::namespaced(world.client.clone(), ns);
                services.delete(name, &Default::default()).await?;
                let anew = json!({
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": ns},
                    "spec": {"selector": {"app": name}, "ports": [port]},
                });
                world.apply(&anew.to_string()).await?;
                return Ok(());
            }
            Edit::SliceGone | Edit::SliceLabelsGone => {
                let slices = Api::<EndpointSlice>::namespaced(world.client.clone(), ns);
                for slice in world
                    .slices(ns, name)
                    .await?
                    .iter()
                    .filter(|slice| crate::world::managed(slice))
                {
                    if matches!(self, Edit::SliceGone) {
                        slices.delete(&slice.name_any(), &Default::default()).await?;
                    } else {
                        let bare = Patch::Merge(json!({"metadata": {"labels": null}}));
                        slices
                            .patch(&slice.name_any(), &Default::default(), &bare)
                            .await?;
                    }
                }
                return Ok(());
            }
            Edit::WorkloadAnew | Edit::WorkloadAnewAtZero => {
                let deployments = Api::<Deployment>::namespaced(world.client.clone(), ns);
                let mut anew = world.deployment(ns, name).await?;
                let annotations = anew.metadata.annotations.take();
                anew.metadata = kube::core::ObjectMeta {
                    name: Some(name.to_owned()),
                    namespace: Some(ns.to_owned()),
                    // As in the manifest, without what Dormouse noted.
                    annotations: annotations.map(|all| {
                        all.into_iter()
                            .filter(|(key, _)| key == "dormouse.dev/sleep-after")
                            .collect()
                    }),
                    ..Default::default()
                };
                anew.status = None;
                anew.spec.replicas = Some(i32::from(matches!(self, Edit::WorkloadAnew)));
                deployments.delete(name, &Default::default()).await?;
                world
                    .until("the Deployment to go", async || {
                        Ok(deployments.get_opt(name).await?.is_none().then_some(()))
                    })
                    .await?;
                deployments.create(&Default::default(), &anew).await?;
                return Ok(());
            }
            Edit::RolloutPaused | Edit::TemplateChanged => {
                let patch = match self {
                    Edit::RolloutPaused => json!({"spec": {"paused": true}}),
                    _ => json!({"spec": {"template": {"metadata": {"annotations": {"changed": "yes"}}}}}),
                };
                Api::<Deployment>::namespaced(world.client.clone(), ns)
                    .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
                return Ok(());
            }
        };
        world.edit_service(ns, name, patch).await
    }
}

async fn edited_while_asleep(world: &World, edit: Edit) -> Result<()> {
    let (ns, name) = (format!("edit-{edit:?}").to_lowercase(), "web");
    world.deploy_known(&ns, name, Wanted::never()).await?;
    world.put_to_sleep(&ns, name).await?;
    edit.make(world, &ns, name).await?;
    if matches!(edit, Edit::SelectorGone) {
        // Nobody answers then, as without Dormouse; but the pods are back, and the cause is told.
        world
            .complaint(&ns, name, "Divertible", "has no selector")
            .await?;
        world.until_phase(&ns, name, Phase::Awake).await?;
        ensure!(world.replicas(&ns, name).await? == 1, "its pods are not back");
        return Ok(());
    }
    // The first answer may be that of a pod which was still ending, where the edit leads to the pods again. Then it is diverted anew,
    // and whoever asks next wakes it.
    let what = format!("{ns}/{name} to be Awake, since somebody asks");
    world
        .until(&what, async || {
            until_answered(world, &ns, name).await?;
            let awake = world.state(&ns, name).await?.phase == Phase::Awake;
            Ok(awake.then_some(()))
        })
        .await?;
    world.assert_undiverted(&ns, name).await
}

async fn whatever_is_edited_while_it_sleeps_requests_are_answered(world: Arc<World>) -> Result<()> {
    let world = &world;
    let edited = EDITS.map(|edit| async move { (edit, edited_while_asleep(world, edit).await) });
    let wrong: Vec<_> = futures::future::join_all(edited)
        .await
        .into_iter()
        .filter_map(|(edit, outcome)| Some(format!("{edit:?}: {:#}", outcome.err()?)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}
