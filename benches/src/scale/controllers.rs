//! What a cluster does with Deployments and Services: pods that are ready at once, EndpointSlices, statuses. And one small
//! server that answers for all pods.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::api::{self, DEPLOYMENT, POD, SERVICE, SLICE};

/// The port of every pod.
const POD_PORT: u16 = 9376;
/// The hash in the names of ReplicaSets.
const TEMPLATE_HASH: &str = "5d89bdf5c7";
/// Requests that are under way at once.
const CONCURRENCY: usize = 32;
/// Pause after a request that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Name of the Deployment, the Service and the label of a target.
pub fn name(number: u32) -> String {
    format!("t{number:05}")
}

/// And back.
pub fn number(name: &str) -> Option<u32> {
    name.strip_prefix('t')?.get(..5)?.parse().ok()
}

/// The namespace of a target.
pub fn namespace(number: u32, namespaces: u32) -> String {
    format!("scale-{:03}", number % namespaces)
}

/// The address of a target's pod, of those that xtask/src/bench/scale.rs makes local.
fn pod_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + 1 + number)
}

/// A Deployment of usual size. It opts in with a sleep time.
pub fn deployment(number: u32, sleep_after: &str) -> Value {
    let name = name(number);
    let variables: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("the value of setting {n}")}))
        .collect();
    json!({
        "metadata": {
            "name": name,
            "labels": {"app": name, "app.kubernetes.io/managed-by": "Helm", "team": "scale"},
            "annotations": {"dormouse.dev/sleep-after": sleep_after, "deployment.kubernetes.io/revision": "1"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{
                        "name": "web", "image": "registry.example/web:1", "env": variables,
                        "ports": [{"name": "http", "containerPort": POD_PORT}],
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                    }],
                },
            },
        },
    })
}

/// Its Service.
pub fn service(number: u32) -> Value {
    let name = name(number);
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": POD_PORT}]},
    })
}

/// What is wanted of a target, and what was done.
#[derive(Clone, Debug, Default)]
struct Target {
    wanted: Wanted,
    done: Done,
    /// Somebody works on it.
    busy: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    /// Replicas and generation of the Deployment.
    replicas: Option<(i64, i64)>,
    /// Selector and labels of the Service.
    service: Option<(BTreeMap<String, String>, BTreeMap<String, String>)>,
}

#[derive(Clone, Debug, Default)]
struct Done {
    /// Pods so far; the last one is the one that may be there.
    pods: u32,
    /// Uid of the pod.
    pod: Option<String>,
    /// The pod that the slice lists, and the labels of the slice.
    slice: Option<(Option<String>, BTreeMap<String, String>)>,
    status: Option<(i64, i64)>,
}

/// Plays the controllers, until it is dropped.
pub struct Controllers {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

struct Inner {
    client: Client,
    namespaces: u32,
    targets: Mutex<Vec<Target>>,
    places: Semaphore,
}

impl Controllers {
    /// Begins, for so many targets.
    pub async fn play(client: &Client, targets: u32, namespaces: u32) -> anyhow::Result<Self> {
        let inner = Arc::new(Inner {
            client: client.clone(),
            namespaces,
            targets: Mutex::new(vec![Target::default(); targets as usize]),
            places: Semaphore::new(CONCURRENCY),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(TcpListener::bind((Ipv4Addr::UNSPECIFIED, POD_PORT)).await?));
        let (deployments, services) = (Arc::clone(&inner), Arc::clone(&inner));
        tasks.spawn(follow(DEPLOYMENT, client.clone(), move |number, object| {
            let replicas = object.data["spec"]["replicas"].as_i64().unwrap_or(0);
            let generation = object.metadata.generation.unwrap_or(0);
            deployments.want(number, |wanted| wanted.replicas = Some((replicas, generation)));
        }));
        tasks.spawn(follow(SERVICE, client.clone(), move |number, object| {
            let selector =
                serde_json::from_value(object.data["spec"]["selector"].clone()).unwrap_or_default();
            let labels = object.labels().clone();
            services.want(number, |wanted| wanted.service = Some((selector, labels)));
        }));
        Ok(Self { inner, _tasks: tasks })
    }

    /// How many pods are listed by their Services.
    pub fn listed(&self) -> usize {
        let targets = self.inner.all();
        let listed = |target: &&Target| matches!(target.done.slice, Some((Some(_), _)));
        targets.iter().filter(listed).count()
    }
}

impl Inner {
    fn all(&self) -> MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(self: &Arc<Self>, number: u32, change: impl FnOnce(&mut Wanted)) {
        let mut targets = self.all();
        let Some(target) = targets.get_mut(number as usize) else {
            return;
        };
        change(&mut target.wanted);
        if !std::mem::replace(&mut target.busy, true) {
            tokio::spawn(Arc::clone(self).work(number));
        }
    }

