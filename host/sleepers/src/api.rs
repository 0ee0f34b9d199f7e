//! `Sleeper`, the custom resource that shows and remembers what Dormouse does with a resource.

use dormouse_lifecycle::SleeperState;
use dormouse_model::{ObjectRef, Owner, Phase};
use dormouse_scaling::ScalingHistory;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Finalizer that keeps a Sleeper until its Services and replicas are restored.
pub const FINALIZER: &str = "dormouse.dev/restore";
/// On a Service: the selector that was there before it was parked, as JSON. What a person needs to undo it by hand.
pub const PARKED_SELECTOR: &str = "dormouse.dev/parked-selector";
/// On a Service that is parked: the workloads behind it, as JSON. With [`ASLEEP`] on those it can be undone even if its Sleeper is
/// gone.
pub const PARKED_WORKLOADS: &str = "dormouse.dev/parked-workloads";
/// The label that a parked selector asks for; no pod carries it.
pub const PARKED_LABEL: &str = "dormouse.dev/parked";
/// On a workload that is asleep: who put it to sleep and how many replicas it had, as JSON. So it can be undone whatever
/// becomes of the Sleeper. Not among the annotations that plugins read from people: one that does not know it would take it for a
/// misspelt one of theirs, and leave the workload awake.
pub const ASLEEP: &str = "state.dormouse.dev/asleep";
/// On a workload or a Service: the epoch of the last wake, and the uid of the Sleeper (`<epoch>@<uid>`); one for each Sleeper that
/// names the object, with commas between. What was decided
/// before that wake is conditional on an older version of the object, and loses.
pub const FENCE: &str = "dormouse.dev/epoch";
/// A label on a Service: what its [`FENCE`] says, as `<epoch>.<uid>`. The cluster's controller copies the labels of a Service
/// to its EndpointSlices, so slices with this label were written by a controller that knew the Service as that wake left it.
pub const FENCE_LABEL: &str = "dormouse.dev/epoch";
/// On Dormouse's EndpointSlices: the generation of the traffic for which it was written, and the uid of the Sleeper (`<generation>@<uid>`).
pub const GENERATION: &str = "dormouse.dev/turn";
/// On a workload: what it means that somebody else, not Dormouse, sets it to zero replicas; `stand-in` or `off`. None: the setting of
/// the installation.
pub const AT_ZERO: &str = "dormouse.dev/at-zero";
/// On the Lease of the leader: when the API server was last known to be away.
pub const LAST_OUTAGE: &str = "dormouse.dev/last-outage";
/// On Dormouse's EndpointSlices: `endpointslice.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "dormouse.dev";

/// What an owner declared about one resource. Written by the autoscaler.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dormouse.dev",
    version = "v1alpha1",
    kind = "Sleeper",
    namespaced,
    status = "SleeperStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A resource that Dormouse puts to sleep and wakes. Written by Dormouse; read it with kubectl.",
    printcolumn = r#"{"name":"PHASE","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"RESOURCE","type":"string","jsonPath":".spec.resource"}"#,
    printcolumn = r#"{"name":"OWNER","type":"string","jsonPath":".spec.owner.name"}"#,
    printcolumn = r#"{"name":"OWNER-KIND","type":"string","jsonPath":".spec.owner.kind","priority":1}"#,
    printcolumn = r#"{"name":"SINCE","type":"date","jsonPath":".status.since"}"#,
    printcolumn = r#"{"name":"REASON","type":"string","jsonPath":".status.reason"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SleeperSpec {
    /// Who declared the resource. None: a Sleeper of a version that knew plugins only; `plugin` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Deprecated, read `owner`: name of the plugin that declared the resource. Still written for processes of the version
    /// before, which run for a while during an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Name of the resource, as its owner calls it.
    pub resource: String,
    /// The object that is the resource; it owns this Sleeper.
    pub object: ObjectRef,
    /// Objects with a scale subresource that are scaled. Empty when the owner's platform scales by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<ObjectRef>,
    /// Services whose traffic wakes the resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// How long a request is held, in milliseconds. None: the DLX's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_timeout_millis: Option<u64>,
    /// Replicas that a wake restores. None: as many as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_replicas: Option<i32>,
    /// What its owner wants back with every call about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Who brings the resource back. None: whoever scales it, as `workloads` and `services` tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Wake>,
    /// Where its requests go that name no Service themselves. None: to the first of `services`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
}

