//! Whose is what two Sleepers name.
//!
//! Two Sleepers may come to name one Service or one workload. Exactly one of them owns it, and the other is left awake. Who
//! does follows from the Sleepers alone, so everybody who looks comes to the same answer, and it is asked in every phase.

use std::cmp::Ordering;

use dormouse_model::{ObjectRef, Phase};
use jiff::Timestamp;

/// A Sleeper, as far as others that may name the same objects have to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Name of the Sleeper. Sleepers name objects of their own namespace only.
    pub name: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Where it stands.
    pub phase: Phase,
    /// It is being deleted: what it holds it gives back, and it takes nothing more.
    pub deleting: bool,
    /// Services that it names.
    pub services: Vec<String>,
    /// Workloads that it names.
    pub workloads: Vec<ObjectRef>,
}

/// Another Sleeper that owns something, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Name of the Sleeper that owns it.
    pub sleeper: String,
    /// What it owns, such as `Service web`.
    pub what: String,
    /// Why it is the other's.
    pub because: Precedence,
}

/// Why one Sleeper comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// It is asleep, on its way there, or on its way back.
    Holds,
    /// It was created earlier, or at the same second and its name comes first.
    Older,
}

impl Rival {
    /// The cause, in words for people.
    pub fn explain(&self) -> String {
        let because = match self.because {
            Precedence::Holds => "which has taken it before",
            Precedence::Older => "which is older",
        };
        format!("{} belongs to Sleeper {}, {because}", self.what, self.sleeper)
    }
}

impl Claimant {
    /// It has, or may have, its hands on what it names.
    fn is_active(&self) -> bool {
        self.phase != Phase::Awake
    }

    /// One that is awake and on its way out asks for nothing.
    fn claims(&self) -> bool {
        self.is_active() || !self.deleting
    }

    /// Who comes first. Whoever holds something keeps it until it gives it back: to take it away would cost requests.
    /// Otherwise the older one, so that nobody who comes later can take anything away.
    fn order(&self, other: &Self) -> Ordering {
        let rank = |one: &Self| (!one.is_active(), one.created.unwrap_or(Timestamp::MAX));
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.name.cmp(&other.name))
    }

    fn shares(&self, other: &Self) -> Option<String> {
        let service = self.services.iter().find(|name| other.services.contains(name));
        let workload = || {
            self.workloads
                .iter()
                .find(|mine| other.workloads.iter().any(|theirs| mine.is_same(theirs)))
        };
        match service {
            Some(service) => Some(format!("Service {service}")),
            None => workload().map(|workload| format!("{} {}", workload.kind, workload.name)),
        }
    }
}

/// Who owns something that `me` names too, if somebody else does; the first of them. `others` are the other Sleepers of the namespace.
///
/// Claims are granted in order, and one that is refused stands in nobody's way: with three in a row, of which the second shares
/// with the first and the third, the first and the third own what they name.
pub fn owner(me: &Claimant, others: &[Claimant]) -> Option<Rival> {
    let mut refused = Vec::new();
    first_before(me, others, &mut refused)
}

/// `known` remembers who was found to be refused or not, so that each is asked once.
fn first_before<'a>(
    me: &Claimant,
    others: &'a [Claimant],
    known: &mut Vec<(&'a str, bool)>,
) -> Option<Rival> {
    let mut before: Vec<_> = others
        .iter()
        .filter(|other| other.name != me.name && other.claims() && other.order(me) == Ordering::Less)
        .filter_map(|other| Some((other, me.shares(other)?)))
        .collect();
    before.sort_by(|(one, _), (other, _)| one.order(other));
    for (other, what) in before {
        let refused = match known.iter().find(|(name, _)| *name == other.name) {
            Some((_, refused)) => *refused,
            None => {
                // Ends: it goes up in the order only.
                let refused = first_before(other, others, known).is_some();
                known.push((&other.name, refused));
                refused
            }
        };
        if !refused {
            let because = if other.is_active() && !me.is_active() {
                Precedence::Holds
            } else {
                Precedence::Older
            };
            return Some(Rival {
                sleeper: other.name.clone(),
                what,
                because,
            });
        }
    }
    None
}
