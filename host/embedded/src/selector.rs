//! Label and field selectors.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::ApiError;
use crate::resource::ResourceType;
use crate::value::{at, list_at, str_at, string_map};

/// A label selector that looks at whole objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(dormouse_model::LabelSelector);

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the text of a query parameter.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))
    }

    /// From `spec.selector` of a workload (`matchLabels`, `matchExpressions`).
    pub fn of_object(selector: Option<&Value>) -> Self {
        let Some(selector) = selector else {
            return Self::default();
        };
        let labels = string_map(selector.get("matchLabels"));
        let mut parsed = dormouse_model::LabelSelector::of_labels(&labels);
        for expression in list_at(selector, "matchExpressions") {
            let values = list_at(expression, "values").iter();
            let values = values
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let text = |field| str_at(expression, field).unwrap_or_default();
            // What is no operator was refused when the object was written.
            parsed.and(text("key"), text("operator"), values);
        }
        Self(parsed)
    }

    /// From a plain map such as a Service's selector.
    pub fn of_map(map: &BTreeMap<String, String>) -> Self {
        Self(dormouse_model::LabelSelector::of_labels(map))
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        self.0
            .matches(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }

    /// As the text that a Scale shows in `status.selector`.
    pub fn text(&self) -> String {
        self.0.to_string()
    }
}

/// A parsed `fieldSelector`: (path, value, equal).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    pub fn parse(text: &str, rt: &ResourceType) -> Result<Self, ApiError> {
        let mut out = Vec::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let (k, v, equal) = if let Some((k, v)) = part.split_once("!=") {
                (k, v, false)
            } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (k, v, true)
            } else {
                return Err(ApiError::bad_request(format!("invalid field selector: {part}")));
            };
            let key = k.trim();
            if !supported(rt, key) {
                return Err(ApiError::bad_request(format!("field label not supported: {key}")));
            }
            out.push((key.to_owned(), v.trim().to_owned(), equal));
        }
        Ok(FieldSelector(out))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, want, equal)| {
            let have = match at(object, path) {
                Some(Value::String(s)) => s.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            (have == *want) == *equal
        })
    }
}

fn supported(rt: &ResourceType, key: &str) -> bool {
    if key == "metadata.name" || (key == "metadata.namespace" && rt.namespaced) {
        return true;
    }
    let more = match rt.id.as_str() {
        "pods" => "spec.nodeName spec.restartPolicy spec.serviceAccountName status.phase status.podIP",
        "events" => {
            "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid \
             regarding.kind regarding.namespace regarding.name regarding.uid reason reportingComponent \
             reportingController source type"
        }
        "namespaces" => "status.phase",
        "secrets" => "type",
        "services" => "spec.clusterIP spec.type",
        "nodes" => "spec.unschedulable",
        "replicasets.apps" => "status.replicas",
        _ => "",
    };
    more.split(' ').any(|field| field == key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_of_an_object_are_found() {
        let object = json!({"metadata": {"labels": {"app": "web"}}});
        let matches = |text: &str| LabelSelector::parse(text).unwrap().matches(&object);
        assert!(matches("") && matches("app=web") && matches("app in (web,api)"));
        assert!(!matches("app!=web") && !matches("tier"));
        assert!(LabelSelector::parse("app in (a").is_err());
        let selector = json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::of_object(Some(&selector));
        assert!(selector.matches(&object));
        assert_eq!(selector.text(), "app=web,!tier");
    }
}
