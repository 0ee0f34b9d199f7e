//! The `kubernetes` interface: grants first, then the services.

use std::future::Future;

use dormouse_kubernetes::objects::{ListQuery, PatchType, Subresource};
use dormouse_kubernetes::{EventType, ObjectError};
use dormouse_model::ObjectKey;
use serde_json::Value;

use super::{HostCall, Import, TIMED_OUT, TimedOut, clip};
use crate::bindings::dormouse::plugin::kubernetes as wit;
use crate::grants::{MissingGrant, Verb, Wanted};
use crate::state::{CallState, Shared};

/// Bytes of an Event's message; the API server refuses more than 1024.
const EVENT_MESSAGE: usize = 1000;
/// Bytes of an Event's reason; the API server refuses more than 128.
const EVENT_REASON: usize = 120;

type Answer<T> = wasmtime::Result<Result<T, wit::KubernetesError>>;

impl TimedOut for ObjectError {
    fn timed_out() -> ObjectError {
        ObjectError::Timeout(TIMED_OUT.into())
    }
}

impl wit::Host for CallState {
    async fn get(&mut self, key: wit::ObjectKey, fields: Vec<String>) -> Answer<String> {
        let call = self.enter(Import::Get)?;
        let shared = &call.shared;
        let answer = async {
            let key = object_key(key);
            call.granted(Wanted::object(Verb::Get, &key))?;
            let object = call
                .in_time(shared.services.get(&shared.name, &key, &fields, call.deadline))
                .await?;
            Ok(object.to_string())
        };
        to_guest(shared, "get", answer).await
    }

    async fn list(&mut self, query: wit::ListQuery) -> Answer<Vec<String>> {
        let call = self.enter(Import::List)?;
        let shared = &call.shared;
        let answer = async {
            let query = list_query(query);
            call.granted(Wanted {
                verb: Verb::List,
                api_version: &query.api_version,
                kind: &query.kind,
                namespace: query.namespace.as_deref(),
                name: None,
            })?;
            let objects = call
                .in_time(shared.services.list(&shared.name, &query, call.deadline))
                .await?;
            Ok(objects.iter().map(|object| object.as_ref().to_owned()).collect())
        };
        to_guest(shared, "list", answer).await
    }

    async fn create(&mut self, object: String) -> Answer<String> {
        let call = self.enter(Import::Create)?;
        let shared = &call.shared;
        let answer = async {
            let (key, object) = parse_object(&object)?;
            call.granted(Wanted::object(Verb::Create, &key))?;
            let stored = call
                .in_time(shared.services.create(&shared.name, object, call.deadline))
                .await?;
            Ok(stored.to_string())
        };
        to_guest(shared, "create", answer).await
    }

    async fn patch(
        &mut self,
        key: wit::ObjectKey,
        subresource: wit::Subresource,
        kind: wit::PatchType,
        body: String,
    ) -> Answer<String> {
        let call = self.enter(Import::Patch)?;
        let shared = &call.shared;
        let (verb, subresource) = match subresource {
            wit::Subresource::None => (Verb::Patch, Subresource::None),
            wit::Subresource::Status => (Verb::PatchStatus, Subresource::Status),
            wit::Subresource::Scale => (Verb::PatchScale, Subresource::Scale),
        };
        let answer = async {
            let key = object_key(key);
            let kind = match kind {
                wit::PatchType::Merge => PatchType::Merge,
                wit::PatchType::Json => PatchType::Json,
                wit::PatchType::StrategicMerge => PatchType::StrategicMerge,
            };
            call.granted(Wanted::object(verb, &key))?;
            let body = parse(&body)?;
            let patched = shared
                .services
                .patch(&shared.name, &key, subresource, kind, body, call.deadline);
            Ok(call.in_time(patched).await?.to_string())
        };
        to_guest(shared, verb.as_str(), answer).await
    }

    async fn apply(&mut self, object: String, force: bool) -> Answer<String> {
        let call = self.enter(Import::Apply)?;
        let shared = &call.shared;
        let answer = async {
            let (key, object) = parse_object(&object)?;
            call.granted(Wanted::object(Verb::Apply, &key))?;
            let applied = call
                .in_time(shared.services.apply(&shared.name, object, force, call.deadline))
                .await?;
            Ok(applied.to_string())
        };
        to_guest(shared, "apply", answer).await
    }

