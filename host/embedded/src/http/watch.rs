//! WATCH: a stream of JSON lines that follows a table's history.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::Core;
use crate::error::ApiError;
use crate::http::present::{Form, object_as};
use crate::http::request::{Call, Target};
use crate::resource::ResourceType;
use crate::selector::{FieldSelector, LabelSelector};
use crate::store::list::{ListOptions, parse_version};
use crate::store::{Event, EventKind};

/// The bookmark that ends the first part of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// API servers end watches after half an hour to an hour unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2700);

struct Watch {
    core: Arc<Core>,
    rt: Arc<ResourceType>,
    group: String,
    version: String,
    form: Form,
    ns: String,
    labels: LabelSelector,
    fields: FieldSelector,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    signal: watch::Receiver<u64>,
    /// Everything up to this version has been sent.
    seen: u64,
    ready: VecDeque<Bytes>,
    ended: bool,
}

pub(crate) fn handle(core: &Arc<Core>, t: &Target, call: &Call) -> Result<Response, ApiError> {
    let q = &call.query;
    let labels = q.labels()?;
    let fields = FieldSelector::parse(q.get("fieldSelector"), &t.rt)?;
    let bookmarks = q.flag("allowWatchBookmarks");
    let asked = parse_version(q.get("resourceVersion"))?;
    let initial = match q.get("sendInitialEvents") {
        "" => None,
        _ => Some(q.flag("sendInitialEvents")),
    };
    let timeout = q
        .get("timeoutSeconds")
        .parse()
        .ok()
        .filter(|s| *s > 0)
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let signal = core.store.signal(&t.rt.id).ok_or_else(ApiError::no_such_path)?;
    let mut w = Watch {
        core: core.clone(),
        rt: t.rt.clone(),
        group: t.group.clone(),
        version: t.version.clone(),
        form: Form::of(&call.accept),
        ns: t.ns.clone(),
        labels,
        fields,
        bookmarks,
        next_bookmark: Instant::now() + core.options.bookmark_interval,
        deadline: Instant::now() + timeout,
        signal,
        seen: 0,
        ready: VecDeque::new(),
        ended: false,
    };
    // Without a version, or with 0, a watch starts with what there is.
    let everything = initial.unwrap_or(matches!(asked, None | Some(0)));
    if everything {
        let options = ListOptions {
            labels: w.labels.clone(),
            fields: w.fields.clone(),
            ..ListOptions::default()
        };
        let page = core.store.list(&t.rt, &t.ns, &options)?;
        if let Some(rv) = asked.filter(|rv| *rv > page.rv) {
            return Err(ApiError::too_large_version(rv, page.rv));
        }
        for o in &page.items {
            let line = w.line("ADDED", o);
            w.ready.push_back(line);
        }
        w.seen = page.rv;
        if initial == Some(true) && bookmarks {
            let line = w.bookmark(true);
            w.ready.push_back(line);
        }
    } else {
        w.seen = asked.filter(|rv| *rv > 0).unwrap_or_else(|| core.store.version());
        if let Err(e) = core.store.events_after(&t.rt.id, w.seen) {
            // Real servers answer 200 and say so in the stream.
            let line = w.error(&e);
            w.ready.push_back(line);
            w.ended = true;
        }
    }
    let lines = stream::unfold(w, |mut w| async move {
        let line = w.next().await?;
        Some((Ok::<_, Infallible>(line), w))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(lines),
    )
        .into_response())
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                // What is ready goes out in one piece.
                let mut out = Vec::new();
                for b in self.ready.drain(..) {
                    out.extend_from_slice(&b);
                }
                return Some(out.into());
            }
            if self.ended {
                return None;
            }
            self.signal.borrow_and_update();
            match self.core.store.events_after(&self.rt.id, self.seen) {
                Ok((events, upto)) => {
                    for e in events {
                        if let Some(line) = self.seen_by_client(&e) {
                            self.ready.push_back(line);
                        }
                    }
                    self.seen = self.seen.max(upto);
                }
                Err(e) => {
                    if e.code == 410 {
                        let line = self.error(&e);
                        self.ready.push_back(line);
                    }
                    self.ended = true;
                }
            }
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            let shutdown = self.core.shutdown.clone();
            tokio::select! {
                changed = self.signal.changed() => if changed.is_err() {
                    self.ended = true;
                },
                () = tokio::time::sleep_until(self.deadline) => {
                    if self.bookmarks {
                        let line = self.bookmark(false);
                        self.ready.push_back(line);
                    }
                    self.ended = true;
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + self.core.options.bookmark_interval;
                    // Up to date: nothing was ready a moment ago. A write since then has a higher version than `seen`.
                    let line = self.bookmark(false);
                    self.ready.push_back(line);
                }
                () = shutdown.cancelled() => self.ended = true,
            }
        }
    }

    fn selected(&self, o: &Value) -> bool {
        self.labels.matches(o) && self.fields.matches(o)
    }

    /// What a client with this selector sees of a write: an object that starts to match is added, one that stops is deleted.
    fn seen_by_client(&self, e: &Event) -> Option<Bytes> {
        if !self.ns.is_empty() && e.key.0 != self.ns {
            return None;
        }
        let before = e.previous.as_ref().is_some_and(|p| self.selected(p));
        let now = e.kind != EventKind::Deleted && self.selected(&e.object);
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(self.line("ADDED", &e.object)),
            (true, true) => Some(self.line("MODIFIED", &e.object)),
            (true, false) if e.kind == EventKind::Deleted => Some(self.line("DELETED", &e.object)),
            (true, false) => {
                // The last state that matched, with the version of the write that ended it.
                let mut last = e.previous.as_deref().cloned().unwrap_or_default();
                crate::value::metadata(&mut last).insert("resourceVersion".into(), json!(e.rv.to_string()));
                Some(self.line("DELETED", &last))
            }
        }
    }

    fn line(&self, kind: &str, o: &Value) -> Bytes {
        let o = object_as(&self.rt, &self.group, &self.version, self.form, o);
        encode(&json!({ "type": kind, "object": o }))
    }

    fn error(&self, e: &ApiError) -> Bytes {
        encode(&json!({ "type": "ERROR", "object": e.status() }))
    }

    fn bookmark(&self, end_of_initial: bool) -> Bytes {
        let (kind, api_version) = match self.form {
            Form::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ if self.group == crate::resource::EVENTS_GROUP => {
                (self.rt.kind.clone(), format!("{}/{}", self.group, self.version))
            }
            _ => (self.rt.kind.clone(), self.rt.api_version(&self.version)),
        };
        let mut meta = json!({ "resourceVersion": self.seen.to_string(), "creationTimestamp": null });
        if end_of_initial {
            meta["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let mut o = json!({ "kind": kind, "apiVersion": api_version, "metadata": meta });
        // Typed clients decode bookmarks like any other object of the kind.
        if self.form != Form::Metadata && self.rt.builtin {
            let m = crate::value::object(&mut o);
            match self.rt.id.as_str() {
                "endpointslices.discovery.k8s.io" => {
                    m.insert("addressType".into(), json!(""));
                    m.insert("endpoints".into(), Value::Null);
                    m.insert("ports".into(), Value::Null);
                }
                "events" => {
                    m.insert("involvedObject".into(), json!({}));
                }
                "pods" => {
                    m.insert("spec".into(), json!({ "containers": null }));
                }
                _ => {}
            }
        }
        encode(&json!({ "type": "BOOKMARK", "object": o }))
    }
}

fn encode(v: &Value) -> Bytes {
    let mut text = v.to_string();
    text.push('\n');
    text.into()
}
