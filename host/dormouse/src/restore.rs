//! `dormouse restore`: everything awake, every Service as it was, nothing of Dormouse left. Runs before Dormouse is taken out.
//!
//! It drives the protocol itself, so it needs neither the autoscaler nor the DLX. While it runs, the autoscaler must not put
//! anything to sleep or declare anything anew. It takes the autoscaler's Lease for that ([`lease`]): the Lease already says who
//! may do these things, losing it stops a leader at once, nobody has to be scaled down or asked, and when the restoring fails the
//! Lease is given back and everything goes on as before. (Scaling the Deployment to zero would leave a half-removed
//! installation behind, and a `helm upgrade` that argues about who owns its replicas.)

mod lease;
mod leftovers;
mod report;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use dormouse_model::{ObjectRef, Phase};
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{Cluster, Config, Role, Sleeper, SleeperKey};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::lease::Seized;
use self::leftovers::Leftovers;
use self::report::{counts, describe};
use crate::config::ranges::check_flag;
use crate::config::{AutoscalerOptions, Common, DlxOptions, Namespaced, Settings, Span};
use crate::host::{cluster_config, identity};
use crate::output::tell;
use crate::{process, telemetry};

/// From an interrupt to the end: what is left is listed, and the Lease given back.
const ENDING: Duration = Duration::from_secs(25);

/// Longest that all of it may take. Below Helm's own five minutes for a hook, so that the report is still written.
const DEADLINE: Duration = Duration::from_secs(270);
/// How long a workload may take to become ready before its Service goes back all the same.
const WAKE_LIMIT: Duration = Duration::from_secs(120);
/// A leader that has lost its Lease notices within its renew deadline, ten seconds at the very latest; until then it may
/// still declare a Sleeper.
const SETTLE: Duration = Duration::from_secs(11);
/// Between two looks at what is left.
const TICK: Duration = Duration::from_millis(500);
/// Between two lines of progress while nothing changes.
const QUIET: Duration = Duration::from_secs(10);
/// Sleepers that are spoken to at once.
const CONCURRENCY: usize = 16;
/// Longest single request to the API server.
const REQUEST: Duration = Duration::from_secs(5);
/// Why things wake.
const REASON: &str = "Dormouse is being taken out";

/// Options of `dormouse restore`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// The autoscaler's Lease, as namespace/name. It is taken, so that nothing goes to sleep again
    #[arg(long, env = "DORMOUSE_LEADER_LEASE")]
    pub leader_lease: Option<Namespaced>,
    /// How long all of it may take [default: 4m30s]
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<Span>,
    /// How long a workload may take to become ready before its Service goes back all the same [default: 2m]
    #[arg(long, value_name = "DURATION")]
    pub wake_limit: Option<Span>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    deadline: Duration,
    wake_limit: Duration,
    settle: Duration,
}

/// Restores everything; an error names what is left.
pub async fn run(
    config: Option<&Path>,
    common: Common,
    options: Options,
    shutdown: CancellationToken,
) -> Result<()> {
    check_flag("deadline", options.deadline)?;
    check_flag("wakeLimit", options.wake_limit)?;
    let settings = Settings::read(
        config,
        &common,
        &AutoscalerOptions::default(),
        &DlxOptions::default(),
    )?;
    let (file, common) = (settings.file, settings.common);
    telemetry::start(
        common.log.as_deref().or(Some("warn")),
        common.log_format.unwrap_or_default(),
    )?;
    process::may_take(ENDING);
    let client = dormouse_kubernetes::client(common.kubeconfig_path.as_deref()).await?;
    let patience = Patience {
        deadline: options.deadline.map_or(DEADLINE, |span| span.0),
        wake_limit: options.wake_limit.map_or(WAKE_LIMIT, |span| span.0),
        settle: SETTLE,
    };
    let lease = options.leader_lease.or(file.autoscaler.leader_lease);
    let cluster = cluster_config(&common, false);
    restore(client, cluster, lease.as_ref(), patience, &shutdown).await
}

