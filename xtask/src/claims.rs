//! What the docs name, exists: commands of xtask, subcommands and flags of the binary, names and files.
//!
//! The binary is known by its generated reference, which the suite `generated` compares with the binary itself.

use std::fs;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::outcome::Outcome;
use crate::reference::COMMAND_LINE;
use crate::workspace::Workspace;
use crate::{Cli, markdown, names, paths};

/// Documents in which a `--flag` alone is a flag of the binary.
const ABOUT_THE_BINARY: &[&str] = &["docs/operations.md", "docs/concepts.md"];

/// Reads every Markdown file.
pub fn check(workspace: &Workspace) -> Result<Outcome> {
    let reference = fs::read_to_string(workspace.path(COMMAND_LINE))
        .with_context(|| format!("{} cannot be read; run `cargo xtask generate`", COMMAND_LINE))?;
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in workspace.markdown_files()? {
        let text = fs::read_to_string(&file)?;
        let place = workspace.shown(&file).to_string();
        if place == COMMAND_LINE {
            continue;
        }
        let flags = ABOUT_THE_BINARY.contains(&place.as_str());
        let claims = claims(&text, flags);
        seen += claims.len();
        wrong.extend(
            claims
                .iter()
                .filter(|(_, claim)| !claim.is_true(&reference))
                .map(|(line, claim)| format!("{place}:{line}: {}", claim.denial())),
        );
    }
    let (names, untrue) = names::wrong(workspace)?;
    wrong.extend(untrue);
    let (files, missing) = paths::wrong(workspace)?;
    wrong.extend(missing);
    if wrong.is_empty() {
        Ok(Outcome::Passed(format!(
            "{seen} commands, flags and variables, {names} other names, {files} files"
        )))
    } else {
        Ok(Outcome::Failed(format!(
            "{} are not true\n    {}",
            wrong.len(),
            wrong.join("\n    ")
        )))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Xtask(String),
    Subcommand(String),
    Flag(String),
    Variable(String),
}

fn claims(text: &str, flags: bool) -> Vec<(usize, Claim)> {
    let mut claims: Vec<_> = markdown::words_after(text, "cargo xtask ")
        .into_iter()
        .map(|(line, word)| (line, Claim::Xtask(word)))
        .collect();
    for (line, call) in markdown::calls_of(text, "dormouse") {
        let word = call.split_whitespace().nth(1).unwrap_or_default();
        if word.starts_with(|c: char| c.is_ascii_lowercase()) {
            claims.push((line, Claim::Subcommand(word.to_owned())));
        }
        claims.extend(
            call.split_whitespace()
                .filter_map(flag_name)
                .map(|flag| (line, Claim::Flag(flag))),
        );
    }
    claims.extend(
        markdown::inline_code(text)
            .into_iter()
            .filter(|(_, code)| code.starts_with("DORMOUSE_"))
            .map(|(line, code)| (line, Claim::Variable(variable_name(&code)))),
    );
    if flags {
        let alone = markdown::inline_code(text);
        claims.extend(
            alone
                .into_iter()
                .filter_map(|(line, code)| Some((line, Claim::Flag(flag_name(&code)?)))),
        );
    }
    claims
}

/// `NAME` of `NAME=value`.
fn variable_name(code: &str) -> String {
    code.chars()
        .take_while(|c| c.is_ascii_uppercase() || *c == '_')
        .collect()
}

/// `--name` of `--name=value`, `--name VALUE`.
fn flag_name(word: &str) -> Option<String> {
    let name: String = word
        .strip_prefix("--")?
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    (!name.is_empty()).then(|| format!("--{name}"))
}

impl Claim {
    fn is_true(&self, reference: &str) -> bool {
        match self {
            Self::Xtask(word) => Cli::command().find_subcommand(word).is_some(),
            Self::Subcommand(word) => reference
                .lines()
                .any(|line| line == format!("## dormouse {word}")),
            Self::Variable(name) => {
                Self::is_elsewhere(name) || reference.contains(&format!("[env: {name}=]"))
            }
            Self::Flag(flag) => reference
                .split_whitespace()
                .any(|word| word.trim_end_matches(',') == flag || word.starts_with(&format!("{flag}="))),
        }
    }

    /// Variables that no flag has: of builds and tests.
    fn is_elsewhere(variable: &str) -> bool {
        ["DORMOUSE", "DORMOUSE_CORPUS"].contains(&variable)
    }

    fn denial(&self) -> String {
        match self {
            Self::Xtask(word) => format!("there is no `cargo xtask {word}`"),
            Self::Subcommand(word) => format!("{} knows no `dormouse {word}`", COMMAND_LINE),
            Self::Variable(name) => format!("{} knows no variable `{name}`", COMMAND_LINE),
            Self::Flag(flag) => format!("{} knows no `{flag}`", COMMAND_LINE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "## dormouse demo\n\n```text\n      --ci  x\n      --keep-logs <DIR>\n```\n";

    fn wrong(text: &str) -> Vec<String> {
        claims(text, true)
            .into_iter()
            .filter(|(_, claim)| !claim.is_true(REFERENCE))
            .map(|(line, claim)| format!("{line} {}", claim.denial()))
            .collect()
    }

    #[test]
    fn what_exists_is_fine() {
        assert!(wrong("`cargo xtask demo --ci`, `dormouse demo --keep-logs DIR`, `--ci`\n").is_empty());
    }

    #[test]
    fn what_does_not_exist_is_named_with_its_line() {
        assert_eq!(
            wrong("\n`cargo xtask dmeo`\n"),
            ["2 there is no `cargo xtask dmeo`"]
        );
        assert_eq!(wrong("`dormouse dem`\n").len(), 1);
        assert_eq!(wrong("`--keep-log`\n").len(), 1);
        assert_eq!(wrong("`DORMOUSE_SCALE_INTERVALL=30s`\n").len(), 1);
        assert_eq!(wrong("```sh\ndormouse demo --cii\n```\n").len(), 1);
    }

    #[test]
    fn prose_is_no_command() {
        assert!(wrong("The dormouse sleeps. `kubectl -n dormouse get pods`\n").is_empty());
    }
}
