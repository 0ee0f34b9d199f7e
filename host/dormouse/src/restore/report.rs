//! What is left, in words and as commands that a person can paste.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use dormouse_sleepers::Sleeper;
use dormouse_sleepers::api::PARKED_SELECTOR;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::json;

use super::leftovers::{Found, original};

/// `2 Waking, 1 being deleted`.
pub(super) fn counts(sleepers: &[Sleeper]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for sleeper in sleepers {
        *counts.entry(stage(sleeper)).or_default() += 1;
    }
    counts
        .iter()
        .map(|(stage, count)| format!("{count} {stage}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn stage(sleeper: &Sleeper) -> String {
    if sleeper.metadata.deletion_timestamp.is_some() {
        return "being deleted".to_owned();
    }
    format!("{:?}", sleeper.status.clone().unwrap_or_default().state.phase)
}

/// Everything that is left, each with its reason and the commands that undo it.
pub(super) fn describe(
    sleepers: Result<Option<Vec<Sleeper>>>,
    found: Result<Found>,
    trouble: &BTreeMap<(String, String), String>,
) -> String {
    let mut text = String::from("left:\n");
    let (found, unknown) = match found {
        Ok(found) => (found, None),
        Err(error) => (Found::default(), Some(error)),
    };
    let mut told: Vec<(String, String)> = Vec::new();
    match sleepers {
        Err(error) => text.push_str(&format!("  unknown: {error:#}\n")),
        Ok(sleepers) => {
            for sleeper in sleepers.unwrap_or_default() {
                let namespace = sleeper.namespace().unwrap_or_default();
                told.extend(
                    sleeper
                        .spec
                        .services
                        .iter()
                        .map(|name| (namespace.clone(), name.clone())),
                );
                one(&mut text, &sleeper, &found, trouble);
            }
        }
    }
    let alone = |namespace: Option<String>, name: &str| {
        !told
            .iter()
            .any(|(ns, service)| Some(ns) == namespace.as_ref() && service == name)
    };
    for service in found
        .parked
        .iter()
        .filter(|service| alone(service.namespace(), &service.name_any()))
    {
        let _ = writeln!(
            text,
            "  Service {}/{} (no Sleeper)",
            service.namespace().unwrap_or_default(),
            service.name_any()
        );
        unpark(&mut text, service);
    }
    for slice in &found.slices {
        let (namespace, name) = (slice.namespace(), slice.name_any());
        if alone(namespace.clone(), name.strip_suffix("-dormouse").unwrap_or(&name)) {
            let namespace = namespace.unwrap_or_default();
            let _ = writeln!(text, "  EndpointSlice {namespace}/{name} (no Sleeper)");
            let _ = writeln!(text, "    kubectl -n {namespace} delete endpointslice {name}");
        }
    }
    if let Some(error) = unknown {
        let _ = writeln!(text, "  Services unknown: {error:#}");
    }
    text
}

fn one(text: &mut String, sleeper: &Sleeper, found: &Found, trouble: &BTreeMap<(String, String), String>) {
    let (namespace, name) = (sleeper.namespace().unwrap_or_default(), sleeper.name_any());
    let status = sleeper.status.clone().unwrap_or_default();
    let _ = writeln!(
        text,
        "  Sleeper {namespace}/{name}: {}: {}",
        stage(sleeper),
        status.state.reason
    );
    for condition in status
        .conditions
        .iter()
        .filter(|condition| condition.status == "False")
    {
        let _ = writeln!(text, "    {}: {}", condition.reason, condition.message);
    }
    if let Some(trouble) = trouble.get(&(namespace.clone(), name.clone())) {
        let _ = writeln!(text, "    {trouble}");
    }
    for service in &sleeper.spec.services {
        let here = |ns: Option<String>| ns.as_deref() == Some(namespace.as_str());
        if let Some(parked) = found
            .parked
            .iter()
            .find(|found| here(found.namespace()) && found.name_any() == *service)
        {
            unpark(text, parked);
        }
    }
    for recorded in &status.state.replicas {
        let kind = recorded.workload.kind.to_lowercase();
        let (name, replicas) = (&recorded.workload.name, recorded.replicas.max(1));
        let _ = writeln!(
            text,
            "    kubectl -n {namespace} scale {kind} {name} --replicas={replicas}"
        );
    }
    for slice in &found.slices {
        let of = slice.name_any();
        let service = of.strip_suffix("-dormouse").unwrap_or(&of);
        if slice.namespace().as_deref() == Some(namespace.as_str())
            && sleeper.spec.services.iter().any(|s| s == service)
        {
            let _ = writeln!(text, "    kubectl -n {namespace} delete endpointslice {of}");
        }
    }
    let _ = writeln!(
        text,
        "    kubectl -n {namespace} patch sleeper {name} --type=merge -p '{{\"metadata\": {{\"finalizers\": null}}}}'"
    );
    let _ = writeln!(
        text,
        "    kubectl -n {namespace} delete sleeper {name} --ignore-not-found"
    );
}

fn unpark(text: &mut String, service: &Service) {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    match original(service) {
        Ok(selector) => {
            let pointer = PARKED_SELECTOR.replace('/', "~1");
            let patch = json!([
                {"op": "replace", "path": "/spec/selector", "value": selector},
                {"op": "remove", "path": format!("/metadata/annotations/{pointer}")},
            ]);
            let _ = writeln!(
                text,
                "    kubectl -n {namespace} patch service {name} --type=json -p '{patch}'"
            );
        }
        Err(error) => {
            let _ = writeln!(text, "    {error:#}");
        }
    }
}
