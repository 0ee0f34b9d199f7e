//! What a plugin may do: granted by the operator, denied by default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dormouse_model::ObjectKey;
use dormouse_sleepers::SleepGrant;
use serde::{Deserialize, Serialize};

/// What a plugin may do. Everything that is not listed is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Grants {
    /// Kinds and verbs of the `kubernetes` interface.
    pub kubernetes: Vec<KubernetesGrant>,
    /// The `lifecycle` interface: what the plugin may put to sleep.
    pub lifecycle: LifecycleGrant,
    /// Events on objects, through the `kubernetes` interface.
    pub events: bool,
}

/// What a plugin may put to sleep. Waking its own resources is always allowed with it. Whatever it says, Dormouse itself and the
/// namespaces of Kubernetes are never put to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LifecycleGrant {
    /// `true`: every kind in every namespace. `false`, the default: nothing, and the interface is not linked.
    All(bool),
    /// These only. An empty list is nothing.
    These(Vec<SleepRule>),
}

impl LifecycleGrant {
    /// Every kind in every namespace.
    pub const EVERYTHING: LifecycleGrant = LifecycleGrant::All(true);
}

impl Default for LifecycleGrant {
    fn default() -> LifecycleGrant {
        LifecycleGrant::All(false)
    }
}

/// One kind that a plugin may put to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SleepRule {
    /// `apps/v1`, or `*` for every group and version.
    pub api_version: String,
    /// `Deployment`, or `*` for every kind.
    pub kind: String,
    /// Where. None: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Labels that the workload has to carry, as in a `matchLabels` of Kubernetes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// One line of a plugin's Kubernetes grants: these verbs on this kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, try_from = "Written")]
pub struct KubernetesGrant {
    /// `v1`, `apps/v1`, or `*` for every group and version.
    pub api_version: String,
    /// `Deployment`, or `*` for every kind.
    pub kind: String,
    /// What may be done.
    pub verbs: BTreeSet<Verb>,
    /// Where. None: every namespace, and cluster-scoped objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Which objects. None: all. A grant with names does not cover `list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
}

/// A [`KubernetesGrant`] as it is written, before it is known to make sense.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    api_version: String,
    kind: String,
    verbs: Vec<Verb>,
    #[serde(default)]
    namespaces: Option<Vec<String>>,
    #[serde(default)]
    names: Option<Vec<String>>,
}

impl TryFrom<Written> for KubernetesGrant {
    type Error = String;

    fn try_from(written: Written) -> Result<KubernetesGrant, String> {
        let Written {
            api_version,
            kind,
            verbs,
            namespaces,
            names,
        } = written;
        if api_version.is_empty() || kind.is_empty() {
            return Err(
                "a grant needs an apiVersion and a kind, such as apps/v1 and Deployment; `*` is any".into(),
            );
        }
        if verbs.is_empty() {
            return Err(format!(
                "the grant for {api_version} {kind} has no verbs; valid are {}",
                Verb::names()
            ));
        }
        for (what, list) in [("namespaces", &namespaces), ("names", &names)] {
            if list.as_ref().is_some_and(Vec::is_empty) {
                return Err(format!(
                    "the grant for {api_version} {kind} has an empty list of {what}; leave it out to mean all"
                ));
            }
        }
        Ok(KubernetesGrant {
            api_version,
            kind,
            verbs: verbs.into_iter().collect(),
            namespaces,
            names,
        })
    }
}

/// What can be done with a Kubernetes object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read many objects.
    List,
    /// Create an object.
    Create,
    /// Patch an object, without its subresources.
    Patch,
    /// Patch the status subresource.
    PatchStatus,
    /// Patch the scale subresource.
    PatchScale,
    /// Server-side apply.
    Apply,
    /// Delete an object.
    Delete,
}

impl Verb {
    const ALL: [Verb; 8] = [
        Verb::Get,
        Verb::List,
        Verb::Create,
        Verb::Patch,
        Verb::PatchStatus,
        Verb::PatchScale,
        Verb::Apply,
        Verb::Delete,
    ];

    /// As it is written in a grant.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Patch => "patch",
            Verb::PatchStatus => "patch-status",
            Verb::PatchScale => "patch-scale",
            Verb::Apply => "apply",
            Verb::Delete => "delete",
        }
    }

    fn names() -> String {
        Verb::ALL.map(Verb::as_str).join(", ")
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A grant that a guest would have needed. Its text reaches the guest in the typed `denied` error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingGrant {
    plugin: String,
    wanted: String,
    line: String,
}

impl fmt::Display for MissingGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MissingGrant { plugin, wanted, line } = self;
        write!(
            f,
            "plugin `{plugin}` is not granted {wanted}; the operator can add to plugins.{plugin}.grants: {line}"
        )
    }
}

