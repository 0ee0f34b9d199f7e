//! What the platform calls its fields and states. Every key of the configuration is in [`about`].

use std::collections::BTreeSet;
use std::time::Duration;

use dormouse_sdk::MultiTargetStrategy;
use dormouse_sdk::prelude::*;

use crate::rules;

/// What the plugin is, with every key of its configuration. Which resources it has to read and patch is in two of them.
pub fn about() -> About {
    About::new("Resources that a platform scales by their status")
        .required_key(
            "api-version",
            "group and version of the resources, such as nuclio.io/v1beta1",
        )
        .required_key("kind", "their kind, such as NuclioFunction")
        .key(
            "namespace",
            "look at this one only; without it, at every one that the host watches",
        )
        .key(
            "selector",
            "only resources with these labels, as in kubectl -l; without it, all",
        )
        .key(
            "opt-in-path",
            "only resources that have this field; without it, all",
        )
        .key(
            "min-replicas-path",
            "resources whose number here is above 0 never sleep",
        )
        .key_or(
            "min-replicas-default",
            "the number for resources without that field",
            "0",
        )
        .key(
            "rules-path",
            "where a resource has its list of {metricName, windowSize, threshold}",
        )
        .key(
            "default-rules",
            "such a list, as JSON, for resources without one; without it they are never idle",
        )
        .key_or("state-path", "the field with the state", "status.state")
        .key(
            "event-path",
            "the field with the last scale event, in v3io's names",
        )
        .key("event-time-path", "the field with its time")
        .key_or(
            "status-subresource",
            "true when the CRD has one, else false",
            "true",
        )
        .required_key("ready-states", "states in which it serves, separated by commas")
        .required_key("asleep-states", "states in which it is at zero")
        .key(
            "failed-states",
            "states that the platform does not leave by itself",
        )
        .required_key("sleep-state", "what to write to put it to sleep")
        .required_key("wake-state", "what to write to wake it")
        .key_or("service", "its Service; {name} stands for its name", "{name}")
        .key(
            "port",
            "the Service port for header-routed requests; without it, the only one",
        )
        .key("name-header", "the header that names the target")
        .key("path-header", "the header that adds to the path")
        .key("readiness-timeout", "how long a request is held, such as 2m")
        .key(
            "scale-interval",
            "how often it is looked whether something is idle, such as 30s",
        )
        .key(
            "multi-target-strategy",
            "what becomes of a request for two: random, primary or canary",
        )
        .wants_events("to say what is wrong with a resource")
}

/// The configuration, read and checked. Its fields are its keys.
#[expect(missing_docs, reason = "each field is a key that `about` describes")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub selector: Option<String>,
    pub opt_in_path: Option<String>,
    pub min_replicas_path: Option<String>,
    pub min_replicas_default: i64,
    pub rules_path: Option<String>,
    pub default_rules: Vec<Rule>,
    pub state_path: String,
    pub event_path: Option<String>,
    pub event_time_path: Option<String>,
    pub status_subresource: bool,
    pub ready_states: BTreeSet<String>,
    pub asleep_states: BTreeSet<String>,
    pub failed_states: BTreeSet<String>,
    pub sleep_state: String,
    pub wake_state: String,
    pub service: ServiceTemplate,
    pub port: Option<u16>,
    pub name_header: Option<String>,
    pub path_header: Option<String>,
    pub readiness_timeout: Option<Duration>,
    pub scale_interval: Option<Duration>,
    pub multi_target_strategy: Option<MultiTargetStrategy>,
}

/// The name of a resource's Service, with `{name}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTemplate {
    before: String,
    after: String,
}

impl ServiceTemplate {
    fn parse(template: &str) -> Option<Self> {
        let (before, after) = template.split_once("{name}")?;
        (!after.contains(['{', '}']) && !before.contains(['{', '}'])).then(|| Self {
            before: before.into(),
            after: after.into(),
        })
    }

    /// The Service of a resource.
    pub fn name_for(&self, resource: &str) -> String {
        format!("{}{resource}{}", self.before, self.after)
    }

    /// The resource whose Service this would be.
    pub fn resource_of<'a>(&self, service: &'a str) -> Option<&'a str> {
        let name = service
            .strip_prefix(self.before.as_str())?
            .strip_suffix(self.after.as_str())?;
        (!name.is_empty()).then_some(name)
    }
}

