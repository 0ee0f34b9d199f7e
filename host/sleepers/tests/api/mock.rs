//! An API server of a few lines: objects by path, versions, conflicts, a log of requests, and faults. No sockets, so that
//! the clock can be paused. Watches never tell anything: reflectors stay as the first list left them, which is the
//! stalest cache that there can be.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
type Rule = Box<dyn FnMut(&Method, &str, &mut Objects) -> Option<(u16, Value)> + Send>;
pub type Objects = BTreeMap<String, Value>;

#[derive(Clone, Default)]
pub struct Mock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    version: u64,
    log: Vec<(Method, String)>,
    rule: Option<Rule>,
}

impl Mock {
    /// A client that talks to it.
    pub fn client(&self) -> kube::Client {
        self.client_until(Arc::default())
    }

    /// A client that talks to it until it is cut off.
    pub fn client_until(&self, cut: Arc<AtomicBool>) -> kube::Client {
        let state = Arc::clone(&self.state);
        let service = tower::service_fn(move |request: Request<Body>| {
            let state = Arc::clone(&state);
            let cut = cut.load(Ordering::SeqCst);
            async move {
                if cut {
                    return Ok::<_, Infallible>(respond(503, &failure(503, "ServiceUnavailable")));
                }
                let (parts, body) = request.into_parts();
                let body = body
                    .collect()
                    .await
                    .map(|body| body.to_bytes())
                    .unwrap_or_default();
                let answer = state.lock().unwrap().answer(&parts.method, &parts.uri, &body);
                Ok(answer)
            }
        });
        kube::Client::new(service, "default")
    }

    /// Puts an object there.
    pub fn put(&self, path: &str, object: Value) {
        let mut state = self.state.lock().unwrap();
        state.store(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Asked before every answer; it may change objects or answer itself.
    pub fn rule(
        &self,
        rule: impl FnMut(&Method, &str, &mut Objects) -> Option<(u16, Value)> + Send + 'static,
    ) {
        self.state.lock().unwrap().rule = Some(Box::new(rule));
    }

    /// How often this was asked.
    pub fn count(&self, method: &Method, path_part: &str) -> usize {
        let state = self.state.lock().unwrap();
        state
            .log
            .iter()
            .filter(|(m, path)| m == method && path.contains(path_part))
            .count()
    }
}

pub fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "mock"})
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let name = path.rsplit('/').next().unwrap_or_default();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, uri: &http::Uri, body: &[u8]) -> Answer {
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default());
        self.log.push((method.clone(), uri.to_string()));
        if query.contains("watch=true") {
            let silence = StreamBody::new(futures::stream::pending());
            return Response::new(UnsyncBoxBody::new(silence));
        }
        if let Some(mut rule) = self.rule.take() {
            let answer = rule(method, &uri.to_string(), &mut self.objects);
            self.rule = Some(rule);
            if let Some((code, value)) = answer {
                return respond(code, &value);
            }
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (code, value) = self.carry_out(method, &path, body);
        respond(code, &value)
    }

    fn carry_out(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let (object, status_only) = match path.strip_suffix("/status") {
            Some(object) => (object, true),
            None => (path, false),
        };
        let known = self.objects.get(object).cloned();
        match (method, known) {
            (&Method::GET, Some(found)) => (200, found),
            (&Method::GET, None) => {
                let prefix = format!("{path}/");
                let is_collection = [
                    "sleepers",
                    "services",
                    "endpointslices",
                    "pods",
                    "ingresses",
                    "leases",
                ]
                .iter()
                .any(|plural| path.ends_with(plural));
                if !is_collection {
                    return (404, failure(404, "NotFound"));
                }
                let all = path.contains("/namespaces/");
                let plural = path.rsplit('/').next().unwrap_or_default();
                let items: Vec<_> = self
                    .objects
                    .iter()
                    .filter(|(key, _)| {
                        key.starts_with(&prefix) || (!all && key.contains(&format!("/{plural}/")))
                    })
                    .map(|(_, object)| object.clone())
                    .collect();
                (
                    200,
                    json!({"kind": "List", "metadata": {"resourceVersion": self.version.to_string()}, "items": items}),
                )
            }
            (&Method::POST, _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&path) {
                    return (409, failure(409, "AlreadyExists"));
                }
                (201, self.store(&path, body))
            }
            (&Method::PUT, Some(known)) => {
                if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
                    return (409, failure(409, "Conflict"));
                }
                let mut next = if status_only { known } else { body.clone() };
                if status_only {
                    next["status"] = body["status"].clone();
                }
                (200, self.store(object, next))
            }
            (&Method::DELETE, Some(_)) => {
                self.objects.remove(object);
                (200, json!({"kind": "Status", "status": "Success"}))
            }
            _ => (404, failure(404, "NotFound")),
        }
    }
}

fn respond(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string()));
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
