//! One to many: by metrics, beside a HorizontalPodAutoscaler, and from zero to as many as the queue needs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;

use crate::metrics::write;
use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    let anywhere = vec![
        case!(a_queue_wakes_as_many_replicas_as_it_needs),
        case!(a_rate_wakes_as_many_replicas_as_it_needs),
        case!(what_cannot_be_scaled_as_written_says_so),
    ];
    let real = [
        case!(it_scales_as_a_horizontal_pod_autoscaler_beside_it_does).within(Duration::from_secs(300)),
        case!(what_a_horizontal_pod_autoscaler_scales_is_left_to_it),
    ];
    let real = real.into_iter().map(|case| Case { real: true, ..case });
    anywhere.into_iter().chain(real).collect()
}

/// The number of replicas that a Deployment should have at most in these cases.
const MOST: i32 = 6;

async fn a_queue_wakes_as_many_replicas_as_it_needs(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("queue", "web");
    let annotations = [
        (
            "dormouse.dev/targets",
            r#"[{"source": "dlx-concurrency", "average": "10"}]"#,
        ),
        ("dormouse.dev/max-replicas", "6"),
    ];
    // Long enough that all requests are there before the first pod is.
    let slow = [("embedded.dormouse.dev/start-delay", "2s")];
    let wanted = Wanted {
        annotations: &annotations,
        pod_annotations: &slow,
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.put_to_sleep(ns, name).await?;
    let url = world.url(ns, name).await?;
    let clients: Vec<_> = (0..35)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { requests::get(&url).await })
        })
        .collect();
    world
        .until("four replicas for 35 requests", async || {
            Ok((world.replicas(ns, name).await? == 4).then_some(()))
        })
        .await?;
    for client in clients {
        let answer = client.await?;
        ensure!(answer.is_ok(), "a request was lost: {answer:?}");
    }
    world.until_phase(ns, name, Phase::Awake).await?;
    // Nothing else says how many it needs, so it keeps them, and a wake brings them back.
    world.put_to_sleep(ns, name).await?;
    ensure!(requests::get(&url).await.is_ok());
    world
        .until("four replicas again", async || {
            Ok((world.replicas(ns, name).await? == 4).then_some(()))
        })
        .await
}

/// Requests that come one after the other, so that their number alone says little while it wakes.
async fn a_rate_wakes_as_many_replicas_as_it_needs(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("rate", "web");
    let annotations = [
        (
            "dormouse.dev/targets",
            r#"[{"source": "dlx-rate", "average": "10"}]"#,
        ),
        ("dormouse.dev/max-replicas", "6"),
    ];
    // Long enough that they have come for a while before the first pod is there.
    let slow = [("embedded.dormouse.dev/start-delay", "6s")];
    let wanted = Wanted {
        annotations: &annotations,
        pod_annotations: &slow,
        ..Wanted::never()
    };
    world.deploy_known(ns, name, wanted).await?;
    world.put_to_sleep(ns, name).await?;
    let url = world.url(ns, name).await?;
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(40));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..125 {
            ticks.tick().await;
            let url = url.clone();
            clients.spawn(async move { requests::get(&url).await });
        }
        clients.join_all().await
    });
    // 25 in a second, or a few more where the first was late. 125 of them wait in the end, for which six would not be enough.
    let enough = 3..=4;
    world
        .until("three replicas for 25 requests in a second", async || {
            Ok(enough.contains(&world.replicas(ns, name).await?).then_some(()))
        })
        .await?;
    for answer in sending.await? {
        ensure!(answer.is_ok(), "a request was lost: {answer:?}");
    }
    world.until_phase(ns, name, Phase::Awake).await?;
    let replicas = world.replicas(ns, name).await?;
    ensure!(
        enough.contains(&replicas),
        "{replicas} replicas for 25 requests in a second"
    );
    Ok(())
}

async fn what_cannot_be_scaled_as_written_says_so(world: Arc<World>) -> Result<()> {
    let ns = "unscalable";
    let targets = r#"[{"source": "external", "metric": "unheard-of", "average": "10"}]"#;
    let annotations = [
        ("dormouse.dev/targets", targets),
        ("dormouse.dev/max-replicas", "6"),
        (
            "dormouse.dev/behavior",
            r#"{"scaleDown": {"stabilizationWindowSeconds": 4000}}"#,
        ),
    ];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::never()
    };
    world.deploy_known(ns, "web", wanted).await?;
    world
        .complaint(
            ns,
            "web",
            "PluginHealthy",
            "stabilizationWindowSeconds must be from 0 to 3600",
        )
        .await?;
    let annotations = [
        ("dormouse.dev/targets", targets),
        ("dormouse.dev/max-replicas", "6"),
    ];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::never()
    };
    world.deploy_known(ns, "api", wanted).await?;
    world.complaint(ns, "api", "ScalingActive", "unheard-of").await?;
    ensure!(world.replicas(ns, "api").await? == 1);
    Ok(())
}

