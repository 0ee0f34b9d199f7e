//! Which object is meant.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object in a namespace that is known from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// Whether both name one object, whatever version of its group they name it by.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name && self.group() == other.group()
    }

    /// The API group; the core group is empty.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The same object with its namespace.
    pub fn in_namespace(&self, namespace: impl Into<String>) -> ObjectKey {
        ObjectKey {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: Some(namespace.into()),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for ObjectRef {
    /// `Deployment web`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// None for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// A kind in a group; the core group is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// Such as `apps`.
    pub group: String,
    /// Such as `Deployment`.
    pub kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(api_version: &str, name: &str) -> ObjectRef {
        ObjectRef {
            api_version: api_version.to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn an_object_is_the_same_in_every_version_of_its_group() {
        let web = object("apps/v1", "web");
        assert!(web.is_same(&object("apps/v1beta1", "web")));
        assert!(!web.is_same(&object("apps/v1", "api")));
        assert!(!web.is_same(&object("extensions/v1", "web")));
        assert!(!web.is_same(&object("v1", "web")));
        assert_eq!((web.group(), object("v1", "web").group()), ("apps", ""));
    }
}
