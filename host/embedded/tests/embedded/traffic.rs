use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, from_value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{SOON, eventually, get, start, web};

/// Something that answers and is not a pod, as a DLX is: its address and how often it answered.
async fn outsider() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut s, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = s.read(&mut head).await;
                let _ = s
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\noutsider")
                    .await;
            });
        }
    });
    (at, count)
}

fn own_slice(service: &str, at: std::net::SocketAddr) -> EndpointSlice {
    from_value(json!({
        "metadata": {
            "name": format!("{service}-dormouse"),
            "labels": { "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "dormouse.dev" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [at.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "http", "port": at.port(), "protocol": "TCP" }],
    }))
    .unwrap()
}

#[tokio::test]
async fn a_service_spreads_connections_over_ready_pods() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 2, &json!({}))).unwrap();
    cluster
        .wait_for_ready_pods("default", "app=web", 2, SOON)
        .await
        .unwrap();
    let at = cluster.service_address("default", "web", 8080).unwrap();
    let seen = eventually("both pods answer", async || {
        let mut pods = BTreeSet::new();
        for _ in 0..32 {
            let body: Value = serde_json::from_str(&get(at, "/").await.ok()?.1).ok()?;
            pods.insert(body["pod"].as_str()?.to_owned());
        }
        (pods.len() == 2).then_some(pods)
    })
    .await;
    assert_eq!(seen.len(), 2);
    // With nobody behind it connections are refused, as kube-proxy rejects them.
    let api: Api<Deployment> = Api::default_namespaced(client);
    api.patch_scale(
        "web",
        &PatchParams::default(),
        &Patch::Merge(json!({ "spec": { "replicas": 0 } })),
    )
    .await
    .unwrap();
    // A connection that meets the closing listener is reset; from then on they are refused.
    eventually("refused", async || {
        TcpStream::connect(at)
            .await
            .err()
            .filter(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    })
    .await;
    api.patch_scale(
        "web",
        &PatchParams::default(),
        &Patch::Merge(json!({ "spec": { "replicas": 1 } })),
    )
    .await
    .unwrap();
    eventually("answered again", async || get(at, "/").await.ok()).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_resets_its_clients() {
    let (cluster, client) = start().await;
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
        "spec": { "ports": [{ "name": "http", "port": 8080 }] } });
    cluster.apply_yaml(&service.to_string()).unwrap();
    // Nobody listens here: the port was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let slices: Api<EndpointSlice> = Api::default_namespaced(client);
    slices
        .create(&PostParams::default(), &own_slice("s", free))
        .await
        .unwrap();
    let at = cluster.service_address("default", "s", 8080).unwrap();
    let mut s = eventually("connected", async || TcpStream::connect(at).await.ok()).await;
    let _ = s.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let e = s.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    cluster.shutdown().await;
}

