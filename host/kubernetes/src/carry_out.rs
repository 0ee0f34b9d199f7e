//! Carries out the steps of the protocol: each is one write, conditional on what was observed.

mod news;
mod patches;

use dormouse_lifecycle::{Allocation, Claim, Epoch, ObjectRef, SleeperState, Step, allocate};
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use self::news::News;
pub(crate) use self::patches::slice;
use self::patches::{park_patch, restore_patch};
use crate::api::{FENCE, FENCE_LABEL, FINALIZER, Sleeper};
use crate::conditions;
use crate::events::EventType;
use crate::observe::{as_label, stamped};
use crate::services::ports;
use crate::sleepers::seed;
use crate::{Cluster, ClusterError, Seen};

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
        let news = News::of(&status.state, &next, seen.observation.undivertible().as_deref());
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

    async fn allocate_ports(&self, seen: &Seen) -> Result<(), ClusterError> {
        let (namespace, name) = (
            seen.sleeper.namespace().unwrap_or_default(),
            seen.sleeper.name_any(),
        );
        let created = seen.sleeper.creation_timestamp().map(|time| time.0);
        let me = (namespace, name);
        let others = self.claims(&me);
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
        let start = seed(&format!("{}/{}", me.0, me.1));
        let allocation = allocate(
            self.inner.config.ports,
            (&me, created),
            &state.ports,
            &wanted,
            &others,
            start,
        )?;
        let Allocation { ports, lost } = allocation;
        let mut status = seen.sleeper.status.clone().unwrap_or_default();
        status.state.ports = ports;
        self.put_status(&seen.sleeper, status).await?;
        if !lost.is_empty() {
            let message = format!("DLX ports {lost:?} belong to an older Sleeper; others were taken");
            self.tell(&seen.sleeper, EventType::Warning, "PortsLost", &message);
        }
        Ok(())
    }

    /// Ports that other Sleepers hold.
    fn claims(&self, me: &(String, String)) -> Vec<Claim> {
        let mut claims = Vec::new();
        for sleeper in self.sleepers() {
            let owner = (sleeper.namespace().unwrap_or_default(), sleeper.name_any());
            if owner == *me {
                continue;
            }
            let Some(status) = &sleeper.status else { continue };
            let created = sleeper.creation_timestamp().map(|time| time.0);
            claims.extend(status.state.ports.iter().map(|port| Claim {
                sleeper: owner.clone(),
                created,
                dlx_port: port.dlx_port,
            }));
        }
        claims
    }

    async fn write_slice(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        let service = seen
            .observation
            .services
            .iter()
            .find(|service| service.name == name);
        let wanted = seen.observation.wanted_slice(known(service, "Service", name)?);
        let mut slice = slice(&seen.sleeper, name, &wanted, &self.dlx_nodes());
        let api = self.api::<EndpointSlice>(&seen.sleeper.namespace().unwrap_or_default());
        let own_name = slice.name_any();
        let what = || format!("EndpointSlice {own_name}");
        match seen.services.get(name).and_then(|version| version.own.as_ref()) {
            None => self.ask(what, api.create(&self.post(), &slice)).await.map(|_| ()),
            // The family of a slice is fixed.
            Some(own) if own.address_type != slice.address_type => self.delete_slice(seen, name).await,
            Some(own) => {
                slice
                    .metadata
                    .resource_version
                    .clone_from(&own.metadata.resource_version);
                self.ask(what, api.replace(&own_name, &self.post(), &slice))
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
        let api = self.api::<EndpointSlice>(&own.namespace().unwrap_or_default());
        let own_name = own.name_any();
        match self
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
        self.patch_service(service, &park_patch(service, &seen.sleeper.name_any())?)
            .await
    }

    async fn restore(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        let service = seen_service(seen, name)?;
        let fence = stamped(
            seen.observation.state.epoch,
            &seen.sleeper.uid().unwrap_or_default(),
        );
        self.patch_service(service, &restore_patch(service, &fence)?)
            .await
    }

    async fn fence_service(&self, seen: &Seen, name: &str, epoch: Epoch) -> Result<(), ClusterError> {
        let service = seen_service(seen, name)?;
        let fence = stamped(epoch, &seen.sleeper.uid().unwrap_or_default());
        let patch = json!({"metadata": {
            "resourceVersion": service.resource_version(),
            "annotations": {FENCE: fence},
            "labels": {FENCE_LABEL: as_label(&fence)},
        }});
        self.patch_service(service, &patch).await
    }

    async fn patch_service(&self, service: &Service, patch: &Value) -> Result<(), ClusterError> {
        let name = service.name_any();
        let api = self.api::<Service>(&service.namespace().unwrap_or_default());
        let (params, patch) = (self.patch_params(), Patch::Merge(patch));
        self.ask(|| format!("Service {name}"), api.patch(&name, &params, &patch))
            .await
            .map(|_| ())
    }

    fn patch_params(&self) -> PatchParams {
        PatchParams {
            field_manager: Some(self.inner.config.field_manager.clone()),
            ..PatchParams::default()
        }
    }

    async fn scale(&self, seen: &Seen, workload: &ObjectRef, replicas: i32) -> Result<(), ClusterError> {
        let version = known(seen.workloads.get(workload), &workload.kind, &workload.name)?;
        let mut scale = known(version.scale.clone(), &workload.kind, &workload.name)?;
        scale.spec = Some(ScaleSpec {
            replicas: Some(replicas),
        });
        scale.status = None;
        let namespace = seen.sleeper.namespace().unwrap_or_default();
        let api = self.workload_api(&namespace, &version.resource, version.namespaced);
        let what = || format!("scaling {} {} to {replicas}", workload.kind, workload.name);
        self.ask(what, api.replace_scale(&workload.name, &self.post(), &scale))
            .await
            .map(|_| ())
    }

    async fn fence(&self, seen: &Seen, workload: &ObjectRef, epoch: Epoch) -> Result<(), ClusterError> {
        let version = known(seen.workloads.get(workload), &workload.kind, &workload.name)?;
        let namespace = seen.sleeper.namespace().unwrap_or_default();
        let api = self.workload_api(&namespace, &version.resource, version.namespaced);
        let patch = json!({"metadata": {
            "resourceVersion": version.version,
            "annotations": {FENCE: stamped(epoch, &seen.sleeper.uid().unwrap_or_default())},
        }});
        let (params, patch) = (self.patch_params(), Patch::Merge(&patch));
        let patched = api.patch_metadata(&workload.name, &params, &patch);
        self.ask(|| format!("{} {}", workload.kind, workload.name), patched)
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
        let api = self.api::<Sleeper>(&seen.sleeper.namespace().unwrap_or_default());
        let params = self.patch_params();
        match self
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

fn seen_service<'a>(seen: &'a Seen, name: &str) -> Result<&'a Service, ClusterError> {
    known(
        seen.services
            .get(name)
            .and_then(|version| version.service.as_ref()),
        "Service",
        name,
    )
}
