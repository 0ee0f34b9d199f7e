//! The chart: upgraded, rolled back, extended by a user's own plugin, and at last uninstalled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use dormouse::requests;
use dormouse_model::Phase;
use dormouse_sleepers::SleeperKey;
use dormouse_sleepers::api::{PARKED_SELECTOR, Sleeper, condition};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use serde_json::json;

use super::cycles::Traffic;
use crate::traffic::none_lost;
use crate::world::{Wanted, World, managed};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(exclusive upgrade_and_rollback_under_traffic_lose_nothing),
        // The release is upgraded again and again, and each time a rollout is waited for.
        case!(exclusive a_users_own_plugin_comes_from_wherever_it_is_kept_and_leaves_nothing_asleep)
            .within(Duration::from_secs(400)),
        case!(exclusive uninstalling_after_an_outage_under_traffic_loses_nothing_and_leaves_nothing_parked)
            .within(UNINSTALL),
    ]
}

/// Two minutes of it nodes are given to catch up.
const UNINSTALL: Duration = Duration::from_secs(6 * 60);

/// Names the chart.
const CHART: &str = "DORMOUSE_E2E_CHART";
/// Names the component that came out of docs/writing-a-scaler.md.
const USER_PLUGIN: &str = "DORMOUSE_E2E_USER_PLUGIN";
pub const RELEASE: &str = "dormouse";
/// What the places are called where the user keeps the plugin.
const KEPT: &str = "users-plugin";

/// Where this version's is.
pub fn chart() -> Result<String> {
    std::env::var(CHART).with_context(|| format!("{CHART} does not name the chart"))
}

