//! No import cycle between the modules of a crate, but for those that are known.
//!
//! The modules of one level are compared: those at the top of a crate with each other, and the submodules of each module with each
//! other. A module may use its parent, and a parent its submodules. What a name stands for is followed through `use` and `pub use`,
//! so that an item that the crate's root exports counts for the module that has it. Tests are left out.

mod graph;
mod modules;
pub mod names;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::modules::Crate;
use crate::outcome::Outcome;
use crate::workspace::Workspace;

/// The cycles that are known: a line for each, as [`Cycle::line`](graph::Cycle::line) writes it.
const KNOWN: &str = "xtask/import-cycles.txt";

/// The suite.
pub fn check(workspace: &Workspace) -> Result<Outcome> {
    let known =
        fs::read_to_string(workspace.path(KNOWN)).with_context(|| format!("{KNOWN} cannot be read"))?;
    let mut cycles = Vec::new();
    let mut modules = 0;
    for (name, root) in roots(workspace)? {
        let found = Crate::read(&name, &root)?;
        modules += found.len();
        cycles.extend(graph::cycles(&found));
    }
    let wrong = compare(&cycles, &known);
    if wrong.is_empty() {
        Ok(Outcome::Passed(format!(
            "{modules} modules, {} known cycles",
            cycles.len()
        )))
    } else {
        Ok(Outcome::Failed(format!(
            "the import cycles are not those of {KNOWN}\n    {}",
            wrong.join("\n    ")
        )))
    }
}

/// The list must be exact: then it only shrinks.
fn compare(cycles: &[graph::Cycle], known: &str) -> Vec<String> {
    let known: BTreeSet<&str> = known
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let found: BTreeSet<String> = cycles.iter().map(graph::Cycle::line).collect();
    let mut wrong = Vec::new();
    for cycle in cycles {
        let line = cycle.line();
        if known.contains(line.as_str()) {
            continue;
        }
        if known.iter().any(|line| cycle.is_part_of(line)) {
            wrong.push(format!("smaller than it was, write it instead: {line}"));
        } else {
            wrong.push(format!("new: {line}"));
            wrong.extend(cycle.why.iter().map(|why| format!("         {why}")));
        }
    }
    for line in known.iter().filter(|line| !found.contains(**line)) {
        wrong.push(format!("not true any more, take it out: {line}"));
    }
    wrong
}

/// Root file of every library and program of the workspace, by the name of its crate.
fn roots(workspace: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    let text = workspace
        .cargo("metadata")
        .args(["--no-deps", "--locked", "--format-version", "1"])
        .output()?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` did not write JSON")?;
    let mut roots = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_code = target["kind"].as_array().into_iter().flatten().any(|kind| {
                kind.as_str()
                    .is_some_and(|kind| ["lib", "cdylib", "bin"].contains(&kind))
            });
            if let (true, Some(name), Some(file)) =
                (is_code, target["name"].as_str(), target["src_path"].as_str())
            {
                roots.push((name.replace('-', "_"), PathBuf::from(file)));
            }
        }
    }
    roots.sort();
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of these files, and its cycles.
    fn cycles(files: &[(&str, &str)]) -> Vec<graph::Cycle> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        graph::cycles(&Crate::read("made_up", &folder.path().join("lib.rs")).unwrap())
    }

    fn lines(files: &[(&str, &str)]) -> Vec<String> {
        cycles(files).iter().map(graph::Cycle::line).collect()
    }

    #[test]
    fn two_modules_that_use_each_other_are_a_cycle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { let _ = crate::a::A; }"),
            ("c.rs", "use crate::{a::A, b};"),
        ];
        assert_eq!(lines(&files), ["made_up: a b"]);
        let why = cycles(&files).remove(0).why;
        assert!(
            why.iter()
                .any(|why| why.contains("a.rs") && why.contains("crate::b::B")),
            "{why:?}"
        );
    }

    #[test]
    fn a_chain_is_none() {
        assert!(
            lines(&[
                ("lib.rs", "mod a; mod b; mod c; use a::A;"),
                ("a.rs", "use crate::b::B;"),
                ("b.rs", "use super::c::C;"),
                ("c.rs", "pub struct C;"),
            ])
            .is_empty()
        );
    }

    #[test]
    fn submodules_are_compared_with_each_other_and_count_for_their_parent() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod one; mod two; pub struct A;"),
            ("a/one.rs", "use super::two::Two; use super::A; pub struct One;"),
            ("a/two.rs", "use super::one; use crate::b::B; pub struct Two;"),
            ("b.rs", "pub struct B; mod inside { use crate::a::A; }"),
        ];
        assert_eq!(lines(&files), ["made_up: a b", "made_up::a: one two"]);
    }

    #[test]
    fn an_item_that_the_root_exports_counts_for_the_module_that_has_it() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use self::c::*;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::A; use crate::C; pub struct B;"),
            ("c.rs", "pub struct C; impl From<super::b::B> for C {}"),
        ];
        assert_eq!(lines(&files), ["made_up: a b c"]);
    }

    #[test]
    fn paths_in_macros_count() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use super::b; pub fn f() -> u8 { 1 }"),
            ("b.rs", "fn g() { println!(\"{}\", vec![crate::a::f()].len()); }"),
        ];
        assert_eq!(lines(&files), ["made_up: a b"]);
    }

    #[test]
    fn tests_are_left_out() {
        let files = [
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod fixtures;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            (
                "b.rs",
                "pub struct B; #[cfg(test)] use crate::a::A; #[cfg(test)] mod tests { use crate::a::A; }",
            ),
        ];
        assert!(lines(&files).is_empty());
    }

    #[test]
    fn a_cycle_that_is_new_and_a_line_that_is_old_are_told() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::a;"),
        ];
        let cycles = cycles(&files);
        assert!(compare(&cycles, "# known\nmade_up: a b\n").is_empty());
        let smaller = compare(&cycles, "made_up: a b c\n");
        assert!(smaller[0].starts_with("smaller"), "{smaller:?}");
        assert_eq!(smaller[1], "not true any more, take it out: made_up: a b c");
        let wrong = compare(&cycles, "made_up: a c\n").join("\n");
        assert!(wrong.contains("new: made_up: a b"), "{wrong}");
        assert!(
            wrong.contains("not true any more, take it out: made_up: a c"),
            "{wrong}"
        );
    }
}
