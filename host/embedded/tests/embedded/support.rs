//! A cluster, a client and the manifests that the tests share.

use std::net::SocketAddr;
use std::time::Duration;

use dormouse_embedded::{EmbeddedCluster, Options};
pub use dormouse_testing::found as eventually;
use dormouse_testing::traffic::try_get;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

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
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let reply = try_get(address, path).await?;
    Ok((reply.status, reply.body))
}

/// The code and reason of an API error.
pub fn refusal(e: &kube::Error) -> (u16, String) {
    match e {
        kube::Error::Api(s) => (s.code, s.reason.clone()),
        other => panic!("not a Status: {other:?}"),
    }
}
