//! What the owner of a workload wrote on it, and on an object of another autoscaler that may sleep by the same annotations.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use dormouse_sdk::{Rule, Scaling, duration, nearest};
use sleep::Sleep;
use thiserror::Error;

mod rules;
mod sleep;
mod source;
mod targets;

/// How all our annotations begin.
pub const PREFIX: &str = "dormouse.dev/";

/// Annotations that Dormouse itself writes.
const OF_THE_HOST: [&str; 2] = ["epoch", "parked-selector"];

const REPLICAS: &str = "write a whole number from 1 up, in quotes, such as \"3\"";

/// What may stand behind the prefix, and what each accepts.
const KNOWN: [(&str, &str); 11] = [
    ("sleep-after", duration::ACCEPTED),
    (
        "services",
        "write the names of Services in this namespace, separated by commas, such as web,web-admin",
    ),
    ("rules", rules::ACCEPTED),
    ("wake-timeout", duration::ACCEPTED),
    ("replicas", REPLICAS),
    ("targets", targets::ACCEPTED),
    ("min-replicas", REPLICAS),
    ("max-replicas", REPLICAS),
    ("behavior", targets::BEHAVIOR),
    ("at-zero", "write \"stand-in\" or \"off\""),
    ("paused", "write \"true\" or \"false\", in quotes"),
];

/// What a workload asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing: it carries none of our annotations, or only those of the host.
    None,
    /// To be left awake for now.
    Paused,
    /// To sleep when it is idle, to be scaled, or both.
    Managed(Managed),
}

/// How a workload sleeps, and how many replicas it has while it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Services whose traffic wakes it. None: those that select its pods.
    pub services: Option<Vec<String>>,
    /// When it is idle. None at all: it does not sleep.
    pub rules: Vec<Rule>,
    /// How many replicas it has while it is up. None: nothing changes that.
    pub scaling: Option<Scaling>,
    /// How long a request is held.
    pub wake_timeout: Option<Duration>,
    /// What a wake restores.
    pub replicas: Option<u32>,
}

impl Managed {
    /// Whether it goes to sleep at all.
    pub fn sleeps(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The same, but it stays awake. None: then nothing is left.
    pub fn without_sleep(self) -> Option<Self> {
        self.scaling.is_some().then(|| Self {
            rules: Vec::new(),
            ..self
        })
    }
}

/// An annotation that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Its value is wrong.
    #[error("annotation dormouse.dev/{key} is `{value}`: {problem}")]
    Value {
        /// Behind the prefix.
        key: &'static str,
        /// As written.
        value: String,
        /// What is wrong, and the accepted form.
        problem: String,
    },
    /// Nobody knows it.
    #[error("annotation dormouse.dev/{key} (`{value}`) is unknown; {hint}")]
    Unknown {
        /// Behind the prefix.
        key: String,
        /// As written.
        value: String,
        /// What was probably meant.
        hint: String,
    },
    /// It means something on a workload, and nothing on the object of another autoscaler.
    #[error("annotation dormouse.dev/{0} has no effect here: it belongs on a workload")]
    OfWorkloads(&'static str),
    /// Others are there, but none that opts in.
    #[error(
        "annotation dormouse.dev/sleep-after is missing, and without it or dormouse.dev/{or} the others have no effect; {}",
        duration::ACCEPTED
    )]
    NotOptedIn {
        /// The other one that opts in, behind the prefix.
        or: &'static str,
    },
    /// One has no effect without another.
    #[error("annotation dormouse.dev/{key} has no effect without dormouse.dev/{missing}; {accepted}")]
    Incomplete {
        /// Behind the prefix.
        key: &'static str,
        /// The one that is missing, behind the prefix.
        missing: &'static str,
        /// What that one accepts.
        accepted: &'static str,
    },
    /// A wake would restore what is corrected a moment later.
    #[error(
        "annotation dormouse.dev/replicas is {replicas}, which is not from dormouse.dev/min-replicas to dormouse.dev/max-replicas ({min} to {max})"
    )]
    OutOfBounds {
        /// What a wake restores.
        replicas: u32,
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
    },
    /// No number of replicas is allowed.
    #[error("annotation dormouse.dev/max-replicas is {max}, below dormouse.dev/min-replicas, which is {min}")]
    MaxBelowMin {
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
    },
}

/// The window of rules that say none, where `sleep-after` should and has a problem of its own, which is reported.
const ANY_WINDOW: Duration = Duration::from_secs(1);

/// Annotations of ours, behind the prefix.
type Ours<'a> = BTreeMap<&'a str, &'a str>;

fn ours(annotations: &BTreeMap<String, String>) -> Ours<'_> {
    let ours = annotations
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())));
    ours.filter(|(key, _)| !OF_THE_HOST.contains(key)).collect()
}

/// Reads the annotations of an object that says elsewhere how many replicas its workload has: a MemHpa, for instance. It is asked to sleep by
/// `sleep-after`, or by `rules` that say their own windows.
///
/// # Errors
/// Everything that is wrong, not only the first.
pub fn read_of_autoscaler(annotations: &BTreeMap<String, String>) -> Result<Request, Vec<Problem>> {
    let ours = ours(annotations);
    if ours.is_empty() {
        return Ok(Request::None);
    }
    let mut problems = unknown(&ours, &Sleep::KEYS);
    let window = ours.contains_key("sleep-after").then_some(ANY_WINDOW);
    let sleep = Sleep::read(&ours, window, &mut problems);
    let opts_in = ours.contains_key("sleep-after") || ours.contains_key("rules");
    if problems.is_empty() && !opts_in && !ours.contains_key("paused") {
        problems.push(Problem::NotOptedIn { or: "rules" });
    }
    sleep.asked(opts_in, None, problems)
}

