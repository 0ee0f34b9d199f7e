//! What a plugin may put to sleep.

use std::collections::BTreeMap;

use dormouse_model::ObjectKey;

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
    /// Whether it names the kind and the namespace of an object; its labels are not known here.
    pub(crate) fn covers(&self, object: &ObjectKey) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn author_02_a_grant_covers_what_it_names() {
        let grant = SleepGrant {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespaces: Some(vec!["shop".to_owned()]),
            match_labels: BTreeMap::new(),
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
            match_labels: BTreeMap::new(),
        };
        assert!(all.covers(&object("StatefulSet", "bank")));
    }
}
