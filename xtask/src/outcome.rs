//! What became of a suite, and the table of all of them.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What became of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ran and everything was as it should be. With a note for the table, or an empty one.
    Passed(String),
    /// The same for a part of it; what this machine cannot run is named with the reason.
    Partly {
        /// For the table.
        note: String,
        /// What did not run, and why.
        without: Vec<String>,
    },
    /// It did not run, and why.
    Skipped(String),
    /// It ran and something was wrong.
    Failed(String),
}

impl Outcome {
    /// Nothing of it is left out for lack of a program unless `without` names it.
    pub fn passed_without(note: String, without: Vec<String>) -> Self {
        if without.is_empty() {
            Self::Passed(note)
        } else {
            Self::Partly { note, without }
        }
    }

    /// Whether suites that need this one can run.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Passed(_) | Self::Partly { .. })
    }

    /// One word for tables and files.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "ok",
            Self::Partly { .. } => "partly",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "FAILED",
        }
    }
}

/// One line of the table at the end.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name of the suite.
    pub suite: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// From the start of the run.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
    /// Processor time of its processes, as far as they were waited for.
    pub cpu: Duration,
    /// How long it took in the last run in which it passed.
    pub before: Option<Duration>,
}

/// Prints the table and fails if any suite did.
pub fn conclude(lines: &[Line], total: Duration) -> Result<()> {
    let width = lines
        .iter()
        .map(|line| line.suite.len())
        .max()
        .unwrap_or(0)
        .max("suite".len());
    eprintln!(
        "\n{:width$}  {:7}  {:>8}  {:>8}  {:>8}  notes",
        "suite", "result", "seconds", "before", "cpu"
    );
    eprintln!(
        "{:-<width$}  {:-<7}  {:->8}  {:->8}  {:->8}  {:-<5}",
        "", "", "", "", "", ""
    );
    for line in lines {
        let note = match &line.outcome {
            Outcome::Passed(note) | Outcome::Partly { note, .. } => note.as_str(),
            Outcome::Skipped(why) | Outcome::Failed(why) => why.lines().next().unwrap_or_default(),
        };
        let before = line
            .before
            .map_or_else(|| "-".to_owned(), |before| format!("{:.1}", before.as_secs_f64()));
        eprintln!(
            "{:width$}  {:7}  {:>8.1}  {before:>8}  {:>8.1}  {note}",
            line.suite,
            line.outcome.word(),
            line.took.as_secs_f64(),
            line.cpu.as_secs_f64(),
        );
    }
    let cpu: Duration = lines.iter().map(|line| line.cpu).sum();
    eprintln!(
        "{:width$}  {:7}  {:>8.1}  {:>8}  {:>8.1}",
        "total",
        "",
        total.as_secs_f64(),
        "",
        cpu.as_secs_f64()
    );
    let left_out = left_out(lines);
    if !left_out.is_empty() {
        eprintln!("\nnot run on this machine:");
        for line in left_out {
            eprintln!("  {line}");
        }
    }
    let mut failed = 0;
    for line in lines {
        if let Outcome::Failed(why) = &line.outcome {
            failed += 1;
            eprintln!("\n{} failed: {why}", line.suite);
        }
    }
    if failed > 0 {
        bail!("{failed} of {} suites failed", lines.len());
    }
    Ok(())
}

/// What was skipped, whole suites and parts of them, each with its reason.
fn left_out(lines: &[Line]) -> Vec<String> {
    lines
        .iter()
        .flat_map(|line| match &line.outcome {
            Outcome::Skipped(why) => vec![format!("{}: {why}", line.suite)],
            Outcome::Partly { without, .. } => without
                .iter()
                .map(|what| format!("{}: {what}", line.suite))
                .collect(),
            Outcome::Passed(_) | Outcome::Failed(_) => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(outcome: Outcome) -> Line {
        Line {
            suite: "s",
            outcome,
            start: Duration::ZERO,
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            before: None,
        }
    }

    #[test]
    fn one_failed_suite_fails_the_whole() {
        let fine = [
            line(Outcome::Passed(String::new())),
            line(Outcome::Skipped("no".to_owned())),
        ];
        assert!(conclude(&fine, Duration::ZERO).is_ok());
        assert!(conclude(&[line(Outcome::Failed("broken".to_owned()))], Duration::ZERO).is_err());
    }

    #[test]
    fn everything_that_did_not_run_is_named() {
        let lines = [
            line(Outcome::Passed(String::new())),
            line(Outcome::Skipped("no root".to_owned())),
            line(Outcome::passed_without(
                "2 tests".to_owned(),
                vec!["psql is missing".to_owned(), "curl is missing".to_owned()],
            )),
        ];
        assert_eq!(
            left_out(&lines),
            ["s: no root", "s: psql is missing", "s: curl is missing"]
        );
        assert_eq!(
            Outcome::passed_without("x".to_owned(), Vec::new()),
            Outcome::Passed("x".to_owned())
        );
    }
}
