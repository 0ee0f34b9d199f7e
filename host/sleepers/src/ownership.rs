//! Which objects belong to which Sleeper. [`dormouse_lifecycle::owner`] decides between two that name the same object.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_kubernetes::pods::is_ready;
use dormouse_kubernetes::services::current_selector;
use dormouse_lifecycle::{Claimant, Rival, owner};
use dormouse_model::{ObjectRef, Phase};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt};

use crate::api::{PARKED_LABEL, Sleeper, SleeperSpec};
use crate::caches::{Caches, naming_service, naming_workload};
use crate::sleep_note::SleepNote;

/// Kinds whose pods name them, or a ReplicaSet of theirs, as their controller.
const CONTROLLERS: [&str; 4] = ["Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"];
/// The label by which the name of a ReplicaSet tells that of its Deployment.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Tells which objects belong to which Sleeper. It reads the caches and makes no request. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ownership {
    caches: Arc<Caches>,
}

impl Ownership {
    pub(crate) fn new(caches: Arc<Caches>) -> Self {
        Self { caches }
    }

    /// Who owns something that this Sleeper names too, if another one does.
    pub(crate) fn rival(&self, sleeper: &Sleeper) -> Option<Rival> {
        self.rival_of(sleeper, &claimant(sleeper), |other| other)
    }

    /// Who owns this workload, which the Sleeper names too, if another one does; whatever else they share.
    pub(crate) fn rival_for(&self, sleeper: &Sleeper, workload: &ObjectRef) -> Option<Rival> {
        let only = |claimant: Claimant| Claimant {
            services: Vec::new(),
            workloads: claimant
                .workloads
                .into_iter()
                .filter(|named| named.is_same(workload))
                .collect(),
            ..claimant
        };
        self.rival_of(sleeper, &only(claimant(sleeper)), only)
    }

    /// Who owns something that `me`, the claim of this Sleeper, names. Of others `seen` counts.
    fn rival_of(
        &self,
        sleeper: &Sleeper,
        me: &Claimant,
        seen: impl Fn(Claimant) -> Claimant,
    ) -> Option<Rival> {
        let namespace = sleeper.namespace().unwrap_or_default();
        let sleepers = &self.caches.sleepers;
        let services = me
            .services
            .iter()
            .map(|service| naming_service(&namespace, service));
        let workloads = me
            .workloads
            .iter()
            .map(|workload| naming_workload(&namespace, workload));
        let mut others: Vec<_> = services
            .chain(workloads)
            .flat_map(|key| sleepers.with(key))
            .filter(|other| other.name_any() != me.name && other.namespace().as_deref() == Some(&namespace))
            .collect();
        // Hardly anybody shares anything.
        if others.is_empty() {
            return None;
        }
        others.sort_by_key(|other| other.name_any());
        others.dedup_by_key(|other| other.name_any());
        let others: Vec<_> = others.iter().map(|other| seen(claimant(other))).collect();
        owner(me, &others)
    }

    /// Another Sleeper that diverts a Service: named by the label in its parked selector, or by the owner reference of Dormouse's
    /// slice. One that is gone, or that does not name the Service any more, does not count.
    pub(crate) fn holder(
        &self,
        sleeper: &Sleeper,
        service: &str,
        object: Option<&Service>,
        own: Option<&EndpointSlice>,
    ) -> Option<String> {
        let namespace = sleeper.namespace().unwrap_or_default();
        let parked = object
            .and_then(current_selector)
            .and_then(|selector| selector.get(PARKED_LABEL))
            .map(|name| (name.as_str(), None));
        let slice = own
            .into_iter()
            .flat_map(|slice| slice.owner_references())
            .find(|owner| owner.kind == Sleeper::kind(&()))
            .map(|owner| (owner.name.as_str(), Some(owner.uid.as_str())));
        let lives = |(name, uid): &(&str, Option<&str>)| {
            let known = self.caches.sleepers.get(&namespace, name);
            known.is_some_and(|known| {
                uid.is_none_or(|uid| known.uid().as_deref() == Some(uid))
                    && known.spec.services.iter().any(|named| named == service)
            })
        };
        // Only one holds it, and the parked selector comes before the slice. Otherwise two Sleepers could wait for each other.
        let (holder, _) = [parked, slice].into_iter().flatten().find(lives)?;
        (holder != sleeper.name_any()).then(|| holder.to_owned())
    }

