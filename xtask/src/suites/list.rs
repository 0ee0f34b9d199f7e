//! The suites.

use std::fs;

use anyhow::{Result, bail};

use super::Run;
use super::lanes::Lane;
use crate::build::{self, Tests};
use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{
    architecture, chart, check, claims, demo, e2e, generated, guests, imports, languages, licences, programs,
    tools, tutorial,
};

pub struct Suite {
    pub name: &'static str,
    pub what: &'static str,
    pub lane: Lane,
    /// Suites that must have passed.
    pub needs: &'static [&'static str],
    pub run: fn(&Workspace, &Run) -> Result<Outcome>,
}

fn passed() -> Outcome {
    Outcome::Passed(String::new())
}

/// What becomes of a suite that needs a real Kubernetes where none can run.
fn without_cluster() -> Option<Outcome> {
    let missing = kube_harness::missing();
    (!missing.is_empty()).then(|| Outcome::Skipped(missing.join("; ")))
}

/// Test targets with a suite of their own.
const ELSEWHERE: &[&str] = &["lifecycle", "prometheus"];

/// In the order in which a lane takes them. What the other lane waits for is built first, and of what waits the longest comes first.
pub const TESTS: &[Suite] = &[
    Suite {
        name: "tools",
        what: "check the tools: C compiler, Rust target of the plugins",
        lane: Lane::Compute,
        needs: &[],
        run: |workspace, _| tools::for_everything(workspace).map(|()| passed()),
    },
    Suite {
        name: "guests",
        what: guests::WHAT,
        lane: Lane::Compute,
        needs: &["tools"],
        run: |workspace, _| guests::build(workspace).map(|()| passed()),
    },
    Suite {
        name: "build",
        what: "build all tests of the workspace, dormouse, and the workload of the end-to-end tests",
        lane: Lane::Compute,
        needs: &["tools"],
        run: |workspace, run| {
            let tests = Tests::build(workspace, &Tests::ALL)?;
            build::for_tests(workspace)?;
            run.leave(&tests)?;
            Ok(Outcome::Passed(format!("{} test programs", tests.iter().count())))
        },
    },
    Suite {
        name: "tutorial",
        what: "docs/writing-a-scaler.md, word for word, outside of the workspace",
        lane: Lane::Compute,
        needs: &["tools"],
        run: |workspace, run| {
            let tutorial = tutorial::Followed::anew(workspace)?;
            let size = fs::copy(tutorial.plugin(), run.tutorial_plugin())?;
            Ok(Outcome::Passed(format!("{} KiB", size.div_ceil(1024))))
        },
    },
    Suite {
        name: "unit-integration",
        what: "unit and integration tests of the host, the SDK and the plugins (native)",
        lane: Lane::Compute,
        needs: &["guests", "build"],
        run: unit_integration,
    },
    Suite {
        name: "real-cluster",
        what: "the whole system on a real Kubernetes: image, chart, and a choice of the lifecycle suite",
        lane: Lane::Wait,
        needs: &["guests", "build", "tutorial"],
        run: |workspace, run| {
            if let Some(skipped) = without_cluster() {
                return Ok(skipped);
            }
            let suite = run.tests()?.find("lifecycle")?.file.clone();
            e2e::e2e(workspace, &e2e::Args::for_tests(run.tutorial_plugin(), suite))?;
            Ok(Outcome::Passed(format!(
                "{} cases; the others are left to `cargo xtask e2e`",
                e2e::SMOKE.len()
            )))
        },
    },
    Suite {
        name: "cluster",
        what: "`cargo xtask cluster`: it works, and nothing of it stays behind, however it ends",
        lane: Lane::Wait,
        needs: &["build"],
        run: |workspace, run| {
            if let Some(skipped) = without_cluster() {
                return Ok(skipped);
            }
            let tests = run.tests()?;
            let command = tests.find("cluster")?.command(workspace).arg("--ignored");
            command.run().map(|()| passed())
        },
    },
    Suite {
        name: "lifecycle",
        what: "the lifecycle suite on the embedded cluster",
        lane: Lane::Wait,
        needs: &["guests", "build"],
        run: |workspace, run| {
            let tests = run.tests()?;
            tests
                .find("lifecycle")?
                .command(workspace)
                .run()
                .map(|()| passed())
        },
    },
    Suite {
        name: "programs",
        what: "real servers, clients and conformance suites of other projects against the DLX",
        lane: Lane::Wait,
        needs: &["guests", "build"],
        run: |workspace, run| programs::suite(workspace, run.tests()?.find("dlx")?),
    },
    Suite {
        name: "prometheus",
        what: "a real Prometheus as a source of readings",
        lane: Lane::Wait,
        needs: &["build"],
        run: |workspace, run| programs::prometheus(workspace, run.tests()?.find("prometheus")?),
    },
    Suite {
        name: "languages",
        what: "plugins in JavaScript and Python (docs/languages/), made with their tools, loaded and called",
        lane: Lane::Compute,
        needs: &["build"],
        run: |workspace, _| languages::suite(workspace),
    },
    Suite {
        name: "demo",
        what: "the demo with the bundled plugin, every step checked",
        lane: Lane::Wait,
        needs: &["guests", "build"],
        run: |workspace, _| demo::checked(workspace, None).map(|()| passed()),
    },
    Suite {
        name: "tutorial-demo",
        what: "the demo with the plugin of the tutorial, every step checked",
        lane: Lane::Wait,
        needs: &["guests", "build", "tutorial"],
        run: |workspace, run| demo::checked(workspace, Some(run.tutorial_plugin())).map(|()| passed()),
    },
    Suite {
        name: "doc-tests",
        what: "examples in the API docs",
        lane: Lane::Compute,
        needs: &["build"],
        run: |workspace, _| {
            workspace
                .cargo("test")
                .args(["--workspace", "--all-features", "--doc"])
                .run()
                .map(|()| passed())
        },
    },
];

