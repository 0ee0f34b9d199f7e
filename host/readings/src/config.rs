//! What the operator configures: the section `metrics` of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// The section `metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Deadline of each call to a source of metrics, whichever it is, once its turn has come. Default: 10s.
    #[serde(deserialize_with = "span")]
    pub timeout: Duration,
    /// Calls to one source of metrics at once, for each plugin. Default: 16.
    pub concurrency: usize,
    /// Prometheus servers by the name that rules use.
    pub prometheus: BTreeMap<String, Server>,
    /// Pods that are scraped.
    pub pods: PodLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            concurrency: 16,
            prometheus: BTreeMap::new(),
            pods: PodLimits::default(),
        }
    }
}

/// A Prometheus server, or whatever else answers its HTTP API (Thanos, Mimir, VictoriaMetrics).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// Where it is: `https://prometheus.monitoring:9090`, with a path prefix if it has one.
    pub url: String,
    /// How to log in.
    #[serde(default)]
    pub auth: Auth,
    /// How to trust it.
    #[serde(default)]
    pub tls: Tls,
    /// Deadline of a query, connecting included. Default: 5s.
    #[serde(default = "query_timeout", deserialize_with = "span")]
    pub timeout: Duration,
    /// Largest answer in bytes. Default: 1 MiB; one number needs about a hundred bytes.
    #[serde(default = "query_bytes", deserialize_with = "bytes")]
    pub max_response_bytes: usize,
    /// Namespaces whose resources may ask it. Default: all. A query can read everything that the server knows, and its
    /// result is shown on the Sleeper.
    #[serde(default)]
    pub namespaces: Option<Vec<String>>,
    /// Only queries of Dormouse's own are asked: no rule may name it.
    #[serde(skip)]
    pub own_queries_only: bool,
}

impl Server {
    /// One at a URL, with the defaults.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth: Auth::default(),
            tls: Tls::default(),
            timeout: query_timeout(),
            max_response_bytes: query_bytes(),
            namespaces: None,
            own_queries_only: false,
        }
    }
}

/// How to log in: not at all, by bearer token, or by name and password. Secrets are in files, read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Auth {
    /// File with a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// User name for basic authentication.
    pub username: Option<String>,
    /// File with the password that belongs to it.
    pub password_file: Option<PathBuf>,
}

/// How to trust a server, and how to be trusted. All files are PEM and are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates of the authorities to trust. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Certificate chain of the client.
    pub cert_file: Option<PathBuf>,
    /// Private key that belongs to it.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must have, when it is not the host of the URL.
    pub server_name: Option<String>,
}

/// Limits of scraping pods.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodLimits {
    /// Deadline for one pod. Default: 3s.
    #[serde(deserialize_with = "span")]
    pub timeout: Duration,
    /// Pods of one workload that are scraped at most; more is an error. Default: 100.
    pub max_pods: usize,
    /// Largest answer of one pod in bytes. Default: 4 MiB.
    #[serde(deserialize_with = "bytes")]
    pub max_response_bytes: usize,
}

impl Default for PodLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3),
            max_pods: 100,
            max_response_bytes: 4 << 20,
        }
    }
}

fn query_timeout() -> Duration {
    Duration::from_secs(5)
}

fn query_bytes() -> usize {
    1 << 20
}

/// A number, or the text of one with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(serde_json::Number),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// `5s`, `1m30s`.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    dormouse_model::parse_duration(&text).map_err(serde::de::Error::custom)
}

/// `1048576`, `1Mi`.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    let count = dormouse_model::parse_bytes(&text).map_err(serde::de::Error::custom)?;
    usize::try_from(count).map_err(serde::de::Error::custom)
}

/// Shortest and longest deadline of a call: below the first nothing answers, above the second nobody waits.
const DEADLINES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(600));
/// Largest answer that can be allowed: it is held in memory.
const MOST_BYTES: usize = 256 << 20;
/// Most calls at once, and most pods of one workload.
const MOST: usize = 10_000;

fn deadline(span: Duration) -> Result<(), String> {
    if (DEADLINES.0..=DEADLINES.1).contains(&span) {
        return Ok(());
    }
    let shown = dormouse_model::format_duration;
    Err(format!(
        "{} is out of range: {} to {} is allowed",
        shown(span),
        shown(DEADLINES.0),
        shown(DEADLINES.1)
    ))
}

