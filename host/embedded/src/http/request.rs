//! What a request asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::error::ApiError;
use crate::faults::RequestInfo;
use crate::metrics;
use crate::resource::ResourceType;
use crate::selector::LabelSelector;
use crate::store::Store;

/// Query parameters; the last of equal names counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        if let Some(b) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(b);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let decode = |s: &str| percent_decode(&s.replace('+', " "));
        Query(
            text.split('&')
                .filter(|p| !p.is_empty())
                .map(|p| {
                    let (k, v) = p.split_once('=').unwrap_or((p, ""));
                    (decode(k), decode(v))
                })
                .collect(),
        )
    }

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
                Err(ApiError::bad_request(format!(
                    "the object provided is unrecognized: {e}"
                )))
            }
        })
    }

    /// Who writes, for managed fields: the parameter, or the start of the User-Agent as API servers do it.
    pub fn manager(&self) -> String {
        let given = self.query.get("fieldManager");
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent = self.user_agent.split('/').next().unwrap_or("");
        if agent.is_empty() {
            "unknown".to_owned()
        } else {
            agent.chars().take(128).collect()
        }
    }
}

/// An object, a collection or a subresource.
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

#[derive(Debug)]
pub(crate) enum Route {
    Object(Target),
    Metrics { version: String, path: Vec<String> },
}

impl Route {
    pub fn parse(store: &Store, segments: &[&str], call: &Call) -> Result<Self, ApiError> {
        let (group, version, rest) = match segments {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_path()),
        };
        if group == metrics::GROUP {
            if call.method != Method::GET {
                return Err(ApiError::method_not_allowed());
            }
            return Ok(Route::Metrics {
                version: version.to_owned(),
                path: rest.iter().map(|s| (*s).to_owned()).collect(),
            });
        }
        let served = |plural: &str| {
            store
                .served(group, version, plural)
                .ok_or_else(ApiError::no_such_path)
        };
        let (rt, ns, name, sub) = match rest {
            ["namespaces"] => (served("namespaces")?, "", "", ""),
            ["namespaces", name] => (served("namespaces")?, "", *name, ""),
            ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
                (served("namespaces")?, "", *name, *sub)
            }
            ["namespaces", ns, plural, tail @ ..] => {
                let rt = served(plural)?;
                if !rt.namespaced {
                    return Err(ApiError::no_such_path());
                }
                let (name, sub) = name_and_sub(tail)?;
                (rt, *ns, name, sub)
            }
            [plural, tail @ ..] => {
                let rt = served(plural)?;
                let (name, sub) = name_and_sub(tail)?;
                if rt.namespaced && !name.is_empty() {
                    return Err(ApiError::no_such_path());
                }
                (rt, "", name, sub)
            }
            [] => return Err(ApiError::no_such_path()),
        };
        let verb = match (&call.method, name.is_empty()) {
            (&Method::GET, true) if call.query.flag("watch") => "watch",
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, true) => "create",
            (&Method::POST, false) if !sub.is_empty() => "create",
            (&Method::PUT, false) => "update",
            (&Method::PATCH, false) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            _ => return Err(ApiError::method_not_allowed()),
        };
        Ok(Route::Object(Target {
            rt,
            group: group.to_owned(),
            version: version.to_owned(),
            ns: ns.to_owned(),
            name: name.to_owned(),
            sub: sub.to_owned(),
            verb,
        }))
    }

    pub fn info(&self, call: &Call) -> RequestInfo {
        match self {
            Route::Metrics { path, .. } => RequestInfo {
                verb: "get",
                resource: metrics::GROUP.to_owned(),
                namespace: if path.first().is_some_and(|p| p == "namespaces") {
                    path.get(1).cloned().unwrap_or_default()
                } else {
                    String::new()
                },
                name: path.last().cloned().unwrap_or_default(),
                user_agent: call.user_agent.clone(),
            },
            Route::Object(t) => RequestInfo {
                verb: t.verb,
                resource: if t.sub.is_empty() {
                    t.rt.id.clone()
                } else {
                    format!("{}/{}", t.rt.id, t.sub)
                },
                namespace: t.ns.clone(),
                name: t.name.clone(),
                user_agent: call.user_agent.clone(),
            },
        }
    }
}

fn name_and_sub<'a>(tail: &[&'a str]) -> Result<(&'a str, &'a str), ApiError> {
    match tail {
        [] => Ok(("", "")),
        [name] => Ok((*name, "")),
        [name, sub] => Ok((*name, *sub)),
        _ => Err(ApiError::no_such_path()),
    }
}
