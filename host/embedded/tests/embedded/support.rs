//! A cluster, a client and the manifests that the tests share.

use std::net::SocketAddr;
use std::time::Duration;

use dormouse_embedded::{EmbeddedCluster, Options};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const SOON: Duration = Duration::from_secs(10);

pub async fn client_of(cluster: &EmbeddedCluster) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

pub async fn start() -> (EmbeddedCluster, Client) {
    start_with(Options::default()).await
}

pub async fn start_with(options: Options) -> (EmbeddedCluster, Client) {
    let cluster = EmbeddedCluster::start(options).await.unwrap();
    let client = client_of(&cluster).await;
    (cluster, client)
}

/// A Deployment and a Service in front of it, port 8080 named `http`.
pub fn web(name: &str, replicas: i32, annotations: &Value) -> String {
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name }, "annotations": annotations },
                "spec": { "containers": [{
                    "name": "web", "image": "embedded/http:1", "ports": [{ "name": "http", "containerPort": 8080 }],
                }] },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "selector": { "app": name },
            "ports": [{ "name": "http", "port": 8080, "targetPort": "http" }],
        },
    });
    format!("{deployment}\n---\n{service}\n")
}

/// One request on a connection of its own: status and body.
pub async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut s = TcpStream::connect(address).await?;
    s.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut text = String::new();
    s.read_to_string(&mut text).await?;
    let code = text
        .split(' ')
        .nth(1)
        .and_then(|c| c.parse().ok())
        .ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((
        code,
        text.split_once("\r\n\r\n")
            .map(|(_, b)| b.to_owned())
            .unwrap_or_default(),
    ))
}

/// Repeats a look until it is satisfied; for what the API does not show, such as listening sockets.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(v) = look().await {
            return v;
        }
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The code and reason of an API error.
pub fn refusal(e: &kube::Error) -> (u16, String) {
    match e {
        kube::Error::Api(s) => (s.code, s.reason.clone()),
        other => panic!("not a Status: {other:?}"),
    }
}
