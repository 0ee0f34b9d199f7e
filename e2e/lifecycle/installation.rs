//! Where the cases run: the embedded cluster, which they start themselves, or a real one with the chart installed.
//!
//! Everything that the two do differently is in this file: how they start, and how one breaks them on purpose.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dormouse::local::{self, Local};
use dormouse_embedded::{CustomMetric, Fault};
use dormouse_model::ObjectKey;
use dormouse_sleepers::Cluster;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::status_driven;

/// Names the kubeconfig of a real cluster.
const KUBECONFIG: &str = "DORMOUSE_E2E_KUBECONFIG";
/// Names the audit log of its API server.
const AUDIT_LOG: &str = "DORMOUSE_E2E_AUDIT_LOG";
/// A command that does something to the cluster itself, such as restarting a component; arguments separated by spaces.
const CLUSTER_COMMAND: &str = "DORMOUSE_E2E_CLUSTER_COMMAND";

/// A cluster with Dormouse on it.
pub enum Installation {
    /// In this process.
    Embedded(Box<Local>),
    /// Outside.
    Real(Real),
}

/// A real cluster, with Dormouse installed by the chart.
pub struct Real {
    kubeconfig: PathBuf,
    audit_log: Option<PathBuf>,
}

impl Installation {
    /// Starts the embedded cluster, or finds the real one that the environment names.
    pub async fn start() -> Result<Self> {
        if let Some(kubeconfig) = std::env::var_os(KUBECONFIG) {
            return Ok(Self::Real(Real {
                kubeconfig: kubeconfig.into(),
                audit_log: std::env::var_os(AUDIT_LOG).map(PathBuf::from),
            }));
        }
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_dormouse"));
        let plugins = match std::env::var_os("DORMOUSE_PLUGINS_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => binary
                .parent()
                .and_then(|profile| profile.parent())
                .context("the binary is not in a target directory")?
                .join("plugins"),
        };
        let files = ["workloads.wasm", "status-driven.wasm"].map(|file| plugins.join(file));
        if let Some(missing) = files.iter().find(|file| !file.is_file()) {
            bail!(
                "{} is missing; `cargo xtask build-guests` builds it",
                missing.display()
            );
        }
        let local = Local::start(local::Options {
            plugins: files.to_vec(),
            plugin_config: status_driven::config()?,
            more_grants: status_driven::grants()?,
            manifests: status_driven::CRD.to_owned(),
            binary: Some(binary),
            workloads: false,
            memhpa: true,
            ..local::Options::default()
        })
        .await?;
        Ok(Self::Embedded(Box::new(local)))
    }

    /// Whether the environment names a real cluster.
    pub fn is_real_wanted() -> bool {
        std::env::var_os(KUBECONFIG).is_some()
    }

