//! Where the time of a cold start goes, stage by stage.
//!
//! Every moment is read from a clock of its own witness, all on one machine: the client, the DLX's log, the API server's
//! audit log, and the workload, which says in its answer when its process began.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use dormouse::requests;
use dormouse_lifecycle::Phase;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{LogParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{NEVER, Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![case!(exclusive a_cold_start_is_taken_apart_and_our_part_is_small)]
}

const WAKES: usize = 11;
/// What Dormouse may add to a cold start, in the median.
const OURS: f64 = 20.0;

/// A stage: its name, whether it is Dormouse's, and how long it took in each wake, in milliseconds.
type Row = (&'static str, bool, Vec<f64>);

async fn a_cold_start_is_taken_apart_and_our_part_is_small(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("stages", "web");
    let wanted = Wanted {
        sleep_after: NEVER,
        pod_annotations: &[],
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await?;
    // The container starts at once: no delay, and no probe that the kubelet would have to get round to.
    let probeless = json!({ "spec": { "template": { "spec": {
        "containers": [{ "name": name, "readinessProbe": null }],
    } } } });
    Api::<Deployment>::namespaced(world.client.clone(), ns)
        .patch(name, &PatchParams::default(), &Patch::Strategic(probeless))
        .await?;
    let url = world.url(ns, name).await?;
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..WAKES {
        world
            .until("nothing but one ready pod", async || {
                let pods = Api::<Pod>::namespaced(world.client.clone(), ns)
                    .list(&kube::api::ListParams::default())
                    .await?;
                let ready = world
                    .deployment(ns, name)
                    .await?
                    .status
                    .and_then(|s| s.ready_replicas);
                Ok((pods.items.len() == 1 && ready == Some(1)).then_some(()))
            })
            .await?;
        world.put_to_sleep(ns, name).await?;
        world
            .until("no pod", async || {
                let pods = Api::<Pod>::namespaced(world.client.clone(), ns)
                    .list(&kube::api::ListParams::default())
                    .await?;
                Ok(pods.items.is_empty().then_some(()))
            })
            .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = Timestamp::now();
        let answer = requests::get(&url).await;
        let answered = Timestamp::now();
        ensure!(answer.is_ok(), "{}", answer.describe());
        world.until_phase(ns, name, Phase::Awake).await?;
        let stages = apart(&world, ns, asked, answered, &answer.body).await?;
        for (stage, (what, ours, took)) in stages.into_iter().enumerate() {
            match rows.get_mut(stage) {
                Some((_, _, all)) => all.push(took),
                None => rows.push((what, ours, vec![took])),
            }
        }
    }
    let mut total = 0.0;
    let mut ours = 0.0;
    println!("          a cold start, stage by stage (median and worst of {WAKES}, milliseconds)");
    for (what, is_ours, took) in &mut rows {
        took.sort_by(f64::total_cmp);
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        let worst = took.last().copied().unwrap_or_default();
        total += median;
        if *is_ours {
            ours += median;
        }
        let whose = if *is_ours { "Dormouse" } else { "" };
        println!("          {what:<52} {median:>8.1} {worst:>8.1}  {whose}");
    }
    println!("          {:<52} {total:>8.1}", "all");
    println!("          {:<52} {ours:>8.1}", "of it Dormouse");
    ensure!(ours <= OURS, "Dormouse took {ours:.1} ms of a cold start");
    Ok(())
}

/// The stages between a request and its answer.
async fn apart(
    world: &World,
    ns: &str,
    asked: Timestamp,
    answered: Timestamp,
    body: &str,
) -> Result<Vec<(&'static str, bool, f64)>> {
    let log = dlx_log(world, ns, asked).await?;
    let step = |wanted: &str| {
        log.iter()
            .find(|(_, step)| step == wanted)
            .map(|(at, _)| *at)
            .with_context(|| format!("no DLX logged {wanted:?} of this wake: {log:?}"))
    };
    let body: Value = serde_json::from_str(body).context("the workload's answer is no JSON")?;
    let started = body["started"]
        .as_i64()
        .context("the workload does not say when it began")?;
    let started = Timestamp::from_millisecond(started)?;
    let seen_ready = step("pod seen ready")?;
    let audit = world.installation();
    let scaled = audit
        .audit(ns, "deployments", "scale", asked, seen_ready)?
        .into_iter()
        .find(|event| event.verb == "update" || event.verb == "patch")
        .context("nobody wrote replicas")?;
    let bound = audit
        .audit(ns, "pods", "binding", asked, seen_ready)?
        .pop()
        .context("nothing was scheduled")?;
    let ready = audit
        .audit(ns, "pods", "status", started, seen_ready)?
        .pop()
        .context("no kubelet said that the pod is ready")?;
    let held = step("held")?;
    let moments = [
        ("client to DLX: connect, accept, route", true, held),
        (
            "wake call: the plugin and its wish",
            true,
            step("plugin answered")?,
        ),
        ("replicas: the steps of the wake, sent", true, scaled.received),
        ("replicas: written by the API server", false, scaled.done),
        ("pod created by its controllers, and scheduled", false, bound.done),
        ("sandbox and container started by the kubelet", false, started),
        ("readiness noticed and reported by the kubelet", false, ready.done),
        ("ready pod seen by the DLX", true, seen_ready),
        ("connect, forward, first byte to the client", true, answered),
    ];
    let mut before = asked;
    let mut stages = Vec::new();
    for (what, ours, at) in moments {
        stages.push((what, ours, at.duration_since(before).as_secs_f64() * 1000.0));
        before = at;
    }
    Ok(stages)
}

/// What the DLX that held the request logged of it.
async fn dlx_log(world: &World, ns: &str, since: Timestamp) -> Result<Vec<(Timestamp, String)>> {
    let pods = Api::<Pod>::namespaced(world.client.clone(), SYSTEM_NAMESPACE);
    let recent = LogParams {
        since_seconds: Some(60),
        ..LogParams::default()
    };
    let mut steps = Vec::new();
    for pod in world.pods("dormouse-dlx").await? {
        let text = pods.logs(&pod.metadata.name.unwrap_or_default(), &recent).await?;
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let fields = &line;
            let Some(step) = fields["step"].as_str().filter(|_| fields["namespace"] == ns) else {
                continue;
            };
            let at: Timestamp = line["timestamp"].as_str().unwrap_or_default().parse()?;
            if at >= since {
                steps.push((at, step.to_owned()));
            }
        }
    }
    steps.sort();
    Ok(steps)
}
