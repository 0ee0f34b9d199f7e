//! Whether a pod takes requests, and where.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

/// A pod that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodEndpoint {
    /// Pod address and target port.
    pub address: SocketAddr,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// When the pod was created.
    pub created: Option<Timestamp>,
}

/// Whether a pod is ready and not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a pod may take requests, now or later: nobody has asked for its end, and it has not ended by itself. A pod that was evicted stays
/// where it is, whatever becomes of its workload.
pub fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Where a pod takes requests for a target port; none as long as it is not ready.
pub fn endpoint(pod: &Pod, target: &IntOrString) -> Option<PodEndpoint> {
    if !is_ready(pod) {
        return None;
    }
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let port = match target {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => named_port(pod, name)?,
    };
    Some(PodEndpoint {
        address: SocketAddr::new(ip, u16::try_from(port).ok()?),
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        created: pod.creation_timestamp().map(|time| time.0),
    })
}

fn named_port(pod: &Pod, name: &str) -> Option<i32> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .map(|port| port.container_port)
}

/// What a pod that is not ready says about it.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting
            .reason
            .as_deref()
            .filter(|reason| *reason != "ContainerCreating")?;
        Some(
            match waiting.message.as_deref().filter(|message| !message.is_empty()) {
                Some(message) => format!("container {}: {reason}: {message}", container.name),
                None => format!("container {}: {reason}", container.name),
            },
        )
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        conditions
            .into_iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")
            .map(|condition| {
                condition
                    .message
                    .clone()
                    .or_else(|| condition.reason.clone())
                    .unwrap_or_default()
            })
    };
    let text = waiting.or_else(unscheduled)?;
    Some(format!("pod {}: {text}", pod.name_any()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{ServicePort, target_port};
    use k8s_openapi::api::core::v1::Service;
    use rstest::rstest;
    use serde_json::json;

    fn pod(ready: &str, deleted: bool) -> Pod {
        let mut value = json!({
            "metadata": {"name": "web-1", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": 8080}, {"name": "http", "containerPort": 9, "protocol": "UDP"}]}]},
            "status": {"podIP": "127.0.0.9", "conditions": [{"type": "Ready", "status": ready}]},
        });
        if deleted {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
        }
        serde_json::from_value(value).unwrap()
    }

    #[rstest]
    #[case("True", false, true)]
    #[case("False", false, false)]
    #[case("True", true, false)]
    fn only_ready_pods_that_are_not_terminating_count(
        #[case] ready: &str,
        #[case] deleted: bool,
        #[case] counts: bool,
    ) {
        assert_eq!(
            endpoint(&pod(ready, deleted), &IntOrString::Int(80)).is_some(),
            counts
        );
    }

    #[rstest]
    #[case(json!([{"port": 80}]), ServicePort::First, Some(80))]
    #[case(json!([{"port": 80, "targetPort": 8081}]), ServicePort::Number(80), Some(8081))]
    #[case(json!([{"port": 80, "targetPort": "http"}]), ServicePort::Number(80), Some(8080))]
    #[case(json!([{"port": 80, "targetPort": "none"}]), ServicePort::Number(80), None)]
    #[case(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]), ServicePort::Name("b".into()), Some(81))]
    #[case(json!([{"port": 80}]), ServicePort::Number(81), None)]
    #[case(json!([{"port": 80, "protocol": "UDP"}]), ServicePort::First, None)]
    fn target_ports_are_resolved_for_each_pod(
        #[case] ports: serde_json::Value,
        #[case] port: ServicePort,
        #[case] expected: Option<u16>,
    ) {
        let service: Service =
            serde_json::from_value(json!({"metadata": {}, "spec": {"ports": ports}})).unwrap();
        let found = target_port(&service, &port).and_then(|target| endpoint(&pod("True", false), &target));
        assert_eq!(found.map(|endpoint| endpoint.address.port()), expected);
    }

    #[rstest]
    #[case::pending(json!({"status": {"phase": "Pending"}}), true)]
    #[case::running(json!({"status": {"phase": "Running"}}), true)]
    #[case::new(json!({}), true)]
    #[case::evicted(json!({"status": {"phase": "Failed"}}), false)]
    #[case::of_a_job(json!({"status": {"phase": "Succeeded"}}), false)]
    #[case::terminating(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}), false)]
    fn a_pod_that_has_ended_holds_up_no_wake(#[case] pod: serde_json::Value, #[case] alive: bool) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(is_alive(&pod), alive);
    }

    #[test]
    fn a_pod_that_cannot_start_says_why() {
        let stuck: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1"},
            "status": {"containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        }))
        .unwrap();
        assert_eq!(
            trouble(&stuck).as_deref(),
            Some("pod web-1: container c: ImagePullBackOff: no such image")
        );
        assert_eq!(trouble(&pod("False", false)), None);
    }
}
