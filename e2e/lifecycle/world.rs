//! What the cases talk to: a cluster with Dormouse on it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use dormouse::local::{self, SYSTEM_NAMESPACE};
use dormouse_lifecycle::{DesiredState, SleeperState};
use dormouse_model::Phase;
use dormouse_sleepers::api::Sleeper;
use dormouse_sleepers::{Cluster, DesiredStateError, Requested, SleeperKey};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde::Deserialize;

use crate::installation::Installation;

/// The Deployment of the autoscaler.
pub const AUTOSCALER: &str = "dormouse-autoscaler";

/// Long enough for anything that should happen at all.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// The bundled plugin.
pub const PLUGIN: &str = "workloads";

/// A cluster with Dormouse on it.
pub struct World {
    installation: Installation,
    pub client: kube::Client,
    /// The cases' own view, for steps that a dying process would have taken.
    pub cluster: Cluster,
}

/// How a case wants its workload.
pub struct Wanted<'a> {
    pub sleep_after: &'a str,
    pub replicas: i32,
    pub annotations: &'a [(&'a str, &'a str)],
    pub pod_annotations: &'a [(&'a str, &'a str)],
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            sleep_after: "1s",
            replicas: 1,
            annotations: &[],
            pod_annotations: &[("embedded.dormouse.dev/start-delay", "150ms")],
        }
    }
}

impl Wanted<'_> {
    /// One that sleeps when the case says so, and never by itself.
    pub fn never() -> Self {
        Self {
            sleep_after: NEVER,
            ..Self::default()
        }
    }
}

/// Far more than any case takes.
pub const NEVER: &str = "10h";
/// A rule without data: nothing but the case itself puts such a workload to sleep, or looks at its traffic.
const NEVER_RULES: (&str, &str) = (
    "dormouse.dev/rules",
    r#"[{"metric":"never","window":"10h","threshold":"0"}]"#,
);

impl World {
    pub async fn start() -> Result<Self> {
        let installation = Installation::start().await?;
        let client = installation.client().await?;
        let config = dormouse_sleepers::Config {
            scope: dormouse_kubernetes::Scope::All,
            dlx_service: Some((SYSTEM_NAMESPACE.to_owned(), "dormouse-dlx".to_owned())),
            timings: dormouse_lifecycle::Timings {
                drain_grace: installation.drain_grace(),
                ..dormouse_lifecycle::Timings::default()
            },
            ..dormouse_sleepers::Config::default()
        };
        let cluster = Cluster::connect(client.clone(), config).await?;
        Ok(Self {
            installation,
            client,
            cluster,
        })
    }

