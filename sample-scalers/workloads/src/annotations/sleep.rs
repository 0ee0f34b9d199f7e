//! The annotations about sleep alone, which may also stand on an object that says elsewhere how many replicas its workload has.

use std::time::Duration;

use dormouse_sdk::{Rule, Scaling};

use super::{
    Managed, Ours, Problem, Request, flag, positive_duration, replicas, rules, service_names, value,
};

/// What they say.
pub(super) struct Sleep {
    pub after: Option<Duration>,
    services: Option<Vec<String>>,
    rules: Option<Vec<Rule>>,
    wake_timeout: Option<Duration>,
    pub replicas: Option<u32>,
    paused: bool,
}

impl Sleep {
    /// Which they are, behind the prefix.
    pub const KEYS: [&'static str; 6] = [
        "sleep-after",
        "services",
        "rules",
        "wake-timeout",
        "replicas",
        "paused",
    ];

    /// Rules without a window have that of `sleep-after`, and where there is none, `window`.
    pub fn read(ours: &Ours<'_>, window: Option<Duration>, problems: &mut Vec<Problem>) -> Self {
        let after = value(ours, "sleep-after", positive_duration, problems);
        let window = after.or(window);
        Self {
            after,
            services: value(ours, "services", service_names, problems),
            rules: value(ours, "rules", |text| rules::read(text, window), problems),
            wake_timeout: value(ours, "wake-timeout", positive_duration, problems),
            replicas: value(ours, "replicas", replicas, problems),
            paused: value(ours, "paused", flag, problems).unwrap_or(false),
        }
    }

    /// All together, if nothing is wrong. Without rules it sleeps by observed traffic.
    pub fn asked(
        self,
        opts_in: bool,
        scaling: Option<Scaling>,
        problems: Vec<Problem>,
    ) -> Result<Request, Vec<Problem>> {
        if !problems.is_empty() {
            return Err(problems);
        }
        if self.paused {
            return Ok(Request::Paused);
        }
        if !opts_in && scaling.is_none() {
            return Ok(Request::None);
        }
        let observed = || self.after.map(Rule::observed_traffic);
        let rules = if opts_in {
            self.rules.unwrap_or_else(|| observed().into_iter().collect())
        } else {
            Vec::new()
        };
        Ok(Request::Managed(Managed {
            services: self.services,
            rules,
            scaling,
            wake_timeout: self.wake_timeout,
            replicas: self.replicas,
        }))
    }
}
