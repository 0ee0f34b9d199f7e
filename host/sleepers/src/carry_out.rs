//! Carries out the steps of the protocol: each is one write, conditional on what was observed.

mod news;
mod patches;

use std::collections::BTreeMap;

use dormouse_kubernetes::services::ports;
use dormouse_kubernetes::slices::SERVICE_NAME_LABEL;
use dormouse_kubernetes::{ClusterError, EventType};
use dormouse_lifecycle::{Allocation, Claim, Epoch, PortsExhausted, Selector, SleeperState, Step, allocate};
use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use self::news::News;
pub(crate) use self::patches::slice;
use self::patches::{Fence, park_patch, restore_patch};
use crate::api::{ASLEEP, FENCE, FENCE_LABEL, FINALIZER, PARKED_SELECTOR, PARKED_WORKLOADS, Sleeper};
use crate::caches::claiming_port;
use crate::conditions;
use crate::endpoints::is_own;
use crate::observe::{WorkloadVersion, restamped};
use crate::ownership::Note;
use crate::sleepers::own_seed;
use crate::{Cluster, Seen};

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carried {
    /// It is done, or was so already.
    Done,
    /// What it was decided on has changed: observe again.
    Conflicted,
}

impl Cluster {
    /// Carries out one step, if the cluster is still as it was seen.
    ///
    /// # Errors
    /// What the API server says, other than that something changed.
    pub async fn carry_out(&self, seen: &Seen, step: &Step) -> Result<Carried, ClusterError> {
        let done = match step {
            Step::SetState(state) => self.set_state(seen, state).await,
            Step::AllocatePorts(_) => self.allocate_ports(seen).await,
            Step::WriteSlice(service) => self.write_slice(seen, service).await,
            Step::ParkSelector(service) => self.park(seen, service).await,
            Step::RestoreSelector(service) => self.restore(seen, service).await,
            Step::FenceService(service, epoch) => self.fence_service(seen, service, *epoch).await,
            Step::DeleteSlice(service) => self.delete_slice(seen, service).await,
            Step::Scale(workload, replicas) => self.scale(seen, workload, *replicas).await,
            Step::Fence(workload, epoch) => self.fence(seen, workload, *epoch).await,
            Step::RemoveFinalizer => self.remove_finalizer(seen).await,
        };
        match done {
            Ok(()) => Ok(Carried::Done),
            // What is gone or appeared since is a change like any other.
            Err(
                ClusterError::Conflict { .. } | ClusterError::NotFound { .. } | ClusterError::Exists { .. },
            ) => {
                self.inner.metrics.conflict();
                Ok(Carried::Conflicted)
            }
            Err(error) => Err(error),
        }
    }

    async fn set_state(&self, seen: &Seen, next: &SleeperState) -> Result<(), ClusterError> {
        let mut status = seen.sleeper.status.clone().unwrap_or_default();
        let mut next = next.clone();
        let fresh_failure = next.wake_failure != status.state.wake_failure;
        if let Some(failure) = next.wake_failure.as_mut().filter(|_| fresh_failure) {
            let namespace = seen.sleeper.namespace().unwrap_or_default();
            let trouble = seen
                .sleeper
                .spec
                .services
                .iter()
                .find_map(|service| self.pod_trouble(&namespace, service));
            if let Some(trouble) = trouble {
                failure.message = format!("{}: {trouble}", failure.message);
            }
        }
        let news = News::of(&status.state, &next, seen.observation.obstacle().as_deref());
        let generation = seen.sleeper.metadata.generation;
        conditions::apply(&mut status.conditions, &news.conditions, generation, self.now());
        status.state = next;
        self.put_status(&seen.sleeper, status).await?;
        self.announce(&seen.sleeper, &news);
        Ok(())
    }

    fn announce(&self, sleeper: &Sleeper, news: &News) {
        if news.slept {
            self.inner.metrics.slept();
        }
        if let Some(took) = news.woken {
            self.inner.metrics.woken(took);
        }
        if news.wake_failed {
            self.inner.metrics.wake_failed();
        }
        if let Some((kind, reason, message)) = &news.event {
            self.tell(sleeper, *kind, reason, message);
            tracing::info!(sleeper = %crate::SleeperKey::of(sleeper), reason, message, "lifecycle");
        }
    }

