//! When a resource counts as idle.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

/// A number as Kubernetes writes quantities: `0`, `2`, `500m`, `1.5`, `10Ki`, `1e3`. Compared exactly by the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quantity(String);

/// A text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a quantity; write a number as Kubernetes does, such as 0, 2, 500m, 1.5 or 10Ki")]
pub struct ParseQuantityError(String);

impl Quantity {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is zero, however written: `0`, `0m`, `0.0`.
    pub fn is_zero(&self) -> bool {
        let end = self
            .0
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(self.0.len());
        !self.0[..end].contains(|c: char| ('1'..='9').contains(&c))
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseQuantityError(text.into());
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(error());
        }
        let known = [
            "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
        ];
        let exponent = || {
            let digits = suffix.strip_prefix(['e', 'E'])?;
            let digits = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())).then_some(())
        };
        if known.contains(&suffix) || exponent().is_some() {
            Ok(Self(text.into()))
        } else {
            Err(error())
        }
    }
}

impl From<u64> for Quantity {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the host takes the reading that a rule compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// The host steps into the traffic of the resource's Services from time to time and counts.
    ObservedTraffic,
    /// A metric of the custom metrics API that describes the resource's object.
    Custom {
        /// Without window suffix: the host asks for `<name>_per_<window>`.
        name: String,
        /// Which series of the metric count, as in `kubectl -l`. None: all.
        selector: Option<String>,
    },
    /// A metric of the external metrics API, in the resource's namespace.
    External {
        /// Its name, as the adapter knows it.
        name: String,
        /// Which series count, as in `kubectl -l`; several are added up. None: all.
        selector: Option<String>,
    },
    /// What the pods of the resource's workloads use, added up: `cpu` (in cores), `memory` (in bytes), or another name
    /// that the resource metrics API knows.
    Resource(String),
    /// The result of a query to a Prometheus server.
    Prometheus {
        /// The name under which the operator configured the server.
        server: String,
        /// PromQL with one number as its result. `{namespace}`, `{name}` (of the resource's object) and `{window}` are filled in;
        /// with doubled braces they stand for themselves.
        query: String,
    },
    /// A metric that the pods of the resource's workloads serve themselves, added up.
    Pods(PodScrape),
    /// Requests and open connections that the DLX has for the resource right now, held ones included. It says nothing while the DLX is
    /// not in the path. For goals only.
    DlxConcurrency,
    /// Requests and connections that arrive at the DLX for the resource in a second, on average over the window of the goal, at most a
    /// minute, or over the time since the first of them. It says nothing while the DLX is not in the path. For goals only.
    DlxRate,
    /// Nothing is read: the plugin has taken the reading itself.
    Given {
        /// What it is, for people: `outside Mon-Fri 08:00-18:00`.
        name: String,
        /// The reading.
        value: Quantity,
    },
    /// A reading that the contract has no case for yet. A host that does not know it reads an error, which never puts
    /// anything to sleep.
    Other {
        /// Names the kind of reading.
        kind: String,
        /// Its parameters, a JSON object.
        parameters: Value,
    },
}

/// A metric that pods serve in the Prometheus text format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodScrape {
    /// A port of the pods; plain HTTP.
    pub port: u16,
    /// Such as `/metrics`.
    pub path: String,
    /// The metric; all its series of all pods are added up.
    pub metric: String,
    /// Only series that have these labels with these values.
    pub labels: Vec<(String, String)>,
}

impl PodScrape {
    /// All series of a metric at `/metrics`.
    pub fn new(port: u16, metric: impl Into<String>) -> Self {
        Self {
            port,
            path: "/metrics".into(),
            metric: metric.into(),
            labels: Vec::new(),
        }
    }

    /// At another path.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Only series with this label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }
}

/// A resource is idle when *every* one of its rules is: the reading over the window is at or below the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the reading comes from.
    pub source: MetricSource,
    /// How far back the reading looks, in whole milliseconds. The largest window of a resource is also how long it is
    /// left alone after an update or a wake.
    pub window: Duration,
    /// At or below this the rule holds.
    pub threshold: Quantity,
}

