//! Files of values in chart/ci, each with what is expected of it in its first comments:
//!
//! - `good-*.yaml` must render; `# contains: …` and `# lacks: …` are parts of what is rendered, `# notes: …` of what is told
//!   after an installation, `# kube-version: …` is the cluster.
//! - `bad-*.yaml` must be refused; `# refused: …` is a part of the message.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::invariants;
use super::{objects, render};
use xtask_command::Cmd;

/// One file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Case {
    file: PathBuf,
    contains: Vec<String>,
    lacks: Vec<String>,
    notes: Vec<String>,
    refused: Vec<String>,
    kube_version: Option<String>,
}

/// All files, sorted.
pub fn read(folder: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let file = entry?.path();
        let text = fs::read_to_string(&file)?;
        cases.push(parse(file, &text)?);
    }
    cases.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(cases)
}

fn parse(file: PathBuf, text: &str) -> Result<Case> {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut case = Case {
        file,
        ..Case::default()
    };
    for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
        match line.split_once(": ") {
            Some(("contains", part)) => case.contains.push(part.to_owned()),
            Some(("lacks", part)) => case.lacks.push(part.to_owned()),
            Some(("notes", part)) => case.notes.push(part.to_owned()),
            Some(("refused", part)) => case.refused.push(part.to_owned()),
            Some(("kube-version", version)) => case.kube_version = Some(version.to_owned()),
            // Anything else is for people.
            _ => {}
        }
    }
    match (name.starts_with("good-"), case.refused.is_empty()) {
        (true, true) => Ok(case),
        (false, false) if name.starts_with("bad-") => Ok(case),
        _ => bail!("{name}: a file of values is good-*, or bad-* with `# refused: <part of the message>`"),
    }
}

/// What is not as expected.
pub fn wrong(helm: &Path, chart: &Path, case: &Case) -> Result<Vec<String>> {
    let name = case
        .file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut more = vec!["--values".to_owned(), case.file.display().to_string()];
    more.push("--kube-version".to_owned());
    more.push(case.kube_version.clone().unwrap_or_else(|| "1.37.0".to_owned()));
    let rendered = render(helm, chart, "dormouse", "dormouse", &more);
    let mut wrong = Vec::new();
    match rendered {
        Ok(yaml) if case.refused.is_empty() => {
            let missing = case.contains.iter().filter(|part| !yaml.contains(part.as_str()));
            wrong.extend(missing.map(|part| format!("`{part}` is not rendered")));
            let unwanted = case.lacks.iter().filter(|part| yaml.contains(part.as_str()));
            wrong.extend(unwanted.map(|part| format!("`{part}` is rendered")));
            wrong.extend(invariants::wrong(&objects(&yaml)?));
            if !case.notes.is_empty() {
                let notes = notes(helm, chart, &case.file)?;
                let unsaid = case.notes.iter().filter(|part| !notes.contains(part.as_str()));
                wrong.extend(unsaid.map(|part| format!("`{part}` is not in the notes: {notes}")));
            }
        }
        Ok(_) => wrong.push("it is accepted".to_owned()),
        Err(error) if case.refused.is_empty() => wrong.push(format!("it is refused: {error:#}")),
        Err(error) => {
            let message = format!("{error:#}");
            let unsaid = case
                .refused
                .iter()
                .filter(|part| !message.contains(part.as_str()));
            wrong.extend(unsaid.map(|part| format!("`{part}` is not in: {message}")));
        }
    }
    Ok(wrong.into_iter().map(|what| format!("{name}: {what}")).collect())
}

/// What is told after an installation. Nobody asks a cluster.
fn notes(helm: &Path, chart: &Path, values: &Path) -> Result<String> {
    let said = Cmd::new(helm)
        .args(["install", "dormouse"])
        .arg(chart)
        .args(["--namespace", "dormouse", "--dry-run=client", "--values"])
        .arg(values)
        .output()?;
    let (_, notes) = said.split_once("NOTES:").context("there are no notes")?;
    Ok(notes.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read_from_the_first_comments() {
        let text =
            "# For people.\n# contains: a: b\n# lacks: c\n# kube-version: 1.30.0\nx: 1\n# contains: no\n";
        let case = parse("ci/good-x.yaml".into(), text).unwrap();
        assert_eq!(case.contains, ["a: b"]);
        assert_eq!(case.lacks, ["c"]);
        assert_eq!(case.kube_version.as_deref(), Some("1.30.0"));
        assert_eq!(
            parse("bad-x.yaml".into(), "# refused: no\n").unwrap().refused,
            ["no"]
        );
    }

    #[test]
    fn a_file_that_expects_nothing_proves_nothing() {
        assert!(parse("bad-x.yaml".into(), "x: 1\n").is_err());
        assert!(parse("good-x.yaml".into(), "# refused: x\n").is_err());
        assert!(parse("other.yaml".into(), "# refused: x\n").is_err());
    }
}