/// What a guest wants to do, as far as grants care.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub verb: Verb,
    pub api_version: &'a str,
    pub kind: &'a str,
    pub namespace: Option<&'a str>,
    /// None: many objects.
    pub name: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn object(verb: Verb, key: &'a ObjectKey) -> Wanted<'a> {
        Wanted {
            verb,
            api_version: &key.api_version,
            kind: &key.kind,
            namespace: key.namespace.as_deref(),
            name: Some(&key.name),
        }
    }
}

impl Grants {
    /// True when the `lifecycle` interface is linked.
    #[must_use]
    pub fn links_lifecycle(&self) -> bool {
        match &self.lifecycle {
            LifecycleGrant::All(all) => *all,
            LifecycleGrant::These(rules) => !rules.is_empty(),
        }
    }

    /// What it may put to sleep, for [`dormouse_sleepers::Config::sleep_grants`].
    #[must_use]
    pub fn sleep_grants(&self) -> Vec<SleepGrant> {
        match &self.lifecycle {
            LifecycleGrant::All(false) => Vec::new(),
            LifecycleGrant::All(true) => vec![SleepGrant {
                api_version: "*".to_owned(),
                kind: "*".to_owned(),
                namespaces: None,
                match_labels: BTreeMap::new(),
            }],
            LifecycleGrant::These(rules) => rules
                .iter()
                .cloned()
                .map(|rule| SleepGrant {
                    api_version: rule.api_version,
                    kind: rule.kind,
                    namespaces: rule.namespaces,
                    match_labels: rule.match_labels,
                })
                .collect(),
        }
    }

    /// True when the `kubernetes` interface is linked.
    #[must_use]
    pub fn links_kubernetes(&self) -> bool {
        self.events || !self.kubernetes.is_empty()
    }

    pub(crate) fn check(&self, plugin: &str, wanted: Wanted<'_>) -> Result<(), MissingGrant> {
        if self.kubernetes.iter().any(|grant| grant.covers(wanted)) {
            return Ok(());
        }
        let Wanted {
            verb,
            api_version,
            kind,
            namespace,
            name,
        } = wanted;
        let place = match (namespace, name) {
            (Some(namespace), Some(name)) => format!(" `{namespace}/{name}`"),
            (Some(namespace), None) => format!(" in namespace `{namespace}`"),
            (None, Some(name)) => format!(" `{name}`"),
            (None, None) => " in every namespace".to_owned(),
        };
        Err(MissingGrant {
            plugin: plugin.to_owned(),
            wanted: format!("`{verb}` on {api_version} {kind}{place}"),
            line: format!("kubernetes: [{{apiVersion: {api_version}, kind: {kind}, verbs: [{verb}]}}]"),
        })
    }

    pub(crate) fn check_event(&self, plugin: &str) -> Result<(), MissingGrant> {
        if self.events {
            return Ok(());
        }
        Err(MissingGrant {
            plugin: plugin.to_owned(),
            wanted: "to record Events".into(),
            line: "events: true".into(),
        })
    }
}

impl KubernetesGrant {
    fn covers(&self, wanted: Wanted<'_>) -> bool {
        fn listed(list: Option<&Vec<String>>, value: Option<&str>) -> bool {
            list.is_none_or(|list| value.is_some_and(|value| list.iter().any(|entry| entry == value)))
        }
        let pattern = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        pattern(&self.api_version, wanted.api_version)
            && pattern(&self.kind, wanted.kind)
            && self.verbs.contains(&wanted.verb)
            && listed(self.namespaces.as_ref(), wanted.namespace)
            && listed(self.names.as_ref(), wanted.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(yaml: &str) -> Result<Grants, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    fn wanted<'a>(
        verb: Verb,
        kind: &'a str,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
    ) -> Wanted<'a> {
        Wanted {
            verb,
            api_version: "apps/v1",
            kind,
            namespace,
            name,
        }
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let none = Grants::default();
        assert!(!none.links_kubernetes() && !none.links_lifecycle() && none.sleep_grants().is_empty());
        for verb in Verb::ALL {
            assert!(
                none.check("p", wanted(verb, "Deployment", Some("a"), Some("x")))
                    .is_err()
            );
        }
        assert!(none.check_event("p").is_err());
    }

