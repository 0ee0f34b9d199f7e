//! Metrics that are read from somebody other than the API server.
//!
//! * [`Prometheus`]: instant queries to the servers that the operator configured, by name. Nobody else chooses an address.
//! * [`Pods`]: the text that pods serve for Prometheus, read from the pods themselves and summed.
//!
//! An answer is a value, no data (with what is missing), or a typed error. Everything has a deadline and a size that it
//! may not exceed, and the number of calls at once is bounded. Redirects are not followed. What secrets say never
//! appears in an error.

use dormouse_model::Quantity;

pub mod config;
pub mod exposition;
pub mod template;

mod files;
mod http;
mod pods;
mod prometheus;
mod tls;

pub use config::{Config, ConfigError};
pub use files::FileError;
pub use http::HttpError;
pub use pods::{Pod, Pods, Scrape, ScrapeError};
pub use prometheus::{Prometheus, PrometheusError};
pub use tls::TlsError;

/// What a source that works has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A value.
    Value(Quantity),
    /// It knows nothing; the text says what is missing.
    NoData(String),
}
