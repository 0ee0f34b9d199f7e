//! What the owner of a workload wrote on it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use dormouse_sdk::{Rule, Scaling, duration, nearest};
use thiserror::Error;

mod rules;
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
    /// Others are there, but none that opts in.
    #[error(
        "annotation dormouse.dev/sleep-after is missing, and without it or dormouse.dev/targets the others have no effect; {}",
        duration::ACCEPTED
    )]
    NotOptedIn,
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

/// Reads all annotations of a workload.
///
/// # Errors
/// Everything that is wrong, not only the first.
pub fn read(annotations: &BTreeMap<String, String>) -> Result<Request, Vec<Problem>> {
    let ours: BTreeMap<&str, &str> = annotations
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())))
        .filter(|(key, _)| !OF_THE_HOST.contains(key))
        .collect();
    if ours.is_empty() {
        return Ok(Request::None);
    }
    let mut problems = unknown(&ours);
    let sleep_after = value(&ours, "sleep-after", positive_duration, &mut problems);
    let services = value(&ours, "services", service_names, &mut problems);
    let rules = value(
        &ours,
        "rules",
        |text| rules::read(text, sleep_after),
        &mut problems,
    );
    let wake_timeout = value(&ours, "wake-timeout", positive_duration, &mut problems);
    let replicas = value(&ours, "replicas", replicas, &mut problems);
    let scaling = scaling(&ours, &mut problems);
    // The host reads it itself; here it only has to be right.
    let _ = value(&ours, "at-zero", at_zero, &mut problems);
    let paused = value(&ours, "paused", flag, &mut problems).unwrap_or(false);
    // While there is a typo, the one that is missing may well be the one that is misspelt.
    if problems.is_empty() && sleep_after.is_none() && scaling.is_none() && !ours.contains_key("paused") {
        problems.push(Problem::NotOptedIn);
    }
    if problems.is_empty() && scaling.is_some() && sleep_after.is_none() {
        let of_sleep = ["rules", "services", "wake-timeout", "replicas"];
        let without = of_sleep.into_iter().filter(|key| ours.contains_key(key));
        problems.extend(without.map(|key| Problem::incomplete(key, "sleep-after")));
    }
    if let (Some(replicas), Some(scaling)) = (replicas, &scaling)
        && !(scaling.min_replicas..=scaling.max_replicas).contains(&replicas)
    {
        problems.push(Problem::OutOfBounds {
            replicas,
            min: scaling.min_replicas,
            max: scaling.max_replicas,
        });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if paused {
        return Ok(Request::Paused);
    }
    if sleep_after.is_none() && scaling.is_none() {
        return Ok(Request::None);
    }
    let rules = sleep_after.map_or_else(Vec::new, |sleep_after| {
        rules.unwrap_or_else(|| vec![Rule::observed_traffic(sleep_after)])
    });
    Ok(Request::Managed(Managed {
        services,
        rules,
        scaling,
        wake_timeout,
        replicas,
    }))
}

/// How many replicas it has while it is up. `targets` and `max-replicas` belong together.
fn scaling(ours: &BTreeMap<&str, &str>, problems: &mut Vec<Problem>) -> Option<Scaling> {
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

fn unknown(ours: &BTreeMap<&str, &str>) -> Vec<Problem> {
    let names = || KNOWN.iter().map(|(name, _)| *name);
    let unknown = ours.iter().filter(|(key, _)| !names().any(|name| name == **key));
    let problem = |(key, value): (&&str, &&str)| Problem::Unknown {
        key: (*key).into(),
        value: (*value).into(),
        hint: match nearest::nearest(key, names()) {
            Some(meant) => format!("did you mean dormouse.dev/{meant}?"),
            None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
        },
    };
    unknown.map(problem).collect()
}

/// Reads one annotation. A problem of a value names the annotation, the value and the accepted form.
fn value<T, E: Display>(
    ours: &BTreeMap<&str, &str>,
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
