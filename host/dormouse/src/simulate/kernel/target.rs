//! The autoscaler's decisions about a target.

use std::time::Duration;

use anyhow::Result;
use dormouse_model::{MetricSpec, MetricsPolicy, Policy, ScaleEvent, ScaleEventKind, Target, Trigger};
use dormouse_readings::MetricSamples;
use dormouse_scaling::hpa::{ObservedScale, Settings};
use dormouse_scaling::{
    Desired, Input, Rule, Sample, ScaleSeen, ScalingHistory, Standing, recommend, to_demand,
};
use jiff::{SignedDuration, Timestamp};

use super::{Answer, Seen};
use crate::simulate::columns::{self, Column, MEMORY};
use crate::simulate::quiet::Quiet;
use crate::simulate::reading::{of_each_pod, read};
use crate::simulate::recording::{Recording, Row};
use crate::simulate::target::check_columns;

/// What is known of a target between two rounds.
#[derive(Clone, Debug)]
pub(in crate::simulate) struct OfTarget<'a> {
    target: &'a Target,
    /// What says whether it is idle.
    watched: Vec<Watched>,
    /// What says how many replicas it has.
    metrics: Vec<Measured>,
    /// The same while it wakes.
    demand: Vec<Measured>,
    settings: Settings,
    history: ScalingHistory,
    /// When its number was last changed.
    last_scale: Option<Timestamp>,
    woken: Option<Timestamp>,
}

/// An idle rule, and where its reading is recorded.
#[derive(Clone, Debug)]
struct Watched {
    rule: Rule,
    column: usize,
    /// Where the reading is about a window, and the column is not.
    quiet: Option<Quiet>,
}

/// A metric, and where it is recorded. None: the memory of pods.
#[derive(Clone, Debug)]
struct Measured {
    spec: Option<MetricSpec>,
    column: usize,
}

impl<'a> OfTarget<'a> {
    /// Sleeps by these rules. Finds the columns, of which `needed` is that of requests; the answer names those that are read. What never sleeps
    /// never wakes, so no requests wait for it.
    pub fn new(
        target: &'a Target,
        rules: &[Trigger],
        recording: &Recording,
        needed: &str,
        sleeps: bool,
    ) -> Result<(Self, Vec<Column>)> {
        let (begin, _) = recording.span();
        let mut read_from = Vec::new();
        let (mut metrics, mut demand) = (Vec::new(), Vec::new());
        match &target.policy {
            Policy::Idle => {}
            Policy::Memory(_) => {
                let column = Column::now(MEMORY.to_owned(), recording.column(MEMORY)?);
                metrics.push(Measured::of(None, &column));
                read_from.push(column);
            }
            Policy::Metrics(policy) => {
                for metric in &policy.metrics {
                    let waits = metric.source.counts_requests();
                    if waits && !sleeps {
                        continue;
                    }
                    let column = columns::of_metric(metric, recording, needed)?;
                    let measured = Measured::of(Some(metric.spec.clone()), &column);
                    if waits { &mut demand } else { &mut metrics }.push(measured);
                    read_from.push(column);
                }
                check_columns(read_from.iter().map(|column| column.name.clone()))?;
            }
        }
        let mut watched = Vec::new();
        for trigger in rules {
            let column = columns::of_rule(trigger, recording, needed)?;
            watched.push(Watched::of(trigger, &column, begin));
            read_from.push(column);
        }
        let kernel = Self {
            target,
            watched,
            metrics,
            demand,
            settings: Settings::default(),
            history: ScalingHistory::default(),
            last_scale: None,
            woken: None,
        };
        Ok((kernel, read_from))
    }

    pub(super) fn decide(&mut self, seen: &Seen<'_>) -> Answer {
        if self.is_waking(seen) {
            return self.meet_demand(seen);
        }
        let inputs: Vec<_> = self.watched.iter().map(|rule| rule.input(seen)).collect();
        let wakes = self.wakes(seen);
        let recommended = self.with_scale(&self.metrics, seen, |scale| {
            recommend(
                self.target,
                &dormouse_scaling::Seen {
                    inputs: &inputs,
                    // What is recorded need not be observed.
                    standing: Standing::Awake,
                    since: None,
                    wakes: &wakes,
                    observe_not_before: None,
                    settle: Duration::ZERO,
                    scale: Some(*scale),
                    now: seen.now,
                },
            )
        });
        let failed = recommended
            .scaled
            .as_ref()
            .is_some_and(|scaled| scaled.decision.replicas.is_none() && !scaled.decision.inputs.is_empty());
        if let Some(scaled) = recommended.scaled {
            self.history = scaled.history;
        }
        match recommended.desired {
            Desired::Zero => Answer::Sleep(recommended.reason),
            Desired::Exactly(replicas) => {
                self.last_scale = Some(seen.now);
                Answer::Replicas(replicas, recommended.reason)
            }
            Desired::Hold if failed => Answer::Undecided,
            Desired::Hold | Desired::Activate | Desired::Observe | Desired::StopObserving => Answer::Stay,
        }
    }

