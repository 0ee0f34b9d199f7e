//! The story itself. Each chapter does something to the cluster, shows what happened, and checks it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dormouse_model::Phase;
use dormouse_sleepers::api::Sleeper;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use super::screen::Screen;
use crate::local::{DEMO_NAMESPACE, DEMO_WORKLOADS, Local};
use crate::requests::{self, Answer};

/// How long a chapter may wait for the cluster.
const PATIENCE: Duration = Duration::from_secs(60);

type Phases = BTreeMap<String, Sleeper>;

/// The story and what it has counted so far.
pub struct Tale<'a> {
    screen: &'a Screen,
    local: &'a Local,
    burst: usize,
    client: kube::Client,
    sleepers: watch::Receiver<Phases>,
    rows: Vec<Vec<String>>,
    sent: usize,
    lost: usize,
}

impl<'a> Tale<'a> {
    pub async fn new(screen: &'a Screen, local: &'a Local, burst: usize) -> Result<Self> {
        let client = local.client().await?;
        let sleepers = follow_sleepers(client.clone());
        Ok(Self {
            screen,
            local,
            burst,
            client,
            sleepers,
            rows: Vec::new(),
            sent: 0,
            lost: 0,
        })
    }

    pub async fn tell(&mut self) -> Result<()> {
        self.awake().await?;
        self.falling_asleep().await?;
        self.one_request().await?;
        self.out_of_the_path().await?;
        self.burst().await?;
        self.back_to_sleep().await
    }

    async fn awake(&mut self) -> Result<()> {
        self.screen.chapter(1, "Three workloads are awake");
        self.screen
            .note("Each is a Deployment with a Service. All they did to take part is one annotation:");
        self.screen.note("dormouse.dev/sleep-after: 3s");
        self.show_workloads().await?;
        let plugin = self.local.plugins().await?;
        for (name, digest) in &plugin {
            self.screen
                .event(&format!("resource-scaler: {name}.wasm, sha256 {digest}"));
        }
        let awake = self.replicas().await?.values().all(|replicas| *replicas > 0);
        self.check("three workloads awake", awake, String::new())
    }

    async fn falling_asleep(&mut self) -> Result<()> {
        self.screen.chapter(2, "Nobody calls them, so they go to sleep");
        self.screen
            .note("No metrics stack here: the DLX steps into the traffic, counts, and sees nobody.");
        let start = Instant::now();
        self.until_all(Phase::Asleep).await?;
        let at_zero = self
            .until_replicas(|replicas| replicas.values().all(|count| *count == 0))
            .await;
        self.show_workloads().await?;
        self.check("all asleep, 0 pods", at_zero, seconds(start.elapsed()))
    }

    async fn one_request(&mut self) -> Result<()> {
        self.screen.chapter(
            3,
            "A request for a sleeping workload is held, and answered by a woken pod",
        );
        let url = self.url("web").await?;
        self.screen.event(&format!("GET {url}"));
        let sent = Timestamp::now();
        let answer = requests::get(&url).await;
        self.count(std::slice::from_ref(&answer));
        self.screen.event(&format!(
            "{} after {}",
            answer.describe(),
            milliseconds(answer.took)
        ));
        let woken = self.until("web", |sleeper| {
            sleeper
                .status
                .as_ref()
                .is_some_and(|status| status.state.wake_completed.is_some_and(|at| at >= sent))
        });
        let sleeper = woken.await?;
        self.show_timings(sent, &sleeper, answer.took);
        let took = milliseconds(answer.took);
        self.check("request to a sleeping workload", answer.is_ok(), took)
    }

