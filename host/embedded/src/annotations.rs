//! Annotations that make pods slow, broken or stubborn. They go on the pod template (or the pod). Durations are Go
//! style: `800ms`, `1m30s`.

use std::time::Duration;

use serde_json::Value;

use crate::value::annotation;

/// Wait before the containers start.
pub const START_DELAY: &str = "embedded.dormouse.dev/start-delay";
/// `"true"`: the pod never becomes ready. Read again whenever the pod changes, so it can be switched on a live pod.
pub const NEVER_READY: &str = "embedded.dormouse.dev/never-ready";
/// The containers exit with code 1 this long after they started, again and again.
pub const CRASH_AFTER: &str = "embedded.dormouse.dev/crash-after";
/// The pod says that it is ready, but its ports refuse connections for this long.
pub const REFUSE_FOR: &str = "embedded.dormouse.dev/refuse-for";
/// `"true"`: the pod does not react to termination at all and is killed when its grace period is over.
pub const IGNORE_TERMINATION: &str = "embedded.dormouse.dev/ignore-termination";
/// `"true"`: no node has room for the pod; it stays Pending until the annotation goes.
pub const UNSCHEDULABLE: &str = "embedded.dormouse.dev/unschedulable";
/// Replaces `periodSeconds` of readiness probes, which has no fractions.
pub const PROBE_PERIOD: &str = "embedded.dormouse.dev/probe-period";
/// Set by the cluster, followed by a port: where that Service or container port really listens when it could not be
/// had (no privilege for ports below 1024, or everything on 127.0.0.1).
pub const ACTUAL_PORT: &str = "embedded.dormouse.dev/port-";

pub(crate) fn duration(v: &Value, key: &str) -> Option<Duration> {
    let text = annotation(v, key)?;
    dormouse_model::parse_duration(text)
        .inspect_err(|error| tracing::warn!(annotation = key, %error, "ignored"))
        .ok()
}

pub(crate) fn flag(v: &Value, key: &str) -> bool {
    annotation(v, key) == Some("true")
}
