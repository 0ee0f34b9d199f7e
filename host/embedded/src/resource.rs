//! The kinds that the API server knows: the built-in ones and those that CustomResourceDefinitions add.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::value::{list_at, str_at};

/// Where a kind keeps what its scale subresource shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    /// A string (custom resources) or a label selector object (built-in kinds).
    pub selector: Option<Vec<String>>,
}

/// One kind and how it is served.
#[derive(Clone, Debug)]
pub(crate) struct ResourceType {
    /// `deployments.apps`, `pods`: what error messages and faults call it, and the key of its table.
    pub id: String,
    pub group: String,
    /// Served versions, preferred one first.
    pub versions: Vec<String>,
    pub storage_version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Main writes leave `status` alone and status writes leave everything else alone.
    pub status: bool,
    pub scale: Option<ScalePaths>,
    pub builtin: bool,
    /// Whether `metadata.generation` is kept.
    pub generation: bool,
    /// Whether a PUT without a resourceVersion is accepted.
    pub unconditional_update: bool,
    /// Structural schema per version.
    pub schemas: BTreeMap<String, Value>,
    /// `additionalPrinterColumns` per version.
    pub columns: BTreeMap<String, Value>,
}

impl ResourceType {
    /// `group/version` as in `apiVersion`.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    pub fn storage_api_version(&self) -> String {
        self.api_version(&self.storage_version)
    }

    /// The verbs of the main resource, for discovery.
    pub fn verbs() -> Value {
        json!([
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch"
        ])
    }
}

