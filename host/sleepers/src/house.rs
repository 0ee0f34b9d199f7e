//! What a plugin may put to sleep, and what nobody may: Dormouse itself, and the namespaces of Kubernetes.
//!
//! Asked where a wish for sleep is written, so for every way that leads to one: a plugin's `lifecycle.sleep`, and the look at the
//! traffic that the autoscaler decides on. The plugins' writes by the `kubernetes` interface ask [`Cluster::in_house`] too.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_kubernetes::services::selects;
use dormouse_kubernetes::{ClusterError, ObjectError};
use dormouse_model::{ObjectKey, Owner};
use kube::ResourceExt;
use serde_json::Value;

use crate::api::Sleeper;
use crate::{Cluster, WishError};

/// Namespaces of Kubernetes itself: without DNS or the network nothing wakes any more.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The labels that tell one installation of one application from another.
const INSTALLATION: [&str; 2] = ["app.kubernetes.io/name", "app.kubernetes.io/instance"];

/// Kinds that a plugin may put to sleep, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleepGrant {
    /// `apps/v1`, or `*` for every group and version.
    pub api_version: String,
    /// `Deployment`, or `*` for every kind.
    pub kind: String,
    /// Where. None: every namespace.
    pub namespaces: Option<Vec<String>>,
    /// Labels that the workload has to carry.
    pub match_labels: BTreeMap<String, String>,
}

impl SleepGrant {
    fn covers(&self, object: &ObjectKey) -> bool {
        let pattern = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        let namespace = object.namespace.as_deref().unwrap_or_default();
        pattern(&self.api_version, &object.api_version)
            && pattern(&self.kind, &object.kind)
            && self
                .namespaces
                .as_ref()
                .is_none_or(|list| list.iter().any(|entry| entry == namespace))
    }
}

/// What the pod of this process says about the installation that it belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    labels: BTreeMap<String, String>,
    /// Kinds and names of what is mounted into it, such as the volumes with plugins.
    volumes: BTreeSet<(&'static str, String)>,
}

type Labels = BTreeMap<String, String>;

fn labels_at(object: &Value, path: &str) -> Labels {
    let found = object.pointer(path).and_then(Value::as_object);
    found
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

impl Own {
    fn of(pod: &Value) -> Self {
        let mut volumes = BTreeSet::new();
        for volume in pod
            .pointer("/spec/volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            for (kind, path) in [
                ("ConfigMap", "/configMap/name"),
                ("Secret", "/secret/secretName"),
                ("PersistentVolumeClaim", "/persistentVolumeClaim/claimName"),
            ] {
                if let Some(name) = volume.pointer(path).and_then(Value::as_str) {
                    volumes.insert((kind, name.to_owned()));
                }
            }
        }
        Self {
            labels: labels_at(pod, "/metadata/labels"),
            volumes,
        }
    }

    /// The labels that everything of this installation carries.
    fn installation(&self) -> Labels {
        let labels = INSTALLATION.iter().filter_map(|key| {
            let value = self.labels.get(*key)?;
            Some(((*key).to_owned(), value.clone()))
        });
        labels.collect()
    }
}

/// Why `object`, of a namespace in which Dormouse runs, belongs to Dormouse.
fn ours(object: &Value, kind: &str, dlx: &Labels, own: &Own) -> Option<&'static str> {
    let labels = labels_at(object, "/metadata/labels");
    let template = labels_at(object, "/spec/template/metadata/labels");
    let installation = own.installation();
    // One label alone says too little: many things of one application may share it.
    let whole = installation.len() == INSTALLATION.len();
    if selects(dlx, &template) || (kind == "Pod" && selects(dlx, &labels)) {
        return Some("its pods are the DLX");
    }
    if whole && (selects(&installation, &labels) || selects(&installation, &template)) {
        return Some("it carries the labels of this installation of Dormouse");
    }
    if kind == "Service" {
        let selector = labels_at(object, "/spec/selector");
        return (selects(&selector, &own.labels) || selects(&selector, dlx))
            .then_some("it leads to pods of Dormouse");
    }
    let selector = labels_at(object, "/spec/selector/matchLabels");
    (selects(&selector, &own.labels) || selects(&template, &own.labels))
        .then_some("its pods are those of Dormouse")
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own() -> Own {
        Own::of(&json!({
            "metadata": {"labels": {
                "app.kubernetes.io/name": "dormouse", "app.kubernetes.io/instance": "one",
                "app.kubernetes.io/component": "autoscaler"}},
            "spec": {"volumes": [{"name": "plugins", "configMap": {"name": "my-plugins"}}, {"name": "tmp", "emptyDir": {}}]}
        }))
    }

    #[test]
    fn author_02_what_belongs_to_dormouse_is_known_by_its_labels() {
        let dlx: Labels = [("app".to_owned(), "dormouse-dlx".to_owned())].into();
        let deployment = |labels: Value, template: Value, selector: Value| {
            json!({"metadata": {"labels": labels}, "spec": {
                "selector": {"matchLabels": selector}, "template": {"metadata": {"labels": template}}}})
        };
        let none = json!({});
        let installed = json!({"app.kubernetes.io/name": "dormouse", "app.kubernetes.io/instance": "one"});
        let other = json!({"app.kubernetes.io/name": "dormouse", "app.kubernetes.io/instance": "two"});
        let table = [
            (
                "the DLX",
                deployment(
                    none.clone(),
                    json!({"app": "dormouse-dlx", "x": "y"}),
                    none.clone(),
                ),
                true,
            ),
            (
                "a neighbour",
                deployment(
                    json!({"app": "web"}),
                    json!({"app": "web"}),
                    json!({"app": "web"}),
                ),
                false,
            ),
            (
                "the same installation",
                deployment(installed, none.clone(), none.clone()),
                true,
            ),
            (
                "another installation",
                deployment(other, none.clone(), none.clone()),
                false,
            ),
            (
                "own pods",
                deployment(
                    none.clone(),
                    none.clone(),
                    json!({"app.kubernetes.io/component": "autoscaler"}),
                ),
                true,
            ),
            (
                "no labels at all",
                deployment(none.clone(), none.clone(), none.clone()),
                false,
            ),
        ];
        for (what, object, expected) in table {
            assert_eq!(
                ours(&object, "Deployment", &dlx, &own()).is_some(),
                expected,
                "{what}"
            );
        }
        let service = |selector: Value| json!({"spec": {"selector": selector}});
        assert!(ours(&service(json!({"app": "dormouse-dlx"})), "Service", &dlx, &own()).is_some());
        assert!(ours(&service(json!({"app": "web"})), "Service", &dlx, &own()).is_none());
        assert!(ours(&service(none), "Service", &dlx, &own()).is_none());
        assert!(own().volumes.contains(&("ConfigMap", "my-plugins".to_owned())));
    }

    #[test]
    fn author_02_a_grant_covers_what_it_names() {
        let grant = SleepGrant {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespaces: Some(vec!["shop".to_owned()]),
            match_labels: Labels::new(),
        };
        let object = |kind: &str, namespace: &str| ObjectKey {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: "web".to_owned(),
        };
        assert!(grant.covers(&object("Deployment", "shop")));
        assert!(!grant.covers(&object("StatefulSet", "shop")));
        assert!(!grant.covers(&object("Deployment", "bank")));
        let all = SleepGrant {
            api_version: "*".to_owned(),
            kind: "*".to_owned(),
            namespaces: None,
            match_labels: Labels::new(),
        };
        assert!(all.covers(&object("StatefulSet", "bank")));
    }
}
