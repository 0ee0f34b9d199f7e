//! The names that people build on: metrics, condition and event reasons, answers of the DLX, annotations, alerts, values.
//!
//! What the docs name is looked for in the code, and what the code has is looked for in the docs. There is nothing to register:
//!
//! - A metric: `cargo xtask generate` writes docs/reference/metrics.md from what the binary registers.
//! - A reason of a condition or an event, a value of `dormouse-reason`, a code of a plugin's error, an annotation: a row in
//!   docs/reference/conditions-and-events.md, in the section of its kind.
//! - An alert: chart/files/alerts.yaml, and a row in docs/operations.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::markdown;
use crate::reference::{CRD, METRICS};
use crate::workspace::Workspace;

const NAMES: &str = "docs/reference/conditions-and-events.md";
const OPERATIONS: &str = "docs/operations.md";
const ALERTS: &str = "chart/files/alerts.yaml";
const DASHBOARD: &str = "chart/files/dashboard.json";
const VALUES: &str = "chart/values.yaml";
const MEMHPA: &str = "docs/memhpa.md";
const MEMHPA_STATUS: &str = "host/sources/src/memhpa/status.rs";
const MEMHPA_SOURCE: &str = "host/sources/src/memhpa/source.rs";
/// Where names are made. The embedded cluster's own annotations are for tests.
const SOURCES: &[&str] = &[
    "host/autoscaler/src",
    "host/dlx/src",
    "host/dormouse/src",
    "host/kubernetes/src",
    "host/lifecycle/src",
    "host/scaling/src/hpa",
    "host/sleepers/src",
    "sample-scalers/status-driven/src",
    "sample-scalers/workloads/src",
];
/// What OpenMetrics adds to the name of a metric for its samples.
const SAMPLES: &[&str] = &["_total", "_bucket", "_count", "_sum"];

/// How many names were compared, and what is wrong.
pub fn wrong(workspace: &Workspace) -> Result<(usize, Vec<String>)> {
    let read = |file: &str| {
        fs::read_to_string(workspace.path(file)).with_context(|| format!("{file} cannot be read"))
    };
    let sources = sources(workspace)?;
    let mut report = Report::default();
    let names = read(NAMES)?;

    report.both(
        "reasons of conditions and events",
        &section(&names, "Reasons"),
        &sources.iter().flat_map(|text| reasons(text)).collect(),
    );
    let mut told = reasons(&read(MEMHPA_STATUS)?);
    told.extend(reasons(&read(MEMHPA_SOURCE)?));
    // The line tells it, as of every target.
    told.insert("SuccessfulRescale".to_owned());
    report.both(
        "events of MemHpas",
        &section(&read(MEMHPA)?, "What is told"),
        &told,
    );
    report.both(
        "values of dormouse-reason",
        &section(&names, "Answers of the DLX"),
        &between(&read("host/dlx/src/rescue.rs")?, "const REASONS:", "];"),
    );
    report.both(
        "codes of plugin errors",
        &section(&names, "Codes of plugin errors"),
        &codes(&read("host/plugin/src/error.rs")?),
    );
    report.both(
        "conditions",
        &section(&names, "Conditions"),
        &between(&read("host/sleepers/src/api.rs")?, "pub mod condition {", "\n}"),
    );
    report.both(
        "outcomes of decisions",
        &section(&names, "Outcomes of decisions"),
        &outcomes(&read("host/scaling/src/decision.rs")?),
    );
    report.both("phases", &section(&names, "Phases"), &phases(&read(CRD)?)?);

    let annotations: BTreeSet<String> = sources.iter().flat_map(|text| annotations(text)).collect();
    report.both(
        "annotations and labels",
        &section(&names, "Annotations and labels"),
        &annotations,
    );
    let metrics = section(&read(METRICS)?, "");
    let values: Value = serde_yaml::from_str(&read(VALUES)?)?;
    let tops: BTreeSet<&str> = values
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    for file in workspace.markdown_files()? {
        let place = workspace.shown(&file).to_string();
        if place.starts_with("docs/adr") || place.starts_with("docs/faults") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        report.metrics(&place, &text, &metrics);
        for name in annotations_in(&text) {
            report.seen += 1;
            if !annotations.contains(&name) {
                report.say(format!("{place}: nothing reads or writes {name}"));
            }
        }
        for (line, code) in markdown::inline_code(&text) {
            report.value(&place, line, &code, &tops, &values);
        }
    }
    for file in [ALERTS, DASHBOARD] {
        report.metrics(file, &read(file)?, &metrics);
    }
    report.both(
        "alerts",
        &section(&read(OPERATIONS)?, "Alerts"),
        &alerts(&read(ALERTS)?)?,
    );
    Ok((report.seen, report.wrong))
}

#[derive(Default)]
struct Report {
    seen: usize,
    wrong: Vec<String>,
}

