//! Workloads with annotations.

use rstest::rstest;
use serde_json::json;

use super::*;

const CPU: &str = r#"[{"source": "resource", "resource": "cpu", "utilization": 50}]"#;
const DLX: &str = r#"[{"source": "dlx-concurrency", "average": "10"}]"#;

/// A workload whose pods request half a core.
fn case(annotations: &[(&str, &str)], readings: &str) -> Case {
    let annotations: serde_json::Map<_, _> = annotations
        .iter()
        .map(|(key, value)| (format!("dormouse.dev/{key}"), json!(value)))
        .collect();
    let app = json!({"name": "app", "resources": {"requests": {"cpu": "500m"}}});
    let manifest = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"template": {"spec": {"containers": [app]}}},
    });
    Case::of(&manifest.to_string(), readings)
}

fn scaled(targets: &str, readings: &str) -> Case {
    let annotations = [
        ("targets", targets),
        ("min-replicas", "2"),
        ("max-replicas", "10"),
    ];
    case(&annotations, readings)
}

fn whys(summary: &Value) -> Vec<&str> {
    let changes = summary["changes"].as_array().unwrap().iter();
    changes.map(|change| change["why"].as_str().unwrap()).collect()
}

#[test]
fn it_is_scaled_as_a_horizontal_pod_autoscaler_scales_it() {
    // Up, down, and up again, with a reading that failed.
    let minutes = (0..120).map(|minute| match minute {
        0..20 => "1".to_owned(),
        20..50 => format!("{}m", 1000 + minute * 40),
        50 => String::new(),
        51..90 => "600m".to_owned(),
        _ => "4".to_owned(),
    });
    let day = readings("cpu", minutes);
    let hpa = Case::new(super::CPU, 2, &day).summary("--request cpu=500m --replicas 2");
    let annotated = scaled(CPU, &day).summary("--replicas 2");
    assert!(counts(&hpa).len() > 4, "{hpa:#}");
    assert_eq!(annotated, hpa);
}

#[test]
fn it_sleeps_when_nobody_came_for_so_long_and_wakes_with_as_many_as_the_queue_needs() {
    let minutes = (0..60).map(|minute| match minute {
        0..5 => "12",
        5..40 => "0",
        _ => "65",
    });
    let day = readings("requests", minutes.map(str::to_owned));
    let sleeps = [("targets", DLX), ("max-replicas", "10"), ("sleep-after", "15m")];
    let summary = case(&sleeps, &day).summary("--startup 20s --replicas 3");
    assert_eq!(counts(&summary), [(3, 0), (0, 3), (3, 7)], "{summary:#}");
    let at = |change: usize| summary["changes"][change]["at"].as_str().unwrap();
    assert_eq!(
        (at(0), at(1), at(2)),
        (
            "1970-01-01T00:20:00Z",
            "1970-01-01T00:40:00Z",
            "1970-01-01T00:40:00Z"
        )
    );
    let whys = whys(&summary);
    assert_eq!(whys[0], "idle: observed traffic over 15m at most 0");
    assert!(
        whys[2].contains("external metric dlx-concurrency is 21667m, target 10 per pod, proposes 7"),
        "{whys:?}"
    );
    assert_eq!(
        (&summary["waitedSeconds"], &summary["coldStarts"]),
        (&20.0.into(), &1.into())
    );
}

#[test]
fn requests_that_come_later_while_it_wakes_count_and_those_that_come_after_do_not() {
    let text = "time,requests\n0,0\n1800,15\n1810,38\n1830,90\n1900,90\n";
    let sleeps = [("targets", DLX), ("max-replicas", "10"), ("sleep-after", "15m")];
    let summary = case(&sleeps, text).summary("--startup 20s --replicas 1");
    assert_eq!(counts(&summary), [(1, 0), (0, 1), (1, 2), (2, 4)], "{summary:#}");
}

#[test]
fn a_wake_restores_what_is_declared() {
    let minutes = (0..60).map(|minute| if minute < 40 { "0" } else { "1" }.to_owned());
    let sleeps = [("sleep-after", "15m"), ("replicas", "4")];
    let summary = case(&sleeps, &readings("requests", minutes)).summary("");
    assert_eq!(counts(&summary), [(1, 0), (0, 4)], "{summary:#}");
    let at_most = summary["replicaHoursAtMost"].as_f64().unwrap();
    assert!((at_most - 4.0 * 59.0 / 60.0).abs() < 1e-9, "{at_most}");
}