    async fn delete(&mut self, key: wit::ObjectKey) -> Answer<()> {
        let call = self.enter(Import::Delete)?;
        let shared = &call.shared;
        let answer = async {
            let key = object_key(key);
            call.granted(Wanted::object(Verb::Delete, &key))?;
            call.in_time(shared.services.delete(&shared.name, &key, call.deadline))
                .await
        };
        to_guest(shared, "delete", answer).await
    }

    async fn event(
        &mut self,
        regarding: wit::ObjectKey,
        kind: wit::EventType,
        reason: String,
        message: String,
    ) -> Answer<()> {
        let call = self.enter(Import::Event)?;
        let shared = &call.shared;
        let answer = async {
            if let Err(missing) = shared.grants.check_event(&shared.name) {
                return Err(call.denied("event", &missing));
            }
            let regarding = object_key(regarding);
            let kind = match kind {
                wit::EventType::Normal => EventType::Normal,
                wit::EventType::Warning => EventType::Warning,
            };
            let (reason, message) = (clip(reason, EVENT_REASON), clip(message, EVENT_MESSAGE));
            let event =
                shared
                    .services
                    .event(&shared.name, &regarding, kind, &reason, &message, call.deadline);
            call.in_time(event).await
        };
        to_guest(shared, "event", answer).await
    }
}

impl HostCall {
    fn granted(&self, wanted: Wanted<'_>) -> Result<(), ObjectError> {
        let shared = &self.shared;
        shared
            .grants
            .check(&shared.name, wanted)
            .map_err(|missing| self.denied(wanted.verb.as_str(), &missing))
    }

    /// Tells the guest and the log which grant is missing.
    fn denied(&self, capability: &'static str, missing: &MissingGrant) -> ObjectError {
        let text = missing.to_string();
        tracing::info!(capability, "{text}");
        ObjectError::Forbidden(text)
    }
}

/// Counts denials on the way.
async fn to_guest<T>(
    shared: &Shared,
    capability: &'static str,
    answer: impl Future<Output = Result<T, ObjectError>>,
) -> Answer<T> {
    Ok(answer.await.map_err(|error| match error {
        ObjectError::Forbidden(text) => {
            shared.metrics.denied(capability);
            wit::KubernetesError::Denied(text)
        }
        ObjectError::NotFound(text) => wit::KubernetesError::NotFound(text),
        ObjectError::Conflict(text) => wit::KubernetesError::Conflict(text),
        ObjectError::Invalid(text) => wit::KubernetesError::Invalid(text),
        ObjectError::Timeout(text) => wit::KubernetesError::Timeout(text),
        ObjectError::Unavailable(text) => wit::KubernetesError::Unavailable(text),
        ObjectError::TooLarge(text) | ObjectError::Other(text) => wit::KubernetesError::Other(text),
    }))
}

fn parse(text: &str) -> Result<Value, ObjectError> {
    serde_json::from_str(text).map_err(|error| ObjectError::Invalid(format!("not JSON: {error}")))
}

/// An object and its identity, which the grants are about.
fn parse_object(text: &str) -> Result<(ObjectKey, Value), ObjectError> {
    let object = parse(text)?;
    let field = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let needed =
        |path: &str| field(path).ok_or_else(|| ObjectError::Invalid(format!("the object has no {path}")));
    let key = ObjectKey {
        api_version: needed("/apiVersion")?,
        kind: needed("/kind")?,
        namespace: field("/metadata/namespace"),
        name: needed("/metadata/name")?,
    };
    Ok((key, object))
}

fn object_key(key: wit::ObjectKey) -> ObjectKey {
    let wit::ObjectKey {
        api_version,
        kind,
        namespace,
        name,
    } = key;
    ObjectKey {
        api_version,
        kind,
        namespace,
        name,
    }
}

fn list_query(query: wit::ListQuery) -> ListQuery {
    let wit::ListQuery {
        api_version,
        kind,
        namespace,
        label_selector,
        annotation_prefix,
        fields,
    } = query;
    ListQuery {
        api_version,
        kind,
        namespace,
        label_selector,
        annotation_prefix,
        fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_an_object_comes_from_the_object() {
        let (key, _) = parse_object(
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","namespace":"a"}}"#,
        )
        .unwrap();
        assert_eq!(key.namespace.as_deref(), Some("a"));
        for bad in [
            "",
            "[]",
            r#"{"kind":"Pod"}"#,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":7}}"#,
        ] {
            assert!(matches!(parse_object(bad), Err(ObjectError::Invalid(_))), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(
            matches!(parse(&deep), Err(ObjectError::Invalid(_))),
            "no recursion without end"
        );
    }
}
