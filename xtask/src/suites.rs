//! `cargo xtask test` and `cargo xtask check`: every suite by name, in order, with a table at the end.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::run::{Line, Outcome, Steps, conclude, seconds};
use crate::workspace::Workspace;
use crate::{chart, check, claims, demo, e2e, generated, guests, licences, programs, tools, tutorial};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Only these suites, and what they need
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
    /// Lists the suites
    #[arg(long)]
    list: bool,
}

/// What earlier suites leave for later ones.
#[derive(Default)]
struct State {
    /// The tutorial, with the component that came out of it.
    tutorial: Option<tutorial::Followed>,
}

struct Suite {
    name: &'static str,
    what: &'static str,
    /// Suites that must have passed.
    needs: &'static [&'static str],
    run: fn(&Workspace, &mut State) -> Result<Outcome>,
}

fn passed() -> Outcome {
    Outcome::Passed(String::new())
}

/// What becomes of a suite that needs a real Kubernetes where none can run.
fn without_cluster() -> Option<Outcome> {
    let missing = crate::cluster::missing();
    (!missing.is_empty()).then(|| Outcome::Skipped(missing.join("; ")))
}

const TESTS: &[Suite] = &[
    Suite {
        name: "tools",
        what: "check the tools: C compiler, Rust target of the plugins",
        needs: &[],
        run: |workspace, _| tools::for_everything(workspace).map(|()| passed()),
    },
    Suite {
        name: "guests",
        what: guests::WHAT,
        needs: &["tools"],
        run: |workspace, _| guests::build(workspace).map(|()| passed()),
    },
    Suite {
        name: "unit-integration",
        what: "unit and integration tests of the host, the SDK and the plugins (native)",
        needs: &["guests"],
        run: |workspace, _| {
            workspace
                .cargo("test")
                .args(["--workspace", "--all-features", "--no-fail-fast", "--lib", "--bins", "--tests"])
                .hint("run one again: `cargo test -p <crate> <name of the test>`, with CARGO_TARGET_DIR as above")
                .run()
                .map(|()| passed())
        },
    },
    Suite {
        name: "programs",
        what: "real servers, clients and conformance suites of other projects against the DLX",
        needs: &["guests"],
        run: |workspace, _| programs::suite(workspace),
    },
    Suite {
        name: "doc-tests",
        what: "examples in the API docs",
        needs: &["tools"],
        run: |workspace, _| {
            workspace
                .cargo("test")
                .args(["--workspace", "--all-features", "--doc"])
                .run()
                .map(|()| passed())
        },
    },
    Suite {
        name: "demo",
        what: "the demo with the bundled plugin, every step checked",
        needs: &["guests"],
        run: |workspace, _| demo::checked(workspace, None).map(|()| passed()),
    },
    Suite {
        name: "tutorial",
        what: "docs/writing-a-scaler.md, word for word, outside of the workspace",
        needs: &["tools"],
        run: |workspace, state| {
            let tutorial = state.tutorial.insert(tutorial::Followed::anew(workspace)?);
            let note = format!("{} KiB", fs::metadata(tutorial.plugin())?.len().div_ceil(1024));
            Ok(Outcome::Passed(note))
        },
    },
    Suite {
        name: "tutorial-demo",
        what: "the demo with the plugin of the tutorial, every step checked",
        needs: &["guests", "tutorial"],
        run: |workspace, state| {
            let Some(tutorial) = &state.tutorial else {
                bail!("the tutorial left no plugin")
            };
            demo::checked(workspace, Some(tutorial.plugin().to_owned())).map(|()| passed())
        },
    },
    Suite {
        name: "cluster",
        what: "`cargo xtask cluster`: it works, and nothing of it stays behind, however it ends",
        needs: &["tools"],
        run: |workspace, _| {
            if let Some(skipped) = without_cluster() {
                return Ok(skipped);
            }
            // The selection of unit-integration, so that nothing is compiled again.
            workspace
                .cargo("test")
                .args([
                    "--workspace",
                    "--all-features",
                    "--test",
                    "cluster",
                    "--",
                    "--ignored",
                ])
                .run()
                .map(|()| passed())
        },
    },
    Suite {
        name: "real-cluster",
        what: "the whole system on a real Kubernetes: image, chart, and a choice of the lifecycle suite",
        needs: &["guests", "tutorial"],
        run: |workspace, state| {
            if let Some(skipped) = without_cluster() {
                return Ok(skipped);
            }
            let plugin = state
                .tutorial
                .as_ref()
                .map(|tutorial| tutorial.plugin().to_owned());
            e2e::e2e(workspace, &e2e::Args::for_tests(plugin))?;
            Ok(Outcome::Passed(format!(
                "{} cases; the others are left to `cargo xtask e2e`",
                e2e::SMOKE.len()
            )))
        },
    },
];

