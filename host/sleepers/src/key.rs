//! Identity of a Sleeper, and the object name that follows from it.

use std::fmt;

use dormouse_model::{Owner, OwnerKind, fnv1a, is_dns_subdomain};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::api::Sleeper;

/// Longest name: it is also the value of the label that a parked selector asks for.
const LONGEST: usize = 63;

/// Which resource: two owners, or two namespaces, may use the same name without mixing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SleeperKey {
    /// Who declared it.
    pub owner: Owner,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource, as its owner calls it.
    pub resource: String,
}

impl SleeperKey {
    /// The key of a resource.
    pub fn new(owner: Owner, namespace: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            owner,
            namespace: namespace.into(),
            resource: resource.into(),
        }
    }

    /// The key of a plugin's resource.
    pub fn of_plugin(
        plugin: impl Into<String>,
        namespace: impl Into<String>,
        resource: impl Into<String>,
    ) -> Self {
        Self::new(Owner::plugin(plugin), namespace, resource)
    }

    /// The key that a Sleeper was made from.
    pub fn of(sleeper: &Sleeper) -> Self {
        Self::new(
            sleeper.spec.owner(),
            sleeper.namespace().unwrap_or_default(),
            &sleeper.spec.resource,
        )
    }

    /// Name of the Sleeper: `<resource>.<plugin>`, or `<resource>.<kind>` for the object that declared it, where that is a valid
    /// name, unambiguous and short enough (no dot in the last part makes the last dot the border); otherwise as much of it as
    /// fits, and a hash.
    pub fn object_name(&self) -> String {
        let owner = match self.owner.kind {
            OwnerKind::Plugin => self.owner.name.clone(),
            kind => kind.as_str().to_ascii_lowercase(),
        };
        let plain = format!("{}.{owner}", self.resource);
        if plain.len() <= LONGEST && !owner.contains('.') && is_dns_subdomain(&plain) {
            return plain;
        }
        let digest = Sha256::new()
            .chain_update(owner.as_bytes())
            .chain_update([0])
            .chain_update(self.resource.as_bytes())
            .finalize();
        let hash: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
        let mut readable: String = plain
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| {
                if c.is_ascii_lowercase() || c.is_ascii_digit() {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        readable.truncate(LONGEST - hash.len() - 1);
        let readable = readable.trim_matches('-');
        if readable.is_empty() {
            hash
        } else {
            format!("{readable}-{hash}")
        }
    }
}

impl fmt::Display for SleeperKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of {}", self.namespace, self.resource, self.owner)
    }
}

/// A number from the name of a Sleeper. It spreads what would otherwise happen to many Sleepers at the same moment.
pub(crate) fn seed(namespace: &str, name: &str) -> u64 {
    fnv1a(&format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("workloads", "web", "web.workloads")]
    #[case("workloads", "a.b", "a.b.workloads")]
    fn plain_names_stay_readable(#[case] plugin: &str, #[case] resource: &str, #[case] expected: &str) {
        assert_eq!(
            SleeperKey::of_plugin(plugin, "default", resource).object_name(),
            expected
        );
    }

    #[test]
    fn an_object_gives_its_kind() {
        let owner = Owner {
            kind: OwnerKind::ScaledObject,
            name: "web".to_owned(),
            uid: Some("1".to_owned()),
        };
        let key = SleeperKey::new(owner, "default", "web");
        assert_eq!(key.object_name(), "web.scaledobject");
        assert_eq!(key.to_string(), "default/web of ScaledObject web");
    }

    #[rstest]
    #[case("workloads", "Web_1")]
    #[case("my.plugin", "web")]
    #[case("workloads", "-")]
    #[case(
        "workloads",
        "a-name-that-is-so-long-that-it-does-not-fit-into-a-label-value-of-kubernetes"
    )]
    #[case("ÄÖ", "ß")]
    fn others_get_a_hash_and_stay_valid(#[case] plugin: &str, #[case] resource: &str) {
        let name = SleeperKey::of_plugin(plugin, "default", resource).object_name();
        assert!(name.len() <= LONGEST && is_dns_subdomain(&name), "{name}");
        assert_eq!(
            name,
            SleeperKey::of_plugin(plugin, "other", resource).object_name()
        );
    }

    #[test]
    fn keys_that_look_alike_get_different_names() {
        let keys = [
            ("a.b", "c"),
            ("b", "c.a"),
            ("a", "b.c"),
            ("a-b", "c"),
            ("A", "c"),
            ("a", "c"),
            ("a", "C"),
        ];
        let names: std::collections::BTreeSet<_> = keys
            .iter()
            .map(|(plugin, resource)| SleeperKey::of_plugin(*plugin, "n", *resource).object_name())
            .collect();
        assert_eq!(names.len(), keys.len());
    }
}
