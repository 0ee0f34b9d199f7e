//! What a request asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequest, Query as Parameters, Request};
use axum::http::{HeaderName, Method, header};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::faults::RequestInfo;
use crate::resource::ResourceType;
use crate::selector::LabelSelector;
use crate::store::{Part, Store, Write};

/// Query parameters; the last of equal names counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), "true" | "1" | "True")
    }

    pub fn labels(&self) -> Result<LabelSelector, ApiError> {
        LabelSelector::parse(self.get("labelSelector"))
    }

    pub fn dry_run(&self) -> bool {
        self.get("dryRun") == "All"
    }
}

/// A request without its path.
#[derive(Debug)]
pub(crate) struct Call {
    pub method: Method,
    pub query: Query,
    pub content_type: String,
    pub accept: String,
    pub user_agent: String,
    pub body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Parameters(query) =
            Parameters::try_from_uri(request.uri()).map_err(|e| ApiError::bad_request(e.body_text()))?;
        let call = Call {
            method: request.method().clone(),
            query: Query(query),
            content_type: text(&request, header::CONTENT_TYPE),
            accept: text(&request, header::ACCEPT),
            user_agent: text(&request, header::USER_AGENT),
            body: Bytes::new(),
        };
        let body = Bytes::from_request(request, state).await.map_err(|e| {
            let message = format!("Request entity too large: {e}");
            ApiError::new(413, "RequestEntityTooLarge", message)
        })?;
        Ok(Call { body, ..call })
    }
}

fn text(request: &Request, name: HeaderName) -> String {
    let value = request.headers().get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

impl Call {
    /// The body as JSON, or YAML for apply patches and clients that say so.
    pub fn json(&self) -> Result<Value, ApiError> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        if self.content_type.contains("protobuf") {
            return Err(ApiError::unsupported_media("application/json, application/yaml"));
        }
        serde_json::from_slice(&self.body).or_else(|e| {
            if self.content_type.contains("yaml") {
                serde_yaml::from_slice(&self.body)
                    .map_err(|e| ApiError::bad_request(format!("error parsing YAML: {e}")))
            } else {
                let message = format!("the object provided is unrecognized: {e}");
                Err(ApiError::bad_request(message))
            }
        })
    }
}

/// The path of an object, a collection or a subresource. What it does not have is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Place {
    group: String,
    version: String,
    plural: String,
    ns: String,
    name: String,
    sub: String,
}

impl Place {
    /// The subresource of a namespace.
    pub fn of_namespaces(self, sub: &str) -> Self {
        Place {
            plural: "namespaces".to_owned(),
            sub: sub.to_owned(),
            ..self
        }
    }

    /// What is to be done with which kind of object.
    pub fn target(self, store: &Store, call: &Call) -> Result<Target, ApiError> {
        let rt = store
            .served(&self.group, &self.version, &self.plural)
            .ok_or_else(ApiError::no_such_path)?;
        let has_namespace = !self.ns.is_empty();
        if has_namespace && !rt.namespaced || rt.namespaced && !has_namespace && !self.name.is_empty() {
            return Err(ApiError::no_such_path());
        }
        let verb = match (&call.method, self.name.is_empty()) {
            (&Method::GET, true) if call.query.flag("watch") => "watch",
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, true) => "create",
            (&Method::POST, false) if !self.sub.is_empty() => "create",
            (&Method::PUT, false) => "update",
            (&Method::PATCH, false) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            _ => return Err(ApiError::method_not_allowed()),
        };
        Ok(Target {
            rt,
            group: self.group,
            version: self.version,
            ns: self.ns,
            name: self.name,
            sub: self.sub,
            verb,
        })
    }
}

/// An object, a collection or a subresource, and what is to be done with it.
#[derive(Debug)]
pub(crate) struct Target {
    pub rt: Arc<ResourceType>,
    /// Group in the path; differs from the kind's for `events.k8s.io`.
    pub group: String,
    pub version: String,
    pub ns: String,
    pub name: String,
    pub sub: String,
    pub verb: &'static str,
}

impl Target {
    /// How the request wants its write to be made.
    pub fn write(&self, call: &Call) -> Write<'_> {
        Write {
            dry_run: call.query.dry_run(),
            ..Write::of(
                match self.sub.as_str() {
                    "status" => Part::Status,
                    "finalize" => Part::Internal,
                    _ => Part::Main,
                },
                &self.version,
            )
        }
    }

    /// What faults and the log call it.
    pub fn info(&self, call: &Call) -> RequestInfo {
        RequestInfo {
            verb: self.verb,
            resource: if self.sub.is_empty() {
                self.rt.id.clone()
            } else {
                format!("{}/{}", self.rt.id, self.sub)
            },
            namespace: self.ns.clone(),
            name: self.name.clone(),
            user_agent: call.user_agent.clone(),
        }
    }
}
