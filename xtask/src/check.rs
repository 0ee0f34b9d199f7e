//! What is wrong without running anything: formatting, lints, licences, docs.

use std::fs;

use anyhow::Result;

use crate::guests;
use crate::markdown;
use crate::outcome::Outcome;
use crate::tools;
use crate::workspace::Workspace;
use xtask_command::Cmd;

/// `cargo fmt --check`.
pub fn formatting(workspace: &Workspace) -> Result<Outcome> {
    tools::component(workspace, "rustfmt", "fmt")?;
    workspace
        .cargo("fmt")
        .args(["--all", "--check"])
        .hint("`cargo xtask fmt`")
        .run()?;
    Ok(Outcome::Passed(String::new()))
}

/// Clippy over everything that runs natively; every warning is an error.
pub fn clippy(workspace: &Workspace) -> Result<Outcome> {
    tools::component(workspace, "clippy", "clippy")?;
    workspace
        .cargo("clippy")
        .args([
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ])
        .run()?;
    Ok(Outcome::Passed(String::new()))
}

/// Clippy over the SDK and the plugins as they are compiled for the guest.
pub fn clippy_guests(workspace: &Workspace) -> Result<Outcome> {
    tools::component(workspace, "clippy", "clippy")?;
    tools::for_guests(workspace)?;
    let mut cargo = workspace.cargo("clippy").args(["--target", tools::GUEST_TARGET]);
    for package in guests::packages(workspace)? {
        cargo = cargo.args(["--package", &package]);
    }
    cargo.args(["--", "-D", "warnings"]).run()?;
    Ok(Outcome::Passed(String::new()))
}

/// Advisories, bans, sources. cargo-deny is not installed by us: docs/testing.md says what it costs to build.
pub fn cargo_deny(workspace: &Workspace) -> Result<Outcome> {
    if !Cmd::new("cargo").args(["deny", "--version"]).succeeds() {
        return Ok(Outcome::Skipped(
            "cargo-deny is not installed: `cargo install cargo-deny --locked`".to_owned(),
        ));
    }
    let deny = |args: &[&str]| workspace.cargo("deny").arg("--all-features").args(args);
    deny(&["check", "bans", "licenses", "sources"])
        .hint("deny.toml says what is allowed and why")
        .run()?;
    if let Err(error) = deny(&["fetch", "db"]).output() {
        eprintln!("{error:#}");
        let without = "the database of advisories cannot be fetched".to_owned();
        return Ok(Outcome::passed_without(String::new(), vec![without]));
    }
    deny(&["check", "--disable-fetch", "advisories"])
        .hint("a dependency has a known fault: `cargo update`, or an entry with its reason in deny.toml")
        .run()?;
    Ok(Outcome::Passed(String::new()))
}

/// The API docs, with every warning an error.
pub fn api_docs_suite(workspace: &Workspace) -> Result<Outcome> {
    api_docs(workspace, false)?;
    Ok(Outcome::Passed(String::new()))
}

/// `cargo xtask docs`.
pub fn api_docs(workspace: &Workspace, open: bool) -> Result<()> {
    let cargo = workspace
        .cargo("doc")
        .args(["--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings");
    if open {
        cargo.arg("--open").run()
    } else {
        cargo.run()
    }
}

/// Every relative link of every Markdown file leads to a file, and to a heading where it names one.
pub fn doc_links(workspace: &Workspace) -> Result<Outcome> {
    let mut broken = Vec::new();
    let (mut files, mut links) = (0, 0);
    for file in workspace.markdown_files()? {
        files += 1;
        let text = fs::read_to_string(&file)?;
        for (line, link) in markdown::links(&text) {
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, anchor) = link
                .split_once('#')
                .map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let to = if path.is_empty() {
                file.clone()
            } else {
                file.parent().unwrap_or(workspace.root()).join(path)
            };
            let place = format!("{}:{line}", workspace.shown(&file));
            if !to.exists() {
                broken.push(format!("{place}: {link} does not exist"));
            } else if let Some(anchor) = anchor
                && to.extension().is_some_and(|extension| extension == "md")
                && !markdown::anchors(&fs::read_to_string(&to)?)
                    .iter()
                    .any(|known| known == anchor)
            {
                broken.push(format!("{place}: {link}: there is no heading #{anchor}"));
            }
        }
    }
    if broken.is_empty() {
        Ok(Outcome::Passed(format!("{links} links in {files} files")))
    } else {
        Ok(Outcome::Failed(format!(
            "{} broken links\n    {}",
            broken.len(),
            broken.join("\n    ")
        )))
    }
}
