//! A hundred sleep and wake cycles under new connections every five milliseconds, with everything restarting in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use dormouse::requests;
use dormouse_model::Phase;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

use super::node;
use crate::traffic::{Lost, none_lost};
use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(exclusive a_hundred_cycles_with_a_new_connection_every_five_milliseconds).within(HUNDRED),
        case!(exclusive restarts_of_everything_under_traffic_lose_nothing).within(RESTARTS),
    ]
}

const EVERY: Duration = Duration::from_millis(5);
/// Requests that are open at once, at most: those beyond wait for a place.
const OPEN: usize = 2_000;

/// A cycle takes six seconds or so: pods have to end, and start.
const HUNDRED: Duration = Duration::from_secs(30 * 60);

/// The node may need two minutes of it.
const RESTARTS: Duration = Duration::from_secs(6 * 60);

/// How many cycles, where a hundred take too long.
const CYCLES: &str = "DORMOUSE_E2E_CYCLES";

fn cycles() -> Result<u64> {
    match std::env::var(CYCLES) {
        Err(_) => Ok(100),
        Ok(text) => text
            .parse()
            .ok()
            .filter(|cycles| *cycles > 0)
            .with_context(|| format!("{CYCLES} is {text:?}, which is no number above 0")),
    }
}

/// New connections from the node, and from a pod, both through the ClusterIP.
pub struct Traffic {
    flowing: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    node: tokio::task::JoinHandle<Vec<Lost>>,
    /// The pod's control port.
    pod: String,
}

impl Traffic {
    pub async fn start(world: &World, ns: &str, url: String) -> Result<Self> {
        let pod = client_pod(world, ns, &url).await?;
        let flowing = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (flows, ends, counts) = (Arc::clone(&flowing), Arc::clone(&ended), Arc::clone(&sent));
        let node = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut open = tokio::task::JoinSet::new();
            let mut lost = Vec::new();
            let mut note = |answer: requests::Answer| {
                if !answer.is_ok() {
                    lost.push(Lost::now(&answer));
                }
            };
            while !ends.load(Ordering::Relaxed) {
                ticks.tick().await;
                if flows.load(Ordering::Relaxed) && open.len() < OPEN {
                    let url = url.clone();
                    counts.fetch_add(1, Ordering::Relaxed);
                    open.spawn(async move { requests::get(&url).await });
                }
                while let Some(Ok(answer)) = open.try_join_next() {
                    note(answer);
                }
            }
            while let Some(Ok(answer)) = open.join_next().await {
                note(answer);
            }
            lost
        });
        Ok(Self {
            flowing,
            ended,
            sent,
            node,
            pod,
        })
    }

    pub async fn flow(&self, on: bool) -> Result<()> {
        self.flowing.store(on, Ordering::Relaxed);
        let path = if on { "resume" } else { "pause" };
        let answer = requests::get(&format!("{}/{path}", self.pod)).await;
        ensure!(answer.is_ok(), "the client pod: {}", answer.describe());
        Ok(())
    }

    /// Requests of both, and those that were not answered.
    pub async fn end(self) -> Result<(u64, Vec<Lost>)> {
        self.flow(false).await?;
        self.ended.store(true, Ordering::Relaxed);
        let mut lost = self.node.await?;
        let summary = requests::fetch(&format!("{}/end", self.pod)).await?;
        let summary: Value = serde_json::from_str(&summary).context("the client pod's summary")?;
        let failed = summary["failed"].as_u64().context("no count of failures")?;
        let lost_here = u64::try_from(lost.len())?;
        for failure in summary["failures"].as_array().into_iter().flatten() {
            let line = failure.as_str().context("a failure is no text")?;
            lost.push(Lost::told(line).with_context(|| format!("the client pod's failure {line:?}"))?);
        }
        ensure!(
            failed == 0 || !lost.is_empty(),
            "the pod counts {failed} failures and names none"
        );
        let sent = summary["sent"].as_u64().context("no count of requests")?;
        let here = u64::try_from(self.sent.load(Ordering::Relaxed))?;
        println!(
            "          {here} requests from the node, {sent} from a pod (median {} ms, worst {} ms), {} lost",
            summary["p50_ms"],
            summary["max_ms"],
            lost_here + failed
        );
        Ok((here + sent, lost))
    }
}