    pub fn keep_logs(&self) {
        self.installation.keep_logs();
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    pub async fn stop(self) {
        self.cluster.shutdown();
        self.installation.stop().await;
    }

    /// Applies every document of a YAML text.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let object = serde_json::Value::deserialize(document)?;
            if !object.is_null() {
                self.cluster
                    .objects()
                    .apply(&object, "dormouse-suite", true)
                    .await?;
            }
        }
        Ok(())
    }

    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n"
        ))
        .await
    }

    /// A workload with its Service, ready, and known to Dormouse.
    pub async fn deploy(&self, namespace: &str, name: &str, wanted: Wanted<'_>) -> Result<()> {
        self.namespace(namespace).await?;
        let mut annotations = vec![("dormouse.dev/sleep-after", wanted.sleep_after)];
        if wanted.sleep_after == NEVER {
            annotations.push(NEVER_RULES);
        }
        annotations.extend_from_slice(wanted.annotations);
        self.apply(&manifests(namespace, name, &annotations, wanted.pod_annotations).join("\n---\n"))
            .await?;
        if wanted.replicas != 1 {
            self.scale(namespace, name, wanted.replicas).await?;
        }
        self.until(
            &format!("{namespace}/{name} to have {} ready pods", wanted.replicas),
            async || {
                let deployment = self.deployment(namespace, name).await?;
                let ready = deployment
                    .status
                    .and_then(|status| status.ready_replicas)
                    .unwrap_or(0);
                Ok((ready == wanted.replicas).then_some(()))
            },
        )
        .await?;
        if wanted.replicas == 0 {
            return Ok(());
        }
        // Ready pods are in the Service some moments before the node's proxy leads there.
        self.until_connected(PATIENCE, namespace, name).await
    }

    /// Waits until the node leads from the Service to somebody who accepts connections.
    pub async fn until_connected(&self, patience: Duration, namespace: &str, name: &str) -> Result<()> {
        let address = self.address(namespace, name).await?;
        self.until_within(patience, &format!("{address} to lead to somebody"), async || {
            // A packet that comes before the node's rules gets no answer, nor do those that repeat it.
            let attempt = tokio::net::TcpStream::connect(&address);
            let connected = tokio::time::timeout(Duration::from_secs(1), attempt).await;
            Ok(connected.ok().and_then(Result::ok).map(|_| ()))
        })
        .await
    }

    /// Deploys, and waits for the Sleeper.
    pub async fn deploy_known(&self, namespace: &str, name: &str, wanted: Wanted<'_>) -> Result<()> {
        self.deploy(namespace, name, wanted).await?;
        self.until("a Sleeper", async || Ok(self.sleeper(namespace, name).await?))
            .await?;
        Ok(())
    }

    pub async fn scale(&self, namespace: &str, name: &str, replicas: i32) -> Result<()> {
        let patch = Patch::Merge(serde_json::json!({ "spec": { "replicas": replicas } }));
        Api::<Deployment>::namespaced(self.client.clone(), namespace)
            .patch_scale(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    pub async fn deployment(&self, namespace: &str, name: &str) -> Result<Deployment> {
        Ok(Api::<Deployment>::namespaced(self.client.clone(), namespace)
            .get(name)
            .await?)
    }

    pub async fn replicas(&self, namespace: &str, name: &str) -> Result<i32> {
        Ok(self.deployment(namespace, name).await?.spec.replicas.unwrap_or(1))
    }

    pub async fn service(&self, namespace: &str, name: &str) -> Result<Service> {
        Ok(Api::<Service>::namespaced(self.client.clone(), namespace)
            .get(name)
            .await?)
    }

    pub async fn slices(&self, namespace: &str, service: &str) -> Result<Vec<EndpointSlice>> {
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        Ok(Api::<EndpointSlice>::namespaced(self.client.clone(), namespace)
            .list(&of_service)
            .await?
            .items)
    }

    pub fn key(&self, namespace: &str, name: &str) -> SleeperKey {
        SleeperKey::of_plugin(PLUGIN, namespace, name)
    }

    pub async fn sleeper(&self, namespace: &str, name: &str) -> Result<Option<Sleeper>> {
        let object = self.key(namespace, name).object_name();
        Ok(Api::<Sleeper>::namespaced(self.client.clone(), namespace)
            .get_opt(&object)
            .await?)
    }

    pub async fn state(&self, namespace: &str, name: &str) -> Result<SleeperState> {
        let sleeper = self
            .sleeper(namespace, name)
            .await?
            .context("there is no Sleeper")?;
        Ok(sleeper.status.map(|status| status.state).unwrap_or_default())
    }

    pub async fn until_phase(&self, namespace: &str, name: &str, phase: Phase) -> Result<SleeperState> {
        self.until_phase_within(PATIENCE, namespace, name, phase).await
    }

    pub async fn until_phase_within(
        &self,
        patience: Duration,
        namespace: &str,
        name: &str,
        phase: Phase,
    ) -> Result<SleeperState> {
        let what = format!("{namespace}/{name} to be {phase:?}");
        self.until_within(patience, &what, async || {
            Ok(self.sleeper(namespace, name).await?.and_then(|sleeper| {
                let state = sleeper.status.map(|status| status.state).unwrap_or_default();
                (state.phase == phase).then_some(state)
            }))
        })
        .await
    }

    /// Asks until there is an answer, for a bounded time. An error is the last that was seen.
    pub async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
        self.until_within(PATIENCE, what, ask).await
    }

    /// The same, where it may take longer.
    pub async fn until_within<T>(
        &self,
        patience: Duration,
        what: &str,
        ask: impl AsyncFn() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut last = anyhow!("not so");
        while Instant::now() < deadline {
            match ask().await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(last.context(format!("waited {} s in vain for {what}", patience.as_secs())))
    }

    /// The message of a condition of its Sleeper that does not hold, once there is one that says so.
    pub async fn complaint(&self, namespace: &str, name: &str, kind: &str, part: &str) -> Result<String> {
        self.complaint_that(namespace, name, kind, |condition| {
            condition.message.contains(part)
        })
        .await
        .with_context(|| format!("waiting for {part:?}"))
    }

    /// The same, of a condition that is as wanted.
    pub async fn complaint_that(
        &self,
        namespace: &str,
        name: &str,
        kind: &str,
        wanted: impl Fn(&Condition) -> bool,
    ) -> Result<String> {
        self.until(
            &format!("{kind} of {namespace}/{name} to tell what is wrong"),
            async || {
                let sleeper = self.sleeper(namespace, name).await?.context("no Sleeper")?;
                let conditions = sleeper.status.map(|status| status.conditions).unwrap_or_default();
                Ok(conditions
                    .into_iter()
                    .filter(|condition| condition.type_ == kind && condition.status == "False")
                    .find(|condition| wanted(condition))
                    .map(|condition| condition.message))
            },
        )
        .await
    }

    /// Posts to each pod of `web` that is not on its way out. The API server leads to it.
    pub async fn post_to_pods(&self, namespace: &str, path: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace)
            .list(&ListParams::default().labels("app=web"))
            .await?;
        let current = pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        for pod in current {
            let name = pod.metadata.name.unwrap_or_default();
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/{path}");
            self.client
                .request_text(http::Request::post(path).body(Vec::new())?)
                .await?;
        }
        Ok(())
    }

    /// The Service's address, for a client.
    pub async fn url(&self, namespace: &str, name: &str) -> Result<String> {
        Ok(format!("http://{}/", self.address(namespace, name).await?))
    }

    /// The address of the Service in the cluster.
    pub async fn cluster_ip(&self, namespace: &str, name: &str) -> Result<String> {
        let spec = self.service(namespace, name).await?.spec;
        spec.and_then(|spec| spec.cluster_ip).context("no cluster IP")
    }

    /// Changes what the patch names of a Service.
    pub async fn edit_service(&self, namespace: &str, name: &str, patch: serde_json::Value) -> Result<()> {
        Api::<Service>::namespaced(self.client.clone(), namespace)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Where the Service listens: its cluster IP and its first port.
    async fn address(&self, namespace: &str, name: &str) -> Result<String> {
        let spec = self.service(namespace, name).await?.spec.context("no spec")?;
        let ip = spec.cluster_ip.context("no cluster IP")?;
        let port = spec
            .ports
            .and_then(|ports| ports.first().map(|port| port.port))
            .context("no port")?;
        Ok(format!("{ip}:{port}"))
    }

    /// Sends it to sleep as a decision of the autoscaler would, and waits until it sleeps.
    pub async fn put_to_sleep(&self, namespace: &str, name: &str) -> Result<()> {
        self.fall_asleep(namespace, name).await?;
        self.until("replicas to be 0", async || {
            Ok((self.replicas(namespace, name).await? == 0).then_some(()))
        })
        .await
    }

    /// The DLX port that stands in for the first port of its Service.
    pub async fn dlx_port(&self, namespace: &str, name: &str) -> Result<u16> {
        let ports = self.state(namespace, name).await?.ports;
        Ok(ports.first().map_or(0, |port| port.dlx_port))
    }

    /// Asks once that it goes to sleep, as a decision of the autoscaler would.
    pub async fn request_sleep(&self, namespace: &str, name: &str) -> Result<Requested, DesiredStateError> {
        let key = self.key(namespace, name);
        self.cluster
            .desired()
            .request_sleep(&key, "the case says so")
            .await
    }

    /// Asks that it goes to sleep until it sleeps: a request that was still on its way may turn a sleep round.
    pub async fn fall_asleep(&self, namespace: &str, name: &str) -> Result<()> {
        self.until(&format!("{namespace}/{name} to be Asleep"), async || {
            let state = self.state(namespace, name).await?;
            if state.phase == Phase::Awake && state.desired == DesiredState::Awake {
                self.request_sleep(namespace, name).await?;
            }
            Ok((state.phase == Phase::Asleep).then_some(()))
        })
        .await
    }

    /// Waits as long as it takes a workload that nobody uses to begin and to fall asleep, in a namespace beside this one. What was to
    /// fall asleep meanwhile had more time than that, however busy the machine is.
    pub async fn until_a_witness_sleeps(&self, beside: &str) -> Result<()> {
        let (ns, name) = (format!("{beside}-witness"), "witness");
        self.deploy_known(&ns, name, Wanted::default()).await?;
        self.until_phase(&ns, name, Phase::Asleep).await?;
        Ok(())
    }

    /// Nothing of Dormouse is left in the Service's way, and its pods are in it.
    pub async fn assert_undiverted(&self, namespace: &str, name: &str) -> Result<()> {
        let service = self.service(namespace, name).await?;
        let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
        if selector.get("app").map(String::as_str) != Some(name) || selector.len() != 1 {
            bail!("the selector is {selector:?}");
        }
        let annotations = service.metadata.annotations.unwrap_or_default();
        if annotations.contains_key(dormouse_sleepers::api::PARKED_SELECTOR) {
            bail!("the Service still carries its parked selector");
        }
        let own = self
            .slices(namespace, name)
            .await?
            .into_iter()
            .any(|slice| managed(&slice));
        if own {
            bail!("Dormouse's slice is still there")
        } else {
            Ok(())
        }
    }

    /// Addresses of the DLX replicas.
    pub async fn dlx_addresses(&self) -> Result<Vec<String>> {
        let pods = self.pods("dormouse-dlx").await?;
        Ok(pods.into_iter().filter_map(|pod| pod.status?.pod_ip).collect())
    }

    /// Running pods of a part of Dormouse.
    pub async fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        let mut pods = self.pods_with_ending(app).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// With those that were told to end and still run.
    async fn pods_with_ending(&self, app: &str) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), SYSTEM_NAMESPACE)
            .list(&ListParams::default().labels(&local::labels_of(app)))
            .await?;
        Ok(pods.items)
    }

    /// Kills a part of Dormouse without a chance to clean up; its Deployment brings a new one.
    pub async fn kill(&self, pod: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        // A kubelet sends SIGTERM first, even without a grace period.
        if self.installation().is_real() {
            let status = pods.get(pod).await?.status.unwrap_or_default();
            for container in status.container_statuses.into_iter().flatten() {
                let runs = container.state.is_some_and(|state| state.running.is_some());
                let id = container.container_id.unwrap_or_default();
                if let Some((_, id)) = id.split_once("://").filter(|_| runs) {
                    self.installation().cluster_command(&["freeze", id]).await?;
                }
            }
        }
        let at_once = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        pods.delete(pod, &at_once).await?;
        Ok(())
    }

    /// Does something while no autoscaler runs, and brings back as many as there were, whatever comes of it.
    pub async fn without_autoscaler<T>(&self, act: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let before = self.replicas(SYSTEM_NAMESPACE, AUTOSCALER).await?;
        self.run_replicas(AUTOSCALER, 0).await?;
        let outcome = Box::pin(act()).await;
        self.run_replicas(AUTOSCALER, before).await?;
        outcome
    }

    /// Scales a part of Dormouse and waits until it is so.
    pub async fn run_replicas(&self, app: &str, replicas: i32) -> Result<()> {
        self.scale(SYSTEM_NAMESPACE, app, replicas).await?;
        self.until(&format!("{replicas} of {app}"), async || {
            let status = self
                .deployment(SYSTEM_NAMESPACE, app)
                .await?
                .status
                .unwrap_or_default();
            // Who wants none of them wants none at work.
            let pods = match replicas {
                0 => self.pods_with_ending(app).await?.len(),
                _ => self.pods(app).await?.len(),
            };
            let ready = status.ready_replicas.unwrap_or(0) == replicas;
            Ok((ready && i32::try_from(pods).is_ok_and(|pods| pods == replicas)).then_some(()))
        })
        .await
    }
}

