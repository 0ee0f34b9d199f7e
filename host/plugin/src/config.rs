//! What an operator configures for one plugin.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::{Grants, LimitsOverride, PluginError};

/// What an operator configures for one plugin. The default grants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginConfig {
    /// What the plugin may do. Deny by default.
    pub grants: Grants,
    /// What `config.get` answers. Never secrets: `dormouse plugin inspect` and logs may show it.
    pub config: BTreeMap<String, String>,
    /// The time zone of the plugin, a name of the IANA database: `Europe/Vienna`. Default: `UTC`.
    pub time_zone: Option<String>,
    /// Limits that differ from the host's.
    pub limits: LimitsOverride,
}

impl PluginConfig {
    /// The time zone of the plugin.
    pub(crate) fn zone(&self) -> Result<TimeZone, PluginError> {
        let Some(name) = &self.time_zone else {
            return Ok(TimeZone::UTC);
        };
        dormouse_model::time_zone(name).ok_or_else(|| PluginError::InvalidConfiguration {
            reason: format!(
                "timeZone {name:?} is no time zone; write one of the IANA database, such as Europe/Vienna"
            ),
        })
    }
}