/// A pod that sends requests as long as it is told to.
pub(super) async fn client_pod(world: &World, ns: &str, url: &str) -> Result<String> {
    let name = "client";
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": ns },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": name,
                "image": "dormouse.test/workload:1",
                "args": ["load", "--url", url, "--every", "5ms", "--control", "0.0.0.0:8081"],
            }],
        },
    });
    world.apply(&pod.to_string()).await?;
    let pods = Api::<Pod>::namespaced(world.client.clone(), ns);
    let address = world
        .until("the client pod", async || {
            let status = pods.get(name).await?.status.unwrap_or_default();
            Ok(status
                .pod_ip
                .filter(|_| status.phase.as_deref() == Some("Running")))
        })
        .await?;
    let control = format!("http://{address}:8081");
    world
        .until("the client pod's control port", async || {
            Ok(requests::get(&format!("{control}/pause"))
                .await
                .is_ok()
                .then_some(()))
        })
        .await?;
    Ok(control)
}

async fn workload(world: &World, ns: &str, name: &str) -> Result<()> {
    let wanted = Wanted {
        pod_annotations: &[],
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted).await
}

async fn a_hundred_cycles_with_a_new_connection_every_five_milliseconds(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("hundred", "web");
    workload(&world, ns, name).await?;
    let traffic = Traffic::start(&world, ns, world.url(ns, name).await?).await?;
    let cycles = cycles()?;
    let mut to_zero = 0;
    for cycle in 0..cycles {
        world.until_phase(ns, name, Phase::Awake).await?;
        let before = world.state(ns, name).await?;
        world.request_sleep(ns, name).await?;
        // In every fifth cycle the traffic never stops, and turns the sleep round wherever it is noticed.
        if cycle % 5 != 4 {
            traffic.flow(false).await?;
            world.fall_asleep(ns, name).await?;
            // The pods of before go away while the traffic comes back, at another moment in every cycle.
            tokio::time::sleep(Duration::from_millis(cycle * 700 / cycles)).await;
        }
        traffic.flow(true).await?;
        world
            .until("a wake", async || {
                let state = world.state(ns, name).await?;
                Ok((state.epoch > before.epoch && state.phase == Phase::Awake).then_some(()))
            })
            .await?;
        if world.state(ns, name).await?.slept > before.slept {
            to_zero += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if cycle % 10 == 9 {
            println!("          {} of {cycles} cycles, {to_zero} to zero", cycle + 1);
        }
    }
    let (sent, lost) = traffic.end().await?;
    println!("          {to_zero} of {cycles} cycles reached zero");
    none_lost(sent, lost)?;
    ensure!(
        to_zero * 4 >= cycles * 3,
        "only {to_zero} of {cycles} cycles reached zero"
    );
    world.assert_undiverted(ns, name).await
}

/// Restarts a Deployment as `kubectl rollout restart` does, and waits until it is through.
async fn rollout_restart(world: &World, part: &str) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(world.client.clone(), SYSTEM_NAMESPACE);
    deployments.restart(part).await?;
    world
        .until(&format!("the restart of {part}"), async || {
            let deployment = deployments.get(part).await?;
            let generation = deployment.metadata.generation;
            let wanted = deployment.spec.replicas;
            let status = deployment.status.unwrap_or_default();
            let through = status.observed_generation == generation
                && status.updated_replicas == wanted
                && status.ready_replicas == wanted
                && status.replicas == wanted;
            Ok(through.then_some(()))
        })
        .await
}

async fn restarts_of_everything_under_traffic_lose_nothing(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("restarts", "web");
    workload(&world, ns, name).await?;
    let traffic = Traffic::start(&world, ns, world.url(ns, name).await?).await?;
    let cycle = async |world: &World| -> Result<()> {
        world.until_phase(ns, name, Phase::Awake).await?;
        let epoch = world.state(ns, name).await?.epoch;
        world.request_sleep(ns, name).await?;
        traffic.flow(false).await?;
        tokio::time::sleep(Duration::from_millis(900)).await;
        traffic.flow(true).await?;
        world
            .until("a wake", async || {
                Ok((world.state(ns, name).await?.epoch > epoch).then_some(()))
            })
            .await?;
        Ok(())
    };
    for what in ["dormouse-dlx", "dormouse-autoscaler", "kube-apiserver"] {
        let restart = async {
            if what == "kube-apiserver" {
                world.installation().cluster_command(&["restart", what]).await
            } else {
                rollout_restart(&world, what).await
            }
        };
        let cycles = async {
            for _ in 0..3 {
                // While the API server is away, the case cannot ask it either.
                let mut last = Ok(());
                for _ in 0..10 {
                    last = cycle(&world).await;
                    if last.is_ok() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                last?;
            }
            anyhow::Ok(())
        };
        let (restarted, cycled) = tokio::join!(restart, cycles);
        restarted.with_context(|| format!("restarting {what}"))?;
        cycled.with_context(|| format!("during the restart of {what}"))?;
    }
    node::until_it_follows(&world).await?;
    world.until_phase(ns, name, Phase::Awake).await?;
    let (sent, lost) = traffic.end().await?;
    none_lost(sent, lost)
}