/// A Service and a Deployment, without the label by which the plugin of the tutorial finds its own.
pub fn manifests(
    namespace: &str,
    name: &str,
    annotations: &[(&str, &str)],
    pod_annotations: &[(&str, &str)],
) -> Vec<String> {
    local::workload(namespace, name, annotations, pod_annotations)
        .replace("\"tier\":\"preview\"", "\"tier\":\"suite\"")
        .split("\n---\n")
        .map(str::to_owned)
        .collect()
}

/// Whether a slice is Dormouse's own.
pub fn managed(slice: &EndpointSlice) -> bool {
    slice
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get("endpointslice.kubernetes.io/managed-by"))
        .is_some_and(|by| by == dormouse_sleepers::api::MANAGED_BY)
}

// Breaking things on purpose, and looking inside.
impl World {
    /// Makes the cluster refuse to scale a Deployment up, and waits until it does.
    pub async fn refuse_scaling(&self, namespace: &str, name: &str) -> Result<()> {
        self.installation
            .refuse_scaling(&self.cluster, namespace, name)
            .await?;
        if !self.installation.is_real() {
            // There it holds from this moment on, for writes only.
            return Ok(());
        }
        self.until("scaling to be refused", async || {
            Ok(self.try_scaling(namespace, name).await?.err())
        })
        .await?;
        Ok(())
    }

