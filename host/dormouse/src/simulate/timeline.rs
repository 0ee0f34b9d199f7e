//! The kernel's decisions over a recording.

use std::time::Duration;

use dormouse_model::{MetricSpec, Quantity};
use dormouse_readings::MetricSamples;
use dormouse_scaling::hpa::{
    self, Conditions, ContainerUsage, History, Observed, ObservedScale, PodSample, PodValue, Resources,
    Settings,
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::pods::Pods;
use super::recording::{Recording, Row};
use super::target::Target;

/// How long a sample of what a pod uses looks back, as metrics-server's do.
const SAMPLE_WINDOW: Duration = Duration::from_secs(15);

/// How the target is run.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    pub target: &'a Target,
    pub recording: &'a Recording,
    /// For each metric of the target, where it is recorded.
    pub columns: Vec<usize>,
    /// How often the kernel decides.
    pub every: SignedDuration,
    pub sleep: Option<Sleep>,
    pub settings: Settings,
}

/// When it sleeps, and what wakes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleep {
    /// Somebody needs it while this column is above zero.
    pub column: usize,
    /// How long nobody must have needed it.
    pub after: SignedDuration,
}

/// What became of the target.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    pub changes: Vec<Change>,
    /// Replicas at the begin.
    pub first: i32,
    pub rounds: usize,
    /// Rounds in which nothing could be decided.
    pub undecided: usize,
    pub begin: Timestamp,
    pub end: Timestamp,
    /// How long somebody needed it while no pod was ready.
    pub waited: SignedDuration,
}

/// A change of the number of replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub at: Timestamp,
    pub from: i32,
    pub to: i32,
    pub why: String,
}

/// Where a run is.
struct Run<'a> {
    plan: &'a Plan<'a>,
    pods: Pods,
    replicas: i32,
    /// What a wake brings back.
    before_sleep: i32,
    asleep: bool,
    needed_at: Timestamp,
    conditions: Conditions,
    history: History,
    desired: i32,
    timeline: Timeline,
}

/// Runs a target over a recording.
pub(super) fn run(plan: &Plan<'_>, pods: Pods, replicas: i32) -> Timeline {
    let (begin, end) = plan.recording.span();
    let mut run = Run {
        plan,
        pods,
        replicas,
        before_sleep: replicas.max(plan.target.min_replicas.max(1)),
        // Without sleep it is somebody else who has set it to zero.
        asleep: replicas == 0 && plan.sleep.is_some(),
        needed_at: begin,
        conditions: Conditions::default(),
        history: History::default(),
        desired: replicas,
        timeline: Timeline {
            changes: Vec::new(),
            first: replicas,
            rounds: 0,
            undecided: 0,
            begin,
            end,
            waited: SignedDuration::ZERO,
        },
    };
    let mut rows = plan.recording.rows.iter().peekable();
    let mut round = begin;
    let mut current = None;
    loop {
        let now = rows.peek().map_or(round, |row| row.at.min(round));
        if now >= end {
            break;
        }
        if let Some(row) = rows.next_if(|row| row.at == now) {
            current = Some(row);
            run.arrive(row, now);
        }
        let Some(row) = current else { break };
        if round == now {
            run.decide(row, now);
            round = later(now, plan.every);
        }
        let next = rows.peek().map_or(round, |row| row.at.min(round)).min(end);
        run.pass(row, now, next);
    }
    run.timeline
}