impl Report {
    fn say(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// What the docs have and what the code has is the same.
    fn both(&mut self, what: &str, docs: &BTreeSet<String>, code: &BTreeSet<String>) {
        self.seen += docs.len();
        if code.is_empty() {
            self.say(format!(
                "{what}: none is found in the code; has their place moved?"
            ));
        }
        for name in docs.difference(code) {
            self.say(format!("{what}: the docs name `{name}`, which nothing uses"));
        }
        for name in code.difference(docs) {
            self.say(format!("{what}: `{name}` is not in the docs"));
        }
    }

    fn metrics(&mut self, place: &str, text: &str, known: &BTreeSet<String>) {
        for name in words(text, "dormouse_") {
            // A crate, as in a log filter, or a family of metrics, as in `dormouse_plugin_…`.
            let crate_name = [
                "autoscaler",
                "dlx",
                "embedded",
                "kubernetes",
                "lifecycle",
                "metrics",
                "plugin",
                "scaling",
                "sdk",
            ];
            if crate_name.contains(&name.trim_start_matches("dormouse_")) || name.ends_with('_') {
                continue;
            }
            self.seen += 1;
            let base = SAMPLES.iter().find_map(|sample| name.strip_suffix(sample));
            if !known.contains(&name) && !base.is_some_and(|base| known.contains(base)) {
                self.say(format!("{place}: no process serves {name}"));
            }
        }
    }

    /// `config.common.dlxPorts`: the path of a value, as far as values.yaml goes.
    fn value(&mut self, place: &str, line: usize, code: &str, tops: &BTreeSet<&str>, values: &Value) {
        let ours = place.starts_with("chart/") || ["docs/installation.md", OPERATIONS].contains(&place);
        let mut parts = code.split('.');
        let top = parts.next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
        // Plugins are also a section of the configuration file, with other keys; v3io's chart has its own names.
        let other = ["plugins", "dlx.image", "rbac.serviceAccountName"]
            .iter()
            .any(|name| code.starts_with(name));
        if !ours || !tops.contains(top) || !code.contains('.') || !code.chars().all(plain) || other {
            return;
        }
        self.seen += 1;
        let mut at = &values[top];
        for part in parts {
            match at {
                Value::Object(map) if map.is_empty() => return,
                Value::Object(map) => match map.get(part) {
                    Some(below) => at = below,
                    None => {
                        self.say(format!("{place}:{line}: the chart has no value {code}"));
                        return;
                    }
                },
                _ => return,
            }
        }
    }
}

/// The texts of the sources, without tests.
fn sources(workspace: &Workspace) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for folder in SOURCES {
        collect(&workspace.path(folder), &mut texts)?;
    }
    Ok(texts)
}

