//! Events: what happened, on the objects that it happened to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_model::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::Patch;
use kube::core::ObjectMeta;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{ApiServer, ClusterError, Metrics, ObjectError};

/// The same event within this time is counted instead of written anew.
const DEDUPLICATE: Duration = Duration::from_secs(600);
/// The count of an event that comes again and again is written at most this often.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Different events that are remembered.
const REMEMBERED: usize = 1024;
/// Events that may wait for being written.
const WAITING: usize = 256;
/// Longest message, as in Kubernetes.
const LONGEST_MESSAGE: usize = 1024;
/// Longest reason and component, as in Kubernetes.
const LONGEST_REASON: usize = 128;

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// For information.
    Normal,
    /// Something needs attention.
    Warning,
}

impl EventType {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    namespace: String,
    regarding: (String, String, String),
    uid: String,
    kind: EventType,
    reason: String,
    message: String,
    component: String,
}

struct Remembered {
    event: String,
    count: i32,
    first: Instant,
    written: Instant,
}

/// What to do about an event.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Create,
    Count(String, i32),
    Nothing,
}

/// Writes events, and counts those that come again instead of writing them anew. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    server: ApiServer,
    said: Arc<Mutex<HashMap<Said, Remembered>>>,
    queue: mpsc::Sender<Said>,
    metrics: Metrics,
}

impl EventRecorder {
    /// Begins to write what is told ([`EventRecorder::tell`]), until `cancel`.
    pub fn start(server: ApiServer, metrics: Metrics, cancel: CancellationToken) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Said>(WAITING);
        let recorder = Self {
            server,
            said: Arc::default(),
            queue,
            metrics,
        };
        let writer = recorder.clone();
        tokio::spawn(async move {
            loop {
                let said = tokio::select! {
                    () = cancel.cancelled() => return,
                    said = waiting.recv() => said,
                };
                let Some(said) = said else { return };
                if let Err(error) = writer.write(said).await {
                    tracing::debug!(%error, "an event could not be written");
                }
            }
        });
        recorder
    }

    /// Records an event on an object, in the name of this process. Does not wait: when too many are waiting it is dropped, and counted.
    /// Without a uid `kubectl describe` does not find it.
    pub fn tell(
        &self,
        regarding: &ObjectKey,
        uid: Option<String>,
        kind: EventType,
        reason: &str,
        message: &str,
    ) {
        let component = self.server.field_manager();
        let said = Said::of(regarding, uid, kind, reason, message, component);
        if self.queue.try_send(said).is_err() {
            self.metrics.event_dropped();
        }
    }

    /// Records an event on an object, in the name of `component`, such as `dormouse/workloads`. The same event within ten minutes is
    /// counted instead of written anew.
    ///
    /// # Errors
    /// [`ObjectError`]; an object that does not exist is none.
    pub async fn record(
        &self,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        component: &str,
    ) -> Result<(), ObjectError> {
        let namespace = regarding.namespace.clone().unwrap_or_default();
        // `kubectl describe` finds events by uid.
        let uid = match self
            .server
            .uid_of(
                &namespace,
                &regarding.api_version,
                &regarding.kind,
                &regarding.name,
            )
            .await
        {
            Ok(uid) => Some(uid),
            Err(
                ClusterError::NotFound { .. } | ClusterError::NoKind { .. } | ClusterError::Forbidden { .. },
            ) => None,
            Err(error) => return Err(error.into()),
        };
        let said = Said::of(regarding, uid, kind, reason, message, component);
        Ok(self.write(said).await?)
    }

    async fn write(&self, said: Said) -> Result<(), ClusterError> {
        let plan = plan(
            &mut self.said.lock().unwrap_or_else(PoisonError::into_inner),
            &said,
            Instant::now(),
        );
        let events: Api<Event> = self.server.api(&said.namespace);
        match plan {
            Plan::Nothing => Ok(()),
            Plan::Create => self.create(&events, said).await,
            Plan::Count(name, count) => {
                let body = serde_json::json!({"count": count, "lastTimestamp": Time(Timestamp::now())});
                let (params, patch) = (self.server.patch_params(), Patch::Merge(&body));
                let patched = events.patch(&name, &params, &patch);
                match self.server.ask(|| format!("Event {name}"), patched).await {
                    // Events are thrown away after an hour, or by somebody.
                    Err(ClusterError::NotFound { .. }) => self.create(&events, said).await,
                    other => other.map(|_| ()),
                }
            }
        }
    }

    async fn create(&self, events: &Api<Event>, said: Said) -> Result<(), ClusterError> {
        let now = Timestamp::now();
        let (api_version, kind, name) = said.regarding.clone();
        // The name that client-go gives: object and nanoseconds.
        let event_name = format!("{}.{:x}", shortened(&name, 200), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name.clone()),
                namespace: Some(said.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(api_version),
                kind: Some(kind),
                name: Some(name),
                namespace: Some(said.namespace.clone()),
                uid: Some(said.uid.clone()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            },
            type_: Some(said.kind.text().to_owned()),
            reason: Some(said.reason.clone()),
            message: Some(said.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(said.component.clone()),
                host: None,
            }),
            reporting_component: Some(said.component.clone()),
            ..Event::default()
        };
        let params = self.server.post_params();
        let created = events.create(&params, &event);
        self.server.ask(|| format!("Event {event_name}"), created).await?;
        let mut remembered = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            forget(&mut remembered, Instant::now());
        }
        let now = Instant::now();
        remembered.insert(
            said,
            Remembered {
                event: event_name,
                count: 1,
                first: now,
                written: now,
            },
        );
        Ok(())
    }
}

