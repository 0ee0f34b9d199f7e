//! Where readings come from. Every text is bounded and checked against what it will become: part of a URL, a query
//! parameter, a label.

use super::{Garbage, must};
use crate::bindings::dormouse::plugin::types as wit;
use crate::types::{MetricSource, PodScrape};
use crate::validate;

/// Bytes of the parameters of a reading of another kind.
const PARAMETERS: usize = 16 << 10;
/// Bytes of a query.
const QUERY: usize = 4 << 10;
/// Bytes of a label selector.
const SELECTOR: usize = 1 << 10;
/// Bytes of the name of a reading that the plugin has taken itself.
const NAME: usize = 256;
/// Labels of a pod scrape.
const LABELS: usize = 16;

pub(super) fn source(source: wit::MetricSource) -> Result<MetricSource, Garbage> {
    Ok(match source {
        wit::MetricSource::ObservedTraffic => MetricSource::ObservedTraffic,
        wit::MetricSource::Custom(custom) => {
            must("the metric name", &custom.name, validate::path_segment)?;
            MetricSource::Custom {
                name: custom.name,
                selector: selector(custom.selector)?,
            }
        }
        wit::MetricSource::External(external) => {
            must("the metric name", &external.name, validate::path_segment)?;
            MetricSource::External {
                name: external.name,
                selector: selector(external.selector)?,
            }
        }
        wit::MetricSource::Resource(name) => {
            must("the resource to measure", &name, validate::resource_to_measure)?;
            MetricSource::Resource(name)
        }
        wit::MetricSource::Prometheus(query) => {
            must("the Prometheus server", &query.server, |name| {
                validate::some_text(name, 63)
            })?;
            // Queries of several lines are good style; other control characters are not.
            let line = query.query.replace(['\n', '\t'], " ");
            must("the query", &line, |query| validate::some_text(query, QUERY))?;
            MetricSource::Prometheus {
                server: query.server,
                query: query.query,
            }
        }
        wit::MetricSource::Pods(scrape) => MetricSource::Pods(pods(scrape)?),
        wit::MetricSource::DlxConcurrency => MetricSource::DlxConcurrency,
        wit::MetricSource::DlxRate => MetricSource::DlxRate,
        wit::MetricSource::Given(given) => {
            must("the name of a reading", &given.name, |name| {
                validate::some_text(name, NAME)
            })?;
            must("the reading", &given.value, |value| validate::text(value, 64))?;
            MetricSource::Given {
                name: given.name,
                value: given.value,
            }
        }
        wit::MetricSource::Other(other) => {
            must("the kind of reading", &other.kind, |kind| {
                validate::text(kind, 63)
            })?;
            if other.parameters.len() > PARAMETERS {
                return Err(Garbage(format!(
                    "more than {PARAMETERS} bytes of parameters of a reading"
                )));
            }
            MetricSource::Other {
                kind: other.kind,
                parameters: other.parameters,
            }
        }
    })
}

/// An empty selector selects everything, like none.
fn selector(selector: Option<String>) -> Result<Option<String>, Garbage> {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return Ok(None);
    };
    must("the selector", &selector, |text| validate::text(text, SELECTOR))?;
    Ok(Some(selector))
}

fn pods(scrape: wit::PodScrape) -> Result<PodScrape, Garbage> {
    if scrape.port == 0 {
        return Err(Garbage("a port of 0".into()));
    }
    must("the path", &scrape.path, validate::url_path)?;
    must("the metric name", &scrape.metric, validate::metric_name)?;
    if scrape.labels.len() > LABELS {
        return Err(Garbage(format!(
            "{} labels of a metric, at most {LABELS} are allowed",
            scrape.labels.len()
        )));
    }
    for (name, value) in &scrape.labels {
        must("the label", name, validate::metric_name)?;
        must("the value of a label", value, |text| validate::text(text, 512))?;
    }
    let wit::PodScrape {
        port,
        path,
        metric,
        labels,
    } = scrape;
    Ok(PodScrape {
        port,
        path,
        metric,
        labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> wit::PodScrape {
        wit::PodScrape {
            port: 9090,
            path: "/metrics?all=1".into(),
            metric: "sessions".into(),
            labels: vec![("kind".into(), "ws".into()), ("zone".into(), String::new())],
        }
    }

    #[test]
    fn good_sources_pass() {
        assert!(source(wit::MetricSource::Pods(scrape())).is_ok());
        assert!(source(wit::MetricSource::Resource("nvidia.com/gpu".into())).is_ok());
        let custom = wit::CustomMetric {
            name: "requests".into(),
            selector: Some(String::new()),
        };
        assert_eq!(
            source(wit::MetricSource::Custom(custom)),
            Ok(MetricSource::Custom {
                name: "requests".into(),
                selector: None
            })
        );
        let query = wit::PrometheusQuery {
            server: "main".into(),
            query: "sum(\n\tup\n)".into(),
        };
        assert!(source(wit::MetricSource::Prometheus(query)).is_ok());
    }

    #[test]
    fn what_would_become_another_request_is_refused() {
        type Spoil = fn(&mut wit::PodScrape);
        let spoils: [Spoil; 8] = [
            |scrape| scrape.port = 0,
            |scrape| scrape.path = "metrics".into(),
            |scrape| scrape.path = "/metrics#part".into(),
            |scrape| scrape.path = "/a b".into(),
            |scrape| scrape.path = "/\r\nHost: x".into(),
            |scrape| scrape.metric = "a{b=\"c\"}".into(),
            |scrape| scrape.labels = vec![("a-b".into(), "c".into())],
            |scrape| scrape.labels = vec![("a".into(), "b".into()); 17],
        ];
        for (index, spoil) in spoils.into_iter().enumerate() {
            let mut scrape = scrape();
            spoil(&mut scrape);
            assert!(source(wit::MetricSource::Pods(scrape)).is_err(), "case {index}");
        }
        for name in ["", "a/../b", "a?b", "a b"] {
            let external = wit::ExternalMetric {
                name: name.into(),
                selector: None,
            };
            assert!(source(wit::MetricSource::External(external)).is_err(), "{name}");
        }
        let external = wit::ExternalMetric {
            name: "queue".into(),
            selector: Some("a".repeat(SELECTOR + 1)),
        };
        assert!(source(wit::MetricSource::External(external)).is_err());
        assert!(source(wit::MetricSource::Resource("c p u".into())).is_err());
        let query = |server: &str, query: String| {
            let server = server.into();
            source(wit::MetricSource::Prometheus(wit::PrometheusQuery {
                server,
                query,
            }))
        };
        assert!(query("", "up".into()).is_err());
        assert!(query("main", String::new()).is_err());
        assert!(query("main", "u\0p".into()).is_err());
        let long = query("main", "u".repeat(QUERY + 1));
        assert!(long.is_err_and(|Garbage(why)| why.len() < 200));
    }
}
