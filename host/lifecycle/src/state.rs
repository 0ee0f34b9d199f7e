//! What the Sleeper remembers: the whole memory of the protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_model::{ObjectRef, Phase};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Epoch, TrafficCheck};

/// How long after a wake began a pod from before it must still be there to count: far longer than controllers take to
/// remove pods, and much shorter than a readiness timeout.
pub const SURVIVAL: Duration = Duration::from_secs(10);

/// How long after no pod was left another process may still believe in one.
const DELETION_LAG: Duration = Duration::from_secs(3);

/// What a resource is meant to be. The phase follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Serve from pods.
    #[default]
    Awake,
    /// Divert and count, to learn whether anybody needs it.
    Observed,
    /// Scale to zero.
    Asleep,
}

/// How a Service selected its pods before it was parked: a second copy, beside the annotation on the Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptSelector {
    /// Name of the Service.
    pub service: String,
    /// Its selector.
    pub labels: BTreeMap<String, String>,
}

/// How many replicas a workload had before it went to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReplicas {
    /// The workload.
    #[serde(flatten)]
    pub workload: ObjectRef,
    /// Replicas to restore.
    pub replicas: i32,
}

/// A Service port and the port of the DLX that stands in for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DivertedPort {
    /// Service name.
    pub service: String,
    /// Name of the Service port; empty when the Service has a single unnamed port.
    #[serde(default)]
    pub name: String,
    /// Number of the Service port.
    pub port: u16,
    /// Port on which every DLX listens for this Service port.
    pub dlx_port: u16,
}

/// The last wake that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WakeFailure {
    /// Epoch of the wake that failed; one of an older epoch is history.
    pub epoch: Epoch,
    /// What went wrong, in words for people.
    pub message: String,
    /// When it was noticed.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

/// The protocol's memory: the part of a Sleeper's status that [`crate::next`] reads and that steps change, always by
/// a compare-and-set on the whole object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SleeperState {
    /// Where it stands.
    pub phase: Phase,
    /// Where it should go. `wish` in the custom resource: replicas of two versions share it.
    #[serde(rename = "wish")]
    pub desired: DesiredState,
    /// How often it was woken.
    pub epoch: Epoch,
    /// When the phase last changed.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why the phase last changed, in words for people.
    pub reason: String,
    /// What to restore on a wake. Filled on the way to Asleep, emptied on Awake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<WorkloadReplicas>,
    /// How the diverted Services select their pods. Emptied on Awake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<KeptSelector>,
    /// Workloads were seen at zero since the phase became Asleep. While it is Asleep, replicas above zero are from then
    /// on somebody else's scaling, which is respected as a wake; while it wakes, pods from before the wake do not count.
    #[serde(rename = "atZero")]
    pub zero_observed: bool,
    /// No pod was left since the workloads were seen at zero, but those that are terminating. Every pod that comes after that is of a
    /// later scale-up, whatever the clocks of those who note its age say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pods_gone: bool,
    /// When that was noted. None where a version did that does not write it.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_gone_at: Option<Timestamp>,
    /// DLX ports of the diverted Services. Kept for a while when awake, so that late connections still find their target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<DivertedPort>,
    /// When the wake that is under way, or was the last, began.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_started: Option<Timestamp>,
    /// When the last wake was over: a pod is ready, and the selectors are back. Soon after a sleep that takes seconds more than the pod.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_completed: Option<Timestamp>,
    /// When it last went to sleep. None again where a wake came before the workloads were scaled to zero.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slept: Option<Timestamp>,
    /// The last wake that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_failure: Option<WakeFailure>,
    /// When its traffic is checked again.
    #[serde(rename = "look")]
    pub traffic_check: TrafficCheck,
}

impl SleeperState {
    /// Sets the phase with its time and reason.
    pub(crate) fn enter(&mut self, phase: Phase, now: Timestamp, reason: impl Into<String>) {
        self.phase = phase;
        self.since = Some(now);
        self.reason = reason.into();
    }

    /// Drops what was noted of workloads at zero.
    pub(crate) fn forget_zero(&mut self) {
        self.zero_observed = false;
        self.pods_gone = false;
        self.pods_gone_at = None;
    }

    /// Counts how often the traffic was switched: odd towards the DLX, even back to the pods. Written on Dormouse's slices, so
    /// that a slice of this generation is never the very version that a late delete of an earlier one has in mind.
    pub fn traffic_generation(&self) -> i64 {
        let away = i64::from(self.phase.is_away());
        self.epoch.saturating_mul(2).saturating_add(away)
    }

    /// Pods created before this moment do not count as ready: they are from before the workload was at zero and may be
    /// about to go away. In whole seconds, as Kubernetes notes creation, so it is asked for only where the order of events is
    /// not known otherwise. None: every pod counts.
    ///
    /// Pods that are still there [`SURVIVAL`] after the wake began were kept: when a workload goes to zero and back
    /// quickly, its controller may never have seen the zero, and no younger pod will ever come.
    ///
    /// Once no pod is left, every one that comes counts ([`SleeperState::pods_gone`]), but whoever looks may not have heard of the end
    /// of the last ones yet. Those were created long before the sleep.
    pub fn pods_since(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.listed_until(DELETION_LAG)?;
        let since = if self.pods_gone {
            self.slept?
        } else {
            self.wake_started?
        };
        (now < until)
            .then(|| Timestamp::from_second(since.as_second()).ok())
            .flatten()
    }

    /// Whether a pod may be from before the wake, so that its age has to tell.
    pub(crate) fn needs_age(&self) -> bool {
        (self.zero_observed || self.may_be_at_zero()) && !self.pods_gone
    }

    /// Whether it went to sleep since a wake last brought a ready pod.
    pub fn has_slept(&self) -> bool {
        self.slept.is_some_and(|slept| Some(slept) > self.wake_completed)
    }

    /// Whether the wake followed a sleep, and nobody has looked yet whether that had scaled to zero.
    pub(crate) fn may_be_at_zero(&self) -> bool {
        self.phase == Phase::Waking && !self.zero_observed && self.has_slept()
    }

    /// From when on pods from before the wake count too, if they did not from the start.
    pub fn pods_survived(&self) -> Option<Timestamp> {
        let started = self.wake_started.filter(|_| self.needs_age())?;
        started.checked_add(SURVIVAL).ok()
    }

    /// Until when somebody who learns of the end of pods by this lag may list one from before the wake although it goes.
    pub(crate) fn listed_until(&self, lag: Duration) -> Option<Timestamp> {
        let survived = self.wake_started?.checked_add(SURVIVAL).ok()?;
        if !self.pods_gone {
            return self.needs_age().then_some(survived);
        }
        // Whatever the clock says of whoever has noted it.
        Some(self.pods_gone_at?.checked_add(lag).ok()?.min(survived))
    }

    /// The failure of the wake that is under way, if it failed.
    pub fn current_wake_failure(&self) -> Option<&WakeFailure> {
        self.wake_failure
            .as_ref()
            .filter(|failure| failure.epoch == self.epoch && self.phase == Phase::Waking)
    }
}
