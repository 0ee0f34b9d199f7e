//! The status of a pod as a kubelet reports it.

use serde_json::{Value, json};

use crate::core::Core;
use crate::store::Part;
use crate::value::{list_at, now, set, str_at, uid_of};

/// What a container is doing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Waiting { reason: String, message: String },
    Running { since: String },
    Terminated { code: i64, since: String, at: String },
}

/// What the kubelet knows about a pod.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub phase: &'static str,
    pub ip: Option<String>,
    pub started: Option<String>,
    pub ready: bool,
    pub restarts: i64,
    pub state: State,
    pub last: Option<State>,
}

fn state(s: &State) -> Value {
    match s {
        State::Waiting { reason, message } if message.is_empty() => {
            json!({ "waiting": { "reason": reason } })
        }
        State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
        State::Running { since } => json!({ "running": { "startedAt": since } }),
        State::Terminated { code, since, at } => json!({ "terminated": {
            "exitCode": code, "reason": if *code == 0 { "Completed" } else { "Error" }, "startedAt": since, "finishedAt": at,
        } }),
    }
}

fn condition(old: &[Value], kind: &str, status: bool, reason: &str, message: &str) -> Value {
    let text = if status { "True" } else { "False" };
    let before = old.iter().find(|c| str_at(c, "type") == Some(kind));
    let since = before
        .filter(|c| str_at(c, "status") == Some(text))
        .and_then(|c| str_at(c, "lastTransitionTime").map(str::to_owned))
        .unwrap_or_else(now);
    let mut c = json!({ "type": kind, "status": text, "lastProbeTime": null, "lastTransitionTime": since });
    if !reason.is_empty() {
        c["reason"] = json!(reason);
        c["message"] = json!(message);
    }
    c
}

fn make(pod: &Value, v: &View) -> Value {
    let old = list_at(pod, "status.conditions");
    let containers = list_at(pod, "spec.containers");
    let running = matches!(v.state, State::Running { .. });
    let names: Vec<&str> = containers.iter().filter_map(|c| str_at(c, "name")).collect();
    let unready = format!("containers with unready status: [{}]", names.join(" "));
    let (reason, message) = match (v.ready, v.phase) {
        (true, _) => ("", ""),
        (false, "Succeeded") => ("PodCompleted", ""),
        (false, "Failed") => ("PodFailed", ""),
        _ => ("ContainersNotReady", unready.as_str()),
    };
    let mut s = json!({
        "phase": v.phase,
        "qosClass": "BestEffort",
        "hostIP": "127.0.0.1",
        "hostIPs": [{ "ip": "127.0.0.1" }],
        "conditions": [
            condition(old, "PodReadyToStartContainers", v.ip.is_some(), "", ""),
            condition(old, "Initialized", true, "", ""),
            condition(old, "Ready", v.ready, reason, message),
            condition(old, "ContainersReady", v.ready, reason, message),
            condition(old, "PodScheduled", true, "", ""),
        ],
        "containerStatuses": containers.iter().map(|c| {
            let image = str_at(c, "image").unwrap_or("");
            let mut cs = json!({
                "name": c["name"], "image": image, "imageID": image, "ready": v.ready, "started": running,
                "restartCount": v.restarts, "state": state(&v.state), "lastState": {},
            });
            if let Some(l) = &v.last {
                cs["lastState"] = state(l);
            }
            if running {
                cs["containerID"] = json!(format!("embedded://{}", uid_of(pod)));
            }
            cs
        }).collect::<Vec<_>>(),
    });
    if let Some(t) = &v.started {
        s["startTime"] = json!(t);
    }
    if let Some(ip) = &v.ip {
        s["podIP"] = json!(ip);
        s["podIPs"] = json!([{ "ip": ip }]);
    }
    s
}

fn update(core: &Core, ns: &str, name: &str, uid: &str, f: impl FnOnce(&Value) -> Value) {
    let done = core.store.edit("pods", ns, name, Part::Status, |live| {
        // Another pod may have the name by now.
        if uid_of(live) == uid {
            let status = f(live);
            set(live, "status", status);
        }
    });
    if let Err(e) = done {
        tracing::warn!(namespace = ns, pod = name, error = %e.message, "pod status not written");
    }
}

pub(crate) fn report(core: &Core, ns: &str, name: &str, uid: &str, view: &View) {
    update(core, ns, name, uid, |live| make(live, view));
}

/// No node has room.
pub(crate) fn unschedulable(core: &Core, ns: &str, name: &str, uid: &str) {
    update(core, ns, name, uid, |live| {
        let c = condition(
            list_at(live, "status.conditions"),
            "PodScheduled",
            false,
            "Unschedulable",
            "0/1 nodes are available: 1 Insufficient cpu.",
        );
        json!({ "phase": "Pending", "qosClass": "BestEffort", "conditions": [c] })
    });
}
