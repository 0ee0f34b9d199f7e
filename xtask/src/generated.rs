//! Reference files that the binary writes about itself, committed so that they can be read and searched.

use std::collections::VecDeque;
use std::fs;

use anyhow::{Context as _, Result};

use crate::chart::values;
use crate::outcome::Outcome;
use crate::reference::{COMMAND_LINE, CRD, MEMHPA_CRD, METRICS};
use crate::workspace::{Profile, Workspace};
use xtask_command::Cmd;

/// `cargo xtask generate`.
pub fn write(workspace: &Workspace) -> Result<()> {
    for (file, text) in generate(workspace)? {
        let path = workspace.path(file);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {file}");
    }
    Ok(())
}

/// What is committed is what the binary says now.
pub fn up_to_date(workspace: &Workspace) -> Result<Outcome> {
    let mut stale = Vec::new();
    let files = generate(workspace)?;
    for (file, text) in &files {
        if fs::read_to_string(workspace.path(file)).ok().as_ref() != Some(text) {
            stale.push(*file);
        }
    }
    if stale.is_empty() {
        Ok(Outcome::Passed(format!("{} files", files.len())))
    } else {
        Ok(Outcome::Failed(format!(
            "out of date: {}; run `cargo xtask generate`",
            stale.join(", ")
        )))
    }
}

fn generate(workspace: &Workspace) -> Result<Vec<(&'static str, String)>> {
    crate::build::dormouse(workspace, Profile::Dev)?;
    let crd = ask(workspace, &["crd".to_owned()])?;
    let memhpa = ask(workspace, &["crd", "--kind", "memhpa"].map(str::to_owned))?;
    Ok(vec![
        (COMMAND_LINE, command_line(workspace)?),
        (METRICS, ask(workspace, &["metrics".to_owned()])?),
        (CRD, crd.clone()),
        (values::CRD, crd),
        (MEMHPA_CRD, memhpa.clone()),
        (values::MEMHPA_CRD, memhpa),
        (values::README, values::readme(workspace)?),
    ])
}

/// Runs the binary without any environment, which `--help` would show.
fn ask(workspace: &Workspace, args: &[String]) -> Result<String> {
    let text = Cmd::new(workspace.binary(Profile::Dev))
        .args(args)
        .clean_env()
        .output()?;
    Ok(text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

fn command_line(workspace: &Workspace) -> Result<String> {
    let mut document = "# Command line\n\n<!-- Written by `cargo xtask generate` from the binary's own help. Do not edit. -->\n\n\
        Durations are written as in Go: `500ms`, `15m`, `1h30m`.\n"
        .to_owned();
    let mut open = VecDeque::from([Vec::<String>::new()]);
    while let Some(path) = open.pop_front() {
        let mut args = path.clone();
        args.push("--help".to_owned());
        let help = ask(workspace, &args)?;
        let name = ["dormouse".to_owned()]
            .iter()
            .chain(&path)
            .cloned()
            .collect::<Vec<_>>()
            .join(" ");
        document.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.trim_end()));
        for (place, subcommand) in subcommands(&help).into_iter().enumerate() {
            let mut longer = path.clone();
            longer.push(subcommand);
            // Below its own parent, before the parent's siblings.
            open.insert(place, longer);
        }
    }
    Ok(document)
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_are_read_from_the_help() {
        let help = "Usage: x <COMMAND>\n\nCommands:\n  one    Does one\n         and more\n  two-b  Does two\n  help   Print\n\nOptions:\n  -h  x\n";
        assert_eq!(subcommands(help), ["one", "two-b"]);
        assert!(subcommands("Usage: x\n").is_empty());
    }
}
