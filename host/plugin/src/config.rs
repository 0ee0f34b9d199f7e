//! What an operator configures for one plugin.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Grants, LimitsOverride};

/// What an operator configures for one plugin. The default grants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginConfig {
    /// What the plugin may do. Deny by default.
    pub grants: Grants,
    /// What `config.get` answers. Never secrets: `dormouse plugin inspect` and logs may show it.
    pub config: BTreeMap<String, String>,
    /// Limits that differ from the host's.
    pub limits: LimitsOverride,
}
