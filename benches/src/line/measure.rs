//! One size, measured in a process of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use dormouse_autoscaler::{Autoscaler, Config, Metrics, Overrides, PluginSource, Roster, Source, jitter};
use dormouse_model::{Owner, OwnerKind, Shards, Target};
use dormouse_readings::{Limits, Readings};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Args;
use super::baseline::{self, Ready};
use super::exposed::Exposed;
use super::population::Population;
use super::report::{Cost, Figures, Spread, since};
use super::sleepers::{InMemory, Requests};
use super::source::{Decisions, Declares, NAME, Paced};
use super::sources::{Asked, MetricSources};
use crate::usage::{self, Scheduled};

/// The autoscaler's own histograms.
const LATENESS: &str = "dormouse_autoscaler_lateness_seconds";
const LISTING: &str = "dormouse_autoscaler_round_duration_seconds";
/// How long all targets may take to be decided once, beside their interval.
const PATIENCE: Duration = Duration::from_secs(300);

/// The world around a line.
struct World {
    population: Population,
    interval: Duration,
    sources: Arc<MetricSources>,
    sleepers: Arc<InMemory>,
}

/// A line that runs.
struct Running {
    registry: Registry,
    decisions: Arc<Decisions>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    // It holds all shards as long as this is there.
    _shards: watch::Sender<Shards>,
}

/// What was counted up to a moment.
struct Count {
    at: Instant,
    used: Scheduled,
    asked: Asked,
    requests: Requests,
    exposed: Exposed,
}

impl World {
    fn new(args: &Args, targets: u32) -> Self {
        let population = Population {
            targets,
            namespaces: args.namespaces,
            scaled: args.scaled,
        };
        let delay = Duration::from_millis(args.delay);
        Self {
            population,
            interval: Duration::from_secs(args.interval),
            sources: Arc::new(MetricSources::new(population, delay)),
            sleepers: Arc::new(InMemory::new(delay)),
        }
    }

    fn readings(&self, metrics: dormouse_readings::Metrics) -> Readings {
        let defaults = dormouse_readings::Config::default();
        let limits = Limits {
            concurrency: defaults.concurrency,
            timeout: defaults.timeout,
        };
        Readings::new(Arc::clone(&self.sources) as _, limits, metrics)
    }

    fn source(&self, decisions: Arc<Decisions>) -> Paced {
        let overrides = self.config().overrides;
        let plugin = Arc::new(Declares(self.population));
        Paced {
            plugin: PluginSource::new(plugin, Arc::clone(&self.sleepers) as _, overrides),
            every: self.interval,
            decisions,
        }
    }

    fn config(&self) -> Config {
        let overrides = Overrides {
            scale_interval: Some(self.interval),
            ..Overrides::default()
        };
        Config {
            overrides,
            ..Config::default()
        }
    }

    fn start(&self) -> Running {
        let mut registry = Registry::default();
        let decisions = Decisions::new(self.population.targets);
        let readings = self.readings(dormouse_readings::Metrics::register(&mut registry));
        let roster = Roster {
            ready: [Owner::plugin(NAME)].into(),
            complete: [OwnerKind::Plugin].into(),
            ..Roster::default()
        };
        let line = Autoscaler::new(
            self.config(),
            vec![Arc::new(self.source(Arc::clone(&decisions)))],
            roster,
            Arc::clone(&self.sleepers) as _,
            Arc::new(readings),
            Metrics::register(&mut registry),
        );
        let (shards, shutdown) = (watch::Sender::new(Shards::all(1)), CancellationToken::new());
        let task = tokio::spawn(line.run(shards.subscribe(), shutdown.clone()));
        Running {
            registry,
            decisions,
            shutdown,
            task,
            _shards: shards,
        }
    }

    fn count(&self, running: &Running) -> anyhow::Result<Count> {
        Ok(Count {
            at: Instant::now(),
            used: used()?,
            asked: self.sources.asked(),
            requests: self.sleepers.requests(),
            exposed: Exposed::by(&running.registry)?,
        })
    }
}

impl Running {
    /// Waits until every target was decided once.
    async fn all_decided(&self, world: &World) -> anyhow::Result<()> {
        let wanted = world.population.targets as usize;
        let end = Instant::now() + world.interval + PATIENCE;
        while self.decisions.targets() < wanted {
            if Instant::now() >= end {
                bail!("{} of {wanted} targets were decided", self.decisions.targets());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.task.await.context("the line ended early")
    }
}

fn used() -> anyhow::Result<Scheduled> {
    Scheduled::of(Path::new("/proc/self"))
}

fn memory(line: &str) -> anyhow::Result<u64> {
    usage::memory(&std::fs::read_to_string("/proc/self/status")?, line)
}

/// Runs a line with so many targets, and then the baseline.
pub async fn measure(args: &Args, targets: u32) -> anyhow::Result<Figures> {
    let world = World::new(args, targets);
    let (begun, first, before) = (Instant::now(), used()?, memory("VmRSS")?);

    let mut running = world.start();
    running.all_decided(&world).await?;
    let declared = Cost::between(first, used()?, begun.elapsed());
    if !args.together {
        running.stop().await?;
        running = world.start();
        running.all_decided(&world).await?;
    }

    running.decisions.take();
    let from = world.count(&running)?;
    sleep(world.interval * args.ticks).await;
    let to = world.count(&running)?;
    let mut late = running.decisions.take();
    ensure!(!late.is_empty(), "nothing was decided in {} ticks", args.ticks);
    let (resident, peak) = (memory("VmRSS")?, memory("VmHWM")?);
    running.stop().await?;

    let targets_declared = world.source(Decisions::new(targets)).targets().await?;
    let mut jitters: Vec<f64> = targets_declared
        .iter()
        .map(|target| jitter(target).as_secs_f64())
        .collect();
    let bare = bare(&world, targets_declared).await?;
    let mut classes = BTreeMap::new();
    for target in 0..targets {
        *classes.entry(world.population.class(target)).or_default() += 1;
    }
    Ok(Figures {
        targets,
        namespaces: args.namespaces,
        classes,
        interval_seconds: args.interval,
        ticks: args.ticks,
        delay_millis: args.delay,
        together: args.together,
        optimised: !cfg!(debug_assertions),
        declared,
        decisions: late.len() as u64,
        lateness: Spread::of(&mut late),
        exposed_lateness_p99: to.exposed.quantile(&from.exposed, LATENESS, 0.99),
        jitter: Spread::of(&mut jitters),
        line: Cost::between(from.used, to.used, to.at - from.at),
        sources_seconds: (to.asked.took - from.asked.took).as_secs_f64(),
        listing_seconds: to.exposed.mean(&from.exposed, LISTING),
        bare,
        before_bytes: before,
        resident_bytes: resident,
        peak_bytes: peak,
        requests: to
            .requests
            .iter()
            .map(|(class, asked)| (*class, since(asked, from.requests.get(class))))
            .collect(),
        queries: since(&to.asked.queries, Some(&from.asked.queries)),
        troubles: world.sleepers.troubles(),
    })
}

/// An interval of the bare loop. It reads before that.
async fn bare(world: &World, targets: Vec<Arc<Target>>) -> anyhow::Result<Cost> {
    let meter = world.readings(dormouse_readings::Metrics::default());
    let mut ready = Vec::with_capacity(targets.len());
    for target in targets {
        ready.push(Ready::read(target, &meter).await?);
    }
    let (begun, from) = (Instant::now(), used()?);
    baseline::tick(&ready, world.interval).await;
    Ok(Cost::between(from, used()?, begun.elapsed()))
}
