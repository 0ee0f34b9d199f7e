//! Nothing is lost under traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use dormouse::requests;
use dormouse_model::Phase;
use jiff::{SignedDuration, Timestamp};

use crate::world::{AUTOSCALER, Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        // Other cases would starve the node's proxy, which decides where connections go.
        case!(exclusive twenty_cycles_under_fifty_requests_per_second),
        case!(exclusive forced_sleeps_under_steady_traffic_lose_nothing),
        case!(exclusive a_dlx_that_is_told_to_end_answers_what_it_holds),
        case!(exclusive killing_the_autoscaler_at_random_moments_loses_nothing),
    ]
}

/// Sends 50 requests a second, each on a new connection, until told to pause or end.
pub struct Traffic {
    flowing: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<Lost>>,
}

impl Traffic {
    pub fn start(url: String) -> Self {
        let flowing = Arc::new(AtomicBool::new(true));
        let ended = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (flows, ends, counts) = (Arc::clone(&flowing), Arc::clone(&ended), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            let mut open = tokio::task::JoinSet::new();
            let mut lost = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                ticks.tick().await;
                if flows.load(Ordering::Relaxed) {
                    let url = url.clone();
                    counts.fetch_add(1, Ordering::Relaxed);
                    open.spawn(async move { requests::get(&url).await });
                }
                while let Some(Ok(answer)) = open.try_join_next() {
                    if !answer.is_ok() {
                        lost.push(Lost::now(&answer));
                    }
                }
            }
            while let Some(Ok(answer)) = open.join_next().await {
                if !answer.is_ok() {
                    lost.push(Lost::now(&answer));
                }
            }
            lost
        });
        Self {
            flowing,
            ended,
            sent,
            task,
        }
    }

    fn flow(&self, on: bool) {
        self.flowing.store(on, Ordering::Relaxed);
    }

    pub async fn end(self) -> Result<(usize, Vec<Lost>)> {
        self.ended.store(true, Ordering::Relaxed);
        let lost = self.task.await?;
        Ok((self.sent.load(Ordering::Relaxed), lost))
    }
}

async fn twenty_cycles_under_fifty_requests_per_second(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("cycles", "web");
    let quick = [("embedded.dormouse.dev/start-delay", "50ms")];
    world
        .deploy_known(
            ns,
            name,
            Wanted {
                pod_annotations: &quick,
                ..Wanted::never()
            },
        )
        .await?;
    let traffic = Traffic::start(world.url(ns, name).await?);
    let mut slept = 0;
    for cycle in 0..20_u64 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        traffic.flow(false);
        // Sleep, with the traffic coming back at another moment of it in every cycle.
        world.until_phase(ns, name, Phase::Awake).await?;
        let before = world.state(ns, name).await?.slept;
        world.request_sleep(ns, name).await?;
        if cycle % 4 == 3 {
            world.until_phase(ns, name, Phase::Draining).await?;
            tokio::time::sleep(Duration::from_millis(cycle * 20)).await;
        } else {
            world.fall_asleep(ns, name).await?;
            tokio::time::sleep(Duration::from_millis(cycle * 5)).await;
        }
        if world.state(ns, name).await?.slept > before {
            slept += 1;
        }
        traffic.flow(true);
        world.until_phase(ns, name, Phase::Awake).await?;
    }
    let (sent, lost) = traffic.end().await?;
    none_lost(sent, lost)?;
    ensure!(slept >= 15, "only {slept} of 20 cycles reached Asleep");
    println!("          {sent} requests in 20 cycles ({slept} to zero), 0 lost");
    Ok(())
}

