//! What a plugin says that it is.

use serde_json::{Map, Value, json};

/// Optional: what the plugin is, for people and for `dormouse plugin inspect`, which makes of it the configuration that an operator has
/// to write. Exported by `register_about!`.
pub trait Describe: Default + 'static {
    /// The same at every call. Ask the host for nothing.
    fn describe(&self) -> About;
}

/// What a plugin is.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub(crate) title: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) wants: Vec<WantedGrant>,
}

/// A key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    name: String,
    description: String,
    needed: bool,
    default: Option<String>,
}

/// Something that the operator has to grant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WantedGrant {
    pub(crate) name: &'static str,
    pub(crate) value: Value,
    pub(crate) why: String,
}

impl About {
    /// In a few words: `Office hours`.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            keys: Vec::new(),
            wants: Vec::new(),
        }
    }

    /// A key of the configuration that has to be there.
    #[must_use]
    pub fn required_key(self, name: &str, description: &str) -> Self {
        self.with_key(name, description, true, None)
    }

    /// A key of the configuration that may be left out.
    #[must_use]
    pub fn key(self, name: &str, description: &str) -> Self {
        self.with_key(name, description, false, None)
    }

    /// A key of the configuration, and what holds without it.
    #[must_use]
    pub fn key_or(self, name: &str, description: &str, default: &str) -> Self {
        self.with_key(name, description, false, Some(default.into()))
    }

    fn with_key(mut self, name: &str, description: &str, needed: bool, default: Option<String>) -> Self {
        self.keys.push(Key {
            name: name.into(),
            description: description.into(),
            needed,
            default,
        });
        self
    }

    /// The names of all keys, for [`config::only`](crate::config::only).
    pub fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.name.as_str()).collect()
    }

    /// Wants to use these verbs on objects of a kind.
    #[must_use]
    pub fn wants_kubernetes(self, api_version: &str, kind: &str, verbs: &[&str], why: &str) -> Self {
        let value = json!([{ "apiVersion": api_version, "kind": kind, "verbs": verbs }]);
        self.wants("kubernetes", value, why)
    }

    /// Wants to put workloads of a kind to sleep. In which namespaces the operator says.
    #[must_use]
    pub fn wants_lifecycle(self, api_version: &str, kind: &str, why: &str) -> Self {
        let value = json!([{ "apiVersion": api_version, "kind": kind, "namespaces": ["default"] }]);
        self.wants("lifecycle", value, why)
    }

    /// Wants to record Events.
    #[must_use]
    pub fn wants_events(self, why: &str) -> Self {
        self.wants("events", json!(true), why)
    }

    fn wants(mut self, name: &'static str, value: Value, why: &str) -> Self {
        self.wants.push(WantedGrant {
            name,
            value,
            why: why.into(),
        });
        self
    }

    /// JSON Schema of the configuration.
    pub(crate) fn config_schema(&self) -> Option<Value> {
        if self.keys.is_empty() {
            return None;
        }
        let properties: Map<_, _> = self
            .keys
            .iter()
            .map(|key| (key.name.clone(), key.schema()))
            .collect();
        let required = self.keys.iter().filter(|key| key.needed);
        let required: Vec<_> = required.map(|key| key.name.as_str()).collect();
        Some(json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        }))
    }
}

impl Key {
    fn schema(&self) -> Value {
        let mut schema = json!({ "type": "string", "description": self.description });
        if let Some(default) = &self.default {
            schema["default"] = json!(default);
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_a_schema() {
        let about = About::new("Office hours")
            .required_key("hours", "such as Mon-Fri 08:00-18:00")
            .key_or("kinds", "what it looks at", "apps/v1/Deployment")
            .key("calendar", "days on which nobody works")
            .wants_events("to say what is wrong with an annotation");
        let schema = about.config_schema().unwrap();
        assert_eq!(schema["required"], json!(["hours"]));
        assert_eq!(schema["properties"]["kinds"]["default"], "apps/v1/Deployment");
        assert_eq!(schema["properties"]["calendar"]["default"], Value::Null);
        assert_eq!(about.keys(), ["hours", "kinds", "calendar"]);
        assert_eq!(about.wants[0].value, json!(true));
        assert_eq!(About::new("Nothing to configure").config_schema(), None);
    }
}