    async fn out_of_the_path(&mut self) -> Result<()> {
        self.screen.chapter(
            4,
            "Awake again, the workload is served directly: no proxy in the path",
        );
        self.until("web", |sleeper| sleeper.phase() == Phase::Awake)
            .await?;
        let url = self.url("web").await?;
        let answers = requests::burst(&url, 20).await;
        self.count(&answers);
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), DEMO_NAMESPACE)
            .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
            .await?;
        let managers: Vec<_> = slices
            .iter()
            .filter(|slice| {
                slice
                    .endpoints
                    .as_ref()
                    .is_some_and(|endpoints| !endpoints.is_empty())
            })
            .filter_map(|slice| {
                slice
                    .metadata
                    .labels
                    .as_ref()?
                    .get("endpointslice.kubernetes.io/managed-by")
            })
            .cloned()
            .collect();
        self.screen.event(&format!(
            "the Service's endpoints are written by: {}",
            managers.join(", ")
        ));
        let direct =
            !managers.is_empty() && !managers.iter().any(|by| by == dormouse_sleepers::api::MANAGED_BY);
        let median = median(&answers);
        let good = direct && answers.iter().all(Answer::is_ok);
        self.check(
            "20 requests, straight to the pod",
            good,
            format!("median {median}"),
        )
    }

    async fn burst(&mut self) -> Result<()> {
        self.screen.chapter(
            5,
            &format!(
                "A burst of {} concurrent requests on a sleeping workload",
                self.burst
            ),
        );
        self.until("api", |sleeper| sleeper.phase() == Phase::Asleep)
            .await?;
        let url = self.url("api").await?;
        let answers = requests::burst(&url, self.burst).await;
        self.count(&answers);
        let good = answers.iter().filter(|answer| answer.is_ok()).count();
        let mut times: Vec<_> = answers.iter().map(|answer| answer.took).collect();
        times.sort();
        let range = match (times.first(), times.last()) {
            (Some(first), Some(last)) => format!("{} to {}", milliseconds(*first), milliseconds(*last)),
            _ => String::new(),
        };
        self.screen
            .event(&format!("{good} of {} answered, after {range}", self.burst));
        for (problem, count) in problems(&answers) {
            self.screen.bad(&format!("{count} x {problem}"));
        }
        self.check(&format!("burst of {}", self.burst), good == self.burst, range)
    }

    async fn back_to_sleep(&mut self) -> Result<()> {
        self.screen
            .chapter(6, "Left alone, everything goes back to sleep");
        let start = Instant::now();
        self.until_all(Phase::Asleep).await?;
        let at_zero = self
            .until_replicas(|replicas| replicas.values().all(|count| *count == 0))
            .await;
        self.show_workloads().await?;
        self.check("all asleep again", at_zero, seconds(start.elapsed()))
    }

    pub fn summary(&self) -> Result<()> {
        self.screen.title("Summary");
        self.screen.table(&["what", "result", "time"], &self.rows);
        self.screen.line("");
        for (name, digest) in self.local.plugins_seen() {
            self.screen.line(&format!(
                "   Done by {name}.wasm (sha256 {digest}), a component in the plugins directory."
            ));
        }
        self.screen
            .line(&format!("   {} requests sent, {} lost.", self.sent, self.lost));
        if self.lost > 0 {
            bail!("{} of {} requests were lost", self.lost, self.sent);
        }
        Ok(())
    }

    /// What to try by hand, while everything stays up.
    pub async fn invitation(&self) -> Result<()> {
        self.screen.title("Try it by hand");
        for workload in DEMO_WORKLOADS {
            self.screen
                .line(&format!("   curl -i {}", self.url(workload).await?));
        }
        for line in self.local.hints() {
            self.screen.line(&format!("   {line}"));
        }
        self.screen
            .line("\n   Every change of phase is printed below. Ctrl-C ends the demo.\n");
        Ok(())
    }

    /// Prints every change until the demo is interrupted.
    pub async fn follow(&mut self) -> Result<()> {
        let mut shown = self.sleepers.borrow_and_update().clone();
        loop {
            self.sleepers
                .changed()
                .await
                .context("the watch on Sleepers ended")?;
            let now = self.sleepers.borrow_and_update().clone();
            self.show_changes(&shown, &now);
            shown = now;
        }
    }

    fn check(&mut self, what: &str, good: bool, time: String) -> Result<()> {
        let result = if good { "ok" } else { "FAILED" };
        self.rows.push(vec![what.to_owned(), result.to_owned(), time]);
        if !good {
            bail!("this was not so: {what}");
        }
        self.screen.good(what);
        Ok(())
    }

    fn count(&mut self, answers: &[Answer]) {
        self.sent += answers.len();
        self.lost += answers.iter().filter(|answer| !answer.is_ok()).count();
    }

    async fn url(&self, service: &str) -> Result<String> {
        let service = Api::<Service>::namespaced(self.client.clone(), DEMO_NAMESPACE)
            .get(service)
            .await?;
        let spec = service.spec.context("a Service without spec")?;
        let ip = spec.cluster_ip.context("a Service without cluster IP")?;
        let port = spec
            .ports
            .and_then(|ports| ports.first().map(|port| port.port))
            .unwrap_or(80);
        Ok(format!("http://{ip}:{port}/"))
    }

    async fn replicas(&self) -> Result<BTreeMap<String, i32>> {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), DEMO_NAMESPACE)
            .list(&ListParams::default())
            .await?;
        Ok(deployments
            .into_iter()
            .map(|deployment| {
                let pods = deployment.status.and_then(|status| status.replicas).unwrap_or(0);
                (deployment.metadata.name.unwrap_or_default(), pods)
            })
            .collect())
    }

    async fn until_replicas(&self, good: impl Fn(&BTreeMap<String, i32>) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.replicas().await {
                Ok(replicas) if good(&replicas) => return true,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        false
    }

    async fn show_workloads(&self) -> Result<()> {
        let replicas = self.replicas().await?;
        let sleepers = self.sleepers.borrow().clone();
        let rows: Vec<_> = DEMO_WORKLOADS
            .iter()
            .map(|name| {
                let sleeper = sleepers.values().find(|sleeper| sleeper.spec.resource == *name);
                vec![
                    (*name).to_owned(),
                    replicas.get(*name).copied().unwrap_or(0).to_string(),
                    sleeper.map_or_else(|| "-".to_owned(), |sleeper| format!("{:?}", sleeper.phase())),
                    sleeper.map(reason).unwrap_or_default(),
                ]
            })
            .collect();
        self.screen
            .table(&["WORKLOAD", "PODS", "SLEEPER", "REASON"], &rows);
        Ok(())
    }

    /// Where the time of a wake went, as far as the cluster recorded it.
    fn show_timings(&self, sent: Timestamp, sleeper: &Sleeper, took: Duration) {
        let Some(status) = &sleeper.status else { return };
        let since = |at: Option<Timestamp>| {
            at.map_or_else(
                || "-".to_owned(),
                |at| format!("{} ms", at.duration_since(sent).as_millis()),
            )
        };
        let rows = vec![
            vec!["request sent".to_owned(), "0 ms".to_owned()],
            vec![
                "wake recorded on the Sleeper".to_owned(),
                since(status.state.wake_started),
            ],
            vec!["answer complete".to_owned(), milliseconds(took)],
            // So soon after a sleep it waits until nobody can take a pod that has gone for one that is there.
            vec![
                "Service leads to its pods again".to_owned(),
                since(status.state.wake_completed),
            ],
        ];
        self.screen.table(&["STAGE", "AFTER"], &rows);
    }

    async fn until_all(&mut self, wanted: Phase) -> Result<()> {
        self.until_sleepers(&format!("all three to be {wanted:?}"), |sleepers| {
            DEMO_WORKLOADS.iter().all(|name| {
                sleepers
                    .values()
                    .any(|s| s.spec.resource == *name && s.phase() == wanted)
            })
        })
        .await?;
        Ok(())
    }

    async fn until(&mut self, resource: &str, good: impl Fn(&Sleeper) -> bool) -> Result<Sleeper> {
        let sleepers = self
            .until_sleepers(resource, |sleepers| {
                sleepers
                    .values()
                    .any(|sleeper| sleeper.spec.resource == resource && good(sleeper))
            })
            .await?;
        sleepers
            .into_values()
            .find(|sleeper| sleeper.spec.resource == resource)
            .context("the Sleeper is gone")
    }

    async fn until_sleepers(&mut self, what: &str, good: impl Fn(&Phases) -> bool) -> Result<Phases> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut shown = self.sleepers.borrow_and_update().clone();
        while !good(&shown) {
            match tokio::time::timeout_at(deadline, self.sleepers.changed()).await {
                Ok(changed) => changed.context("the watch on Sleepers ended")?,
                Err(_) => bail!(
                    "waited {} s in vain for {what}; {}",
                    PATIENCE.as_secs(),
                    listed(&shown)
                ),
            }
            let now = self.sleepers.borrow_and_update().clone();
            self.show_changes(&shown, &now);
            shown = now;
        }
        Ok(shown)
    }

    fn show_changes(&self, before: &Phases, now: &Phases) {
        for (name, sleeper) in now {
            let old = before.get(name).map(Sleeper::phase);
            let new = sleeper.phase();
            if old != Some(new) {
                let from = old.map_or_else(|| "new".to_owned(), |old| format!("{old:?}"));
                let change = format!(
                    "{:<8} {from:>9} -> {:<9}",
                    sleeper.spec.resource,
                    format!("{new:?}")
                );
                self.screen.event(&format!("{change}  {}", reason(sleeper)));
            }
        }
    }
}