fn later(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

impl Run<'_> {
    /// A reading comes: a sleeping target wakes at once if somebody needs it.
    fn arrive(&mut self, row: &Row, now: Timestamp) {
        if self.asleep && self.is_needed(row) {
            self.asleep = false;
            self.become_replicas(self.before_sleep, now, "somebody needs it".to_owned());
        }
    }

    /// What the target should be now.
    fn decide(&mut self, row: &Row, now: Timestamp) {
        self.timeline.rounds += 1;
        if self.asleep {
            return;
        }
        if let Some(sleep) = &self.plan.sleep
            && self.replicas > 0
            && self.is_idle(row)
            && now.duration_since(self.needed_at) >= sleep.after
        {
            self.asleep = true;
            self.before_sleep = self.replicas;
            self.become_replicas(0, now, format!("nobody has needed it for {:#}", sleep.after));
            return;
        }
        self.follow_metrics(row, now);
    }

    fn follow_metrics(&mut self, row: &Row, now: Timestamp) {
        let Plan { target, columns, .. } = self.plan;
        let pods = self.pods.list(now);
        let metrics = target.metrics.iter().zip(columns);
        let read: Vec<_> = metrics
            .map(|(metric, column)| self.read(metric, row.get(*column), now))
            .collect();
        let readings: Vec<_> = read.iter().map(MetricSamples::as_reading).collect();
        let autoscaler = hpa::Autoscaler {
            // Where it may sleep, zero is not for metrics to decide.
            min_replicas: Some(target.min_replicas.max(self.plan.sleep.map_or(0, |_| 1))),
            max_replicas: target.max_replicas,
            metrics: &target.metrics,
            behavior: target.behavior.as_ref(),
        };
        let observed = Observed {
            scale: ObservedScale {
                spec_replicas: self.replicas,
                status_replicas: self.replicas,
                has_selector: true,
            },
            pods: &pods,
            readings: &readings,
            conditions: &self.conditions,
            desired_replicas: self.desired,
            now,
        };
        let history = std::mem::take(&mut self.history);
        let decided = hpa::reconcile(&autoscaler, &self.plan.settings, &observed, history);
        self.conditions = decided.conditions;
        self.history = decided.history;
        self.desired = decided.desired_replicas;
        match decided.decision.replicas {
            None => self.timeline.undecided += 1,
            Some(replicas) => self.become_replicas(replicas, now, decided.decision.to_string()),
        }
    }

    /// What is read of a metric: what is recorded for all pods is spread evenly over those that are ready.
    fn read(&self, metric: &MetricSpec, recorded: Option<Quantity>, now: Timestamp) -> MetricSamples {
        let Some(recorded) = recorded else {
            return MetricSamples::NoData("nothing was recorded".to_owned());
        };
        let ready = u32::try_from(self.pods.ready(now)).unwrap_or(u32::MAX);
        let share = recorded.mul_div(1, ready.max(1)).unwrap_or(recorded);
        match metric {
            MetricSpec::Object { .. } => MetricSamples::Value(recorded.saturating_millis()),
            MetricSpec::External { .. } => MetricSamples::Total([recorded.saturating_millis()]),
            MetricSpec::Pods { .. } => {
                let value = share.saturating_millis();
                MetricSamples::PerPod(
                    self.pods
                        .ready_names(now)
                        .map(|pod| PodValue { pod, value })
                        .collect(),
                )
            }
            MetricSpec::Resource { resource } => {
                MetricSamples::Usage(self.usage("pod", &resource.name, share, now))
            }
            MetricSpec::ContainerResource {
                container_resource: of,
            } => MetricSamples::Usage(self.usage(&of.container, &of.name, share, now)),
        }
    }

    fn usage(&self, container: &str, resource: &str, share: Quantity, now: Timestamp) -> Vec<PodSample> {
        let sample = |pod| PodSample {
            pod,
            timestamp: now,
            window: SAMPLE_WINDOW,
            containers: vec![ContainerUsage {
                name: container.to_owned(),
                usage: Resources::from([(resource.to_owned(), share)]),
            }],
        };
        self.pods.ready_names(now).map(sample).collect()
    }

    fn become_replicas(&mut self, replicas: i32, now: Timestamp, why: String) {
        if replicas == self.replicas {
            return;
        }
        self.timeline.changes.push(Change {
            at: now,
            from: self.replicas,
            to: replicas,
            why,
        });
        self.replicas = replicas;
        self.pods.scale(replicas, now);
    }

    fn is_needed(&self, row: &Row) -> bool {
        self.need(row).is_some_and(|need| need > Quantity::ZERO)
    }

    /// What is not known is not idle.
    fn is_idle(&self, row: &Row) -> bool {
        self.need(row).is_some_and(|need| need <= Quantity::ZERO)
    }

    fn need(&self, row: &Row) -> Option<Quantity> {
        row.get(self.plan.sleep?.column)
    }

    /// Time passes until the next moment at which anything is decided.
    fn pass(&mut self, row: &Row, now: Timestamp, until: Timestamp) {
        if !self.is_idle(row) {
            self.needed_at = until;
        }
        if self.is_needed(row) {
            let served = self
                .pods
                .first_ready()
                .map_or(until, |first| first.clamp(now, until));
            self.timeline.waited += served.duration_since(now);
        }
    }
}

impl Timeline {
    /// Spans of time with the replicas in them, in order.
    pub fn spans(&self) -> impl Iterator<Item = (Timestamp, Timestamp, i32)> {
        let begins = std::iter::once((self.begin, self.first));
        let begins = begins.chain(self.changes.iter().map(|change| (change.at, change.to)));
        let ends = self.changes.iter().map(|change| change.at);
        let ends = ends.chain(std::iter::once(self.end));
        begins
            .zip(ends)
            .map(|((begin, replicas), end)| (begin, end, replicas))
    }

    /// Replicas times hours.
    pub fn replica_hours(&self) -> f64 {
        self.spans()
            .map(|(begin, end, replicas)| hours(begin, end) * f64::from(replicas))
            .sum()
    }

    /// Hours without a replica.
    pub fn hours_at_zero(&self) -> f64 {
        let spans = self.spans().filter(|(_, _, replicas)| *replicas == 0);
        // The sum of nothing is a negative zero.
        spans.map(|(begin, end, _)| hours(begin, end)).sum::<f64>().abs()
    }

    /// How often it came back from zero.
    pub fn cold_starts(&self) -> usize {
        self.changes.iter().filter(|change| change.from == 0).count()
    }

    /// The fewest and the most replicas.
    pub fn range(&self) -> (i32, i32) {
        let replicas = || self.spans().map(|(_, _, replicas)| replicas);
        (
            replicas().min().unwrap_or_default(),
            replicas().max().unwrap_or_default(),
        )
    }
}

/// Hours from one moment to another.
pub(super) fn hours(begin: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(begin).as_secs_f64() / 3600.0
}
