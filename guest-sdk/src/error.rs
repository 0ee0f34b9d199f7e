//! Why a call of the plugin failed.

use crate::ResourceId;
use crate::duration::ParseDurationError;
use crate::rule::ParseQuantityError;

/// Result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed, or one resource in it. The host reports it, keeps everything as it is, and asks again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration of the plugin is wrong, or a grant is missing. Says which, and what would be right.
    #[error("invalid configuration: {0}")]
    InvalidConfiguration(String),
    /// No such resource, or not one of this plugin's.
    #[error("no resource {0}")]
    UnknownResource(ResourceId),
    /// Something that may work next time.
    #[error("{0}")]
    Transient(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The configuration is wrong; the text says which key, and what would be right.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::InvalidConfiguration(text.into())
    }

    /// It may work next time.
    pub fn transient(text: impl Into<String>) -> Self {
        Self::Transient(text.into())
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self::Other(text.into())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(format!("JSON: {error}"))
    }
}

impl From<ParseDurationError> for Error {
    fn from(error: ParseDurationError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ParseQuantityError> for Error {
    fn from(error: ParseQuantityError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<jiff::Error> for Error {
    fn from(error: jiff::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<crate::kubernetes::Error> for Error {
    fn from(error: crate::kubernetes::Error) -> Self {
        use crate::kubernetes::Error as Kubernetes;
        match &error {
            // Only the operator can mend it, and by the configuration.
            Kubernetes::Denied(_) => Self::InvalidConfiguration(error.to_string()),
            Kubernetes::Conflict(_) | Kubernetes::Timeout(_) | Kubernetes::Unavailable(_) => {
                Self::Transient(error.to_string())
            }
            Kubernetes::NotFound(_)
            | Kubernetes::Invalid(_)
            | Kubernetes::Other(_)
            | Kubernetes::Unreadable { .. } => Self::Other(error.to_string()),
        }
    }
}

impl From<crate::lifecycle::Error> for Error {
    fn from(error: crate::lifecycle::Error) -> Self {
        use crate::lifecycle::Error as Lifecycle;
        match error {
            Lifecycle::UnknownResource(id) => Self::UnknownResource(id),
            Lifecycle::Superseded(_) | Lifecycle::Timeout(_) | Lifecycle::Unavailable(_) => {
                Self::Transient(error.to_string())
            }
            Lifecycle::Unsupported(_) | Lifecycle::Other(_) => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kubernetes, lifecycle};

    #[test]
    fn a_missing_grant_is_for_the_operator_and_an_outage_passes() {
        let denied = Error::from(kubernetes::Error::Denied("list apps/v1 Deployment".into()));
        assert!(
            matches!(&denied, Error::InvalidConfiguration(text) if text.contains("list apps/v1 Deployment"))
        );
        for passing in [
            kubernetes::Error::Conflict("x".into()),
            kubernetes::Error::Timeout("x".into()),
            kubernetes::Error::Unavailable("x".into()),
        ] {
            assert!(matches!(Error::from(passing), Error::Transient(_)));
        }
        let id = ResourceId::new("demo", "web");
        assert_eq!(
            Error::from(lifecycle::Error::UnknownResource(id.clone())),
            Error::UnknownResource(id)
        );
        assert!(matches!(
            Error::from(lifecycle::Error::Superseded("a wake".into())),
            Error::Transient(_)
        ));
    }
}