    /// DLX ports for all Service ports of a Sleeper.
    fn allocation(&self, seen: &Seen) -> Result<Allocation, PortsExhausted> {
        let (namespace, name) = (
            seen.sleeper.namespace().unwrap_or_default(),
            seen.sleeper.name_any(),
        );
        let created = seen.sleeper.creation_timestamp().map(|time| time.0);
        let me = (namespace, name);
        let mut wanted = Vec::new();
        for service in &seen.sleeper.spec.services {
            if let Some(service_object) = seen
                .services
                .get(service)
                .and_then(|version| version.service.as_ref())
            {
                wanted.extend(
                    ports(service_object)
                        .into_iter()
                        .map(|(name, port)| (service.clone(), name, port)),
                );
            }
        }
        let state = &seen.observation.state;
        let start = own_seed(&me.0, &me.1);
        let range = self.inner.config.ports;
        let claim = |port| self.claim(&me, port);
        allocate(range, (&me, created), &state.ports, &wanted, claim, start)
    }

    /// Why a Service port that has no DLX port cannot get one.
    pub(crate) fn no_port(&self, seen: &Seen) -> Option<String> {
        if !seen.observation.lacks_ports() {
            return None;
        }
        self.allocation(seen).err().map(|exhausted| exhausted.to_string())
    }

    async fn allocate_ports(&self, seen: &Seen) -> Result<(), ClusterError> {
        // Somebody was faster with the last ones: what is seen next says that there are none.
        let Ok(Allocation { ports, lost }) = self.allocation(seen) else {
            let what = format!("the DLX ports of Sleeper {}", seen.sleeper.name_any());
            return Err(ClusterError::Conflict { what });
        };
        let mut status = seen.sleeper.status.clone().unwrap_or_default();
        status.state.ports = ports;
        self.put_status(&seen.sleeper, status).await?;
        if !lost.is_empty() {
            let message = format!("DLX ports {lost:?} belong to an older Sleeper; others were taken");
            self.tell(&seen.sleeper, EventType::Warning, "PortsLost", &message);
        }
        Ok(())
    }

    /// Ports that are recorded on a Sleeper, and are not its own: of an older claim, recorded twice, or none at all.
    pub(crate) fn lost_ports(&self, sleeper: &Sleeper) -> Vec<u16> {
        let ports = sleeper.status.iter().flat_map(|status| &status.state.ports);
        let held: Vec<u16> = ports.map(|port| port.dlx_port).collect();
        if held.is_empty() {
            return held;
        }
        let key = |sleeper: &Sleeper| {
            let created = sleeper.creation_timestamp().map(|time| time.0);
            (
                created,
                sleeper.namespace().unwrap_or_default(),
                sleeper.name_any(),
            )
        };
        let me = key(sleeper);
        let sleepers = &self.inner.caches.sleepers;
        let claimed_earlier = |port: &u16| {
            let claims = |other: &Sleeper| {
                let mut ports = other.status.iter().flat_map(|status| &status.state.ports);
                ports.any(|claimed| claimed.dlx_port == *port)
            };
            let others = sleepers.with(claiming_port(*port));
            others.iter().any(|other| claims(other) && key(other) < me)
        };
        let mut lost: Vec<u16> = held.iter().copied().filter(claimed_earlier).collect();
        let twice = |port: &u16| *port == 0 || held.iter().filter(|other| *other == port).count() > 1;
        lost.extend(held.iter().copied().filter(twice));
        lost
    }

    /// The oldest claim of another Sleeper to a port.
    fn claim(&self, me: &(String, String), port: u16) -> Option<Claim> {
        let others = self.inner.caches.sleepers.with(claiming_port(port));
        let claims = others.iter().filter_map(|sleeper| {
            let mut ports = sleeper.status.iter().flat_map(|status| &status.state.ports);
            ports.find(|claimed| claimed.dlx_port == port)?;
            Some(Claim {
                sleeper: (sleeper.namespace().unwrap_or_default(), sleeper.name_any()),
                created: sleeper.creation_timestamp().map(|time| time.0),
                dlx_port: port,
            })
        });
        claims
            .filter(|claim| claim.sleeper != *me)
            .min_by(|one, other| (one.created, &one.sleeper).cmp(&(other.created, &other.sleeper)))
    }

