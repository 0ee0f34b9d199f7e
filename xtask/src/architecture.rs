//! docs/architecture.md is true: what its steps name is defined where they say, and crates import what its picture allows.
//!
//! Each numbered item of the page names one file and one function or type in it. The picture is the block `text crates`, a row of crates
//! a line: a crate imports crates of lower rows only. The table after it lists what each of them imports, and must be exact.

mod defined;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::page::{Page, Step};
use crate::outcome::Outcome;
use crate::workspace::Workspace;

const PAGE: &str = "docs/architecture.md";
/// Where the crates of the picture are.
const HOST: &str = "host";

/// What a crate imports of the others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Imports {
    /// Itself.
    code: BTreeSet<String>,
    /// Its tests, beside that.
    tests: BTreeSet<String>,
}

/// The suite.
pub fn check(workspace: &Workspace) -> Result<Outcome> {
    let text = fs::read_to_string(workspace.path(PAGE)).with_context(|| format!("{PAGE} cannot be read"))?;
    let page = Page::read(&text);
    let crates = crates(workspace)?;
    let mut wrong = page.malformed.clone();
    wrong.extend(steps(workspace.root(), &page.steps));
    wrong.extend(picture(&page, &crates));
    if wrong.is_empty() {
        Ok(Outcome::Passed(format!(
            "{} steps, {} crates",
            page.steps.len(),
            crates.len()
        )))
    } else {
        Ok(Outcome::Failed(format!(
            "{PAGE} and the code differ\n    {}",
            wrong.join("\n    ")
        )))
    }
}

/// Steps that name what is not there.
fn steps(root: &Path, steps: &[Step]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Step { line, file, name } in steps {
        let Ok(text) = fs::read_to_string(root.join(file)) else {
            wrong.push(format!("line {line}: there is no file {file}"));
            continue;
        };
        match defined::in_file(&text) {
            Ok(names) if names.contains(name) => {}
            Ok(_) => wrong.push(format!("line {line}: {file} does not define {name}")),
            Err(error) => wrong.push(format!("line {line}: {file} cannot be parsed: {error}")),
        }
    }
    wrong
}

/// The crate that the tests of every other one may import.
const FOR_TESTS: &str = "testing";

/// Where the picture and the table are not what the crates say.
fn picture(page: &Page, crates: &BTreeMap<String, Imports>) -> Vec<String> {
    let mut wrong = Vec::new();
    let row_of = |name: &str| page.rows.iter().position(|row| row.iter().any(|one| one == name));
    for name in page.rows.iter().flatten().chain(page.table.keys()) {
        if !crates.contains_key(name) {
            wrong.push(format!("there is no crate {HOST}/{name}"));
        }
    }
    for (name, imports) in crates {
        let Some(row) = row_of(name) else {
            wrong.push(format!("{HOST}/{name} is in no row of the picture"));
            continue;
        };
        let tests = imports.tests.iter().filter(|import| *import != FOR_TESTS);
        for import in imports.code.iter().chain(tests) {
            if row_of(import).is_some_and(|below| below <= row) {
                wrong.push(format!(
                    "{HOST}/{name} imports {import}, which is not in a lower row"
                ));
            }
        }
        let Some(listed) = page.table.get(name) else {
            wrong.push(format!("{HOST}/{name} is not in the table"));
            continue;
        };
        let new = imports.code.difference(listed);
        wrong.extend(
            new.map(|import| format!("{HOST}/{name} imports {import}, and the table does not allow it")),
        );
        let old = listed.difference(&imports.code);
        wrong.extend(
            old.map(|import| format!("{HOST}/{name} does not import {import}: take it out of the table")),
        );
    }
    wrong
}

/// The crates under host/ by the names of their folders, from their Cargo.toml.
fn crates(workspace: &Workspace) -> Result<BTreeMap<String, Imports>> {
    let text = workspace
        .cargo("metadata")
        .args(["--no-deps", "--locked", "--format-version", "1"])
        .output()?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` did not write JSON")?;
    let host = workspace.path(HOST);
    let name = |folder: &Path| -> Option<String> {
        let inside = folder.strip_prefix(&host).ok()?;
        Some(inside.to_str()?.to_owned())
    };
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let Some(package_name) = manifest.parent().and_then(name) else {
            continue;
        };
        let mut imports = Imports::default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(import) = dependency["path"].as_str().and_then(|path| name(Path::new(path))) else {
                continue;
            };
            if dependency["kind"] == "dev" {
                imports.tests.insert(import);
            } else {
                imports.code.insert(import);
            }
        }
        crates.insert(package_name, imports);
    }
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
## Crates

```text crates
top
left   right
bottom
```

| crate | what it is | imports |
|---|---|---|
| `top` | all | `left`, `right` |
| `left` | one side | `bottom` |
| `right` | the other | |
| `bottom` | words | |
";

    fn crates(all: &[(&str, &[&str], &[&str])]) -> BTreeMap<String, Imports> {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        all.iter()
            .map(|(name, code, tests)| {
                let imports = Imports {
                    code: set(code),
                    tests: set(tests),
                };
                ((*name).to_owned(), imports)
            })
            .collect()
    }

    fn wrong(all: &[(&str, &[&str], &[&str])]) -> Vec<String> {
        picture(&Page::read(TEXT), &crates(all))
    }

    #[test]
    fn a_picture_that_is_true_is_fine() {
        let all: &[(&str, &[&str], &[&str])] = &[
            ("top", &["left", "right"], &["bottom"]),
            ("left", &["bottom"], &[]),
            ("right", &[], &["bottom"]),
            ("bottom", &[], &[FOR_TESTS]),
        ];
        assert_eq!(wrong(all), Vec::<String>::new());
    }

    #[test]
    fn imports_that_are_not_allowed_and_those_that_are_gone_are_told() {
        let all: &[(&str, &[&str], &[&str])] = &[
            ("top", &["left", "right", "bottom"], &[]),
            ("left", &[], &["right"]),
            ("right", &[], &[]),
            ("bottom", &[], &["top"]),
            ("new", &[], &[]),
        ];
        let wrong = wrong(all).join("\n");
        for told in [
            "host/top imports bottom, and the table does not allow it",
            "host/left does not import bottom",
            "host/left imports right, which is not in a lower row",
            "host/bottom imports top, which is not in a lower row",
            "host/new is in no row",
        ] {
            assert!(wrong.contains(told), "{told}\n{wrong}");
        }
    }

    #[test]
    fn what_is_not_a_crate_is_told() {
        assert!(wrong(&[]).contains(&"there is no crate host/top".to_owned()));
    }

    #[test]
    fn steps_name_what_is_defined() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.rs"), "struct A; impl A { fn b() {} }").unwrap();
        let step = |file: &str, name: &str| Step {
            line: 7,
            file: file.to_owned(),
            name: name.to_owned(),
        };
        let told = steps(
            folder.path(),
            &[
                step("a.rs", "A"),
                step("a.rs", "b"),
                step("a.rs", "c"),
                step("b.rs", "A"),
            ],
        );
        assert_eq!(
            told,
            ["line 7: a.rs does not define c", "line 7: there is no file b.rs"]
        );
    }
}
