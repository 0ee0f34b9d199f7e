//! How long the suites took, kept from run to run: `test-runs/timings.tsv` in cargo's target folder.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::lanes::Lane;
use crate::outcome::{Line, Outcome};
use crate::workspace::Workspace;

const FILE: &str = "timings.tsv";
const HEADER: &str = "run\trevision\tsuite\tlane\tstart\tseconds\tcpu\toutcome";
/// Runs that `--timings` shows.
const SHOWN: usize = 6;
/// Suites that are named as the slowest.
const SLOWEST: usize = 5;

/// One suite in one run.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    /// When the run began, RFC 3339.
    run: String,
    /// The commit, with `-dirty` when files differ from it.
    revision: String,
    suite: String,
    lane: String,
    /// Seconds from the start of the run.
    start: f64,
    seconds: f64,
    /// Processor seconds.
    cpu: f64,
    outcome: String,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let row = Self {
            run: next()?.to_owned(),
            revision: next()?.to_owned(),
            suite: next()?.to_owned(),
            lane: next()?.to_owned(),
            start: next()?.parse().ok()?,
            seconds: next()?.parse().ok()?,
            cpu: next()?.parse().ok()?,
            outcome: next()?.to_owned(),
        };
        fields.next().is_none().then_some(row)
    }

    fn line(&self) -> String {
        format!(
            "{}\t{}\t{}\t{}\t{:.1}\t{:.1}\t{:.1}\t{}\n",
            self.run, self.revision, self.suite, self.lane, self.start, self.seconds, self.cpu, self.outcome
        )
    }

    fn is_good(&self) -> bool {
        ["ok", "partly"].contains(&self.outcome.as_str())
    }
}

/// What is known of earlier runs.
pub struct Timings {
    file: PathBuf,
    rows: Vec<Row>,
}

impl Timings {
    /// Reads them; none where nothing has run yet. Lines of another form are left out.
    pub fn read(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let text = fs::read_to_string(&file).unwrap_or_default();
        Self {
            rows: text.lines().filter_map(Row::parse).collect(),
            file,
        }
    }

    /// How long a suite took when it last passed.
    pub fn before(&self, suite: &str) -> Option<Duration> {
        let row = self
            .rows
            .iter()
            .rev()
            .find(|row| row.suite == suite && row.is_good())?;
        Duration::try_from_secs_f64(row.seconds).ok()
    }