fn follow_sleepers(client: kube::Client) -> watch::Receiver<Phases> {
    let (tx, rx) = watch::channel(Phases::new());
    let api = Api::<Sleeper>::namespaced(client, DEMO_NAMESPACE);
    tokio::spawn(async move {
        let mut events = watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Ok(Some(sleeper)) = events.try_next().await {
            let name = sleeper.metadata.name.clone().unwrap_or_default();
            tx.send_modify(|sleepers| {
                sleepers.insert(name, sleeper);
            });
        }
    });
    rx
}

fn reason(sleeper: &Sleeper) -> String {
    sleeper
        .status
        .as_ref()
        .map(|status| status.state.reason.clone())
        .unwrap_or_default()
}

/// What the plugin lists of the story's workloads, for whoever wonders why nothing happens.
fn listed(sleepers: &Phases) -> String {
    let missing: Vec<_> = DEMO_WORKLOADS
        .into_iter()
        .filter(|name| !sleepers.values().any(|sleeper| sleeper.spec.resource == *name))
        .collect();
    if missing.is_empty() {
        return "the plugin lists all of them, and their Sleepers say why they are as they are".to_owned();
    }
    format!(
        "of the demo's Deployments the plugin does not list {}: they carry the annotation dormouse.dev/sleep-after. \
         With another kind of workload, use --no-story and --manifests",
        missing.join(", ")
    )
}

fn problems(answers: &[Answer]) -> BTreeMap<String, usize> {
    let mut problems = BTreeMap::new();
    for answer in answers.iter().filter(|answer| !answer.is_ok()) {
        *problems.entry(answer.describe()).or_default() += 1;
    }
    problems
}

fn median(answers: &[Answer]) -> String {
    let mut times: Vec<_> = answers.iter().map(|answer| answer.took).collect();
    times.sort();
    times
        .get(times.len() / 2)
        .map(|took| milliseconds(*took))
        .unwrap_or_default()
}

fn milliseconds(took: Duration) -> String {
    let millis = took.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
