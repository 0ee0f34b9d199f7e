//! Dotted paths to fields of an object.

use serde_json::Value;

/// A dotted path such as `status.state` or `status.conditions.0.status`: names of fields, and indexes of lists.
///
/// A key that holds dots itself, as many annotations do, cannot be named.
#[derive(Clone, Copy, Debug)]
pub struct FieldPath<'a>(pub &'a str);

impl FieldPath<'_> {
    /// What is there. None: nothing is, or null.
    pub fn find(self, object: &Value) -> Option<&Value> {
        let mut value = object;
        for name in self.0.trim_start_matches('.').split('.') {
            value = match value {
                Value::Array(list) => list.get(name.parse::<usize>().ok()?)?,
                value => value.get(name)?,
            };
        }
        (!value.is_null()).then_some(value)
    }

    /// What is there, as text: a string as it is, everything else as JSON.
    pub fn text(self, object: &Value) -> Option<String> {
        self.find(object).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_dotted_path() {
        let object = json!({"status": {
            "state": "ready", "replicas": 0, "gone": null, "on": true,
            "conditions": [{"status": "True"}],
        }});
        for (path, text) in [
            ("status.state", Some("ready")),
            (".status.state", Some("ready")),
            ("status.replicas", Some("0")),
            ("status.on", Some("true")),
            ("status.conditions.0.status", Some("True")),
            ("status.conditions.0", Some(r#"{"status":"True"}"#)),
            ("status.conditions.1.status", None),
            ("status.conditions.first", None),
            ("status.gone", None),
            ("status.state.deeper", None),
            ("spec", None),
            ("", None),
        ] {
            assert_eq!(FieldPath(path).text(&object).as_deref(), text, "{path}");
        }
    }
}