impl Platform {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Error::InvalidConfiguration`] that names the key, and what would be right.
    pub fn configured() -> Result<Self> {
        config::only(&about().keys())?;
        let platform = Self {
            api_version: required("api-version", "such as nuclio.io/v1beta1")?,
            kind: required("kind", "such as NuclioFunction")?,
            namespace: optional("namespace"),
            selector: optional("selector"),
            opt_in_path: path("opt-in-path")?,
            min_replicas_path: path("min-replicas-path")?,
            min_replicas_default: config::parse("min-replicas-default", 0)?,
            rules_path: path("rules-path")?,
            default_rules: default_rules()?,
            state_path: path("state-path")?.unwrap_or_else(|| "status.state".into()),
            event_path: path("event-path")?,
            event_time_path: path("event-time-path")?,
            status_subresource: config::parse("status-subresource", true)?,
            ready_states: states("ready-states"),
            asleep_states: states("asleep-states"),
            failed_states: states("failed-states"),
            sleep_state: required("sleep-state", "the state to write to put a resource to sleep")?,
            wake_state: required("wake-state", "the state to write to wake a resource")?,
            service: service()?,
            port: optional_parsed("port")?,
            name_header: optional("name-header"),
            path_header: optional("path-header"),
            readiness_timeout: optional_duration("readiness-timeout")?,
            scale_interval: optional_duration("scale-interval")?,
            multi_target_strategy: strategy()?,
        };
        platform.check()?;
        Ok(platform)
    }

    /// What would be read alone but cannot work together.
    fn check(&self) -> Result<()> {
        for (key, states) in [
            ("ready-states", &self.ready_states),
            ("asleep-states", &self.asleep_states),
        ] {
            if states.is_empty() {
                return Err(config::invalid(
                    key,
                    "is missing; write states separated by commas, such as ready",
                ));
            }
        }
        let sets = [
            ("ready-states", &self.ready_states),
            ("asleep-states", &self.asleep_states),
            ("failed-states", &self.failed_states),
        ];
        for (index, (key, states)) in sets.iter().enumerate() {
            for (other, others) in &sets[index + 1..] {
                if let Some(both) = states.intersection(others).next() {
                    return Err(config::invalid(other, format!("`{both}` is among {key} already")));
                }
            }
        }
        for (key, request) in [
            ("sleep-state", &self.sleep_state),
            ("wake-state", &self.wake_state),
        ] {
            if let Some((set, _)) = sets.iter().find(|(_, states)| states.contains(request)) {
                return Err(config::invalid(
                    key,
                    format!("`{request}` is among {set}; a request must differ from what comes of it"),
                ));
            }
        }
        if self.sleep_state == self.wake_state {
            return Err(config::invalid("wake-state", "is the same as sleep-state"));
        }
        if self.event_path.is_some() != self.event_time_path.is_some() {
            return Err(config::invalid(
                "event-path",
                "and `event-time-path` go together; write both or neither",
            ));
        }
        if self.status_subresource {
            let written = [
                ("state-path", Some(&self.state_path)),
                ("event-path", self.event_path.as_ref()),
                ("event-time-path", self.event_time_path.as_ref()),
            ];
            for (key, path) in written {
                if let Some(path) = path.filter(|path| !path.starts_with("status.")) {
                    return Err(config::invalid(
                        key,
                        format!("`{path}` is outside of the status; set status-subresource to false"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The fields that a list needs. None of them lies inside another.
    pub fn fields(&self) -> Vec<String> {
        let optional = [
            &self.opt_in_path,
            &self.min_replicas_path,
            &self.rules_path,
            &self.event_path,
            &self.event_time_path,
        ];
        let mut paths: Vec<&str> = vec!["metadata.deletionTimestamp", &self.state_path];
        paths.extend(optional.into_iter().filter_map(Option::as_deref));
        paths.sort_unstable();
        paths.dedup();
        let inside = |path: &str| {
            paths
                .iter()
                .any(|outer| path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.')))
        };
        paths
            .iter()
            .filter(|path| !inside(path))
            .map(ToString::to_string)
            .collect()
    }
}

fn optional(key: &str) -> Option<String> {
    config::get(key)
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

fn required(key: &str, what: &str) -> Result<String> {
    optional(key).ok_or_else(|| config::invalid(key, format!("is missing: {what}")))
}

fn path(key: &str) -> Result<Option<String>> {
    match optional(key) {
        Some(path)
            if path
                .split('.')
                .any(|part| part.is_empty() || part.contains(char::is_whitespace)) =>
        {
            Err(config::invalid(
                key,
                format!("`{path}` is not a path; write fields with dots, such as status.state"),
            ))
        }
        path => Ok(path),
    }
}

fn states(key: &str) -> BTreeSet<String> {
    let text = config::get(key).unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|state| !state.is_empty())
        .map(str::to_owned)
        .collect()
}

fn default_rules() -> Result<Vec<Rule>> {
    let Some(text) = optional("default-rules") else {
        return Ok(Vec::new());
    };
    let written = serde_json::from_str(&text).map_err(|error| config::invalid("default-rules", error))?;
    rules::read(&written).map_err(|problem| config::invalid("default-rules", problem))
}

fn service() -> Result<ServiceTemplate> {
    let template = config::get_or("service", "{name}");
    ServiceTemplate::parse(&template).ok_or_else(|| {
        config::invalid(
            "service",
            format!("`{template}` is no template; write {{name}} once, such as nuclio-{{name}}"),
        )
    })
}

fn optional_parsed(key: &str) -> Result<Option<u16>> {
    match optional(key) {
        Some(_) => config::parse(key, 0).and_then(|port| match port {
            0 => Err(config::invalid(key, "must be a port from 1 to 65535")),
            port => Ok(Some(port)),
        }),
        None => Ok(None),
    }
}

fn optional_duration(key: &str) -> Result<Option<Duration>> {
    optional(key)
        .map(|_| config::duration(key, Duration::ZERO))
        .transpose()
}

fn strategy() -> Result<Option<MultiTargetStrategy>> {
    match optional("multi-target-strategy").as_deref() {
        None => Ok(None),
        Some("random") => Ok(Some(MultiTargetStrategy::Random)),
        Some("primary") => Ok(Some(MultiTargetStrategy::Primary)),
        Some("canary") => Ok(Some(MultiTargetStrategy::Canary)),
        Some(other) => Err(config::invalid(
            "multi-target-strategy",
            format!("`{other}` is unknown; write random, primary or canary"),
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests;