    /// Ends the refusal, and waits until it has ended.
    pub async fn allow_scaling(&self, namespace: &str, name: &str) -> Result<()> {
        self.installation
            .allow_scaling(&self.cluster, namespace, name)
            .await?;
        if !self.installation.is_real() {
            return Ok(());
        }
        self.until("scaling to be allowed", async || {
            Ok(self.try_scaling(namespace, name).await?.ok())
        })
        .await
    }

    /// Asks whether a Deployment could be scaled up, without doing it. The outer error is one of asking.
    async fn try_scaling(&self, namespace: &str, name: &str) -> Result<Result<(), String>> {
        let dry_run = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let patch = Patch::Merge(serde_json::json!({ "spec": { "replicas": 1 } }));
        let api = Api::<Deployment>::namespaced(self.client.clone(), namespace);
        match api.patch_scale(name, &dry_run, &patch).await {
            Ok(_) => Ok(Ok(())),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Err(status.message)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets what the custom metrics API says about a function.
    pub async fn set_custom_metric(
        &self,
        namespace: &str,
        name: &str,
        metric: &str,
        value: &str,
    ) -> Result<()> {
        self.installation
            .set_custom_metric(&self.client, namespace, name, metric, value)
            .await
    }

    /// Gives a Deployment that sleeps a readiness probe that fails for ever. Pods of before, which would still answer, are gone then.
    pub async fn never_ready(&self, namespace: &str, name: &str) -> Result<()> {
        let probe = serde_json::json!({
            "httpGet": { "path": "/status/503", "port": 8080 },
            "periodSeconds": 1,
        });
        let patch = serde_json::json!({ "spec": { "template": { "spec": {
            "containers": [{ "name": name, "readinessProbe": probe }],
        } } } });
        Api::<Deployment>::namespaced(self.client.clone(), namespace)
            .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let of_it = ListParams::default().labels(&format!("app={name}"));
        self.until("no pod of before", async || {
            Ok(pods.list(&of_it).await?.items.is_empty().then_some(()))
        })
        .await
    }

    /// Requests that the DLX holds for a Sleeper.
    pub async fn held(&self, sleeper: &str) -> Result<u64> {
        let mut held = 0;
        for address in self.dlx_addresses().await? {
            let report = dormouse::requests::fetch(&format!("http://{address}:9090/demand")).await?;
            let report: serde_json::Value = serde_json::from_str(&report)?;
            let sleepers = report["sleepers"].as_array().cloned().unwrap_or_default();
            held += sleepers
                .iter()
                .filter(|entry| entry["sleeper"] == sleeper)
                .filter_map(|entry| entry["held"].as_u64())
                .sum::<u64>();
        }
        Ok(held)
    }

    /// The DLX's own Service, for header-routed requests.
    pub async fn dlx_url(&self) -> Result<String> {
        self.url(SYSTEM_NAMESPACE, "dormouse-dlx").await
    }

    /// How often a DLX container was started again.
    pub async fn dlx_restarts(&self) -> Result<i32> {
        let pods = self.pods("dormouse-dlx").await?;
        Ok(pods
            .into_iter()
            .filter_map(|pod| pod.status?.container_statuses)
            .flatten()
            .map(|container| container.restart_count)
            .sum())
    }
}
