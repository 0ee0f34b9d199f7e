//! What a Sleeper tells.

use dormouse_model::Phase;
use dormouse_sleepers::lifecycle::{DesiredState, SleeperState};
use dormouse_sleepers::{Sleeper, SleeperStatus};
use jiff::Timestamp;

use super::lines::{Lines, ago};

/// Where it stands, why, what was decided by which readings, what is wrong, and what comes next.
pub(super) fn tell(sleeper: &Sleeper, now: Timestamp) -> String {
    let spec = &sleeper.spec;
    let namespace = sleeper.metadata.namespace.as_deref().unwrap_or_default();
    let name = sleeper.metadata.name.as_deref().unwrap_or_default();
    let default = SleeperStatus::default();
    let status = sleeper.status.as_ref().unwrap_or(&default);
    let state = &status.state;
    let mut lines = Lines::default();
    let since = state.since.map(|since| format!(", for {}", ago(since, now)));
    lines.title(&format!(
        "{} of {namespace}: {:?}{}",
        spec.object,
        state.phase,
        since.unwrap_or_default()
    ));
    if !state.reason.is_empty() {
        lines.add("why", &state.reason);
    }
    lines.add("target", &format!("Sleeper {name}, declared by {}", spec.owner()));
    for workload in &spec.workloads {
        let kept = state.replicas.iter().find(|kept| kept.workload == *workload);
        let kept = kept.map(|kept| format!("; replicas when it wakes: {}", kept.replicas));
        lines.add("scales", &format!("{workload}{}", kept.unwrap_or_default()));
    }
    for service in &spec.services {
        let ports = state.ports.iter().filter(|port| port.service == *service);
        let ports: Vec<_> = ports
            .map(|port| format!("port {} is {} of the DLX", port.port, port.dlx_port))
            .collect();
        let ports = if ports.is_empty() {
            String::new()
        } else {
            format!(" ({})", ports.join(", "))
        };
        lines.add("woken by", &format!("Service {service}{ports}"));
    }
    if let Some(decision) = &status.last_decision {
        lines.add("decision", &format!("{} at {}", decision.outcome, decision.at));
        for input in &decision.inputs {
            lines.add("reading", input);
        }
    }
    if let Some(scaling) = &status.scaling {
        if let Some(desired) = scaling.desired_replicas {
            lines.add("replicas", &format!("{desired} wanted at {}", scaling.at));
            lines.add("because", &scaling.decision);
        }
        if let Some(changed) = &scaling.last_scale_time {
            lines.add("changed", &format!("at {changed}"));
        }
    }
    lines.add_problems(&status.conditions);
    if let Some(failure) = state
        .wake_failure
        .as_ref()
        .filter(|failure| failure.epoch == state.epoch)
    {
        lines.add(
            "problem",
            &format!(
                "the wake failed {} ago: {}",
                ago(failure.at, now),
                failure.message
            ),
        );
    }
    let sleeps = status.scaling.is_none()
        || status.last_decision.is_some()
        || !spec.services.is_empty()
        || spec.scales_itself();
    let next = if sleeper.metadata.deletion_timestamp.is_some() {
        "it is being deleted: it wakes, its Services are restored, and then it goes"
    } else {
        next(state, spec.scales_itself(), sleeps)
    };
    lines.add("waits for", next);
    lines.text
}

