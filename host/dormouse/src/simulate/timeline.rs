//! The kernel's decisions over a recording.

use dormouse_model::Quantity;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::kernel::{Answer, Kernel, Seen};
use super::pods::Pods;
use super::quiet::Quiet;
use super::recording::{Recording, Row};

/// How the target is run.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    pub recording: &'a Recording,
    pub kernel: Kernel<'a>,
    pub pods: Pods,
    /// Replicas at the begin.
    pub replicas: i32,
    /// The fewest that a wake brings back, if it began at zero.
    pub least: i32,
    /// How often it is decided.
    pub every: SignedDuration,
    /// None: it never sleeps.
    pub sleep: Option<Sleep>,
}

/// When it sleeps, and what wakes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleep {
    /// Somebody needs it while this column is above zero.
    pub needed: usize,
    /// How long nobody must have needed it. None: its own rules say when it is idle.
    pub after: Option<SignedDuration>,
    /// What a wake brings back. None: as many as before.
    pub restores: Option<i32>,
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
    kernel: Kernel<'a>,
    pods: Pods,
    replicas: i32,
    /// What a wake brings back.
    before_sleep: i32,
    asleep: bool,
    /// How long nobody has needed it, if that alone lets it sleep.
    unneeded: Option<(Quiet, SignedDuration)>,
    timeline: Timeline,
}

/// Runs a target over a recording.
pub(super) fn run(plan: &Plan<'_>) -> Timeline {
    let (begin, end) = plan.recording.span();
    let replicas = plan.replicas;
    let unneeded = plan.sleep.and_then(|sleep| {
        let quiet = Quiet::new(sleep.needed, Quantity::ZERO, begin);
        Some((quiet, sleep.after?))
    });
    let mut run = Run {
        plan,
        kernel: plan.kernel.clone(),
        pods: plan.pods.clone(),
        replicas,
        before_sleep: replicas.max(plan.least),
        // Without sleep it is somebody else who has set it to zero.
        asleep: replicas == 0 && plan.sleep.is_some(),
        unneeded,
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
            let restored = self.plan.sleep.and_then(|sleep| sleep.restores);
            let replicas = restored.unwrap_or(self.before_sleep);
            self.become_replicas(replicas, now, "somebody needs it".to_owned());
            self.kernel.wake(now);
        }
        if !self.asleep {
            let answer = self.kernel.meet_demand(&self.seen(row, now));
            self.follow(answer, now);
        }
    }

    /// What the target should be now.
    fn decide(&mut self, row: &Row, now: Timestamp) {
        self.timeline.rounds += 1;
        if self.asleep {
            return;
        }
        if let Some((quiet, after)) = &self.unneeded
            && self.replicas > 0
            && quiet.has_lasted(*after, row, now)
        {
            self.fall_asleep(now, format!("nobody has needed it for {after:#}"));
            return;
        }
        let seen = Seen {
            row,
            pods: &self.pods,
            replicas: self.replicas,
            now,
        };
        let answer = self.kernel.decide(&seen);
        self.follow(answer, now);
    }

    fn seen<'a>(&'a self, row: &'a Row, now: Timestamp) -> Seen<'a> {
        Seen {
            row,
            pods: &self.pods,
            replicas: self.replicas,
            now,
        }
    }

    fn follow(&mut self, answer: Answer, now: Timestamp) {
        match answer {
            Answer::Undecided => self.timeline.undecided += 1,
            Answer::Stay => {}
            Answer::Replicas(replicas, why) => self.become_replicas(replicas, now, why),
            Answer::Sleep(why) => self.fall_asleep(now, why),
        }
    }

    fn fall_asleep(&mut self, now: Timestamp, why: String) {
        self.asleep = true;
        self.before_sleep = self.replicas;
        self.become_replicas(0, now, why);
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
        let need = self.plan.sleep.and_then(|sleep| row.get(sleep.needed));
        need.is_some_and(|need| need > Quantity::ZERO)
    }

    /// Time passes until the next moment at which anything is decided.
    fn pass(&mut self, row: &Row, now: Timestamp, until: Timestamp) {
        self.kernel.pass(row, until);
        if let Some((quiet, _)) = &mut self.unneeded {
            quiet.pass(row, until);
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