    #[test]
    fn a_grant_covers_exactly_what_it_says() {
        let some = grants("kubernetes: [{apiVersion: apps/v1, kind: Deployment, verbs: [get, patch-scale]}]")
            .unwrap();
        let check = |verb, kind| some.check("p", wanted(verb, kind, Some("a"), Some("x"))).is_ok();
        assert!(check(Verb::Get, "Deployment"));
        assert!(check(Verb::PatchScale, "Deployment"));
        assert!(
            !check(Verb::Patch, "Deployment"),
            "the scale subresource is not the object"
        );
        assert!(!check(Verb::Get, "StatefulSet"));
        let mut other = wanted(Verb::Get, "Deployment", Some("a"), Some("x"));
        other.api_version = "extensions/v1";
        assert!(some.check("p", other).is_err());
    }

    #[test]
    fn author_02_a_lifecycle_grant_names_what_may_sleep() {
        let all = grants("lifecycle: true").unwrap();
        assert!(all.links_lifecycle() && all.sleep_grants()[0].kind == "*");
        for nothing in ["lifecycle: false", "lifecycle: []"] {
            let none = grants(nothing).unwrap();
            assert!(
                !none.links_lifecycle() && none.sleep_grants().is_empty(),
                "{nothing}"
            );
        }
        let some = grants(
            "lifecycle: [{apiVersion: apps/v1, kind: Deployment, namespaces: [shop], matchLabels: {tier: web}}]",
        )
        .unwrap();
        assert!(some.links_lifecycle());
        let rule = &some.sleep_grants()[0];
        assert_eq!(rule.namespaces.as_deref(), Some(&["shop".to_owned()][..]));
        assert_eq!(rule.match_labels["tier"], "web");
        for wrong in [
            "lifecycle: yes please",
            "lifecycle: [{kind: Deployment}]",
            "lifecycle: [{apiVersion: v1, kind: Pod, verbs: []}]",
        ] {
            assert!(grants(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn namespaces_and_names_narrow_a_grant() {
        let some = grants(
            "kubernetes: [{apiVersion: '*', kind: '*', verbs: [get, list], namespaces: [a]},
                          {apiVersion: '*', kind: Secret, verbs: [get, list], names: [x]}]",
        )
        .unwrap();
        let check =
            |kind, namespace, name| some.check("p", wanted(Verb::List, kind, namespace, name)).is_ok();
        assert!(check("Deployment", Some("a"), None));
        assert!(!check("Deployment", Some("b"), None));
        assert!(
            !check("Deployment", None, None),
            "every namespace is more than one"
        );
        assert!(check("Secret", Some("b"), Some("x")));
        assert!(
            !check("Secret", Some("b"), None),
            "a grant by name does not cover list"
        );
    }

    #[test]
    fn a_typo_is_answered_with_the_valid_names() {
        let error = grants("kubernetes: [{apiVersion: v1, kind: Pod, verbs: [gett]}]").unwrap_err();
        assert!(
            error.contains("gett") && error.contains("patch-status") && error.contains("`get`"),
            "{error}"
        );
        let error = grants("lifecyle: true").unwrap_err();
        assert!(
            error.contains("lifecyle") && error.contains("lifecycle"),
            "{error}"
        );
        let error = grants("kubernetes: [{apiVersion: v1, kind: Pod, verbs: []}]").unwrap_err();
        assert!(
            error.contains("has no verbs") && error.contains("delete"),
            "{error}"
        );
        let error =
            grants("kubernetes: [{apiVersion: v1, kind: Pod, verbs: [get], namespaces: []}]").unwrap_err();
        assert!(error.contains("leave it out"), "{error}");
    }

    #[test]
    fn a_denial_names_the_line_that_would_grant_it_and_the_line_is_valid() {
        let missing = Grants::default().check(
            "shop",
            wanted(Verb::PatchStatus, "Deployment", Some("a"), Some("x")),
        );
        let missing = missing.unwrap_err();
        let text = missing.to_string();
        assert!(
            text.contains("`patch-status` on apps/v1 Deployment `a/x`"),
            "{text}"
        );
        assert!(text.contains("plugins.shop.grants"), "{text}");
        let fixed = grants(&missing.line).unwrap();
        assert!(
            fixed
                .check(
                    "shop",
                    wanted(Verb::PatchStatus, "Deployment", Some("a"), Some("x"))
                )
                .is_ok()
        );
    }
}