    async fn write_slice(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        let service = seen
            .observation
            .services
            .iter()
            .find(|service| service.name == name);
        let wanted = seen.observation.wanted_slice(known(service, "Service", name)?);
        let mut slice = slice(&seen.sleeper, name, &wanted, &self.dlx_nodes());
        let api = self
            .inner
            .server
            .api::<EndpointSlice>(&seen.sleeper.namespace().unwrap_or_default());
        let own_name = slice.name_any();
        let what = || format!("EndpointSlice {own_name}");
        match seen.services.get(name).and_then(|version| version.own.as_ref()) {
            None => match self
                .inner
                .server
                .ask(what, api.create(&self.inner.server.post_params(), &slice))
                .await
            {
                // One whose labels somebody took away is Dormouse's all the same.
                Err(ClusterError::Exists { .. }) => {
                    let found = self.inner.server.ask(what, api.get(&own_name)).await?;
                    let of_sleeper = |owner: &OwnerReference| owner.kind == Sleeper::kind(&());
                    let of_service = found.labels().get(SERVICE_NAME_LABEL);
                    let is_whole = is_own(found.labels()) && of_service.is_some_and(|of| of == name);
                    if is_whole || !found.owner_references().iter().any(of_sleeper) {
                        return Err(ClusterError::Exists { what: what() });
                    }
                    slice.metadata.resource_version = found.metadata.resource_version;
                    self.inner
                        .server
                        .ask(
                            what,
                            api.replace(&own_name, &self.inner.server.post_params(), &slice),
                        )
                        .await
                        .map(|_| ())
                }
                created => created.map(|_| ()),
            },
            // The family of a slice is fixed.
            Some(own) if own.address_type != slice.address_type => self.delete_slice(seen, name).await,
            Some(own) => {
                slice
                    .metadata
                    .resource_version
                    .clone_from(&own.metadata.resource_version);
                self.inner
                    .server
                    .ask(
                        what,
                        api.replace(&own_name, &self.inner.server.post_params(), &slice),
                    )
                    .await
                    .map(|_| ())
            }
        }
    }