/// The quick ones are in the lane that has nothing to do at first.
pub const CHECKS: &[Suite] = &[
    Suite {
        name: "doc-links",
        what: "relative links of the docs",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| check::doc_links(workspace),
    },
    Suite {
        name: "doc-claims",
        what: "commands and flags that the docs name exist",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| claims::check(workspace),
    },
    Suite {
        name: "architecture",
        what: "docs/architecture.md: what its steps name is there, and crates import what its picture allows",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| architecture::check(workspace),
    },
    Suite {
        name: "formatting",
        what: "cargo fmt --check",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| check::formatting(workspace),
    },
    Suite {
        name: "clippy",
        what: "clippy over the workspace",
        lane: Lane::Compute,
        needs: &[],
        run: |workspace, _| check::clippy(workspace),
    },
    Suite {
        name: "clippy-guests",
        what: "clippy over the SDK and the plugins for wasm32-wasip2",
        lane: Lane::Compute,
        needs: &[],
        run: |workspace, _| check::clippy_guests(workspace),
    },
    Suite {
        name: "api-docs",
        what: "API docs without warnings",
        lane: Lane::Compute,
        needs: &[],
        run: |workspace, _| check::api_docs_suite(workspace),
    },
    Suite {
        name: "generated",
        what: "generated reference files are up to date",
        lane: Lane::Compute,
        needs: &[],
        run: |workspace, _| generated::up_to_date(workspace),
    },
    Suite {
        name: "chart",
        what: "the Helm chart: lint, values, what it renders to",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| chart::suite(workspace),
    },
    Suite {
        name: "licences",
        what: "licences of all dependencies against the list in deny.toml",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| licences::check(workspace),
    },
    Suite {
        name: "import-cycles",
        what: "no import cycle between modules but those that are known",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| imports::check(workspace),
    },
    Suite {
        name: "cargo-deny",
        what: "advisories, bans and sources of deny.toml",
        lane: Lane::Wait,
        needs: &[],
        run: |workspace, _| check::cargo_deny(workspace),
    },
];

/// Every test program but those with a suite of their own, also after one has failed.
fn unit_integration(workspace: &Workspace, run: &Run) -> Result<Outcome> {
    let tests = run.tests()?;
    let mut count = 0;
    let mut failed = Vec::new();
    for test in tests
        .iter()
        .filter(|test| !ELSEWHERE.contains(&test.target.as_str()))
    {
        count += 1;
        let package = test.folder.strip_prefix(workspace.root()).unwrap_or(&test.folder);
        eprintln!("\n{} {} of {}", test.kind, test.target, package.display());
        if let Err(error) = test.command(workspace).run() {
            eprintln!("{error:#}");
            failed.push(format!("{} {} of {}", test.kind, test.target, package.display()));
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} of {count} test programs failed: {}\nwhat to do: run one again, `cargo test -p <crate> <name of the \
             test>`, with CARGO_TARGET_DIR={}",
            failed.len(),
            failed.join(", "),
            workspace.target().display()
        );
    }
    Ok(Outcome::passed_without(
        format!("{count} test programs"),
        programs::without_corpus(workspace).into_iter().collect(),
    ))
}
