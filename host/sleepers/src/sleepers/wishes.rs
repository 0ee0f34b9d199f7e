//! Wishes: what a resource is meant to be.

use dormouse_kubernetes::{ClusterError, optional};
use dormouse_lifecycle::{
    Refused, Selector, SleeperState, Zero, also_leads_to, request_observation, request_sleep, request_wake,
};
use dormouse_model::Phase;
use thiserror::Error;

use super::{Edit, own_seed};
use crate::api::SleeperStatus;
use crate::services::selector;
use crate::{Cluster, SleeperKey};

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

/// What [`Cluster::wish_stand_in`] found.
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
    /// Its plugin may not put it to sleep, or nobody may; the text says why.
    #[error("{0}")]
    Denied(String),
    /// The cluster did not let it happen.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Cluster {
    /// Wishes a resource asleep.
    ///
    /// # Errors
    /// [`WishError`].
    pub async fn wish_sleep(&self, key: &SleeperKey, reason: &str) -> Result<Wished, WishError> {
        self.may(key).await?;
        self.wish(key, |state| match request_sleep(state, reason) {
            Ok(next) => Ok(Some(next)),
            Err(Refused::Already) => Ok(None),
            Err(Refused::Waking) => Err(WishError::Superseded),
        })
        .await
    }

    /// What is at zero without us is asleep: wishes it so, so that the DLX stands in, unless it was to be turned off. What counts
    /// is read anew.
    ///
    /// # Errors
    /// [`WishError`].
    pub async fn wish_stand_in(&self, key: &SleeperKey) -> Result<StoodIn, WishError> {
        let seen = match self.observe(&key.namespace, &key.object_name()).await {
            Err(ClusterError::NotFound { .. }) => return Err(WishError::Unknown(key.clone())),
            seen => seen?,
        };
        let workloads = &seen.observation().workloads;
        let there = || workloads.iter().filter(|workload| workload.exists);
        if there().next().is_none() || there().any(|workload| workload.replicas > 0) {
            return Ok(StoodIn::NotAtZero);
        }
        if there().any(|workload| workload.zero == Zero::Off) {
            if seen.observation().state.phase != Phase::Awake {
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
        self.may(key).await?;
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
        let (look, seed) = (
            self.inner.config.timings.look,
            own_seed(&key.namespace, &key.object_name()),
        );
        let wished = self
            .wish(key, |state| {
                Ok(request_wake(state, jiff::Timestamp::now(), reason, look, seed).ok())
            })
            .await?;
        if !wished.changed && wished.phase == Phase::Waking {
            // Somebody is waiting for a wake that may be in a pause after a failure.
            self.nudge(&key.namespace, &key.object_name());
        }
        Ok(wished)
    }

    /// Whether a resource may be put to sleep, and can be.
    async fn may(&self, key: &SleeperKey) -> Result<(), WishError> {
        let known = match self.sleeper(key) {
            Some(known) => known,
            // Declared a moment ago.
            None => match optional(self.fetch(&key.namespace, &key.object_name()).await)? {
                Some(found) => std::sync::Arc::new(found),
                None => return Err(WishError::Unknown(key.clone())),
            },
        };
        self.may_sleep(&known).await?;
        self.divertible(key)
    }

    /// Whether all Services of a Sleeper can be diverted, as far as the reflectors know. What is said here at the door, and once
    /// more in every phase ([`dormouse_lifecycle::Observation::obstacle`]), spares writes that would only be taken back.
    fn divertible(&self, key: &SleeperKey) -> Result<(), WishError> {
        let Some(sleeper) = self.sleeper(key) else {
            return Ok(());
        };
        let dlx = self.dlx_endpoints().addresses;
        for name in &sleeper.spec.services {
            let Some(service) = self.service(&key.namespace, name) else {
                continue;
            };
            let unsupported = |why: &str| Err(WishError::Unsupported(format!("Service {name} {why}")));
            let selector = selector(&service, &dlx);
            if let Some(why) = selector.obstacle() {
                return unsupported(why.explain());
            }
            // What another Sleeper parked is told below; what this one parked is healed, or told, as it goes on.
            if let Selector::Pods(labels) = selector
                && let Some(foreign) = self.foreign(&key.namespace, &sleeper.spec, &labels)
            {
                return unsupported(&also_leads_to(&foreign));
            }
        }
        match self.rival(&sleeper) {
            Some(rival) => Err(WishError::Unsupported(rival.explain())),
            None => Ok(()),
        }
    }

    async fn wish(
        &self,
        key: &SleeperKey,
        ask: impl Fn(&SleeperState) -> Result<Option<SleeperState>, WishError>,
    ) -> Result<Wished, WishError> {
        let wished = self
            .edit::<_, WishError>(key, true, |sleeper| {
                if sleeper.metadata.deletion_timestamp.is_some() {
                    // The protocol wakes it anyway.
                    let state = sleeper.status.clone().unwrap_or_default().state;
                    return Ok(Edit::Keep(Wished {
                        epoch: state.epoch,
                        phase: state.phase,
                        changed: false,
                    }));
                }
                let status = sleeper.status.clone().unwrap_or_default();
                Ok(match ask(&status.state)? {
                    None => Edit::Keep(Wished {
                        epoch: status.state.epoch,
                        phase: status.state.phase,
                        changed: false,
                    }),
                    Some(state) => {
                        let wished = Wished {
                            epoch: state.epoch,
                            phase: state.phase,
                            changed: true,
                        };
                        Edit::Write(Box::new(SleeperStatus { state, ..status }), wished)
                    }
                })
            })
            .await?;
        wished.ok_or_else(|| WishError::Unknown(key.clone()))
    }
}
