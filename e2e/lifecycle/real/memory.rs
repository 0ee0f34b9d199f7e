//! MemHpa's demo as it is, with what the kubelet measures and a real Prometheus.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dormouse_sources::memhpa::{MemHpa, MemHpaStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::world::{AUTOSCALER, Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![case!(exclusive a_memhpa_scales_by_the_memory_of_its_pods).within(Duration::from_secs(420))]
}

/// Where MemHpa looks for Prometheus, unless it is told.
const PROMETHEUS: (&str, &str, u16) = ("kube-system", "prometheus", 9090);
/// The port that Prometheus has on the node.
const NODE_PORT: u16 = 19090;
const NAME: &str = "memhpa-demo";
/// MemHpa's interval for scaling up is three minutes; what is looked for comes long before.
const PATIENCE: Duration = Duration::from_secs(150);

/// The demo of MemHpa, in this namespace.
fn demo(ns: &str) -> String {
    format!(
        "
apiVersion: xinhuang.com/v1
kind: MemHpa
metadata: {{ name: {NAME}, namespace: {ns} }}
spec:
  scaleTargetRef:
    apiVersion: extensions/v1beta1
    kind: Deployment
    name: web
  minReplicas: 1
  maxReplicas: 5
  targetUtilizationPercentage: 50
"
    )
}

/// Prometheus on the node, asking the kubelet. It ends with this.
struct Prometheus {
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn start(world: &World) -> Result<Self> {
        let node = Api::<Node>::all(world.client.clone())
            .list(&ListParams::default())
            .await?;
        let node = node.items.first().context("no node")?;
        let name = node.metadata.name.clone().unwrap_or_default();
        let addresses = node
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten());
        let address = addresses
            .filter(|address| address.type_ == "InternalIP")
            .map(|address| address.address.clone())
            .next()
            .context("the node has no address")?;
        let folder = tempfile::tempdir()?;
        let configuration = configuration(folder.path(), &name)?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=0.0.0.0:{NODE_PORT}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let child = match child {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("prometheus is not installed (Debian: prometheus)")
            }
            child => child?,
        };
        let (namespace, service, port) = PROMETHEUS;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": namespace, "name": service},
            "spec": {"ports": [{"port": port, "targetPort": NODE_PORT}]},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace, "name": PROMETHEUS.1,
                "labels": {"kubernetes.io/service-name": PROMETHEUS.1},
            },
            "addressType": "IPv4",
            "ports": [{"port": NODE_PORT}],
            "endpoints": [{"addresses": [address]}],
        });
        world.apply(&format!("{service}\n---\n{slice}")).await?;
        Ok(Self {
            _child: child,
            _folder: folder,
        })
    }
}

/// Asks the kubelet by way of the API server, as the administrator.
fn configuration(folder: &Path, node: &str) -> Result<PathBuf> {
    let file = std::env::var("KUBECONFIG").context("KUBECONFIG names no file")?;
    let kubeconfig: Value = serde_yaml::from_str(&std::fs::read_to_string(&file)?)?;
    let text = |pointer: &str| {
        let found = kubeconfig.pointer(pointer).and_then(Value::as_str);
        found.with_context(|| format!("{file} has no {pointer}"))
    };
    let decoded = |pointer: &str| Ok::<_, anyhow::Error>(BASE64.decode(text(pointer)?)?);
    std::fs::write(folder.join("key.pem"), decoded("/users/0/user/client-key-data")?)?;
    std::fs::write(
        folder.join("client.pem"),
        decoded("/users/0/user/client-certificate-data")?,
    )?;
    let server = text("/clusters/0/cluster/server")?;
    let server = server.trim_start_matches("https://");
    let job = json!({
        "job_name": "kubelet",
        "scheme": "https",
        "metrics_path": format!("/api/v1/nodes/{node}/proxy/metrics/cadvisor"),
        "tls_config": {
            "cert_file": folder.join("client.pem"),
            "key_file": folder.join("key.pem"),
            "insecure_skip_verify": true,
        },
        "static_configs": [{"targets": [server]}],
    });
    let file = folder.join("prometheus.yml");
    let text = json!({"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": [job]});
    std::fs::write(&file, text.to_string())?;
    Ok(file)
}

