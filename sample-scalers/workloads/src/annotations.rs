//! What the owner of a workload wrote on it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use dormouse_sdk::{Rule, duration, nearest};
use thiserror::Error;

mod rules;

/// How all our annotations begin.
pub const PREFIX: &str = "dormouse.dev/";

/// Annotations that Dormouse itself writes.
const OF_THE_HOST: [&str; 2] = ["epoch", "parked-selector"];

/// What may stand behind the prefix, and what each accepts.
const KNOWN: [(&str, &str); 7] = [
    ("sleep-after", duration::ACCEPTED),
    (
        "services",
        "write the names of Services in this namespace, separated by commas, such as web,web-admin",
    ),
    ("rules", rules::ACCEPTED),
    ("wake-timeout", duration::ACCEPTED),
    (
        "replicas",
        "write a whole number from 1 up, in quotes, such as \"3\"",
    ),
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
    /// To sleep when it is idle.
    Sleep(Sleep),
}

/// How a workload sleeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// Services whose traffic wakes it. None: those that select its pods.
    pub services: Option<Vec<String>>,
    /// When it is idle.
    pub rules: Vec<Rule>,
    /// How long a request is held.
    pub wake_timeout: Option<Duration>,
    /// What a wake restores.
    pub replicas: Option<u32>,
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
    /// Others are there, but not the one that opts in.
    #[error(
        "annotation dormouse.dev/sleep-after is missing, and without it the others have no effect; {}",
        duration::ACCEPTED
    )]
    NotOptedIn,
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
    // The host reads it itself; here it only has to be right.
    let _ = value(&ours, "at-zero", at_zero, &mut problems);
    let paused = value(&ours, "paused", flag, &mut problems).unwrap_or(false);
    // While there is a typo, the one that is missing may well be the one that is misspelt.
    if problems.is_empty() && sleep_after.is_none() && !ours.contains_key("paused") {
        problems.push(Problem::NotOptedIn);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(match sleep_after {
        _ if paused => Request::Paused,
        None => Request::None,
        Some(sleep_after) => {
            let rules = rules.unwrap_or_else(|| vec![Rule::observed_traffic(sleep_after)]);
            Request::Sleep(Sleep {
                services,
                rules,
                wake_timeout,
                replicas,
            })
        }
    })
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
            let accepted = KNOWN
                .iter()
                .find(|(name, _)| *name == key)
                .map_or("", |(_, accepted)| *accepted);
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
