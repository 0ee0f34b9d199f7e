use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dormouse_embedded::{Addressing, Options, OutputLine};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, from_value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{SOON, get, start, start_with, web};

async fn pod(client: &Client, name: &str, annotations: &Value, spec: &Value) {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let pod: Pod = from_value(json!({
        "metadata": { "name": name, "labels": { "app": name }, "annotations": annotations }, "spec": spec,
    }))
    .unwrap();
    api.create(&PostParams::default(), &pod).await.unwrap();
}

fn http_spec() -> Value {
    json!({ "containers": [{ "name": "web", "image": "embedded/http:1", "ports": [{ "containerPort": 8080 }] }] })
}

fn address(pod: &Value) -> std::net::SocketAddr {
    let port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        .as_u64()
        .unwrap();
    format!("{}:{port}", pod["status"]["podIP"].as_str().unwrap())
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_pod_answers_on_its_own_address() {
    let (cluster, client) = start().await;
    pod(&client, "a", &json!({}), &http_spec()).await;
    let p = cluster
        .wait_for_ready_pods("default", "app=a", 1, SOON)
        .await
        .unwrap()
        .remove(0);
    let (code, body) = get(address(&p), "/some/path?q=1").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (code, body["pod"].as_str(), body["count"].as_u64()),
        (200, Some("a"), Some(1))
    );
    assert_eq!(get(address(&p), "/status/418").await.unwrap().0, 418);
    assert_eq!(
        cluster
            .pod_requests()
            .iter()
            .map(|r| r.path.as_str())
            .collect::<Vec<_>>(),
        ["/some/path?q=1", "/status/418"]
    );

    let mut s = TcpStream::connect(address(&p)).await.unwrap();
    s.write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .unwrap();
    let mut head = vec![0; 12];
    s.read_exact(&mut head).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 101");
    let mut text = Vec::new();
    s.write_all(b"hello").await.unwrap();
    while !text.ends_with(b"hello") {
        let b = s.read_u8().await.unwrap();
        text.push(b);
    }
    cluster.shutdown().await;
    assert!(TcpStream::connect(address(&p)).await.is_err(), "nobody is left");
}

#[tokio::test]
async fn start_delay_and_probe_come_before_ready() {
    let (cluster, client) = start().await;
    let mut spec = http_spec();
    spec["containers"][0]["readinessProbe"] = json!({ "httpGet": { "path": "/healthz", "port": 8080 } });
    let begun = std::time::Instant::now();
    let annotations =
        json!({ "embedded.dormouse.dev/start-delay": "150ms", "embedded.dormouse.dev/probe-period": "10ms" });
    pod(&client, "slow", &annotations, &spec).await;
    cluster
        .wait_for_ready_pods("default", "app=slow", 1, SOON)
        .await
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150));
    spec["containers"][0]["readinessProbe"] = json!({ "httpGet": { "path": "/status/503", "port": 8080 } });
    pod(
        &client,
        "sick",
        &json!({ "embedded.dormouse.dev/probe-period": "10ms" }),
        &spec,
    )
    .await;
    cluster
        .wait_for("pods", "default", SOON, |l| {
            l.iter()
                .any(|p| p["metadata"]["name"] == "sick" && p["status"]["phase"] == "Running")
        })
        .await
        .unwrap();
    crate::support::eventually("three probes failed", async || {
        (cluster
            .pod_requests()
            .iter()
            .filter(|r| r.path == "/status/503")
            .count()
            >= 3)
            .then_some(())
    })
    .await;
    let sick = cluster.get("pods", "default", "sick").unwrap();
    assert_eq!(sick["status"]["containerStatuses"][0]["ready"], false);
    cluster.shutdown().await;
}

#[tokio::test]
async fn pods_crash_refuse_and_find_no_room() {
    let (cluster, client) = start().await;
    pod(
        &client,
        "crash",
        &json!({ "embedded.dormouse.dev/crash-after": "1ms" }),
        &http_spec(),
    )
    .await;
    pod(
        &client,
        "full",
        &json!({ "embedded.dormouse.dev/unschedulable": "true" }),
        &http_spec(),
    )
    .await;
    pod(
        &client,
        "refuse",
        &json!({ "embedded.dormouse.dev/refuse-for": "300ms" }),
        &http_spec(),
    )
    .await;
    let ready = cluster
        .wait_for_ready_pods("default", "app=refuse", 1, SOON)
        .await
        .unwrap();
    let refused = TcpStream::connect(address(&ready[0])).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    crate::support::eventually("it accepts", async || {
        TcpStream::connect(address(&ready[0])).await.ok()
    })
    .await;
    let find = |l: &[Value], n: &str| {
        l.iter()
            .find(|p| p["metadata"]["name"] == n)
            .cloned()
            .unwrap_or_default()
    };
    cluster
        .wait_for("pods", "default", SOON, |l| {
            let s = &find(l, "crash")["status"]["containerStatuses"][0];
            s["restartCount"].as_i64() >= Some(1) && s["lastState"]["terminated"]["exitCode"] == 1
        })
        .await
        .unwrap();
    let full = cluster.get("pods", "default", "full").unwrap();
    assert_eq!(full["status"]["phase"], "Pending");
    assert_eq!(full["status"]["conditions"][0]["reason"], "Unschedulable");
    assert!(full["spec"].get("nodeName").is_none());
    cluster.shutdown().await;
}

