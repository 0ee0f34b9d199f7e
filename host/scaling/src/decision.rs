//! Idle or not.

use std::fmt;
use std::time::Duration;

use dormouse_model::{Quantity, ScaleEvent, ScaleEventKind, window_name};
use jiff::Timestamp;

use crate::time::after;
use crate::{Rule, Sample};

/// A rule and what was read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The rule.
    pub rule: Rule,
    /// What was read for it.
    pub sample: Sample,
    /// Whether the DLX counts it, in traffic that it has stepped into.
    pub observed: bool,
    /// When the answer becomes another one by the mere passing of time, if that is known.
    pub changes_at: Option<Timestamp>,
}

/// What one rule says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// At or below the threshold.
    Idle,
    /// Above the threshold.
    InUse,
    /// Nothing is known.
    NoData,
    /// The reading failed.
    Error,
}

impl Input {
    /// What this rule says by itself.
    pub fn verdict(&self) -> Verdict {
        match &self.sample {
            Sample::Value(value) if *value <= self.rule.threshold => Verdict::Idle,
            Sample::Value(_) => Verdict::InUse,
            Sample::NoData(_) => Verdict::NoData,
            Sample::Error(_) => Verdict::Error,
        }
    }
}

impl fmt::Display for Input {
    /// `requests over 10m: 3, threshold 0`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}, threshold {}",
            self.rule, self.sample, self.rule.threshold
        )
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every rule is idle: it may be put to sleep.
    Idle {
        /// What was read for each rule.
        inputs: Vec<Input>,
    },
    /// It stays awake.
    Keep(KeepReason),
}

/// Why a resource stays awake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// It has no rules, so nothing can say that it is idle.
    NoRules,
    /// It was updated or woken less than its largest window ago.
    Debounced {
        /// What happened.
        event: ScaleEventKind,
        /// When.
        at: Timestamp,
        /// The largest window of the rules.
        window: Duration,
    },
    /// It was updated or woken at a time that nobody recorded, so it may have been just now.
    UndatedEvent {
        /// What happened.
        event: ScaleEventKind,
    },
    /// A reading is above its threshold.
    InUse {
        /// The rule.
        rule: Rule,
        /// The reading.
        value: Quantity,
    },
    /// A reading failed.
    Error {
        /// The rule.
        rule: Rule,
        /// How the reading failed.
        error: String,
    },
    /// A reading is missing.
    NoData {
        /// The rule.
        rule: Rule,
        /// What is missing.
        missing: String,
    },
}

impl KeepReason {
    /// One word for status and metrics: `NoRules`, `Debounced`, `InUse`, `Error` or `NoData`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NoRules => "NoRules",
            Self::Debounced { .. } | Self::UndatedEvent { .. } => "Debounced",
            Self::InUse { .. } => "InUse",
            Self::Error { .. } => "Error",
            Self::NoData { .. } => "NoData",
        }
    }
}

impl Decision {
    /// One word for status and metrics: `Idle`, or the reason's [`KeepReason::outcome`].
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Idle { .. } => "Idle",
            Self::Keep(reason) => reason.outcome(),
        }
    }

    /// Whether it may be put to sleep.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Idle { .. })
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => f.write_str("it has no rules, so nothing says that it is idle"),
            Self::Debounced { event, at, window } => {
                write!(f, "{event} at {at} is less than {} ago", window_name(*window))
            }
            Self::UndatedEvent { event } => {
                write!(f, "{event} at an unknown time, which may have been just now")
            }
            Self::InUse { rule, value } => {
                write!(f, "{rule} is {value}, above the threshold {}", rule.threshold)
            }
            Self::Error { rule, error } => write!(f, "{rule} cannot be read: {error}"),
            Self::NoData { rule, missing } if missing.is_empty() => write!(f, "{rule} has no data"),
            Self::NoData { rule, missing } => write!(f, "{rule} has no data: {missing}"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { inputs } => {
                f.write_str("idle: ")?;
                for (position, input) in inputs.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(f, "{separator}{} is {}", input.rule, input.sample)?;
                }
                Ok(())
            }
            Self::Keep(reason) => write!(f, "awake: {reason}"),
        }
    }
}

/// Whether a resource is idle at `now`, given its rules with their readings and what is known to have happened to it.
///
/// `events` holds whatever is known; those whose kind does not debounce are passed over. An event in the
/// future (clocks differ) counts as one that happened just now.
///
/// When several things keep it awake, the one that is named is, in this order: no rules, a recent event (the
/// latest), a rule in use, a failed reading, a missing one; among rules the first.
pub fn decide(inputs: &[Input], events: &[ScaleEvent], now: Timestamp) -> Decision {
    let Some(window) = inputs.iter().map(|input| input.rule.window).max() else {
        return Decision::Keep(KeepReason::NoRules);
    };
    if let Some(reason) = recent(events, window, now) {
        return Decision::Keep(reason);
    }
    let first = |verdict| inputs.iter().find(|input| input.verdict() == verdict);
    let witness = first(Verdict::InUse)
        .or_else(|| first(Verdict::Error))
        .or_else(|| first(Verdict::NoData));
    match witness.cloned() {
        None => Decision::Idle {
            inputs: inputs.to_vec(),
        },
        Some(Input { rule, sample, .. }) => Decision::Keep(match sample {
            Sample::Value(value) => KeepReason::InUse { rule, value },
            Sample::Error(error) => KeepReason::Error { rule, error },
            Sample::NoData(missing) => KeepReason::NoData {
                rule,
                missing: missing.into_owned(),
            },
        }),
    }
}

fn recent(events: &[ScaleEvent], window: Duration, now: Timestamp) -> Option<KeepReason> {
    let debouncing = || events.iter().filter(|event| event.kind.debounces());
    let dated = debouncing()
        .filter_map(|event| Some((event.kind, event.at?)))
        .filter(|(_, at)| now < after(*at, window))
        .max_by_key(|(_, at)| *at)
        .map(|(event, at)| KeepReason::Debounced { event, at, window });
    dated.or_else(|| {
        debouncing()
            .find(|event| event.at.is_none())
            .map(|event| KeepReason::UndatedEvent { event: event.kind })
    })
}
