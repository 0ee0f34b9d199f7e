//! Which suite runs when: two lanes, and in each of them one suite after the other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::outcome::Line;

/// What a suite spends its time with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Compiles, or keeps the processors busy in another way.
    Compute,
    /// Waits for clusters, servers and clocks, and asks cargo for nothing that needs its lock on the target folder.
    Wait,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Compute, Self::Wait];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Wait => "wait",
        }
    }
}

/// What is known of a suite before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub name: &'static str,
    pub lane: Lane,
    /// Suites that must have passed.
    pub needs: &'static [&'static str],
}

/// What a lane does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Starts this suite.
    Start(usize),
    /// Reports this suite as not run: it needs another one, which did not pass.
    Without(usize, &'static str),
    /// Waits until a suite of the other lane ends.
    Wait,
    /// Ends.
    Done,
}

#[derive(Debug)]
enum State {
    Pending,
    Running,
    Ended(Box<Line>),
}

struct Board {
    plans: Vec<Plan>,
    states: Vec<State>,
    stopped: bool,
}

impl Board {
    fn new(plans: Vec<Plan>) -> Self {
        Self {
            states: plans.iter().map(|_| State::Pending).collect(),
            plans,
            stopped: false,
        }
    }

    /// The first suite of the lane, in the order of the list, that nothing keeps from running.
    fn next(&self, lane: Lane) -> Next {
        if self.stopped {
            return Next::Done;
        }
        let mut next = Next::Done;
        for (index, plan) in self.plans.iter().enumerate() {
            if plan.lane != lane || !matches!(self.states[index], State::Pending) {
                continue;
            }
            let mut ready = true;
            for need in plan.needs {
                match self.state(need) {
                    Some(State::Ended(line)) if line.outcome.is_good() => {}
                    Some(State::Ended(_)) | None => return Next::Without(index, need),
                    Some(State::Pending | State::Running) => ready = false,
                }
            }
            if ready {
                return Next::Start(index);
            }
            next = Next::Wait;
        }
        next
    }

    fn state(&self, name: &str) -> Option<&State> {
        let index = self.plans.iter().position(|plan| plan.name == name)?;
        self.states.get(index)
    }
}

/// Runs suites until none is left.
///
/// `run` is called with the index of a suite, from one thread for each lane. `without` makes the line of a suite that cannot run
/// because the named one did not pass. `stopped` says whether no further suite is to begin. The lines come back in the order of the
/// plans; suites that did not begin have none.
pub fn run(
    plans: Vec<Plan>,
    run: impl Fn(usize) -> Line + Sync,
    without: impl Fn(usize, &'static str) -> Line + Sync,
    stopped: impl Fn() -> bool + Sync,
) -> Vec<Line> {
    let board = Mutex::new(Board::new(plans));
    let changed = Condvar::new();
    let lock = || -> MutexGuard<'_, Board> { board.lock().unwrap_or_else(PoisonError::into_inner) };
    let work = |lane: Lane| {
        let mut held = lock();
        loop {
            let (index, line) = match held.next(lane) {
                Next::Done => return,
                Next::Wait => {
                    held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Next::Without(index, need) => (index, without(index, need)),
                Next::Start(index) => {
                    held.states[index] = State::Running;
                    drop(held);
                    let line = run(index);
                    held = lock();
                    (index, line)
                }
            };
            held.states[index] = State::Ended(Box::new(line));
            held.stopped |= stopped();
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for lane in Lane::ALL {
            scope.spawn(move || work(lane));
        }
    });
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    board
        .states
        .into_iter()
        .filter_map(|state| match state {
            State::Ended(line) => Some(*line),
            State::Pending | State::Running => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;
    use crate::outcome::Outcome;

    const PLANS: [Plan; 5] = [
        plan("build", Lane::Compute, &[]),
        plan("cluster", Lane::Wait, &["build"]),
        plan("unit", Lane::Compute, &["build"]),
        plan("links", Lane::Wait, &[]),
        plan("demo", Lane::Wait, &["unit"]),
    ];

    const fn plan(name: &'static str, lane: Lane, needs: &'static [&'static str]) -> Plan {
        Plan { name, lane, needs }
    }

    fn line(index: usize, outcome: Outcome) -> Line {
        Line {
            suite: PLANS[index].name,
            outcome,
            start: Duration::ZERO,
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            before: None,
        }
    }

    fn passed(index: usize) -> Line {
        line(index, Outcome::Passed(String::new()))
    }

    fn without(index: usize, need: &'static str) -> Line {
        line(index, Outcome::Failed(format!("needs {need}")))
    }

    #[test]
    fn a_lane_takes_the_first_suite_that_can_run_and_waits_for_the_other_lane() {
        let mut board = Board::new(PLANS.to_vec());
        assert_eq!(board.next(Lane::Compute), Next::Start(0));
        board.states[0] = State::Running;
        assert_eq!(board.next(Lane::Compute), Next::Wait);
        // `cluster` needs `build`, which runs; `links` needs nothing.
        assert_eq!(board.next(Lane::Wait), Next::Start(3));
        board.states[3] = State::Running;
        assert_eq!(board.next(Lane::Wait), Next::Wait);
        board.states[0] = State::Ended(Box::new(passed(0)));
        assert_eq!(board.next(Lane::Compute), Next::Start(2));
        assert_eq!(board.next(Lane::Wait), Next::Start(1));
        board.stopped = true;
        assert_eq!(board.next(Lane::Wait), Next::Done);
    }

    #[test]
    fn both_lanes_run_at_the_same_time() {
        // `unit` and `cluster` end only when both have begun.
        let both = Barrier::new(2);
        let meet = |index: usize| {
            if ["unit", "cluster"].contains(&PLANS[index].name) {
                both.wait();
            }
            passed(index)
        };
        let lines = run(PLANS.to_vec(), meet, without, || false);
        assert_eq!(lines.len(), PLANS.len());
    }

    #[test]
    fn what_needs_a_suite_that_failed_is_not_run() {
        let lines = run(
            PLANS.to_vec(),
            |index| match PLANS[index].name {
                "build" => line(index, Outcome::Failed("broken".to_owned())),
                _ => passed(index),
            },
            without,
            || false,
        );
        let outcomes: Vec<_> = lines.iter().map(|line| (line.suite, &line.outcome)).collect();
        assert_eq!(
            outcomes,
            [
                ("build", &Outcome::Failed("broken".to_owned())),
                ("cluster", &Outcome::Failed("needs build".to_owned())),
                ("unit", &Outcome::Failed("needs build".to_owned())),
                ("links", &Outcome::Passed(String::new())),
                ("demo", &Outcome::Failed("needs unit".to_owned())),
            ]
        );
    }

    #[test]
    fn after_a_signal_nothing_begins() {
        let lines = run(PLANS.to_vec(), passed, without, || true);
        assert!(lines.len() <= 2, "{lines:?}");
    }
}