/// What brings it on.
fn next(state: &SleeperState, by_platform: bool, sleeps: bool) -> &'static str {
    match (state.phase, state.desired) {
        (Phase::Asleep, _) if by_platform => "a request; its platform then scales it up",
        (Phase::Asleep, _) => "a request, or somebody who scales it up",
        (Phase::Waking, _) => "a ready pod that accepts connections",
        (Phase::Ready, _) => "its Services to list the pods, so that the DLX can leave",
        (Phase::Awake, DesiredState::Awake) if !sleeps => {
            "its metrics: they decide how many replicas it has, and nothing puts it to sleep"
        }
        (Phase::Awake, DesiredState::Awake) => {
            "a decision: it sleeps when every reading is at or below its threshold"
        }
        (Phase::Awake | Phase::Diverting, _) => "its Services to lead to the DLX",
        (Phase::Observing, _) => "a decision: its traffic goes through the DLX and is counted",
        (Phase::Draining, _) => "open connections and requests to end",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(status: &Value) -> String {
        let sleeper = json!({
            "apiVersion": "dormouse.dev/v1alpha1",
            "kind": "Sleeper",
            "metadata": {"namespace": "shop", "name": "web.workloads"},
            "spec": {
                "owner": {"kind": "Plugin", "name": "workloads"},
                "resource": "web",
                "object": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "workloads": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}],
                "services": ["front"],
            },
            "status": status,
        });
        let sleeper: Sleeper = serde_json::from_value(sleeper).unwrap();
        tell(&sleeper, "2026-01-01T02:05:00Z".parse().unwrap())
    }

    #[test]
    fn one_that_is_scaled_says_how_many_replicas_it_should_have_and_why() {
        let told = told(&json!({
            "phase": "Awake", "wish": "Awake", "epoch": 0, "since": "2026-01-01T00:00:00Z", "reason": "",
            "scaling": {
                "at": "2026-01-01T02:00:00Z", "desiredReplicas": 5, "lastScaleTime": "2026-01-01T02:00:00Z",
                "decision": "scale from 3 to 5: resource cpu is 80%, target 50% of requests, proposes 5",
                "history": {"recommendations": [{"at": "2026-01-01T02:00:00Z", "replicas": 5}]},
            },
        }));
        for line in [
            "  replicas   5 wanted at 2026-01-01T02:00:00Z",
            "  because    scale from 3 to 5: resource cpu is 80%, target 50% of requests, proposes 5",
            "  changed    at 2026-01-01T02:00:00Z",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}: {told}");
        }
    }

    #[test]
    fn one_that_sleeps_says_since_when_why_and_what_wakes_it() {
        let told = told(&json!({
            "phase": "Asleep", "wish": "Asleep", "epoch": 3, "since": "2026-01-01T00:00:00Z",
            "reason": "requests over 15m is 0", "atZero": true,
            "replicas": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "replicas": 3}],
            "ports": [{"service": "front", "name": "http", "port": 80, "dlxPort": 20001}],
            "lastDecision": {"at": "2026-01-01T00:00:00Z", "outcome": "Idle", "inputs": ["requests over 15m is 0, threshold 0"]},
        }));
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "Deployment web of shop: Asleep, for 2h 5m",
                "  why        requests over 15m is 0",
                "  target     Sleeper web.workloads, declared by plugin workloads",
                "  scales     Deployment web; replicas when it wakes: 3",
                "  woken by   Service front (port 80 is 20001 of the DLX)",
                "  decision   Idle at 2026-01-01T00:00:00Z",
                "  reading    requests over 15m is 0, threshold 0",
                "  waits for  a request, or somebody who scales it up",
            ]
        );
    }

    #[test]
    fn problems_are_told_in_one_line_each_and_those_of_an_older_wake_are_not() {
        let failure =
            |epoch| json!({"epoch": epoch, "message": "no pod\nbecame ready", "at": "2026-01-01T02:04:00Z"});
        let status = |epoch| {
            json!({
                "phase": "Waking", "epoch": 4, "wakeFailure": failure(epoch),
                "conditions": [
                    {"type": "ReadingsAvailable", "status": "False", "reason": "ReadingFailed", "message": "the API hangs", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Divertible", "status": "True", "reason": "Divertible", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
            })
        };
        let now = told(&status(4));
        assert!(
            now.contains("  problem    ReadingsAvailable (ReadingFailed): the API hangs\n"),
            "{now}"
        );
        assert!(
            now.contains("  problem    the wake failed 1m ago: no pod became ready\n"),
            "{now}"
        );
        assert!(!now.contains("Divertible"), "{now}");
        assert!(!told(&status(3)).contains("the wake failed"));
    }

    #[test]
    fn one_that_was_declared_a_moment_ago_waits_for_a_decision() {
        assert!(
            told(&json!({})).ends_with(
                "waits for  a decision: it sleeps when every reading is at or below its threshold\n"
            )
        );
    }
}
