//! Steps that write the Sleeper itself.

use dormouse_kubernetes::{ApiServer, ClusterError, EventType};
use dormouse_lifecycle::{Allocation, SleeperState};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;

use super::transition::TransitionReport;
use crate::api::{FINALIZER, Sleeper};
use crate::dlx_ports::PortAllocator;
use crate::endpoints::ServiceEndpoints;
use crate::events::SleeperEvents;
use crate::observed::{Observed, Written};
use crate::writer::SleeperWriter;
use crate::{Metrics, SleeperKey, conditions};

/// Writes state, ports and finalizers of Sleepers, and reports what changed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SleeperSteps {
    pub(crate) server: ApiServer,
    pub(crate) writer: SleeperWriter,
    pub(crate) events: SleeperEvents,
    pub(crate) metrics: Metrics,
    pub(crate) endpoints: ServiceEndpoints,
    pub(crate) ports: PortAllocator,
}

impl SleeperSteps {
    pub(super) async fn set_state(
        &self,
        observed: &Observed,
        next: &SleeperState,
    ) -> Result<Written, ClusterError> {
        let mut status = observed.sleeper.status.clone().unwrap_or_default();
        let mut next = next.clone();
        let is_new_failure = next.wake_failure != status.state.wake_failure;
        if let Some(failure) = next.wake_failure.as_mut().filter(|_| is_new_failure) {
            let namespace = observed.namespace();
            let mut services = observed.sleeper.spec.services.iter();
            let trouble = services.find_map(|service| self.endpoints.pod_trouble(&namespace, service));
            if let Some(trouble) = trouble {
                failure.message = format!("{}: {trouble}", failure.message);
            }
        }
        let obstacle = observed.observation.obstacle();
        let report = TransitionReport::of(&status.state, &next, obstacle.as_deref());
        let generation = observed.sleeper.metadata.generation;
        conditions::apply(
            &mut status.conditions,
            &report.conditions,
            generation,
            Timestamp::now(),
        );
        status.state = next;
        let written = self.writer.put_status(&observed.sleeper, status).await?;
        self.publish(&observed.sleeper, &report);
        Ok(Written::Sleeper(Box::new(written)))
    }

    fn publish(&self, sleeper: &Sleeper, report: &TransitionReport) {
        if report.slept {
            self.metrics.slept();
        }
        if let Some(took) = report.woken {
            self.metrics.woken(took);
        }
        if report.wake_failed {
            self.metrics.wake_failed();
        }
        if let Some((kind, reason, message)) = &report.event {
            self.events.publish(sleeper, *kind, reason, message);
            tracing::info!(sleeper = %SleeperKey::of(sleeper), reason, message, "lifecycle");
        }
    }

    pub(super) async fn allocate_ports(&self, observed: &Observed) -> Result<Written, ClusterError> {
        // Another Sleeper took the last ones meanwhile: the next observation says that there are none.
        let Ok(Allocation { ports, lost }) = self.ports.allocate(observed) else {
            let what = format!("the DLX ports of Sleeper {}", observed.sleeper.name_any());
            return Err(ClusterError::Conflict { what });
        };
        let mut status = observed.sleeper.status.clone().unwrap_or_default();
        status.state.ports = ports;
        let written = self.writer.put_status(&observed.sleeper, status).await?;
        if !lost.is_empty() {
            let message = format!("DLX ports {lost:?} belong to an older Sleeper; others were taken");
            self.events
                .publish(&observed.sleeper, EventType::Warning, "PortsLost", &message);
        }
        Ok(Written::Sleeper(Box::new(written)))
    }

    pub(super) async fn remove_finalizer(&self, observed: &Observed) -> Result<Written, ClusterError> {
        let name = observed.sleeper.name_any();
        let finalizers = observed.sleeper.finalizers().iter();
        let left: Vec<_> = finalizers.filter(|name| name.as_str() != FINALIZER).collect();
        let patch = json!({"metadata": {
            "resourceVersion": observed.sleeper.resource_version(),
            "finalizers": left,
        }});
        let (api, params) = (
            self.server.api::<Sleeper>(&observed.namespace()),
            self.server.patch_params(),
        );
        let patch = Patch::Merge(&patch);
        let patched = api.patch(&name, &params, &patch);
        match self.server.ask(|| format!("Sleeper {name}"), patched).await {
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(Written::FinalizerRemoved),
            Err(error) => Err(error),
        }
    }
}
