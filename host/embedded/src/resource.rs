//! The kinds that the API server knows: the built-in ones and those that CustomResourceDefinitions add.

use std::collections::BTreeMap;

use serde_json::Value;

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

    /// The schema of a version, if there is one.
    pub fn schema(&self, version: &str) -> Option<&Value> {
        let of = |version: &str| self.schemas.get(version);
        of(version).or_else(|| of(&self.storage_version))
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

/// Group and version, kind, plural, short names, and what the kind has: `c`luster scope, `s`tatus, `r`eplicas (a scale),
/// `g`eneration, `a` place in `kubectl get all`, `v`ersions that every update must name.
const BUILTINS: &[(&str, &str, &str, &str, &str)] = &[
    ("v1", "Namespace", "namespaces", "ns", "cs"),
    ("v1", "Node", "nodes", "no", "cs"),
    ("v1", "Pod", "pods", "po", "sga"),
    ("v1", "Service", "services", "svc", "sa"),
    ("v1", "Endpoints", "endpoints", "ep", ""),
    ("v1", "ConfigMap", "configmaps", "cm", ""),
    ("v1", "Secret", "secrets", "", ""),
    ("v1", "ServiceAccount", "serviceaccounts", "sa", ""),
    ("v1", "Event", "events", "ev", ""),
    ("apps/v1", "Deployment", "deployments", "deploy", "srga"),
    ("apps/v1", "ReplicaSet", "replicasets", "rs", "srga"),
    ("apps/v1", "StatefulSet", "statefulsets", "sts", "srga"),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "", "g"),
    ("coordination.k8s.io/v1", "Lease", "leases", "", "v"),
    ("networking.k8s.io/v1", "Ingress", "ingresses", "ing", "sg"),
    ("networking.k8s.io/v1", "IngressClass", "ingressclasses", "", "c"),
    (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        "sa",
    ),
    (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd crds",
        "csgv",
    ),
];

/// Events have one table and two faces: `v1` and `events.k8s.io/v1`.
pub(crate) const EVENTS_GROUP: &str = "events.k8s.io";

fn paths(text: &str) -> Vec<String> {
    text.trim_start_matches('.')
        .split('.')
        .map(str::to_owned)
        .collect()
}

pub(crate) fn builtins() -> impl Iterator<Item = ResourceType> {
    BUILTINS.iter().map(|&(api_version, kind, plural, short, has)| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let has = |what: char| has.contains(what);
        ResourceType {
            id: table_id(group, plural),
            group: group.to_owned(),
            versions: vec![version.to_owned()],
            storage_version: version.to_owned(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: short.split_whitespace().map(str::to_owned).collect(),
            categories: has('a').then(|| "all".to_owned()).into_iter().collect(),
            namespaced: !has('c'),
            status: has('s'),
            scale: has('r').then(|| ScalePaths {
                spec_replicas: paths("spec.replicas"),
                status_replicas: paths("status.replicas"),
                selector: Some(paths("spec.selector")),
            }),
            builtin: true,
            generation: has('g'),
            unconditional_update: !has('v'),
            schemas: BTreeMap::new(),
            columns: BTreeMap::new(),
        }
    })
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