fn collect(folder: &Path, texts: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if name != "demo" && name != "tests" {
                collect(&path, texts)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "local.rs" && name != "demo.rs" {
            let text = fs::read_to_string(&path)?;
            texts.push(
                text.split("#[cfg(test)]\nmod tests")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// First column of the tables of a section; of the whole document without a heading.
fn section(text: &str, heading: &str) -> BTreeSet<String> {
    let mut inside = heading.is_empty();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            inside = heading.is_empty() || title == heading;
        } else if let Some(row) = line.strip_prefix("| `")
            && inside
        {
            let cell = row.split(" |").next().unwrap_or_default();
            let names = format!("`{cell}");
            found.extend(names.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The literals in CamelCase that follow where a condition or an event is made.
fn reasons(text: &str) -> BTreeSet<String> {
    const MAKERS: &[&str] = &[
        "ConditionUpdate::bad(",
        "EventType::Normal,",
        "EventType::Warning,",
        ".tell(",
        "warn_about(",
        ".complain(",
        ".complain_each(",
        "reason: \"",
        "Some((\"",
        "unable(\"",
        // Those of a HorizontalPodAutoscaler, which stand on Sleepers as they are.
        "Self::FailedGet",
        "Condition::new(false, \"",
        "Told::warning(",
        "Told::normal(",
    ];
    let mut found = BTreeSet::new();
    for maker in MAKERS {
        for (place, _) in text.match_indices(maker) {
            let from = if maker.ends_with('"') {
                place + maker.len() - 1
            } else {
                place
            };
            let statement = text[from..].split(';').next().unwrap_or_default();
            // The first text: those after it are messages.
            let literal = statement.split('"').nth(1).unwrap_or_default();
            if literal.starts_with(|c: char| c.is_ascii_uppercase())
                && literal.len() > 1
                && literal.chars().all(|c| c.is_ascii_alphanumeric())
            {
                found.insert(literal.to_owned());
            }
        }
    }
    // What is good again says only that.
    found.remove("Ok");
    found
}

/// The texts between two marks.
fn between(text: &str, from: &str, to: &str) -> BTreeSet<String> {
    let part = text.split_once(from).map_or("", |(_, rest)| rest);
    let part = part.split_once(to).map_or("", |(part, _)| part);
    let code: String = part
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    code.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `=> "snake_case"`.
fn codes(text: &str) -> BTreeSet<String> {
    text.split("=> \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|code| {
            !code.is_empty()
                && code
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_' || c == '-')
        })
        .map(str::to_owned)
        .collect()
}

/// Words that functions called `outcome` answer.
fn outcomes(text: &str) -> BTreeSet<String> {
    text.split("pub fn outcome(&self)")
        .skip(1)
        .flat_map(|rest| {
            let body = rest.split("\n    }\n").next().unwrap_or_default();
            body.split("=> \"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
        })
        .map(str::to_owned)
        .collect()
}

fn phases(crd: &str) -> Result<BTreeSet<String>> {
    let crd: Value = serde_yaml::from_str(crd)?;
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/phase/enum";
    let listed = crd.pointer(at).and_then(Value::as_array);
    Ok(listed
        .into_iter()
        .flatten()
        .filter_map(|phase| phase.as_str().map(str::to_owned))
        .collect())
}

fn alerts(yaml: &str) -> Result<BTreeSet<String>> {
    let groups: Value = serde_yaml::from_str(yaml)?;
    let rules = groups
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|group| group["rules"].as_array());
    Ok(rules
        .flatten()
        .filter_map(|rule| rule["alert"].as_str().map(str::to_owned))
        .collect())
}

/// Words that begin so.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    text.match_indices(start)
        .filter(|(place, _)| {
            !text[..*place].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '/')
        })
        .map(|(place, _)| {
            let word = text[place..].chars();
            word.take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

/// `dormouse.dev/…` in code: quoted, or as documentation of a key that is built with a prefix.
fn annotations(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut found = annotations_in(&code);
    // Keys of the bundled plugin, below its prefix; beside each is a text that says what it accepts.
    if code.contains("PREFIX: &str = \"dormouse.dev/\"") {
        let keys = between(&code, "const KNOWN:", "];");
        let plain = |key: &String| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        found.extend(
            keys.into_iter()
                .filter(plain)
                .map(|key| format!("dormouse.dev/{key}")),
        );
    }
    found
}

/// Before the domain of annotations that are the host's alone.
const STATE: &str = "state.";

fn annotations_in(text: &str) -> BTreeSet<String> {
    let names = text.match_indices("dormouse.dev/").map(|(place, start)| {
        let rest = &text[place + start.len()..];
        let key: String = rest
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-' || c.is_ascii_digit())
            .collect();
        (place, key)
    });
    names
        .filter(|(place, key)| {
            // Not another subdomain, not the version of the API, not the beginning of a name that is put together.
            let before = &text[..*place];
            (!before.ends_with('.') || before.ends_with(STATE))
                && !key.is_empty()
                && !key.starts_with("v1")
                && !key.ends_with('-')
        })
        .map(|(place, key)| {
            let state = if text[..place].ends_with(STATE) { STATE } else { "" };
            format!("{state}dormouse.dev/{key}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn f06_names_that_only_one_side_has_are_told() {
        let mut report = Report::default();
        report.both("things", &set(&["a", "b"]), &set(&["b", "c"]));
        assert_eq!(report.wrong.len(), 2, "{:?}", report.wrong);
        assert!(report.wrong[0].contains("`a`") && report.wrong[1].contains("`c`"));
        report.both("others", &set(&[]), &set(&[]));
        assert_eq!(report.wrong.len(), 3, "a scan that finds nothing proves nothing");
    }

    #[test]
    fn f06_metrics_that_nobody_serves_are_told() {
        let known = set(&[
            "dormouse_dlx_held_requests",
            "dormouse_wakes",
            "dormouse_dlx_hold_seconds",
        ]);
        let mut report = Report::default();
        report.metrics(
            "x.md",
            "`dormouse_dlx=debug` dormouse_wakes_total rate(dormouse_dlx_hold_seconds_bucket[5m]) dormouse_plugin_…",
            &known,
        );
        assert!(report.wrong.is_empty(), "{:?}", report.wrong);
        report.metrics("x.md", "dormouse_dlx_helt_requests", &known);
        assert_eq!(
            report.wrong,
            ["x.md: no process serves dormouse_dlx_helt_requests"]
        );
    }

    #[test]
    fn reasons_are_found_where_they_are_made() {
        let code = "ConditionUpdate::bad(condition::A, \"StepFailed\", &m);\nself.tell(&s, EventType::Warning,\n  \"PortsLost\", &m);\n\
            x.tell(&one.id, true, reason, \"A message\");\nreason: \"NameCollision\",\n";
        assert_eq!(reasons(code), set(&["StepFailed", "PortsLost", "NameCollision"]));
    }

    #[test]
    fn tables_are_read_by_section() {
        let text = "## A\n\n| name | |\n|---|---|\n| `x`, `y` | `no` |\n## B\n| `z` | |\n";
        assert_eq!(section(text, "A"), set(&["x", "y"]));
        assert_eq!(section(text, ""), set(&["x", "y", "z"]));
    }
}
