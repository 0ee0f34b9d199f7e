//! What an image is made from, and when: nothing of it depends on the machine or the hour.

use std::collections::BTreeMap;
use std::env;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use xtask_command::Cmd;
use xtask_oci::rfc3339;

/// Where the sources come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Version of the workspace.
    pub version: String,
    /// Its licence, as SPDX writes it.
    pub licence: String,
    /// Seconds since 1970: SOURCE_DATE_EPOCH, or the time of the commit.
    pub created: u64,
    /// The commit, with `-dirty` when files differ from it. None where there is no git.
    pub revision: Option<String>,
}

impl Origin {
    /// Asks the environment and git.
    pub fn of(workspace: &Workspace) -> Result<Self> {
        let git = |args: &[&str]| {
            let command = Cmd::new("git").args(args).dir(workspace.root());
            command.output().ok().map(|text| text.trim().to_owned())
        };
        let revision = git(&["rev-parse", "HEAD"]).map(|commit| {
            let changed = git(&["status", "--porcelain"]).is_some_and(|files| !files.is_empty());
            if changed { commit + "-dirty" } else { commit }
        });
        let said = env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty());
        let created = match said.or_else(|| git(&["log", "-1", "--format=%ct"])) {
            Some(text) => text.parse().with_context(|| {
                format!("SOURCE_DATE_EPOCH must be a number of seconds since 1970, not `{text}`")
            })?,
            // An archive of the sources, without git and without a word about its time.
            None => 0,
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            licence: env!("CARGO_PKG_LICENSE").to_owned(),
            created,
            revision,
        })
    }

    /// The labels that registries and tools know.
    pub fn labels(&self, title: &str, description: &str) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = [
            ("title", title),
            ("description", description),
            ("version", &self.version),
            ("licenses", &self.licence),
            ("created", &rfc3339(self.created)),
        ]
        .into_iter()
        .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned()))
        .collect();
        if let Some(revision) = &self.revision {
            labels.insert("org.opencontainers.image.revision".to_owned(), revision.clone());
        }
        labels
    }
}