impl Rule {
    /// No request and no open connection in the window. Needs no metrics stack.
    pub fn observed_traffic(window: Duration) -> Self {
        Self {
            source: MetricSource::ObservedTraffic,
            window,
            threshold: Quantity::from(0),
        }
    }

    /// A metric of the custom metrics API at or below a threshold.
    pub fn custom(metric: impl Into<String>, window: Duration, threshold: impl Into<Quantity>) -> Self {
        let name = metric.into();
        Self::of(MetricSource::Custom { name, selector: None }, window, threshold)
    }

    /// A metric of the external metrics API at or below a threshold; several series are added up.
    pub fn external(metric: impl Into<String>, window: Duration, threshold: impl Into<Quantity>) -> Self {
        let name = metric.into();
        Self::of(MetricSource::External { name, selector: None }, window, threshold)
    }

    /// What the pods use together (`cpu` in cores, `memory` in bytes) at or below a threshold.
    pub fn usage(resource: impl Into<String>, window: Duration, threshold: impl Into<Quantity>) -> Self {
        Self::of(MetricSource::Resource(resource.into()), window, threshold)
    }

    /// The result of a query to the Prometheus server of this name at or below a threshold. See [`MetricSource::Prometheus`].
    pub fn prometheus(
        server: impl Into<String>,
        query: impl Into<String>,
        window: Duration,
        threshold: impl Into<Quantity>,
    ) -> Self {
        let (server, query) = (server.into(), query.into());
        Self::of(MetricSource::Prometheus { server, query }, window, threshold)
    }

    /// A metric that the pods serve themselves at or below a threshold.
    pub fn pods(scrape: PodScrape, window: Duration, threshold: impl Into<Quantity>) -> Self {
        Self::of(MetricSource::Pods(scrape), window, threshold)
    }

    /// Idle, because the plugin knows so: once it has been left alone for the window. `name` says why, for people.
    pub fn idle(name: impl Into<String>, window: Duration) -> Self {
        Self::given(name, 0, window, 0)
    }

    /// A reading that the plugin has taken itself, at or below a threshold.
    pub fn given(
        name: impl Into<String>,
        value: impl Into<Quantity>,
        window: Duration,
        threshold: impl Into<Quantity>,
    ) -> Self {
        let (name, value) = (name.into(), value.into());
        Self::of(MetricSource::Given { name, value }, window, threshold)
    }

    /// Only series that this selector matches, as in `kubectl -l`. For custom and external metrics; others have none, and
    /// are left as they are.
    pub fn selector(mut self, wanted: impl Into<String>) -> Self {
        if let MetricSource::Custom { selector, .. } | MetricSource::External { selector, .. } =
            &mut self.source
        {
            *selector = Some(wanted.into());
        }
        self
    }

    fn of(source: MetricSource, window: Duration, threshold: impl Into<Quantity>) -> Self {
        Self {
            source,
            window,
            threshold: threshold.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_kubernetes_writes_them() {
        for good in [
            "0", "2", "500m", "1.5", "10Ki", "1e3", "1E3", "1E", "-1", "+1", ".5", "5.", "100n", "2e-3",
        ] {
            let quantity = Quantity::from_str(good).expect(good);
            assert_eq!(quantity.as_str(), good);
        }
        for bad in ["", "x", "1.2.3", "1 ", " 1", "10KB", "1e", "--1", "m", ".", "1,5"] {
            let error = Quantity::from_str(bad).expect_err(bad);
            assert!(error.to_string().contains("500m"), "{error}");
        }
    }

    #[test]
    fn zero_however_written() {
        for (text, zero) in [
            ("0", true),
            ("0m", true),
            ("0.00", true),
            ("0e3", true),
            ("1m", false),
            ("0.01", false),
        ] {
            assert_eq!(Quantity::from_str(text).expect(text).is_zero(), zero, "{text}");
        }
    }
}
