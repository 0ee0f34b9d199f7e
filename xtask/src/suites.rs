//! `cargo xtask test` and `cargo xtask check`: every suite by name, in two lanes, with a table at the end.

mod child;
mod lanes;
mod list;
mod timings;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::{Timestamp, Unit};

use self::child::Children;
use self::lanes::{Lane, Plan};
use self::list::{CHECKS, Suite, TESTS};
use self::timings::Timings;
use crate::build::Tests;
use crate::outcome::{Line, Outcome, conclude};
use crate::workspace::Workspace;
use xtask_command::Cmd;

/// Folders of earlier runs that are kept.
const KEPT: usize = 10;

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Only these suites, and what they need
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
    /// Lists the suites
    #[arg(long)]
    list: bool,
    /// Shows every line as it is written, with the suite in front. Default where suites are named
    #[arg(long)]
    show: bool,
    /// Shows how long the suites took in the last runs
    #[arg(long, conflicts_with_all = ["suites", "list", "show"])]
    timings: bool,
}

/// What the process of one suite takes.
#[derive(clap::Args)]
pub struct One {
    suite: String,
    /// What the suites of this run leave for each other
    #[arg(long)]
    folder: PathBuf,
    /// Leaves the processors to others
    #[arg(long)]
    patient: bool,
}

/// The folder of a run: what earlier suites leave for later ones, and what all of them write.
pub struct Run {
    folder: PathBuf,
}

impl Run {
    /// The plugin that came out of the tutorial.
    pub fn tutorial_plugin(&self) -> PathBuf {
        self.folder.join("tutorial.wasm")
    }

    /// The tests, built.
    pub fn tests(&self) -> Result<Tests> {
        Tests::load(&self.tests_file())
    }

    fn tests_file(&self) -> PathBuf {
        self.folder.join("tests-built.json")
    }

    /// Leaves the tests for later suites.
    pub fn leave(&self, tests: &Tests) -> Result<()> {
        tests.save(&self.tests_file())
    }
}

fn all() -> Vec<&'static Suite> {
    TESTS.iter().chain(CHECKS).collect()
}

/// `cargo xtask test`.
pub fn test(workspace: &Workspace, args: &Args) -> Result<()> {
    let all = all();
    let width = longest(&all);
    if args.list {
        for suite in &all {
            println!("{:width$}  {:7}  {}", suite.name, suite.lane.name(), suite.what);
        }
        return Ok(());
    }
    if args.timings {
        let names: Vec<&str> = all.iter().map(|suite| suite.name).collect();
        print!("{}", Timings::read(&timings::folder(workspace)).table(&names));
        return Ok(());
    }
    let show = args.show || !args.suites.is_empty();
    run_all(workspace, &selected(&all, &args.suites)?, show)
}

/// `cargo xtask check`.
pub fn check(workspace: &Workspace) -> Result<()> {
    run_all(workspace, &CHECKS.iter().collect::<Vec<_>>(), false)
}

/// The process of one suite.
pub fn one(workspace: &Workspace, args: &One) -> Result<()> {
    let all = all();
    let suite = all
        .iter()
        .find(|suite| suite.name == args.suite)
        .with_context(|| format!("there is no suite {}", args.suite))?;
    let run = Run {
        folder: args.folder.clone(),
    };
    child::inside(&args.folder, suite.name, args.patient, || {
        (suite.run)(workspace, &run).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    })
}

/// The named suites and what they need, in the usual order. None named: all.
fn selected<'a>(all: &[&'a Suite], names: &[String]) -> Result<Vec<&'a Suite>> {
    let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut next = 0;
    while let Some(name) = wanted.get(next).copied() {
        let Some(suite) = all.iter().find(|suite| suite.name == name) else {
            let known = all.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
            bail!("there is no suite {name}; there are: {known}");
        };
        wanted.extend(
            suite
                .needs
                .iter()
                .filter(|need| !wanted.contains(*need))
                .copied()
                .collect::<Vec<_>>(),
        );
        next += 1;
    }
    Ok(all
        .iter()
        .filter(|suite| names.is_empty() || wanted.contains(&suite.name))
        .copied()
        .collect())
}

fn longest(suites: &[&Suite]) -> usize {
    suites.iter().map(|suite| suite.name.len()).max().unwrap_or(0)
}