    /// Whether this is a real cluster.
    pub fn is_real(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// How long open connections may go on, as it is configured here.
    pub fn drain_grace(&self) -> Duration {
        match self {
            Self::Embedded(_) => Duration::from_millis(300),
            // As in e2e/values.yaml.
            Self::Real(_) => Duration::from_secs(2),
        }
    }

    pub async fn client(&self) -> Result<kube::Client> {
        match self {
            Self::Embedded(local) => local.client().await,
            Self::Real(real) => dormouse_kubernetes::client(Some(&real.kubeconfig))
                .await
                .with_context(|| format!("no client from {}", real.kubeconfig.display())),
        }
    }

    pub fn keep_logs(&self) {
        match self {
            Self::Embedded(local) => local.keep_logs(),
            Self::Real(_) => {
                println!(
                    "the logs of both processes: kubectl logs -n dormouse -l app.kubernetes.io/name=dormouse --prefix"
                );
            }
        }
    }

    pub async fn stop(self) {
        if let Self::Embedded(local) = self {
            local.stop().await;
        }
    }

    /// Makes the cluster refuse to scale a Deployment, as an exhausted quota would.
    pub async fn refuse_scaling(&self, cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
        match self {
            Self::Embedded(local) => local.cluster().inject(Fault {
                verb: "write".to_owned(),
                resource: "deployments.apps/scale".to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                status: 403,
                message: "exceeded quota: pods".to_owned(),
                ..Fault::default()
            }),
            Self::Real(_) => {
                for object in refusal(namespace, name) {
                    cluster.objects().apply(&object, "dormouse-suite", true).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends the refusal.
    pub async fn allow_scaling(&self, cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
        match self {
            Self::Embedded(local) => local.cluster().clear_faults_of(namespace, name),
            Self::Real(_) => {
                for object in refusal(namespace, name) {
                    let text = |pointer| {
                        object
                            .pointer(pointer)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                    };
                    let key = ObjectKey {
                        api_version: text("/apiVersion").to_owned(),
                        kind: text("/kind").to_owned(),
                        namespace: None,
                        name: text("/metadata/name").to_owned(),
                    };
                    cluster.objects().delete(&key).await?;
                }
            }
        }
        Ok(())
    }

    /// How often replicas of Deployments of a namespace were written with success, by whomever.
    pub fn scale_writes(&self, namespace: &str) -> Result<usize> {
        match self {
            Self::Embedded(local) => Ok(local
                .cluster()
                .api_requests()
                .into_iter()
                .filter(|request| {
                    request.namespace == namespace
                        && request.resource == "deployments.apps/scale"
                        && request.verb != "get"
                        && request.status < 300
                })
                .count()),
            Self::Real(_) => {
                let requests = self.audited(namespace, Timestamp::UNIX_EPOCH, Timestamp::now())?;
                Ok(requests
                    .iter()
                    .filter(|request| request.is_write() && request.is_about("deployments", "scale"))
                    .count())
            }
        }
    }

    /// Sets what the custom metrics API says about a function.
    pub async fn set_custom_metric(
        &self,
        client: &kube::Client,
        namespace: &str,
        name: &str,
        metric: &str,
        value: &str,
    ) -> Result<()> {
        match self {
            Self::Embedded(local) => local.cluster().set_custom_metric(CustomMetric {
                resource: "functions.platform.example".to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                metric: metric.to_owned(),
                value: Some(value.to_owned()),
                ..CustomMetric::default()
            }),
            Self::Real(_) => {
                // The adapter takes values over its own port; the API server leads there.
                let path = format!(
                    "/api/v1/namespaces/custom-metrics/services/http:custom-metrics-writer:80/proxy/write-metrics/\
                     namespaces/{namespace}/functions.platform.example/{name}/{metric}"
                );
                let request = http::Request::post(path)
                    .header("content-type", "application/json")
                    .body(serde_json::to_vec(value)?)?;
                client.request_text(request).await?;
            }
        }
        Ok(())
    }

    /// Does something to the cluster itself: `restart kube-apiserver`.
    pub async fn cluster_command(&self, args: &[&str]) -> Result<()> {
        let given = std::env::var(CLUSTER_COMMAND)
            .with_context(|| format!("{CLUSTER_COMMAND} does not name the cluster's command"))?;
        let mut words = given.split(' ');
        let program = words.next().unwrap_or_default();
        let output = tokio::process::Command::new(program)
            .args(words)
            .args(args)
            .output()
            .await
            .with_context(|| format!("{program} cannot be started"))?;
        ensure!(
            output.status.success(),
            "{given} {args:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// A request that the API server has answered.
pub struct Audited {
    pub resource: String,
    pub subresource: String,
    pub verb: String,
    pub user: String,
    pub received: Timestamp,
    pub done: Timestamp,
}

impl Audited {
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete"].contains(&self.verb.as_str())
    }

    pub fn is_about(&self, resource: &str, subresource: &str) -> bool {
        self.resource == resource && self.subresource == subresource
    }
}

impl Installation {
    /// Successful requests about objects of a namespace that ended in a span of time, in order, from the audit log.
    pub fn audited(&self, namespace: &str, from: Timestamp, to: Timestamp) -> Result<Vec<Audited>> {
        let Self::Real(Real {
            audit_log: Some(path),
            ..
        }) = self
        else {
            bail!("{AUDIT_LOG} does not name the audit log");
        };
        let mut log = String::new();
        for part in audit_logs(path, from)? {
            let text = std::fs::read_to_string(&part)
                .with_context(|| format!("{} cannot be read", part.display()))?;
            log.push_str(&text);
        }
        let mut found = Vec::new();
        for line in log.lines().filter(|line| line.contains(namespace)) {
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let object = &event["objectRef"];
            let good = event["responseStatus"]["code"]
                .as_u64()
                .is_some_and(|code| code < 300);
            if !good || object["namespace"] != namespace || event["stage"] != "ResponseComplete" {
                continue;
            }
            let moment = |field: &str| event[field].as_str().unwrap_or_default().parse::<Timestamp>();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let audited = Audited {
                resource: text(&object["resource"]),
                subresource: text(&object["subresource"]),
                verb: text(&event["verb"]),
                user: text(&event["user"]["username"]),
                received: moment("requestReceivedTimestamp")?,
                done: moment("stageTimestamp")?,
            };
            if audited.done >= from && audited.done <= to {
                found.push(audited);
            }
        }
        found.sort_by_key(|event| event.done);
        Ok(found)
    }
}

/// The audit log and those that it was before it was rotated, as far as they may tell of a moment or later.
fn audit_logs(path: &Path, from: Timestamp) -> Result<Vec<PathBuf>> {
    let folder = path.parent().context("the audit log is in no folder")?;
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let is_older = name.starts_with("audit-") && name.ends_with(".log");
        let written = Timestamp::try_from(entry.metadata()?.modified()?)?;
        if is_older && written >= from {
            parts.push(entry.path());
        }
    }
    parts.sort();
    parts.push(path.to_owned());
    Ok(parts)
}

/// What makes a real API server refuse to scale one Deployment up.
fn refusal(namespace: &str, name: &str) -> [Value; 2] {
    let policy = format!("refuse-{namespace}-{name}");
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": policy },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                    "resourceRules": [{
                        "apiGroups": ["apps"],
                        "apiVersions": ["v1"],
                        "operations": ["UPDATE"],
                        "resources": ["deployments/scale"],
                        "resourceNames": [name],
                    }],
                },
                "validations": [{
                    "expression": "object.spec.replicas == 0",
                    "message": "exceeded quota: pods",
                    "reason": "Forbidden",
                }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": policy },
            "spec": { "policyName": policy, "validationActions": ["Deny"] },
        }),
    ]
}
