//! The desired state of a resource: asleep, observed or awake.

use std::sync::Arc;

use dormouse_kubernetes::{ClusterError, optional};
use dormouse_lifecycle::{
    Refused, Selector, SleeperState, TrafficCheckPolicy, Zero, also_leads_to, request_observation,
    request_sleep, request_wake,
};
use dormouse_model::Phase;
use thiserror::Error;

use crate::SleeperKey;
use crate::api::SleeperStatus;
use crate::caches::Caches;
use crate::dlx::DlxReplicas;
use crate::key::seed;
use crate::observer::Observer;
use crate::ownership::Ownership;
use crate::permission::{PermissionError, SleepPermission};
use crate::requeue::Requeues;
use crate::services::selector;
use crate::writer::{Edit, SleeperWriter};

/// A request that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The epoch that the desired state belongs to.
    pub epoch: i64,
    /// The phase after it.
    pub phase: Phase,
    /// False when it was so already and nothing was written.
    pub changed: bool,
}

/// What [`DesiredStateWriter::request_stand_in`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoodIn {
    /// It has replicas.
    NotAtZero,
    /// It is to sleep. False: it was so already.
    Requested(bool),
    /// It was turned off, and is left so.
    TurnedOff,
}

/// Why a desired state was not taken.
#[derive(Clone, Debug, Error)]
pub enum DesiredStateError {
    /// No such Sleeper.
    #[error("there is no Sleeper for {0}")]
    Unknown(SleeperKey),
    /// A wake is under way, and wake beats sleep.
    #[error("a wake is under way")]
    Superseded,
    /// The resource cannot be put to sleep; the text says why.
    #[error("{0}")]
    Unsupported(String),
    /// Its owner may not put it to sleep, or it is protected; the text says why.
    #[error("{0}")]
    Denied(String),
    /// The cluster did not let it happen.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl From<PermissionError> for DesiredStateError {
    fn from(error: PermissionError) -> Self {
        match error {
            PermissionError::Denied(why) => Self::Denied(why),
            PermissionError::Cluster(error) => Self::Cluster(error),
        }
    }
}

/// Writes the desired state of Sleepers, after it has checked that the resource may and can be so. Cheap to clone.
#[derive(Clone)]
pub struct DesiredStateWriter {
    pub(crate) caches: Arc<Caches>,
    pub(crate) writer: SleeperWriter,
    pub(crate) requeues: Requeues,
    pub(crate) observer: Observer,
    pub(crate) permission: SleepPermission,
    pub(crate) ownership: Ownership,
    pub(crate) dlx: DlxReplicas,
    /// When and how long the DLX observes the traffic of a resource.
    pub(crate) traffic_check: TrafficCheckPolicy,
}

impl DesiredStateWriter {
    /// Asks that a resource goes to sleep.
    ///
    /// # Errors
    /// [`DesiredStateError`].
    pub async fn request_sleep(
        &self,
        key: &SleeperKey,
        reason: &str,
    ) -> Result<Requested, DesiredStateError> {
        self.check(key).await?;
        self.request(key, |state| accepted(request_sleep(state, reason)))
            .await
    }

    /// Asks that a resource goes to sleep that somebody else scaled to zero, so that the DLX stands in, unless zero means that it was turned
    /// off. Its workloads are read from the API server.
    ///
    /// # Errors
    /// [`DesiredStateError`].
    pub async fn request_stand_in(&self, key: &SleeperKey) -> Result<StoodIn, DesiredStateError> {
        let observed = match self.observer.observe(&key.namespace, &key.object_name()).await {
            Err(ClusterError::NotFound { .. }) => return Err(DesiredStateError::Unknown(key.clone())),
            observed => observed?,
        };
        let workloads = &observed.observation().workloads;
        let existing: Vec<_> = workloads.iter().filter(|workload| workload.exists).collect();
        if existing.is_empty() || existing.iter().any(|workload| workload.replicas > 0) {
            return Ok(StoodIn::NotAtZero);
        }
        if existing.iter().any(|workload| workload.zero == Zero::Off) {
            if observed.observation().state.phase != Phase::Awake {
                // Nothing is restored by that; only the DLX leaves.
                self.request_wake(key, "it was turned off by somebody else, and is left so")
                    .await?;
            }
            return Ok(StoodIn::TurnedOff);
        }
        let requested = self.request_sleep(key, "scaled to zero by somebody else").await?;
        Ok(StoodIn::Requested(requested.changed))
    }

