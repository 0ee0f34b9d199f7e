//! What a rule or a target reads: the fields that both have.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_sdk::{MetricSource, PodScrape, Quantity, nearest};
use serde::Deserialize;

use super::positive_duration;

/// The sources, with an example of each.
const SOURCES: [(&str, &str); 8] = [
    ("observed-traffic", r#"{"source": "observed-traffic"}"#),
    (
        "custom",
        r#"{"source": "custom", "metric": "requests", "selector": "verb=GET"}"#,
    ),
    (
        "external",
        r#"{"source": "external", "metric": "queue_depth", "selector": "queue=orders"}"#,
    ),
    (
        "resource",
        r#"{"source": "resource", "resource": "cpu", "threshold": "50m"}"#,
    ),
    (
        "prometheus",
        r#"{"source": "prometheus", "server": "main", "query": "sum(rate(hits{app='{name}'}[{window}]))"}"#,
    ),
    (
        "pods",
        r#"{"source": "pods", "port": 9090, "path": "/metrics", "metric": "sessions", "labels": {"kind": "ws"}}"#,
    ),
    (
        "dlx-concurrency",
        r#"{"source": "dlx-concurrency", "average": "10"}"#,
    ),
    (
        "dlx-rate",
        r#"{"source": "dlx-rate", "average": "20", "window": "1m"}"#,
    ),
];

/// One rule or target as written. Which fields belong together depends on the source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    source: Option<String>,
    pub window: Option<String>,
    /// Of rules only.
    pub threshold: Option<Number>,
    /// Of targets only.
    pub value: Option<Number>,
    /// Of targets only.
    pub average: Option<Number>,
    /// Of targets only.
    pub utilization: Option<Number>,
    metric: Option<String>,
    selector: Option<String>,
    resource: Option<String>,
    server: Option<String>,
    query: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// People write numbers with and without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Text(String),
    Number(serde_json::Number),
}

impl Number {
    /// As text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }

    pub fn quantity(&self, field: &str) -> Result<Quantity, String> {
        let quantity = self.text().parse();
        quantity.map_err(|error| format!("{field}: {error}"))
    }
}

/// Reads a JSON list of them.
pub(super) fn list(text: &str) -> Result<Vec<Written>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not such a list: {error}"))
}

impl Written {
    pub fn window(&self) -> Result<Option<Duration>, String> {
        let window = self.window.as_deref().map(positive_duration);
        window.transpose().map_err(|problem| format!("window: {problem}"))
    }

    /// What is read.
    pub fn source(mut self) -> Result<MetricSource, String> {
        let name = match self.source.take() {
            Some(name) => name,
            None if self.metric.is_some() => "custom".into(),
            None => return Err("it has no metric and no source".into()),
        };
        self.source_of(&name).map_err(|problem| {
            let example = SOURCES.iter().find(|(known, _)| *known == name);
            match example {
                Some((_, example)) => format!("{problem}; write it like {example}"),
                None => problem,
            }
        })
    }

    fn source_of(self, name: &str) -> Result<MetricSource, String> {
        match name {
            "observed-traffic" => {
                self.only(&[])?;
                Ok(MetricSource::ObservedTraffic)
            }
            "dlx-concurrency" => {
                self.only(&[])?;
                Ok(MetricSource::DlxConcurrency)
            }
            "dlx-rate" => {
                self.only(&[])?;
                Ok(MetricSource::DlxRate)
            }
            "custom" => {
                self.only(&["metric", "selector"])?;
                Ok(MetricSource::Custom {
                    name: metric(self.metric)?,
                    selector: self.selector,
                })
            }
            "external" => {
                self.only(&["metric", "selector"])?;
                Ok(MetricSource::External {
                    name: metric(self.metric)?,
                    selector: self.selector,
                })
            }
            "resource" => {
                self.only(&["resource"])?;
                let letters = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
                Ok(MetricSource::Resource(named("resource", self.resource, letters)?))
            }
            "prometheus" => {
                self.only(&["server", "query"])?;
                let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                let query = self.query.filter(|query| !query.trim().is_empty());
                Ok(MetricSource::Prometheus {
                    server: named("server", self.server, letters)?,
                    query: query.ok_or("it has no query")?,
                })
            }
            "pods" => {
                self.only(&["port", "path", "metric", "labels"])?;
                Ok(MetricSource::Pods(self.scrape()?))
            }
            unknown => {
                let names = || SOURCES.iter().map(|(name, _)| *name);
                let hint = match nearest::nearest(unknown, names()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
                };
                Err(format!("source `{unknown}` is unknown; {hint}"))
            }
        }
    }

    fn scrape(self) -> Result<PodScrape, String> {
        let prometheus = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let metric = named("metric", self.metric, prometheus)?;
        let port = self.port.filter(|port| *port > 0).ok_or("it has no port")?;
        let path = self.path.unwrap_or_else(|| "/metrics".into());
        if !path.starts_with('/') || path.contains(|c: char| !c.is_ascii_graphic() || c == '#') {
            return Err(format!("`{path}` is not a path"));
        }
        Ok(PodScrape {
            port,
            path,
            metric,
            labels: self.labels.unwrap_or_default().into_iter().collect(),
        })
    }

    /// What does not belong to the source would have no effect, and nobody would notice.
    fn only(&self, fields: &[&str]) -> Result<(), String> {
        let given = [
            ("metric", self.metric.is_some()),
            ("selector", self.selector.is_some()),
            ("resource", self.resource.is_some()),
            ("server", self.server.is_some()),
            ("query", self.query.is_some()),
            ("port", self.port.is_some()),
            ("path", self.path.is_some()),
            ("labels", self.labels.is_some()),
        ];
        let stray = given
            .iter()
            .find(|(field, given)| *given && !fields.contains(field));
        match stray {
            Some((field, _)) => Err(format!("`{field}` does not belong to this source")),
            None => Ok(()),
        }
    }
}

fn metric(name: Option<String>) -> Result<String, String> {
    named("metric", name, |c| {
        c.is_ascii_alphanumeric() || "_-.:".contains(c)
    })
}

fn named(what: &str, name: Option<String>, letters: impl Fn(char) -> bool) -> Result<String, String> {
    let name = name.ok_or_else(|| format!("it has no {what}"))?;
    if name.is_empty() || !name.chars().all(letters) {
        return Err(format!("`{name}` is not the name of a {what}"));
    }
    Ok(name)
}