#[test]
fn all_rules_have_to_be_idle_and_after_a_wake_it_is_left_alone_for_the_largest_window() {
    let rules = r#"[{"source": "resource", "resource": "cpu", "threshold": "50m", "window": "10m"}, {"source": "external", "metric": "queue"}]"#;
    let minutes = (0..60).map(|minute| match minute {
        0..10 => "1,0,0",
        10..20 => "20m,3,0",
        20..25 => "20m,0,0",
        _ => "20m,0,1",
    });
    let day = readings("cpu,queue,requests", minutes.map(str::to_owned));
    let sleeps = [("sleep-after", "20m"), ("rules", rules)];
    let summary = case(&sleeps, &day).summary("--startup 10s");
    let at: Vec<_> = summary["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["at"].as_str().unwrap())
        .collect();
    // It is needed again at once when it has gone to sleep, as it is busy all the time by this column: each minute a reading comes.
    assert_eq!(counts(&summary)[..2], [(1, 0), (0, 1)], "{summary:#}");
    assert_eq!(
        at[..3],
        [
            "1970-01-01T00:20:00Z",
            "1970-01-01T00:25:00Z",
            "1970-01-01T00:46:00Z"
        ]
    );
    assert_eq!(
        whys(&summary)[0],
        "idle: cpu usage over 10m at most 50m, external queue over 20m at most 0"
    );
}

#[rstest]
// Within the window nothing was above.
#[case::at_the_time("jobs", "1970-01-01T00:20:00Z")]
// The metrics API has looked at the window already.
#[case::over_the_window("jobs_per_10m", "1970-01-01T00:10:00Z")]
fn a_custom_metric_may_be_recorded_with_its_window_or_without(#[case] column: &str, #[case] sleeps_at: &str) {
    let minutes = (0..30).map(|minute| if minute < 10 { "3,0" } else { "1,0" }.to_owned());
    let rules = r#"[{"metric": "jobs", "window": "10m", "threshold": "1"}]"#;
    let day = readings(&format!("{column},requests"), minutes);
    let summary = case(&[("sleep-after", "1h"), ("rules", rules)], &day).summary("--every 15s");
    assert_eq!(counts(&summary), [(1, 0)], "{summary:#}");
    assert_eq!(summary["changes"][0]["at"], sleeps_at);
}

#[test]
fn a_query_is_in_the_column_of_its_text() {
    let query = "sum(rate(hits{app='{name}'}[5m]))";
    let targets =
        json!([{"source": "prometheus", "server": "main", "query": query, "average": 10}]).to_string();
    let minutes = (0..10).map(|_| "35".to_owned());
    let day = readings("sum(rate(hits{app='web'}[5m]))", minutes);
    let summary = scaled(&targets, &day).summary("");
    assert_eq!(counts(&summary), [(2, 4)], "{summary:#}");
}

#[test]
fn sleep_after_counts_instead_of_the_rules() {
    let minutes = (0..60).map(|minute| if minute < 10 { "1,3" } else { "1,0" }.to_owned());
    let day = readings("cpu,visitors", minutes);
    let rules = r#"[{"source": "external", "metric": "queue"}]"#;
    let case = case(
        &[
            ("sleep-after", "5m"),
            ("rules", rules),
            ("targets", CPU),
            ("max-replicas", "5"),
        ],
        &day,
    );
    let summary = case.summary("--sleep-after 20m --needed visitors");
    assert_eq!(counts(&summary).last().map(|(_, to)| *to), Some(0), "{summary:#}");
    let last = summary["changes"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["at"], &last["why"]),
        (
            &json!("1970-01-01T00:30:00Z"),
            &json!("nobody has needed it for 20m")
        )
    );
}

#[test]
fn what_nobody_could_read_is_not_idle_and_scales_nothing() {
    let minutes = (0..60).map(|minute| if minute < 2 { "1,1" } else { "," }.to_owned());
    let annotations = [("sleep-after", "5m"), ("targets", CPU), ("max-replicas", "5")];
    let summary = case(&annotations, &readings("cpu,requests", minutes)).summary("--replicas 4");
    assert_eq!(counts(&summary), [], "{summary:#}");
    assert!(summary["undecided"].as_i64().unwrap() > 100, "{summary:#}");
}

#[test]
fn a_column_that_is_missing_is_named_beside_those_that_there_are() {
    let day = readings("cpu", (0..3).map(|_| "1".to_owned()));
    let rules = r#"[{"metric": "jobs", "window": "10m"}]"#;
    let sleeps = [("sleep-after", "15m"), ("rules", rules)];
    let error = case(&sleeps, &day).error("");
    assert!(
        error.ends_with("day.csv: there is no column `jobs_per_10m` or `jobs`; there are: cpu"),
        "{error}"
    );
    let error = case(&[("sleep-after", "15m")], &day).error("");
    assert!(
        error.ends_with("there is no column `requests`; there are: cpu"),
        "{error}"
    );
    let error = case(&[("sleep-after", "15m")], &day).error("--needed calls");
    assert!(error.contains("there is no column `calls`"), "{error}");
    let queue = r#"[{"source": "external", "metric": "queue", "value": 3}]"#;
    let error = scaled(queue, &day).error("");
    assert!(error.contains("there is no column `queue`"), "{error}");
    let error = scaled(CPU, &day).error("--needed cpu");
    assert!(
        error.contains("target.yaml: it never sleeps, so --needed has no effect"),
        "{error}"
    );
}

#[test]
fn the_drawing_has_a_panel_for_each_column_that_is_read() {
    let day = readings("cpu,requests", (0..30).map(|minute| format!("1,{minute}")));
    let both = r#"[{"source": "resource", "resource": "cpu", "utilization": 50}, {"source": "dlx-concurrency", "average": "10"}]"#;
    let case = case(
        &[("sleep-after", "15m"), ("targets", both), ("max-replicas", "5")],
        &day,
    );
    let file = case.file("day.svg");
    case.summary(&format!("--plot {file}"));
    let svg = std::fs::read_to_string(Path::new(&file)).unwrap();
    for text in ["web: replicas", "cpu", "requests"] {
        assert!(svg.contains(text), "{text}");
    }
    assert_eq!(
        svg.matches("hours").count(),
        3,
        "the rule and the target read one column"
    );
}
