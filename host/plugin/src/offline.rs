//! Services that answer from objects in files, for trying a plugin without a cluster.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dormouse_kubernetes::objects::{ListQuery, PatchType, Subresource, fields_of};
use dormouse_kubernetes::{EventType, ObjectError};
use dormouse_model::ObjectKey;
use serde_json::Value;
use tokio::time::Instant;

use crate::types::ResourceId;
use crate::{HostServices, LifecycleError, SleeperView};

/// Answers reads from objects, keeps the events that a plugin tells, and refuses every write: nothing would come of it.
#[derive(Debug, Default)]
pub struct OfflineServices {
    objects: Vec<Value>,
    events: Mutex<Vec<OfflineEvent>>,
}

/// An event that a plugin told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineEvent {
    /// On which object.
    pub regarding: ObjectKey,
    /// Whether it is a warning.
    pub warning: bool,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

impl OfflineServices {
    /// With these objects, each as in a manifest.
    pub fn new(objects: Vec<Value>) -> Self {
        Self {
            objects,
            events: Mutex::default(),
        }
    }

    /// What was told so far.
    pub fn events(&self) -> Vec<OfflineEvent> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.clone()
    }

    fn written<T>() -> Result<T, ObjectError> {
        Err(ObjectError::Unavailable(
            "nothing is written without a cluster".to_owned(),
        ))
    }

    fn asked<T>() -> Result<T, LifecycleError> {
        Err(LifecycleError::Unavailable(
            "nothing sleeps or wakes without a cluster".to_owned(),
        ))
    }
}

fn is_object(object: &Value, key: &ObjectKey) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    text("/apiVersion") == Some(&key.api_version)
        && text("/kind") == Some(&key.kind)
        && text("/metadata/name") == Some(&key.name)
        && text("/metadata/namespace") == key.namespace.as_deref()
}

#[async_trait]
impl HostServices for OfflineServices {
    async fn get(
        &self,
        _: &str,
        key: &ObjectKey,
        fields: &[String],
        _: Instant,
    ) -> Result<Value, ObjectError> {
        let found = self.objects.iter().find(|object| is_object(object, key));
        let found = found.cloned().ok_or_else(|| {
            let namespace = key.namespace.as_deref().unwrap_or_default();
            ObjectError::NotFound(format!("{} {namespace}/{} is in no file", key.kind, key.name))
        })?;
        Ok(fields_of(found, fields))
    }

    async fn list(&self, _: &str, query: &ListQuery, _: Instant) -> Result<Vec<Arc<str>>, ObjectError> {
        let listed = query.among(&self.objects);
        listed.map_err(|error| ObjectError::Invalid(format!("the label selector: {error}")))
    }

    async fn create(&self, _: &str, _: Value, _: Instant) -> Result<Value, ObjectError> {
        Self::written()
    }

    async fn patch(
        &self,
        _: &str,
        _: &ObjectKey,
        _: Subresource,
        _: PatchType,
        _: Value,
        _: Instant,
    ) -> Result<Value, ObjectError> {
        Self::written()
    }

    async fn apply(&self, _: &str, _: Value, _: bool, _: Instant) -> Result<Value, ObjectError> {
        Self::written()
    }

    async fn delete(&self, _: &str, _: &ObjectKey, _: Instant) -> Result<(), ObjectError> {
        Self::written()
    }

    async fn event(
        &self,
        _: &str,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        _: Instant,
    ) -> Result<(), ObjectError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(OfflineEvent {
            regarding: regarding.clone(),
            warning: kind == EventType::Warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
        Ok(())
    }

    async fn sleep(&self, _: &str, _: &ResourceId, _: &str, _: Instant) -> Result<(), LifecycleError> {
        Self::asked()
    }

    async fn wake(&self, _: &str, _: &ResourceId, _: &str, _: Instant) -> Result<(), LifecycleError> {
        Self::asked()
    }

    async fn state(
        &self,
        _: &str,
        _: &ResourceId,
        _: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn services() -> OfflineServices {
        let web = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "shop", "name": "web", "labels": {"tier": "preview"}, "annotations": {"a/b": "c"}},
            "spec": {"replicas": 2, "paused": true},
        });
        let api = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "other", "name": "api"},
        });
        OfflineServices::new(vec![web, api])
    }

    fn query() -> ListQuery {
        ListQuery {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            ..ListQuery::default()
        }
    }

    async fn names(query: ListQuery) -> Vec<String> {
        let listed = services().list("p", &query, Instant::now()).await.unwrap();
        let parsed = listed
            .iter()
            .map(|text| serde_json::from_str::<Value>(text).unwrap());
        parsed
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[tokio::test]
    async fn a_list_holds_what_the_query_asks_for_and_only_the_fields_that_it_names() {
        assert_eq!(names(query()).await, ["web", "api"]);
        let narrower = [
            ListQuery {
                namespace: Some("shop".to_owned()),
                ..query()
            },
            ListQuery {
                label_selector: Some("tier in (preview)".to_owned()),
                ..query()
            },
            ListQuery {
                annotation_prefix: Some("a/".to_owned()),
                ..query()
            },
        ];
        for query in narrower {
            assert_eq!(names(query).await, ["web"]);
        }
        assert!(
            names(ListQuery {
                kind: "Service".to_owned(),
                ..query()
            })
            .await
            .is_empty()
        );
        let fields = ListQuery {
            fields: vec!["spec.replicas".to_owned()],
            ..query()
        };
        let listed = services().list("p", &fields, Instant::now()).await.unwrap();
        let web: Value = serde_json::from_str(&listed[0]).unwrap();
        assert_eq!(web["spec"], json!({"replicas": 2}));
        assert_eq!(web["metadata"].get("annotations"), None);
        let wrong = ListQuery {
            label_selector: Some("((".to_owned()),
            ..query()
        };
        let refused = services().list("p", &wrong, Instant::now()).await;
        assert!(matches!(refused, Err(ObjectError::Invalid(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn one_object_is_read_and_nothing_is_written_but_events_are_kept() {
        let services = services();
        let key = |name: &str| ObjectKey {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: Some("shop".to_owned()),
            name: name.to_owned(),
        };
        let fields = ["spec.paused".to_owned()];
        let web = services
            .get("p", &key("web"), &fields, Instant::now())
            .await
            .unwrap();
        assert_eq!(web["spec"], json!({"paused": true}));
        let gone = services.get("p", &key("api"), &[], Instant::now()).await;
        assert!(matches!(gone, Err(ObjectError::NotFound(_))), "{gone:?}");
        let written = services.delete("p", &key("web"), Instant::now()).await;
        assert!(matches!(written, Err(ObjectError::Unavailable(_))), "{written:?}");
        let web = key("web");
        let told = services.event("p", &web, EventType::Warning, "Odd", "it is odd", Instant::now());
        told.await.unwrap();
        assert_eq!(services.events()[0].reason, "Odd");
    }
}