#[tokio::test]
async fn termination_is_graceful_and_bounded() {
    let (cluster, client) = start().await;
    pod(&client, "a", &json!({}), &http_spec()).await;
    let p = cluster
        .wait_for_ready_pods("default", "app=a", 1, SOON)
        .await
        .unwrap()
        .remove(0);
    let at = address(&p);
    let slow = tokio::spawn(async move { get(at, "/slow?ms=300").await });
    crate::support::eventually("the request has begun", async || {
        (!cluster.pod_requests().is_empty()).then_some(())
    })
    .await;
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    api.delete("a", &DeleteParams::default()).await.unwrap();
    crate::support::eventually("it stops accepting", async || TcpStream::connect(at).await.err()).await;
    let terminating = cluster.get("pods", "default", "a").unwrap();
    assert!(
        terminating["metadata"].get("deletionTimestamp").is_some(),
        "still there while a request is answered"
    );
    assert_eq!(slow.await.unwrap().unwrap().0, 200);
    cluster
        .wait_for("pods", "default", SOON, <[Value]>::is_empty)
        .await
        .unwrap();

    let mut spec = http_spec();
    spec["terminationGracePeriodSeconds"] = json!(1);
    pod(
        &client,
        "b",
        &json!({ "embedded.dormouse.dev/ignore-termination": "true" }),
        &spec,
    )
    .await;
    let p = cluster
        .wait_for_ready_pods("default", "app=b", 1, SOON)
        .await
        .unwrap()
        .remove(0);
    let begun = std::time::Instant::now();
    api.delete("b", &DeleteParams::default()).await.unwrap();
    get(address(&p), "/").await.unwrap();
    cluster
        .wait_for("pods", "default", SOON, <[Value]>::is_empty)
        .await
        .unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_command_is_a_process_of_its_own() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let options = Options {
        output: Some(Arc::new(move |l: &OutputLine| {
            sink.lock().unwrap().push(l.text.clone())
        })),
        ..Options::default()
    };
    let (cluster, client) = start_with(options).await;
    let spec = json!({ "terminationGracePeriodSeconds": 5, "containers": [{
        "name": "main", "image": "none",
        "command": ["/bin/sh", "-c"],
        "args": ["echo \"$POD in $NS at $IP says $(WORD)\"; trap 'echo bye; exit 0' TERM; sleep 600 & echo child $!; wait"],
        "env": [
            { "name": "WORD", "value": "hi" },
            { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "NS", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        ],
    }] });
    pod(&client, "proc", &json!({}), &spec).await;
    let p = cluster
        .wait_for_ready_pods("default", "app=proc", 1, SOON)
        .await
        .unwrap()
        .remove(0);
    let has = async |text: String| {
        crate::support::eventually(&text, async || {
            lines
                .lock()
                .unwrap()
                .iter()
                .find(|l| l.starts_with(&text))
                .cloned()
        })
        .await
    };
    has(format!(
        "proc in default at {} says hi",
        p["status"]["podIP"].as_str().unwrap()
    ))
    .await;
    let child = has("child ".into()).await;
    let child: i32 = child.split(' ').nth(1).unwrap().parse().unwrap();
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    assert!(
        api.logs("proc", &LogParams::default())
            .await
            .unwrap()
            .contains("says hi")
    );
    api.delete("proc", &DeleteParams::default()).await.unwrap();
    has("bye".into()).await;
    cluster
        .wait_for("pods", "default", SOON, <[Value]>::is_empty)
        .await
        .unwrap();
    crate::support::eventually("the grandchild is gone", async || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;

    let fails = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none", "command": ["/bin/sh", "-c", "exit 3"] }] });
    pod(&client, "fails", &json!({}), &fails).await;
    let failed = cluster
        .wait_for("pods", "default", SOON, |l| {
            l.iter().any(|p| p["status"]["phase"] == "Failed")
        })
        .await
        .unwrap();
    assert_eq!(
        failed[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        3
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn shutdown_leaves_no_process() {
    let (cluster, client) = start().await;
    let spec = json!({ "containers": [{ "name": "main", "image": "none", "command": ["/bin/sh", "-c", "trap '' TERM; echo $$$$; sleep 600"] }] });
    pod(&client, "stubborn", &json!({}), &spec).await;
    let api: Api<Pod> = Api::default_namespaced(client);
    let pid = crate::support::eventually("the process says its id", async || {
        let log = api.logs("stubborn", &LogParams::default()).await.ok()?;
        log.lines().next().and_then(|l| l.parse::<i32>().ok())
    })
    .await;
    cluster.shutdown().await;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty(), "{stat}");
}

/// What macOS gets: one address, told apart by port.
#[tokio::test]
async fn everything_works_on_one_address() {
    let (cluster, _client) = start_with(Options {
        addressing: Addressing::Ports,
        ..Options::default()
    })
    .await;
    assert!(cluster.addresses_by_port());
    cluster.apply_yaml(&web("one", 2, &json!({}))).unwrap();
    cluster.apply_yaml(&web("two", 1, &json!({}))).unwrap();
    let pods = cluster
        .wait_for_ready_pods("default", "app=one", 2, SOON)
        .await
        .unwrap();
    assert_ne!(address(&pods[0]), address(&pods[1]));
    for p in &pods {
        let (_, body) = get(address(p), "/").await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["pod"], p["metadata"]["name"]);
    }
    for service in ["one", "two"] {
        let body = crate::support::eventually(service, async || {
            let at = cluster.service_address("default", service, 8080)?;
            get(at, "/").await.ok()
        })
        .await;
        assert!(body.1.contains(&format!("\"pod\":\"{service}-")), "{body:?}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn pods_speak_http2_without_tls() {
    let (cluster, client) = start().await;
    pod(&client, "a", &json!({}), &http_spec()).await;
    let p = cluster
        .wait_for_ready_pods("default", "app=a", 1, SOON)
        .await
        .unwrap()
        .remove(0);
    let io = TokioIo::new(TcpStream::connect(address(&p)).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://somewhere/trailers")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-trailer"], "yes");
    drop(sender);
    connection.await.unwrap().unwrap();
    cluster.shutdown().await;
}