fn count(number: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&number) {
        return Ok(());
    }
    Err(format!("{number} is out of range: 1 to {most} is allowed"))
}

/// What is wrong with the section `metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("metrics.{key}: {problem}")]
pub struct ConfigError {
    /// Path of the key below `metrics`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Config {
    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// The first [`ConfigError`] with the key and what would be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut first = None;
        self.check_all(|error| {
            first.get_or_insert(error);
        });
        first.map_or(Ok(()), Err)
    }

    /// Tells everything that is wrong.
    pub fn check_all(&self, mut tell: impl FnMut(ConfigError)) {
        let mut say = |key: String, checked: Result<(), String>| {
            if let Err(problem) = checked {
                tell(ConfigError { key, problem });
            }
        };
        say("timeout".to_owned(), deadline(self.timeout));
        say("concurrency".to_owned(), count(self.concurrency, MOST));
        say("pods.timeout".to_owned(), deadline(self.pods.timeout));
        say("pods.maxPods".to_owned(), count(self.pods.max_pods, MOST));
        say(
            "pods.maxResponseBytes".to_owned(),
            count(self.pods.max_response_bytes, MOST_BYTES),
        );
        for (name, server) in &self.prometheus {
            if let Err((key, problem)) = server.check(name) {
                let dot = if key.is_empty() { "" } else { "." };
                say(format!("prometheus.{name}{dot}{key}"), Err(problem));
            }
        }
    }

    /// Every file that is named, with its key.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        for (name, server) in &self.prometheus {
            for (key, file) in [
                ("auth.bearerTokenFile", &server.auth.bearer_token_file),
                ("auth.passwordFile", &server.auth.password_file),
                ("tls.caFile", &server.tls.ca_file),
                ("tls.certFile", &server.tls.cert_file),
                ("tls.keyFile", &server.tls.key_file),
            ] {
                let named = file
                    .iter()
                    .map(|file| (format!("metrics.prometheus.{name}.{key}"), file.clone()));
                files.extend(named);
            }
        }
        files
    }
}

