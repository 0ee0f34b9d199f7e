//! Which objects belong to the installation of Dormouse that this process is part of.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_kubernetes::services::selects;
use serde_json::Value;

/// The labels that tell one installation of one application from another.
const INSTALLATION: [&str; 2] = ["app.kubernetes.io/name", "app.kubernetes.io/instance"];

/// The installation, as the pod of this process shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installation {
    /// Labels of the pod.
    labels: Labels,
    /// Kinds and names of what is mounted into the pod, such as the volumes with plugins.
    pub(crate) volumes: BTreeSet<(&'static str, String)>,
}

pub(crate) type Labels = BTreeMap<String, String>;

/// The labels at a JSON pointer of an object.
pub(crate) fn labels_at(object: &Value, path: &str) -> Labels {
    let found = object.pointer(path).and_then(Value::as_object);
    found
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

impl Installation {
    pub(crate) fn of(pod: &Value) -> Self {
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
    fn common_labels(&self) -> Labels {
        let labels = INSTALLATION.iter().filter_map(|key| {
            let value = self.labels.get(*key)?;
            Some(((*key).to_owned(), value.clone()))
        });
        labels.collect()
    }
}

/// Why `object`, of a namespace in which Dormouse runs, belongs to Dormouse.
pub(crate) fn why_own(object: &Value, kind: &str, dlx: &Labels, own: &Installation) -> Option<&'static str> {
    let labels = labels_at(object, "/metadata/labels");
    let template = labels_at(object, "/spec/template/metadata/labels");
    let installation = own.common_labels();
    // One label alone says too little: other things may carry it too.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own() -> Installation {
        Installation::of(&json!({
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
                why_own(&object, "Deployment", &dlx, &own()).is_some(),
                expected,
                "{what}"
            );
        }
        let service = |selector: Value| json!({"spec": {"selector": selector}});
        assert!(why_own(&service(json!({"app": "dormouse-dlx"})), "Service", &dlx, &own()).is_some());
        assert!(why_own(&service(json!({"app": "web"})), "Service", &dlx, &own()).is_none());
        assert!(why_own(&service(none), "Service", &dlx, &own()).is_none());
        assert!(own().volumes.contains(&("ConfigMap", "my-plugins".to_owned())));
    }
}
