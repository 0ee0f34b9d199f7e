use dormouse_sdk::testing::{Call, Host};
use serde_json::{Value, json};

use super::*;
use crate::platform::tests::{configure, nuclio};

fn host() -> Host {
    let host = Host::new();
    configure(&host, &nuclio());
    host
}

fn function(name: &str, state: &str) -> Value {
    json!({
        "apiVersion": "nuclio.io/v1beta1", "kind": "NuclioFunction",
        "metadata": {"namespace": "nuclio", "name": name},
        "spec": {"scaleToZero": {"scaleResources": [{"metricName": "events", "windowSize": "5m", "threshold": 1}]}},
        "status": {"state": state}
    })
}

fn id(name: &str) -> ResourceId {
    ResourceId::new("nuclio", name)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("nuclio.io/v1beta1", "NuclioFunction", "nuclio", name)
}

fn status(host: &Host, name: &str) -> Value {
    host.object("nuclio.io/v1beta1", "NuclioFunction", "nuclio", name)
        .expect("there")["status"]
        .clone()
}

/// What the platform's controller does: it sees a request, carries it out, and says so.
fn controller(host: &Host, name: &str) {
    let (state, event) = match status(host, name)["state"].as_str() {
        Some("waitingForScaleResourceToZero") => ("scaledToZero", "scaleToZeroCompleted"),
        Some("waitingForScaleResourceFromZero") => ("ready", "scaleFromZeroCompleted"),
        _ => return,
    };
    let scale_to_zero = json!({"lastScaleEvent": event, "lastScaleEventTime": Timestamp::now()});
    host.change(
        &key(name),
        &json!({"status": {"state": state, "scaleToZero": scale_to_zero}}),
    );
}

fn scale(name: &str, replicas: u32) -> Outcome {
    let outcomes = StatusDriven
        .set_scale(&[id(name).into()], replicas, "because")
        .expect("outcomes");
    assert_eq!(outcomes.len(), 1);
    outcomes.into_iter().next().expect("one")
}

fn watch(ready: &str) -> Outcome {
    Outcome::Watch(FieldCondition {
        object: ObjectRef::new("nuclio.io/v1beta1", "NuclioFunction", "hello"),
        path: "status.state".into(),
        ready_values: vec![ready.into()],
        failed_values: vec!["error".into(), "unhealthy".into()],
    })
}

#[test]
fn a_function_goes_to_sleep_and_wakes_by_its_own_controller() {
    let host = host();
    host.add(function("hello", "ready"));
    let seen = || {
        let resource = StatusDriven.resources().expect("resources").remove(0);
        (resource.state, resource.last_event.map(|event| event.kind))
    };
    assert_eq!(seen(), (State::Awake, None));

    assert_eq!(scale("hello", 0), watch("scaledToZero"));
    assert_eq!(
        seen(),
        (State::Changing, Some(ScaleEventKind::ScaleToZeroStarted))
    );
    assert_eq!(
        scale("hello", 0),
        watch("scaledToZero"),
        "asking again changes nothing"
    );
    assert_eq!(host.patches().len(), 1);
    controller(&host, "hello");
    assert_eq!(
        seen(),
        (State::Asleep, Some(ScaleEventKind::ScaleToZeroCompleted))
    );
    assert_eq!(scale("hello", 0), Outcome::Done);

    assert_eq!(scale("hello", 1), watch("ready"));
    assert_eq!(
        seen(),
        (State::Changing, Some(ScaleEventKind::ScaleFromZeroStarted))
    );
    assert_eq!(scale("hello", 1), watch("ready"), "asking again changes nothing");
    assert_eq!(host.patches().len(), 2);
    controller(&host, "hello");
    assert_eq!(
        seen(),
        (State::Awake, Some(ScaleEventKind::ScaleFromZeroCompleted))
    );
    assert_eq!(scale("hello", 1), Outcome::Done);
}

#[test]
fn a_resource_carries_what_its_object_says() {
    let host = host();
    let mut hello = function("hello", "ready");
    hello["status"]["scaleToZero"] =
        json!({"lastScaleEvent": "resourceUpdated", "lastScaleEventTime": "2026-01-01T00:00:00Z"});
    host.add(hello);
    let at = "2026-01-01T00:00:00Z".parse().expect("a moment");
    let expected = Resource::new("nuclio", "hello")
        .object(ObjectRef::new("nuclio.io/v1beta1", "NuclioFunction", "hello"))
        .rule(Rule::custom("events", minutes(5), 1))
        .last_event(ScaleEventKind::ResourceUpdated, at);
    assert_eq!(StatusDriven.resources(), Ok(vec![expected]));
}

