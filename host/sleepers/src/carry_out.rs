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
use kube::core::ObjectMeta;
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

/// The object that a step wrote, as the API server returned it.
enum Written {
    Sleeper(Box<Sleeper>),
    Service(Box<Service>),
    /// Dormouse's slice of this Service; none when it was deleted.
    Slice(String, Option<Box<EndpointSlice>>),
    Workload(ObjectRef, Box<WorkloadVersion>),
    /// Nothing that matters any more.
    Gone,
}

impl Seen {
    /// Takes in what a step wrote, so that the next one may be decided and carried out on it.
    fn wrote(&mut self, written: Written) {
        match written {
            Written::Sleeper(sleeper) => self.sleeper = *sleeper,
            Written::Service(service) => {
                let name = service.name_any();
                if let Some(version) = self.parts.services.get_mut(&name) {
                    version.service = Some(*service);
                }
            }
            Written::Slice(service, own) => {
                if let Some(version) = self.parts.services.get_mut(&service) {
                    version.own = own.map(|own| *own);
                }
            }
            Written::Workload(object, version) => {
                self.parts.workloads.insert(object, *version);
            }
            Written::Gone => {}
        }
    }
}

impl Cluster {
    /// Carries out one step, if the cluster is still as it was seen. `seen` then has what was written in place of what was read;
    /// its observation stays what it was decided on.
    ///
    /// # Errors
    /// What the API server says, other than that something changed.
    pub async fn carry_out(&self, seen: &mut Seen, step: &Step) -> Result<Carried, ClusterError> {
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
            Ok(written) => {
                seen.wrote(written);
                Ok(Carried::Done)
            }
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

    async fn set_state(&self, seen: &Seen, next: &SleeperState) -> Result<Written, ClusterError> {
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
        let written = self.put_status(&seen.sleeper, status).await?;
        self.announce(&seen.sleeper, &news);
        Ok(Written::Sleeper(Box::new(written)))
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
                .parts
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

    async fn allocate_ports(&self, seen: &Seen) -> Result<Written, ClusterError> {
        // Somebody was faster with the last ones: what is seen next says that there are none.
        let Ok(Allocation { ports, lost }) = self.allocation(seen) else {
            let what = format!("the DLX ports of Sleeper {}", seen.sleeper.name_any());
            return Err(ClusterError::Conflict { what });
        };
        let mut status = seen.sleeper.status.clone().unwrap_or_default();
        status.state.ports = ports;
        let written = self.put_status(&seen.sleeper, status).await?;
        if !lost.is_empty() {
            let message = format!("DLX ports {lost:?} belong to an older Sleeper; others were taken");
            self.tell(&seen.sleeper, EventType::Warning, "PortsLost", &message);
        }
        Ok(Written::Sleeper(Box::new(written)))
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

    async fn write_slice(&self, seen: &Seen, name: &str) -> Result<Written, ClusterError> {
        let service = seen
            .observation
            .services
            .iter()
            .find(|service| service.name == name);
        let wanted = seen.observation.wanted_slice(known(service, "Service", name)?);
        let mut slice = slice(&seen.sleeper, name, &wanted, &self.dlx_nodes());
        let server = &self.inner.server;
        let api = server.api::<EndpointSlice>(&seen.sleeper.namespace().unwrap_or_default());
        let own_name = slice.name_any();
        let what = || format!("EndpointSlice {own_name}");
        let own = seen
            .parts
            .services
            .get(name)
            .and_then(|version| version.own.as_ref());
        let known_version = match own {
            // The family of a slice is fixed.
            Some(own) if own.address_type != slice.address_type => {
                return self.delete_slice(seen, name).await;
            }
            Some(own) => own.metadata.resource_version.clone(),
            None => match server.ask(what, api.create(&server.post_params(), &slice)).await {
                Ok(created) => return Ok(Written::Slice(name.to_owned(), Some(Box::new(created)))),
                // One whose labels somebody took away is Dormouse's all the same.
                Err(ClusterError::Exists { .. }) => {
                    let found = server.ask(what, api.get(&own_name)).await?;
                    let of_sleeper = |owner: &OwnerReference| owner.kind == Sleeper::kind(&());
                    let of_service = found.labels().get(SERVICE_NAME_LABEL);
                    let is_whole = is_own(found.labels()) && of_service.is_some_and(|of| of == name);
                    if is_whole || !found.owner_references().iter().any(of_sleeper) {
                        return Err(ClusterError::Exists { what: what() });
                    }
                    found.metadata.resource_version
                }
                Err(error) => return Err(error),
            },
        };
        slice.metadata.resource_version = known_version;
        let params = server.post_params();
        let replaced = server.ask(what, api.replace(&own_name, &params, &slice)).await?;
        Ok(Written::Slice(name.to_owned(), Some(Box::new(replaced))))
    }

    async fn delete_slice(&self, seen: &Seen, name: &str) -> Result<Written, ClusterError> {
        let deleted = Written::Slice(name.to_owned(), None);
        let Some(own) = seen
            .parts
            .services
            .get(name)
            .and_then(|version| version.own.as_ref())
        else {
            return Ok(deleted);
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
        let what = || format!("EndpointSlice {own_name}");
        match self.inner.server.ask(what, api.delete(&own_name, &params)).await {
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(deleted),
            Err(error) => Err(error),
        }
    }

    async fn park(&self, seen: &Seen, name: &str) -> Result<Written, ClusterError> {
        let service = seen_service(seen, name)?;
        let patch = park_patch(service, known_selector(seen, name)?, &seen.sleeper);
        self.patch_service(service, &patch).await
    }

    async fn restore(&self, seen: &Seen, name: &str) -> Result<Written, ClusterError> {
        let service = seen_service(seen, name)?;
        let uid = seen.sleeper.uid().unwrap_or_default();
        let fence = Fence::new(service, seen.observation.state.epoch, &uid);
        let patch = restore_patch(service, known_selector(seen, name)?, &fence);
        self.patch_service(service, &patch).await
    }

    async fn fence_service(&self, seen: &Seen, name: &str, epoch: Epoch) -> Result<Written, ClusterError> {
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

    async fn patch_service(&self, service: &Service, patch: &Value) -> Result<Written, ClusterError> {
        let (name, server) = (service.name_any(), &self.inner.server);
        let api = server.api::<Service>(&service.namespace().unwrap_or_default());
        let (params, patch) = (server.patch_params(), Patch::Merge(patch));
        let patched = api.patch(&name, &params, &patch);
        let patched = server.ask(|| format!("Service {name}"), patched).await?;
        Ok(Written::Service(Box::new(patched)))
    }

    async fn scale(&self, seen: &Seen, workload: &ObjectRef, replicas: i32) -> Result<Written, ClusterError> {
        let found = seen.parts.workloads.get(workload);
        let mut version = known(found, &workload.kind, &workload.name)?.clone();
        let mut scale = known(version.scale.clone(), &workload.kind, &workload.name)?;
        scale.spec = Some(ScaleSpec {
            replicas: Some(replicas),
        });
        scale.status = None;
        let (namespace, server) = (seen.sleeper.namespace().unwrap_or_default(), &self.inner.server);
        let api = server.api_of(&namespace, &version.resource, version.namespaced);
        if replicas == 0 {
            // What undoes it, first. Without the note it is still undone, by what the Sleeper remembers.
            let noted = self.note_sleep(seen, workload, &version, &api).await?;
            scale
                .metadata
                .resource_version
                .clone_from(&noted.resource_version);
            version.annotations = noted.annotations.unwrap_or_default();
        }
        let what = || format!("scaling {} {} to {replicas}", workload.kind, workload.name);
        let params = server.post_params();
        let replaced = api.replace_scale(&workload.name, &params, &scale);
        let scaled = server.ask(what, replaced).await?;
        version.version.clone_from(&scaled.metadata.resource_version);
        version.scale = Some(scaled);
        Ok(Written::Workload(workload.clone(), Box::new(version)))
    }

    /// Notes on a workload how many replicas it had. The answer is its metadata after that.
    async fn note_sleep(
        &self,
        seen: &Seen,
        workload: &ObjectRef,
        version: &WorkloadVersion,
        api: &Api<DynamicObject>,
    ) -> Result<ObjectMeta, ClusterError> {
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
        let annotations = json!({ASLEEP: serde_json::to_string(&note).unwrap_or_default()});
        self.annotate(workload, version, api, &annotations).await
    }

    async fn annotate(
        &self,
        workload: &ObjectRef,
        version: &WorkloadVersion,
        api: &Api<DynamicObject>,
        annotations: &Value,
    ) -> Result<ObjectMeta, ClusterError> {
        let server = &self.inner.server;
        let patch = json!({"metadata": {"resourceVersion": version.version, "annotations": annotations}});
        let (params, patch) = (server.patch_params(), Patch::Merge(&patch));
        let patched = api.patch_metadata(&workload.name, &params, &patch);
        let what = || format!("{} {}", workload.kind, workload.name);
        Ok(server.ask(what, patched).await?.metadata)
    }

    async fn fence(&self, seen: &Seen, workload: &ObjectRef, epoch: Epoch) -> Result<Written, ClusterError> {
        let found = seen.parts.workloads.get(workload);
        let mut version = known(found, &workload.kind, &workload.name)?.clone();
        let namespace = seen.sleeper.namespace().unwrap_or_default();
        let api = self
            .inner
            .server
            .api_of(&namespace, &version.resource, version.namespaced);
        let uid = seen.sleeper.uid().unwrap_or_default();
        let annotations = json!({FENCE: restamped(&version.annotations, FENCE, epoch, &uid), ASLEEP: null});
        let metadata = self.annotate(workload, &version, &api, &annotations).await?;
        version.version = metadata.resource_version;
        version.annotations = metadata.annotations.unwrap_or_default();
        if let Some(scale) = &mut version.scale {
            scale.metadata.resource_version.clone_from(&version.version);
        }
        Ok(Written::Workload(workload.clone(), Box::new(version)))
    }

    async fn remove_finalizer(&self, seen: &Seen) -> Result<Written, ClusterError> {
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
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(Written::Gone),
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
        seen.parts
            .services
            .get(name)
            .and_then(|version| version.service.as_ref()),
        "Service",
        name,
    )
}
