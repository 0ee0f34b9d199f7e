//! The handle of a running cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::addresses::Addresses;
use crate::annotations::ACTUAL_PORT;
use crate::controllers::{self, deployment, garbage, replicaset, slices, statefulset};
use crate::core::{Core, PodRequest};
use crate::error::{ApiError, Error};
use crate::faults::{ApiRequest, Fault};
use crate::metrics::CustomMetric;
use crate::options::Options;
use crate::pods::runner::NODE;
use crate::store::{Part, Store, Write};
use crate::value::{annotation, is_ready, list_at, name_of, now, str_at};
use crate::{forward, http, pods};

/// The field manager of [`EmbeddedCluster::apply_yaml`].
const MANAGER: &str = "embedded-apply";
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A running cluster. Dropping it ends it; [`shutdown`](EmbeddedCluster::shutdown) also waits until it has ended.
#[derive(Debug)]
pub struct EmbeddedCluster {
    core: Arc<Core>,
    address: SocketAddr,
}

impl EmbeddedCluster {
    /// Starts a cluster on the current tokio runtime.
    pub async fn start(options: Options) -> Result<Self, Error> {
        if !options.bind.ip().is_loopback() {
            return Err(Error::NotLoopback(options.bind.ip()));
        }
        let addresses = Arc::new(Addresses::claim(options.addressing)?);
        let listen = |source| Error::Listen {
            address: options.bind.to_string(),
            source,
        };
        let listener = TcpListener::bind(options.bind).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let store = Arc::new(Store::new(options.watch_history, addresses));
        furnish(&store, address)?;
        let core = Arc::new(Core::new(store, options));
        let t = &core.tasks;
        t.spawn(controllers::run(core.clone(), garbage::Garbage));
        t.spawn(controllers::run(core.clone(), deployment::Deployments));
        t.spawn(controllers::run(core.clone(), replicaset::ReplicaSets));
        t.spawn(controllers::run(core.clone(), statefulset::StatefulSets));
        t.spawn(controllers::run(core.clone(), slices::Slices));
        t.spawn(forward::run(core.clone()));
        t.spawn(pods::run(core.clone()));
        t.spawn(http::serve(core.clone(), listener));
        Ok(EmbeddedCluster { core, address })
    }