/// Whether this is the slice that the cluster's own controller keeps for `web`; `kubernetes` has one too.
fn from_controller(slice: &Value) -> bool {
    let labels = &slice["metadata"]["labels"];
    labels["kubernetes.io/service-name"] == "web"
        && labels["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
}

/// Until new connections reach nobody but the outsider.
async fn only_the_outsider(asked: &AtomicUsize, diverted: &AtomicUsize) {
    eventually("only the outsider is asked", async || {
        let (a, d) = (asked.load(Ordering::SeqCst), diverted.load(Ordering::SeqCst));
        // Enough of them that chance is out of the question.
        while asked.load(Ordering::SeqCst) < a + 12 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (a, d) = (
            asked.load(Ordering::SeqCst) - a,
            diverted.load(Ordering::SeqCst) - d,
        );
        (d + 1 >= a).then_some(())
    })
    .await;
}

/// The switch of design.md, both ways, with a new connection at every moment: none may be lost. An old connection stays
/// with its pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diverting_and_restoring_loses_no_connection() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(&web("web", 2, &json!({}))).unwrap();
    cluster
        .wait_for_ready_pods("default", "app=web", 2, SOON)
        .await
        .unwrap();
    let at = cluster.service_address("default", "web", 8080).unwrap();
    eventually("answers", async || get(at, "/").await.ok()).await;
    let (dlx, diverted) = outsider().await;

    let mut old = TcpStream::connect(at).await.unwrap();
    old.write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 512];
    let n = old.read(&mut buffer).await.unwrap();
    assert!(buffer[..n].starts_with(b"HTTP/1.1 101"));

    let stop = Arc::new(AtomicBool::new(false));
    let (asked, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = tokio::spawn({
        let (stop, asked, lost) = (stop.clone(), asked.clone(), lost.clone());
        async move {
            while !stop.load(Ordering::SeqCst) {
                asked.fetch_add(1, Ordering::SeqCst);
                if !matches!(get(at, "/").await, Ok((200, _))) {
                    lost.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let p = PatchParams::default();
    let scale = |n: i32| Patch::Merge(json!({ "spec": { "replicas": n } }));
    for _ in 0..3 {
        let before = diverted.load(Ordering::SeqCst);
        slices
            .create(&PostParams::default(), &own_slice("web", dlx))
            .await
            .unwrap();
        eventually("the outsider is asked", async || {
            (diverted.load(Ordering::SeqCst) > before).then_some(())
        })
        .await;
        let park = json!({ "spec": { "selector": { "app": null, "dormouse.dev/parked": "web" } } });
        services.patch("web", &p, &Patch::Merge(park)).await.unwrap();
        only_the_outsider(&asked, &diverted).await;
        // The connection from before is still with its pod.
        old.write_all(b"x").await.unwrap();
        loop {
            let n = old.read(&mut buffer).await.unwrap();
            if buffer[..n].ends_with(b"x") {
                break;
            }
        }
        let restore = json!({ "spec": { "selector": { "app": "web", "dormouse.dev/parked": null } } });
        services.patch("web", &p, &Patch::Merge(restore)).await.unwrap();
        cluster
            .wait_for("endpointslices.discovery.k8s.io", "default", SOON, |l| {
                l.iter()
                    .any(|s| from_controller(s) && s["endpoints"].as_array().is_some_and(|e| e.len() == 2))
            })
            .await
            .unwrap();
        slices
            .delete("web-dormouse", &DeleteParams::default())
            .await
            .unwrap();
        eventually("the pods are asked", async || {
            let d = diverted.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            (diverted.load(Ordering::SeqCst) == d).then_some(())
        })
        .await;
    }
    // An open connection would keep its pod terminating for as long as the grace period.
    drop(old);
    // And asleep: diverted, then without pods, then back.
    slices
        .create(&PostParams::default(), &own_slice("web", dlx))
        .await
        .unwrap();
    let park = json!({ "spec": { "selector": { "app": null, "dormouse.dev/parked": "web" } } });
    services.patch("web", &p, &Patch::Merge(park)).await.unwrap();
    only_the_outsider(&asked, &diverted).await;
    deployments.patch_scale("web", &p, &scale(0)).await.unwrap();
    cluster
        .wait_for_ready_pods("default", "app=web", 0, SOON)
        .await
        .unwrap();
    let restore = json!({ "spec": { "selector": { "app": "web", "dormouse.dev/parked": null } } });
    services.patch("web", &p, &Patch::Merge(restore)).await.unwrap();
    deployments.patch_scale("web", &p, &scale(1)).await.unwrap();
    cluster
        .wait_for_ready_pods("default", "app=web", 1, SOON)
        .await
        .unwrap();
    cluster
        .wait_for("endpointslices.discovery.k8s.io", "default", SOON, |l| {
            l.iter()
                .any(|s| from_controller(s) && s["endpoints"][0]["conditions"]["ready"] == true)
        })
        .await
        .unwrap();
    slices
        .delete("web-dormouse", &DeleteParams::default())
        .await
        .unwrap();
    eventually("a pod answers", async || {
        get(at, "/").await.ok().filter(|(_, b)| b.contains("\"pod\""))
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    load.await.unwrap();
    let (asked, lost) = (asked.load(Ordering::SeqCst), lost.load(Ordering::SeqCst));
    assert!(asked > 40, "{asked}");
    assert_eq!(lost, 0, "of {asked}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn many_clusters_side_by_side() {
    let mut all = Vec::new();
    for _ in 0..4 {
        let (cluster, _) = start().await;
        cluster.apply_yaml(&web("web", 1, &json!({}))).unwrap();
        all.push(cluster);
    }
    let mut addresses = BTreeSet::new();
    for c in &all {
        let p = c
            .wait_for_ready_pods("default", "app=web", 1, SOON)
            .await
            .unwrap()
            .remove(0);
        assert!(addresses.insert(p["status"]["podIP"].as_str().unwrap().to_owned()) || c.addresses_by_port());
        let at = eventually("served", async || c.service_address("default", "web", 8080)).await;
        let (_, body) = eventually("answers", async || get(at, "/").await.ok()).await;
        assert!(
            body.contains(p["metadata"]["name"].as_str().unwrap()),
            "its own pod: {body}"
        );
    }
    for c in all {
        c.shutdown().await;
    }
}