/// Who brings a resource back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Wake {
    /// Dormouse, by restoring Services and replicas; its owner is not asked.
    Lifecycle,
    /// Its owner, whose platform scales it.
    Owner,
}

/// Where requests go that name a resource, and not a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// A Service in the Sleeper's namespace.
    pub service: String,
    /// Its port. None: the DLX's setting, or else its only port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl SleeperSpec {
    /// Who declared the resource.
    pub fn owner(&self) -> Owner {
        let plugin = || Owner::plugin(self.plugin.clone().unwrap_or_default());
        self.owner.clone().unwrap_or_else(plugin)
    }

    /// Whether the owner's platform scales it, so that its Sleeper only shows what the platform says.
    pub fn scales_itself(&self) -> bool {
        self.workloads.is_empty() && self.services.is_empty()
    }

    /// Who brings it back.
    pub fn wake(&self) -> Wake {
        self.wake.unwrap_or_else(|| self.derived_wake())
    }

    /// The same, saying who brings back what it names.
    #[must_use]
    pub fn saying_who_wakes(self) -> Self {
        Self {
            wake: Some(self.derived_wake()),
            ..self
        }
    }

    fn derived_wake(&self) -> Wake {
        if self.scales_itself() {
            Wake::Owner
        } else {
            Wake::Lifecycle
        }
    }
}

impl Sleeper {
    /// Where the protocol is. One without a status is new.
    pub fn phase(&self) -> Phase {
        let status = self.status.as_ref();
        status.map(|status| status.state.phase).unwrap_or_default()
    }
}

/// What Dormouse does and why. Each change of `state` is a compare-and-set on the Sleeper.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SleeperStatus {
    /// The protocol's memory.
    #[serde(flatten)]
    pub state: SleeperState,
    /// The inputs of the last decision, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// How many replicas it should have while it is up, if that is decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// What needs attention.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// How many replicas a resource should have while it is up, written when something about it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingStatus {
    /// When it was decided, or was found that it cannot be, RFC 3339.
    pub at: String,
    /// Replicas that it should have. None: it was never decided; the conditions say why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// When the number was last changed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<String>,
    /// What the number follows from, in words for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub decision: String,
    /// What later decisions depend on.
    pub history: ScalingHistory,
}

impl ScalingStatus {
    /// Whether it says the same, but for the readings in its text.
    pub fn is_same(&self, other: &Self) -> bool {
        self.desired_replicas == other.desired_replicas
            && self.last_scale_time == other.last_scale_time
            && self.history.is_same(&other.history)
    }
}

/// What the autoscaler saw when it last decided, written when the outcome changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LastDecision {
    /// When, RFC 3339.
    pub at: String,
    /// `Idle`, `InUse`, `Debounced`, `NoData`, `Error`, `NoRules`.
    pub outcome: String,
    /// One line for each rule: reading, threshold, window.
    pub inputs: Vec<String>,
}

/// Condition types on a Sleeper.
pub mod condition {
    /// False when a Service or workload of the resource cannot be diverted or scaled; the message says which and why.
    pub const DIVERTIBLE: &str = "Divertible";
    /// False when the last wake failed; the message is the cause.
    pub const WAKEABLE: &str = "Wakeable";
    /// False when a reading failed or has no data; the message says which.
    pub const READINGS: &str = "ReadingsAvailable";
    /// False when the owner of this resource failed.
    pub const PLUGIN: &str = "PluginHealthy";
    /// False when the number of replicas cannot be read or written, or somebody else scales the workload.
    pub const ABLE_TO_SCALE: &str = "AbleToScale";
    /// False when the metrics do not say how many replicas there should be.
    pub const SCALING_ACTIVE: &str = "ScalingActive";
}
