//! Instant queries to Prometheus.

mod answer;
mod connection;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::{Request, StatusCode, header};
use dormouse_model::Quantity;
use http_body_util::Empty;
use thiserror::Error;

use crate::config::{Config, ConfigError, Server};
use crate::http::{HttpError, Response, USER_AGENT, clip, exchange};
use crate::{FileError, Measured, TlsError};
use answer::{QueryResult, Told};
use connection::{Connection, Ready};

/// Longest part of a server's own words in an error.
const WORDS: usize = 500;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrometheusError {
    /// The operator did not configure a server of this name.
    #[error("no Prometheus server {name:?} is configured; {}", those(.known))]
    UnknownServer {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The operator did not open the server to this namespace.
    #[error(
        "namespace {namespace} may not ask the Prometheus server {server:?} (metrics.prometheus.{server}.namespaces)"
    )]
    NotAllowed {
        /// The server.
        server: String,
        /// The namespace.
        namespace: String,
    },
    /// A file with a secret or a certificate cannot be used.
    #[error("Prometheus server {server:?}: {error}")]
    File {
        /// The server.
        server: String,
        /// Which file, and why.
        error: FileError,
    },
    /// The TLS settings cannot be used.
    #[error("Prometheus server {server:?}: {error}")]
    Tls {
        /// The server.
        server: String,
        /// Which, and why.
        error: TlsError,
    },
    /// It did not answer.
    #[error("Prometheus server {server:?}: {error}")]
    Http {
        /// The server.
        server: String,
        /// Why.
        error: HttpError,
    },
    /// It refused the query or could not carry it out.
    #[error("Prometheus server {server:?} answered {status}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Refused {
        /// The server.
        server: String,
        /// The HTTP status.
        status: StatusCode,
        /// What it says of it.
        message: String,
    },
    /// It answered with something that is no result of a query.
    #[error("Prometheus server {server:?} did not answer as Prometheus does: {problem}")]
    Malformed {
        /// The server.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// A result of which no single number can be made.
    #[error("the query gives {result}, and one number is wanted; {hint}")]
    NotOneNumber {
        /// What the query gives, such as `3 series`.
        result: String,
        /// What helps.
        hint: &'static str,
    },
    /// A result that does not say which pods it is about.
    #[error(
        "the query gives {result}, and a number for each pod is wanted: series with the label pod, or pod_name"
    )]
    NotOfPods {
        /// What the query gives, such as `a matrix`.
        result: String,
    },
}

/// Makes of a result what is wanted.
type Reader<T> = fn(&QueryResult) -> Result<T, answer::Unusable>;

fn those(known: &[String]) -> String {
    if known.is_empty() {
        "there is none in metrics.prometheus".to_owned()
    } else {
        format!("configured are {}", known.join(", "))
    }
}

/// The servers that the operator configured. Cheap to clone.
#[derive(Clone)]
pub struct Prometheus {
    servers: Arc<BTreeMap<String, Configured>>,
}

struct Configured {
    config: Server,
    /// Up to the path of the query function.
    base: String,
    connection: Connection,
    /// The warnings that were logged last, so that each is said once.
    warned: Mutex<Vec<String>>,
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.keys()).finish()
    }
}

