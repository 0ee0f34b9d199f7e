use serde_json::json;

use super::*;
use crate::kubernetes::{List, apply, create, delete, event, get, list, patch};
use crate::prelude::*;
use crate::scaler::through_lifecycle;

fn cluster() -> Host {
    let host = Host::new();
    let object = |namespace: &str, name: &str, tier: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": namespace, "name": name, "labels": {"tier": tier},
                         "annotations": {"dormouse.dev/sleep-after": "3s"}},
            "spec": {"replicas": 1}, "status": {"replicas": 1}
        })
    };
    host.add(object("a", "web", "preview"))
        .add(object("b", "web", "live"))
        .add(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "a", "name": "bare"}
        }));
    host
}

fn names(list: List<Value>) -> Vec<String> {
    let found = list.fetch().expect("a list");
    let name = |object: &Value| {
        format!(
            "{}/{}",
            object["metadata"]["namespace"], object["metadata"]["name"]
        )
    };
    found.iter().map(|object| name(object).replace('"', "")).collect()
}

#[test]
fn lists_are_narrowed_down() {
    let _host = cluster();
    let all = || list("apps/v1", "Deployment");
    assert_eq!(names(all()), ["a/bare", "a/web", "b/web"]);
    assert_eq!(names(all().namespace("a")), ["a/bare", "a/web"]);
    assert_eq!(
        names(all().annotation_prefix("dormouse.dev/")),
        ["a/web", "b/web"]
    );
    assert_eq!(names(list("apps/v1", "StatefulSet")), Vec::<String>::new());
    for (selector, expected) in [
        ("tier=preview", vec!["a/web"]),
        ("tier==preview", vec!["a/web"]),
        ("tier!=preview", vec!["a/bare", "b/web"]),
        ("tier", vec!["a/web", "b/web"]),
        ("!tier", vec!["a/bare"]),
        ("tier in (preview, live)", vec!["a/web", "b/web"]),
        ("tier notin (live),tier", vec!["a/web"]),
    ] {
        assert_eq!(names(all().labels(selector)), expected, "{selector}");
    }
    let bad = all().labels("a b").fetch();
    assert!(matches!(bad, Err(kubernetes::Error::Invalid(_))), "{bad:?}");
}

#[test]
fn only_the_fields_asked_for_come_along() {
    let _host = cluster();
    let found = list("apps/v1", "Deployment")
        .labels("tier=live")
        .fields(["spec.replicas"])
        .fetch()
        .expect("a list");
    assert_eq!(
        found,
        [json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "b", "name": "web", "uid": "uid-2", "resourceVersion": "2"},
            "spec": {"replicas": 1}
        })]
    );
}

#[test]
fn patches_change_their_own_part_under_their_precondition() {
    let host = cluster();
    let key = ObjectKey::new("apps/v1", "Deployment", "a", "web");
    let body =
        json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}, "status": {"replicas": 5}});
    let after = patch(&key, Subresource::Status, PatchType::Merge, &body).expect("patched");
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(1), &json!(5))
    );

    let again = patch(&key, Subresource::Status, PatchType::Merge, &body);
    assert!(matches!(again, Err(kubernetes::Error::Conflict(_))), "{again:?}");

    let scale = json!({"spec": {"replicas": 4}});
    let after = patch(&key, Subresource::Scale, PatchType::Merge, &scale).expect("scaled");
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(4), &json!(5))
    );

    let operations =
        json!([{"op": "test", "path": "/spec/replicas", "value": 4}, {"op": "remove", "path": "/status"}]);
    let after = patch(&key, Subresource::None, PatchType::Json, &operations).expect("patched");
    assert!(after.get("status").is_none());
    assert_eq!(host.patches().len(), 4);
}

#[test]
fn objects_come_and_go() {
    let host = Host::new();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "a", "name": "x"}});
    create(&map).expect("created");
    assert!(matches!(create(&map), Err(kubernetes::Error::Conflict(_))));
    let mut with_data = map;
    with_data["data"] = json!({"k": "v"});
    apply(&with_data, false).expect("applied");
    let key = ObjectKey::new("v1", "ConfigMap", "a", "x");
    assert_eq!(
        get::<Value>(&key, &["data"]).expect("there")["data"],
        json!({"k": "v"})
    );
    delete(&key).expect("deleted");
    delete(&key).expect("gone already");
    assert!(matches!(
        get::<Value>(&key, &[]),
        Err(kubernetes::Error::NotFound(_))
    ));
    assert!(host.object("v1", "ConfigMap", "a", "x").is_none());
}

#[test]
fn a_call_can_be_made_to_fail_once() {
    let host = cluster();
    host.fail_next(Call::List, kubernetes::Error::Timeout("slow".into()));
    assert!(list("apps/v1", "Deployment").fetch().is_err());
    assert!(list("apps/v1", "Deployment").fetch().is_ok());
    assert_eq!(host.calls(), [Call::List, Call::List]);
}

