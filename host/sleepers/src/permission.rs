//! What may be put to sleep: what the grants of a plugin cover, and never Dormouse itself or the namespaces of Kubernetes.
//!
//! It is checked before a desired state for sleep is written, whatever asks for it: a plugin's `lifecycle.sleep`, or the autoscaler that
//! has traffic observed. It is checked again whenever the Sleeper is observed. The plugins' writes by the `kubernetes` interface
//! ask [`SleepPermission::why_protected`] too.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_kubernetes::services::selects;
use dormouse_kubernetes::{ClusterError, ObjectError, Objects};
use dormouse_model::{ObjectKey, Owner};
use kube::ResourceExt;
use tokio::sync::OnceCell;

use crate::api::Sleeper;
use crate::installation::{Installation, Labels, labels_at, why_own};
use crate::{Config, SleepGrant};

/// Namespaces of Kubernetes itself: without DNS or the network nothing wakes any more.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Why a Sleeper is not put to sleep.
#[derive(Debug)]
pub(crate) enum PermissionError {
    /// Its owner may not put it to sleep, or it is protected; the text says why.
    Denied(String),
    /// It could not be found out.
    Cluster(ClusterError),
}

/// Decides what may be put to sleep. Cheap to clone.
#[derive(Clone)]
pub struct SleepPermission {
    objects: Objects,
    /// Namespace and name of the DLX's Service.
    dlx_service: Option<(String, String)>,
    /// Namespace and name of the pod of this process.
    own_pod: Option<(String, String)>,
    /// What each plugin may put to sleep. None: everything.
    grants: Option<Arc<BTreeMap<String, Vec<SleepGrant>>>>,
    /// The installation, once the pod was read.
    installation: Arc<OnceCell<Installation>>,
}

impl SleepPermission {
    pub(crate) fn new(objects: Objects, config: &Config) -> Self {
        Self {
            objects,
            dlx_service: config.dlx_service.clone(),
            own_pod: config.own_pod.clone(),
            grants: config.sleep_grants.clone().map(Arc::new),
            installation: Arc::default(),
        }
    }