fn run_all(workspace: &Workspace, suites: &[&Suite], show: bool) -> Result<()> {
    let start = Instant::now();
    let began = Timestamp::now().round(Unit::Second)?;
    let folder = new_folder(&timings::folder(workspace), began)?;
    let timings = Timings::read(&timings::folder(workspace));
    let children = Children::new(&folder, show, longest(suites))?;
    // What waits has its deadlines, and gets the processors first.
    let patient = Lane::ALL
        .iter()
        .all(|lane| suites.iter().any(|suite| suite.lane == *lane));
    let line = |index: usize, outcome: Outcome| Line {
        suite: suites[index].name,
        outcome,
        start: start.elapsed(),
        took: Duration::ZERO,
        cpu: Duration::ZERO,
        before: timings.before(suites[index].name),
    };
    let plans = suites
        .iter()
        .map(|suite| Plan {
            name: suite.name,
            lane: suite.lane,
            needs: suite.needs,
        })
        .collect();
    let lines = lanes::run(
        plans,
        |index| {
            let suite = suites[index];
            children.say(&format!(
                "[{}/{}] {}: {}",
                index + 1,
                suites.len(),
                suite.name,
                suite.what
            ));
            let at = start.elapsed();
            let ended = children.run(suite.name, patient && suite.lane == Lane::Compute);
            Line {
                start: at,
                took: ended.took,
                cpu: ended.cpu,
                ..line(index, ended.outcome)
            }
        },
        |index, need| {
            let why = format!("not run: it needs {need}, which did not pass");
            children.say(&format!("      {}: {why}", suites[index].name));
            line(index, Outcome::Failed(why))
        },
        || children.is_interrupted(),
    );
    let total = start.elapsed();
    let of_lane: Vec<(Lane, &Line)> = suites
        .iter()
        .filter_map(|suite| Some((suite.lane, lines.iter().find(|line| line.suite == suite.name)?)))
        .collect();
    timings.add(&began.to_string(), &revision(workspace), &of_lane)?;
    let concluded = conclude(&lines, total);
    eprint!("\n{}", timings::summary(&of_lane, total));
    eprintln!("what the suites wrote: {}", folder.display());
    if children.is_interrupted() {
        bail!(
            "interrupted; {} of {} suites had begun",
            lines.len(),
            suites.len()
        );
    }
    concluded
}

/// A folder for one run; those of old runs go.
fn new_folder(above: &Path, began: Timestamp) -> Result<PathBuf> {
    // Colons are no part of what every tool takes for a path.
    let name = format!("{}-{}", began.to_string().replace(':', ""), std::process::id());
    let folder = above.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut earlier: Vec<PathBuf> = fs::read_dir(above)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    earlier.sort();
    for old in &earlier[..earlier.len().saturating_sub(KEPT)] {
        fs::remove_dir_all(old).with_context(|| format!("cannot delete {}", old.display()))?;
    }
    Ok(folder)
}

/// The commit, or a dash where there is no git.
fn revision(workspace: &Workspace) -> String {
    Cmd::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .dir(workspace.root())
        .output()
        .map_or_else(|_| "-".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(suites: &[&str]) -> Result<Vec<&'static str>> {
        let wanted: Vec<String> = suites.iter().map(|name| (*name).to_owned()).collect();
        Ok(selected(&all(), &wanted)?
            .iter()
            .map(|suite| suite.name)
            .collect())
    }

    #[test]
    fn a_suite_brings_what_it_needs_in_order() {
        assert_eq!(
            names(&["tutorial-demo"]).unwrap(),
            ["tools", "guests", "build", "tutorial", "tutorial-demo"]
        );
        assert_eq!(names(&["doc-links"]).unwrap(), ["doc-links"]);
    }

    #[test]
    fn an_unknown_suite_names_the_known_ones() {
        assert!(
            names(&["demos"])
                .unwrap_err()
                .to_string()
                .contains("tutorial-demo")
        );
    }

    #[test]
    fn needs_come_earlier_and_names_are_unique() {
        let all = all();
        for (index, suite) in all.iter().enumerate() {
            assert!(
                !all[..index].iter().any(|earlier| earlier.name == suite.name),
                "{} twice",
                suite.name
            );
            for need in suite.needs {
                assert!(
                    all[..index].iter().any(|earlier| earlier.name == *need),
                    "{} before {need}",
                    suite.name
                );
            }
        }
    }

    #[test]
    fn old_runs_go_and_the_newest_stay() {
        let above = tempfile::tempdir().unwrap();
        for second in 0..=i64::try_from(KEPT).unwrap() {
            new_folder(above.path(), Timestamp::from_second(second).unwrap()).unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(above.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left.len(), KEPT);
        assert!(left[0].starts_with("1970-01-01T000001Z"), "{left:?}");
    }
}
