//! `dormouse simulate`: the decisions of the scaling kernel over a recorded day.

mod plot;
mod pods;
mod recording;
mod summary;
mod target;
mod timeline;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::Args;
use dormouse_model::Quantity;
use dormouse_scaling::hpa::{Container, Resources, Settings};
use jiff::SignedDuration;

use self::plot::{Column, Drawing};
use self::pods::Pods;
use self::recording::Recording;
use self::summary::Summary;
use self::target::{Target, column};
use self::timeline::{Plan, Sleep, Timeline, hours, run};
use crate::config::Span;
use crate::config::ranges::check_flag;
use crate::output;

/// The most rounds: every 15 s for more than a year.
const MOST_ROUNDS: i64 = 3_000_000;
/// The most pods that are simulated.
const MOST_REPLICAS: i32 = 5_000;
/// The column that is compared with, if it is there.
const REPLICAS: &str = "replicas";

/// Options of `dormouse simulate`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What is scaled: a HorizontalPodAutoscaler (autoscaling/v2) as YAML
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// What was recorded: comma-separated values, with a column `time` and one for each metric, summed over all pods
    #[arg(long, value_name = "FILE")]
    readings: PathBuf,
    /// What each pod requests, such as cpu=500m; for a metric of one container app/cpu=500m. May be repeated
    #[arg(long = "request", value_name = "RESOURCE=QUANTITY")]
    requests: Vec<Request>,
    /// How long a pod takes to become ready
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    startup: Span,
    /// How often it is decided
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    every: Span,
    /// Replicas at the begin [default: as recorded, or the least]
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<i32>,
    /// It sleeps when --needed has been at zero for so long, and wakes as soon as it is not
    #[arg(long, value_name = "DURATION")]
    sleep_after: Option<Span>,
    /// The column that is above zero while somebody needs it
    #[arg(
        long,
        value_name = "COLUMN",
        default_value = "requests",
        requires = "sleep_after"
    )]
    needed: String,
    /// Draw it into this file (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the numbers only, without the timeline
    #[arg(long)]
    summary: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "summary")]
    json: bool,
}

impl Options {
    fn check(&self) -> Result<()> {
        check_flag("every", Some(self.every))?;
        check_flag("startup", Some(self.startup))?;
        check_flag("sleepAfter", self.sleep_after)
    }
}

/// What a pod, or one container of it, requests of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    container: Option<String>,
    resource: String,
    amount: Quantity,
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, amount) = text.split_once('=').context("it needs a `=`, as in cpu=500m")?;
        let (container, resource) = match name.rsplit_once('/') {
            Some((container, resource)) => (Some(container.to_owned()), resource),
            None => (None, name),
        };
        let amount: Quantity = amount
            .parse()
            .with_context(|| format!("{amount:?} is no quantity"))?;
        ensure!(!resource.is_empty(), "it names no resource");
        ensure!(amount > Quantity::ZERO, "{amount} is not above zero");
        Ok(Self {
            container,
            resource: resource.to_owned(),
            amount,
        })
    }
}

/// Simulates, and tells.
pub fn simulate(options: &Options) -> Result<()> {
    options.check()?;
    let in_file = |path: &PathBuf| format!("in {}", path.display());
    let target = Target::read(&options.target).with_context(|| in_file(&options.target))?;
    let recording = Recording::read(&options.readings).with_context(|| in_file(&options.readings))?;
    let simulation =
        Simulation::new(options, &target, &recording).with_context(|| in_file(&options.readings))?;
    let timeline = simulation.run();
    if let Some(path) = &options.plot {
        simulation.plot(path, &timeline).with_context(|| in_file(path))?;
    }
    let recorded = simulation
        .recorded_replicas
        .map(|column| replica_hours(&recording, column));
    let summary = Summary::new(&target.name, target.max_replicas, timeline, recorded);
    Ok(output::answer(&if options.json {
        format!("{}\n", serde_json::to_string_pretty(&summary)?)
    } else {
        summary.text(!options.summary)
    })?)
}

/// All that a run needs.
struct Simulation<'a> {
    plan: Plan<'a>,
    pods: Pods,
    replicas: i32,
    recorded_replicas: Option<usize>,
}

