//! Every source of readings: what is asked, what follows from the answer, and that nobody waits for somebody else's.

use std::time::Duration;

use dormouse_model::{PodScrape, Query};
use dormouse_plugin::types::{MetricSource, Rule};
use dormouse_scaling::Sample;
use rstest::rstest;

use crate::fakes::{Answer, lock};
use crate::harness::{MINUTE, World, custom, deployment, minutes, pass, resource};

fn rule(source: MetricSource) -> Rule {
    Rule {
        source,
        window: MINUTE * 10,
        threshold: "0".into(),
    }
}

fn scrape() -> PodScrape {
    PodScrape {
        port: 9090,
        path: "/metrics".into(),
        metric: "sessions".into(),
        labels: Vec::new(),
    }
}

fn prometheus(server: &str, query: &str) -> MetricSource {
    MetricSource::Prometheus {
        server: server.into(),
        query: query.into(),
    }
}

fn external() -> (MetricSource, Query) {
    let source = MetricSource::External {
        name: "queue_depth".into(),
        selector: Some("queue=orders".into()),
    };
    let question = Query::External {
        namespace: "shop".into(),
        metric: "queue_depth".into(),
        selector: Some("queue=orders".into()),
    };
    (source, question)
}

fn usage() -> (MetricSource, Query) {
    let question = Query::Usage {
        namespace: "shop".into(),
        workloads: vec![deployment("web")],
        resource: "cpu".into(),
        window: MINUTE * 10,
    };
    (MetricSource::Resource("cpu".into()), question)
}

fn query() -> (MetricSource, Query) {
    let template = r#"sum(rate(hits{namespace="{namespace}",app="{name}"}[{window}]))"#;
    let question = Query::Prometheus {
        namespace: "shop".into(),
        server: "main".into(),
        query: r#"sum(rate(hits{namespace="shop",app="web"}[600s]))"#.into(),
    };
    (prometheus("main", template), question)
}

fn pods() -> (MetricSource, Query) {
    let question = Query::Pods {
        namespace: "shop".into(),
        workloads: vec![deployment("web")],
        scrape: scrape(),
        window: MINUTE * 10,
    };
    (MetricSource::Pods(scrape()), question)
}

fn value(text: &str) -> Option<Sample> {
    text.parse().ok().map(Sample::Value)
}

