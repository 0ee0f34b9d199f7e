//! The configuration that an operator has to write for a plugin, as the plugin describes itself.

use dormouse_plugin::types::{Description, WantedGrant};
use serde_json::{Map, Value};

/// Lines of YAML: the `plugins` block of the configuration, and of the chart's values.
pub(super) fn lines(name: &str, description: &Description) -> Vec<String> {
    let mut lines = vec!["plugins:".to_owned(), format!("  {}:", yaml_text(name))];
    let grants = grants(&description.wants);
    let keys = description.config_schema.as_ref().map(keys).unwrap_or_default();
    if grants.is_empty() && keys.is_empty() {
        lines.push("    {}  # nothing to configure".to_owned());
    }
    if !grants.is_empty() {
        lines.push("    grants:".to_owned());
        lines.extend(grants.into_iter().map(|line| format!("      {line}")));
    }
    if !keys.is_empty() {
        lines.push("    config:".to_owned());
        lines.extend(keys.into_iter().map(|line| format!("      {line}")));
    }
    lines
}

/// Each grant once, with everything that is wanted under its name.
fn grants(wants: &[WantedGrant]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for grant in wants {
        if !names.contains(&grant.name.as_str()) {
            names.push(&grant.name);
        }
    }
    names.into_iter().flat_map(|name| grant(name, wants)).collect()
}

fn grant(name: &str, wants: &[WantedGrant]) -> Vec<String> {
    let wanted: Vec<_> = wants.iter().filter(|grant| grant.name == name).collect();
    let mut lines: Vec<_> = wanted.iter().map(|grant| format!("# {}", grant.why)).collect();
    let lists: Option<Vec<_>> = wanted.iter().map(|grant| grant.value.as_array()).collect();
    match (lists, wanted.first()) {
        (Some(lists), _) => {
            lines.push(format!("{}:", yaml_text(name)));
            // JSON is YAML.
            lines.extend(lists.into_iter().flatten().map(|item| format!("  - {item}")));
        }
        (None, Some(grant)) => lines.push(format!("{}: {}", yaml_text(name), grant.value)),
        (None, None) => {}
    }
    lines
}

/// The keys of a configuration: those that are needed, and the others with what holds without them.
fn keys(schema: &Value) -> Vec<String> {
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let required = schema["required"].as_array();
    let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|known| known == key));
    let mut lines = Vec::new();
    for (key, property) in properties {
        if let Some(description) = property["description"].as_str() {
            lines.push(format!("# {description}"));
        }
        let key_text = yaml_text(key);
        lines.push(match &property["default"] {
            Value::Null if is_required(key) => format!("{key_text}: \"\"  # needed"),
            Value::Null => format!("# {key_text}: \"\""),
            default => format!("# {key_text}: {default}"),
        });
    }
    lines
}

/// A word as it is, and everything else quoted.
fn yaml_text(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins && text.chars().all(is_word) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dormouse_plugin::PluginConfig;
    use serde_json::json;

    use super::*;

    fn wanted(name: &str, value: Value, why: &str) -> WantedGrant {
        WantedGrant {
            name: name.to_owned(),
            value,
            why: why.to_owned(),
        }
    }

    /// What is printed is what the processes read.
    #[test]
    fn the_block_is_configuration_with_everything_that_is_wanted() {
        let list = |kind| json!([{"apiVersion": "apps/v1", "kind": kind, "verbs": ["list"]}]);
        let description = Description {
            title: "Office hours".to_owned(),
            version: "1.0.0".to_owned(),
            config_schema: Some(json!({
                "properties": {
                    "hours": {"type": "string", "description": "such as Mon-Fri 08:00-18:00"},
                    "kinds": {"type": "string", "default": "apps/v1/Deployment"},
                },
                "required": ["hours"],
            })),
            wants: vec![
                wanted("kubernetes", list("Deployment"), "to find what is annotated"),
                wanted("events", json!(true), "to say what is wrong"),
                wanted("kubernetes", list("StatefulSet"), "those, too"),
            ],
        };
        let text = lines("office-hours", &description).join("\n");
        let block: BTreeMap<String, BTreeMap<String, PluginConfig>> = serde_yaml::from_str(&text).unwrap();
        let config = &block["plugins"]["office-hours"];
        assert!(config.grants.events);
        assert_eq!(config.grants.kubernetes.len(), 2, "{text}");
        assert_eq!(
            config.config,
            BTreeMap::from([("hours".to_owned(), String::new())])
        );
        assert!(text.contains("# kinds: \"apps/v1/Deployment\""), "{text}");
        assert!(text.contains("# to find what is annotated"), "{text}");

        let nothing = Description::default();
        let text = lines("true", &nothing).join("\n");
        assert!(serde_yaml::from_str::<Value>(&text).is_ok(), "{text}");
    }
}