/// Key of the table of a group and plural.
pub(crate) fn table_id(group: &str, plural: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    scale: bool,
    generation: bool,
    unconditional: bool,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Builtin {
    Builtin {
        group,
        version,
        kind,
        plural,
        short: &[],
        categories: &[],
        namespaced: true,
        status: false,
        scale: false,
        generation: false,
        unconditional: true,
    }
}

const BUILTINS: &[Builtin] = &[
    Builtin {
        namespaced: false,
        status: true,
        short: &["ns"],
        ..kind("", "v1", "Namespace", "namespaces")
    },
    Builtin {
        namespaced: false,
        status: true,
        short: &["no"],
        ..kind("", "v1", "Node", "nodes")
    },
    Builtin {
        status: true,
        generation: true,
        short: &["po"],
        categories: &["all"],
        ..kind("", "v1", "Pod", "pods")
    },
    Builtin {
        status: true,
        short: &["svc"],
        categories: &["all"],
        ..kind("", "v1", "Service", "services")
    },
    Builtin {
        short: &["ep"],
        ..kind("", "v1", "Endpoints", "endpoints")
    },
    Builtin {
        short: &["cm"],
        ..kind("", "v1", "ConfigMap", "configmaps")
    },
    kind("", "v1", "Secret", "secrets"),
    Builtin {
        short: &["sa"],
        ..kind("", "v1", "ServiceAccount", "serviceaccounts")
    },
    Builtin {
        short: &["ev"],
        ..kind("", "v1", "Event", "events")
    },
    Builtin {
        status: true,
        scale: true,
        generation: true,
        short: &["deploy"],
        categories: &["all"],
        ..kind("apps", "v1", "Deployment", "deployments")
    },
    Builtin {
        status: true,
        scale: true,
        generation: true,
        short: &["rs"],
        categories: &["all"],
        ..kind("apps", "v1", "ReplicaSet", "replicasets")
    },
    Builtin {
        status: true,
        scale: true,
        generation: true,
        short: &["sts"],
        categories: &["all"],
        ..kind("apps", "v1", "StatefulSet", "statefulsets")
    },
    Builtin {
        generation: true,
        ..kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
    },
    Builtin {
        unconditional: false,
        ..kind("coordination.k8s.io", "v1", "Lease", "leases")
    },
    Builtin {
        status: true,
        generation: true,
        short: &["ing"],
        ..kind("networking.k8s.io", "v1", "Ingress", "ingresses")
    },
    Builtin {
        namespaced: false,
        ..kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
    },
    Builtin {
        status: true,
        short: &["hpa"],
        categories: &["all"],
        ..kind(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        )
    },
    Builtin {
        namespaced: false,
        status: true,
        generation: true,
        unconditional: false,
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        ..kind(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
    },
];

/// Events have one table and two faces: `v1` and `events.k8s.io/v1`.
pub(crate) const EVENTS_GROUP: &str = "events.k8s.io";

fn paths(text: &str) -> Vec<String> {
    text.trim_start_matches('.')
        .split('.')
        .map(str::to_owned)
        .collect()
}

pub(crate) fn builtins() -> Vec<ResourceType> {
    BUILTINS
        .iter()
        .map(|b| ResourceType {
            id: table_id(b.group, b.plural),
            group: b.group.to_owned(),
            versions: vec![b.version.to_owned()],
            storage_version: b.version.to_owned(),
            kind: b.kind.to_owned(),
            list_kind: format!("{}List", b.kind),
            plural: b.plural.to_owned(),
            singular: b.kind.to_lowercase(),
            short_names: b.short.iter().map(|s| (*s).to_owned()).collect(),
            categories: b.categories.iter().map(|s| (*s).to_owned()).collect(),
            namespaced: b.namespaced,
            status: b.status,
            scale: b.scale.then(|| ScalePaths {
                spec_replicas: paths("spec.replicas"),
                status_replicas: paths("status.replicas"),
                selector: Some(paths("spec.selector")),
            }),
            builtin: true,
            generation: b.generation,
            unconditional_update: b.unconditional,
            schemas: BTreeMap::new(),
            columns: BTreeMap::new(),
        })
        .collect()
}

/// The kind that a CustomResourceDefinition describes, or what is wrong with it.
pub(crate) fn from_crd(crd: &Value) -> Result<ResourceType, String> {
    let spec = crd.get("spec").ok_or("spec is missing")?;
    let text = |path: &str| str_at(spec, path).filter(|s| !s.is_empty()).map(str::to_owned);
    let group = text("group").ok_or("spec.group is missing")?;
    let plural = text("names.plural").ok_or("spec.names.plural is missing")?;
    let kind = text("names.kind").ok_or("spec.names.kind is missing")?;
    let strings = |path: &str| -> Vec<String> {
        list_at(spec, path)
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let mut rt = ResourceType {
        id: table_id(&group, &plural),
        versions: Vec::new(),
        storage_version: String::new(),
        list_kind: text("names.listKind").unwrap_or_else(|| format!("{kind}List")),
        singular: text("names.singular").unwrap_or_else(|| kind.to_lowercase()),
        short_names: strings("names.shortNames"),
        categories: strings("names.categories"),
        namespaced: text("scope").as_deref() != Some("Cluster"),
        status: false,
        scale: None,
        builtin: false,
        generation: true,
        unconditional_update: false,
        schemas: BTreeMap::new(),
        columns: BTreeMap::new(),
        group,
        plural,
        kind,
    };
    for v in list_at(spec, "versions") {
        let name = str_at(v, "name").ok_or("a version has no name")?.to_owned();
        if v.get("storage") == Some(&Value::Bool(true)) {
            rt.storage_version.clone_from(&name);
        }
        if v.pointer("/subresources/status").is_some() {
            rt.status = true;
        }
        if let Some(s) = v.pointer("/subresources/scale") {
            rt.scale = Some(ScalePaths {
                spec_replicas: paths(str_at(s, "specReplicasPath").ok_or("scale has no specReplicasPath")?),
                status_replicas: paths(
                    str_at(s, "statusReplicasPath").ok_or("scale has no statusReplicasPath")?,
                ),
                selector: str_at(s, "labelSelectorPath").map(paths),
            });
        }
        if let Some(schema) = v.pointer("/schema/openAPIV3Schema") {
            rt.schemas.insert(name.clone(), schema.clone());
        }
        if let Some(columns) = v.get("additionalPrinterColumns") {
            rt.columns.insert(name.clone(), columns.clone());
        }
        if v.get("served") != Some(&Value::Bool(false)) {
            rt.versions.push(name);
        }
    }
    if rt.storage_version.is_empty() {
        return Err("no version is the storage version".into());
    }
    // Kubernetes prefers stable versions, then beta, then alpha, newest first.
    rt.versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
    Ok(rt)
}

fn version_rank(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or("");
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    let major = rest[..digits].parse().unwrap_or(0);
    let tail = &rest[digits..];
    match tail {
        "" if digits > 0 => (3, major, 0),
        t if t.starts_with("beta") => (2, major, t[4..].parse().unwrap_or(0)),
        t if t.starts_with("alpha") => (1, major, t[5..].parse().unwrap_or(0)),
        _ => (0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_as_kubernetes_does() {
        let mut v = vec!["v1alpha1", "v2", "v1beta2", "v1", "v1beta10"];
        v.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(v, ["v2", "v1", "v1beta10", "v1beta2", "v1alpha1"]);
    }
}
