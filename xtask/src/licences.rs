//! Licences of everything that is built, against the list in deny.toml. Needs nothing but cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail};
use spdx::{Expression, ParseMode};

use crate::outcome::Outcome;
use crate::workspace::Workspace;

/// Asks cargo for the licence of every dependency, build and test dependencies and other platforms' included.
pub fn check(workspace: &Workspace) -> Result<Outcome> {
    let allowed = allowed(&fs::read_to_string(workspace.path("deny.toml"))?)?;
    let listing = workspace
        .cargo("tree")
        .args([
            "--workspace",
            "--all-features",
            "--target",
            "all",
            "--edges",
            "normal,build,dev",
        ])
        .args(["--prefix", "none", "--format", "{p}|{l}"])
        .output()?;
    let licences: BTreeMap<&str, &str> = listing
        .lines()
        .filter_map(|line| line.split_once('|'))
        // Our own crates come with their path; what was listed before is marked.
        .map(|(package, licence)| {
            (
                package.split(" (").next().unwrap_or(package),
                licence.trim_end_matches(" (*)"),
            )
        })
        .collect();
    if licences.len() < 10 {
        bail!("cargo tree listed only {} packages", licences.len());
    }
    let wrong: Vec<_> = licences
        .iter()
        .filter(|(_, licence)| !is_allowed(licence, &allowed))
        .map(|(package, licence)| {
            format!(
                "{package}: {}",
                if licence.is_empty() { "no licence" } else { licence }
            )
        })
        .collect();
    if wrong.is_empty() {
        Ok(Outcome::Passed(format!("{} packages", licences.len())))
    } else {
        Ok(Outcome::Failed(format!(
            "not in the list of deny.toml\n    {}",
            wrong.join("\n    ")
        )))
    }
}

/// The strings of `allow` in `[licenses]`.
fn allowed(deny: &str) -> Result<BTreeSet<String>> {
    let section = deny
        .split_once("\n[licenses]\n")
        .context("deny.toml has no [licenses]")?
        .1;
    let list = section
        .split_once("allow = [")
        .context("deny.toml has no list of licences")?
        .1;
    let list = list
        .split_once("\n]")
        .context("the list of licences in deny.toml does not end")?
        .0;
    Ok(list
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect())
}

/// An SPDX expression holds when the names in the list satisfy it. `/` is how OR used to be written.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    Expression::parse_mode(expression, ParseMode::LAX)
        .is_ok_and(|expression| expression.evaluate(|licence| allowed.contains(&licence.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_means_them() {
        let list = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
            .map(str::to_owned)
            .into();
        for fine in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "GPL-3.0 AND MIT OR Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(fine, &list), "{fine}");
        }
        for wrong in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "MIT WITH LLVM-exception",
            "(MIT",
            "MIT MIT",
        ] {
            assert!(!is_allowed(wrong, &list), "{wrong}");
        }
    }

    #[test]
    fn the_list_of_deny_toml_is_found() {
        let text = fs::read_to_string(Workspace::locate().unwrap().path("deny.toml")).unwrap();
        let list = allowed(&text).unwrap();
        assert!(
            list.contains("MIT") && list.contains("Apache-2.0 WITH LLVM-exception"),
            "{list:?}"
        );
        assert!(!list.contains("ring"), "comments are not licences");
    }
}
