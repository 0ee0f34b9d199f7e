//! Programs of other projects against the DLX: real servers and clients of other protocols than HTTP, and the conformance suite of
//! HTTP/2.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::build::TestProgram;
use crate::outcome::Outcome;
use crate::workspace::Workspace;

/// A test that needs some, and how to get them.
struct Need {
    test: &'static str,
    programs: &'static [&'static str],
    from: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        test: "programs::redis_is_served_awake_observed_and_asleep_and_no_command_is_lost_in_twenty_turns",
        programs: &["redis-server", "redis-cli"],
        from: "Debian: redis-server, redis-tools",
    },
    Need {
        test: "programs::postgresql_is_served_awake_observed_and_asleep_and_no_transaction_is_lost_in_twenty_turns",
        programs: &["postgres", "initdb", "pg_isready", "psql", "pgbench"],
        from: "Debian: postgresql",
    },
    Need {
        test: "programs::tls_passes_through_untouched",
        programs: &["openssl", "curl", "bash"],
        from: "Debian: openssl, curl",
    },
    Need {
        test: "programs::mqtt_is_served_awake_observed_and_asleep",
        programs: &["mosquitto", "mosquitto_pub", "mosquitto_sub", "bash"],
        from: "Debian: mosquitto, mosquitto-clients",
    },
    Need {
        test: "programs::a_letter_is_delivered_where_the_server_speaks_first",
        programs: &["curl"],
        from: "Debian: curl",
    },
    Need {
        test: "h2spec::h2spec_finds_nothing_but_what_is_known",
        programs: &["h2spec"],
        from: "go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible",
    },
];

/// Runs the tests whose programs are there, and names the others.
pub fn suite(workspace: &Workspace, test: &TestProgram) -> Result<Outcome> {
    let places = places();
    let missing = |need: &Need| {
        need.programs
            .iter()
            .find(|program| !places.iter().any(|place| place.join(program).is_file()))
            .map(|program| format!("{program} ({})", need.from))
    };
    let (there, lacking): (Vec<_>, Vec<_>) = NEEDS.iter().partition(|need| missing(need).is_none());
    let mut lacking: Vec<String> = lacking.into_iter().filter_map(missing).collect();
    lacking.dedup();
    if there.is_empty() {
        return Ok(Outcome::Skipped(format!("not installed: {}", lacking.join(", "))));
    }
    let output = test
        .command(workspace)
        .args(["--ignored", "--exact"])
        .args(there.iter().map(|need| need.test))
        .env("PATH", std::env::join_paths(&places)?)
        .output()?;
    let passed = format!("test result: ok. {} passed", there.len());
    if !output.contains(&passed) {
        bail!(
            "{} tests were to run, and the run says otherwise:\n{output}",
            there.len()
        );
    }
    let without = lacking.iter().map(|what| format!("{what} is not installed"));
    Ok(Outcome::passed_without(
        format!("{} tests", there.len()),
        without.collect(),
    ))
}

/// The tests against a real Prometheus. They say that they are fine where there is none, so that is asked first.
pub fn prometheus(workspace: &Workspace, test: &TestProgram) -> Result<Outcome> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|place| place.join("prometheus").is_file()) {
        return Ok(Outcome::Skipped(
            "prometheus is not installed (Debian: prometheus)".to_owned(),
        ));
    }
    let output = test.command(workspace).output()?;
    let passed = output.lines().filter(|line| line.ends_with("... ok")).count();
    if passed == 0 || !output.contains(&format!("test result: ok. {passed} passed; 0 failed; 0 ignored")) {
        bail!("not every test has run:\n{output}");
    }
    Ok(Outcome::Passed(format!("{passed} tests")))
}

/// The tests of the DLX compare it with a corpus of requests, and pass where there is none.
pub fn without_corpus(workspace: &Workspace) -> Option<String> {
    let corpus =
        std::env::var_os("DORMOUSE_CORPUS").map_or_else(|| workspace.path("../shared/corpus"), PathBuf::from);
    let there = corpus.join(Path::new("http1/raw.jsonl")).is_file();
    (!there).then(|| "the corpus of HTTP requests is not there (DORMOUSE_CORPUS)".to_owned())
}

/// Where programs are looked for: PATH, and where servers and Go's programs are kept without being in it.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    places.push("/usr/sbin".into());
    if let Some(home) = std::env::home_dir() {
        places.push(home.join("go/bin"));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    places.extend(versions.flatten().map(|version| version.path().join("bin")));
    places
}
