//! Errors: [`Error`] for the embedder and `ApiError`, which clients see as a Kubernetes `Status`.

use std::io;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::resource::ResourceType;

/// What can go wrong when a cluster is started or fed through the Rust API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bind address of the API server is not a loopback address. There is no authentication, so no other is allowed.
    #[error(
        "{0} is not a loopback address; the embedded cluster has no authentication and only listens on loopback"
    )]
    NotLoopback(std::net::IpAddr),
    /// A socket could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was tried.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// No free block of loopback addresses was found.
    #[error("no free block of loopback addresses: {0} other clusters hold one each")]
    NoAddressBlock(usize),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A manifest is not YAML, or a document in it is not a Kubernetes object.
    #[error("manifest document {document}: {message}")]
    Manifest {
        /// Counted from 1.
        document: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The API server refused a request.
    #[error("{reason} ({code}): {message}")]
    Api {
        /// HTTP status code.
        code: u16,
        /// The `reason` of the `Status`.
        reason: String,
        /// The `message` of the `Status`.
        message: String,
    },
    /// A condition that was waited for did not come true in time.
    #[error("timed out waiting for {0}")]
    Timeout(String),
}

impl From<ApiError> for Error {
    fn from(e: ApiError) -> Self {
        Error::Api {
            code: e.code,
            reason: e.reason.to_owned(),
            message: e.message,
        }
    }
}

/// A refusal by the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
}

impl ApiError {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, rt: &ResourceType, name: &str) -> Self {
        // In conflicts, not-found and already-exists `kind` is the plural; in invalid it is the kind.
        self.details = Some(json!({ "name": name, "group": rt.group, "kind": rt.plural }));
        self
    }

    pub fn not_found(rt: &ResourceType, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", rt.id)).about(rt, name)
    }

    pub fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    pub fn already_exists(rt: &ResourceType, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", rt.id),
        )
        .about(rt, name)
    }

    pub fn conflict(rt: &ResourceType, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", rt.id),
        )
        .about(rt, name)
    }

    pub fn modified(rt: &ResourceType, name: &str) -> Self {
        Self::conflict(
            rt,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Field errors as an `Invalid` status; `causes` are (field, message).
    pub fn invalid(rt: &ResourceType, name: &str, causes: &[FieldError]) -> Self {
        let kind = if rt.group.is_empty() {
            rt.kind.clone()
        } else {
            format!("{}.{}", rt.kind, rt.group)
        };
        let texts = causes.iter().map(|c| format!("{}: {}", c.field, c.message));
        let mut all = texts.collect::<Vec<_>>().join(", ");
        if causes.len() > 1 {
            all = format!("[{all}]");
        }
        let mut e = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {all}"));
        let causes: Vec<Value> = causes
            .iter()
            .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
            .collect();
        e.details = Some(json!({ "name": name, "group": rt.group, "kind": rt.kind, "causes": causes }));
        e
    }

    pub fn forbidden(rt: &ResourceType, name: &str, why: &str) -> Self {
        Self::new(
            403,
            "Forbidden",
            format!("{} \"{name}\" is forbidden: {why}", rt.id),
        )
        .about(rt, name)
    }

    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", why)
    }

    pub fn unprocessable(why: impl std::fmt::Display) -> Self {
        Self::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {why}"),
        )
    }

    pub fn expired(asked: u64, floor: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({floor})"),
        )
    }

    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let mut e = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        e.details = Some(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1
        }));
        e
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub fn unsupported_media(accepted: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
    }

    /// The `Status` object that goes over the wire.
    pub fn status(&self) -> Value {
        let mut s = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(d) = &self.details {
            s["details"] = d.clone();
        }
        s
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = (code, Json(self.status())).into_response();
        if matches!(self.code, 429 | 503) {
            let soon = HeaderValue::from_static("1");
            reply.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        reply
    }
}

/// One wrong field of an object.
#[derive(Clone, Debug)]
pub(crate) struct FieldError {
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

impl FieldError {
    fn new(field: impl Into<String>, reason: &'static str, message: String) -> Self {
        FieldError {
            field: field.into(),
            reason,
            message,
        }
    }

    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        let message = format!("Invalid value: {value}: {why}");
        Self::new(field, "FieldValueInvalid", message)
    }

    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = match why {
            "" => "Required value".to_owned(),
            why => format!("Required value: {why}"),
        };
        Self::new(field, "FieldValueRequired", message)
    }

    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new(field, "FieldValueForbidden", format!("Forbidden: {why}"))
    }

    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let supported: Vec<String> = supported.iter().map(ToString::to_string).collect();
        let supported = supported.join(", ");
        let message = format!("Unsupported value: {value}: supported values: {supported}");
        Self::new(field, "FieldValueNotSupported", message)
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {value}"))
    }

    pub fn wrong_type(field: impl Into<String>, value: &Value, expected: &str) -> Self {
        let field = field.into();
        let shown = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let message =
            format!("Invalid value: \"{shown}\": {field} in body must be of type {expected}: \"{shown}\"");
        Self::new(field, "FieldValueTypeInvalid", message)
    }
}
