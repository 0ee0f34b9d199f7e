//! What decides about a simulated target: the functions that decide in a cluster.

mod hpa;
mod target;

use jiff::Timestamp;

pub(super) use self::hpa::OfHpa;
pub(super) use self::target::OfTarget;
use super::pods::Pods;
use super::recording::Row;

/// Who decides.
#[derive(Clone, Debug)]
pub(super) enum Kernel<'a> {
    /// kube-controller-manager.
    Hpa(OfHpa<'a>),
    /// The autoscaler.
    Target(OfTarget<'a>),
}

/// What a decision follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub row: &'a Row,
    pub pods: &'a Pods,
    pub replicas: i32,
    pub now: Timestamp,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// None, as something is not known.
    Undecided,
    /// It stays as it is.
    Stay,
    /// So many replicas, and why.
    Replicas(i32, String),
    /// It sleeps, and why.
    Sleep(String),
}

impl Kernel<'_> {
    /// What a target that is not asleep should be.
    pub fn decide(&mut self, seen: &Seen<'_>) -> Answer {
        match self {
            Self::Hpa(kernel) => kernel.decide(seen),
            Self::Target(kernel) => kernel.decide(seen),
        }
    }

    /// It was woken.
    pub fn wake(&mut self, now: Timestamp) {
        match self {
            Self::Hpa(_) => {}
            Self::Target(kernel) => kernel.wake(now),
        }
    }

    /// What the requests that wait need, if it is waking.
    pub fn meet_demand(&self, seen: &Seen<'_>) -> Answer {
        match self {
            Self::Hpa(_) => Answer::Stay,
            Self::Target(kernel) => kernel.meet_demand(seen),
        }
    }

    /// Time passes, with these readings.
    pub fn pass(&mut self, row: &Row, until: Timestamp) {
        match self {
            Self::Hpa(_) => {}
            Self::Target(kernel) => kernel.pass(row, until),
        }
    }
}