    async fn delete_slice(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        let Some(own) = seen.services.get(name).and_then(|version| version.own.as_ref()) else {
            return Ok(());
        };
        let preconditions = Preconditions {
            uid: own.uid(),
            resource_version: own.resource_version(),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api = self
            .inner
            .server
            .api::<EndpointSlice>(&own.namespace().unwrap_or_default());
        let own_name = own.name_any();
        match self
            .inner
            .server
            .ask(
                || format!("EndpointSlice {own_name}"),
                api.delete(&own_name, &params),
            )
            .await
        {
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn park(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        let service = seen_service(seen, name)?;
        let patch = park_patch(service, known_selector(seen, name)?, &seen.sleeper);
        self.patch_service(service, &patch).await
    }

    async fn restore(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        let service = seen_service(seen, name)?;
        let uid = seen.sleeper.uid().unwrap_or_default();
        let fence = Fence::new(service, seen.observation.state.epoch, &uid);
        let patch = restore_patch(service, known_selector(seen, name)?, &fence);
        self.patch_service(service, &patch).await
    }

    async fn fence_service(&self, seen: &Seen, name: &str, epoch: Epoch) -> Result<(), ClusterError> {
        let service = seen_service(seen, name)?;
        let fence = Fence::new(service, epoch, &seen.sleeper.uid().unwrap_or_default());
        // It leads to its pods; what says otherwise was left there by whoever put its selector back by hand.
        let patch = json!({"metadata": {
            "resourceVersion": service.resource_version(),
            "annotations": {FENCE: fence.all, PARKED_SELECTOR: null, PARKED_WORKLOADS: null},
            "labels": {FENCE_LABEL: fence.label},
        }});
        self.patch_service(service, &patch).await
    }

    async fn patch_service(&self, service: &Service, patch: &Value) -> Result<(), ClusterError> {
        let name = service.name_any();
        let api = self
            .inner
            .server
            .api::<Service>(&service.namespace().unwrap_or_default());
        let (params, patch) = (self.inner.server.patch_params(), Patch::Merge(patch));
        self.inner
            .server
            .ask(|| format!("Service {name}"), api.patch(&name, &params, &patch))
            .await
            .map(|_| ())
    }

    async fn scale(&self, seen: &Seen, workload: &ObjectRef, replicas: i32) -> Result<(), ClusterError> {
        let version = known(seen.workloads.get(workload), &workload.kind, &workload.name)?.clone();
        let mut scale = known(version.scale.clone(), &workload.kind, &workload.name)?;
        scale.spec = Some(ScaleSpec {
            replicas: Some(replicas),
        });
        scale.status = None;
        let namespace = seen.sleeper.namespace().unwrap_or_default();
        let api = self
            .inner
            .server
            .api_of(&namespace, &version.resource, version.namespaced);
        if replicas == 0 {
            // What undoes it, first. Without the note it is still undone, by what the Sleeper remembers.
            scale.metadata.resource_version = self.note_sleep(seen, workload, &version, &api).await?;
        }
        let what = || format!("scaling {} {} to {replicas}", workload.kind, workload.name);
        self.inner
            .server
            .ask(
                what,
                api.replace_scale(&workload.name, &self.inner.server.post_params(), &scale),
            )
            .await
            .map(|_| ())
    }

    /// Notes on a workload how many replicas it had. The answer is its version after that.
    async fn note_sleep(
        &self,
        seen: &Seen,
        workload: &ObjectRef,
        version: &WorkloadVersion,
        api: &Api<DynamicObject>,
    ) -> Result<Option<String>, ClusterError> {
        let state = &seen.observation.state;
        let recorded = state
            .replicas
            .iter()
            .find(|recorded| recorded.workload == *workload);
        let note = Note {
            sleeper: seen.sleeper.name_any(),
            uid: seen.sleeper.uid().unwrap_or_default(),
            epoch: state.epoch,
            replicas: recorded.map_or(1, |recorded| recorded.replicas),
        };
        let patch = json!({"metadata": {
            "resourceVersion": version.version,
            "annotations": {ASLEEP: serde_json::to_string(&note).unwrap_or_default()},
        }});
        let (params, patch) = (self.inner.server.patch_params(), Patch::Merge(&patch));
        let patched = api.patch_metadata(&workload.name, &params, &patch);
        let patched = self
            .inner
            .server
            .ask(|| format!("{} {}", workload.kind, workload.name), patched)
            .await?;
        Ok(patched.metadata.resource_version)
    }

    async fn fence(&self, seen: &Seen, workload: &ObjectRef, epoch: Epoch) -> Result<(), ClusterError> {
        let version = known(seen.workloads.get(workload), &workload.kind, &workload.name)?;
        let namespace = seen.sleeper.namespace().unwrap_or_default();
        let api = self
            .inner
            .server
            .api_of(&namespace, &version.resource, version.namespaced);
        let patch = json!({"metadata": {
            "resourceVersion": version.version,
            "annotations": {
                FENCE: restamped(&version.annotations, FENCE, epoch, &seen.sleeper.uid().unwrap_or_default()),
                ASLEEP: null,
            },
        }});
        let (params, patch) = (self.inner.server.patch_params(), Patch::Merge(&patch));
        let patched = api.patch_metadata(&workload.name, &params, &patch);
        self.inner
            .server
            .ask(|| format!("{} {}", workload.kind, workload.name), patched)
            .await
            .map(|_| ())
    }

    async fn remove_finalizer(&self, seen: &Seen) -> Result<(), ClusterError> {
        let name = seen.sleeper.name_any();
        let left: Vec<_> = seen
            .sleeper
            .finalizers()
            .iter()
            .filter(|f| f.as_str() != FINALIZER)
            .collect();
        let patch = json!({"metadata": {
            "resourceVersion": seen.sleeper.resource_version(),
            "finalizers": left,
        }});
        let api = self
            .inner
            .server
            .api::<Sleeper>(&seen.sleeper.namespace().unwrap_or_default());
        let params = self.inner.server.patch_params();
        match self
            .inner
            .server
            .ask(
                || format!("Sleeper {name}"),
                api.patch(&name, &params, &Patch::Merge(&patch)),
            )
            .await
        {
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A step for something that was not seen was decided on something else.
fn known<T>(found: Option<T>, kind: &str, name: &str) -> Result<T, ClusterError> {
    found.ok_or_else(|| ClusterError::NotFound {
        what: format!("{kind} {name}"),
    })
}

/// How a Service selects its pods, as far as anything tells.
fn known_selector<'a>(seen: &'a Seen, name: &str) -> Result<&'a BTreeMap<String, String>, ClusterError> {
    let service = seen
        .observation
        .services
        .iter()
        .find(|service| service.name == name);
    let selector = service.and_then(|service| service.selector.as_ref());
    selector
        .and_then(Selector::labels)
        .ok_or_else(|| ClusterError::NotFound {
            what: format!("the selector of Service {name}"),
        })
}

fn seen_service<'a>(seen: &'a Seen, name: &str) -> Result<&'a Service, ClusterError> {
    known(
        seen.services
            .get(name)
            .and_then(|version| version.service.as_ref()),
        "Service",
        name,
    )
}
