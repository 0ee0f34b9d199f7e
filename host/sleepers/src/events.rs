//! Events about Sleepers.

use dormouse_kubernetes::{EventRecorder, EventType};
use dormouse_model::ObjectKey;
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt};

use crate::api::Sleeper;

/// Publishes Events about Sleepers and the objects that they stand for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SleeperEvents {
    recorder: EventRecorder,
}

impl SleeperEvents {
    pub(crate) fn new(recorder: EventRecorder) -> Self {
        Self { recorder }
    }

    /// Publishes an Event on a Sleeper and on the object that it stands for. Does not wait.
    pub(crate) fn publish(&self, sleeper: &Sleeper, kind: EventType, reason: &str, message: &str) {
        let own = ObjectKey {
            api_version: Sleeper::api_version(&()).into_owned(),
            kind: Sleeper::kind(&()).into_owned(),
            namespace: sleeper.namespace(),
            name: sleeper.name_any(),
        };
        self.recorder.tell(&own, sleeper.uid(), kind, reason, message);
        let object = &sleeper.spec.object;
        let mut owners = sleeper.owner_references().iter();
        let uid = owners
            .find(|owner| owner.name == object.name && owner.kind == object.kind)
            .map(|owner| owner.uid.clone());
        let object = ObjectKey {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: sleeper.namespace(),
            name: object.name.clone(),
        };
        self.recorder.tell(&object, uid, kind, reason, message);
    }

    /// Publishes an Event on a Service that no Sleeper names. Does not wait.
    pub(crate) fn publish_on_service(&self, service: &Service, kind: EventType, reason: &str, message: &str) {
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: service.namespace(),
            name: service.name_any(),
        };
        self.recorder.tell(&key, service.uid(), kind, reason, message);
    }
}