async fn limit_memory(world: &World, ns: &str) -> Result<()> {
    let limits = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "resources": {"limits": {"memory": "100Mi"}}}
    ]}}}});
    Api::<Deployment>::namespaced(world.client.clone(), ns)
        .patch("web", &PatchParams::default(), &Patch::Strategic(limits))
        .await?;
    world
        .until("the pod with a limit", async || {
            let deployment = world.deployment(ns, "web").await?;
            let status = deployment.status.unwrap_or_default();
            let observed = status.observed_generation == deployment.metadata.generation;
            let new = status.updated_replicas == Some(1) && status.replicas == Some(1);
            Ok((observed && new && status.ready_replicas == Some(1)).then_some(()))
        })
        .await
}

async fn status(world: &World, ns: &str) -> Result<MemHpaStatus> {
    let object = Api::<MemHpa>::namespaced(world.client.clone(), ns)
        .get(NAME)
        .await?;
    Ok(object.status.unwrap_or_default())
}

async fn told(world: &World, ns: &str) -> Result<Vec<String>> {
    let events = Api::<Event>::namespaced(world.client.clone(), ns)
        .list(&ListParams::default().fields(&format!("involvedObject.name={NAME}")))
        .await?;
    Ok(events.into_iter().filter_map(|event| event.reason).collect())
}

async fn until_status(
    world: &World,
    ns: &str,
    what: &str,
    is: impl Fn(&MemHpaStatus) -> bool,
) -> Result<MemHpaStatus> {
    world
        .until_within(PATIENCE, what, async || {
            let status = status(world, ns).await?;
            Ok(is(&status).then_some(status))
        })
        .await
}

async fn a_memhpa_scales_by_the_memory_of_its_pods(world: Arc<World>) -> Result<()> {
    let ns = "by-memory";
    // A plugin looks after it too, and leaves the number of replicas alone.
    world.deploy_known(ns, "web", Wanted::never()).await?;
    limit_memory(&world, ns).await?;
    world.apply(&demo(ns)).await?;
    let missing = until_status(&world, ns, "word that there is no Prometheus", |status| {
        let mut conditions = status.conditions.iter();
        conditions.any(|known| known.type_ == "ScalingActive" && known.reason == "MetricsNotAvailableYet")
    });
    missing.await?;
    ensure!(world.replicas(ns, "web").await? == 1, "scaled on an error");
    ensure!(
        told(&world, ns)
            .await?
            .contains(&"MetricsNotAvailableYet".to_owned())
    );

    let prometheus = Prometheus::start(&world).await?;
    world.post_to_pods(ns, "memory?mebibytes=80").await?;
    let scaled = until_status(&world, ns, "a second replica", |status| {
        status.desired_replicas == 2
    })
    .await?;
    ensure!(
        scaled.current_utilization.is_some_and(|percent| percent > 55) && scaled.last_scale_time.is_some(),
        "{scaled:?}"
    );
    world
        .until("two replicas", async || {
            Ok((world.replicas(ns, "web").await? == 2).then_some(()))
        })
        .await?;
    let reasons = told(&world, ns).await?;
    for reason in ["SuccessfulRescale", "DesiredReplicasComputed"] {
        ensure!(
            reasons.iter().any(|told| told == reason),
            "{reason} of {reasons:?}"
        );
    }

    // Somebody takes the replica away, and whoever leads now remembers when the last change was.
    world.scale(ns, "web", 1).await?;
    for pod in world.pods(AUTOSCALER).await? {
        world.kill(&pod.metadata.name.unwrap_or_default()).await?;
    }
    let held = until_status(&world, ns, "a decision of the new leader", |status| {
        status.current_replicas == 1 && status.desired_replicas == 1
    });
    let held = held.await?;
    ensure!(held.last_scale_time == scaled.last_scale_time, "{held:?}");
    tokio::time::sleep(Duration::from_secs(35)).await;
    ensure!(
        world.replicas(ns, "web").await? == 1,
        "scaled within the interval"
    );
    drop(prometheus);
    Ok(())
}
