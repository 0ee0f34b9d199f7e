//! Both processes on the embedded cluster: what they serve is what the docs say.

use std::collections::BTreeMap;
use std::path::Path;

use dormouse::local::{self, Local, SYSTEM_NAMESPACE};
use dormouse::requests::fetch;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

/// Type and process of each metric in docs/reference/metrics.md.
fn documented() -> BTreeMap<String, (String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    let text = std::fs::read_to_string(page).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut cells = row.split(" | ");
        let mut next = || cells.next().unwrap().to_owned();
        (next().replace('`', ""), (next(), next()))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn f06_what_both_processes_serve_is_what_the_docs_say() {
    let local = Local::start(local::Options {
        binary: Some(env!("CARGO_BIN_EXE_dormouse").into()),
        workloads: false,
        ..local::Options::default()
    })
    .await
    .unwrap();
    let pods: Api<Pod> = Api::namespaced(local.client().await.unwrap(), SYSTEM_NAMESPACE);
    let documented = documented();
    let mut processes = Vec::new();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let name = pod.metadata.name.unwrap();
        let process = if name.contains("dlx") { "DLX" } else { "autoscaler" };
        let address = pod.status.unwrap().pod_ip.unwrap();
        let text = fetch(&format!("http://{address}:9090/metrics")).await.unwrap();
        let served: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        assert!(served.len() > 10, "{process}: {text}");
        for (metric, kind) in &served {
            let (said, by) = &documented[*metric];
            assert_eq!(said, kind, "{process}: {metric}");
            assert!(by == "both" || by == process, "{process}: {metric} is of {by}");
        }
        // What needs no plugin and no request is there from the start, so that an alert on it is not silent.
        let from_the_start: &[&str] = match process {
            "DLX" => &[
                "dormouse_dlx_held_requests",
                "dormouse_dlx_rescues",
                "dormouse_dlx_ports_failed",
            ],
            _ => &[
                "dormouse_leader",
                "dormouse_wake_failures",
                "dormouse_log_lines_dropped",
            ],
        };
        for metric in from_the_start {
            assert!(served.contains_key(metric), "{process}: {metric} in {text}");
        }
        processes.push(process);
    }
    processes.sort_unstable();
    assert_eq!(processes, ["DLX", "DLX", "autoscaler"]);
    local.stop().await;
}