/// A HorizontalPodAutoscaler that does with `name` what the annotations of these cases do.
fn autoscaler(ns: &str, name: &str) -> String {
    format!(
        r"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{ name: {name}, namespace: {ns} }}
spec:
  scaleTargetRef: {{ apiVersion: apps/v1, kind: Deployment, name: {name} }}
  minReplicas: 1
  maxReplicas: {MOST}
  behavior: {BEHAVIOR}
  metrics:
    - type: Object
      object:
        describedObject: {{ apiVersion: apps/v1, kind: Deployment, name: {name} }}
        metric: {{ name: load }}
        target: {{ type: AverageValue, averageValue: 10 }}
"
    )
}

const BEHAVIOR: &str = r#"{"scaleDown": {"stabilizationWindowSeconds": 30, "policies": [{"type": "Pods", "value": 3, "periodSeconds": 15}]}}"#;
const TARGETS: &str = r#"[{"metric": "load", "average": "10"}]"#;
const MOST_TEXT: &str = "6";
/// The interval of HorizontalPodAutoscalers.
const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// What the machine may add: the adapter, the watch and the write.
const SLACK: Duration = Duration::from_secs(5);

/// When a Deployment came to a number of replicas.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Duration,
    replicas: i32,
}

async fn it_scales_as_a_horizontal_pod_autoscaler_beside_it_does(world: Arc<World>) -> Result<()> {
    let ns = "beside-hpa";
    let annotations = [
        ("dormouse.dev/targets", TARGETS),
        ("dormouse.dev/max-replicas", MOST_TEXT),
        ("dormouse.dev/behavior", BEHAVIOR),
    ];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::never()
    };
    world.deploy_known(ns, "web", wanted).await?;
    world.deploy_known(ns, "twin", Wanted::never()).await?;
    for name in ["web", "twin"] {
        write(&world, ns, name, "load", "", "5").await?;
    }
    world.apply(&autoscaler(ns, "twin")).await?;
    // Both have seen a number of replicas before the load comes.
    tokio::time::sleep(2 * SYNC_PERIOD).await;
    let begun = Instant::now();
    let mut timelines = [Vec::<Change>::new(), Vec::new()];
    let mut loads = [(1, "60"), (60, "28"), (130, "5")].into_iter().peekable();
    while begun.elapsed() < Duration::from_secs(200) {
        if let Some((_, load)) = loads.next_if(|(at, _)| begun.elapsed() >= Duration::from_secs(*at)) {
            for name in ["web", "twin"] {
                write(&world, ns, name, "load", "", load).await?;
            }
        }
        for (name, timeline) in ["web", "twin"].into_iter().zip(&mut timelines) {
            let replicas = world.replicas(ns, name).await?;
            if timeline.last().is_none_or(|last| last.replicas != replicas) {
                let at = begun.elapsed();
                timeline.push(Change { at, replicas });
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let [ours, theirs] = &timelines;
    println!("          replicas     Dormouse     HorizontalPodAutoscaler");
    for (our, their) in ours.iter().zip(theirs) {
        println!(
            "          {:>8}   {:>8.1} s   {:>8.1} s ({})",
            our.replicas,
            our.at.as_secs_f64(),
            their.at.as_secs_f64(),
            their.replicas
        );
    }
    let counts = |timeline: &[Change]| timeline.iter().map(|change| change.replicas).collect::<Vec<_>>();
    ensure!(
        counts(ours) == counts(theirs),
        "they came to other numbers: {ours:?}, {theirs:?}"
    );
    ensure!(counts(ours).len() >= 5, "hardly anything happened: {ours:?}");
    for (our, their) in ours.iter().zip(theirs) {
        ensure!(
            our.at.abs_diff(their.at) <= SYNC_PERIOD + SLACK,
            "{our:?} and {their:?} are more than a period apart"
        );
    }
    let sleeper = world.sleeper(ns, "web").await?.context("no Sleeper")?;
    let scaling = sleeper
        .status
        .and_then(|status| status.scaling)
        .context("no number")?;
    ensure!(scaling.desired_replicas == Some(1), "{scaling:?}");
    Ok(())
}

async fn what_a_horizontal_pod_autoscaler_scales_is_left_to_it(world: Arc<World>) -> Result<()> {
    let ns = "foreign-hpa";
    let annotations = [
        ("dormouse.dev/targets", TARGETS),
        ("dormouse.dev/max-replicas", MOST_TEXT),
    ];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::never()
    };
    world.namespace(ns).await?;
    world.apply(&autoscaler(ns, "web")).await?;
    world.deploy_known(ns, "web", wanted).await?;
    world
        .complaint(
            ns,
            "web",
            "AbleToScale",
            "HorizontalPodAutoscaler web scales Deployment web",
        )
        .await?;
    write(&world, ns, "web", "load", "", "55").await?;
    world
        .until("the HorizontalPodAutoscaler to scale it", async || {
            Ok((world.replicas(ns, "web").await? > 1).then_some(()))
        })
        .await?;
    let sleeper = world.sleeper(ns, "web").await?.context("no Sleeper")?;
    let scaling = sleeper.status.and_then(|status| status.scaling);
    let desired = scaling.and_then(|scaling| scaling.desired_replicas);
    ensure!(desired.is_none(), "it was decided all the same: {desired:?}");
    Ok(())
}