fn plan(remembered: &mut HashMap<Said, Remembered>, said: &Said, now: Instant) -> Plan {
    let Some(known) = remembered.get_mut(said) else {
        return Plan::Create;
    };
    if now.duration_since(known.first) >= DEDUPLICATE {
        remembered.remove(said);
        return Plan::Create;
    }
    known.count = known.count.saturating_add(1);
    if now.duration_since(known.written) < COUNT_EVERY {
        return Plan::Nothing;
    }
    known.written = now;
    Plan::Count(known.event.clone(), known.count)
}

/// Makes room: what is too old to count, else the oldest.
fn forget(remembered: &mut HashMap<Said, Remembered>, now: Instant) {
    remembered.retain(|_, known| now.duration_since(known.first) < DEDUPLICATE);
    if remembered.len() >= REMEMBERED {
        let oldest = remembered
            .iter()
            .min_by_key(|(_, known)| known.first)
            .map(|(said, _)| said.clone());
        if let Some(oldest) = oldest {
            remembered.remove(&oldest);
        }
    }
}

impl Said {
    fn of(
        regarding: &ObjectKey,
        uid: Option<String>,
        kind: EventType,
        reason: &str,
        message: &str,
        component: &str,
    ) -> Self {
        Self {
            // Events on cluster-scoped objects live in `default`, by convention.
            namespace: regarding
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            regarding: (
                regarding.api_version.clone(),
                regarding.kind.clone(),
                regarding.name.clone(),
            ),
            uid: uid.unwrap_or_default(),
            kind,
            reason: shortened(reason, LONGEST_REASON),
            message: shortened(message, LONGEST_MESSAGE),
            component: shortened(component, LONGEST_REASON),
        }
    }
}

/// A text cut at a character, at most so many bytes long.
pub fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mut end = longest;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> Said {
        Said {
            namespace: "a".into(),
            regarding: ("v1".into(), "Pod".into(), "p".into()),
            uid: "u".into(),
            kind: EventType::Normal,
            reason: "R".into(),
            message: message.into(),
            component: "dormouse".into(),
        }
    }

    #[test]
    fn repeated_events_are_counted_for_ten_minutes_and_not_more_often_than_once_a_second() {
        let start = Instant::now();
        let mut remembered = HashMap::new();
        assert_eq!(plan(&mut remembered, &said("m"), start), Plan::Create);
        let entry = Remembered {
            event: "p.1".into(),
            count: 1,
            first: start,
            written: start,
        };
        remembered.insert(said("m"), entry);
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(plan(&mut remembered, &said("m"), after(0.5)), Plan::Nothing);
        assert_eq!(
            plan(&mut remembered, &said("m"), after(2.0)),
            Plan::Count("p.1".into(), 3)
        );
        assert_eq!(plan(&mut remembered, &said("other"), after(2.0)), Plan::Create);
        assert_eq!(plan(&mut remembered, &said("m"), after(601.0)), Plan::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let start = Instant::now();
        let mut remembered = HashMap::new();
        for index in 0..REMEMBERED {
            let first = start + Duration::from_millis(u64::try_from(index).unwrap());
            let entry = Remembered {
                event: String::new(),
                count: 1,
                first,
                written: first,
            };
            remembered.insert(said(&index.to_string()), entry);
        }
        forget(&mut remembered, start + Duration::from_secs(10));
        assert_eq!(remembered.len(), REMEMBERED - 1);
        assert!(!remembered.contains_key(&said("0")), "the oldest goes first");
    }
}
