//! What the operator configured for this plugin. Never holds secrets.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result, duration, host, nearest};

/// The value of a key, or none.
pub fn get(key: &str) -> Option<String> {
    host::config_get(key)
}

/// All keys and values.
pub fn all() -> BTreeMap<String, String> {
    host::config_all().into_iter().collect()
}

/// The value of a key, or a default.
pub fn get_or(key: &str, default: &str) -> String {
    get(key).unwrap_or_else(|| default.into())
}

/// A duration such as `15m`, or a default.
///
/// # Errors
/// [`Error::InvalidConfiguration`] that names the key, the value and the accepted form.
pub fn duration(key: &str, default: Duration) -> Result<Duration> {
    match get(key) {
        Some(text) => duration::parse(&text).map_err(|error| invalid(key, error)),
        None => Ok(default),
    }
}

/// Any type that can be read from text, or a default.
///
/// # Errors
/// [`Error::InvalidConfiguration`] that names the key and the value.
pub fn parse<T>(key: &str, default: T) -> Result<T>
where
    T: FromStr,
    T::Err: Display,
{
    match get(key) {
        Some(text) => text
            .trim()
            .parse()
            .map_err(|error| invalid(key, format!("`{text}`: {error}"))),
        None => Ok(default),
    }
}

/// Refuses keys that are not among `known`, so that a typo is an error and not a silent default.
///
/// # Errors
/// [`Error::InvalidConfiguration`] that names the key, and the nearest known one.
pub fn only(known: &[&str]) -> Result<()> {
    for key in all().into_keys() {
        if known.contains(&key.as_str()) {
            continue;
        }
        let hint = match nearest::nearest(&key, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known keys are {}", known.join(", ")),
        };
        return Err(Error::InvalidConfiguration(format!(
            "unknown key `{key}`; {hint}"
        )));
    }
    Ok(())
}

/// An error about one key.
pub fn invalid(key: &str, problem: impl Display) -> Error {
    Error::InvalidConfiguration(format!("key `{key}`: {problem}"))
}
