//! Kubernetes objects, as far as the operator granted kinds and verbs.
//!
//! [`List`] is the way in: it names a kind, narrows it down, and asks only for the fields that matter, so that ten
//! thousand objects stay small. [`Workload`] and [`Service`] know which fields they need; for other kinds bring a serde
//! type, or take [`serde_json::Value`].

mod list;
mod objects;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use list::List;
pub use objects::{
    Condition, Metadata, PodTemplate, RollingUpdate, Service, ServicePort, UpdateStrategy, Workload,
    WorkloadSpec, WorkloadStatus,
};

use crate::{debug, host, warn};

/// Why Kubernetes did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operator did not grant this kind and verb to the plugin. Says which grant is missing.
    #[error("not granted: {0}")]
    Denied(String),
    /// No such object, or no such kind.
    #[error("not found: {0}")]
    NotFound(String),
    /// The object changed in between: read it again and decide anew.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The API server refused the request as malformed or invalid.
    #[error("invalid: {0}")]
    Invalid(String),
    /// No answer before the deadline of the call.
    #[error("timed out: {0}")]
    Timeout(String),
    /// The API server cannot be reached or is overloaded.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// The object does not have the shape of the Rust type.
    #[error("{object} does not fit its type: {problem}")]
    Unreadable {
        /// Which object, as far as it can be told.
        object: String,
        /// What serde says.
        problem: String,
    },
}

/// An object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Group and version as in manifests, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// None for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A namespaced object.
    pub fn new(
        api_version: impl Into<String>,
        kind: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// A cluster-scoped object.
    pub fn cluster(api_version: impl Into<String>, kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: None,
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ", self.api_version, self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Which part of an object a patch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The object itself.
    None,
    /// Its status.
    Status,
    /// Its scale.
    Scale,
}

/// How the body of a patch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 7386: objects are merged, null deletes, arrays are replaced.
    Merge,
    /// RFC 6902: a list of operations.
    Json,
    /// As `kubectl patch` does by default. Built-in kinds only.
    StrategicMerge,
}

/// Whether an Event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// For the record.
    Normal,
    /// Somebody should do something.
    Warning,
}

/// A list of objects of a kind, to be narrowed down and fetched.
pub fn list(api_version: impl Into<String>, kind: impl Into<String>) -> List<Value> {
    List::new(api_version, kind)
}

/// Reads one object. `fields` are dotted paths; none: the whole object.
///
/// # Errors
/// [`Error`].
pub fn get<T: DeserializeOwned>(key: &ObjectKey, fields: &[&str]) -> Result<T, Error> {
    let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
    read(&host::get(key, &fields)?, || key.to_string())
}

/// Creates an object and returns it as stored.
///
/// # Errors
/// [`Error`]; [`Error::Conflict`] when it exists.
pub fn create<T: Serialize>(object: &T) -> Result<Value, Error> {
    read(&host::create(&write(object)?)?, || "the created object".into())
}

/// Patches an object and returns it as stored. A `metadata.resourceVersion` in a merge patch is a precondition.
///
/// # Errors
/// [`Error`]; [`Error::Conflict`] when the precondition does not hold.
pub fn patch<T: Serialize>(
    key: &ObjectKey,
    subresource: Subresource,
    kind: PatchType,
    body: &T,
) -> Result<Value, Error> {
    read(&host::patch(key, subresource, kind, &write(body)?)?, || {
        key.to_string()
    })
}

/// Server-side apply under the field manager `dormouse/<plugin>`.
///
/// # Errors
/// [`Error`]; [`Error::Conflict`] when another manager owns a field and `force` is false.
pub fn apply<T: Serialize>(object: &T, force: bool) -> Result<Value, Error> {
    read(&host::apply(&write(object)?, force)?, || {
        "the applied object".into()
    })
}

/// Deletes an object; that it is gone already is not an error.
///
/// # Errors
/// [`Error`].
pub fn delete(key: &ObjectKey) -> Result<(), Error> {
    host::delete(key)
}

/// Records an Event on an object. The same event again within ten minutes is counted, not written anew.
///
/// # Errors
/// [`Error`].
pub fn event(regarding: &ObjectKey, kind: EventType, reason: &str, message: &str) -> Result<(), Error> {
    host::event(regarding, kind, reason, message)
}

/// Tells the owner of an object what is wrong with it, by a Warning Event. That the Event could not be written is
/// logged and no more, because it must not keep the plugin from its work. Made to be called in every round: the host
/// counts an Event that is there already.
pub fn warn_about(regarding: &ObjectKey, reason: &str, message: &str) {
    debug!("{message}", object = regarding, reason = reason);
    if let Err(error) = event(regarding, EventType::Warning, reason, message) {
        warn!(
            "an event could not be recorded",
            object = regarding,
            error = error,
            event = message
        );
    }
}

fn read<T: DeserializeOwned>(text: &str, object: impl FnOnce() -> String) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Unreadable {
        object: object(),
        problem: error.to_string(),
    })
}

fn write<T: Serialize>(object: &T) -> Result<String, Error> {
    serde_json::to_string(object)
        .map_err(|error| Error::Invalid(format!("cannot be written as JSON: {error}")))
}