/// Reads all annotations of a workload.
///
/// # Errors
/// Everything that is wrong, not only the first.
pub fn read(annotations: &BTreeMap<String, String>) -> Result<Request, Vec<Problem>> {
    let ours = ours(annotations);
    if ours.is_empty() {
        return Ok(Request::None);
    }
    let mut problems = unknown(&ours, &KNOWN.map(|(key, _)| key));
    let sleep = Sleep::read(&ours, Some(ANY_WINDOW), &mut problems);
    let scaling = scaling(&ours, &mut problems);
    // The host reads it itself; here it only has to be right.
    let _ = value(&ours, "at-zero", at_zero, &mut problems);
    // While there is a typo, the one that is missing may well be the one that is misspelt.
    if problems.is_empty() && sleep.after.is_none() && scaling.is_none() && !ours.contains_key("paused") {
        problems.push(Problem::NotOptedIn { or: "targets" });
    }
    if problems.is_empty() && scaling.is_some() && sleep.after.is_none() {
        let of_sleep = ["rules", "services", "wake-timeout", "replicas"];
        let without = of_sleep.into_iter().filter(|key| ours.contains_key(key));
        problems.extend(without.map(|key| Problem::incomplete(key, "sleep-after")));
    }
    if let (Some(replicas), Some(scaling)) = (sleep.replicas, &scaling)
        && !(scaling.min_replicas..=scaling.max_replicas).contains(&replicas)
    {
        problems.push(Problem::OutOfBounds {
            replicas,
            min: scaling.min_replicas,
            max: scaling.max_replicas,
        });
    }
    let opts_in = sleep.after.is_some();
    sleep.asked(opts_in, scaling, problems)
}

/// How many replicas it has while it is up. `targets` and `max-replicas` belong together.
fn scaling(ours: &Ours<'_>, problems: &mut Vec<Problem>) -> Option<Scaling> {
    let before = problems.len();
    let goals = value(ours, "targets", targets::read, problems);
    let min = value(ours, "min-replicas", replicas, problems);
    let max = value(ours, "max-replicas", replicas, problems);
    let behavior = value(ours, "behavior", targets::behavior, problems);
    if problems.len() > before {
        return None;
    }
    for key in ["max-replicas", "min-replicas", "behavior"] {
        if ours.contains_key(key) && !ours.contains_key("targets") {
            problems.push(Problem::incomplete(key, "targets"));
        }
    }
    if ours.contains_key("targets") && !ours.contains_key("max-replicas") {
        problems.push(Problem::incomplete("targets", "max-replicas"));
    }
    let (min, max) = (min.unwrap_or(1), max?);
    if max < min {
        problems.push(Problem::MaxBelowMin { min, max });
    }
    let mut scaling = Scaling::between(min, max).goals(goals?);
    scaling.behavior = behavior;
    Some(scaling)
}

impl Problem {
    fn incomplete(key: &'static str, missing: &'static str) -> Self {
        Self::Incomplete {
            key,
            missing,
            accepted: accepted(missing),
        }
    }
}

/// What an annotation accepts.
fn accepted(key: &str) -> &'static str {
    KNOWN
        .iter()
        .find(|(name, _)| *name == key)
        .map_or("", |(_, accepted)| *accepted)
}

/// Those that nobody knows, and those that are none of `accepted`.
fn unknown(ours: &Ours<'_>, accepted: &[&'static str]) -> Vec<Problem> {
    let unknown = ours.iter().filter(|(key, _)| !accepted.contains(key));
    let problem = |(key, value): (&&str, &&str)| match KNOWN.iter().find(|(name, _)| name == key) {
        Some((name, _)) => Problem::OfWorkloads(name),
        None => Problem::Unknown {
            key: (*key).into(),
            value: (*value).into(),
            hint: match nearest::nearest(key, accepted.iter().copied()) {
                Some(meant) => format!("did you mean dormouse.dev/{meant}?"),
                None => format!("known are {}", accepted.join(", ")),
            },
        },
    };
    unknown.map(problem).collect()
}

/// Reads one annotation. A problem of a value names the annotation, the value and the accepted form.
fn value<T, E: Display>(
    ours: &Ours<'_>,
    key: &'static str,
    read: impl FnOnce(&str) -> Result<T, E>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let text = ours.get(key)?;
    match read(text) {
        Ok(value) => Some(value),
        Err(problem) => {
            let accepted = accepted(key);
            let mut problem = problem.to_string();
            if !problem.contains(accepted) {
                problem = format!("{problem}; {accepted}");
            }
            problems.push(Problem::Value {
                key,
                value: (*text).into(),
                problem,
            });
            None
        }
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        Err("it must be longer than zero".into())
    } else {
        Ok(duration)
    }
}

fn service_names(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim) {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(letters) {
            return Err(format!("`{name}` is not the name of a Service"));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.into());
        }
    }
    Ok(names)
}

fn replicas(text: &str) -> Result<u32, &'static str> {
    let number = text
        .trim()
        .parse::<i32>()
        .ok()
        .and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| *number > 0)
        .ok_or("it is not such a number")
}

fn at_zero(text: &str) -> Result<(), &'static str> {
    match text.trim() {
        "stand-in" | "off" => Ok(()),
        _ => Err("it is neither"),
    }
}

fn flag(text: &str) -> Result<bool, &'static str> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it is neither"),
    }
}

#[cfg(test)]
mod tests;
