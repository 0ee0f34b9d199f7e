use dormouse_sdk::testing::{Call, Host};
use kubernetes::EventType;
use serde_json::{Value, json};

use super::*;

fn workload(kind: &str, namespace: &str, name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "generation": 1, "annotations": annotations},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": name}}}},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}
    })
}

fn deployment(name: &str, annotations: &Value) -> Value {
    workload("Deployment", "shop", name, annotations)
}

fn service(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": app}, "ports": [{"port": 80}]}
    })
}

fn sleepy() -> Value {
    json!({"dormouse.dev/sleep-after": "15m"})
}

fn names(resources: &[Resource]) -> Vec<String> {
    resources.iter().map(|resource| resource.id.to_string()).collect()
}

/// Object, reason and message of every Event.
fn events(host: &Host) -> Vec<(String, String, String)> {
    let said = |event: dormouse_sdk::testing::Event| {
        assert_eq!(event.kind, EventType::Warning);
        (
            format!("{}/{}", event.regarding.kind, event.regarding.name),
            event.reason,
            event.message,
        )
    };
    host.events().into_iter().map(said).collect()
}

#[test]
fn an_annotated_deployment_is_a_resource_with_its_services() {
    let host = Host::new();
    host.add(deployment("web", &sleepy()))
        .add(deployment("plain", &json!({})))
        .add(service("shop", "web", "web"))
        .add(service("shop", "web-admin", "web"))
        .add(service("shop", "api", "api"));
    let resources = Workloads.resources().expect("resources");
    let expected = Resource::new("shop", "web")
        .workload(ObjectRef::new("apps/v1", "Deployment", "web"))
        .services(["web", "web-admin"])
        .rule(Rule::observed_traffic(minutes(15)));
    assert_eq!(resources, [expected]);
    assert_eq!(events(&host), []);
}

#[test]
fn annotations_decide() {
    let host = Host::new();
    let annotations = json!({
        "dormouse.dev/sleep-after": "1h", "dormouse.dev/services": "web-admin", "dormouse.dev/wake-timeout": "2m",
        "dormouse.dev/replicas": "3", "dormouse.dev/rules": "[{\"metric\":\"requests\",\"threshold\":\"2\"}]",
        "dormouse.dev/epoch": "12",
        "state.dormouse.dev/asleep": "{}"
    });
    host.add(deployment("web", &annotations))
        .add(service("shop", "web", "web"))
        .add(service("shop", "web-admin", "web"));
    let resources = Workloads.resources().expect("resources");
    let expected = Resource::new("shop", "web")
        .workload(ObjectRef::new("apps/v1", "Deployment", "web"))
        .service("web-admin")
        .rule(Rule::custom("requests", hours(1), 2))
        .readiness_timeout(minutes(2))
        .restore_replicas(3);
    assert_eq!(resources, [expected]);
}