#[test]
fn states_are_mapped() {
    let host = host();
    for (state, expected) in [
        ("ready", State::Awake),
        ("scaledToZero", State::Asleep),
        ("building", State::Changing),
        ("waitingForScaleResourceToZero", State::Changing),
        ("error", State::Changing),
        ("", State::Changing),
    ] {
        host.add(function("hello", state));
        assert_eq!(
            StatusDriven.resources().expect("resources")[0].state,
            expected,
            "{state}"
        );
    }
}

#[test]
fn who_may_not_sleep_is_left_out() {
    let host = host();
    let mut not_opted_in = function("a", "ready");
    not_opted_in["spec"] = json!({});
    let mut wants_replicas = function("b", "ready");
    wants_replicas["spec"]["minReplicas"] = json!(1);
    let mut leaving = function("c", "ready");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut at_zero = function("d", "ready");
    at_zero["spec"]["minReplicas"] = json!(0);
    host.add(not_opted_in)
        .add(wants_replicas)
        .add(leaving)
        .add(at_zero);
    let names = || {
        let resources = StatusDriven.resources().expect("resources");
        resources
            .into_iter()
            .map(|resource| resource.id.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), ["d"]);
    host.add(function("e", "ready"))
        .config("min-replicas-default", "1");
    assert_eq!(
        names(),
        ["d"],
        "without a number of its own the platform's counts"
    );
}

#[test]
fn namespace_and_selector_narrow_down() {
    let host = host();
    let mut labelled = function("labelled", "ready");
    labelled["metadata"]["labels"] = json!({"team": "a"});
    let mut elsewhere = labelled.clone();
    elsewhere["metadata"]["namespace"] = json!("lab");
    host.add(function("plain", "ready")).add(labelled).add(elsewhere);
    assert_eq!(StatusDriven.resources().expect("resources").len(), 3);
    host.config("selector", "team=a");
    assert_eq!(StatusDriven.resources().expect("resources").len(), 2);
    host.config("namespace", "lab");
    assert_eq!(StatusDriven.resources().expect("resources").len(), 1);
}

#[test]
fn rules_that_cannot_be_read_are_reported_and_never_idle() {
    let host = host();
    let mut broken = function("broken", "ready");
    broken["spec"]["scaleToZero"]["scaleResources"] = json!([{"metricName": "events", "windowSize": "5"}]);
    let mut silent = function("silent", "ready");
    silent["spec"]["scaleToZero"] = json!({});
    host.add(broken).add(silent);
    let resources = StatusDriven.resources().expect("resources");
    assert_eq!(resources[0].rules, []);
    assert_eq!(
        resources[1].rules,
        [Rule::custom(
            "nuclio_processor_handled_events_total",
            minutes(10),
            0
        )]
    );
    let events = host.events();
    assert_eq!(
        (events.len(), events[0].reason.as_str(), &events[0].regarding),
        (1, "InvalidRules", &key("broken"))
    );
    assert!(
        events[0].message.contains("spec.scaleToZero.scaleResources") && events[0].message.contains("`5`")
    );
}

#[test]
fn the_request_is_written_on_the_condition_that_nobody_wrote_since() {
    let host = host();
    host.add(function("hello", "ready"));
    scale("hello", 0);
    let patch = host.patches().remove(0);
    assert_eq!(
        (patch.key, patch.subresource, patch.kind),
        (key("hello"), Subresource::None, PatchType::Merge)
    );
    assert_eq!(patch.body["metadata"], json!({"resourceVersion": "1"}));
    assert_eq!(patch.body["status"]["state"], "waitingForScaleResourceToZero");
    assert_eq!(
        patch.body["status"]["scaleToZero"]["lastScaleEvent"],
        "scaleToZeroStarted"
    );
    let time = patch.body["status"]["scaleToZero"]["lastScaleEventTime"]
        .as_str()
        .expect("a time");
    assert!(time.parse::<Timestamp>().is_ok(), "{time}");

    host.config("status-subresource", "true")
        .add(function("hello", "ready"));
    scale("hello", 0);
    assert_eq!(host.patches()[1].subresource, Subresource::Status);
}