impl Server {
    fn check(&self, name: &str) -> Result<(), (&'static str, String)> {
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        if name.is_empty() || name.len() > 63 || !name.chars().all(letters) {
            return Err((
                "",
                "a server's name has letters, digits, `-`, `_` and `.`, at most 63".to_owned(),
            ));
        }
        self.base().map_err(|problem| ("url", problem))?;
        deadline(self.timeout).map_err(|problem| ("timeout", problem))?;
        count(self.max_response_bytes, MOST_BYTES).map_err(|problem| ("maxResponseBytes", problem))?;
        let Auth {
            bearer_token_file,
            username,
            password_file,
        } = &self.auth;
        match (bearer_token_file, username, password_file) {
            (None, None, None) | (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            _ => {
                return Err((
                    "auth",
                    "give either bearerTokenFile, or username and passwordFile".to_owned(),
                ));
            }
        }
        if username.as_ref().is_some_and(|name| name.contains(':')) {
            return Err(("auth.username", "it must not contain a colon".to_owned()));
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(("tls", "certFile and keyFile belong together".to_owned()));
        }
        if self.tls != Tls::default() && !self.is_https() {
            return Err((
                "tls",
                "it has no effect, because the URL begins with http:".to_owned(),
            ));
        }
        Ok(())
    }

    pub(crate) fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// The URL without a slash at its end.
    pub(crate) fn base(&self) -> Result<String, String> {
        const FORM: &str = "write a URL such as https://prometheus.monitoring:9090";
        let uri: Uri = self.url.parse().map_err(|error| format!("{error}; {FORM}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(FORM.to_owned());
        }
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("it must not contain a password; use auth.username and auth.passwordFile".to_owned());
        }
        if uri.query().is_some() || self.url.contains('#') {
            return Err(format!("it must not have a query or a fragment; {FORM}"));
        }
        Ok(self.url.trim_end_matches('/').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(yaml: &str) -> Result<Config, String> {
        let config: Config = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_section_as_the_reference_shows_it() {
        let yaml = "
timeout: 8s
concurrency: 4
prometheus:
  main:
    url: https://prometheus.monitoring:9090/prefix/
    timeout: 2s
    maxResponseBytes: 65536
    namespaces: [shop]
    auth: {username: dormouse, passwordFile: /secrets/password}
    tls: {caFile: /ca.pem, certFile: /tls.crt, keyFile: /tls.key, serverName: prometheus}
  plain: {url: 'http://10.0.0.1:9090'}
pods: {timeout: 1s, maxPods: 5}
";
        let config = checked(yaml).unwrap_or_else(|error| panic!("{error}"));
        let main = &config.prometheus["main"];
        assert_eq!(
            main.base().as_deref(),
            Ok("https://prometheus.monitoring:9090/prefix")
        );
        assert_eq!(main.timeout, Duration::from_secs(2));
        assert_eq!(config.prometheus["plain"].timeout, Duration::from_secs(5));
        assert_eq!(
            (config.pods.max_pods, config.pods.max_response_bytes),
            (5, 4 << 20)
        );
        assert_eq!(checked("{}"), Ok(Config::default()));
    }

    #[test]
    fn operator_08_sizes_may_have_units() {
        let config = checked("pods: {maxResponseBytes: 2Mi}").unwrap();
        assert_eq!(config.pods.max_response_bytes, 2 << 20);
        let config = checked("prometheus: {a: {url: 'http://x', maxResponseBytes: '65536'}}").unwrap();
        assert_eq!(config.prometheus["a"].max_response_bytes, 65_536);
    }

    #[test]
    fn operator_07_files_are_named_with_their_keys() {
        let config =
            checked("prometheus: {a: {url: 'https://x', auth: {bearerTokenFile: /t}, tls: {caFile: /c}}}")
                .unwrap();
        assert_eq!(
            config.files(),
            [
                (
                    "metrics.prometheus.a.auth.bearerTokenFile".to_owned(),
                    PathBuf::from("/t")
                ),
                ("metrics.prometheus.a.tls.caFile".to_owned(), PathBuf::from("/c")),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        for (yaml, said) in [
            (
                "prometheus: {main: {url: 'ftp://x'}}",
                "metrics.prometheus.main.url",
            ),
            ("prometheus: {main: {url: 'prometheus:9090'}}", "such as https://"),
            (
                "prometheus: {main: {url: 'http://me:secret@x'}}",
                "must not contain a password",
            ),
            ("prometheus: {main: {url: 'http://x/?a=b'}}", "query"),
            ("prometheus: {'ma in': {url: 'http://x'}}", "letters, digits"),
            (
                "prometheus: {main: {url: 'http://x', timeout: 0s}}",
                "main.timeout",
            ),
            ("prometheus: {main: {url: 'http://x', timeout: soon}}", "soon"),
            ("prometheus: {main: {}}", "url"),
            (
                "prometheus: {main: {url: 'http://x', auth: {username: a}}}",
                "passwordFile",
            ),
            (
                "prometheus: {main: {url: 'http://x', auth: {username: a, passwordFile: b, bearerTokenFile: c}}}",
                "either bearerTokenFile",
            ),
            (
                "prometheus: {main: {url: 'https://x', tls: {certFile: a}}}",
                "keyFile",
            ),
            (
                "prometheus: {main: {url: 'http://x', tls: {caFile: a}}}",
                "no effect",
            ),
            (
                "prometheus: {main: {url: 'https://x', tls: {insecure: true}}}",
                "insecure",
            ),
            ("promethius: {}", "promethius"),
            ("timeout: 0s", "metrics.timeout"),
            ("concurrency: 0", "metrics.concurrency"),
            ("pods: {timeout: 0s}", "metrics.pods.timeout"),
            // operator_06, operator_08: numbers without a unit, and beyond what can work.
            ("timeout: 5", "lacks a unit"),
            ("timeout: 1ns", "10ms to 10m"),
            ("pods: {maxPods: 0}", "metrics.pods.maxPods"),
            ("pods: {maxResponseBytes: 1Tx}", "1Mi"),
            ("pods: {maxResponseBytes: 1Ti}", "metrics.pods.maxResponseBytes"),
        ] {
            match checked(yaml) {
                Ok(config) => panic!("{yaml}: {config:?}"),
                Err(error) => {
                    assert!(error.contains(said), "{yaml}: {error}");
                    assert!(!error.contains("secret"), "{error}");
                }
            }
        }
    }
}
