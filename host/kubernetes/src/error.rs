//! What can go wrong in talking to the cluster, told apart once and here.

use std::time::Duration;

use thiserror::Error;

/// A request to the cluster that did not succeed.
#[derive(Clone, Debug, Error)]
pub enum ClusterError {
    /// The object does not exist (404).
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The object changed since it was read (409). Read again and decide anew.
    #[error("{what} changed in between")]
    Conflict {
        /// What was to be written.
        what: String,
    },
    /// An object of that name exists already (409, `AlreadyExists`).
    #[error("{what} exists already")]
    Exists {
        /// What was to be created.
        what: String,
    },
    /// Not allowed: by RBAC, an admission webhook or a quota (401, 403).
    #[error("{what} is forbidden: {message}")]
    Forbidden {
        /// What was tried.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// The API server does not accept the request as it is (400, 405, 415, 422).
    #[error("{what} was refused as invalid: {message}")]
    Invalid {
        /// What was tried.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// No answer in time.
    #[error("{what} was not answered within {after:?}")]
    Timeout {
        /// What was tried.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// The API server cannot be reached, is overloaded or failed (connection errors, 429, 5xx).
    #[error("{what} failed for now: {message}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What is known of the cause.
        message: String,
    },
    /// The answer is larger than what is accepted.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The API server serves no such kind.
    #[error("the API server serves no {kind} in {api_version}; is its CRD installed?")]
    NoKind {
        /// Group and version.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// A reflector did not get its first list in time.
    #[error("no {kind} could be listed within {after:?}: {hint}")]
    Sync {
        /// Plural name of the kind.
        kind: &'static str,
        /// How long was waited.
        after: Duration,
        /// What went wrong and what helps.
        hint: String,
    },
    /// The name of an object that was to be created belongs to somebody else.
    #[error("{what} belongs to {owner}")]
    NameTaken {
        /// The object.
        what: String,
        /// Who has it.
        owner: String,
    },
    /// Something in the cluster is not as Dormouse left it and cannot be put right without a person.
    #[error("{0}")]
    Damaged(String),
    /// How to reach the cluster could not be found out.
    #[error("no way to reach a cluster: {0}")]
    Configuration(String),
    /// Anything else.
    #[error("{what}: {message}")]
    Other {
        /// What was tried.
        what: String,
        /// What is known of the cause.
        message: String,
    },
}

impl ClusterError {
    /// Names the error of a request by its type and status code.
    pub fn of(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                if status.is_already_exists() {
                    return Self::Exists { what };
                }
                match status.code {
                    401 | 403 => Self::Forbidden { what, message },
                    404 => Self::NotFound { what },
                    409 => Self::Conflict { what },
                    400 | 405 | 415 | 422 => Self::Invalid { what, message },
                    413 => Self::TooLarge { what, limit: 0 },
                    429 | 500..=599 => Self::Unavailable { what, message },
                    code => Self::Other {
                        what,
                        message: format!("{code}: {message}"),
                    },
                }
            }
            kube::Error::HyperError(error) => Self::Unavailable {
                what,
                message: chain(&error),
            },
            kube::Error::Service(error) => Self::Unavailable {
                what,
                message: chain(error.as_ref()),
            },
            kube::Error::ReadEvents(error) => Self::Unavailable {
                what,
                message: chain(&error),
            },
            other => Self::Other {
                what,
                message: chain(&other),
            },
        }
    }

    /// Whether the same request may succeed a moment later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. } | Self::Timeout { .. } | Self::Unavailable { .. } | Self::Sync { .. }
        )
    }

    /// The kind of error, as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::Exists { .. } => "exists",
            Self::Forbidden { .. } => "forbidden",
            Self::Invalid { .. } => "invalid",
            Self::Timeout { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::TooLarge { .. } => "too_large",
            Self::NoKind { .. } => "no_kind",
            Self::Sync { .. } => "sync",
            Self::NameTaken { .. } => "name_taken",
            Self::Damaged(_) => "damaged",
            Self::Configuration(_) => "configuration",
            Self::Other { .. } => "other",
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use rstest::rstest;

    #[rstest]
    #[case(404, "NotFound", "not_found")]
    #[case(409, "Conflict", "conflict")]
    #[case(409, "AlreadyExists", "exists")]
    #[case(403, "Forbidden", "forbidden")]
    #[case(401, "Unauthorized", "forbidden")]
    #[case(422, "Invalid", "invalid")]
    #[case(429, "TooManyRequests", "unavailable")]
    #[case(503, "ServiceUnavailable", "unavailable")]
    #[case(500, "InternalError", "unavailable")]
    #[case(418, "", "other")]
    fn status_codes_become_variants(#[case] code: u16, #[case] reason: &str, #[case] label: &str) {
        let status = Status::failure("said so", reason).with_code(code);
        assert_eq!(
            ClusterError::of("Pod a", kube::Error::Api(status.boxed())).label(),
            label
        );
    }
}
