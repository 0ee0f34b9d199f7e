//! Faults that tests and demos inject into API requests, and the log of the requests that were made.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::error::ApiError;

/// API requests to disturb, and how. Empty strings match everything.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; `write` for any of the last five.
    pub verb: String,
    /// `pods`, `deployments.apps`, with a subresource `deployments.apps/scale`. `deployments.apps` alone does not match
    /// its subresources; `deployments.apps/*` does and matches the main resource too. `custom.metrics.k8s.io` for the
    /// custom metrics API, with the metric as the name.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Object name.
    pub name: String,
    /// Text that the client's User-Agent must contain: which client to disturb.
    pub user_agent: String,
    /// How many requests; 0 means all until removed.
    pub times: u32,
    /// How many matching requests go through unharmed first.
    pub skip: u32,
    /// HTTP status to answer with; 0 means the request goes through (with the latency).
    pub status: u16,
    /// `message` of the Status.
    pub message: String,
    /// Wait before the request is handled, in milliseconds.
    pub latency_ms: u64,
    /// Carry the request out, then answer with the fault: the write happened and the client does not know.
    pub after: bool,
    /// Close the connection in place of an answer.
    pub hang_up: bool,
}

/// One API request as seen by the server.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// When it was answered, RFC 3339.
    pub at: String,
    /// Kubernetes verb, as in [`Fault::verb`].
    pub verb: String,
    /// Resource with group and subresource, as in [`Fault::resource`].
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// The client's User-Agent.
    pub user_agent: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// The body of a write (not of creations larger than 16 KiB).
    pub body: Value,
}

/// What a request is, for matching.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestInfo {
    pub verb: &'static str,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub user_agent: String,
}

impl Fault {
    /// The latency as a duration.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    /// What the client is told.
    pub(crate) fn error(&self) -> ApiError {
        let message = match self.message.as_str() {
            "" => "injected fault",
            message => message,
        };
        ApiError::new(self.status, reason_of(self.status), message)
    }

    fn matches(&self, r: &RequestInfo) -> bool {
        let is = |want: &str, have: &str| want.is_empty() || want == have;
        let verb = is(&self.verb, r.verb)
            || (self.verb == "write"
                && matches!(
                    r.verb,
                    "create" | "update" | "patch" | "delete" | "deletecollection"
                ));
        let resource = is(&self.resource, &r.resource)
            || self
                .resource
                .strip_suffix("/*")
                .is_some_and(|p| r.resource.split('/').next() == Some(p));
        verb && resource
            && is(&self.namespace, &r.namespace)
            && is(&self.name, &r.name)
            && r.user_agent.contains(&self.user_agent)
    }
}

/// The usual reason of a status code.
fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}

const LOG: usize = 20_000;

/// The faults in force and the log.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Fault>>,
    log: Mutex<VecDeque<ApiRequest>>,
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, fault: Fault) {
        self.rules().push(fault);
    }

    pub fn clear(&self) {
        self.rules().clear();
    }

    pub fn clear_of(&self, namespace: &str, name: &str) {
        self.rules()
            .retain(|fault| fault.namespace != namespace || fault.name != name);
    }

    /// The fault that hits this request, used up by one.
    pub fn take(&self, r: &RequestInfo) -> Option<Fault> {
        let mut rules = self.rules();
        let i = rules.iter().position(|f| f.matches(r))?;
        if rules[i].skip > 0 {
            rules[i].skip -= 1;
            return None;
        }
        let hit = rules[i].clone();
        match rules[i].times {
            0 => {}
            1 => {
                rules.remove(i);
            }
            _ => rules[i].times -= 1,
        }
        Some(hit)
    }

    pub fn record(&self, r: ApiRequest) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() >= LOG {
            log.pop_front();
        }
        log.push_back(r);
    }

    pub fn log(&self) -> Vec<ApiRequest> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_up() {
        let f = Faults::default();
        f.add(Fault {
            verb: "write".into(),
            resource: "deployments.apps/*".into(),
            times: 1,
            skip: 1,
            status: 503,
            ..Fault::default()
        });
        let patch = RequestInfo {
            verb: "patch",
            resource: "deployments.apps/scale".into(),
            ..RequestInfo::default()
        };
        let get = RequestInfo {
            verb: "get",
            ..patch.clone()
        };
        assert!(f.take(&get).is_none());
        assert!(f.take(&patch).is_none(), "the first goes through");
        assert_eq!(f.take(&patch).map(|f| f.status), Some(503));
        assert!(f.take(&patch).is_none(), "used up");
    }
}
