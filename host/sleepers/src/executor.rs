//! Executes the steps of the protocol: each is one write, conditional on what was observed.

mod patches;
mod services;
mod sleepers;
mod transition;
mod workloads;

use dormouse_kubernetes::ClusterError;
use dormouse_lifecycle::Step;

#[cfg(test)]
pub(crate) use self::patches::slice;
pub(crate) use self::services::ServiceSteps;
pub(crate) use self::sleepers::SleeperSteps;
pub(crate) use self::workloads::WorkloadSteps;
use crate::Metrics;
use crate::observed::Observed;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepOutcome {
    /// It is done, or was done already.
    Done,
    /// What it was decided on has changed: observe again.
    Conflicted,
}

/// Executes steps. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    pub(crate) sleepers: SleeperSteps,
    pub(crate) services: ServiceSteps,
    pub(crate) workloads: WorkloadSteps,
    pub(crate) metrics: Metrics,
}

impl Executor {
    /// Executes one step, if the cluster is still as it was observed. `observed` then has the object that was written in place of the
    /// one that was read; its observation stays what the step was decided on.
    ///
    /// # Errors
    /// What the API server says, other than that something changed.
    pub async fn execute(&self, observed: &mut Observed, step: &Step) -> Result<StepOutcome, ClusterError> {
        let (sleepers, services, workloads) = (&self.sleepers, &self.services, &self.workloads);
        let written = match step {
            Step::SetState(state) => sleepers.set_state(observed, state).await,
            Step::AllocatePorts(_) => sleepers.allocate_ports(observed).await,
            Step::RemoveFinalizer => sleepers.remove_finalizer(observed).await,
            Step::WriteSlice(service) => services.write_slice(observed, service).await,
            Step::DeleteSlice(service) => services.delete_slice(observed, service).await,
            Step::ParkSelector(service) => services.park(observed, service).await,
            Step::RestoreSelector(service) => services.restore(observed, service).await,
            Step::FenceService(service, epoch) => services.fence(observed, service, *epoch).await,
            Step::Scale(workload, replicas) => workloads.scale(observed, workload, *replicas).await,
            Step::Fence(workload, epoch) => workloads.fence(observed, workload, *epoch).await,
        };
        match written {
            Ok(written) => {
                observed.replace(written);
                Ok(StepOutcome::Done)
            }
            // An object that has gone or appeared since is a change like any other.
            Err(
                ClusterError::Conflict { .. } | ClusterError::NotFound { .. } | ClusterError::Exists { .. },
            ) => {
                self.metrics.conflict();
                Ok(StepOutcome::Conflicted)
            }
            Err(error) => Err(error),
        }
    }
}

/// A step for an object that was not observed was decided on something else.
fn required<T>(found: Option<T>, kind: &str, name: &str) -> Result<T, ClusterError> {
    found.ok_or_else(|| ClusterError::NotFound {
        what: format!("{kind} {name}"),
    })
}