impl<'a> Simulation<'a> {
    fn new(options: &Options, target: &'a Target, recording: &'a Recording) -> Result<Self> {
        let every = SignedDuration::try_from(options.every.0)?;
        let (begin, end) = recording.span();
        // At least a second, as its range says.
        let rounds = end.duration_since(begin).as_secs() / every.as_secs().max(1);
        ensure!(
            rounds <= MOST_ROUNDS,
            "that are more than {MOST_ROUNDS} rounds: raise --every, or cut the readings"
        );
        ensure!(
            target.max_replicas <= MOST_REPLICAS,
            "spec.maxReplicas is {}: at most {MOST_REPLICAS} pods are simulated",
            target.max_replicas
        );
        let columns = target
            .metrics
            .iter()
            .map(|metric| recording.column(&column(metric)));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let sleep = match options.sleep_after {
            None => None,
            Some(after) => Some(Sleep {
                column: recording
                    .column(&options.needed)
                    .context("--needed names a column")?,
                after: SignedDuration::try_from(after.0)?,
            }),
        };
        let recorded_replicas = recording.column(REPLICAS).ok();
        let replicas = first_replicas(options, target, recording, recorded_replicas)?;
        let (containers, requests) = pod(&options.requests);
        let startup = SignedDuration::try_from(options.startup.0)?;
        Ok(Self {
            plan: Plan {
                target,
                recording,
                columns,
                every,
                sleep,
                settings: Settings::default(),
            },
            pods: Pods::new(replicas, containers, requests, startup),
            replicas,
            recorded_replicas,
        })
    }

    fn run(&self) -> Timeline {
        run(&self.plan, self.pods.clone(), self.replicas)
    }

    fn plot(&self, path: &std::path::Path, timeline: &Timeline) -> Result<()> {
        let names: Vec<_> = self.plan.target.metrics.iter().map(column).collect();
        let columns = names.iter().zip(&self.plan.columns);
        let columns: Vec<_> = columns
            .map(|(name, index)| Column { name, index: *index })
            .collect();
        let drawing = Drawing {
            title: &self.plan.target.name,
            timeline,
            recording: self.plan.recording,
            recorded_replicas: self.recorded_replicas,
            columns: &columns,
        };
        drawing.write(path)
    }
}

/// What is asked for, what was recorded, or the least; within the bounds.
fn first_replicas(
    options: &Options,
    target: &Target,
    recording: &Recording,
    recorded: Option<usize>,
) -> Result<i32> {
    if let Some(asked) = options.replicas {
        ensure!(
            (0..=MOST_REPLICAS).contains(&asked),
            "--replicas must be from 0 to {MOST_REPLICAS}"
        );
        return Ok(asked);
    }
    let recorded = recorded.and_then(|column| recording.rows.first()?.get(column));
    let recorded = recorded.and_then(|count| i32::try_from(count.units()).ok());
    let least = target.min_replicas.max(1);
    Ok(recorded.unwrap_or(least).clamp(least, target.max_replicas))
}

/// Containers of a pod, and what the pod requests as a whole.
fn pod(requests: &[Request]) -> (Vec<Container>, Resources) {
    let mut whole = Resources::new();
    let mut containers: Vec<Container> = Vec::new();
    for request in requests {
        let Some(name) = &request.container else {
            whole.insert(request.resource.clone(), request.amount);
            continue;
        };
        let known = containers.iter().position(|container| container.name == *name);
        let index = known.unwrap_or_else(|| {
            containers.push(Container {
                name: name.clone(),
                ..Container::default()
            });
            containers.len() - 1
        });
        if let Some(container) = containers.get_mut(index) {
            container
                .requests
                .insert(request.resource.clone(), request.amount);
        }
    }
    if containers.is_empty() {
        containers.push(Container {
            name: "pod".to_owned(),
            ..Container::default()
        });
    }
    (containers, whole)
}

/// Recorded replicas times hours.
fn replica_hours(recording: &Recording, column: usize) -> f64 {
    let pairs = recording.rows.windows(2);
    let spans = pairs.filter_map(|pair| match pair {
        [row, next] => Some(hours(row.at, next.at) * row.get(column)?.approximate()),
        _ => None,
    });
    spans.sum()
}

#[cfg(test)]
mod tests;
