//! What one call of a plugin may use.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::{EngineConfig, PluginError};

/// What one call of a plugin may use. Each limit ends in a typed error of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory, all memories of the instance together. A useful scaler needs one or two MiB; guests in
    /// garbage-collected languages need tens.
    pub memory: usize,
    /// CPU time of the thread that runs the guest. Neither waiting nor a busy machine counts. Checked at each tick of the
    /// engine, so it is exact to about one tick.
    pub cpu: Duration,
    /// Time from entering the guest to its answer, waiting included. Ends a guest that sleeps or sits in a host call.
    pub wall: Duration,
    /// Calls of host functions. Ends a guest that asks for ever; generous, because a scaler may patch thousands of
    /// objects in one call.
    pub host_calls: u32,
    /// Bytes that the host sets aside for what the guest hands over, for the result of a call and for the arguments of
    /// each host call. Twenty thousand resources with their rules are about 16 MiB.
    pub returned_bytes: usize,
    /// Resources in one answer. Beyond it the surplus is left out.
    pub resources: usize,
    /// Log lines; more are dropped and counted.
    pub log_lines: u32,
    /// Calls of one plugin at the same time, so that one plugin cannot take every place of the host.
    pub concurrent_calls: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory: 128 << 20,
            cpu: Duration::from_secs(1),
            wall: Duration::from_secs(10),
            host_calls: 10_000,
            returned_bytes: 32 << 20,
            resources: 20_000,
            log_lines: 200,
            concurrent_calls: 8,
        }
    }
}

impl Limits {
    /// Until when host functions may take: a little before the wall limit, so that a guest whose API server does not
    /// answer can still say so with a typed error.
    pub(crate) fn host_budget(&self) -> Duration {
        self.wall - (self.wall / 20).min(Duration::from_millis(250))
    }

    /// The overrides of an operator on top of these limits.
    ///
    /// # Errors
    ///
    /// [`PluginError::InvalidConfiguration`] when a value is zero or beyond what the engine set aside.
    pub fn with(mut self, over: &LimitsOverride, engine: &EngineConfig) -> Result<Limits, PluginError> {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        // Where the operator says nothing, a call has at most what the container has for all of them.
        let most = engine.guest_memory.unwrap_or(usize::MAX);
        self.memory = self.memory.min(most);
        set(&mut self.memory, over.memory_bytes);
        set(&mut self.cpu, over.cpu);
        set(&mut self.wall, over.wall);
        set(&mut self.host_calls, over.host_calls);
        set(&mut self.returned_bytes, over.returned_bytes);
        set(&mut self.resources, over.resources);
        set(&mut self.log_lines, over.log_lines);
        set(&mut self.concurrent_calls, over.concurrent_calls);

        let invalid = |reason: String| Err(PluginError::InvalidConfiguration { reason });
        if self.memory > engine.memory_ceiling {
            return invalid(format!(
                "limits.memoryBytes is {}, but the engine sets aside {} bytes for an instance",
                self.memory, engine.memory_ceiling
            ));
        }
        if self.memory > most {
            return invalid(format!(
                "limits.memoryBytes is {}, but the container has {most} bytes for the calls of all plugins; raise its memory limit \
                 (resources.limits.memory of the autoscaler and the DLX)",
                self.memory
            ));
        }
        if self.concurrent_calls > engine.concurrent_calls {
            return invalid(format!(
                "limits.concurrentCalls is {}, but the host runs {} calls at once",
                self.concurrent_calls, engine.concurrent_calls
            ));
        }
        let zero = [
            ("memoryBytes", self.memory == 0),
            ("cpu", self.cpu.is_zero()),
            ("wall", self.wall.is_zero()),
            ("hostCalls", self.host_calls == 0),
            ("returnedBytes", self.returned_bytes == 0),
            ("resources", self.resources == 0),
            ("concurrentCalls", self.concurrent_calls == 0),
        ];
        if let Some((field, _)) = zero.iter().find(|(_, zero)| *zero) {
            return invalid(format!("limits.{field} is zero: no call could ever succeed"));
        }
        Ok(self)
    }
}

/// What an operator writes to change single limits of one plugin. Durations as `500ms`, `2s`, `1m30s`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsOverride {
    /// [`Limits::memory`], in bytes.
    pub memory_bytes: Option<usize>,
    /// [`Limits::cpu`].
    #[serde(deserialize_with = "duration")]
    pub cpu: Option<Duration>,
    /// [`Limits::wall`].
    #[serde(deserialize_with = "duration")]
    pub wall: Option<Duration>,
    /// [`Limits::host_calls`].
    pub host_calls: Option<u32>,
    /// [`Limits::returned_bytes`].
    pub returned_bytes: Option<usize>,
    /// [`Limits::resources`].
    pub resources: Option<usize>,
    /// [`Limits::log_lines`].
    pub log_lines: Option<u32>,
    /// [`Limits::concurrent_calls`].
    pub concurrent_calls: Option<usize>,
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let Some(span) = Option::<jiff::SignedDuration>::deserialize(from)? else {
        return Ok(None);
    };
    Duration::try_from(span).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<LimitsOverride, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn an_override_changes_only_what_it_names() {
        let over = parse("{cpu: 200ms, memoryBytes: 1048576}").unwrap();
        let limits = Limits::default().with(&over, &EngineConfig::default()).unwrap();
        assert_eq!(
            limits,
            Limits {
                cpu: Duration::from_millis(200),
                memory: 1 << 20,
                ..Limits::default()
            }
        );
    }

    #[test]
    fn a_misspelt_limit_is_answered_with_the_valid_names() {
        let error = parse("{memory: 1}").unwrap_err();
        assert!(
            error.contains("memoryBytes") && error.contains("concurrentCalls"),
            "{error}"
        );
    }

    #[test]
    fn limits_that_no_call_could_meet_are_refused() {
        for yaml in [
            "{cpu: 0s}",
            "{memoryBytes: 0}",
            "{memoryBytes: 99999999999}",
            "{concurrentCalls: 100000}",
        ] {
            let refused = Limits::default().with(&parse(yaml).unwrap(), &EngineConfig::default());
            assert!(
                matches!(refused, Err(PluginError::InvalidConfiguration { .. })),
                "{yaml}: {refused:?}"
            );
        }
        assert!(parse("{cpu: -1s}").is_err());
    }
}
