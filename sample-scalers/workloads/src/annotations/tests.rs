use dormouse_sdk::duration::{minutes, seconds};
use dormouse_sdk::{Goal, GoalTarget, MetricSource, PodScrape, Quantity};

use super::*;

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn managed(pairs: &[(&str, &str)]) -> Managed {
    match read(&annotations(pairs)) {
        Ok(Request::Managed(managed)) => managed,
        other => panic!("{pairs:?}: {other:?}"),
    }
}

#[test]
fn sleep_after_is_enough() {
    let expected = Managed {
        services: None,
        rules: vec![Rule::observed_traffic(minutes(15))],
        scaling: None,
        wake_timeout: None,
        replicas: None,
    };
    assert_eq!(managed(&[("dormouse.dev/sleep-after", "15m")]), expected);
}

#[test]
fn everything_can_be_said() {
    let all = managed(&[
        ("dormouse.dev/sleep-after", "1h30m"),
        ("dormouse.dev/services", "web, web-admin,web"),
        (
            "dormouse.dev/rules",
            r#"[{"metric": "requests", "window": "10m", "threshold": "500m"}]"#,
        ),
        ("dormouse.dev/wake-timeout", "2m"),
        ("dormouse.dev/replicas", "3"),
        ("dormouse.dev/paused", "false"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
    ]);
    let threshold: Quantity = "500m".parse().expect("a quantity");
    let expected = Managed {
        services: Some(vec!["web".into(), "web-admin".into()]),
        rules: vec![Rule::custom("requests", minutes(10), threshold)],
        scaling: None,
        wake_timeout: Some(minutes(2)),
        replicas: Some(3),
    };
    assert_eq!(all, expected);
}

#[test]
fn who_does_not_ask_is_not_opted_in() {
    for (what, pairs) in [
        ("nothing", &[][..]),
        ("somebody else's", &[("example.com/sleep-after", "15m")]),
        (
            "the host's",
            &[
                ("dormouse.dev/epoch", "7"),
                ("dormouse.dev/parked-selector", "{}"),
            ],
        ),
        ("paused false alone", &[("dormouse.dev/paused", "false")]),
    ] {
        assert_eq!(read(&annotations(pairs)), Ok(Request::None), "{what}");
    }
}

#[test]
fn paused_wins() {
    for pairs in [
        &[("dormouse.dev/paused", "true")][..],
        &[
            ("dormouse.dev/paused", "true"),
            ("dormouse.dev/sleep-after", "15m"),
        ],
        &[("dormouse.dev/paused", "true"), ("dormouse.dev/services", "web")],
    ] {
        assert_eq!(read(&annotations(pairs)), Ok(Request::Paused), "{pairs:?}");
    }
}

#[test]
fn the_hosts_annotations_do_not_disturb() {
    managed(&[
        ("dormouse.dev/sleep-after", "15m"),
        ("dormouse.dev/epoch", "not ours to read"),
    ]);
}

#[test]
fn rules_have_defaults() {
    let threshold = |text: &str| text.parse::<Quantity>().expect("a quantity");
    for (text, expected) in [
        (
            r#"[{"metric": "requests"}]"#,
            vec![Rule::custom("requests", minutes(15), 0)],
        ),
        (
            r#"[{"metric": "requests", "threshold": 2}]"#,
            vec![Rule::custom("requests", minutes(15), 2)],
        ),
        (
            r#"[{"metric": "load", "threshold": 0.5}]"#,
            vec![Rule::custom("load", minutes(15), threshold("0.5"))],
        ),
        (
            r#"[{"source": "observed-traffic"}, {"metric": "jobs", "window": "90s"}]"#,
            vec![
                Rule::observed_traffic(minutes(15)),
                Rule::custom("jobs", seconds(90), 0),
            ],
        ),
        (
            r#"[{"source": "observed-traffic", "threshold": "0"}]"#,
            vec![Rule::observed_traffic(minutes(15))],
        ),
    ] {
        let pairs = [("dormouse.dev/sleep-after", "15m"), ("dormouse.dev/rules", text)];
        assert_eq!(managed(&pairs).rules, expected, "{text}");
    }
}

#[test]
fn every_source_can_be_named() {
    let quarter = minutes(15);
    for (text, expected) in [
        (
            r#"{"source": "custom", "metric": "requests", "selector": "verb=GET"}"#,
            Rule::custom("requests", quarter, 0).selector("verb=GET"),
        ),
        (
            r#"{"source": "external", "metric": "queue_depth", "selector": "queue=orders"}"#,
            Rule::external("queue_depth", quarter, 0).selector("queue=orders"),
        ),
        (
            r#"{"source": "resource", "resource": "cpu", "threshold": "50m"}"#,
            Rule::usage("cpu", quarter, "50m".parse::<Quantity>().expect("a quantity")),
        ),
        (
            r#"{"source": "prometheus", "server": "main", "query": "sum(up{app='{name}'})", "window": "5m"}"#,
            Rule::prometheus("main", "sum(up{app='{name}'})", minutes(5), 0),
        ),
        (
            r#"{"source": "pods", "port": 9090, "metric": "sessions", "labels": {"kind": "ws"}}"#,
            Rule::pods(PodScrape::new(9090, "sessions").label("kind", "ws"), quarter, 0),
        ),
        (
            r#"{"source": "pods", "port": 80, "path": "/stats?format=prometheus", "metric": "sessions"}"#,
            Rule::pods(
                PodScrape::new(80, "sessions").path("/stats?format=prometheus"),
                quarter,
                0,
            ),
        ),
    ] {
        let text = format!("[{text}]");
        let pairs = [
            ("dormouse.dev/sleep-after", "15m"),
            ("dormouse.dev/rules", text.as_str()),
        ];
        assert_eq!(managed(&pairs).rules, [expected], "{text}");
    }
}

/// Every line: annotation, wrong value, what the message must say beside both.
#[test]
fn a_wrong_value_is_named_with_the_accepted_form() {
    for (key, text, says) in [
        ("sleep-after", "15", "no unit"),
        ("sleep-after", "soon", "such as 15m"),
        ("sleep-after", "", "such as 15m"),
        ("sleep-after", "0s", "longer than zero; write numbers with units"),
        ("sleep-after", "-5m", "negative"),
        ("wake-timeout", "2 minutes", "such as 15m"),
        ("wake-timeout", "0", "longer than zero"),
        ("services", "", "names of Services"),
        ("services", "web,,admin", "names of Services"),
        ("services", "web.shop", "`web.shop`"),
        ("services", "web admin", "such as web,web-admin"),
        ("replicas", "0", "from 1 up"),
        ("replicas", "-1", "from 1 up"),
        ("replicas", "three", "from 1 up"),
        ("replicas", "2147483648", "from 1 up"),
        ("paused", "yes", "\"true\" or \"false\""),
        ("paused", "True", "\"true\" or \"false\""),
        ("rules", "requests", "JSON list such as"),
        ("rules", "{}", "JSON list such as"),
        ("rules", "[]", "never idle"),
        (
            "rules",
            r#"[{"window": "10m"}]"#,
            "rule 1: it has no metric and no source",
        ),
        (
            "rules",
            r#"[{"metric": "a"}, {"metric": "b c"}]"#,
            "rule 2: `b c`",
        ),
        ("rules", r#"[{"metric": "a", "windows": "10m"}]"#, "windows"),
        (
            "rules",
            r#"[{"metric": "a", "window": "10"}]"#,
            "window: `10` has no unit",
        ),
        (
            "rules",
            r#"[{"metric": "a", "threshold": "few"}]"#,
            "`few` is not a quantity",
        ),
        (
            "rules",
            r#"[{"source": "promtheus"}]"#,
            "`promtheus` is unknown; did you mean prometheus?",
        ),
        (
            "rules",
            r#"[{"source": "tides"}]"#,
            "known are observed-traffic, custom, external, resource, prometheus, pods",
        ),
        (
            "rules",
            r#"[{"source": "observed-traffic", "threshold": "1"}]"#,
            "must be 0",
        ),
        (
            "rules",
            r#"[{"source": "observed-traffic", "metric": "a"}]"#,
            "`metric` does not belong to this source",
        ),
        (
            "rules",
            r#"[{"metric": "a", "query": "up"}]"#,
            "`query` does not belong to this source; write it like {\"source\": \"custom\"",
        ),
        (
            "rules",
            r#"[{"source": "external"}]"#,
            "it has no metric; write it like {\"source\": \"external\"",
        ),
        (
            "rules",
            r#"[{"source": "resource", "resource": "c p u"}]"#,
            "`c p u` is not the name of a resource; write it like",
        ),
        (
            "rules",
            r#"[{"source": "prometheus", "query": "up"}]"#,
            "it has no server; write it like {\"source\": \"prometheus\"",
        ),
        (
            "rules",
            r#"[{"source": "prometheus", "server": "http://here", "query": "up"}]"#,
            "`http://here` is not the name of a server",
        ),
        (
            "rules",
            r#"[{"source": "prometheus", "server": "main", "query": " "}]"#,
            "it has no query",
        ),
        (
            "rules",
            r#"[{"source": "pods", "metric": "sessions"}]"#,
            "it has no port; write it like {\"source\": \"pods\"",
        ),
        (
            "rules",
            r#"[{"source": "pods", "metric": "sessions", "port": 70000}]"#,
            "70000",
        ),
        (
            "rules",
            r#"[{"source": "pods", "metric": "ses-sions", "port": 80}]"#,
            "`ses-sions` is not the name of a metric",
        ),
        (
            "rules",
            r#"[{"source": "pods", "metric": "sessions", "port": 80, "path": "metrics"}]"#,
            "`metrics` is not a path",
        ),
    ] {
        let mut pairs = annotations(&[("dormouse.dev/sleep-after", "15m")]);
        pairs.insert(format!("dormouse.dev/{key}"), text.into());
        let problems = read(&pairs).expect_err(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let message = problems[0].to_string();
        let accepted = KNOWN.iter().find(|(name, _)| *name == key).expect("known").1;
        for part in [
            format!("dormouse.dev/{key}"),
            format!("`{text}`"),
            says.into(),
            accepted.into(),
        ] {
            assert!(message.contains(&part), "{message:?} does not say {part:?}");
        }
    }
}

fn scaling(targets: &str) -> Result<Scaling, Vec<Problem>> {
    let pairs = annotations(&[
        ("dormouse.dev/targets", targets),
        ("dormouse.dev/max-replicas", "10"),
    ]);
    match read(&pairs)? {
        Request::Managed(managed) => Ok(managed.scaling.expect("it is scaled")),
        other => panic!("{targets}: {other:?}"),
    }
}

#[test]
fn targets_opt_in_without_sleep() {
    let managed = managed(&[
        (
            "dormouse.dev/targets",
            r#"[{"source": "resource", "resource": "cpu", "utilization": 50}, {"source": "dlx-concurrency", "average": 10}]"#,
        ),
        ("dormouse.dev/min-replicas", "2"),
        ("dormouse.dev/max-replicas", "10"),
        (
            "dormouse.dev/behavior",
            r#"{"scaleDown": {"stabilizationWindowSeconds": 60}}"#,
        ),
    ]);
    let expected = Scaling::between(2, 10)
        .goal(Goal::utilization("cpu", 50))
        .goal(Goal::dlx_concurrency(10))
        .behavior(r#"{"scaleDown": {"stabilizationWindowSeconds": 60}}"#);
    assert_eq!(managed.scaling, Some(expected));
    assert!(!managed.sleeps());
}

#[test]
fn every_target_has_a_goal_that_fits_its_source() {
    let quantity = |text: &str| text.parse::<Quantity>().expect("a quantity");
    for (text, expected) in [
        (
            r#"{"source": "resource", "resource": "memory", "average": "200Mi"}"#,
            Goal::usage("memory", quantity("200Mi")),
        ),
        (
            r#"{"source": "resource", "resource": "cpu", "utilization": "75%"}"#,
            Goal::utilization("cpu", 75),
        ),
        (
            r#"{"source": "pods", "port": 9090, "metric": "sessions", "average": 20}"#,
            Goal::pods(PodScrape::new(9090, "sessions"), 20),
        ),
        (r#"{"source": "dlx-rate", "average": "20"}"#, Goal::dlx_rate(20)),
        (
            r#"{"source": "dlx-rate", "average": 20, "window": "1m"}"#,
            Goal::dlx_rate(20).window(minutes(1)),
        ),
        (
            r#"{"metric": "requests", "window": "1m", "average": "5"}"#,
            Goal::new(
                MetricSource::Custom {
                    name: "requests".into(),
                    selector: None,
                },
                GoalTarget::Average(quantity("5")),
            )
            .window(minutes(1)),
        ),
        (
            r#"{"source": "external", "metric": "queue_depth", "value": "100"}"#,
            Goal::new(
                MetricSource::External {
                    name: "queue_depth".into(),
                    selector: None,
                },
                GoalTarget::Value(quantity("100")),
            ),
        ),
    ] {
        let scaling = scaling(&format!("[{text}]")).expect(text);
        assert_eq!(scaling, Scaling::between(1, 10).goal(expected), "{text}");
    }
}

/// Every line: a target, and what the message must say.
#[test]
fn a_wrong_target_is_named_with_what_would_be_right() {
    for (text, says) in [
        (
            r#"{"metric": "a"}"#,
            "target 1: it does not say what the reading should be",
        ),
        (r#"{"metric": "a", "average": 1, "value": 1}"#, "more than one of"),
        (
            r#"{"metric": "a", "average": 1, "threshold": 1}"#,
            "write that in dormouse.dev/rules",
        ),
        (
            r#"{"metric": "a", "average": 0}"#,
            "average: `0` is not above zero",
        ),
        (
            r#"{"metric": "a", "average": "-1"}"#,
            "average: `-1` is not above zero",
        ),
        (
            r#"{"metric": "a", "utilization": 50}"#,
            "only a resource has a `utilization`",
        ),
        (
            r#"{"source": "resource", "resource": "cpu", "value": 5}"#,
            "compared by `utilization` or `average`",
        ),
        (
            r#"{"source": "resource", "resource": "cpu", "utilization": 0.5}"#,
            "`0.5` is not a percentage",
        ),
        (r#"{"source": "dlx-concurrency", "value": 5}"#, "write `average`"),
        (r#"{"source": "dlx-rate", "value": 5}"#, "write `average`"),
        (
            r#"{"source": "dlx-rate", "average": 5, "window": "2m"}"#,
            "window: dlx-rate looks back for at most `1m`",
        ),
        (
            r#"{"source": "dlx-rate", "average": 5, "metric": "a"}"#,
            "`metric` does not belong to this source",
        ),
        (
            r#"{"source": "pods", "port": 1, "metric": "a", "value": 5}"#,
            "write `average`",
        ),
        (
            r#"{"source": "observed-traffic", "average": 5}"#,
            "dlx-concurrency and dlx-rate say how much",
        ),
        (
            r#"{"source": "dlx-concurency", "average": 5}"#,
            "did you mean dlx-concurrency?",
        ),
        (r#"{"source": "external", "average": 5}"#, "write it like"),
        (
            r#"{"metric": "a", "average": 5, "window": "0s"}"#,
            "window: it must be longer than zero",
        ),
        (
            r#"{"source": "dlx-concurrency", "average": 5, "window": "5m"}"#,
            "`window` has no effect on this source",
        ),
    ] {
        let problems = scaling(&format!("[{text}]")).expect_err(text);
        let message = problems[0].to_string();
        assert_eq!(problems.len(), 1, "{problems:?}");
        for part in [says, "dormouse.dev/targets", targets::ACCEPTED] {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    }
    for text in ["cpu", "[]", "{}"] {
        let problems = scaling(text).expect_err(text);
        assert!(
            problems[0].to_string().contains("JSON list such as"),
            "{problems:?}"
        );
    }
}

#[test]
fn what_belongs_together_is_asked_for_together() {
    let targets = ("dormouse.dev/targets", r#"[{"metric": "a", "average": 1}]"#);
    let (min, max) = (
        ("dormouse.dev/min-replicas", "3"),
        ("dormouse.dev/max-replicas", "2"),
    );
    let behavior = ("dormouse.dev/behavior", "{}");
    let rules = ("dormouse.dev/rules", r#"[{"metric": "a"}]"#);
    for (pairs, says) in [
        (
            &[targets][..],
            "dormouse.dev/targets has no effect without dormouse.dev/max-replicas",
        ),
        (
            &[min],
            "dormouse.dev/min-replicas has no effect without dormouse.dev/targets",
        ),
        (
            &[max],
            "dormouse.dev/max-replicas has no effect without dormouse.dev/targets",
        ),
        (
            &[behavior],
            "dormouse.dev/behavior has no effect without dormouse.dev/targets",
        ),
        (
            &[targets, min, max],
            "max-replicas is 2, below dormouse.dev/min-replicas, which is 3",
        ),
        (
            &[targets, max, rules],
            "dormouse.dev/rules has no effect without dormouse.dev/sleep-after",
        ),
        (
            &[targets, max, ("dormouse.dev/services", "web")],
            "dormouse.dev/services has no effect without dormouse.dev/sleep-after",
        ),
        (
            &[
                targets,
                max,
                ("dormouse.dev/sleep-after", "1m"),
                ("dormouse.dev/replicas", "3"),
            ],
            "replicas is 3, which is not from dormouse.dev/min-replicas to dormouse.dev/max-replicas (1 to 2)",
        ),
        (
            &[targets, max, ("dormouse.dev/behavior", "[]")],
            "it is not an object",
        ),
        (
            &[targets, max, ("dormouse.dev/behavior", "slow")],
            "it is not JSON",
        ),
    ] {
        let problems = read(&annotations(pairs)).expect_err(says);
        let message = problems[0].to_string();
        assert!(problems.len() == 1 && message.contains(says), "{problems:?}");
    }
}

#[test]
fn a_goal_in_a_rule_belongs_elsewhere() {
    for (text, says) in [
        (
            r#"[{"metric": "a", "average": 1}]"#,
            "write that in dormouse.dev/targets",
        ),
        (
            r#"[{"source": "dlx-concurrency"}]"#,
            "dlx-concurrency says how many replicas there should be",
        ),
        (r#"[{"source": "dlx-rate"}]"#, "or observed-traffic here"),
    ] {
        let pairs = annotations(&[("dormouse.dev/sleep-after", "15m"), ("dormouse.dev/rules", text)]);
        let problems = read(&pairs).expect_err(text);
        assert!(problems[0].to_string().contains(says), "{problems:?}");
    }
}

#[test]
fn a_typo_finds_what_was_meant() {
    for (key, says) in [
        ("sleep-affter", "did you mean dormouse.dev/sleep-after?"),
        ("service", "did you mean dormouse.dev/services?"),
        ("pause", "did you mean dormouse.dev/paused?"),
        (
            "owner",
            "known are sleep-after, services, rules, wake-timeout, replicas, targets, min-replicas, max-replicas, behavior, at-zero, paused",
        ),
    ] {
        let mut pairs = annotations(&[("dormouse.dev/sleep-after", "15m")]);
        pairs.insert(format!("dormouse.dev/{key}"), "x".into());
        let problems = read(&pairs).expect_err(key);
        let message = problems[0].to_string();
        assert!(
            problems.len() == 1 && message.contains(key) && message.contains(says),
            "{message}"
        );
    }
    let alone = read(&annotations(&[("dormouse.dev/sleepafter", "15m")])).expect_err("a typo");
    assert!(matches!(&alone[..], [Problem::Unknown { .. }]), "{alone:?}");
}

#[test]
fn the_others_have_no_effect_without_sleep_after() {
    assert_eq!(
        read(&annotations(&[("dormouse.dev/replicas", "3")])),
        Err(vec![Problem::NotOptedIn { or: "targets" }])
    );
}

#[test]
fn everything_wrong_is_said_at_once() {
    let pairs = annotations(&[
        ("dormouse.dev/sleep-after", "soon"),
        ("dormouse.dev/replicas", "x"),
        ("dormouse.dev/colour", "blue"),
    ]);
    assert_eq!(read(&pairs).expect_err("three").len(), 3);
}

fn of_autoscaler(pairs: &[(&str, &str)]) -> Result<Request, Vec<Problem>> {
    read_of_autoscaler(&annotations(pairs))
}

fn problem_of_autoscaler(pairs: &[(&str, &str)]) -> String {
    let problems = of_autoscaler(pairs).expect_err("a problem");
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

#[test]
fn an_object_of_another_autoscaler_sleeps_by_the_same_annotations() {
    assert_eq!(of_autoscaler(&[("example.com/a", "b")]), Ok(Request::None));
    let all = &[
        ("dormouse.dev/sleep-after", "15m"),
        ("dormouse.dev/services", "web"),
        ("dormouse.dev/wake-timeout", "2m"),
        ("dormouse.dev/replicas", "3"),
    ];
    assert_eq!(of_autoscaler(all), read(&annotations(all)));
    let paused = &[
        ("dormouse.dev/sleep-after", "15m"),
        ("dormouse.dev/paused", "true"),
    ];
    assert_eq!(of_autoscaler(paused), Ok(Request::Paused));
}

#[test]
fn there_rules_that_say_their_windows_are_enough() {
    let rules = r#"[{"metric": "requests", "window": "10m"}]"#;
    let asked = of_autoscaler(&[("dormouse.dev/rules", rules)]);
    let Ok(Request::Managed(managed)) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(managed.rules, [Rule::custom("requests", minutes(10), 0)]);
    let without = problem_of_autoscaler(&[("dormouse.dev/rules", r#"[{"metric": "requests"}]"#)]);
    assert!(without.contains("rule 1: it has no window"), "{without}");
    let one = problem_of_autoscaler(&[
        ("dormouse.dev/sleep-after", "soon"),
        ("dormouse.dev/rules", r#"[{"metric": "requests"}]"#),
    ]);
    assert!(!one.contains("window"), "{one}");
}

#[test]
fn there_what_scales_a_workload_has_no_effect() {
    let told = problem_of_autoscaler(&[
        ("dormouse.dev/sleep-after", "15m"),
        ("dormouse.dev/max-replicas", "5"),
    ]);
    assert!(
        told.contains("dormouse.dev/max-replicas has no effect here"),
        "{told}"
    );
    let alone = problem_of_autoscaler(&[("dormouse.dev/services", "web")]);
    assert!(alone.contains("without it or dormouse.dev/rules"), "{alone}");
    let typo = problem_of_autoscaler(&[("dormouse.dev/sleepafter", "15m")]);
    assert!(typo.contains("did you mean dormouse.dev/sleep-after?"), "{typo}");
}
