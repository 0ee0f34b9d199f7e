//! The way to one server: client, trust and secret, made anew when one of their files changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::PrometheusError;
use crate::config::Server;
use crate::files::{line, read, wrong};
use crate::http::{client, tcp};
use crate::tls::{client_config, server_name};
use crate::{FileError, TlsError};

/// Files are looked at this often at most.
const LOOK: Duration = Duration::from_secs(1);
/// Spare connections to one server.
const IDLE: usize = 4;

/// What a request needs.
#[derive(Clone)]
pub(super) struct Ready {
    pub client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    pub authorization: Option<HeaderValue>,
    secrets: Arc<Vec<String>>,
}

impl Ready {
    /// A text of the server, in case it repeats what we sent.
    pub fn without_secrets(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), "***");
        self.secrets.iter().fold(text.to_owned(), hide)
    }
}

pub(super) struct Connection {
    name: String,
    config: Server,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    contents: Option<Contents>,
    ready: Option<Result<Ready, PrometheusError>>,
}

/// What the files say.
#[derive(PartialEq, Eq)]
struct Contents {
    token: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
    authorities: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

enum Failure {
    File(FileError),
    Tls(TlsError),
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl Connection {
    pub fn new(name: &str, config: &Server) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
            state: Mutex::default(),
        }
    }

    /// What a request needs, according to what the files say now. A file that cannot be used is an error until it can:
    /// going on with what it said before would hide that it is broken until the next start.
    pub async fn ready(&self) -> Result<Ready, PrometheusError> {
        let mut state = self.state.lock().await;
        if let (Some(looked), Some(ready)) = (state.looked, &state.ready)
            && looked.elapsed() < LOOK
        {
            return ready.clone();
        }
        let ready = match self.contents().await {
            Ok(contents) => match (&state.contents, &state.ready) {
                (Some(known), Some(Ok(ready))) if *known == contents => Ok(ready.clone()),
                (known, _) => {
                    if known.is_some() {
                        tracing::info!(
                            server = self.name,
                            "certificates or secrets of a Prometheus server changed"
                        );
                    }
                    let ready = self.build(&contents);
                    state.contents = Some(contents);
                    ready
                }
            },
            Err(error) => Err(Failure::File(error)),
        };
        let ready = ready.map_err(|failure| {
            let server = self.name.clone();
            match failure {
                Failure::File(error) => PrometheusError::File { server, error },
                Failure::Tls(error) => PrometheusError::Tls { server, error },
            }
        });
        state.looked = Some(Instant::now());
        state.ready = Some(ready.clone());
        ready
    }

    async fn contents(&self) -> Result<Contents, FileError> {
        let (auth, tls) = (&self.config.auth, &self.config.tls);
        Ok(Contents {
            token: maybe(auth.bearer_token_file.as_deref()).await?,
            password: maybe(auth.password_file.as_deref()).await?,
            authorities: maybe(tls.ca_file.as_deref()).await?,
            certificate: maybe(tls.cert_file.as_deref()).await?,
            key: maybe(tls.key_file.as_deref()).await?,
        })
    }

    fn build(&self, contents: &Contents) -> Result<Ready, Failure> {
        let (authorization, secrets) = self.authorization(contents)?;
        let tcp = tcp(self.config.timeout);
        // A new client has no connections yet, so that none goes on that was made with other trust.
        let connector = if self.config.is_https() {
            let identity = contents.certificate.as_deref().zip(contents.key.as_deref());
            let tls = client_config(contents.authorities.as_deref(), identity)?;
            let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
            match &self.config.tls.server_name {
                Some(name) => {
                    let resolver = FixedServerNameResolver::new(server_name(name)?);
                    builder
                        .with_server_name_resolver(resolver)
                        .enable_http1()
                        .wrap_connector(tcp)
                }
                None => builder.enable_http1().wrap_connector(tcp),
            }
        } else {
            // Never used: the connector looks at the scheme first.
            let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Identity(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
            HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(tcp)
        };
        Ok(Ready {
            client: client(connector, IDLE),
            authorization,
            secrets: Arc::new(secrets),
        })
    }

    fn authorization(&self, contents: &Contents) -> Result<(Option<HeaderValue>, Vec<String>), FileError> {
        let auth = &self.config.auth;
        let (path, value, secrets) = match (&auth.bearer_token_file, &auth.username, &auth.password_file) {
            (Some(path), _, _) => {
                let token = secret(path, contents.token.as_deref())?;
                (path, format!("Bearer {token}"), vec![token])
            }
            (None, Some(user), Some(path)) => {
                let password = secret(path, contents.password.as_deref())?;
                let encoded = STANDARD.encode(format!("{user}:{password}"));
                (path, format!("Basic {encoded}"), vec![encoded, password])
            }
            _ => return Ok((None, Vec::new())),
        };
        let mut value =
            HeaderValue::try_from(value).map_err(|_| wrong(path, "cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok((Some(value), secrets))
    }
}

async fn maybe(path: Option<&Path>) -> Result<Option<Vec<u8>>, FileError> {
    match path {
        Some(path) => read(path).await.map(Some),
        None => Ok(None),
    }
}

fn secret(path: &Path, content: Option<&[u8]>) -> Result<String, FileError> {
    line(path, content.unwrap_or_default()).map(str::to_owned)
}
