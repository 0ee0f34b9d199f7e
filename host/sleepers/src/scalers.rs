//! Who else scales a workload. Two that set its replicas would undo each other's work for ever.

use std::sync::Arc;

use dormouse_kubernetes::scaled_by;
use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;

use crate::SleeperKey;
use crate::caches::Caches;
use crate::ownership::Ownership;

/// Tells who else scales a workload. It reads the caches and makes no request. Cheap to clone.
#[derive(Clone)]
pub struct Scalers {
    caches: Arc<Caches>,
    ownership: Ownership,
}

impl Scalers {
    pub(crate) fn new(caches: Arc<Caches>, ownership: Ownership) -> Self {
        Self { caches, ownership }
    }

    /// Who else scales a workload of a Sleeper, in words for people: a HorizontalPodAutoscaler, or the owner of another Sleeper that
    /// comes first. As long as HorizontalPodAutoscalers are not known, one of them may.
    pub fn other(&self, key: &SleeperKey, workload: &ObjectRef) -> Option<String> {
        let ObjectRef { kind, name, .. } = workload;
        if !self.caches.autoscalers.synced() {
            let why = self.caches.autoscalers.last_error();
            return Some(format!(
                "whether a HorizontalPodAutoscaler scales {kind} {name} is not known: {}",
                why.as_deref().unwrap_or("they are not listed yet")
            ));
        }
        if let Some(autoscaler) = autoscaler(&self.caches, &key.namespace, workload) {
            return Some(format!(
                "HorizontalPodAutoscaler {} scales {kind} {name}; delete it, or leave the number of replicas to it",
                autoscaler.name_any()
            ));
        }
        let rival = self.ownership.rival(&*self.caches.sleeper(key)?)?;
        Some(rival.explain())
    }
}

/// The HorizontalPodAutoscaler that scales a workload, if there is one, as far as is known.
pub(crate) fn autoscaler(
    caches: &Caches,
    namespace: &str,
    workload: &ObjectRef,
) -> Option<Arc<HorizontalPodAutoscaler>> {
    let scaling = scaled_by(namespace, &workload.kind, &workload.name);
    let scaling = caches.autoscalers.with(scaling);
    scaling.into_iter().find(|autoscaler| {
        let target = &autoscaler.spec.scale_target_ref;
        target.kind == workload.kind && target.name == workload.name
    })
}
