use serde_json::{Value, json};

use super::*;

fn workload(patch: &Value) -> Workload {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "web", "generation": 3, "labels": {}},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}}},
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    });
    json_patch::merge(&mut object, patch);
    serde_json::from_value(object).expect("a workload")
}

fn service(patch: &Value) -> Service {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": "10.0.0.1", "type": "ClusterIP", "selector": {"app": "web"}, "ports": [{"port": 80}]}
    });
    json_patch::merge(&mut object, patch);
    serde_json::from_value(object).expect("a service")
}

#[test]
fn zero_replicas_is_asleep_and_none_written_is_one() {
    assert_eq!(workload(&json!({"spec": {"replicas": 0}})).state(), State::Asleep);
    assert_eq!(
        workload(&json!({"spec": {"replicas": null}})).state(),
        State::Awake
    );
    assert_eq!(workload(&json!({"spec": {"replicas": null}})).replicas(), 1);
}

#[test]
fn a_rollout_is_seen_for_what_it_is() {
    for (what, patch, rolling) in [
        ("settled", json!({}), false),
        ("unobserved", json!({"metadata": {"generation": 4}}), true),
        ("half updated", json!({"status": {"updatedReplicas": 1}}), true),
        (
            "a count of zero is left out",
            json!({"status": {"updatedReplicas": null}}),
            true,
        ),
        (
            "asleep",
            json!({"spec": {"replicas": 0}, "status": {"updatedReplicas": null}}),
            false,
        ),
        (
            "kept back on purpose",
            json!({
                "kind": "StatefulSet",
                "spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}},
                "status": {"updatedReplicas": 1}
            }),
            false,
        ),
        (
            "only by hand",
            json!({"kind": "StatefulSet", "spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"updatedReplicas": 0}}),
            false,
        ),
        (
            "a kind that counts nothing",
            json!({"apiVersion": "example.com/v1", "kind": "Site", "status": null}),
            false,
        ),
    ] {
        assert_eq!(workload(&patch).is_rolling_out(), rolling, "{what}");
    }
}

#[test]
fn the_last_update_is_the_last_word_of_progressing() {
    let conditions = json!([
        {"type": "Available", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"},
        {"type": "Progressing", "status": "True",
         "lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:05Z"}
    ]);
    let settled = workload(&json!({"status": {"conditions": conditions}}));
    let at = "2026-01-01T00:00:05Z".parse().expect("a moment");
    assert_eq!(
        settled.last_event(),
        Some(ScaleEvent {
            kind: ScaleEventKind::ResourceUpdated,
            at
        })
    );

    let asleep = workload(&json!({"spec": {"replicas": 0}, "status": {"conditions": conditions}}));
    assert_eq!(asleep.last_event(), None);

    let before = Timestamp::now();
    let unobserved = workload(&json!({"metadata": {"generation": 4}, "status": {"conditions": conditions}}));
    assert!(
        unobserved.last_event().is_some_and(|event| event.at >= before),
        "the condition is about the old version"
    );
}

#[test]
fn without_progressing_a_rollout_is_dated_by_its_conditions_or_now() {
    let stateful = json!({"kind": "StatefulSet", "status": {"updatedReplicas": 1}});
    let before = Timestamp::now();
    assert!(
        workload(&stateful)
            .last_event()
            .is_some_and(|event| event.at >= before)
    );

    let mut dated = stateful;
    dated["status"]["conditions"] =
        json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:09Z"}]);
    let at: Timestamp = "2026-01-01T00:00:09Z".parse().expect("a moment");
    assert_eq!(workload(&dated).last_event().map(|event| event.at), Some(at));

    assert_eq!(workload(&json!({"kind": "StatefulSet"})).last_event(), None);
}

#[test]
fn services_are_found_by_the_labels_of_the_pods_in_the_same_namespace() {
    let services = [
        service(&json!({})),
        service(&json!({"metadata": {"name": "narrow"}, "spec": {"selector": {"tier": "front"}}})),
        service(&json!({"metadata": {"name": "other"}, "spec": {"selector": {"app": "api"}}})),
        service(&json!({"metadata": {"name": "picky"}, "spec": {"selector": {"version": "2"}}})),
        service(&json!({"metadata": {"name": "none"}, "spec": {"selector": null}})),
        service(&json!({"metadata": {"name": "elsewhere", "namespace": "lab"}})),
    ];
    let web = workload(&json!({}));
    assert_eq!(
        web.services(&services).map(Service::name).collect::<Vec<_>>(),
        ["web", "narrow"]
    );
}

#[test]
fn a_parked_service_still_belongs_to_its_workload() {
    let parked = service(&json!({
        "metadata": {"annotations": {"dormouse.dev/parked-selector": "{\"app\":\"web\"}"}},
        "spec": {"selector": {"app": null, "dormouse.dev/parked": "web"}}
    }));
    assert_eq!(
        parked.selector,
        BTreeMap::from([("app".to_owned(), "web".to_owned())])
    );
    assert_eq!(workload(&json!({})).services(&[parked]).count(), 1);

    // The annotation is only what it was before; once restored, the selector speaks for itself.
    let stale =
        service(&json!({"metadata": {"annotations": {"dormouse.dev/parked-selector": "{\"app\":\"old\"}"}}}));
    assert!(stale.selects(&BTreeMap::from([("app".to_owned(), "web".to_owned())])));

    let damaged = service(&json!({
        "metadata": {"annotations": {"dormouse.dev/parked-selector": "?"}},
        "spec": {"selector": {"app": null, "dormouse.dev/parked": "web"}}
    }));
    assert_eq!(workload(&json!({})).services(&[damaged]).count(), 0);
}

#[test]
fn a_headless_service_is_seen() {
    assert!(service(&json!({"spec": {"clusterIP": "None"}})).headless);
    assert!(!service(&json!({})).headless);
}

#[test]
fn the_field_lists_cover_what_the_types_read() {
    // Whatever a type reads must survive the projection to its own list of fields.
    let host = crate::testing::Host::new();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "web", "generation": 4, "labels": {"a": "b"},
                     "annotations": {"c": "d"}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}},
                 "updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
                   "conditions": [{"type": "Progressing", "status": "True", "lastUpdateTime": "2026-01-01T00:00:05Z"}]}
    });
    let parked = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web",
                     "annotations": {"dormouse.dev/parked-selector": "{\"app\":\"web\"}"}},
        "spec": {"clusterIP": "None", "type": "ClusterIP", "selector": {"dormouse.dev/parked": "web"},
                 "ports": [{"name": "http", "port": 80}]}
    });
    host.add(deployment).add(parked);
    let stored =
        |kind: &str, api_version: &str| host.object(api_version, kind, "shop", "web").expect("stored");
    let workload: Workload = serde_json::from_value(stored("Deployment", "apps/v1")).expect("a workload");
    assert_eq!(
        Workload::list("apps/v1", "Deployment").fetch().expect("a list"),
        [workload]
    );
    let service: Service = serde_json::from_value(stored("Service", "v1")).expect("a service");
    let listed = Service::list().fetch().expect("a list");
    assert_eq!(listed, [service]);
}
