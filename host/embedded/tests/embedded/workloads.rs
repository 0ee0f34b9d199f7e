use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::{SOON, start, web};

const SLICES: &str = "endpointslices.discovery.k8s.io";

async fn scale(client: &Client, name: &str, n: i32) {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let p = Patch::Merge(json!({ "spec": { "replicas": n } }));
    api.patch_scale(name, &PatchParams::default(), &p).await.unwrap();
}

fn of<'a>(slices: &'a [Value], service: &str) -> Vec<&'a Value> {
    slices
        .iter()
        .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == service)
        .collect()
}

fn endpoints(slices: &[Value], service: &str) -> usize {
    of(slices, service)
        .iter()
        .map(|s| s["endpoints"].as_array().map_or(0, Vec::len))
        .sum()
}

#[tokio::test]
async fn a_deployment_goes_to_zero_and_back() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 0, &json!({}))).unwrap();
    let done = |n: i64| {
        move |l: &[Value]| {
            let s = &l[0]["status"];
            s["observedGeneration"] == l[0]["metadata"]["generation"]
                && s["readyReplicas"].as_i64().unwrap_or(0) == n
                && s["availableReplicas"].as_i64().unwrap_or(0) == n
                && s["replicas"].as_i64().unwrap_or(0) == n
        }
    };
    let mut ips = BTreeSet::new();
    for n in [0, 3, 0, 2] {
        scale(&client, "web", n).await;
        let d = cluster
            .wait_for("deployments.apps", "default", SOON, done(n.into()))
            .await
            .unwrap();
        let available = d[0]["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == "Available")
            .unwrap();
        assert_eq!(available["status"], "True");
        let n = usize::try_from(n).unwrap();
        let slices = cluster
            .wait_for(SLICES, "default", SOON, |l| endpoints(l, "web") == n)
            .await
            .unwrap();
        let slice = of(&slices, "web")[0];
        assert!(slice["metadata"]["name"].as_str().unwrap().starts_with("web-"));
        assert_eq!(
            slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
            "endpointslice-controller.k8s.io"
        );
        for pod in cluster
            .wait_for_ready_pods("default", "app=web", n, SOON)
            .await
            .unwrap()
        {
            let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
            assert!(ips.insert(ip), "a new pod has a new address");
        }
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn endpoints_say_which_pod_and_whether_it_is_ready() {
    let (cluster, client) = start().await;
    cluster
        .apply_yaml(&web(
            "web",
            1,
            &json!({ "embedded.dormouse.dev/never-ready": "true" }),
        ))
        .unwrap();
    let slices = cluster
        .wait_for(SLICES, "default", SOON, |l| endpoints(l, "web") == 1)
        .await
        .unwrap();
    let e = &of(&slices, "web")[0]["endpoints"][0];
    assert_eq!(
        e["conditions"],
        json!({ "ready": false, "serving": false, "terminating": false })
    );
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = pods
        .list(&ListParams::default().labels("app=web"))
        .await
        .unwrap()
        .items
        .remove(0);
    assert_eq!(e["targetRef"]["uid"].as_str(), pod.uid().as_deref());
    assert_eq!(
        of(&slices, "web")[0]["ports"],
        json!([{ "name": "http", "port": 8080, "protocol": "TCP" }])
    );
    // The annotation can be taken away while the pod runs.
    let p =
        Patch::Merge(json!({ "metadata": { "annotations": { "embedded.dormouse.dev/never-ready": null } } }));
    pods.patch(&pod.name_any(), &PatchParams::default(), &p)
        .await
        .unwrap();
    cluster
        .wait_for(SLICES, "default", SOON, |l| {
            of(l, "web")[0]["endpoints"][0]["conditions"]["ready"] == true
        })
        .await
        .unwrap();
    cluster.shutdown().await;
}

/// A parked selector empties the slices and keeps the object; a removed selector leaves stale ones.
#[tokio::test]
async fn parking_a_selector_empties_its_slices_and_removing_it_does_not() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 1, &json!({}))).unwrap();
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client);
    let before = cluster
        .wait_for(SLICES, "default", SOON, |l| endpoints(l, "web") == 1)
        .await
        .unwrap();
    let name = of(&before, "web")[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let p = PatchParams::default();
    let park = Patch::Merge(json!({ "spec": { "selector": { "app": null, "dormouse.dev/parked": "web" } } }));
    services.patch("web", &p, &park).await.unwrap();
    cluster
        .wait_for(SLICES, "default", SOON, |l| endpoints(l, "web") == 0)
        .await
        .unwrap();
    let empty = slices.get(&name).await.unwrap();
    assert!(empty.endpoints.is_none_or(|e| e.is_empty()), "the object stays");
    let restore =
        Patch::Merge(json!({ "spec": { "selector": { "app": "web", "dormouse.dev/parked": null } } }));
    services.patch("web", &p, &restore).await.unwrap();
    cluster
        .wait_for(SLICES, "default", SOON, |l| endpoints(l, "web") == 1)
        .await
        .unwrap();

    let remove = Patch::Merge(json!({ "spec": { "selector": null } }));
    services.patch("web", &p, &remove).await.unwrap();
    cluster.apply_yaml(&web("other", 1, &json!({}))).unwrap();
    // The controller has seen the removal when it has dealt with something later.
    cluster
        .wait_for(SLICES, "default", SOON, |l| endpoints(l, "other") == 1)
        .await
        .unwrap();
    assert_eq!(
        endpoints(&cluster.list(SLICES, "default"), "web"),
        1,
        "stale, as on a real cluster"
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_new_template_rolls_over() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 3, &json!({}))).unwrap();
    let old = cluster
        .wait_for_ready_pods("default", "app=web", 3, SOON)
        .await
        .unwrap();
    let api: Api<Deployment> = Api::default_namespaced(client);
    let change = json!({ "spec": { "template": { "metadata": { "annotations": { "v": "2" } } } } });
    api.patch("web", &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
    let mut fewest = usize::MAX;
    let pods = cluster
        .wait_for("pods", "default", SOON, |l| {
            let ready = |p: &&Value| {
                p["status"]["conditions"]
                    .as_array()
                    .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
            };
            fewest = fewest.min(
                l.iter()
                    .filter(ready)
                    .filter(|p| p["metadata"].get("deletionTimestamp").is_none())
                    .count(),
            );
            l.len() == 3
                && l.iter().all(|p| p["metadata"]["annotations"]["v"] == "2")
                && l.iter().filter(ready).count() == 3
        })
        .await
        .unwrap();
    assert!(
        pods.iter()
            .all(|p| old.iter().all(|o| o["metadata"]["uid"] != p["metadata"]["uid"]))
    );
    assert!(
        fewest >= 3,
        "with 25% of three no pod may be missing; {fewest} served"
    );
    let d = cluster
        .wait_for("deployments.apps", "default", SOON, |l| {
            l[0]["status"]["updatedReplicas"] == 3 && l[0]["status"]["replicas"] == 3
        })
        .await
        .unwrap();
    assert_eq!(
        d[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_stateful_set_counts_up_and_down() {
    let (cluster, client) = start().await;
    let manifest = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db" },
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
            "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [
                { "name": "db", "image": "embedded/http:1", "ports": [{ "containerPort": 9000 }] }] } },
        },
    });
    cluster.apply_yaml(&manifest.to_string()).unwrap();
    let names = |l: &[Value]| {
        l.iter()
            .map(|p| p["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let pods = cluster
        .wait_for_ready_pods("default", "app=db", 3, SOON)
        .await
        .unwrap();
    assert_eq!(names(&pods), ["db-0", "db-1", "db-2"]);
    let api: Api<StatefulSet> = Api::default_namespaced(client);
    let one = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    api.patch_scale("db", &PatchParams::default(), &one)
        .await
        .unwrap();
    cluster
        .wait_for("pods", "default", SOON, |l| names(l) == ["db-0"])
        .await
        .unwrap();
    cluster
        .wait_for("statefulsets.apps", "default", SOON, |l| {
            l[0]["status"]["readyReplicas"] == 1 && l[0]["status"]["replicas"] == 1
        })
        .await
        .unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn field_15_names_may_be_as_long_as_in_kubernetes() {
    for length in [63, 64, 253] {
        a_deployment_with_a_name_of(length).await;
    }
}

async fn a_deployment_with_a_name_of(length: usize) {
    let (cluster, client) = start().await;
    let name = "n".repeat(length);
    let manifest = web("short", 1, &json!({}));
    let (deployment, _) = manifest.split_once("---").unwrap();
    let named = deployment.replacen(r#""name":"short""#, &format!(r#""name":"{name}""#), 1);
    assert!(named.contains(&name));
    cluster.apply_yaml(&named).unwrap();
    let ready = |l: &[Value]| l.iter().any(|pod| pod["status"]["podIP"].is_string());
    let pods = cluster.wait_for("pods", "default", SOON, ready).await.unwrap();
    let pod = pods[0]["metadata"]["name"].as_str().unwrap();
    assert!(pod.len() <= 63, "{pod}");

    // A Service has 63 at most, and a slice for it more than that.
    let service = "s".repeat(63);
    let slice = format!(
        r#"{{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {{"name": "{service}-dormouse",
        "labels": {{"kubernetes.io/service-name": "{service}"}}}}, "addressType": "IPv4", "endpoints": [], "ports": []}}"#
    );
    cluster.apply_yaml(&slice).unwrap();
    drop(client);
}
