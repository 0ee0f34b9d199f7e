use std::fmt::Write as _;
use std::path::Path;

use clap::Parser as _;
use serde_json::Value;

use super::*;

mod annotated;
mod memory;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// A target, its readings, and where they are.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(metrics: &str, min: i32, readings: &str) -> Self {
        let manifest = format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec:\n  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}\n  minReplicas: {min}\n  maxReplicas: 10\n  metrics: {metrics}\n"
        );
        Self::of(&manifest, readings)
    }

    fn of(manifest: &str, readings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("target.yaml"), manifest).unwrap();
        std::fs::write(folder.path().join("day.csv"), readings).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn options(&self, more: &str) -> Options {
        let (target, readings) = (self.file("target.yaml"), self.file("day.csv"));
        let fixed = ["simulate", "--target", &target, "--readings", &readings];
        Line::parse_from(fixed.into_iter().chain(more.split_whitespace())).options
    }

    fn summary(&self, more: &str) -> Value {
        let options = self.options(more);
        let target = Target::read(&options.target).unwrap();
        options.check_for(&target).unwrap();
        let recording = Recording::read(&options.readings).unwrap();
        let simulation = Simulation::new(&options, &target, &recording).unwrap();
        let timeline = simulation.run();
        if let Some(path) = &options.plot {
            simulation.plot(path, &timeline).unwrap();
        }
        serde_json::to_value(simulation.summary(timeline)).unwrap()
    }

    fn error(&self, more: &str) -> String {
        format!("{:#}", simulate(&self.options(more)).unwrap_err())
    }
}

const CPU: &str =
    "[{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]";
const LAG: &str =
    "[{type: External, external: {metric: {name: lag}, target: {type: AverageValue, averageValue: 10}}}]";

/// A line of readings each minute.
fn readings(header: &str, minutes: impl IntoIterator<Item = String>) -> String {
    let mut text = format!("time,{header}\n");
    for (minute, values) in minutes.into_iter().enumerate() {
        writeln!(text, "{},{values}", minute * 60).unwrap();
    }
    text
}

fn counts(summary: &Value) -> Vec<(i64, i64)> {
    let changes = summary["changes"].as_array().unwrap().iter();
    changes
        .map(|change| (change["from"].as_i64().unwrap(), change["to"].as_i64().unwrap()))
        .collect()
}

#[test]
fn what_all_pods_use_is_spread_over_those_that_are_ready() {
    // 1.5 cores at 50 % of 500m are 6 pods; two do it at 150 % each.
    let case = Case::new(CPU, 1, &readings("cpu", (0..30).map(|_| "1500m".to_owned())));
    let summary = case.summary("--request cpu=500m --replicas 2");
    assert_eq!(summary["maxReplicas"], 6, "{summary:#}");
    assert_eq!(counts(&summary).last().map(|(_, to)| *to), Some(6), "{summary:#}");
    let why = summary["changes"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("resource cpu is 150%, target 50% of requests"),
        "{why}"
    );
}

#[test]
fn without_requests_nothing_is_decided_and_it_says_so() {
    let case = Case::new(CPU, 1, &readings("cpu", (0..5).map(|_| "1".to_owned())));
    let summary = case.summary("");
    assert_eq!(summary["undecided"], summary["rounds"], "{summary:#}");
    assert_eq!(counts(&summary), []);
}

#[test]
fn a_metric_of_no_pod_brings_it_to_zero_and_back() {
    let minutes = (0..40).map(|minute| if (10..20).contains(&minute) { "0" } else { "35" }.to_owned());
    let case = Case::new(LAG, 0, &readings("lag", minutes));
    let summary = case.summary("--replicas 4");
    assert_eq!(summary["coldStarts"], 1, "{summary:#}");
    assert_eq!(
        counts(&summary),
        [(4, 0), (0, 4)],
        "after five minutes of stabilization"
    );
}

#[test]
fn who_needs_it_wakes_it_at_once_with_the_replicas_of_before() {
    // In use for 10 minutes, then not for 30, then again; in use means 1 core.
    let minutes = (0..60).map(|minute| if (10..40).contains(&minute) { "1,0" } else { "1,5" }.to_owned());
    let case = Case::new(CPU, 2, &readings("cpu,requests", minutes));
    let summary = case.summary("--request cpu=500m --sleep-after 15m --startup 20s --replicas 4");
    assert_eq!(counts(&summary), [(4, 0), (0, 4)], "{summary:#}");
    assert_eq!(
        summary["changes"][0]["at"], "1970-01-01T00:25:00Z",
        "15 minutes after the last that was in use"
    );
    assert_eq!(summary["changes"][1]["at"], "1970-01-01T00:40:00Z");
    assert_eq!(
        (&summary["waitedSeconds"], &summary["coldStarts"]),
        (&20.0.into(), &1.into())
    );
    let awake = case.summary("--request cpu=500m --replicas 4");
    assert_eq!((&awake["hoursAtZero"], counts(&awake).len()), (&0.0.into(), 0));
}

#[test]
fn one_that_begins_at_zero_and_may_sleep_is_asleep() {
    let case = Case::new(
        CPU,
        2,
        &readings("cpu,requests", (0..5).map(|minute| format!("1,{minute}"))),
    );
    let summary = case.summary("--request cpu=500m --sleep-after 15m --replicas 0");
    assert_eq!(counts(&summary).first(), Some(&(0, 2)), "{summary:#}");
    assert_eq!(summary["changes"][0]["at"], "1970-01-01T00:01:00Z");
    let disabled = case.summary("--request cpu=500m --replicas 0");
    assert_eq!(counts(&disabled), [], "somebody else has turned it off");
}

#[test]
fn what_nobody_could_read_is_not_idle() {
    let minutes = (0..60).map(|minute| if minute < 5 { "1,5" } else { "1," }.to_owned());
    let case = Case::new(CPU, 2, &readings("cpu,requests", minutes));
    let summary = case.summary("--request cpu=500m --sleep-after 15m --replicas 4");
    assert_eq!(counts(&summary), [], "{summary:#}");
}

#[test]
fn replicas_that_were_recorded_are_compared_with() {
    let case = Case::new(
        LAG,
        1,
        &readings("lag,replicas", (0..61).map(|_| "20,8".to_owned())),
    );
    let summary = case.summary("");
    let number = |key: &str| summary[key].as_f64().unwrap();
    assert!((number("replicaHoursRecorded") - 8.0).abs() < 1e-9);
    assert!((number("replicaHoursAtMost") - 10.0).abs() < 1e-9);
    let hours = number("replicaHours");
    assert!(hours < 4.0, "8 as recorded for five minutes, then 2: {hours}");
}

#[test]
fn the_drawing_has_a_panel_for_replicas_and_for_each_metric() {
    let case = Case::new(
        LAG,
        1,
        &readings("lag,replicas", (0..30).map(|minute| format!("{minute},2"))),
    );
    let file = case.file("day.svg");
    case.summary(&format!("--plot {file}"));
    let svg = std::fs::read_to_string(Path::new(&file)).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for text in ["web: replicas", "lag", "recorded", "simulated", "hours"] {
        assert!(svg.contains(text), "{text}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let case = Case::new(CPU, 1, &readings("memory", (0..3).map(|_| "1".to_owned())));
    let error = case.error("");
    assert!(
        error.contains("day.csv: there is no column `cpu`; there are: memory"),
        "{error}"
    );
    let case = Case::new(LAG, 1, "time,lag\n0,1\n1e10,1\n");
    let error = case.error("");
    assert!(error.contains("raise --every"), "{error}");
}