    /// After a sleep everything begins anew.
    pub(super) fn wake(&mut self, now: Timestamp) {
        self.woken = Some(now);
        self.history = ScalingHistory::default();
    }

    pub(super) fn meet_demand(&self, seen: &Seen<'_>) -> Answer {
        let Some(policy) = self.metrics_policy().filter(|_| self.is_waking(seen)) else {
            return Answer::Stay;
        };
        let scaled = self.with_scale(&self.demand, seen, |scale| to_demand(policy, scale, seen.now));
        match scaled.decision.replicas {
            Some(replicas) => Answer::Replicas(replicas, scaled.decision.to_string()),
            None => Answer::Stay,
        }
    }

    pub(super) fn pass(&mut self, row: &Row, until: Timestamp) {
        let quiet = self.watched.iter_mut().filter_map(|rule| rule.quiet.as_mut());
        quiet.for_each(|quiet| quiet.pass(row, until));
    }

    fn metrics_policy(&self) -> Option<&'a MetricsPolicy> {
        match &self.target.policy {
            Policy::Metrics(policy) => Some(policy),
            Policy::Idle | Policy::Memory(_) => None,
        }
    }

    /// It was woken, and has no pod yet that answers.
    fn is_waking(&self, seen: &Seen<'_>) -> bool {
        let answers = seen.pods.first_ready().is_some_and(|ready| ready <= seen.now);
        self.woken.is_some() && !answers
    }

    /// The wake that a Sleeper would remember.
    fn wakes(&self, seen: &Seen<'_>) -> Vec<ScaleEvent> {
        let completed = self.woken.and_then(|_| seen.pods.first_ready());
        let events = [
            (ScaleEventKind::ScaleFromZeroStarted, self.woken),
            (ScaleEventKind::ScaleFromZeroCompleted, completed),
        ];
        let events = events.into_iter();
        events
            .filter_map(|(kind, at)| Some(ScaleEvent { kind, at: Some(at?) }))
            .collect()
    }

    fn with_scale<T>(
        &self,
        metrics: &[Measured],
        seen: &Seen<'_>,
        decide: impl FnOnce(&ScaleSeen<'_>) -> T,
    ) -> T {
        let samples: Vec<_> = metrics.iter().map(|metric| metric.read(seen)).collect();
        let readings: Vec<_> = samples.iter().map(MetricSamples::as_reading).collect();
        let specs: Vec<_> = metrics.iter().filter_map(|metric| metric.spec.clone()).collect();
        decide(&ScaleSeen {
            scale: ObservedScale {
                spec_replicas: seen.replicas,
                status_replicas: seen.replicas,
                has_selector: true,
            },
            pods: &seen.pods.list(seen.now),
            metrics: &specs,
            readings: &readings,
            history: &self.history,
            last_scale: self.last_scale,
            settings: &self.settings,
        })
    }
}

impl Watched {
    fn of(trigger: &Trigger, column: &Column, begin: Timestamp) -> Self {
        Self {
            rule: Rule {
                metric: trigger.name.clone(),
                window: trigger.window,
                threshold: trigger.threshold,
            },
            column: column.index,
            quiet: column
                .over_window
                .then(|| Quiet::new(column.index, trigger.threshold, begin)),
        }
    }

    fn input(&self, seen: &Seen<'_>) -> Input {
        Input {
            rule: self.rule.clone(),
            sample: self.sample(seen),
            // It is recorded, so nobody has to step into the traffic to count it.
            observed: false,
            changes_at: None,
        }
    }

    fn sample(&self, seen: &Seen<'_>) -> Sample {
        let Some(value) = seen.row.get(self.column) else {
            return Sample::NoData("nothing was recorded".into());
        };
        let window = SignedDuration::try_from(self.rule.window).unwrap_or(SignedDuration::MAX);
        let too_short = |quiet: &Quiet| !quiet.has_lasted(window, seen.row, seen.now);
        if value <= self.rule.threshold && self.quiet.as_ref().is_some_and(too_short) {
            return Sample::NoData("it is not so for the whole window".into());
        }
        Sample::Value(value)
    }
}

impl Measured {
    fn of(spec: Option<MetricSpec>, column: &Column) -> Self {
        Self {
            spec,
            column: column.index,
        }
    }

    fn read(&self, seen: &Seen<'_>) -> MetricSamples {
        let recorded = seen.row.get(self.column);
        match &self.spec {
            Some(spec) => read(spec, recorded, seen.pods, seen.now),
            None => of_each_pod(recorded, seen.pods, seen.now),
        }
    }
}