    /// Why an object belongs to Dormouse or to Kubernetes itself, if it does. No grant covers scaling, patching or deleting it.
    ///
    /// # Errors
    /// What the API server says, where it has to be asked. Then it is not known.
    pub async fn why_protected(&self, object: &ObjectKey) -> Result<Option<String>, ObjectError> {
        let namespace = object.namespace.as_deref().unwrap_or_default();
        if object.kind == "Namespace" && SYSTEM.contains(&object.name.as_str()) || SYSTEM.contains(&namespace)
        {
            return Ok(Some(format!(
                "{} {}/{} belongs to Kubernetes itself",
                object.kind, namespace, object.name
            )));
        }
        let (dlx, own_pod) = (self.dlx_service.as_ref(), self.own_pod.as_ref());
        let explain = |why: &str| {
            Some(format!(
                "{} {}/{} belongs to Dormouse: {why}",
                object.kind, namespace, object.name
            ))
        };
        if object.kind == "Service" && dlx.is_some_and(|(at, name)| at == namespace && *name == object.name) {
            return Ok(explain("it is the DLX's own Service"));
        }
        let here = [dlx.map(|(at, _)| at), own_pod.map(|(at, _)| at)];
        if !here.into_iter().flatten().any(|at| at == namespace) {
            return Ok(None);
        }
        let own = self.installation().await?;
        let mounted = own
            .volumes
            .iter()
            .any(|(kind, name)| *kind == object.kind && *name == object.name);
        if mounted && own_pod.is_some_and(|(at, _)| at == namespace) {
            return Ok(explain("it is mounted into its pods"));
        }
        let selector = match dlx {
            Some((at, name)) if at == namespace => self.dlx_selector(at, name).await?,
            _ => Labels::new(),
        };
        match self.objects.get(object, &[]).await {
            Ok(found) => Ok(why_own(&found, &object.kind, &selector, &own).and_then(explain)),
            // What does not exist, and what this process may not even read, is none of Dormouse's.
            Err(ObjectError::NotFound(_) | ObjectError::Forbidden(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn dlx_selector(&self, namespace: &str, name: &str) -> Result<Labels, ObjectError> {
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        match self.objects.get(&key, &["spec.selector".to_owned()]).await {
            Ok(service) => Ok(labels_at(&service, "/spec/selector")),
            Err(ObjectError::NotFound(_) | ObjectError::Forbidden(_)) => Ok(Labels::new()),
            Err(error) => Err(error),
        }
    }

    /// The installation. Its pod is read once: labels and volumes stay. Outside a cluster there is no pod.
    async fn installation(&self) -> Result<Installation, ObjectError> {
        let Some((namespace, name)) = self.own_pod.clone() else {
            return Ok(Installation::default());
        };
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some(namespace),
            name,
        };
        let read = || async {
            match self.objects.get(&key, &[]).await {
                Ok(pod) => Ok(Installation::of(&pod)),
                Err(ObjectError::NotFound(why) | ObjectError::Forbidden(why)) => {
                    tracing::warn!(
                        "Dormouse does not know its own pod, so only the DLX is known to be its own: {why}"
                    );
                    Ok(Installation::default())
                }
                Err(error) => Err(error),
            }
        };
        self.installation.get_or_try_init(read).await.cloned()
    }

    /// Whether the owner of a Sleeper may put it to sleep.
    pub(crate) async fn check(&self, sleeper: &Sleeper) -> Result<(), PermissionError> {
        let namespace = sleeper.namespace().unwrap_or_default();
        let spec = &sleeper.spec;
        let object = |api_version: &str, kind: &str, name: &str| ObjectKey {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: Some(namespace.clone()),
            name: name.to_owned(),
        };
        let mut scaled: Vec<_> = spec
            .workloads
            .iter()
            .map(|one| object(&one.api_version, &one.kind, &one.name))
            .collect();
        if scaled.is_empty() {
            scaled.push(object(
                &spec.object.api_version,
                &spec.object.kind,
                &spec.object.name,
            ));
        }
        // Grants first: they need no request.
        let owner = spec.owner();
        for workload in &scaled {
            self.check_grants(&owner, workload).await?;
        }
        let services = spec.services.iter().map(|name| object("v1", "Service", name));
        for object in scaled.iter().cloned().chain(services) {
            self.check_unprotected(&object).await?;
        }
        Ok(())
    }

    /// Whether an object belongs neither to Dormouse nor to Kubernetes itself.
    pub(crate) async fn check_unprotected(&self, object: &ObjectKey) -> Result<(), PermissionError> {
        match self.why_protected(object).await {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(PermissionError::Denied(why)),
            Err(error) => Err(PermissionError::Cluster(ClusterError::Unavailable {
                what: format!("{} {}", object.kind, object.name),
                message: format!("nobody knows whether it belongs to Dormouse: {error}"),
            })),
        }
    }

    async fn check_grants(&self, owner: &Owner, workload: &ObjectKey) -> Result<(), PermissionError> {
        // Grants are for plugins. Who may write the custom resources of other owners is a matter of RBAC.
        let (Some(grants), Some(plugin)) = (&self.grants, owner.as_plugin()) else {
            return Ok(());
        };
        let covering: Vec<_> = grants
            .get(plugin)
            .into_iter()
            .flatten()
            .filter(|grant| grant.covers(workload))
            .collect();
        if covering.iter().any(|grant| grant.match_labels.is_empty()) {
            return Ok(());
        }
        if !covering.is_empty() {
            let fields = ["metadata.labels".to_owned()];
            let found = self.objects.get(workload, &fields).await.map_err(|error| {
                PermissionError::Cluster(ClusterError::Unavailable {
                    what: format!("{} {}", workload.kind, workload.name),
                    message: format!("its labels are not known: {error}"),
                })
            })?;
            let labels = labels_at(&found, "/metadata/labels");
            if covering.iter().any(|grant| selects(&grant.match_labels, &labels)) {
                return Ok(());
            }
        }
        let (kind, namespace) = (&workload.kind, workload.namespace.as_deref().unwrap_or_default());
        Err(PermissionError::Denied(format!(
            "plugin {plugin} is not granted to put {kind} {namespace}/{} to sleep; the operator can add to \
             plugins.{plugin}.grants.lifecycle: {{apiVersion: {}, kind: {kind}, namespaces: [{namespace}]}}",
            workload.name, workload.api_version
        )))
    }
}