#[rstest]
#[case::external("external", external())]
#[case::usage("resource", usage())]
#[case::query("prometheus", query())]
#[case::pods("pods", pods())]
#[tokio::test(start_paused = true)]
async fn only_a_value_puts_to_sleep(
    #[case] label: &str,
    #[case] (source, question): (MetricSource, Query),
    #[values(
        (value("0"), "Idle", "value", ""),
        (value("1m"), "InUse", "value", ""),
        (Some(Sample::NoData("nobody knows".into())), "NoData", "no-data", "NoData"),
        (Some(Sample::Error("it broke".into())), "Error", "error", "ReadingFailed"),
        (None, "Error", "error", "ReadingFailed"),
    )]
    (reading, outcome, result, reason): (Option<Sample>, &str, &str, &str),
) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![resource("shop", "web", vec![rule(source)])]);
    world.api.reads(&question, reading);
    world.run(&[&plugin]);
    minutes(2).await;
    let key = plugin.key("shop", "web");
    assert!(world.api.asked(&question) > 0);
    assert_eq!(world.cluster.outcome(&key), outcome);
    assert_eq!(plugin.slept().is_empty(), outcome != "Idle");
    // The reason is on the Sleeper, in an event when something is broken, and in a metric.
    let condition = world.cluster.condition(&key, "ReadingsAvailable");
    let told = world.cluster.events.lock().unwrap().clone();
    if reason.is_empty() {
        assert!(condition.is_none_or(|(status, ..)| status == "True"));
        assert!(!told.iter().any(|(_, reason)| reason == "ReadingFailed"));
    } else {
        let (status, said, _) = condition.unwrap();
        assert_eq!((status.as_str(), said.as_str()), ("False", reason));
        let failed = told.iter().any(|(_, said)| said == "ReadingFailed");
        assert_eq!(failed, reason == "ReadingFailed");
    }
    let line = format!(
        "dormouse_readings_total{{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",source=\"{label}\",result=\"{result}\"}}"
    );
    assert!(world.metric(&line).is_some(), "{line}");
    let line = format!("dormouse_reading_duration_seconds_count{{source=\"{label}\"}}");
    assert!(world.metric(&line).is_some(), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_selector_is_part_of_the_question() {
    let mut world = World::new();
    let source = |selector: Option<&str>| {
        rule(MetricSource::Custom {
            name: "requests".into(),
            selector: selector.map(str::to_owned),
        })
    };
    let plugin = world.plugin(
        "workloads",
        vec![
            resource("shop", "all", vec![source(None)]),
            resource("shop", "some", vec![source(Some("verb=GET"))]),
            resource("shop", "more", vec![source(Some("verb=GET"))]),
        ],
    );
    let call = "apps/Deployment/shop/requests_per_10m";
    world.api.says(
        call,
        Answer::Values(vec![("all", "1"), ("some", "1"), ("more", "1")]),
    );
    world.api.says(
        &format!("{call}?verb=GET"),
        Answer::Values(vec![("some", "0"), ("more", "0")]),
    );
    world.run(&[&plugin]);
    pass(MINUTE / 2).await;
    assert_eq!(world.api.calls(), [call.to_owned(), format!("{call}?verb=GET")]);
    let mut slept = plugin.slept();
    slept.sort();
    assert_eq!(slept, ["shop/more", "shop/some"]);
}

#[tokio::test(start_paused = true)]
async fn what_several_ask_is_asked_once_in_a_round() {
    let mut world = World::new();
    let same = || rule(prometheus("main", "sum(hits)"));
    let own = || rule(prometheus("main", "sum(hits{app=\"{name}\"})"));
    let resources = ["a", "b", "c"].map(|name| resource("shop", name, vec![same(), own()]));
    let plugin = world.plugin("workloads", resources.to_vec());
    world.run(&[&plugin]);
    pass(MINUTE / 2).await;
    assert_eq!(plugin.rounds(), 1);
    assert_eq!(lock(&world.api.requests).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_fills_its_own_places_only() {
    let mut world = World::new();
    world.limits.concurrency = 2;
    // More than there are places, on a server that never answers.
    let mut resources: Vec<_> = (0..10)
        .map(|index| {
            let source = prometheus("dead", &format!("x{index}"));
            world.api.reads(
                &Query::Prometheus {
                    namespace: "shop".into(),
                    server: "dead".into(),
                    query: format!("x{index}"),
                },
                None,
            );
            resource("shop", &format!("stuck-{index}"), vec![rule(source)])
        })
        .collect();
    resources.push(resource("shop", "web", vec![rule(query().0)]));
    resources.push(resource("shop", "shop", vec![custom("requests", 10, "0")]));
    world.api.reads(&query().1, value("0"));
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("shop", "0")]),
    );
    let plugin = world.plugin("workloads", resources);
    world.run(&[&plugin]);
    let begun = tokio::time::Instant::now();
    while plugin.slept().len() < 2 {
        pass(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < MINUTE * 2, "they waited for the dead server");
    }
    // The round began no earlier than this, and its slowest call has a deadline of ten seconds.
    let round = lock(&plugin.resources_calls)[0];
    assert!(round.elapsed() < Duration::from_secs(2), "{:?}", round.elapsed());
    // Those of the dead server: an error within two deadlines, one for the turn and one for the answer.
    pass(Duration::from_secs(25)).await;
    for index in 0..10 {
        let key = plugin.key("shop", &format!("stuck-{index}"));
        assert_eq!(world.cluster.outcome(&key), "Error", "{index}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_an_error_that_says_why() {
    let mut world = World::new();
    let mut platform = resource("shop", "function", vec![rule(usage().0)]);
    platform.workloads.clear();
    let mut odd = resource("shop", "odd", vec![rule(query().0)]);
    odd.object.name = "a\"} or vector(0)".into();
    let plugin = world.plugin("workloads", vec![platform, odd]);
    world.run(&[&plugin]);
    minutes(2).await;
    for (name, said) in [
        ("function", "names no workload"),
        ("odd", "could change the query"),
    ] {
        let (_, reason, message) = world
            .cluster
            .condition(&plugin.key("shop", name), "ReadingsAvailable")
            .unwrap();
        assert_eq!(reason, "ReadingFailed");
        assert!(message.contains(said), "{message}");
    }
    assert!(lock(&world.api.requests).is_empty());
    assert!(plugin.slept().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_condition_follows_a_changed_rule_at_once_and_a_changed_text_soon() {
    let mut world = World::new();
    let with = |source: MetricSource| vec![resource("shop", "web", vec![rule(source)])];
    let plugin = world.plugin("workloads", with(pods().0));
    let says = |text: &str| Some(Sample::Error(text.to_owned()));
    world.api.reads(&pods().1, says("pod a does not answer"));
    world.api.reads(&usage().1, says("forbidden"));
    world.config.overrides.scale_interval = Some(Duration::from_secs(1));
    world.run(&[&plugin]);
    pass(MINUTE / 2).await;
    let key = plugin.key("shop", "web");
    let message = || world.cluster.condition(&key, "ReadingsAvailable").unwrap().2;
    assert!(message().contains("pod a does not answer"), "{}", message());
    // Another text of the same trouble: written, but not in every round.
    world.api.reads(&pods().1, says("pod b does not answer"));
    pass(MINUTE * 6).await;
    assert!(message().contains("pod b does not answer"), "{}", message());
    // Another rule: at once.
    plugin.list(with(usage().0));
    pass(Duration::from_secs(3)).await;
    assert!(
        message().starts_with("cpu usage over 10m: forbidden"),
        "{}",
        message()
    );
}
