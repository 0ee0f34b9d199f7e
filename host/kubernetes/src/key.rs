//! Identity of a Sleeper, and the object name that follows from it.

use std::fmt;

use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::api::Sleeper;

/// Longest name: it is also the value of the label that a parked selector asks for.
const LONGEST: usize = 63;

/// Which resource: two plugins, or two namespaces, may use the same name without mixing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SleeperKey {
    /// Name of the plugin.
    pub plugin: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource, as the plugin calls it.
    pub resource: String,
}

impl SleeperKey {
    /// The key of a resource.
    pub fn new(plugin: impl Into<String>, namespace: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            plugin: plugin.into(),
            namespace: namespace.into(),
            resource: resource.into(),
        }
    }

    /// The key that a Sleeper was made from.
    pub fn of(sleeper: &Sleeper) -> Self {
        Self::new(
            &sleeper.spec.plugin,
            sleeper.namespace().unwrap_or_default(),
            &sleeper.spec.resource,
        )
    }

    /// Name of the Sleeper: `<resource>.<plugin>` where that is a valid name, unambiguous and short enough (a plugin's name
    /// without dots makes the last dot the border); otherwise as much of it as fits, and a hash.
    pub fn object_name(&self) -> String {
        let plain = format!("{}.{}", self.resource, self.plugin);
        if plain.len() <= LONGEST && !self.plugin.contains('.') && is_subdomain(&plain) {
            return plain;
        }
        let digest = Sha256::new()
            .chain_update(self.plugin.as_bytes())
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
        write!(f, "{}/{} of {}", self.namespace, self.resource, self.plugin)
    }
}

/// A DNS subdomain (RFC 1123) in lower case.
fn is_subdomain(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
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
            SleeperKey::new(plugin, "default", resource).object_name(),
            expected
        );
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
        let name = SleeperKey::new(plugin, "default", resource).object_name();
        assert!(name.len() <= LONGEST && is_subdomain(&name), "{name}");
        assert_eq!(name, SleeperKey::new(plugin, "other", resource).object_name());
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
            .map(|(plugin, resource)| SleeperKey::new(*plugin, "n", *resource).object_name())
            .collect();
        assert_eq!(names.len(), keys.len());
    }
}