    /// Adds a run. Suites that did not begin are left out.
    pub fn add(&self, run: &str, revision: &str, lines: &[(Lane, &Line)]) -> Result<()> {
        let mut text = String::new();
        if !self.file.exists() {
            text.push_str(HEADER);
            text.push('\n');
        }
        for (lane, line) in lines.iter().filter(|(_, line)| !line.took.is_zero()) {
            text += &Row {
                run: run.to_owned(),
                revision: revision.to_owned(),
                suite: line.suite.to_owned(),
                lane: lane.name().to_owned(),
                start: line.start.as_secs_f64(),
                seconds: line.took.as_secs_f64(),
                cpu: line.cpu.as_secs_f64(),
                outcome: line.outcome.word().to_owned(),
            }
            .line();
        }
        // In one call, so that two runs at once do not mix their lines.
        File::options()
            .create(true)
            .append(true)
            .open(&self.file)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// The last runs side by side, in the order of `suites`.
    pub fn table(&self, suites: &[&str]) -> String {
        let mut runs: Vec<(&str, &str)> = Vec::new();
        for row in &self.rows {
            let run = (row.run.as_str(), row.revision.as_str());
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        let runs = &runs[runs.len().saturating_sub(SHOWN)..];
        if runs.is_empty() {
            return format!("no run is recorded in {}\n", self.file.display());
        }
        let suites: Vec<&str> = suites
            .iter()
            .copied()
            .filter(|suite| {
                let mut rows = self.rows.iter().filter(|row| row.suite == *suite);
                rows.any(|row| runs.iter().any(|(run, _)| row.run == *run))
            })
            .collect();
        let width = suites.iter().map(|suite| suite.len()).max().unwrap_or(0);
        let mut table = format!("{:width$}", "");
        for (run, _) in runs {
            // 2026-11-27T12:34:56Z: without the year and the seconds.
            table += &format!("  {:>14}", run.get(5..16).unwrap_or(run).replace('T', " "));
        }
        table += &format!("\n{:width$}", "");
        for (_, revision) in runs {
            let short = revision.get(..7).unwrap_or(revision);
            let mark = if revision.ends_with("-dirty") { "+" } else { "" };
            table += &format!("  {:>14}", format!("{short}{mark}"));
        }
        table.push('\n');
        for suite in suites {
            table += &format!("{suite:width$}");
            for (run, _) in runs {
                let row = self
                    .rows
                    .iter()
                    .find(|row| row.run == *run && row.suite == *suite);
                let cell = match row {
                    Some(row) if row.outcome == "FAILED" => format!("{:.1} FAILED", row.seconds),
                    Some(row) if row.outcome == "skipped" => "skipped".to_owned(),
                    Some(row) => format!("{:.1}", row.seconds),
                    None => "-".to_owned(),
                };
                table += &format!("  {cell:>14}");
            }
            table.push('\n');
        }
        table += &format!(
            "\nSeconds; `+`: with changes that were not committed. More is in {}\n",
            self.file.display()
        );
        table
    }
}

/// The slowest suites of a run, each with what it took before, and how busy the lanes were.
pub fn summary(lines: &[(Lane, &Line)], total: Duration) -> String {
    let mut slowest: Vec<&Line> = lines
        .iter()
        .map(|(_, line)| *line)
        .filter(|line| !matches!(line.outcome, Outcome::Skipped(_)))
        .collect();
    slowest.sort_by_key(|line| std::cmp::Reverse(line.took));
    let slowest = slowest.iter().take(SLOWEST).map(|line| {
        let change = line.before.filter(|before| !before.is_zero()).map_or_else(
            || "not measured before".to_owned(),
            |before| {
                let percent = 100.0 * (line.took.as_secs_f64() / before.as_secs_f64() - 1.0);
                format!("{percent:+.0} %")
            },
        );
        format!("{} {:.1} s ({change})", line.suite, line.took.as_secs_f64())
    });
    let mut text = format!("slowest: {}\n", slowest.collect::<Vec<_>>().join(", "));
    let busy = Lane::ALL.map(|wanted| {
        let busy: Duration = lines
            .iter()
            .filter(|(lane, _)| *lane == wanted)
            .map(|(_, line)| line.took)
            .sum();
        format!("{} {:.1} s", wanted.name(), busy.as_secs_f64())
    });
    text += &format!("lanes: {} of {:.1} s\n", busy.join(", "), total.as_secs_f64());
    text
}

/// Where runs leave what they wrote.
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("test-runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(suite: &'static str, seconds: u64, outcome: Outcome) -> Line {
        Line {
            suite,
            outcome,
            start: Duration::from_secs(1),
            took: Duration::from_secs(seconds),
            cpu: Duration::from_secs(2),
            before: None,
        }
    }

    #[test]
    fn a_suite_is_compared_with_the_last_run_in_which_it_passed() {
        let folder = tempfile::tempdir().unwrap();
        let passed = || Outcome::Passed(String::new());
        let first = [line("clippy", 10, passed()), line("demo", 5, passed())];
        let second = [
            line("clippy", 12, Outcome::Failed("a warning".to_owned())),
            line("demo", 6, passed()),
        ];
        for (run, lines) in [
            ("2026-01-01T10:00:00Z", &first),
            ("2026-01-02T10:00:00Z", &second),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (Lane::Compute, line)).collect();
            Timings::read(folder.path())
                .add(run, "0123456789", &lines)
                .unwrap();
        }
        let timings = Timings::read(folder.path());
        assert_eq!(timings.before("clippy"), Some(Duration::from_secs(10)));
        assert_eq!(timings.before("demo"), Some(Duration::from_secs(6)));
        assert_eq!(timings.before("cluster"), None);
        let table = timings.table(&["clippy", "demo", "cluster"]);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["01-01", "10:00", "01-02", "10:00"]);
        assert_eq!(lines[2], ["clippy", "10.0", "12.0", "FAILED"]);
        assert_eq!(lines[3], ["demo", "5.0", "6.0"]);
        assert!(lines[4].is_empty(), "{table}");
    }

    #[test]
    fn lines_of_another_form_are_left_out() {
        assert_eq!(Row::parse(HEADER), None);
        assert_eq!(Row::parse("a\tb\tc\tcompute\t1\t2"), None);
        assert!(Row::parse("r\t0\tdemo\twait\t1.0\t2.0\t0.5\tok").is_some());
    }

    #[test]
    fn the_slowest_come_first_with_their_change() {
        let mut demo = line("demo", 12, Outcome::Passed(String::new()));
        demo.before = Some(Duration::from_secs(10));
        let clippy = line("clippy", 30, Outcome::Passed(String::new()));
        let skipped = line("cluster", 60, Outcome::Skipped("no root".to_owned()));
        let lines = [
            (Lane::Wait, &demo),
            (Lane::Compute, &clippy),
            (Lane::Wait, &skipped),
        ];
        assert_eq!(
            summary(&lines, Duration::from_secs(31)),
            "slowest: clippy 30.0 s (not measured before), demo 12.0 s (+20 %)\n\
             lanes: compute 30.0 s, wait 72.0 s of 31.0 s\n"
        );
    }
}
