//! Who declares what there is to scale.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What kind of thing declares a resource.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum OwnerKind {
    /// A resource-scaler in the plugins directory.
    #[default]
    Plugin,
    /// KEDA's ScaledObject.
    ScaledObject,
    /// KEDA's ScaledJob.
    ScaledJob,
    /// MemHpa.
    MemHpa,
    /// CustomPodAutoscaler.
    CustomPodAutoscaler,
}

impl OwnerKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Plugin,
        Self::ScaledObject,
        Self::ScaledJob,
        Self::MemHpa,
        Self::CustomPodAutoscaler,
    ];

    /// The name, as it stands in objects.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "Plugin",
            Self::ScaledObject => "ScaledObject",
            Self::ScaledJob => "ScaledJob",
            Self::MemHpa => "MemHpa",
            Self::CustomPodAutoscaler => "CustomPodAutoscaler",
        }
    }
}

impl fmt::Display for OwnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no kind of owner.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} declares nothing; known are Plugin, ScaledObject, ScaledJob, MemHpa and CustomPodAutoscaler")]
pub struct UnknownOwnerKind(pub String);

impl FromStr for OwnerKind {
    type Err = UnknownOwnerKind;

    fn from_str(name: &str) -> Result<Self, UnknownOwnerKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| UnknownOwnerKind(name.to_owned()))
    }
}

/// Who declares a resource: part of its identity, so that two owners may use one name for different things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// What it is.
    #[serde(default)]
    pub kind: OwnerKind,
    /// Name of the plugin, or of the object in the target's namespace; empty for all objects of a kind together.
    pub name: String,
    /// Uid of the object, where it is one: an object that is created anew under the same name is another owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Owner {
    /// A plugin.
    pub fn plugin(name: impl Into<String>) -> Self {
        Self {
            kind: OwnerKind::Plugin,
            name: name.into(),
            uid: None,
        }
    }

    /// All objects of a kind together.
    pub fn all_of(kind: OwnerKind) -> Self {
        Self {
            kind,
            name: String::new(),
            uid: None,
        }
    }

    /// Whether it is this owner, or all objects of its kind together.
    pub fn includes(&self, owner: &Self) -> bool {
        self == owner || *self == Self::all_of(owner.kind)
    }

    /// The plugin's name, if it is one.
    pub fn as_plugin(&self) -> Option<&str> {
        (self.kind == OwnerKind::Plugin).then_some(self.name.as_str())
    }
}

impl fmt::Display for Owner {
    /// `plugin workloads`, `ScaledObject web`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            OwnerKind::Plugin => write!(f, "plugin {}", self.name),
            kind if self.name.is_empty() => write!(f, "{kind}"),
            kind => write!(f, "{kind} {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in OwnerKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!("plugin".parse::<OwnerKind>().is_err());
    }

    #[test]
    fn all_objects_of_a_kind_include_each_of_them() {
        let one = Owner {
            kind: OwnerKind::MemHpa,
            name: "web".to_owned(),
            uid: Some("1".to_owned()),
        };
        assert!(Owner::all_of(OwnerKind::MemHpa).includes(&one) && one.includes(&one));
        assert!(!Owner::all_of(OwnerKind::ScaledJob).includes(&one));
        assert!(!one.includes(&Owner::all_of(OwnerKind::MemHpa)));
        assert!(!Owner::plugin("workloads").includes(&Owner::plugin("other")));
    }
}
