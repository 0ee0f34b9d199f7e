//! `dormouse simulate`: the decisions of the scaling kernel over a recorded day.

mod columns;
mod kernel;
mod plot;
mod pod;
mod pods;
mod quiet;
mod reading;
mod recording;
mod summary;
mod target;
mod timeline;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dormouse_model as model;
use dormouse_scaling::hpa::Pod;
use jiff::SignedDuration;

use self::columns::{Column, MEMORY};
use self::kernel::{Kernel, OfHpa, OfTarget};
use self::plot::Drawing;
use self::pod::Amount;
use self::pods::Pods;
use self::recording::Recording;
use self::summary::Summary;
use self::target::{Declared, Target, column};
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
/// The column that is above zero while somebody needs it.
const NEEDED: &str = "requests";

/// Options of `dormouse simulate`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What is scaled, as YAML: a HorizontalPodAutoscaler (autoscaling/v2), a MemHpa (xinhuang.com/v1), or a workload with annotations of
    /// Dormouse. Of several documents the one that is such a target; what its pods request is read from its workload, if that is in the file
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// What was recorded: comma-separated values, with a column `time` and one for each metric, summed over all pods
    #[arg(long, value_name = "FILE")]
    readings: PathBuf,
    /// What each pod requests, such as cpu=500m; for a metric of one container app/cpu=500m. May be repeated [default: as in the target]
    #[arg(long = "request", value_name = "RESOURCE=QUANTITY")]
    requests: Vec<Amount>,
    /// What each pod may use at most, such as memory=256Mi; of one container app/memory=256Mi. A MemHpa needs it. May be repeated [default:
    /// as in the target]
    #[arg(long = "limit", value_name = "RESOURCE=QUANTITY")]
    limits: Vec<Amount>,
    /// How long a pod takes to become ready
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    startup: Span,
    /// How often it is decided [default: 15s; for a MemHpa 30s, for a workload that nothing but sleeps 1m]
    #[arg(long, value_name = "DURATION")]
    every: Option<Span>,
    /// Replicas at the begin [default: as recorded, as in the workload, or the least]
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<i32>,
    /// It sleeps when --needed has been at zero for so long, and wakes as soon as it is not. Counts instead of the target's own
    /// dormouse.dev/sleep-after and dormouse.dev/rules
    #[arg(long, value_name = "DURATION")]
    sleep_after: Option<Span>,
    /// The column that is above zero while somebody needs it: what wakes it, and what is read for observed-traffic and dlx-concurrency
    /// [default: requests]
    #[arg(long, value_name = "COLUMN")]
    needed: Option<String>,
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
        check_flag("every", self.every)?;
        check_flag("startup", Some(self.startup))?;
        check_flag("sleepAfter", self.sleep_after)
    }

    /// Whether they go together with a target.
    fn check_for(&self, target: &Target) -> Result<()> {
        ensure!(
            self.needed.is_none() || self.lets_sleep(target),
            "it never sleeps, so --needed has no effect: add --sleep-after"
        );
        let pod = self.pod(target);
        let mut containers = pod.containers.iter();
        match containers.find(|container| !container.limits.contains_key(MEMORY)) {
            Some(container) if target.is_scaled_by_memory() => bail!(
                "it is scaled by the share of its memory limits that is used, and container `{}` has no limit; say what it may use, such as \
                 --limit memory=256Mi",
                container.name
            ),
            _ => Ok(()),
        }
    }

    /// The column that is above zero while somebody needs it.
    fn needed(&self) -> &str {
        self.needed.as_deref().unwrap_or(NEEDED)
    }

    /// Whether the target sleeps at all.
    fn lets_sleep(&self, target: &Target) -> bool {
        self.sleep_after.is_some() || target.has_rules()
    }

    /// What each of its pods is.
    fn pod(&self, target: &Target) -> Pod {
        pod::template(target.pod.as_ref(), &self.requests, &self.limits)
    }
}

/// Simulates, and tells.
pub fn simulate(options: &Options) -> Result<()> {
    options.check()?;
    let in_file = |path: &PathBuf| format!("in {}", path.display());
    let target = Target::read(&options.target).with_context(|| in_file(&options.target))?;
    options
        .check_for(&target)
        .with_context(|| in_file(&options.target))?;
    let recording = Recording::read(&options.readings).with_context(|| in_file(&options.readings))?;
    let simulation =
        Simulation::new(options, &target, &recording).with_context(|| in_file(&options.readings))?;
    let timeline = simulation.run();
    if let Some(path) = &options.plot {
        simulation.plot(path, &timeline).with_context(|| in_file(path))?;
    }
    let summary = simulation.summary(timeline);
    Ok(output::answer(&if options.json {
        format!("{}\n", serde_json::to_string_pretty(&summary)?)
    } else {
        summary.text(!options.summary)
    })?)
}

