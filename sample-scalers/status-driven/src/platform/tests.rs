use std::collections::BTreeMap;

use dormouse_sdk::testing::Host;
use serde::Deserialize;

use super::*;

/// The configuration of the example, which is therefore true.
pub(crate) fn nuclio() -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Section {
        config: BTreeMap<String, String>,
    }
    let section: Section = serde_yaml::from_str(include_str!("../../nuclio.yaml")).expect("YAML");
    section.config
}

pub(crate) fn configure(host: &Host, config: &BTreeMap<String, String>) {
    for (key, value) in config {
        host.config(key, value);
    }
}

fn with(changes: &[(&str, Option<&str>)]) -> Result<Platform> {
    let host = Host::new();
    let mut config = nuclio();
    for (key, value) in changes {
        match value {
            Some(value) => config.insert((*key).into(), (*value).into()),
            None => config.remove(*key),
        };
    }
    configure(&host, &config);
    Platform::configured()
}

#[test]
fn the_example_is_read() {
    let platform = with(&[]).expect("a platform");
    assert_eq!(platform.kind, "NuclioFunction");
    assert_eq!(
        platform.default_rules,
        [Rule::custom(
            "nuclio_processor_handled_events_total",
            minutes(10),
            0
        )]
    );
    assert_eq!(platform.port, Some(8080));
    assert_eq!(platform.readiness_timeout, Some(minutes(2)));
    assert!(!platform.status_subresource);
}

#[test]
fn every_key_is_known_and_used() {
    // A key that `configured` does not read would be accepted in silence.
    let source = include_str!("../platform.rs");
    for key in about().keys() {
        assert!(
            source.matches(&format!("\"{key}\"")).count() >= 2,
            "{key} is declared but never read"
        );
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let optional = [
        "opt-in-path",
        "min-replicas-path",
        "min-replicas-default",
        "rules-path",
        "default-rules",
        "state-path",
        "event-path",
        "event-time-path",
        "status-subresource",
        "failed-states",
        "service",
        "port",
        "name-header",
        "path-header",
        "readiness-timeout",
        "scale-interval",
    ];
    let platform = with(&optional.map(|key| (key, None))).expect("a platform");
    assert_eq!(platform.state_path, "status.state");
    assert!(platform.status_subresource && platform.default_rules.is_empty() && platform.port.is_none());
    assert_eq!(platform.service.name_for("hello"), "hello");
}

#[test]
fn what_is_wrong_is_named() {
    for (changes, parts) in [
        (&[("kind", None)][..], ["`kind`", "NuclioFunction"]),
        (
            &[("ready-states", Some(" , "))],
            ["`ready-states`", "separated by commas"],
        ),
        (&[("sleep-state", None)], ["`sleep-state`", "missing"]),
        (
            &[("sleep-state", Some("scaledToZero"))],
            ["`sleep-state`", "asleep-states"],
        ),
        (
            &[("wake-state", Some("waitingForScaleResourceToZero"))],
            ["`wake-state`", "same as sleep-state"],
        ),
        (
            &[("failed-states", Some("ready"))],
            ["`failed-states`", "ready-states"],
        ),
        (
            &[("state-path", Some("status..state"))],
            ["`state-path`", "status..state"],
        ),
        (&[("event-time-path", None)], ["`event-path`", "event-time-path"]),
        (
            &[
                ("status-subresource", Some("true")),
                ("state-path", Some("spec.state")),
            ],
            ["`state-path`", "status-subresource"],
        ),
        (
            &[("status-subresource", Some("yes"))],
            ["`status-subresource`", "yes"],
        ),
        (&[("service", Some("nuclio"))], ["`service`", "{name}"]),
        (
            &[("service", Some("{name}-{namespace}"))],
            ["`service`", "{name}"],
        ),
        (&[("port", Some("http"))], ["`port`", "http"]),
        (&[("port", Some("0"))], ["`port`", "1 to 65535"]),
        (
            &[("readiness-timeout", Some("2"))],
            ["`readiness-timeout`", "such as 15m"],
        ),
        (
            &[("default-rules", Some("[{}]"))],
            ["`default-rules`", "metricName"],
        ),
        (
            &[("min-replicas-default", Some("none"))],
            ["`min-replicas-default`", "none"],
        ),
        (
            &[("multi-target-strategy", Some("both"))],
            ["`multi-target-strategy`", "random, primary or canary"],
        ),
        (
            &[("ready-state", Some("ready"))],
            ["`ready-state`", "did you mean `ready-states`?"],
        ),
    ] {
        let error = with(changes).expect_err("wrong").to_string();
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{error} should say {parts:?}"
        );
    }
}

#[test]
fn no_field_lies_inside_another() {
    let platform = with(&[]).expect("a platform");
    assert_eq!(
        platform.fields(),
        [
            "metadata.deletionTimestamp",
            "spec.minReplicas",
            "spec.scaleToZero",
            "status.scaleToZero.lastScaleEvent",
            "status.scaleToZero.lastScaleEventTime",
            "status.state",
        ]
    );
}

#[test]
fn a_service_leads_back_to_its_resource() {
    let template = ServiceTemplate::parse("nuclio-{name}-svc").expect("a template");
    assert_eq!(template.name_for("hello"), "nuclio-hello-svc");
    for (service, resource) in [
        ("nuclio-hello-svc", Some("hello")),
        ("nuclio--svc", None),
        ("hello-svc", None),
        ("nuclio-svc", None),
    ] {
        assert_eq!(template.resource_of(service), resource, "{service}");
    }
}