async fn restore(
    client: Client,
    config: Config,
    lease: Option<&Namespaced>,
    patience: Patience,
    shutdown: &CancellationToken,
) -> Result<()> {
    let begun = Instant::now();
    let deadline = begun + patience.deadline;
    let (seized, lease_trouble) = match lease {
        None => {
            tell!("no --leader-lease: make sure that no autoscaler runs, or it puts things to sleep again");
            (None, None)
        }
        Some(lease) => {
            match Seized::take(client.clone(), lease, &identity(), patience.deadline, deadline).await {
                Ok(seized) => {
                    tell!("the Lease {lease} is taken: nothing goes to sleep from now on");
                    (Some(seized), None)
                }
                Err(error) => {
                    // Waking what sleeps is still right. What an autoscaler puts to sleep again shows at the end.
                    tell!("the Lease {lease} could not be taken, going on without: {error:#}");
                    (None, Some(error))
                }
            }
        }
    };
    let settled = match &seized {
        Some(seized) if seized.had_leader() => begun + patience.settle,
        _ => begun,
    };
    let mut work = Work {
        leftovers: Leftovers::new(client.clone(), config.scope.clone()),
        sleepers: sleepers(&client, &config),
        lease: seized.as_ref().and_then(|seized| seized.before.clone()),
        wake_limit: patience.wake_limit,
        waking: HashMap::new(),
        workloads: HashSet::new(),
        trouble: BTreeMap::new(),
        told: None,
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout_at(deadline, work.until_nothing_is_left(&client, &config, settled)) => {
            outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("not finished within {:?}", patience.deadline)))
        }
        () = shutdown.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(summary) => {
            if let Some(seized) = seized {
                // Until the autoscaler itself is gone.
                seized.keep().await;
            }
            tell!(
                "{summary} in {} s; nothing of Dormouse is left",
                begun.elapsed().as_secs()
            );
            Ok(())
        }
        Err(error) => {
            let left = work.describe_left().await;
            if let Some(seized) = seized {
                seized.give_back().await;
            }
            let lease = lease_trouble.map(|trouble| format!("; the Lease could not be taken: {trouble:#}"));
            bail!(
                "not everything is restored: {error:#}{}\n{left}",
                lease.unwrap_or_default()
            )
        }
    }
}