    /// Another Sleeper that has put a workload to sleep, and may do so again.
    pub(crate) fn sleep_of_another(
        &self,
        sleeper: &Sleeper,
        workload: &ObjectRef,
        replicas: i32,
        note: Option<&SleepNote>,
    ) -> Option<String> {
        let note = note.filter(|note| note.sleeper != sleeper.name_any())?;
        let other = self
            .caches
            .sleepers
            .get(&sleeper.namespace().unwrap_or_default(), &note.sleeper)?;
        let names = other.spec.workloads.iter().any(|named| named.is_same(workload));
        let lives = other.uid().as_deref() == Some(note.uid.as_str());
        let active = replicas == 0 || other.phase() != Phase::Awake;
        (names && lives && active).then(|| note.sleeper.clone())
    }

    /// A workload of none of the spec's that has ready pods with these labels. None where the pods of the spec's workloads cannot be
    /// told from others.
    pub(crate) fn foreign(
        &self,
        namespace: &str,
        spec: &SleeperSpec,
        labels: &BTreeMap<String, String>,
    ) -> Option<String> {
        if spec.workloads.is_empty() || !spec.workloads.iter().all(is_named_by_its_pods) {
            return None;
        }
        self.caches
            .pods
            .selected(namespace, labels)
            .iter()
            .filter(|pod| is_ready(pod))
            .find_map(|pod| of_another(pod, &spec.workloads))
    }
}

/// Whether the owner references of pods lead to such a workload.
fn is_named_by_its_pods(workload: &ObjectRef) -> bool {
    let version = workload.api_version.split_once('/');
    let group = version.map_or("", |(group, _)| group);
    CONTROLLERS.contains(&workload.kind.as_str()) && matches!(group, "" | "apps")
}

/// What a pod belongs to, if that is none of these workloads.
fn of_another(pod: &Pod, workloads: &[ObjectRef]) -> Option<String> {
    let controller = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let Some(controller) = controller else {
        return Some(format!("Pod {}", pod.name_any()));
    };
    let deployment = || {
        let hash = pod.labels().get(TEMPLATE_HASH)?;
        controller.name.strip_suffix(hash.as_str())?.strip_suffix('-')
    };
    let is_of = |kind: &str, name: &str| {
        workloads
            .iter()
            .any(|workload| workload.kind == kind && workload.name == name)
    };
    if is_of(&controller.kind, &controller.name) {
        return None;
    }
    match deployment().filter(|_| controller.kind == "ReplicaSet") {
        Some(name) if is_of("Deployment", name) => None,
        Some(name) => Some(format!("Deployment {name}")),
        None => Some(format!("{} {}", controller.kind, controller.name)),
    }
}

fn claimant(sleeper: &Sleeper) -> Claimant {
    Claimant {
        name: sleeper.name_any(),
        created: sleeper.creation_timestamp().map(|time| time.0),
        phase: sleeper.phase(),
        deleting: sleeper.metadata.deletion_timestamp.is_some(),
        services: sleeper.spec.services.clone(),
        workloads: sleeper.spec.workloads.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn pod(kind: &str, name: &str, hash: Option<&str>) -> Pod {
        let owner = json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": owner}})).unwrap();
        let hash = hash.map(|hash| (TEMPLATE_HASH.to_owned(), hash.to_owned()));
        pod.labels_mut().extend(hash);
        pod
    }

    #[rstest]
    #[case(pod("ReplicaSet", "web-5d9", Some("5d9")), None)]
    #[case(
        pod("ReplicaSet", "web-canary-5d9", Some("5d9")),
        Some("Deployment web-canary")
    )]
    #[case(pod("ReplicaSet", "web-5d9", Some("77")), Some("ReplicaSet web-5d9"))]
    #[case(pod("StatefulSet", "db", None), None)]
    #[case(pod("StatefulSet", "web", None), Some("StatefulSet web"))]
    #[case(Pod::default(), Some("Pod "))]
    fn pods_tell_whose_they_are(#[case] pod: Pod, #[case] expected: Option<&str>) {
        let object = |kind: &str, name: &str| ObjectRef {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            name: name.into(),
        };
        let ours = [object("Deployment", "web"), object("StatefulSet", "db")];
        assert_eq!(of_another(&pod, &ours).as_deref(), expected);
    }
}