const CHECKS: &[Suite] = &[
    Suite {
        name: "doc-links",
        what: "relative links of the docs",
        needs: &[],
        run: |workspace, _| check::doc_links(workspace),
    },
    Suite {
        name: "doc-claims",
        what: "commands and flags that the docs name exist",
        needs: &[],
        run: |workspace, _| claims::check(workspace),
    },
    Suite {
        name: "formatting",
        what: "cargo fmt --check",
        needs: &[],
        run: |workspace, _| check::formatting(workspace),
    },
    Suite {
        name: "clippy",
        what: "clippy over the workspace",
        needs: &[],
        run: |workspace, _| check::clippy(workspace),
    },
    Suite {
        name: "clippy-guests",
        what: "clippy over the SDK and the plugins for wasm32-wasip2",
        needs: &[],
        run: |workspace, _| check::clippy_guests(workspace),
    },
    Suite {
        name: "api-docs",
        what: "API docs without warnings",
        needs: &[],
        run: |workspace, _| check::api_docs_suite(workspace),
    },
    Suite {
        name: "generated",
        what: "generated reference files are up to date",
        needs: &[],
        run: |workspace, _| generated::up_to_date(workspace),
    },
    Suite {
        name: "chart",
        what: "the Helm chart: lint, values, what it renders to",
        needs: &[],
        run: |workspace, _| chart::suite(workspace),
    },
    Suite {
        name: "licences",
        what: "licences of all dependencies against the list in deny.toml",
        needs: &[],
        run: |workspace, _| licences::check(workspace),
    },
    Suite {
        name: "cargo-deny",
        what: "advisories, bans and sources of deny.toml",
        needs: &[],
        run: |workspace, _| check::cargo_deny(workspace),
    },
];

/// `cargo xtask test`.
pub fn test(workspace: &Workspace, args: &Args) -> Result<()> {
    let all: Vec<&Suite> = TESTS.iter().chain(CHECKS).collect();
    if args.list {
        for suite in &all {
            println!("{:18} {}", suite.name, suite.what);
        }
        return Ok(());
    }
    run_all(workspace, &selected(&all, &args.suites)?)
}

/// `cargo xtask check`.
pub fn check(workspace: &Workspace) -> Result<()> {
    run_all(workspace, &CHECKS.iter().collect::<Vec<_>>())
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

fn run_all(workspace: &Workspace, suites: &[&Suite]) -> Result<()> {
    let start = Instant::now();
    let mut state = State::default();
    let mut steps = Steps::new(suites.len());
    let mut lines: Vec<Line> = Vec::new();
    for suite in suites {
        steps.announce(&format!("{}: {}", suite.name, suite.what));
        let begun = Instant::now();
        let missing = suite.needs.iter().find(|need| {
            !lines
                .iter()
                .any(|line| line.suite == **need && matches!(line.outcome, Outcome::Passed(_)))
        });
        let outcome = match missing {
            Some(need) => Outcome::Failed(format!("not run: it needs {need}, which did not pass")),
            None => (suite.run)(workspace, &mut state)
                .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
        };
        let took = begun.elapsed();
        match &outcome {
            Outcome::Passed(_) => eprintln!("      ok in {}", seconds(took)),
            Outcome::Skipped(why) => eprintln!("      skipped: {why}"),
            Outcome::Failed(why) => eprintln!("      FAILED after {}: {why}", seconds(took)),
        }
        lines.push(Line {
            suite: suite.name,
            outcome,
            took: if missing.is_some() { Duration::ZERO } else { took },
        });
    }
    conclude(&lines, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(suites: &[&str]) -> Result<Vec<&'static str>> {
        let all: Vec<&Suite> = TESTS.iter().chain(CHECKS).collect();
        let wanted: Vec<String> = suites.iter().map(|name| (*name).to_owned()).collect();
        Ok(selected(&all, &wanted)?.iter().map(|suite| suite.name).collect())
    }

    #[test]
    fn a_suite_brings_what_it_needs_in_order() {
        assert_eq!(
            names(&["tutorial-demo"]).unwrap(),
            ["tools", "guests", "tutorial", "tutorial-demo"]
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
        let all: Vec<&Suite> = TESTS.iter().chain(CHECKS).collect();
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
}