    /// Does what is wanted until nothing is left to do.
    async fn work(self: Arc<Self>, number: u32) {
        loop {
            let (wanted, mut done) = match self.all().get(number as usize) {
                Some(target) => (target.wanted.clone(), target.done.clone()),
                None => return,
            };
            let worked = {
                let _place = self.places.acquire().await;
                self.step(number, &wanted, &mut done).await
            };
            if let Err(error) = &worked {
                eprintln!("target {number}: {error}; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            let mut targets = self.all();
            let Some(target) = targets.get_mut(number as usize) else {
                return;
            };
            target.done = done;
            if worked.is_ok() && target.wanted == wanted {
                target.busy = false;
                return;
            }
        }
    }

    async fn step(&self, number: u32, wanted: &Wanted, done: &mut Done) -> kube::Result<()> {
        let namespace = namespace(number, self.namespaces);
        let Some((replicas, generation)) = wanted.replicas else {
            return Ok(());
        };
        let pods = POD.of(&self.client, &namespace);
        if replicas == 0 && done.pod.is_some() {
            let pod = pod_name(number, done.pods);
            // Out of the slice first, as for any pod that is about to end.
            self.list(number, &namespace, wanted, None, done).await?;
            pods.delete(&pod, &DeleteParams::default().grace_period(0))
                .await?;
            done.pod = None;
        }
        if replicas > 0 && done.pod.is_none() {
            done.pods += 1;
            let pod = pod(number, done.pods);
            let created: DynamicObject = serde_json::from_value(pod).map_err(kube::Error::SerdeError)?;
            let created = pods.create(&PostParams::default(), &created).await?;
            let address = pod_address(number).to_string();
            let status = json!({
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
            });
            api::patch_status(
                &self.client,
                POD,
                &namespace,
                &pod_name(number, done.pods),
                status,
            )
            .await?;
            done.pod = created.uid();
        }
        let pod = done.pod.clone();
        self.list(number, &namespace, wanted, pod, done).await?;
        if done.status != Some((replicas, generation)) {
            let status = json!({
                "observedGeneration": generation,
                "replicas": replicas,
                "readyReplicas": replicas,
                "availableReplicas": replicas,
                "updatedReplicas": replicas,
                "conditions": [{
                    "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable",
                    "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            });
            api::patch_status(&self.client, DEPLOYMENT, &namespace, &name(number), status).await?;
            done.status = Some((replicas, generation));
        }
        Ok(())
    }

    /// Writes the Service's own slice, if it is another one than before.
    async fn list(
        &self,
        number: u32,
        namespace: &str,
        wanted: &Wanted,
        pod: Option<String>,
        done: &mut Done,
    ) -> kube::Result<()> {
        let Some((selector, labels)) = &wanted.service else {
            return Ok(());
        };
        let name = name(number);
        let selects = selector.iter().all(|(key, value)| key == "app" && *value == name);
        let listed = (pod.filter(|_| selects), labels.clone());
        if done.slice.as_ref() == Some(&listed) {
            return Ok(());
        }
        let own = format!("{name}-own");
        let endpoints: Vec<Value> = listed
            .0
            .iter()
            .map(|uid| {
                json!({
                    "addresses": [pod_address(number).to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": "node-1",
                    "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod_name(number, done.pods), "uid": uid},
                })
            })
            .collect();
        // Labels of a Service are those of its slices too; Dormouse tells by them which version of the Service a slice is of.
        let mut all = labels.clone();
        all.insert("kubernetes.io/service-name".to_owned(), name);
        all.insert(
            "endpointslice.kubernetes.io/managed-by".to_owned(),
            "endpointslice-controller.k8s.io".to_owned(),
        );
        let slice = json!({
            "metadata": {"name": own, "labels": all},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": POD_PORT, "protocol": "TCP"}],
        });
        if done.slice.is_none() {
            api::create(&self.client, SLICE, namespace, slice).await?;
        } else {
            let slice: DynamicObject = serde_json::from_value(slice).map_err(kube::Error::SerdeError)?;
            SLICE
                .of(&self.client, namespace)
                .replace(&own, &PostParams::default(), &slice)
                .await?;
        }
        done.slice = Some(listed);
        Ok(())
    }
}

fn pod_name(number: u32, pods: u32) -> String {
    format!("{}-{pods}", name(number))
}

fn pod(number: u32, pods: u32) -> Value {
    let template = deployment(number, "")["spec"]["template"].clone();
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!("node-1");
    spec["automountServiceAccountToken"] = json!(false);
    let mut labels = template["metadata"]["labels"].clone();
    labels["pod-template-hash"] = json!(TEMPLATE_HASH);
    // Whose it is, is told by the ReplicaSet's name; nobody looks for the ReplicaSet itself.
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{}-{TEMPLATE_HASH}", name(number)),
        "uid": "00000000-0000-0000-0000-000000000001", "controller": true,
    });
    json!({
        "metadata": {"name": pod_name(number, pods), "labels": labels, "ownerReferences": [owner]},
        "spec": spec,
    })
}

/// Follows the objects of a kind that are a target's.
async fn follow(kind: api::Kind, client: Client, seen: impl Fn(u32, &DynamicObject) + Send) {
    let stream = watch(kind.all(&client), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = event
            && let Some(number) = number(&object.name_any())
        {
            seen(number, &object);
        }
    }
}

/// Answers every request at every pod's address.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let answer = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"awake\n"))))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_number() {
        for target in [0, 7, 59_999] {
            assert_eq!(number(&name(target)), Some(target));
            assert_eq!(number(&pod_name(target, 3)), Some(target));
        }
        assert_eq!(number("dormouse-dlx"), None);
        assert_eq!(pod_address(256), Ipv4Addr::new(10, 244, 1, 1));
    }
}
