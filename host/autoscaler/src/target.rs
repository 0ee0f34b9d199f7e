//! A resource together with its Sleeper.

use std::sync::Arc;

use dormouse_model::{Phase, ScaleEvent, ScaleEventKind};
use dormouse_plugin::types::{MetricSource, Resource, ResourceState};
use dormouse_sleepers::lifecycle::{SleeperState, Wish};
use dormouse_sleepers::{Sleeper, SleeperKey};

/// One thing to decide about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Identity: owner, namespace and name. A bare name never stands for a resource.
    pub key: SleeperKey,
    pub resource: Resource,
    pub sleeper: Arc<Sleeper>,
}

impl Target {
    /// What the Sleeper remembers.
    pub fn state(&self) -> SleeperState {
        self.sleeper
            .status
            .as_ref()
            .map(|status| status.state.clone())
            .unwrap_or_default()
    }

    /// Whether there is anything to decide: it is up, and nothing is about to change that but us.
    pub fn is_up(&self) -> bool {
        if self.resource.state != ResourceState::Awake || self.sleeper.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let state = self.state();
        scales_itself(&self.resource)
            || matches!(
                (state.wish, state.phase),
                (Wish::Awake, Phase::Awake)
                    | (
                        Wish::Observed | Wish::Asleep,
                        Phase::Awake | Phase::Diverting | Phase::Observing | Phase::Draining
                    )
            )
    }

    /// Whether it is at zero without us: its source calls it asleep, but the protocol did not put it to sleep. What is scaled by
    /// its platform is not meant.
    pub fn is_at_zero_without_us(&self) -> bool {
        let state = self.state();
        self.resource.state == ResourceState::Asleep
            && !scales_itself(&self.resource)
            && self.sleeper.metadata.deletion_timestamp.is_none()
            && state.wish != Wish::Asleep
            && matches!(state.phase, Phase::Awake | Phase::Diverting | Phase::Observing)
    }

    /// What is known to have happened to it: from the source, and from the Sleeper itself.
    pub fn events(&self) -> Vec<ScaleEvent> {
        let state = self.state();
        let ours = [
            (ScaleEventKind::ScaleFromZeroStarted, state.wake_started),
            (ScaleEventKind::ScaleFromZeroCompleted, state.wake_completed),
        ];
        let ours = ours
            .into_iter()
            .filter_map(|(kind, at)| Some(ScaleEvent { kind, at: Some(at?) }));
        self.resource.last_event.into_iter().chain(ours).collect()
    }

    /// Whether one of its rules counts observed traffic.
    pub fn is_observed(&self) -> bool {
        self.resource
            .rules
            .iter()
            .any(|rule| rule.source == MetricSource::ObservedTraffic)
    }
}

/// A resource without workloads and Services of its own is scaled by its platform; its Sleeper only mirrors it.
pub(crate) fn scales_itself(resource: &Resource) -> bool {
    resource.workloads.is_empty() && resource.services.is_empty()
}