#[test]
fn states_are_those_of_the_workloads() {
    let host = Host::new();
    let mut asleep = deployment("asleep", &sleepy());
    asleep["spec"]["replicas"] = json!(0);
    let mut leaving = deployment("leaving", &sleepy());
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut rolling = deployment("rolling", &sleepy());
    rolling["status"]["updatedReplicas"] = json!(1);
    rolling["status"]["conditions"] =
        json!([{"type": "Progressing", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
    for object in [asleep, leaving, rolling] {
        host.add(service(
            "shop",
            object["metadata"]["name"].as_str().expect("a name"),
            object["metadata"]["name"].as_str().expect("a name"),
        ));
        host.add(object);
    }
    let resources = Workloads.resources().expect("resources");
    let seen: Vec<_> = resources
        .iter()
        .map(|found| (found.id.name.as_str(), found.state, found.last_event))
        .collect();
    let at = "2026-01-01T00:00:00Z".parse().expect("a moment");
    let updated = ScaleEvent {
        kind: ScaleEventKind::ResourceUpdated,
        at,
    };
    assert_eq!(
        seen,
        [
            ("asleep", State::Asleep, None),
            ("rolling", State::Awake, Some(updated))
        ]
    );
}

#[test]
fn a_parked_service_is_still_its_own() {
    let host = Host::new();
    let mut parked = service("shop", "web", "web");
    parked["metadata"]["annotations"] = json!({"dormouse.dev/parked-selector": "{\"app\":\"web\"}"});
    parked["spec"]["selector"] = json!({"dormouse.dev/parked": "web"});
    host.add(deployment("web", &sleepy())).add(parked);
    assert_eq!(Workloads.resources().expect("resources")[0].services, ["web"]);
}

#[test]
fn a_wrong_annotation_leaves_one_awake_and_the_others_alone() {
    let host = Host::new();
    host.add(deployment("good", &sleepy()))
        .add(deployment("bad", &json!({"dormouse.dev/sleep-after": "15"})))
        .add(deployment("typo", &json!({"dormouse.dev/sleep-affter": "15m"})))
        .add(service("shop", "good", "good"))
        .add(service("shop", "bad", "bad"))
        .add(service("shop", "typo", "typo"));
    assert_eq!(names(&Workloads.resources().expect("resources")), ["shop/good"]);
    let events = events(&host);
    assert_eq!(events.len(), 2, "{events:?}");
    for ((object, reason, message), (expected, parts)) in events.iter().zip([
        (
            "Deployment/bad",
            ["dormouse.dev/sleep-after", "`15`", "15m, 1h30m, 90s or 1.5h"],
        ),
        (
            "Deployment/typo",
            [
                "dormouse.dev/sleep-affter",
                "`15m`",
                "did you mean dormouse.dev/sleep-after?",
            ],
        ),
    ]) {
        assert_eq!(
            (object.as_str(), reason.as_str()),
            (expected, "InvalidAnnotation")
        );
        assert!(
            parts.iter().all(|part| message.contains(part)) && message.ends_with("left awake."),
            "{message}"
        );
    }
}

#[test]
fn events_that_cannot_be_written_stop_nobody() {
    let host = Host::new();
    host.add(deployment("good", &sleepy()))
        .add(deployment("bad", &json!({"dormouse.dev/sleep-after": "15"})))
        .add(service("shop", "good", "good"));
    host.fail_next(
        Call::Event,
        kubernetes::Error::Denied("events are not granted".into()),
    );
    assert_eq!(names(&Workloads.resources().expect("resources")), ["shop/good"]);
    assert!(
        host.lines()
            .iter()
            .any(|line| line.message.contains("could not be recorded"))
    );
}

#[test]
fn paused_is_left_awake_and_silent() {
    let host = Host::new();
    host.add(deployment(
        "web",
        &json!({"dormouse.dev/sleep-after": "15m", "dormouse.dev/paused": "true"}),
    ));
    assert_eq!(Workloads.resources().expect("resources"), []);
    assert_eq!(events(&host), []);
}

#[test]
fn a_workload_that_nothing_could_wake_is_left_awake() {
    let host = Host::new();
    host.add(deployment("lonely", &sleepy()))
        .add(deployment(
            "lost",
            &json!({"dormouse.dev/sleep-after": "15m", "dormouse.dev/services": "ghost"}),
        ))
        .add(service("shop", "db", "db"));
    assert_eq!(Workloads.resources().expect("resources"), []);
    let events = events(&host);
    for ((object, reason, message), (expected, part)) in events.iter().zip([
        ("Deployment/lonely", "no Service selects its pods"),
        ("Deployment/lost", "`ghost`, but there is no such Service"),
    ]) {
        assert_eq!(
            (object.as_str(), reason.as_str()),
            (expected, "UnsuitableService")
        );
        assert!(
            message.contains(part) && message.contains("dormouse.dev/services"),
            "{message}"
        );
    }
    assert_eq!(events.len(), 2);
}

/// The host says on the Sleeper what cannot be diverted.
#[test]
fn a_headless_service_is_named_unless_its_owner_leaves_it_out() {
    let host = Host::new();
    let mut headless = service("shop", "peers", "db");
    headless["spec"]["clusterIP"] = json!("None");
    host.add(workload("StatefulSet", "shop", "db", &sleepy()))
        .add(headless)
        .add(service("shop", "db", "db"));
    let services = || {
        let [only] = &Workloads.resources().expect("resources")[..] else {
            panic!("one")
        };
        only.services.clone()
    };
    assert_eq!(services(), ["db", "peers"]);

    // Naming the one that can be diverted is a decision that only the owner can take.
    let key = ObjectKey::new("apps/v1", "StatefulSet", "shop", "db");
    host.change(
        &key,
        &json!({"metadata": {"annotations": {"dormouse.dev/services": "db"}}}),
    );
    assert_eq!(services(), ["db"]);
    assert_eq!(events(&host), []);
}

#[test]
fn one_name_in_two_kinds_is_two_resources() {
    let host = Host::new();
    let named = |service: &str| json!({"dormouse.dev/sleep-after": "15m", "dormouse.dev/services": service});
    host.add(deployment("web", &named("web")))
        .add(workload("StatefulSet", "shop", "web", &named("web-store")))
        .add(service("shop", "web", "web"))
        .add(service("shop", "web-store", "web"));
    let resources = Workloads.resources().expect("resources");
    assert_eq!(names(&resources), ["shop/web", "shop/statefulset.web"]);
    assert_eq!(
        resources[1].workloads,
        [ObjectRef::new("apps/v1", "StatefulSet", "web")]
    );
    assert_eq!(resources[1].services, ["web-store"]);
}

#[test]
fn a_name_that_two_workloads_would_share_is_left_out() {
    let host = Host::new();
    host.add(deployment("statefulset.web", &sleepy()))
        .add(workload("StatefulSet", "shop", "web", &sleepy()))
        .add(service("shop", "a", "statefulset.web"))
        .add(service("shop", "b", "web"));
    assert_eq!(Workloads.resources().expect("resources"), []);
    let said: Vec<_> = events(&host)
        .into_iter()
        .map(|(object, reason, _)| (object, reason))
        .collect();
    let collision = |object: &str| (object.to_owned(), "NameCollision".to_owned());
    assert_eq!(
        said,
        [
            collision("Deployment/statefulset.web"),
            collision("StatefulSet/web")
        ]
    );
}

#[test]
fn dual_workloads_behind_one_service_are_both_left_awake() {
    let host = Host::new();
    let mut canary = deployment("canary", &sleepy());
    canary["spec"]["template"]["metadata"]["labels"] = json!({"app": "web"});
    host.add(deployment("web", &sleepy()))
        .add(canary)
        .add(deployment("api", &sleepy()))
        .add(workload("Deployment", "lab", "web", &sleepy()))
        .add(service("shop", "web", "web"))
        .add(service("shop", "api", "api"))
        .add(service("lab", "web", "web"));
    // The host refuses to divert a Service of two Sleepers, and says so on both.
    assert_eq!(
        names(&Workloads.resources().expect("resources")),
        ["lab/web", "shop/api", "shop/canary", "shop/web"]
    );
    let events = events(&host);
    for ((object, reason, message), (expected, other)) in events.iter().zip([
        ("Deployment/canary", "Deployment `web`"),
        ("Deployment/web", "Deployment `canary`"),
    ]) {
        assert_eq!((object.as_str(), reason.as_str()), (expected, "SharedService"));
        assert!(
            message.contains("dual workloads behind one Service") && message.contains(other),
            "{message}"
        );
    }
    assert_eq!(events.len(), 2);

    // A neighbour that asked to be left awake keeps its traffic too.
    let key = ObjectKey::new("apps/v1", "Deployment", "shop", "canary");
    host.change(
        &key,
        &json!({"metadata": {"annotations": {"dormouse.dev/paused": "true"}}}),
    );
    assert_eq!(
        names(&Workloads.resources().expect("resources")),
        ["lab/web", "shop/api"]
    );
}

fn scaled() -> Value {
    json!({
        "dormouse.dev/targets": r#"[{"source": "resource", "resource": "cpu", "utilization": 50}]"#,
        "dormouse.dev/max-replicas": "10",
    })
}

fn sleepy_and_scaled() -> Value {
    let mut both = scaled();
    both["dormouse.dev/sleep-after"] = json!("15m");
    both
}

#[test]
fn a_workload_that_is_only_scaled_needs_no_service_and_hears_of_none() {
    let host = Host::new();
    let mut canary = deployment("canary", &scaled());
    canary["spec"]["template"]["metadata"]["labels"] = json!({"app": "web"});
    host.add(deployment("lonely", &scaled()))
        .add(canary)
        .add(deployment("web", &sleepy_and_scaled()))
        .add(service("shop", "web", "web"));
    let resources = Workloads.resources().expect("resources");
    assert_eq!(names(&resources), ["shop/canary", "shop/lonely", "shop/web"]);
    for resource in &resources {
        assert!(resource.scaling.is_some(), "{resource:?}");
        // Its neighbour would lose its traffic, so it does not sleep; but it is scaled.
        assert!(
            resource.rules.is_empty() && resource.services.is_empty(),
            "{resource:?}"
        );
    }
    let events = events(&host);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (events[0].0.as_str(), events[0].1.as_str()),
        ("Deployment/web", "SharedService")
    );
}

#[test]
fn what_stands_in_the_way_of_sleep_does_not_stop_scaling() {
    let host = Host::new();
    host.add(deployment("web", &sleepy_and_scaled()));
    let resources = Workloads.resources().expect("resources");
    assert!(resources[0].scaling.is_some() && resources[0].rules.is_empty());
    assert_eq!(events(&host)[0].1, "UnsuitableService");
    host.add(service("shop", "web", "web"));
    let resources = Workloads.resources().expect("resources");
    assert_eq!(resources[0].rules, [Rule::observed_traffic(minutes(15))]);
    assert_eq!(resources[0].services, ["web"]);
}

#[test]
fn what_cannot_be_known_fails_the_call() {
    let host = Host::new();
    host.add(deployment("web", &sleepy()))
        .add(service("shop", "web", "web"));
    for (failure, transient) in [
        (kubernetes::Error::Unavailable("no answer".into()), true),
        (kubernetes::Error::Denied("list apps/v1 Deployment".into()), false),
    ] {
        host.fail_next(Call::List, failure);
        let error = Workloads.resources().expect_err("cannot know");
        assert_eq!(matches!(error, Error::Transient(_)), transient, "{error:?}");
    }
    assert!(Workloads.resources().is_ok());
}

#[test]
fn a_kind_that_the_cluster_does_not_know_has_no_objects() {
    let host = Host::new();
    host.config("kinds", "argoproj.io/v1alpha1/Rollout,apps/v1/Deployment");
    host.add(deployment("web", &sleepy()))
        .add(service("shop", "web", "web"));
    host.fail_next(
        Call::List,
        kubernetes::Error::NotFound("argoproj.io/v1alpha1 Rollout".into()),
    );
    assert_eq!(names(&Workloads.resources().expect("resources")), ["shop/web"]);
    assert!(host.lines()[0].message.contains("argoproj.io/v1alpha1/Rollout"));
}

#[test]
fn other_kinds_with_a_scale_subresource_are_configured() {
    let host = Host::new();
    host.config("kinds", "example.com/v1/Site");
    let mut site = deployment("web", &sleepy());
    site["apiVersion"] = json!("example.com/v1");
    site["kind"] = json!("Site");
    host.add(site)
        .add(deployment("ignored", &sleepy()))
        .add(service("shop", "web", "web"));
    assert_eq!(
        names(&Workloads.resources().expect("resources")),
        ["shop/site.example.com.web"]
    );
}

#[test]
fn a_wrong_configuration_is_refused_at_the_start() {
    for (key, value, part) in [
        ("kinds", "Deployment", "apps/v1/Deployment"),
        ("kind", "x", "did you mean `kinds`?"),
    ] {
        let host = Host::new();
        host.config(key, value);
        let error = Workloads.settings().expect_err("wrong");
        assert!(
            matches!(&error, Error::InvalidConfiguration(text) if text.contains(part)),
            "{error}"
        );
    }
    let _host = Host::new();
    assert_eq!(Workloads.settings(), Ok(Settings::default()));
}

/// Every DLX asks about every resource when it starts: a list for each answer would be as many lists as there are resources.
#[test]
fn where_requests_go_is_left_to_the_host_and_costs_no_list() {
    let host = Host::new();
    host.add(deployment("web", &sleepy()))
        .add(service("shop", "web", "web"));
    let answer = Workloads.service(&ResourceId::new("shop", "web").into());
    assert_eq!(answer, Ok(ServiceTarget::new("")));
    assert_eq!(host.calls(), []);
}

#[test]
fn a_flood_of_wrong_annotations_is_bounded() {
    let host = Host::new();
    for index in 0..MOST_EVENTS + 5 {
        host.add(deployment(
            &format!("bad-{index}"),
            &json!({"dormouse.dev/sleep-after": "x"}),
        ));
    }
    Workloads.resources().expect("resources");
    assert_eq!(host.events().len(), MOST_EVENTS);
    assert!(
        host.lines()
            .iter()
            .any(|line| line.fields.contains(&("left_over".into(), "5".into())))
    );
}
