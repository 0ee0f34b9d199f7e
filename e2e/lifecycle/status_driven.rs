//! Resources that are scaled by writing their status, with a platform's controller that does the work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};

use crate::world::{World, manifests};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![case!(a_function_platform_is_scaled_through_its_status)]
}

const NAMESPACE: &str = "functions";
const NAME: &str = "resize";

/// How Dormouse is installed on a real cluster; the plugin of this case is configured there, for both.
const VALUES: &str = include_str!("../values.yaml");
const PLUGIN: &str = "status-driven";

fn plugin() -> Result<serde_json::Value> {
    let values: serde_json::Value = serde_yaml::from_str(VALUES)?;
    let plugin = values.pointer("/config/plugins/status-driven").cloned();
    plugin.context("e2e/values.yaml does not configure the plugin status-driven")
}

/// How the plugin is configured for the platform of this case.
pub fn config() -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let keys = serde_json::from_value(plugin()?["config"].clone())?;
    Ok(BTreeMap::from([(PLUGIN.to_owned(), keys)]))
}

/// What it may do beyond what every plugin of the suite may.
pub fn grants() -> Result<Vec<(String, String, Vec<String>)>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Grant {
        api_version: String,
        kind: String,
        verbs: Vec<String>,
    }
    let grants: Vec<Grant> = serde_json::from_value(plugin()?["grants"]["kubernetes"].clone())?;
    let others = grants.into_iter().filter(|grant| grant.kind == "Function");
    Ok(others
        .map(|grant| (grant.api_version, grant.kind, grant.verbs))
        .collect())
}

/// The kind has to exist before the plugins are asked for the first time.
pub const CRD: &str = include_str!("../metrics/platform.yaml");

fn functions(world: &World) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("platform.example", "v1", "Function"));
    Api::namespaced_with(world.client.clone(), NAMESPACE, &kind)
}

/// The platform: carries out what the status requests, and says when it is done.
async fn platform(world: Arc<World>) -> Result<()> {
    let api = functions(&world);
    loop {
        for function in api.list(&ListParams::default()).await? {
            let name = function.metadata.name.clone().unwrap_or_default();
            let said = function
                .data
                .pointer("/status/state")
                .and_then(|state| state.as_str())
                .unwrap_or_default();
            let (replicas, state) = match said {
                "wantsSleep" => (0, "asleep"),
                "wantsWake" => (1, "ready"),
                _ => continue,
            };
            world.scale(NAMESPACE, &name, replicas).await?;
            world
                .until("the platform's pods", async || {
                    let status = world
                        .deployment(NAMESPACE, &name)
                        .await?
                        .status
                        .unwrap_or_default();
                    Ok((status.ready_replicas.unwrap_or(0) == replicas).then_some(()))
                })
                .await?;
            set_state(&world, &name, state).await?;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn set_state(world: &World, name: &str, state: &str) -> Result<()> {
    let patch = Patch::Merge(serde_json::json!({ "status": { "state": state } }));
    functions(world)
        .patch_status(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn state(world: &World) -> Result<String> {
    let function = functions(world).get(NAME).await?;
    let state = function
        .data
        .pointer("/status/state")
        .and_then(|state| state.as_str())
        .map(str::to_owned);
    state.context("the function has no state")
}

async fn handled(world: &World, value: &str) -> Result<()> {
    world
        .set_custom_metric(NAMESPACE, NAME, "handled_events_per_1s", value)
        .await
}

async fn a_function_platform_is_scaled_through_its_status(world: Arc<World>) -> Result<()> {
    world.namespace(NAMESPACE).await?;
    world
        .apply(&manifests(NAMESPACE, NAME, &[], &[]).join("\n---\n"))
        .await?;
    let function = format!(
        "apiVersion: platform.example/v1\nkind: Function\nmetadata: {{ name: {NAME}, namespace: {NAMESPACE} }}\nspec: {{}}\n"
    );
    world.apply(&function).await?;
    set_state(&world, NAME, "ready").await?;
    let controller = tokio::task::spawn_local(platform(Arc::clone(&world)));

    // In use, by its metric: it stays up for several windows.
    handled(&world, "500m").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(
        state(&world).await? == "ready",
        "it was put to sleep while in use"
    );

    // Idle: the plugin writes what it wants, the platform does the work.
    handled(&world, "0").await?;
    world
        .until("the function to sleep", async || {
            Ok((state(&world).await? == "asleep").then_some(()))
        })
        .await?;
    let key = dormouse_sleepers::SleeperKey::of_plugin(PLUGIN, NAMESPACE, NAME).object_name();
    world
        .until("the Sleeper to show it", async || {
            let api = Api::<dormouse_sleepers::Sleeper>::namespaced(world.client.clone(), NAMESPACE);
            let status = api.get(&key).await?.status.unwrap_or_default();
            Ok((status.state.phase == Phase::Asleep).then_some(()))
        })
        .await?;

    // A request that names it wakes it the same way, and is answered by its pod.
    handled(&world, "1").await?;
    let target = format!("{NAMESPACE}/{NAME}");
    let answer = requests::get_with(&world.dlx_url().await?, &[("X-Dormouse-Target", &target)]).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    ensure!(answer.body.contains(NAME), "answered by {}", answer.body);
    // A pod that is ready gets the request; that the platform has written it down is a moment later.
    world
        .until("the function to say that it is ready", async || {
            Ok((state(&world).await? == "ready").then_some(()))
        })
        .await?;
    controller.abort();
    Ok(())
}
