//! Label and field selectors.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::ApiError;
use crate::resource::ResourceType;
use crate::value::{at, list_at, map_at, str_at};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A parsed `labelSelector`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the text of a query parameter.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let bad =
            |why: &str| ApiError::bad_request(format!("unable to parse requirement: {why} in \"{text}\""));
        let mut out = Vec::new();
        for part in split_top(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            if let Some((left, rest)) = part.split_once('(') {
                let values: Vec<String> = rest
                    .strip_suffix(')')
                    .ok_or_else(|| bad("missing )"))?
                    .split(',')
                    .map(|v| v.trim().to_owned())
                    .collect();
                let mut words = left.split_whitespace();
                let key = words.next().ok_or_else(|| bad("missing key"))?.to_owned();
                match (words.next(), words.next()) {
                    (Some("in"), None) => out.push(Requirement::In(key, values)),
                    (Some("notin"), None) => out.push(Requirement::NotIn(key, values)),
                    _ => return Err(bad("expected in or notin")),
                }
            } else if let Some(key) = part.strip_prefix('!').filter(|k| !k.contains('=')) {
                out.push(Requirement::Missing(key.trim().to_owned()));
            } else if let Some((k, v)) = part.split_once("!=") {
                out.push(Requirement::NotIn(k.trim().to_owned(), vec![v.trim().to_owned()]));
            } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                out.push(Requirement::In(k.trim().to_owned(), vec![v.trim().to_owned()]));
            } else if let Some((k, v)) = part.split_once('>') {
                let n = v.trim().parse().map_err(|_| bad("not an integer"))?;
                out.push(Requirement::Greater(k.trim().to_owned(), n));
            } else if let Some((k, v)) = part.split_once('<') {
                let n = v.trim().parse().map_err(|_| bad("not an integer"))?;
                out.push(Requirement::Less(k.trim().to_owned(), n));
            } else if part.contains(char::is_whitespace) {
                return Err(bad("unexpected space"));
            } else {
                out.push(Requirement::Exists(part.to_owned()));
            }
        }
        Ok(LabelSelector(out))
    }

    /// From `spec.selector` of a workload (`matchLabels`, `matchExpressions`).
    pub fn of_object(selector: Option<&Value>) -> Self {
        let mut out = Vec::new();
        let Some(selector) = selector else {
            return LabelSelector(out);
        };
        for (k, v) in map_at(selector, "matchLabels").into_iter().flatten() {
            out.push(Requirement::In(
                k.clone(),
                vec![v.as_str().unwrap_or("").to_owned()],
            ));
        }
        for e in list_at(selector, "matchExpressions") {
            let key = str_at(e, "key").unwrap_or("").to_owned();
            let values = list_at(e, "values")
                .iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            out.push(match str_at(e, "operator") {
                Some("In") => Requirement::In(key, values),
                Some("NotIn") => Requirement::NotIn(key, values),
                Some("Exists") => Requirement::Exists(key),
                _ => Requirement::Missing(key),
            });
        }
        LabelSelector(out)
    }

    /// From a plain map such as a Service's selector.
    pub fn of_map(map: &BTreeMap<String, String>) -> Self {
        LabelSelector(
            map.iter()
                .map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()]))
                .collect(),
        )
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        let get = |k: &str| labels.and_then(|l| l.get(k)).and_then(Value::as_str);
        self.0.iter().all(|r| match r {
            Requirement::In(k, vs) => get(k).is_some_and(|v| vs.iter().any(|x| x == v)),
            Requirement::NotIn(k, vs) => !get(k).is_some_and(|v| vs.iter().any(|x| x == v)),
            Requirement::Exists(k) => get(k).is_some(),
            Requirement::Missing(k) => get(k).is_none(),
            Requirement::Greater(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Requirement::Less(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        })
    }

    /// As the text that a Scale shows in `status.selector`.
    pub fn text(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|r| match r {
                Requirement::In(k, v) if v.len() == 1 => format!("{k}={}", v[0]),
                Requirement::In(k, v) => format!("{k} in ({})", v.join(",")),
                Requirement::NotIn(k, v) => format!("{k} notin ({})", v.join(",")),
                Requirement::Exists(k) => k.clone(),
                Requirement::Missing(k) => format!("!{k}"),
                Requirement::Greater(k, n) => format!("{k}>{n}"),
                Requirement::Less(k, n) => format!("{k}<{n}"),
            })
            .collect();
        parts.join(",")
    }
}

/// Splits at commas that are not inside parentheses.
fn split_top(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
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
    let more: &[&str] = match rt.id.as_str() {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "nodes" => &["spec.unschedulable"],
        "replicasets.apps" => &["status.replicas"],
        _ => &[],
    };
    more.contains(&key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors() {
        let o = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "5"}}});
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("tier", true),
            ("!tier", false),
            ("!absent,app", true),
            ("absent!=x", true),
            ("n>4", true),
            ("n<5", false),
            ("app=", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&o), want, "{text}");
        }
        assert!(LabelSelector::parse("app in (a").is_err());
        assert!(LabelSelector::parse("a b").is_err());
    }
}
