//! Rules and readings.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use dormouse_model::{Quantity, window_name};

/// A resource is idle when every one of its rules is: the reading is at or below the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name of what is read, for people: `requests`.
    pub metric: String,
    /// How far back the reading looks, and how long a resource is left alone after an update or a wake.
    pub window: Duration,
    /// The largest reading that still counts as idle.
    pub threshold: Quantity,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.metric, window_name(self.window))
    }
}

/// What was read for a rule. Three-valued: nothing is ever guessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    /// A value.
    Value(Quantity),
    /// The source works but knows nothing about this resource; the text says what is missing.
    NoData(Cow<'static, str>),
    /// The source failed; the text says how.
    Error(String),
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::NoData(why) if why.is_empty() => f.write_str("no data"),
            Self::NoData(why) => write!(f, "no data ({why})"),
            Self::Error(why) => write!(f, "error ({why})"),
        }
    }
}
