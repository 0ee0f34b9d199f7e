//! Every kind of Service either works or gets a condition that says why not.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use dormouse_sleepers::{DesiredStateError, Sleeper, SleeperKey};
use kube::api::Api;
use serde_json::json;

use crate::world::{PLUGIN, Wanted, World, manifests};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(a_service_with_external_traffic_policy_local_wakes_through_its_node_port),
        case!(every_port_of_a_service_wakes_and_leads_to_its_own_target_port),
        case!(a_stateful_set_sleeps_and_wakes),
        case!(services_that_cannot_be_diverted_say_why_on_the_sleeper),
        case!(two_workloads_behind_one_service_are_left_alone_and_told),
    ]
}

fn never(annotations: &'static [(&'static str, &'static str)]) -> Wanted<'static> {
    Wanted {
        annotations,
        ..Wanted::never()
    }
}

async fn a_service_with_external_traffic_policy_local_wakes_through_its_node_port(
    world: Arc<World>,
) -> Result<()> {
    let (ns, name) = ("etp-local", "web");
    world.deploy_known(ns, name, never(&[])).await?;
    world
        .edit_service(
            ns,
            name,
            json!({ "spec": { "type": "NodePort", "externalTrafficPolicy": "Local" } }),
        )
        .await?;
    let node_port = world
        .service(ns, name)
        .await?
        .spec
        .and_then(|spec| spec.ports?.first()?.node_port)
        .context("no node port")?;
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(world.client.clone())
        .list(&kube::api::ListParams::default())
        .await?;
    let address = nodes
        .items
        .into_iter()
        .find_map(|node| {
            let addresses = node.status?.addresses?;
            let internal = addresses
                .into_iter()
                .find(|address| address.type_ == "InternalIP");
            internal.map(|address| address.address)
        })
        .context("no node has an InternalIP")?;
    let url = format!("http://{address}:{node_port}/");
    world
        .until("the node port to answer", async || {
            Ok(requests::get(&url).await.is_ok().then_some(()))
        })
        .await?;
    world.put_to_sleep(ns, name).await?;
    let nameless = world
        .slices(ns, name)
        .await?
        .into_iter()
        .filter(crate::world::managed)
        .flat_map(|slice| slice.endpoints.unwrap_or_default())
        .filter(|endpoint| endpoint.node_name.is_none())
        .count();
    ensure!(nameless == 0, "{nameless} DLX addresses without their node");
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    world.until_phase(ns, name, Phase::Awake).await?;
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "awake again: {}", answer.describe());
    Ok(())
}

async fn every_port_of_a_service_wakes_and_leads_to_its_own_target_port(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("multi-port", "web");
    world.deploy_known(ns, name, never(&[])).await?;
    // By name and by number; both lead to the container's only port.
    let ports = json!([
        { "name": "http", "port": 80, "targetPort": "http" },
        { "name": "alternative", "port": 8081, "targetPort": 8080 },
    ]);
    world
        .edit_service(ns, name, json!({ "spec": { "ports": ports } }))
        .await?;
    let ip = world.cluster_ip(ns, name).await?;
    for port in [80, 8081] {
        world.put_to_sleep(ns, name).await?;
        let ports = world.state(ns, name).await?.ports.len();
        ensure!(ports == 2, "{ports} DLX ports for two Service ports");
        let answer = requests::get(&format!("http://{ip}:{port}/")).await;
        ensure!(answer.is_ok(), "port {port}: {}", answer.describe());
        world.until_phase(ns, name, Phase::Awake).await?;
    }
    Ok(())
}

