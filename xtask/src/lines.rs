//! `cargo xtask lines`: how much code each crate is, tests left out, now and at another revision.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use xtask_command::Cmd;

use crate::workspace::Workspace;

/// Prints a table.
pub fn command(workspace: &Workspace, revision: &str) -> Result<()> {
    let (before, now) = (count(workspace, Some(revision))?, count(workspace, None)?);
    let row = |name: &str, before: usize, now: usize| println!("{name:28} {before:>8} {now:>8}");
    println!("{:28} {revision:>8.8} {:>8}", "crate", "now");
    let crates: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for name in crates {
        let of = |counts: &BTreeMap<String, usize>| counts.get(name).copied().unwrap_or(0);
        row(name, of(&before), of(&now));
    }
    row("all", before.values().sum(), now.values().sum());
    Ok(())
}

/// Lines of `src/**/*.rs` by the folder of the crate: of a revision, or of what is in the checkout.
fn count(workspace: &Workspace, revision: Option<&str>) -> Result<BTreeMap<String, usize>> {
    let mut git = Cmd::new("git").args(["grep", "--untracked", "-z", "-n", ""]);
    if let Some(revision) = revision {
        git = Cmd::new("git").args(["grep", "-z", "-n", "", revision]);
    }
    let listing = git.args(["--", "*/src/*.rs"]).dir(workspace.root()).output()?;
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in listing.lines() {
        let mut parts = line.splitn(3, '\0');
        if let (Some(file), _, Some(text)) = (parts.next(), parts.next(), parts.next()) {
            files.entry(file).or_default().push(text);
        }
    }
    let mut counts = BTreeMap::new();
    for (file, lines) in files {
        let file = file.rsplit(':').next().unwrap_or(file);
        if let Some((name, path)) = file.split_once("/src/")
            && !name.contains("/tests/")
            && !path.split('/').any(|part| part == "tests" || part == "tests.rs")
        {
            *counts.entry(name.to_owned()).or_default() += outside_of_tests(&lines);
        }
    }
    Ok(counts)
}

/// All lines but those of modules at the top of the file that are `#[cfg(test)]`.
fn outside_of_tests(lines: &[&str]) -> usize {
    let mut count = 0;
    let mut rest = lines.iter();
    while let Some(line) = rest.next() {
        if *line == "#[cfg(test)]" {
            // A module in braces ends with one at the margin; any other item is a line or two of no weight.
            if rest.next().is_some_and(|item| item.ends_with('{')) {
                rest.by_ref().find(|line| **line == "}");
            }
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_tests_do_not_count() {
        let text = "fn a() {\n}\n\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n#[cfg(test)]\nmod more;";
        assert_eq!(outside_of_tests(&text.lines().collect::<Vec<_>>()), 4);
    }
}