async fn forced_sleeps_under_steady_traffic_lose_nothing(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("forced", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    let traffic = Traffic::start(world.url(ns, name).await?);
    for _ in 0..10 {
        world.until_phase(ns, name, Phase::Awake).await?;
        let epoch = world.state(ns, name).await?.epoch;
        world.request_sleep(ns, name).await?;
        world
            .until("a wake", async || {
                Ok((world.state(ns, name).await?.epoch > epoch).then_some(()))
            })
            .await?;
    }
    world.until_phase(ns, name, Phase::Awake).await?;
    let (sent, lost) = traffic.end().await?;
    none_lost(sent, lost)?;
    world.assert_undiverted(ns, name).await
}

async fn a_dlx_that_is_told_to_end_answers_what_it_holds(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("drain", "web");
    let slow = [("embedded.dormouse.dev/start-delay", "2s")];
    world
        .deploy_known(
            ns,
            name,
            Wanted {
                pod_annotations: &slow,
                ..Wanted::never()
            },
        )
        .await?;
    world.put_to_sleep(ns, name).await?;
    let url = world.url(ns, name).await?;
    let held = tokio::spawn(async move { requests::burst(&url, 50).await });
    world.until_phase(ns, name, Phase::Waking).await?;
    // A rolling restart: each replica gets SIGTERM while it holds requests.
    for pod in world.pods("dormouse-dlx").await? {
        let pod = pod.metadata.name.unwrap_or_default();
        kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(world.client.clone(), SYSTEM_NAMESPACE)
            .delete(&pod, &kube::api::DeleteParams::default())
            .await?;
    }
    let answers = held.await?;
    let lost: Vec<_> = answers
        .iter()
        .filter(|answer| !answer.is_ok())
        .map(|answer| answer.describe())
        .collect();
    world.run_replicas("dormouse-dlx", 2).await?;
    ensure!(
        lost.is_empty(),
        "{} of 50 lost, such as {:?}",
        lost.len(),
        lost.first()
    );
    Ok(())
}

async fn killing_the_autoscaler_at_random_moments_loses_nothing(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("killed", "web");
    world
        .deploy_known(
            ns,
            name,
            Wanted {
                sleep_after: "1s",
                ..Wanted::default()
            },
        )
        .await?;
    let url = world.url(ns, name).await?;
    let autoscalers = world.replicas(SYSTEM_NAMESPACE, AUTOSCALER).await?;
    let mut lost = Vec::new();
    for moment in 0..8_u64 {
        tokio::time::sleep(Duration::from_millis(400 + moment * 350)).await;
        for pod in world.pods(AUTOSCALER).await? {
            world.kill(&pod.metadata.name.unwrap_or_default()).await?;
        }
        let answer = requests::get(&url).await;
        if !answer.is_ok() {
            lost.push(answer.describe());
        }
    }
    world.run_replicas(AUTOSCALER, autoscalers).await?;
    ensure!(lost.is_empty(), "{lost:?}");
    world.until_phase(ns, name, Phase::Asleep).await?;
    let answer = requests::get(&url).await;
    ensure!(answer.is_ok(), "{}", answer.describe());
    Ok(())
}

/// A request that was not answered.
#[derive(Debug)]
pub struct Lost {
    at: Timestamp,
    what: String,
}

impl Lost {
    pub fn now(answer: &requests::Answer) -> Self {
        Self {
            at: Timestamp::now(),
            what: format!("{} after {:?}", answer.describe(), answer.took),
        }
    }

    /// From a line that begins with the time, as the client pod writes it.
    pub fn told(line: &str) -> Result<Self> {
        let (at, what) = line.split_once(": ").context("no time and reason")?;
        Ok(Self {
            at: at.parse()?,
            what: format!("from a pod: {what}"),
        })
    }
}

/// Losses that are no further apart than this are told as one.
const APART: SignedDuration = SignedDuration::from_millis(500);

/// Fails if any request was lost, and says when, and how the first of each time was.
pub fn none_lost(sent: impl std::fmt::Display, mut lost: Vec<Lost>) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    lost.sort_by_key(|one| one.at);
    let times = lost.chunk_by(|one, next| next.at.duration_since(one.at) <= APART);
    let told: Vec<_> = times
        .map(|time| match time {
            [one] => format!("{}: {}", one.at, one.what),
            [first, .., last] => format!("{} from {} to {}: {}", time.len(), first.at, last.at, first.what),
            [] => String::new(),
        })
        .collect();
    bail!("{} of {sent} lost: {}", lost.len(), told.join("; "))
}
