//! What cargo links into a program, and what only helps to build it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// A package in one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub name: String,
    pub version: String,
}

/// From a package to one that it uses.
pub type Edge = (Id, Id);

/// What is known about a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// As the manifest says it.
    pub licence: Option<String>,
    pub description: Option<String>,
    pub homepage: Option<String>,
    /// SHA-256 of the crate file, by the registry. Our own packages have none.
    pub checksum: Option<String>,
}

/// What a program is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Linked into it, the package itself included.
    pub linked: BTreeSet<Id>,
    /// Between linked packages.
    pub edges: BTreeSet<Edge>,
    /// Ran while it was built, such as procedural macros and build scripts' dependencies, and nothing more.
    pub tools: BTreeSet<Id>,
}

/// Asks cargo with the features and for the target that the program is really built with.
pub fn graph(workspace: &Workspace, package: &str, target: &str) -> Result<Graph> {
    let tree = |edges: &str| {
        workspace
            .cargo("tree")
            .args(["--locked", "--package", package, "--target", target])
            .args(["--edges", edges, "--prefix", "depth", "--format", " {p}"])
            .output()
    };
    let (linked, edges) = parse(&tree("normal,no-proc-macro")?)?;
    let (everything, _) = parse(&tree("normal,build")?)?;
    Ok(Graph {
        tools: everything.difference(&linked).cloned().collect(),
        linked,
        edges,
    })
}

/// Lines of `cargo tree --prefix depth --format ' {p}'`. What was shown before is shown again without what it uses,
/// which is no loss: its edges are known by then.
fn parse(tree: &str) -> Result<(BTreeSet<Id>, BTreeSet<Edge>)> {
    let mut packages = BTreeSet::new();
    let mut edges = BTreeSet::new();
    let mut above: Vec<Id> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let depth: Option<usize> = words.next().and_then(|depth| depth.parse().ok());
        let name = words.next();
        let version = words.next().and_then(|version| version.strip_prefix('v'));
        let (Some(depth), Some(name), Some(version)) = (depth, name, version) else {
            bail!("`cargo tree` wrote a line that is not understood: {line}");
        };
        if depth > above.len() {
            bail!("`cargo tree` left out a level before: {line}");
        }
        let id = Id {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        above.truncate(depth);
        if let Some(parent) = above.last() {
            edges.insert((parent.clone(), id.clone()));
        }
        packages.insert(id.clone());
        above.push(id);
    }
    Ok((packages, edges))
}

/// Facts about every package that the lock file names.
pub fn facts(workspace: &Workspace) -> Result<BTreeMap<Id, Facts>> {
    let text = workspace
        .cargo("metadata")
        .args(["--format-version", "1", "--locked"])
        .output()?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` did not write JSON")?;
    let lock = fs::read_to_string(workspace.path("Cargo.lock")).context("cannot read Cargo.lock")?;
    let checksums = checksums(&lock);
    let packages = metadata["packages"]
        .as_array()
        .context("`cargo metadata` names no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let id = Id {
                name: text("name")?,
                version: text("version")?,
            };
            let facts = Facts {
                licence: text("license"),
                description: text("description"),
                homepage: text("repository").or_else(|| text("homepage")),
                checksum: checksums.get(&id).cloned(),
            };
            Some((id, facts))
        })
        .collect())
}

/// The packages of Cargo.lock that have a checksum.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let field = |name: &str| {
                package
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
                    .map(str::to_owned)
            };
            let id = Id {
                name: field("name")?,
                version: field("version")?,
            };
            Some((id, field("checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
        }
    }

    #[test]
    fn the_tree_gives_packages_and_edges() {
        let tree =
            "0 a v1.0.0 (/somewhere/a)\n1 b v1.0.0\n2 c v1.0.0\n1 c v1.0.0 (*)\n1 d v1.0.0 (proc-macro)\n";
        let (packages, edges) = parse(tree).unwrap();
        assert_eq!(packages, BTreeSet::from(["a", "b", "c", "d"].map(id)));
        let expected = [("a", "b"), ("b", "c"), ("a", "c"), ("a", "d")].map(|(a, b)| (id(a), id(b)));
        assert_eq!(edges, BTreeSet::from(expected));
    }

    #[test]
    fn a_tree_that_is_not_understood_is_an_error() {
        assert!(parse("a v1.0.0\n").is_err());
        assert!(parse("0 a v1.0.0\n2 b v1.0.0\n").is_err());
        assert!(parse("0 a\n").is_err());
    }

    #[test]
    fn checksums_come_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\
                    dependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"1.0.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(id("a"), "00ff".to_owned())]));
    }
}
