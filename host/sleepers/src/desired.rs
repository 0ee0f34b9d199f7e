//! The desired state of a resource: asleep, observed or awake.

use std::sync::Arc;

use dormouse_kubernetes::{ClusterError, optional};
use dormouse_lifecycle::{
    LookPolicy, Refused, Selector, SleeperState, Zero, also_leads_to, request_observation, request_sleep,
    request_wake,
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

/// A wish that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wished {
    /// The epoch that the wish belongs to.
    pub epoch: i64,
    /// The phase after it.
    pub phase: Phase,
    /// False when it was so already and nothing was written.
    pub changed: bool,
}

/// What [`DesiredState::wish_stand_in`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoodIn {
    /// It has replicas.
    NotAtZero,
    /// It is wished asleep. False: it was so already.
    Wished(bool),
    /// It was turned off, and is left so.
    TurnedOff,
}

/// Why a wish was not taken.
#[derive(Clone, Debug, Error)]
pub enum WishError {
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

impl From<PermissionError> for WishError {
    fn from(error: PermissionError) -> Self {
        match error {
            PermissionError::Denied(why) => Self::Denied(why),
            PermissionError::Cluster(error) => Self::Cluster(error),
        }
    }
}

/// Writes the desired state of Sleepers, after it has checked that the resource may and can be so. Cheap to clone.
#[derive(Clone)]
pub struct DesiredState {
    pub(crate) caches: Arc<Caches>,
    pub(crate) writer: SleeperWriter,
    pub(crate) requeues: Requeues,
    pub(crate) observer: Observer,
    pub(crate) permission: SleepPermission,
    pub(crate) ownership: Ownership,
    pub(crate) dlx: DlxReplicas,
    /// When and how long the DLX observes the traffic of a resource.
    pub(crate) look: LookPolicy,
}

impl DesiredState {
    /// Wishes a resource asleep.
    ///
    /// # Errors
    /// [`WishError`].
    pub async fn wish_sleep(&self, key: &SleeperKey, reason: &str) -> Result<Wished, WishError> {
        self.check(key).await?;
        self.wish(key, |state| match request_sleep(state, reason) {
            Ok(next) => Ok(Some(next)),
            Err(Refused::Already) => Ok(None),
            Err(Refused::Waking) => Err(WishError::Superseded),
        })
        .await
    }

    /// Wishes a resource asleep that somebody else scaled to zero, so that the DLX stands in, unless zero means that it was turned
    /// off. Its workloads are read from the API server.
    ///
    /// # Errors
    /// [`WishError`].
    pub async fn wish_stand_in(&self, key: &SleeperKey) -> Result<StoodIn, WishError> {
        let observed = match self.observer.observe(&key.namespace, &key.object_name()).await {
            Err(ClusterError::NotFound { .. }) => return Err(WishError::Unknown(key.clone())),
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
                self.wish_wake(key, "it was turned off by somebody else, and is left so")
                    .await?;
            }
            return Ok(StoodIn::TurnedOff);
        }
        let wished = self.wish_sleep(key, "scaled to zero by somebody else").await?;
        Ok(StoodIn::Wished(wished.changed))
    }

    /// Wishes that the DLX steps into the traffic of a resource and counts.
    ///
    /// # Errors
    /// [`WishError`].
    pub async fn wish_observe(&self, key: &SleeperKey, reason: &str) -> Result<Wished, WishError> {
        self.check(key).await?;
        self.wish(key, |state| match request_observation(state, reason) {
            Ok(next) => Ok(Some(next)),
            Err(Refused::Already) => Ok(None),
            Err(Refused::Waking) => Err(WishError::Superseded),
        })
        .await
    }

    /// Wishes a resource awake. Wins over any sleep that has not finished: a conflict is tried again. No-op when it is awake or waking.
    ///
    /// # Errors
    /// [`WishError::Unknown`], or [`WishError::Cluster`] when the API server cannot be reached.
    pub async fn wish_wake(&self, key: &SleeperKey, reason: &str) -> Result<Wished, WishError> {
        let (look, seed) = (self.look, seed(&key.namespace, &key.object_name()));
        let wished = self
            .wish(key, |state| {
                Ok(request_wake(state, jiff::Timestamp::now(), reason, look, seed).ok())
            })
            .await?;
        if !wished.changed && wished.phase == Phase::Waking {
            // Somebody is waiting for a wake that may be in a pause after a failure.
            self.requeues.requeue(&key.namespace, &key.object_name());
        }
        Ok(wished)
    }

    /// Whether a resource may be put to sleep, and can be.
    async fn check(&self, key: &SleeperKey) -> Result<(), WishError> {
        let known = match self.caches.sleeper(key) {
            Some(known) => known,
            // Declared a moment ago.
            None => match optional(self.writer.fetch(&key.namespace, &key.object_name()).await)? {
                Some(found) => Arc::new(found),
                None => return Err(WishError::Unknown(key.clone())),
            },
        };
        self.permission.check(&known).await?;
        self.divertible(key)
    }

    /// Whether all Services of a Sleeper can be diverted, as far as the caches show. It is checked again in every phase
    /// ([`dormouse_lifecycle::Observation::obstacle`]); checking first spares writes that would only be taken back.
    fn divertible(&self, key: &SleeperKey) -> Result<(), WishError> {
        let Some(sleeper) = self.caches.sleeper(key) else {
            return Ok(());
        };
        let dlx = self.dlx.endpoints().addresses;
        for name in &sleeper.spec.services {
            let Some(service) = self.caches.services.get(&key.namespace, name) else {
                continue;
            };
            let unsupported = |why: &str| Err(WishError::Unsupported(format!("Service {name} {why}")));
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
            Some(rival) => Err(WishError::Unsupported(rival.explain())),
            None => Ok(()),
        }
    }

    async fn wish(
        &self,
        key: &SleeperKey,
        ask: impl Fn(&SleeperState) -> Result<Option<SleeperState>, WishError>,
    ) -> Result<Wished, WishError> {
        let done = self
            .writer
            .edit::<_, WishError>(key, true, |sleeper| {
                let status = sleeper.status.clone().unwrap_or_default();
                // The protocol wakes one that is being deleted anyway.
                let next = match sleeper.metadata.deletion_timestamp {
                    Some(_) => None,
                    None => ask(&status.state)?,
                };
                Ok(match next {
                    None => Edit::Keep(wished(&status.state, false)),
                    Some(state) => {
                        let wished = wished(&state, true);
                        Edit::Write(Box::new(SleeperStatus { state, ..status }), wished)
                    }
                })
            })
            .await?;
        done.ok_or_else(|| WishError::Unknown(key.clone()))
    }
}

fn wished(state: &SleeperState, changed: bool) -> Wished {
    Wished {
        epoch: state.epoch,
        phase: state.phase,
        changed,
    }
}
