//! Settings of the line, and its time.

use std::sync::Arc;
use std::time::Duration;

use dormouse_scaling::hpa::Settings;
use jiff::Timestamp;

use crate::Overrides;

/// Settings of the [`Autoscaler`](crate::Autoscaler).
#[derive(Clone, Debug)]
pub struct Config {
    /// What flags say.
    pub overrides: Overrides,
    /// How long a target that was just declared or updated is left alone before its traffic is observed.
    pub settle: Duration,
    /// Longest listing of a source, and longest time that a run of a target takes beside its readings. Everything in them has a deadline
    /// already; this is the last resort.
    pub round_limit: Duration,
    /// How often Sleepers without an owner are looked for.
    pub sweep_interval: Duration,
    /// What holds for all targets that their metrics scale.
    pub scaling: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            overrides: Overrides::default(),
            settle: Duration::from_secs(10),
            round_limit: Duration::from_secs(300),
            sweep_interval: Duration::from_secs(60),
            scaling: Settings::default(),
        }
    }
}

/// Says what time it is. Tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that is not the wall's.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}