/// The Sleepers that are looked after.
fn sleepers(client: &Client, config: &Config) -> Api<Sleeper> {
    match config.scope.namespace() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

struct Work {
    leftovers: Leftovers,
    sleepers: Api<Sleeper>,
    /// The autoscaler's Lease as it left it.
    lease: Option<Lease>,
    wake_limit: Duration,
    /// Since when a Sleeper, by uid, is on its way back.
    waking: HashMap<String, Instant>,
    /// Workloads of Sleepers that were seen, by namespace.
    workloads: HashSet<(String, ObjectRef)>,
    /// What went wrong last, by namespace and name of the Sleeper.
    trouble: BTreeMap<(String, String), String>,
    /// The last line of progress.
    told: Option<(String, Instant)>,
}

impl Work {
    async fn until_nothing_is_left(
        &mut self,
        client: &Client,
        config: &Config,
        settled: Instant,
    ) -> Result<String> {
        let mut seen = HashSet::new();
        if self.list_patiently().await.is_some() {
            let cluster = connect(client, config).await;
            if let Some(lease) = &self.lease {
                cluster.outages().hear_from(lease);
            }
            let stop = CancellationToken::new();
            let _stop = stop.clone().drop_guard();
            let controller = cluster.controller(Role::Leader).run(stop);
            let _controller = AbortOnDropHandle::new(tokio::spawn(controller));
            loop {
                let left = self.list_patiently().await.unwrap_or_default();
                seen.extend(left.iter().filter_map(ResourceExt::uid));
                if left.is_empty() && Instant::now() >= settled {
                    break;
                }
                self.advance(&cluster, &left).await;
                self.tell(&left, settled, caught_up(&cluster));
                tokio::time::sleep(TICK).await;
            }
            cluster.shutdown();
        } else {
            tell!("the cluster knows no Sleepers; looking for what may have been left behind");
        }
        let orphans = self.sweep().await?;
        self.leftovers.forget_epochs(&self.workloads).await;
        Ok(format!(
            "{} Sleepers and {orphans} Services without one are restored",
            seen.len()
        ))
    }

    /// What shows Dormouse's hand although no Sleeper is left: Sleepers that were deleted by force leave that behind.
    async fn sweep(&mut self) -> Result<usize> {
        let mut restored = 0;
        loop {
            match self.leftovers.sweep().await {
                Ok((_, false)) => return Ok(restored),
                Ok((services, true)) => restored += services,
                Err(error) => tell!("trying again: {error:#}"),
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// All Sleepers; `None` when there is no such kind. Tries again on any error: the deadline is outside.
    async fn list_patiently(&mut self) -> Option<Vec<Sleeper>> {
        loop {
            let error = match list(&self.sleepers).await {
                Ok(listed) => return listed,
                Err(error) => error,
            };
            tell!("trying again: {error:#}");
            tokio::time::sleep(TICK * 2).await;
        }
    }

    /// Moves every Sleeper one step further: asleep ones wake, awake ones go. One that refuses delays nobody.
    async fn advance(&mut self, cluster: &Cluster, left: &[Sleeper]) {
        let now = Instant::now();
        let mut tasks = Vec::new();
        for sleeper in left {
            let namespace = sleeper.namespace().unwrap_or_default();
            let owned = sleeper.spec.workloads.iter();
            self.workloads
                .extend(owned.map(|workload| (namespace.clone(), workload.clone())));
            let since = *self
                .waking
                .entry(sleeper.uid().unwrap_or_default())
                .or_insert(now);
            let wanted = wanted(sleeper, now.duration_since(since) >= self.wake_limit);
            tasks.push((namespace, sleeper.name_any(), SleeperKey::of(sleeper), wanted));
        }
        let ended: Vec<_> = futures::stream::iter(tasks)
            .map(|(namespace, name, key, wanted)| async move {
                let outcome = match wanted {
                    Wanted::Nothing => Ok(()),
                    Wanted::Wake => match cluster.desired().request_wake(&key, REASON).await {
                        Ok(_) | Err(dormouse_sleepers::DesiredStateError::Unknown(_)) => Ok(()),
                        Err(error) => Err(error.to_string()),
                    },
                    Wanted::Go => {
                        let retired = cluster.declarations().retire(&key).await;
                        retired.map_err(|error| error.to_string())
                    }
                };
                ((namespace, name), outcome)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (name, outcome) in ended {
            match outcome {
                Ok(()) => self.trouble.remove(&name),
                Err(error) => self.trouble.insert(name, error),
            };
        }
    }

    /// A line when something changed, or nothing did for a while.
    fn tell(&mut self, left: &[Sleeper], settled: Instant, caught_up: Option<Timestamp>) {
        let mut line = match left.len() {
            0 => "none left; waiting until the leader of before has noticed".to_owned(),
            some => format!("{some} left: {}", counts(left)),
        };
        let phase = |sleeper: &Sleeper| sleeper.status.as_ref().map(|status| status.state.phase);
        let held = left.iter().any(|sleeper| phase(sleeper) == Some(Phase::Ready));
        if let Some(until) = caught_up.filter(|_| held) {
            line += &format!(
                "; the API server was away, so the DLX stays in their Services until nodes have caught up, at {until:.0}"
            );
        }
        let now = Instant::now();
        let news = self
            .told
            .as_ref()
            .is_none_or(|(told, at)| *told != line || now.duration_since(*at) >= QUIET);
        if news && (!left.is_empty() || now < settled) {
            tell!("{line}");
            self.told = Some((line, now));
        }
    }

    /// What is left, and how to undo it by hand.
    async fn describe_left(&mut self) -> String {
        let sleepers = list(&self.sleepers).await;
        let services = self.leftovers.find().await;
        describe(sleepers, services, &self.trouble)
    }
}

/// When nodes have caught up with the last outage of the API server, if that is still to come.
fn caught_up(cluster: &Cluster) -> Option<Timestamp> {
    let until = cluster.config().timings.caught_up(cluster.outages().last()?);
    (until > Timestamp::now()).then_some(until)
}

/// Connects as often as it takes: the deadline is outside.
async fn connect(client: &Client, config: &Config) -> Cluster {
    loop {
        match Cluster::connect(client.clone(), config.clone()).await {
            Ok(cluster) => return cluster,
            Err(error) => tell!("trying again: {error}"),
        }
        tokio::time::sleep(TICK * 2).await;
    }
}

/// All Sleepers; `None` when there is no such kind.
async fn list(api: &Api<Sleeper>) -> Result<Option<Vec<Sleeper>>> {
    match tokio::time::timeout(REQUEST, api.list(&ListParams::default())).await {
        Ok(Ok(listed)) => Ok(Some(listed.items)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(error)) => Err(error).context("Sleepers cannot be listed"),
        Err(_) => bail!("listing Sleepers was not answered within {REQUEST:?}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It is on its way.
    Nothing,
    /// Wake it.
    Wake,
    /// Delete it: its finalizer keeps it until everything is as it was.
    Go,
}

/// A Sleeper is woken first and deleted once it is awake, because a deleted one does not wait long for pods that are slow.
/// One that has nothing to scale belongs to a platform that scales by itself: there is nothing to restore.
fn wanted(sleeper: &Sleeper, overdue: bool) -> Wanted {
    if sleeper.metadata.deletion_timestamp.is_some() {
        return Wanted::Nothing;
    }
    let state = sleeper.status.clone().unwrap_or_default().state;
    let simple = sleeper.spec.scales_itself();
    match (state.desired, state.phase) {
        _ if simple || overdue => Wanted::Go,
        (DesiredState::Awake, Phase::Awake) => Wanted::Go,
        (DesiredState::Awake, Phase::Waking | Phase::Ready) => Wanted::Nothing,
        _ => Wanted::Wake,
    }
}

#[cfg(test)]
mod tests;