    /// Asks that the DLX steps into the traffic of a resource and counts.
    ///
    /// # Errors
    /// [`DesiredStateError`].
    pub async fn request_observation(
        &self,
        key: &SleeperKey,
        reason: &str,
    ) -> Result<Requested, DesiredStateError> {
        self.check(key).await?;
        self.request(key, |state| accepted(request_observation(state, reason)))
            .await
    }

    /// Asks that a resource wakes. Wins over any sleep that has not finished: a conflict is tried again. No-op when it is awake or waking.
    ///
    /// # Errors
    /// [`DesiredStateError::Unknown`], or [`DesiredStateError::Cluster`] when the API server cannot be reached.
    pub async fn request_wake(&self, key: &SleeperKey, reason: &str) -> Result<Requested, DesiredStateError> {
        let (traffic_check, seed) = (self.traffic_check, seed(&key.namespace, &key.object_name()));
        let requested = self
            .request(key, |state| {
                Ok(request_wake(state, jiff::Timestamp::now(), reason, traffic_check, seed).ok())
            })
            .await?;
        if !requested.changed && requested.phase == Phase::Waking {
            // Somebody is waiting for a wake that may be in a pause after a failure.
            self.requeues.requeue(&key.namespace, &key.object_name());
        }
        Ok(requested)
    }

    /// Whether a resource may be put to sleep, and can be.
    async fn check(&self, key: &SleeperKey) -> Result<(), DesiredStateError> {
        let known = match self.caches.sleeper(key) {
            Some(known) => known,
            // Declared a moment ago.
            None => match optional(self.writer.fetch(&key.namespace, &key.object_name()).await)? {
                Some(found) => Arc::new(found),
                None => return Err(DesiredStateError::Unknown(key.clone())),
            },
        };
        self.permission.check(&known).await?;
        self.divertible(key)
    }

    /// Whether all Services of a Sleeper can be diverted, as far as the caches show. It is checked again in every phase
    /// ([`dormouse_lifecycle::Observation::obstacle`]); checking first spares writes that would only be taken back.
    fn divertible(&self, key: &SleeperKey) -> Result<(), DesiredStateError> {
        let Some(sleeper) = self.caches.sleeper(key) else {
            return Ok(());
        };
        let dlx = self.dlx.endpoints().addresses;
        for name in &sleeper.spec.services {
            let Some(service) = self.caches.services.get(&key.namespace, name) else {
                continue;
            };
            let unsupported =
                |why: &str| Err(DesiredStateError::Unsupported(format!("Service {name} {why}")));
            let selector = selector(&service, &dlx);
            if let Some(why) = selector.obstacle() {
                return unsupported(why.explain());
            }
            // What another Sleeper parked is reported below; what this one parked is checked as it goes on.
            if let Selector::Pods(labels) = selector
                && let Some(foreign) = self.ownership.foreign(&key.namespace, &sleeper.spec, &labels)
            {
                return unsupported(&also_leads_to(&foreign));
            }
        }
        match self.ownership.rival(&sleeper) {
            Some(rival) => Err(DesiredStateError::Unsupported(rival.explain())),
            None => Ok(()),
        }
    }

    async fn request(
        &self,
        key: &SleeperKey,
        ask: impl Fn(&SleeperState) -> Result<Option<SleeperState>, DesiredStateError>,
    ) -> Result<Requested, DesiredStateError> {
        let done = self
            .writer
            .edit::<_, DesiredStateError>(key, true, |sleeper| {
                let status = sleeper.status.clone().unwrap_or_default();
                // The protocol wakes one that is being deleted anyway.
                let next = match sleeper.metadata.deletion_timestamp {
                    Some(_) => None,
                    None => ask(&status.state)?,
                };
                Ok(match next {
                    None => Edit::Keep(requested(&status.state, false)),
                    Some(state) => {
                        let requested = requested(&state, true);
                        Edit::Write(Box::new(SleeperStatus { state, ..status }), requested)
                    }
                })
            })
            .await?;
        done.ok_or_else(|| DesiredStateError::Unknown(key.clone()))
    }
}

/// The state to write. None: it is so already.
fn accepted(next: Result<SleeperState, Refused>) -> Result<Option<SleeperState>, DesiredStateError> {
    match next {
        Ok(next) => Ok(Some(next)),
        Err(Refused::Already) => Ok(None),
        Err(Refused::Waking) => Err(DesiredStateError::Superseded),
    }
}

fn requested(state: &SleeperState, changed: bool) -> Requested {
    Requested {
        epoch: state.epoch,
        phase: state.phase,
        changed,
    }
}