    /// `http://127.0.0.1:PORT`, the server in the kubeconfig.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig as YAML, for any Kubernetes client.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: embedded\n  cluster:\n    server: {}\nusers:\n- name: embedded\n  user: {{}}\ncontexts:\n- name: embedded\n  context:\n    cluster: embedded\n    user: embedded\n    namespace: default\ncurrent-context: embedded\n",
            self.url()
        )
    }

    /// Writes [`kubeconfig`](Self::kubeconfig) to a file.
    pub fn write_kubeconfig(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        std::fs::write(path, self.kubeconfig()).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Applies every document of a manifest, as `kubectl apply --server-side --force-conflicts` does. Objects without a
    /// namespace go to `default`; a namespace that does not exist is an error, so put it first.
    pub fn apply_yaml(&self, text: &str) -> Result<Vec<Value>, Error> {
        let mut out = Vec::new();
        for (i, doc) in serde_yaml::Deserializer::from_str(text).enumerate() {
            let document = i + 1;
            let v = Value::deserialize(doc).map_err(|e| Error::Manifest {
                document,
                message: e.to_string(),
            })?;
            if v.is_null() {
                continue;
            }
            out.push(self.apply(&v, document)?);
        }
        Ok(out)
    }

    fn apply(&self, v: &Value, document: usize) -> Result<Value, Error> {
        let wrong = |message: String| Error::Manifest { document, message };
        let store = &self.core.store;
        let (rt, version) = store
            .kind_of(v)
            .ok_or_else(|| wrong(format!("no such kind: {} {}", v["apiVersion"], v["kind"])))?;
        if name_of(v).is_empty() {
            return Err(wrong("metadata.name is missing".into()));
        }
        let ns = match str_at(v, "metadata.namespace") {
            _ if !rt.namespaced => "",
            Some(ns) => ns,
            None => "default",
        };
        let w = Write::of(Part::Main, &version);
        let (object, _) = store.apply(&rt, ns, name_of(v), v, MANAGER, &w)?;
        Ok((*object).clone())
    }

    /// An object by table (`pods`, `deployments.apps`), namespace (empty for cluster-scoped kinds) and name.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.core
            .store
            .get(resource, namespace, name)
            .map(|o| (*o).clone())
    }

    /// The objects of a table in a namespace, or in all when it is empty.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.core
            .store
            .all(resource, namespace)
            .iter()
            .map(|o| (**o).clone())
            .collect()
    }

    /// Waits until `done` is true for the objects of a table in a namespace. It looks after every change.
    pub async fn wait_for(
        &self,
        resource: &str,
        namespace: &str,
        within: Duration,
        mut done: impl FnMut(&[Value]) -> bool,
    ) -> Result<Vec<Value>, Error> {
        let lost = || Error::Api {
            code: 404,
            reason: "NotFound".into(),
            message: format!("the server doesn't have a resource type \"{resource}\""),
        };
        let mut signal = self.core.store.signal(resource).ok_or_else(lost)?;
        let wait = async {
            loop {
                signal.borrow_and_update();
                let objects = self.list(resource, namespace);
                if done(&objects) {
                    return Ok(objects);
                }
                if signal.changed().await.is_err() {
                    return Err(lost());
                }
            }
        };
        timeout(within, wait)
            .await
            .map_err(|_| Error::Timeout(format!("{resource} in namespace \"{namespace}\"")))?
    }

    /// Waits until exactly `n` pods with all of `labels` (`app=web,tier=front`) exist and are ready.
    pub async fn wait_for_ready_pods(
        &self,
        namespace: &str,
        labels: &str,
        n: usize,
        within: Duration,
    ) -> Result<Vec<Value>, Error> {
        let selector = crate::selector::LabelSelector::parse(labels)?;
        let mine =
            |pods: &[Value]| -> Vec<Value> { pods.iter().filter(|p| selector.matches(p)).cloned().collect() };
        let all = self
            .wait_for("pods", namespace, within, |pods| {
                let mine = mine(pods);
                mine.len() == n && mine.iter().all(|p| is_ready(p) && !crate::value::is_deleting(p))
            })
            .await?;
        Ok(mine(&all))
    }

    /// Where a port of a Service really listens: the ClusterIP and port, or what stands in for them.
    pub fn service_address(&self, namespace: &str, name: &str, port: u16) -> Option<SocketAddr> {
        let svc = self.core.store.get("services", namespace, name)?;
        let ip = str_at(&svc, "spec.clusterIP")?.parse().ok()?;
        let known = list_at(&svc, "spec.ports")
            .iter()
            .any(|p| p.get("port").and_then(Value::as_u64) == Some(port.into()));
        let moved = annotation(&svc, &format!("{ACTUAL_PORT}{port}")).and_then(|p| p.parse().ok());
        known.then(|| SocketAddr::new(ip, moved.unwrap_or(port)))
    }

    /// Whether pods and Services share 127.0.0.1 and are told apart by port.
    pub fn addresses_by_port(&self) -> bool {
        self.core.store.addresses.by_port()
    }

    /// Sets or removes a value of the custom metrics API.
    pub fn set_custom_metric(&self, metric: CustomMetric) {
        self.core.metrics.set(&self.core.store, metric);
    }

    /// Disturbs API requests. The first fault that matches a request counts.
    pub fn inject(&self, fault: Fault) {
        self.core.faults.add(fault);
    }

    /// Ends the faults that name this very object.
    pub fn clear_faults_of(&self, namespace: &str, name: &str) {
        self.core.faults.clear_of(namespace, name);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }

    /// The API requests so far, oldest first; only the last 20,000 are kept. A watch is logged when it begins.
    pub fn api_requests(&self) -> Vec<ApiRequest> {
        self.core.faults.log()
    }

    /// The requests that in-process pods answered, oldest first; only the last 50,000 are kept.
    pub fn pod_requests(&self) -> Vec<PodRequest> {
        self.core.pod_requests()
    }

    /// Forgets the history of all kinds, as etcd's compaction does: a watch from an older version gets `410 Gone`.
    pub fn compact(&self) {
        self.core.store.compact();
    }

    /// Ends everything: pods and their processes, forwarders, watches, the API server. Waits until they have ended.
    pub async fn shutdown(&self) {
        self.core.shutdown.cancel();
        self.core.tasks.close();
        if timeout(SHUTDOWN, self.core.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.core.tasks.len(),
                "tasks of the embedded cluster did not end in time"
            );
        }
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        self.core.shutdown.cancel();
    }
}

/// What every cluster has from the beginning.
fn furnish(store: &Store, address: SocketAddr) -> Result<(), ApiError> {
    let create = |table: &str, ns: &str, v: Value| store.add(table, ns, v).map(|_| ());
    for ns in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create("namespaces", "", json!({ "metadata": { "name": ns } }))?;
    }
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
        "lastHeartbeatTime": now(), "lastTransitionTime": now(),
    });
    create(
        "nodes",
        "",
        json!({
            "metadata": { "name": NODE, "labels": { "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux" } },
            "spec": {},
            "status": {
                "conditions": [ready],
                "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }, { "type": "Hostname", "address": NODE }],
                "capacity": { "cpu": "8", "memory": "16Gi", "pods": "4000" },
                "allocatable": { "cpu": "8", "memory": "16Gi", "pods": "4000" },
            },
        }),
    )?;
    let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
    create(
        "services",
        "default",
        json!({
            "metadata": { "name": "kubernetes", "labels": labels },
            "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": address.port() }] },
        }),
    )?;
    create(
        slices::TABLE,
        "default",
        json!({
            "metadata": { "name": "kubernetes", "labels": { slices::SERVICE_NAME: "kubernetes" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }],
            "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
        }),
    )
}
