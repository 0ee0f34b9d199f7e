//! What a plugin says that it is.

use serde::Serialize;
use serde_json::Value;

/// What a plugin says that it is. It is checked for its shape only, and nothing is granted by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// In a few words.
    pub title: String,
    /// Its own version.
    pub version: String,
    /// JSON Schema of its configuration. None: it reads none.
    pub config_schema: Option<Value>,
    /// What the operator has to grant.
    pub wants: Vec<WantedGrant>,
}

/// Something that the operator has to grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WantedGrant {
    /// Its name under `grants`.
    pub name: String,
    /// Its value there.
    pub value: Value,
    /// What for.
    pub why: String,
}
