//! MemHpas.

use super::*;

fn case(spec: &str, memory: impl IntoIterator<Item = &'static str>) -> Case {
    let manifest = format!(
        "apiVersion: xinhuang.com/v1\nkind: MemHpa\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{scaleTargetRef: {{kind: Deployment, name: web}}, {spec}}}\n"
    );
    Case::of(
        &manifest,
        &readings("memory", memory.into_iter().map(str::to_owned)),
    )
}

const BOUNDS: &str = "minReplicas: 1, maxReplicas: 10, targetUtilizationPercentage: 50";

#[test]
fn it_is_scaled_by_what_its_pods_use_of_their_limits_and_waits_between_two_steps() {
    // 1 GiB at half of 256 MiB are 8 pods. From 1 it may go to 4, and on when more than three minutes are over.
    let case = case(BOUNDS, std::iter::repeat_n("1Gi", 20));
    let summary = case.summary("--limit memory=256Mi --replicas 1");
    assert_eq!(counts(&summary), [(1, 4), (4, 8)], "{summary:#}");
    let at = |change: usize| summary["changes"][change]["at"].as_str().unwrap();
    assert_eq!((at(0), at(1)), ("1970-01-01T00:00:00Z", "1970-01-01T00:03:30Z"));
    let why = summary["changes"][0]["why"].as_str().unwrap();
    assert!(why.contains("memory is 400%, target 50% of limits"), "{why}");
    assert_eq!(summary["rounds"], 38, "every 30 s");
}

#[test]
fn within_a_tenth_it_stays_and_down_it_goes_more_than_five_minutes_after_a_change() {
    let memory = std::iter::repeat_n("1Gi", 5).chain(std::iter::repeat_n("256Mi", 15));
    let summary = case(BOUNDS, memory).summary("--limit memory=256Mi --replicas 4");
    assert_eq!(counts(&summary), [(4, 8), (8, 2)], "{summary:#}");
    assert_eq!(summary["changes"][1]["at"], "1970-01-01T00:05:30Z");
    let steady = case(BOUNDS, std::iter::repeat_n("540Mi", 5)).summary("--limit memory=256Mi --replicas 4");
    assert_eq!(counts(&steady), []);
}

#[test]
fn a_sleep_is_possible_beside_it() {
    let readings = readings(
        "memory,requests",
        (0..40).map(|minute| {
            if (5..30).contains(&minute) {
                "512Mi,0"
            } else {
                "512Mi,3"
            }
            .to_owned()
        }),
    );
    let case = case(BOUNDS, []);
    std::fs::write(case.file("day.csv"), readings).unwrap();
    let summary = case.summary("--limit memory=256Mi --replicas 4 --sleep-after 10m");
    assert_eq!(counts(&summary), [(4, 0), (0, 4)], "{summary:#}");
}

#[test]
fn what_is_corrected_is_told() {
    let case = case("minReplicas: 0, maxReplicas: 10", std::iter::repeat_n("1Gi", 3));
    let summary = case.summary("--limit memory=256Mi");
    let corrections = summary["corrections"].as_array().unwrap();
    assert_eq!(corrections.len(), 2, "{summary:#}");
}

#[test]
fn without_limits_it_says_how_to_give_them() {
    let case = case(BOUNDS, std::iter::repeat_n("1Gi", 3));
    let error = case.error("");
    assert!(
        error.contains("target.yaml: it is scaled by the share of its memory limits")
            && error.contains("--limit memory=256Mi"),
        "{error}"
    );
    let error = Case::of(
        &std::fs::read_to_string(case.file("target.yaml")).unwrap(),
        "time,cpu\n0,1\n1,1\n",
    );
    let error = error.error("--limit memory=256Mi");
    assert!(
        error.contains("there is no column `memory`; there are: cpu"),
        "{error}"
    );
}