async fn a_stateful_set_sleeps_and_wakes(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("stateful", "db");
    world.namespace(ns).await?;
    let annotations = [("dormouse.dev/sleep-after", "1s")];
    let yaml = manifests(ns, name, &annotations, &[])
        .join("\n---\n")
        .replace("\"kind\":\"Deployment\"", "\"kind\":\"StatefulSet\"")
        .replace("\"replicas\":1,", "\"replicas\":2,\"serviceName\":\"db\",");
    world.apply(&yaml).await?;
    let sets = Api::<k8s_openapi::api::apps::v1::StatefulSet>::namespaced(world.client.clone(), ns);
    let replicas = async || {
        let set = sets.get(name).await?;
        let ready = set.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        anyhow::Ok((set.spec.replicas.unwrap_or(1), ready))
    };
    world
        .until("two ready replicas", async || {
            Ok((replicas().await? == (2, 2)).then_some(()))
        })
        .await?;
    let key = SleeperKey::of_plugin(PLUGIN, ns, "statefulset.db").object_name();
    let sleepers = Api::<Sleeper>::namespaced(world.client.clone(), ns);
    world
        .until("it to be asleep", async || {
            let sleeper = sleepers.get_opt(&key).await?;
            let phase = sleeper.map(|sleeper| sleeper.status.unwrap_or_default().state.phase);
            Ok((phase == Some(Phase::Asleep)).then_some(()))
        })
        .await?;
    world
        .until("no replicas", async || {
            Ok((replicas().await? == (0, 0)).then_some(()))
        })
        .await?;
    let answer = requests::get(&world.url(ns, name).await?).await;
    ensure!(
        answer.is_ok() && answer.body.contains("db-0"),
        "{}",
        answer.describe()
    );
    ensure!(replicas().await?.0 == 2, "restored to {:?}", replicas().await?);
    Ok(())
}

async fn services_that_cannot_be_diverted_say_why_on_the_sleeper(world: Arc<World>) -> Result<()> {
    let ns = "undivertible";
    world.namespace(ns).await?;
    let cases = [
        (
            "headless",
            json!({ "clusterIP": "None", "selector": { "app": "headless" }, "ports": [{ "port": 80 }] }),
            "headless",
        ),
        (
            "external",
            json!({ "type": "ExternalName", "externalName": "example.invalid" }),
            "ExternalName",
        ),
        ("selectorless", json!({ "ports": [{ "port": 80 }] }), "selector"),
        (
            "nodelocal",
            json!({ "selector": { "app": "nodelocal" }, "ports": [{ "port": 80 }], "internalTrafficPolicy": "Local" }),
            "internalTrafficPolicy",
        ),
        (
            "datagrams",
            json!({ "selector": { "app": "datagrams" }, "ports": [{ "port": 53, "protocol": "UDP" }] }),
            "not TCP",
        ),
    ];
    for (name, spec, _) in &cases {
        let annotations = [
            ("dormouse.dev/sleep-after", "1s"),
            ("dormouse.dev/services", *name),
        ];
        let manifests = manifests(ns, name, &annotations, &[]);
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": ns },
            "spec": spec,
        });
        world.apply(&service.to_string()).await?;
        world.apply(manifests.last().context("no Deployment")?).await?;
    }
    for (name, _, why) in &cases {
        let message = world.complaint(ns, name, "Divertible", "").await?;
        ensure!(message.contains(why), "{name}: {message}");
        ensure!(world.replicas(ns, name).await? == 1, "{name} was scaled");
    }
    Ok(())
}

async fn two_workloads_behind_one_service_are_left_alone_and_told(world: Arc<World>) -> Result<()> {
    let ns = "dual";
    world.namespace(ns).await?;
    for name in ["blue", "green"] {
        let annotations = [
            ("dormouse.dev/sleep-after", "1s"),
            ("dormouse.dev/services", "front"),
        ];
        let manifests = manifests(ns, name, &annotations, &[]);
        world.apply(manifests.last().context("no Deployment")?).await?;
    }
    let front = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "front", "namespace": ns },
        "spec": { "selector": { "tier": "suite" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    });
    world.apply(&front.to_string()).await?;
    for (name, other) in [("blue", "green"), ("green", "blue")] {
        let message = world.complaint(ns, name, "Divertible", "").await?;
        ensure!(
            message.contains("Service front") && message.contains(other),
            "{name}: {message}"
        );
    }
    world.until_a_witness_sleeps(ns).await?;
    for name in ["blue", "green"] {
        ensure!(
            world.replicas(ns, name).await? == 1,
            "{name} was put to sleep all the same"
        );
    }
    let desired = world.request_sleep(ns, "blue").await;
    ensure!(
        matches!(desired, Err(DesiredStateError::Unsupported(_))),
        "{desired:?}"
    );
    Ok(())
}
