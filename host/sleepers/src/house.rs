//! What a plugin may put to sleep, and what nobody may: Dormouse itself, and the namespaces of Kubernetes.
//!
//! Asked where a wish for sleep is written, so for every way that leads to one: a plugin's `lifecycle.sleep`, and the look at the
//! traffic that the autoscaler decides on. The plugins' writes by the `kubernetes` interface ask [`Cluster::in_house`] too.

use dormouse_kubernetes::services::selects;
use dormouse_kubernetes::{ClusterError, ObjectError};
use dormouse_model::{ObjectKey, Owner};
use kube::ResourceExt;

use crate::api::Sleeper;
use crate::own::{Labels, Own, labels_at, ours};
use crate::{Cluster, WishError};

/// Namespaces of Kubernetes itself: without DNS or the network nothing wakes any more.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

impl Cluster {
    /// Why an object belongs to Dormouse or to Kubernetes itself, if it does. Nobody may scale, patch or delete it, whatever is
    /// granted.
    ///
    /// # Errors
    /// What the API server says, where it has to be asked. Then nobody knows.
    pub async fn in_house(&self, object: &ObjectKey) -> Result<Option<String>, ObjectError> {
        let config = self.config();
        let namespace = object.namespace.as_deref().unwrap_or_default();
        if object.kind == "Namespace" && SYSTEM.contains(&object.name.as_str()) || SYSTEM.contains(&namespace)
        {
            return Ok(Some(format!(
                "{} {}/{} belongs to Kubernetes itself",
                object.kind, namespace, object.name
            )));
        }
        let dlx = config.dlx_service.as_ref();
        let told = |why: &str| {
            Some(format!(
                "{} {}/{} belongs to Dormouse: {why}",
                object.kind, namespace, object.name
            ))
        };
        if object.kind == "Service" && dlx.is_some_and(|(at, name)| at == namespace && *name == object.name) {
            return Ok(told("it is the DLX's own Service"));
        }
        let here = [dlx.map(|(at, _)| at), config.own_pod.as_ref().map(|(at, _)| at)];
        if !here.into_iter().flatten().any(|at| at == namespace) {
            return Ok(None);
        }
        let own = self.own().await?;
        let mounted = own
            .volumes
            .iter()
            .any(|(kind, name)| *kind == object.kind && *name == object.name);
        if mounted && config.own_pod.as_ref().is_some_and(|(at, _)| at == namespace) {
            return Ok(told("it is mounted into its pods"));
        }
        let selector = match dlx {
            Some((at, name)) if at == namespace => self.dlx_selector(at, name).await?,
            _ => Labels::new(),
        };
        match self.inner.objects.get(object, &[]).await {
            Ok(found) => Ok(ours(&found, &object.kind, &selector, &own).and_then(told)),
            // What is not there, and what we may not even read, is not ours.
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
        match self.inner.objects.get(&key, &["spec.selector".to_owned()]).await {
            Ok(service) => Ok(labels_at(&service, "/spec/selector")),
            Err(ObjectError::NotFound(_) | ObjectError::Forbidden(_)) => Ok(Labels::new()),
            Err(error) => Err(error),
        }
    }

    /// Read once: a pod's labels and volumes stay. Outside a cluster there is no pod.
    async fn own(&self) -> Result<Own, ObjectError> {
        let Some((namespace, name)) = self.config().own_pod.clone() else {
            return Ok(Own::default());
        };
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some(namespace),
            name,
        };
        let read = || async {
            match self.inner.objects.get(&key, &[]).await {
                Ok(pod) => Ok(Own::of(&pod)),
                Err(ObjectError::NotFound(why) | ObjectError::Forbidden(why)) => {
                    tracing::warn!(
                        "Dormouse does not know its own pod, so only the DLX is known to be its own: {why}"
                    );
                    Ok(Own::default())
                }
                Err(error) => Err(error),
            }
        };
        self.inner.own.get_or_try_init(read).await.cloned()
    }

    /// Whether the Sleeper's plugin may put it to sleep.
    pub(crate) async fn may_sleep(&self, sleeper: &Sleeper) -> Result<(), WishError> {
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
        // Grants first: they are known without asking anybody.
        let owner = spec.owner();
        for workload in &scaled {
            self.granted(&owner, workload).await?;
        }
        let services = spec.services.iter().map(|name| object("v1", "Service", name));
        for object in scaled.iter().cloned().chain(services) {
            match self.in_house(&object).await {
                Ok(None) => {}
                Ok(Some(why)) => return Err(WishError::Denied(why)),
                Err(error) => {
                    return Err(WishError::Cluster(ClusterError::Unavailable {
                        what: format!("{} {}", object.kind, object.name),
                        message: format!("nobody knows whether it belongs to Dormouse: {error}"),
                    }));
                }
            }
        }
        Ok(())
    }

    async fn granted(&self, owner: &Owner, workload: &ObjectKey) -> Result<(), WishError> {
        // Grants are given to plugins. What people write as objects is granted by who may write those.
        let (Some(grants), Some(plugin)) = (&self.config().sleep_grants, owner.as_plugin()) else {
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
            let found = self.inner.objects.get(workload, &fields).await.map_err(|error| {
                WishError::Cluster(ClusterError::Unavailable {
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
        Err(WishError::Denied(format!(
            "plugin {plugin} is not granted to put {kind} {namespace}/{} to sleep; the operator can add to \
             plugins.{plugin}.grants.lifecycle: {{apiVersion: {}, kind: {kind}, namespaces: [{namespace}]}}",
            workload.name, workload.api_version
        )))
    }
}