/// All that a run needs.
struct Simulation<'a> {
    target: &'a Target,
    plan: Plan<'a>,
    /// What is read.
    columns: Vec<Column>,
    recorded_replicas: Option<usize>,
}

impl<'a> Simulation<'a> {
    fn new(options: &Options, target: &'a Target, recording: &'a Recording) -> Result<Self> {
        let every = options.every.map_or_else(|| target.every(), |every| every.0);
        let every = SignedDuration::try_from(every)?;
        let (begin, end) = recording.span();
        // At least a second, as its range says.
        let rounds = end.duration_since(begin).as_secs() / every.as_secs().max(1);
        ensure!(
            rounds <= MOST_ROUNDS,
            "that are more than {MOST_ROUNDS} rounds: raise --every, or cut the readings"
        );
        if let Some(most) = target.max_replicas {
            ensure!(
                most <= MOST_REPLICAS,
                "{} is {most}: at most {MOST_REPLICAS} pods are simulated",
                target.field_of_most()
            );
        }
        let recorded_replicas = recording.column(REPLICAS).ok();
        let replicas = first_replicas(options, target, recording, recorded_replicas)?;
        let (kernel, columns) = kernel(options, target, recording, replicas)?;
        let pod = options.pod(target);
        let unbounded = target.replicas.filter(|_| target.max_replicas.is_none());
        Ok(Self {
            target,
            plan: Plan {
                recording,
                kernel,
                pods: Pods::new(replicas, pod, SignedDuration::try_from(options.startup.0)?),
                replicas,
                least: target.min_replicas.max(1).max(unbounded.unwrap_or(1)),
                every,
                sleep: sleep(options, target, recording)?,
            },
            columns,
            recorded_replicas,
        })
    }

    fn run(&self) -> Timeline {
        run(&self.plan)
    }

    fn summary(&self, timeline: Timeline) -> Summary {
        let recording = self.plan.recording;
        let recorded = self.recorded_replicas;
        let recorded = recorded.map(|column| replica_hours(recording, column));
        let (_, largest) = timeline.range();
        let most = self.target.max_replicas.unwrap_or(largest);
        Summary::new(self.target, most, timeline, recorded)
    }

    fn plot(&self, path: &Path, timeline: &Timeline) -> Result<()> {
        let drawing = Drawing {
            title: &self.target.name,
            timeline,
            recording: self.plan.recording,
            recorded_replicas: self.recorded_replicas,
            columns: &self.columns,
        };
        drawing.write(path)
    }
}

/// Who decides, and the columns that are read for it.
fn kernel<'a>(
    options: &Options,
    target: &'a Target,
    recording: &Recording,
    replicas: i32,
) -> Result<(Kernel<'a>, Vec<Column>)> {
    let sleeps = options.lets_sleep(target);
    let (kernel, mut columns) = match &target.declared {
        Declared::Hpa(hpa) => {
            let columns = hpa.metrics.iter().map(|metric| {
                let name = column(metric);
                let index = recording.column(&name)?;
                Ok(Column::now(name, index))
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let indices = columns.iter().map(|column| column.index).collect();
            // Where it may sleep, zero is not for metrics to decide.
            let least = target.min_replicas.max(i32::from(sleeps));
            let most = target.max_replicas.unwrap_or(least);
            let kernel = OfHpa::new(hpa, indices, (least, most), replicas);
            (Kernel::Hpa(kernel), columns)
        }
        Declared::Target(declared) => {
            let rules: &[model::Trigger] = match options.sleep_after {
                Some(_) => &[],
                None => &declared.triggers,
            };
            let kernel = OfTarget::new(declared, rules, recording, options.needed(), sleeps);
            let (kernel, columns) = kernel?;
            (Kernel::Target(kernel), columns)
        }
    };
    // A rule may read what a metric reads.
    let mut known = BTreeSet::new();
    columns.retain(|column| known.insert(column.index));
    Ok((kernel, columns))
}

/// When it sleeps, and what wakes it.
fn sleep(options: &Options, target: &Target, recording: &Recording) -> Result<Option<Sleep>> {
    if !options.lets_sleep(target) {
        return Ok(None);
    }
    let after = options.sleep_after.map(|after| SignedDuration::try_from(after.0));
    Ok(Some(Sleep {
        needed: recording
            .column(options.needed())
            .context("--needed names a column")?,
        after: after.transpose()?,
        restores: target.restores(),
    }))
}

/// What is asked for, what was recorded, what the workload says, or the least; within the bounds.
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
    let most = target.max_replicas.unwrap_or(MOST_REPLICAS);
    let known = recorded.or(target.replicas);
    Ok(known.unwrap_or(least).clamp(least, most))
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