impl Prometheus {
    /// The servers of a configuration. Nobody is asked yet, and no file is read.
    ///
    /// # Errors
    /// [`ConfigError`], see [`Config::check`].
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let mut servers = BTreeMap::new();
        for (name, server) in &config.prometheus {
            let base = server.base().map_err(|problem| ConfigError {
                key: format!("prometheus.{name}.url"),
                problem,
            })?;
            let logs_in = server.auth.bearer_token_file.is_some() || server.auth.username.is_some();
            if logs_in && !server.is_https() {
                tracing::warn!(
                    server = name,
                    "the secret of this Prometheus server goes over the network in the clear: its URL begins with http:"
                );
            }
            let configured = Configured {
                connection: Connection::new(name, server),
                config: server.clone(),
                base,
                warned: Mutex::default(),
            };
            servers.insert(name.clone(), configured);
        }
        Ok(Self {
            servers: Arc::new(servers),
        })
    }

    /// Asks a server, on behalf of a resource in `namespace`. An empty result and NaN are no data.
    ///
    /// # Errors
    /// [`PrometheusError`]
    pub async fn query(
        &self,
        namespace: &str,
        server: &str,
        query: &str,
    ) -> Result<Measured, PrometheusError> {
        let configured = self.server(namespace, server)?;
        if configured.config.own_queries_only {
            return Err(self.unknown(server));
        }
        configured.query(server, query, answer::number).await
    }

    /// Asks a server for numbers about pods, on behalf of a resource in `namespace`: the name of the pod and the value, of each series. NaN
    /// is left out.
    ///
    /// # Errors
    /// [`PrometheusError`]
    pub async fn query_pods(
        &self,
        namespace: &str,
        server: &str,
        query: &str,
    ) -> Result<Vec<(String, Quantity)>, PrometheusError> {
        let configured = self.server(namespace, server)?;
        configured.query(server, query, answer::of_pods).await
    }

    fn unknown(&self, server: &str) -> PrometheusError {
        let known = self.servers.iter();
        let known = known.filter(|(_, configured)| !configured.config.own_queries_only);
        PrometheusError::UnknownServer {
            name: clip(server, 63),
            known: known.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// A server that a namespace may ask.
    fn server(&self, namespace: &str, server: &str) -> Result<&Configured, PrometheusError> {
        let configured = self.servers.get(server).ok_or_else(|| self.unknown(server))?;
        let allowed = configured.config.namespaces.as_ref();
        if allowed.is_some_and(|allowed| !allowed.iter().any(|known| known == namespace)) {
            return Err(PrometheusError::NotAllowed {
                server: server.to_owned(),
                namespace: namespace.to_owned(),
            });
        }
        Ok(configured)
    }
}

impl Configured {
    async fn query<T>(&self, server: &str, query: &str, read: Reader<T>) -> Result<T, PrometheusError> {
        let ready = self.connection.ready().await?;
        let timeout = self.config.timeout;
        let parameters = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            // The server need not go on when nobody waits any more.
            .append_pair("timeout", &format!("{}ms", timeout.as_millis()))
            .finish();
        // GET, not POST: proxies that check permissions take POST for a write.
        let mut request = Request::get(format!("{}/api/v1/query?{parameters}", self.base))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(authorization) = &ready.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| self.malformed(server, &ready, &error.to_string()))?;
        let response = exchange(&ready.client, request, self.config.max_response_bytes, timeout).await;
        let response = response.map_err(|error| PrometheusError::Http {
            server: server.to_owned(),
            error,
        })?;
        self.understand(server, &ready, &response, read)
    }

    fn understand<T>(
        &self,
        server: &str,
        ready: &Ready,
        response: &Response,
        read: Reader<T>,
    ) -> Result<T, PrometheusError> {
        let told = answer::told(&response.body);
        let words = match (&told, response.status) {
            (Ok(Told::Failure(message)), _) => message.clone(),
            (Ok(Told::Result { result, warnings }), StatusCode::OK) => {
                self.warn(server, ready, warnings);
                return read(result).map_err(|error| match error {
                    answer::Unusable::Malformed(problem) => self.malformed(server, ready, &problem),
                    answer::Unusable::NotOneNumber { result, hint } => {
                        PrometheusError::NotOneNumber { result, hint }
                    }
                    answer::Unusable::NotOfPods(result) => PrometheusError::NotOfPods { result },
                });
            }
            (Err(problem), StatusCode::OK) => return Err(self.malformed(server, ready, problem)),
            (_, status) if status.is_redirection() => {
                let location = response.headers.get(header::LOCATION);
                let location = location
                    .and_then(|location| location.to_str().ok())
                    .unwrap_or("elsewhere");
                format!(
                    "it redirects to {location}; redirects are not followed, so write the final address into metrics.prometheus.{server}.url"
                )
            }
            _ => String::from_utf8_lossy(&response.body).into_owned(),
        };
        Err(PrometheusError::Refused {
            server: server.to_owned(),
            status: response.status,
            message: clip(&ready.without_secrets(&words), WORDS),
        })
    }

    fn malformed(&self, server: &str, ready: &Ready, problem: &str) -> PrometheusError {
        PrometheusError::Malformed {
            server: server.to_owned(),
            problem: clip(&ready.without_secrets(problem), WORDS),
        }
    }

    fn warn(&self, server: &str, ready: &Ready, warnings: &[String]) {
        let warnings: Vec<_> = warnings
            .iter()
            .take(5)
            .map(|warning| clip(&ready.without_secrets(warning), WORDS))
            .collect();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.is_empty() && *warned != warnings {
            tracing::warn!(server, ?warnings, "Prometheus answers with warnings");
            *warned = warnings;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_for_own_queries_is_unknown_to_rules() {
        let own = Server {
            own_queries_only: true,
            ..Server::at("http://127.0.0.1:1")
        };
        let config = Config {
            prometheus: BTreeMap::from([
                ("own".to_owned(), own),
                ("main".to_owned(), Server::at("http://127.0.0.1:1")),
            ]),
            ..Config::default()
        };
        let prometheus = Prometheus::new(&config).unwrap();
        let asked = prometheus.query("shop", "own", "vector(1)").await;
        let unknown = PrometheusError::UnknownServer {
            name: "own".to_owned(),
            known: vec!["main".to_owned()],
        };
        assert_eq!(asked, Err(unknown));
        let own = prometheus.query_pods("shop", "own", "vector(1)").await;
        assert!(matches!(own, Err(PrometheusError::Http { .. })), "{own:?}");
    }
}