#[test]
fn what_a_plugin_says_is_kept() {
    let host = Host::new();
    let key = ObjectKey::new("apps/v1", "Deployment", "a", "web");
    let size = 3;
    info!("looked at {size}", took = 5, who = "me");
    event(&key, EventType::Normal, "Looked", "all well").expect("recorded");
    host.fail_next(Call::Event, kubernetes::Error::Denied("events".into()));
    kubernetes::warn_about(&key, "Wrong", "it is wrong");
    let fields = vec![
        ("took".to_owned(), "5".to_owned()),
        ("who".to_owned(), "me".to_owned()),
    ];
    assert_eq!(
        host.lines()[0],
        Line {
            level: Level::Info,
            message: "looked at 3".into(),
            fields
        }
    );
    let warnings: Vec<_> = host.lines()[1..]
        .iter()
        .map(|line| (line.level, line.message.clone()))
        .collect();
    assert_eq!(
        warnings,
        [
            (Level::Debug, "it is wrong".into()),
            (Level::Warn, "an event could not be recorded".into())
        ]
    );
    assert_eq!(host.events().len(), 1);
}

#[test]
fn configuration_is_read_with_errors_that_help() {
    let host = Host::new();
    host.config("sleep-after", "15 minutes")
        .config("limit", "7")
        .config("wrong-kye", "x");
    assert_eq!(config::parse("limit", 1_u32), Ok(7));
    assert_eq!(config::parse("missing", 1_u32), Ok(1));
    assert_eq!(config::duration("missing", minutes(2)), Ok(minutes(2)));
    let error = config::duration("sleep-after", minutes(2))
        .expect_err("not a duration")
        .to_string();
    assert!(
        error.contains("`sleep-after`") && error.contains("15 minutes") && error.contains("1h30m"),
        "{error}"
    );
    let error = config::only(&["sleep-after", "limit", "wrong-key"])
        .expect_err("unknown")
        .to_string();
    assert!(
        error.contains("`wrong-kye`") && error.contains("`wrong-key`"),
        "{error}"
    );
}

#[derive(Default)]
struct Two;

impl Scaler for Two {
    fn resources(&self) -> Result<Vec<Resource>> {
        let object = ObjectRef::new("apps/v1", "Deployment", "web");
        Ok(vec![
            Resource::new("a", "web")
                .workload(object.clone())
                .service("front")
                .service("back"),
            Resource::new("b", "web").workload(object),
        ])
    }
}

crate::register!(Two);

#[test]
fn the_defaults_are_safe() {
    let host = Host::new();
    let (a, b) = (ResourceId::new("a", "web"), ResourceId::new("b", "web"));
    assert_eq!(Two.settings(), Ok(Settings::default()));
    // The host takes the first Service that `resources` listed, or the one of the resource's name.
    assert_eq!(Two.service(&a.clone().into()), Ok(ServiceTarget::new("")));
    assert_eq!(Two.service(&b.clone().into()), Ok(ServiceTarget::new("")));

    host.fail_lifecycle(a.clone(), lifecycle::Error::Unsupported("headless".into()));
    let outcomes = Two
        .set_scale(&[a.clone().into(), b.clone().into()], 0, "idle")
        .expect("outcomes");
    assert!(matches!(&outcomes[0], Outcome::Failed(Error::Other(text)) if text.contains("headless")));
    assert_eq!(outcomes[1], Outcome::Accepted);
    assert_eq!(host.sleeps(), [(a, "idle".into()), (b.clone(), "idle".into())]);

    assert_eq!(through_lifecycle(&b, 3, "a request"), Outcome::Accepted);
    assert_eq!(host.wakes(), [(b, "a request".into())]);
}

#[test]
fn a_sleeper_makes_its_resource_known_and_others_unknown() {
    let host = Host::new();
    let (known, stranger) = (ResourceId::new("a", "web"), ResourceId::new("a", "else"));
    let sleeper = Sleeper {
        phase: lifecycle::Phase::Asleep,
        phase_text: "Asleep".into(),
        epoch: 4,
        since: Timestamp::UNIX_EPOCH,
        reason: "idle".into(),
    };
    host.sleeper(known.clone(), sleeper.clone());
    assert_eq!(lifecycle::state(&known), Ok(Some(sleeper)));
    assert_eq!(lifecycle::state(&stranger), Ok(None));
    assert_eq!(lifecycle::wake(&known, "x"), Ok(()));
    assert_eq!(
        lifecycle::wake(&stranger, "x"),
        Err(lifecycle::Error::UnknownResource(stranger))
    );
}

#[test]
#[should_panic(expected = "make a `dormouse_sdk::testing::Host` first")]
fn a_host_that_was_dropped_is_gone() {
    drop(Host::new());
    let _ = config::get("x");
}

#[test]
fn a_panic_is_logged_before_the_end() {
    let host = Host::new();
    crate::log::install_panic_hook();
    let caught = std::panic::catch_unwind(|| panic!("the sky fell"));
    assert!(caught.is_err());
    let lines = host.lines();
    assert!(
        lines[0].message.contains("the sky fell") && lines[0].message.contains("tests.rs"),
        "{lines:?}"
    );
}