#[test]
fn a_conflict_is_read_again_and_decided_anew() {
    let host = host();
    host.add(function("hello", "ready"));
    host.fail_next(Call::Patch, kubernetes::Error::Conflict("changed".into()));
    assert_eq!(scale("hello", 0), watch("scaledToZero"));
    assert_eq!(host.calls(), [Call::Get, Call::Patch, Call::Get, Call::Patch]);

    host.add(function("hello", "ready"));
    for _ in 0..ATTEMPTS {
        host.fail_next(Call::Patch, kubernetes::Error::Conflict("changed".into()));
    }
    assert!(matches!(scale("hello", 0), Outcome::Failed(Error::Transient(text)) if text.contains("hello")));
}

#[test]
fn wake_beats_sleep() {
    let host = host();
    host.add(function("hello", "waitingForScaleResourceToZero"));
    assert_eq!(scale("hello", 1), watch("ready"));
    assert_eq!(status(&host, "hello")["state"], "waitingForScaleResourceFromZero");
    assert!(
        matches!(scale("hello", 0), Outcome::Failed(Error::Transient(text)) if text.contains("FromZero"))
    );
    assert_eq!(status(&host, "hello")["state"], "waitingForScaleResourceFromZero");
}

#[test]
fn what_the_platform_is_at_is_not_cut_short() {
    let host = host();
    host.add(function("hello", "building"));
    assert!(matches!(scale("hello", 0), Outcome::Failed(Error::Transient(_))));
    assert_eq!(scale("hello", 1), watch("ready"));
    host.add(function("hello", "error"));
    assert!(matches!(scale("hello", 1), Outcome::Failed(Error::Other(text)) if text.contains("`error`")));
    assert_eq!(host.patches(), []);
}

#[test]
fn one_failing_function_does_not_touch_the_others() {
    let host = host();
    host.add(function("a", "ready")).add(function("c", "ready"));
    let outcomes = StatusDriven
        .set_scale(&[id("a").into(), id("b").into(), id("c").into()], 0, "idle")
        .expect("outcomes");
    assert!(matches!(outcomes[0], Outcome::Watch(_)) && matches!(outcomes[2], Outcome::Watch(_)));
    assert_eq!(outcomes[1], Outcome::Failed(Error::UnknownResource(id("b"))));
}

#[test]
fn a_list_that_fails_fails_the_call() {
    let host = host();
    host.fail_next(
        Call::List,
        kubernetes::Error::NotFound("nuclio.io/v1beta1 NuclioFunction".into()),
    );
    assert!(StatusDriven.resources().is_err());
}

#[test]
fn requests_find_their_way_by_name_and_by_path() {
    let host = host();
    host.add(function("hello", "scaledToZero"));
    assert_eq!(
        StatusDriven.service(&id("hello").into()),
        Ok(ServiceTarget::new("nuclio-hello").port(8080))
    );
    let backend = |service: &str| PathBackend {
        namespace: "nuclio".into(),
        ingress: "web".into(),
        annotations: Vec::new(),
        host: "example.com".into(),
        path: "/".into(),
        service: service.into(),
    };
    assert_eq!(
        StatusDriven.targets(&backend("nuclio-hello")),
        Ok(vec![id("hello")])
    );
    assert_eq!(StatusDriven.targets(&backend("nuclio-other")), Ok(vec![]));
    assert_eq!(StatusDriven.targets(&backend("shop")), Ok(vec![]));
    host.fail_next(Call::Get, kubernetes::Error::Timeout("slow".into()));
    assert!(matches!(
        StatusDriven.targets(&backend("nuclio-hello")),
        Err(Error::Transient(_))
    ));
}

#[test]
fn settings_are_those_of_the_platform() {
    let _host = host();
    let expected = Settings {
        scale_interval: Some(minutes(1)),
        metrics_resource: Some(GroupKind {
            group: "nuclio.io".into(),
            kind: "NuclioFunction".into(),
        }),
        target_name_header: Some("X-Nuclio-Target".into()),
        target_path_header: Some("X-Nuclio-Function-Path".into()),
        target_port: Some(8080),
        readiness_timeout: Some(minutes(2)),
        multi_target_strategy: None,
    };
    assert_eq!(StatusDriven.settings(), Ok(expected));
}