/// As the administrator, on the release's namespace.
pub async fn helm(world: &World, args: &[&str]) -> Result<()> {
    let mut all = vec!["helm"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--namespace", SYSTEM_NAMESPACE]);
    world.installation().cluster_command(&all).await
}

/// `values` are flags, such as `--set`.
async fn upgrade(world: &World, values: &[&str]) -> Result<()> {
    let chart = chart()?;
    let mut args = vec![
        "upgrade",
        RELEASE,
        chart.as_str(),
        "--reuse-values",
        "--wait",
        "--timeout",
        "2m",
    ];
    args.extend(values);
    helm(world, &args).await
}

async fn upgrade_and_rollback_under_traffic_lose_nothing(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("upgrade", "web");
    let wanted = Wanted {
        pod_annotations: &[],
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted).await?;
    let traffic = Traffic::start(&world, ns, world.url(ns, name).await?).await?;
    let through = async {
        // Other annotations on the pods: every pod of both Deployments is replaced, twice.
        upgrade(
            &world,
            &[
                "--set=autoscaler.podAnnotations.suite=upgraded",
                "--set=dlx.podAnnotations.suite=upgraded",
            ],
        )
        .await?;
        helm(&world, &["rollback", RELEASE, "--wait", "--timeout", "2m"]).await
    };
    tokio::pin!(through);
    let mut sleeps = 0;
    let outcome = loop {
        // Asleep or on the way there, and woken by the traffic that comes back.
        traffic.flow(false).await?;
        world.request_sleep(ns, name).await?;
        sleeps += 1;
        let over = tokio::time::timeout(Duration::from_millis(1500), &mut through).await;
        traffic.flow(true).await?;
        world.until_phase(ns, name, Phase::Awake).await?;
        if let Ok(outcome) = over {
            break outcome;
        }
    };
    outcome?;
    world.until_phase(ns, name, Phase::Awake).await?;
    let (sent, lost) = traffic.end().await?;
    println!("          {sleeps} sleeps during an upgrade and a rollback");
    none_lost(sent, lost)
}

async fn a_users_own_plugin_comes_from_wherever_it_is_kept_and_leaves_nothing_asleep(
    world: Arc<World>,
) -> Result<()> {
    let file = std::env::var_os(USER_PLUGIN)
        .map(PathBuf::from)
        .with_context(|| format!("{USER_PLUGIN} does not name a component"))?;
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .context("the component has no name")?
        .to_owned();
    keep_in_config_map(&world, &stem, &file).await?;
    let folder = file.parent().context("the component is in no folder")?;
    keep_in_volume(&world, folder).await?;

    // What the tutorial's plugin looks after: Deployments with its own label.
    let (ns, name) = ("users-day", "web");
    world.deploy(ns, name, Wanted::never()).await?;
    let taken = json!({ "metadata": {
        "annotations": { "dormouse.dev/sleep-after": null, "dormouse.dev/rules": null },
        "labels": { "tier": "preview" },
    } });
    Api::<Deployment>::namespaced(world.client.clone(), ns)
        .patch(name, &PatchParams::default(), &Patch::Merge(&taken))
        .await?;
    let without = revision(&world).await?;
    let granted = format!("--set=config.plugins.{stem}.grants");
    let granted = [
        format!("{granted}.lifecycle=true"),
        format!("{granted}.events=true"),
        format!("{granted}.kubernetes[0].apiVersion=apps/v1"),
        format!("{granted}.kubernetes[0].kind=Deployment"),
        format!("{granted}.kubernetes[0].verbs={{get,list}}"),
        format!("{granted}.kubernetes[1].apiVersion=v1"),
        format!("{granted}.kubernetes[1].kind=Service"),
        format!("{granted}.kubernetes[1].verbs={{get,list}}"),
        format!("--set=config.plugins.{stem}.config.sleep-after=1s"),
    ];
    let copy = format!("{{/workload,copy,/plugin.wasm,/plugins/{stem}.wasm}}");
    let places: [&[&str]; 3] = [
        &[&format!("--set=plugins.configMaps={{{KEPT}}}")],
        &[
            "--set-json=plugins.configMaps=[]",
            &format!("--set=plugins.persistentVolumeClaim.claimName={KEPT}"),
        ],
        &[
            "--set=plugins.persistentVolumeClaim.claimName=",
            "--set=plugins.initContainers[0].name=users",
            "--set=plugins.initContainers[0].image=dormouse.test/plugin:1",
            &format!("--set=plugins.initContainers[0].command={copy}"),
        ],
    ];
    let key = SleeperKey::of_plugin(&stem, ns, name);
    let sleepers = Api::<Sleeper>::namespaced(world.client.clone(), ns);
    let phase = async || {
        let sleeper = sleepers.get_opt(&key.object_name()).await?;
        anyhow::Ok(sleeper.map(|sleeper| sleeper.status.unwrap_or_default().state.phase))
    };
    let asleep = async || {
        world
            .until("the user's plugin to put it to sleep", async || {
                let asleep = phase().await? == Some(Phase::Asleep) && world.replicas(ns, name).await? == 0;
                Ok(asleep.then_some(()))
            })
            .await
    };
    for place in places {
        let granted = granted.iter().map(String::as_str);
        upgrade(&world, &granted.chain(place.iter().copied()).collect::<Vec<_>>()).await?;
        asleep().await.with_context(|| format!("with {place:?}"))?;
        let answer = requests::get(&world.url(ns, name).await?).await;
        ensure!(answer.is_ok(), "with {place:?}: {}", answer.describe());
        // The plugin that wakes is that of the DLX; that of the autoscaler has to be there too.
        asleep().await.with_context(|| format!("with {place:?}"))?;
    }

    two_plugins_on_one_workload(&world, &stem).await?;

    // Taken out again: what it had put to sleep is given back.
    let without = without.to_string();
    helm(
        &world,
        &["rollback", RELEASE, &without, "--wait", "--timeout", "2m"],
    )
    .await?;
    world
        .until("everything of the plugin to be given back", async || {
            let back = phase().await?.is_none() && world.replicas(ns, name).await? == 1;
            Ok(back.then_some(()))
        })
        .await?;
    world.assert_undiverted(ns, name).await?;
    let url = world.url(ns, name).await?;
    world
        .until("the Service to answer", async || {
            Ok(requests::get(&url).await.is_ok().then_some(()))
        })
        .await
}

/// One owns, the other is told who, nothing goes to and fro, and the other takes over when the owner gives up.
async fn two_plugins_on_one_workload(world: &World, second: &str) -> Result<()> {
    let (ns, name) = ("two-plugins", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    // The older one owns, and creation is noted in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let deployments = Api::<Deployment>::namespaced(world.client.clone(), ns);
    let labelled = json!({ "metadata": { "labels": { "tier": "preview" } } });
    deployments
        .patch(name, &PatchParams::default(), &Patch::Merge(&labelled))
        .await?;
    let (first, second) = (world.key(ns, name), SleeperKey::of_plugin(second, ns, name));
    let sleepers = Api::<Sleeper>::namespaced(world.client.clone(), ns);
    let status = async |key: &SleeperKey| {
        let sleeper = sleepers.get_opt(&key.object_name()).await?;
        anyhow::Ok(sleeper.and_then(|sleeper| sleeper.status).unwrap_or_default())
    };
    let owner = first.object_name();
    world
        .until("the second plugin's Sleeper to name the owner", async || {
            let told = status(&second).await?.conditions.into_iter().any(|condition| {
                condition.type_ == condition::DIVERTIBLE
                    && condition.status == "False"
                    && condition.message.contains(&owner)
            });
            Ok(told.then_some(()))
        })
        .await?;
    world.put_to_sleep(ns, name).await?;
    let place = async |key: &SleeperKey| {
        let state = status(key).await?.state;
        anyhow::Ok((state.phase, state.epoch, state.since))
    };
    let before = (place(&first).await?, place(&second).await?);
    // Several rounds of both.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = (place(&first).await?, place(&second).await?);
    ensure!(before == after, "they pull at it: {before:?}, then {after:?}");
    ensure!(after.1.0 == Phase::Awake, "two are asleep: {after:?}");
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(answer.is_ok(), "{}", answer.describe());

    // The owner gives up; the other one's rule is an idle second.
    world.until_phase(ns, name, Phase::Awake).await?;
    let given_up = json!({ "metadata": {
        "annotations": { "dormouse.dev/sleep-after": null, "dormouse.dev/rules": null },
    } });
    deployments
        .patch(name, &PatchParams::default(), &Patch::Merge(&given_up))
        .await?;
    world
        .until("the second plugin to put it to sleep", async || {
            let asleep =
                status(&second).await?.state.phase == Phase::Asleep && world.replicas(ns, name).await? == 0;
            Ok(asleep.then_some(()))
        })
        .await?;
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(answer.is_ok(), "by the second plugin: {}", answer.describe());
    deployments.delete(name, &Default::default()).await?;
    Ok(())
}

async fn keep_in_config_map(world: &World, stem: &str, file: &Path) -> Result<()> {
    let component = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(KEPT.to_owned()),
            ..ObjectMeta::default()
        },
        binary_data: Some([(format!("{stem}.wasm"), ByteString(component))].into()),
        ..ConfigMap::default()
    };
    let maps = Api::<ConfigMap>::namespaced(world.client.clone(), SYSTEM_NAMESPACE);
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

/// A claim of a volume that is a folder of the node, which is this machine.
async fn keep_in_volume(world: &World, folder: &Path) -> Result<()> {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": KEPT },
        "spec": {
            "capacity": { "storage": "1Gi" },
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "by-hand",
            "hostPath": { "path": folder, "type": "Directory" },
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": KEPT, "namespace": SYSTEM_NAMESPACE },
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "by-hand",
            "volumeName": KEPT,
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    world.apply(&volume.to_string()).await?;
    world.apply(&claim.to_string()).await
}

/// The latest revision of the release. Helm keeps each in a Secret.
async fn revision(world: &World) -> Result<u64> {
    let secrets = Api::<Secret>::namespaced(world.client.clone(), SYSTEM_NAMESPACE);
    let ours = ListParams::default().labels(&format!("owner=helm,name={RELEASE}"));
    let found = secrets.list_metadata(&ours).await?;
    found
        .into_iter()
        .filter_map(|secret| secret.metadata.labels?.get("version")?.parse().ok())
        .max()
        .context("Helm keeps no revision of the release")
}

async fn uninstalling_after_an_outage_under_traffic_loses_nothing_and_leaves_nothing_parked(
    world: Arc<World>,
) -> Result<()> {
    let ns = "uninstall";
    let names = ["one", "two", "three"];
    // The API server is about to be away, and nodes may need more than the minute that other cases give them.
    upgrade(&world, &["--set=config.common.outageGrace=2m"]).await?;
    for name in names {
        world.deploy_known(ns, name, Wanted::never()).await?;
        world.put_to_sleep(ns, name).await?;
    }
    let traffic = Traffic::start(&world, ns, world.url(ns, "one").await?).await?;
    world
        .installation()
        .cluster_command(&["restart", "kube-apiserver"])
        .await?;
    traffic.flow(true).await?;
    helm(&world, &["uninstall", RELEASE, "--wait", "--timeout", "5m"]).await?;
    let (sent, lost) = traffic.end().await?;
    none_lost(sent, lost)?;
    for name in names {
        ensure!(world.replicas(ns, name).await? == 1, "{name} was left at zero");
        world.assert_undiverted(ns, name).await?;
        let url = world.url(ns, name).await?;
        world
            .until(&format!("{name} to answer"), async || {
                Ok(requests::get(&url).await.is_ok().then_some(()))
            })
            .await?;
    }
    nothing_left(&world.client).await
}

/// In the whole cluster.
async fn nothing_left(client: &kube::Client) -> Result<()> {
    let all = ListParams::default();
    let services = Api::<Service>::all(client.clone()).list(&all).await?;
    let parked: Vec<_> = services
        .items
        .into_iter()
        .filter(|service| {
            let annotations = service.metadata.annotations.as_ref();
            annotations.is_some_and(|annotations| annotations.contains_key(PARKED_SELECTOR))
        })
        .filter_map(|service| service.metadata.name)
        .collect();
    ensure!(parked.is_empty(), "Services are still parked: {parked:?}");
    let slices = Api::<EndpointSlice>::all(client.clone()).list(&all).await?;
    let own: Vec<_> = slices
        .items
        .into_iter()
        .filter(managed)
        .filter_map(|slice| slice.metadata.name)
        .collect();
    ensure!(own.is_empty(), "slices are left: {own:?}");
    match Api::<Sleeper>::all(client.clone()).list(&all).await {
        Ok(left) if left.items.is_empty() => Ok(()),
        Ok(left) => bail!("{} Sleepers are left", left.items.len()),
        // The definition may go with the release.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}
