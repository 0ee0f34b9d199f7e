//! What is said to the API server, against one of a few lines: conditional writes, retries, pages, versions, leases.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise, its helpers too"
)]

mod metrics;
mod mock;
mod sharding;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_kubernetes::objects::ListQuery;
use dormouse_kubernetes::{
    ClusterError, CustomMetric, Leadership, LeadershipConfig, MetricValue, ObjectError, Outages, Scope,
};
use dormouse_model::{ObjectRef, Phase};
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{Cluster, Config, Declared, DesiredStateError, SleeperKey, SleeperSpec};
use http::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use mock::{Mock, failure};

const SLEEPER: &str = "/apis/dormouse.dev/v1alpha1/namespaces/shop/sleepers/web.workloads";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";
const SERVICE: &str = "/api/v1/namespaces/shop/services/web";

fn key() -> SleeperKey {
    SleeperKey::of_plugin("workloads", "shop", "web")
}

fn spec() -> SleeperSpec {
    let object = ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: "web".into(),
    };
    SleeperSpec {
        owner: Some(dormouse_model::Owner::plugin("workloads")),
        resource: "web".into(),
        object: object.clone(),
        workloads: vec![object],
        services: vec!["web".into()],
        ..SleeperSpec::default()
    }
}

fn sleeper(status: &Value) -> Value {
    json!({
        "apiVersion": "dormouse.dev/v1alpha1", "kind": "Sleeper",
        "metadata": {"namespace": "shop", "finalizers": ["dormouse.dev/restore"]},
        "spec": spec(), "status": status,
    })
}

async fn cluster(mock: &Mock) -> Cluster {
    let config = Config {
        scope: Scope::Namespace("shop".into()),
        ..Config::default()
    };
    Cluster::connect(mock.client(), config).await.unwrap()
}

/// An API server with the usual Sleeper at this status, and a cluster that knows it.
async fn with_sleeper(status: &Value) -> (Mock, Cluster) {
    let mock = Mock::default();
    mock.put(SLEEPER, sleeper(status));
    let cluster = cluster(&mock).await;
    (mock, cluster)
}

#[tokio::test(start_paused = true)]
async fn a_sleeper_is_declared_once_owned_and_with_its_finalizer() {
    let mock = Mock::default();
    mock.put(
        DEPLOYMENT,
        json!({"metadata": {"namespace": "shop", "uid": "the-deployment"}}),
    );
    let cluster = cluster(&mock).await;
    let declared = Declared {
        key: key(),
        spec: spec(),
    };
    cluster.declarations().declare(&declared).await.unwrap();
    let stored = mock.get(SLEEPER).unwrap();
    assert_eq!(stored["metadata"]["ownerReferences"][0]["uid"], "the-deployment");
    assert_eq!(stored["metadata"]["finalizers"], json!(["dormouse.dev/restore"]));
    assert_eq!(stored["status"]["phase"], "Awake");
    cluster.declarations().declare(&declared).await.unwrap();
    assert_eq!(mock.count(&Method::POST, "sleepers"), 1);
    assert_eq!(
        mock.count(&Method::PUT, "sleepers"),
        1,
        "the first status, and nothing after"
    );
}

#[tokio::test(start_paused = true)]
async fn a_changed_spec_is_written_over_the_newest_version() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Asleep", "wish": "Asleep", "epoch": 3})).await;
    let mut conflicts = 2;
    mock.rule(move |method, path, _| {
        let hit = *method == Method::PUT && path.contains("sleepers") && conflicts > 0;
        conflicts -= i32::from(hit);
        hit.then(|| (409, failure(409, "Conflict")))
    });
    let spec = SleeperSpec {
        restore_replicas: Some(4),
        ..spec()
    };
    let written = cluster
        .declarations()
        .declare(&Declared { key: key(), spec })
        .await
        .unwrap();
    assert_eq!(written.spec.restore_replicas, Some(4));
    assert_eq!(
        mock.get(SLEEPER).unwrap()["status"]["epoch"],
        3,
        "the protocol's memory stays"
    );
}

#[tokio::test(start_paused = true)]
async fn a_declaration_without_its_object_fails_and_writes_nothing() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    let declared = cluster
        .declarations()
        .declare(&Declared {
            key: key(),
            spec: spec(),
        })
        .await;
    assert!(
        matches!(declared, Err(ClusterError::NotFound { .. })),
        "{declared:?}"
    );
    assert_eq!(mock.count(&Method::POST, ""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wake_wins_over_writers_that_are_faster_five_times() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Draining", "wish": "Asleep", "epoch": 7})).await;
    let mut others = 5;
    mock.rule(move |method, path, objects| {
        if *method == Method::PUT && path.contains("status") && others > 0 {
            others -= 1;
            // Somebody else's write lands just before ours.
            objects.get_mut(SLEEPER).unwrap()["metadata"]["resourceVersion"] =
                json!(format!("other-{others}"));
        }
        None
    });
    let requested = cluster.desired().request_wake(&key(), "a request").await.unwrap();
    assert_eq!(
        (requested.epoch, requested.phase, requested.changed),
        (8, Phase::Waking, true)
    );
    let stored = mock.get(SLEEPER).unwrap();
    assert_eq!(
        (&stored["status"]["epoch"], &stored["status"]["wish"]),
        (&json!(8), &json!("Awake"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_cache_never_says_that_there_is_nothing_to_do() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Awake", "wish": "Awake", "epoch": 1})).await;
    // The reflector goes on believing that it is awake.
    mock.put(
        SLEEPER,
        sleeper(&json!({"phase": "Asleep", "wish": "Asleep", "epoch": 1})),
    );
    let requested = cluster.desired().request_wake(&key(), "a request").await.unwrap();
    assert!(requested.changed && requested.epoch == 2, "{requested:?}");
}

#[tokio::test(start_paused = true)]
async fn waking_what_is_awake_succeeds_without_a_write() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Awake", "wish": "Awake", "epoch": 1})).await;
    let requested = cluster.desired().request_wake(&key(), "a request").await.unwrap();
    assert!(!requested.changed);
    assert_eq!(mock.count(&Method::PUT, ""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wake_outlasts_an_api_server_that_fails_for_a_while() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Asleep", "wish": "Asleep", "epoch": 1})).await;
    let mut failures = 6;
    mock.rule(move |_, path, _| {
        let hit = path.contains("sleepers/") && failures > 0;
        failures -= i32::from(hit);
        hit.then(|| {
            (
                if failures % 2 == 0 { 503 } else { 429 },
                failure(503, "ServiceUnavailable"),
            )
        })
    });
    assert!(
        cluster
            .desired()
            .request_wake(&key(), "a request")
            .await
            .unwrap()
            .changed
    );
}

#[tokio::test(start_paused = true)]
async fn desired_states_that_cannot_be_are_told_apart() {
    let mock = Mock::default();
    let headless =
        json!({"metadata": {"namespace": "shop"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}});
    mock.put(SERVICE, headless);
    mock.put(SLEEPER, sleeper(&json!({"phase": "Awake", "wish": "Awake"})));
    let cluster = cluster(&mock).await;
    let refused = cluster.desired().request_sleep(&key(), "idle").await;
    assert!(
        matches!(&refused, Err(DesiredStateError::Unsupported(text)) if text.contains("headless")),
        "{refused:?}"
    );
    let unknown = SleeperKey::of_plugin("workloads", "shop", "other");
    assert!(
        matches!(cluster.desired().request_sleep(&unknown, "idle").await, Err(DesiredStateError::Unknown(key)) if key == unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn sleep_does_not_win_over_a_wake_that_the_cache_has_not_seen() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Awake", "wish": "Awake", "epoch": 1})).await;
    mock.put(
        SLEEPER,
        sleeper(&json!({"phase": "Waking", "wish": "Awake", "epoch": 2})),
    );
    assert!(matches!(
        cluster.desired().request_sleep(&key(), "idle").await,
        Err(DesiredStateError::Superseded)
    ));
    assert_eq!(mock.get(SLEEPER).unwrap()["status"]["wish"], "Awake");
}

/// A cluster with the usual Sleeper and an older one for the same Service.
async fn with_an_older_one_of(mock: &Mock, plugin: &str) -> Cluster {
    let name = format!("old.{plugin}");
    let mut older = sleeper(&json!({}));
    older["metadata"]["name"] = json!(name);
    older["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    older["spec"]["resource"] = json!("old");
    older["spec"]["owner"]["name"] = json!(plugin);
    mock.put(
        &format!("/apis/dormouse.dev/v1alpha1/namespaces/shop/sleepers/{name}"),
        older,
    );
    let mut younger = sleeper(&json!({}));
    younger["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
    mock.put(SLEEPER, younger);
    cluster(mock).await
}

#[rstest]
#[case::of_two_plugins("elder", "old.elder, which is older")]
#[case::of_one_plugin("workloads", "old.workloads")]
#[tokio::test(start_paused = true)]
async fn the_older_one_owns_the_service(#[case] plugin: &str, #[case] said: &str) {
    let mock = Mock::default();
    let cluster = with_an_older_one_of(&mock, plugin).await;
    let refused = cluster.desired().request_sleep(&key(), "idle").await;
    assert!(
        matches!(&refused, Err(DesiredStateError::Unsupported(text)) if text.contains(said)),
        "{refused:?}"
    );
    let older = SleeperKey::of_plugin(plugin, "shop", "old");
    assert!(
        cluster
            .desired()
            .request_sleep(&older, "idle")
            .await
            .unwrap()
            .changed
    );
}

#[tokio::test(start_paused = true)]
async fn a_wake_failure_is_recorded_for_its_own_epoch_only() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Waking", "wish": "Awake", "epoch": 5})).await;
    cluster
        .status()
        .record_wake_failure(&key(), 4, "of an older wake")
        .await
        .unwrap();
    assert_eq!(mock.count(&Method::PUT, ""), 0);
    cluster
        .status()
        .record_wake_failure(&key(), 5, "quota")
        .await
        .unwrap();
    let stored = mock.get(SLEEPER).unwrap();
    assert_eq!(stored["status"]["wakeFailure"]["message"], "quota");
    assert_eq!(stored["status"]["conditions"][0]["type"], "Wakeable");
    cluster
        .status()
        .record_wake_failure(&key(), 5, "quota")
        .await
        .unwrap();
    assert_eq!(
        mock.count(&Method::PUT, ""),
        1,
        "the same failure again within a second is no news"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_definition_is_named_with_what_helps() {
    let mock = Mock::default();
    mock.rule(|_, path, _| path.contains("sleepers").then(|| (404, failure(404, "NotFound"))));
    let config = Config {
        sync_timeout: Duration::from_secs(3),
        ..Config::default()
    };
    let error = Cluster::connect(mock.client(), config).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClusterError::Sync {
                kind: "sleepers.dormouse.dev",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("dormouse crd"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_ends_at_its_deadline() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    // An API server that accepts and says nothing.
    let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    let client = kube::Client::new(silent, "default");
    let silent = Cluster::start(
        client,
        Config {
            scope: Scope::Namespace("shop".into()),
            ..Config::default()
        },
    );
    let begun = tokio::time::Instant::now();
    let requested = silent.desired().request_wake(&key(), "a request").await;
    assert!(
        matches!(
            requested,
            Err(DesiredStateError::Cluster(ClusterError::Timeout { .. }))
        ),
        "{requested:?}"
    );
    assert!(
        begun.elapsed() <= cluster.config().request_timeout * 5,
        "{:?}",
        begun.elapsed()
    );
}

fn metric(metric: &str) -> CustomMetric<'_> {
    CustomMetric {
        group: "apps",
        kind: "Deployment",
        namespace: "shop",
        metric,
        selector: None,
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_fall_back_to_the_older_version_and_remember_it() {
    let mock = Mock::default();
    mock.put(
        "/apis/apps/v1",
        json!({"groupVersion": "apps/v1", "resources": []}),
    );
    mock.put(
        "/apis/apps",
        json!({"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
        "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"}}),
    );
    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/deployments.apps/*/rps_per_1m";
    mock.put(
        path,
        json!({"items": [{"describedObject": {"name": "web"}, "metricName": "rps", "value": "250m"}]}),
    );
    let cluster = cluster(&mock).await;
    let second = Duration::from_secs(1);
    for _ in 0..2 {
        let values = cluster
            .metrics_api()
            .custom_metric(metric("rps_per_1m"), second)
            .await
            .unwrap();
        assert_eq!(values.get("web"), Some(&MetricValue::Value("250m".into())));
    }
    assert_eq!(mock.count(&Method::GET, "v1beta2"), 1);
    let missing = cluster
        .metrics_api()
        .custom_metric(metric("none_per_1m"), second)
        .await
        .unwrap();
    assert!(missing.is_empty());
    mock.rule(|_, path, _| {
        path.contains("custom.metrics")
            .then(|| (500, failure(500, "InternalError")))
    });
    assert!(
        cluster
            .metrics_api()
            .custom_metric(metric("rps_per_1m"), second)
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_page_by_page_and_pruned() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    mock.rule(|_, path, _| {
        let item = |name: &str, annotation: &str| {
            json!({"metadata": {"name": name, "namespace": "shop", "annotations": {annotation: "x"}}, "spec": {"replicas": 1, "more": 2}})
        };
        if !path.contains("/deployments?") {
            return None;
        }
        assert!(path.contains("limit=500"), "{path}");
        let page = if path.contains("continue=more") {
            json!({"metadata": {}, "items": [item("a", "dormouse.dev/sleep-after")]})
        } else {
            json!({"metadata": {"continue": "more"}, "items": [item("c", "dormouse.dev/rules"), item("b", "other")]})
        };
        Some((200, page))
    });
    let query = ListQuery {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        annotation_prefix: Some("dormouse.dev/".into()),
        fields: vec!["spec.replicas".into()],
        ..ListQuery::default()
    };
    let objects = cluster.objects().list(&query).await.unwrap();
    let expected = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
               "spec": {"replicas": 1}})
    };
    let objects: Vec<Value> = objects
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    assert_eq!(objects, [expected("a"), expected("c")]);
}

#[tokio::test(start_paused = true)]
async fn unknown_kinds_are_not_found_and_asked_for_again() {
    let mock = Mock::default();
    let cluster = cluster(&mock).await;
    let query = ListQuery {
        api_version: "example.com/v1".into(),
        kind: "Widget".into(),
        ..ListQuery::default()
    };
    assert!(matches!(
        cluster.objects().list(&query).await,
        Err(ObjectError::NotFound(_))
    ));
    // Its definition is installed later.
    mock.put(
        "/apis/example.com/v1",
        json!({"groupVersion": "example.com/v1", "resources": [
            {"name": "widgets", "kind": "Widget", "singularName": "widget", "namespaced": true, "verbs": ["list"]}]}),
    );
    mock.rule(|_, path, _| {
        path.contains("/widgets")
            .then(|| (200, json!({"metadata": {}, "items": []})))
    });
    assert!(cluster.objects().list(&query).await.unwrap().is_empty());
}

fn candidate(mock: &Mock, identity: &str) -> (Leadership, CancellationToken) {
    candidate_with(mock, identity, Outages::default())
}

fn candidate_with(mock: &Mock, identity: &str, outages: Outages) -> (Leadership, CancellationToken) {
    candidate_of(mock.client(), identity, outages)
}

fn candidate_of(client: kube::Client, identity: &str, outages: Outages) -> (Leadership, CancellationToken) {
    let shutdown = CancellationToken::new();
    let config = LeadershipConfig::new("shop", "dormouse", identity);
    (
        Leadership::start(client, config, outages, shutdown.clone()),
        shutdown,
    )
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_gone_is_replaced_within_fifteen_seconds() {
    // Attempts are jittered.
    for _ in 0..30 {
        let mock = Mock::default();
        let gone = Arc::new(AtomicBool::new(false));
        let (one, _stay) = candidate_of(mock.client_until(Arc::clone(&gone)), "one", Outages::default());
        one.watch().wait_for(|leads| *leads).await.unwrap();
        let (two, _stay_too) = candidate(&mock, "two");
        tokio::time::sleep(Duration::from_secs(10)).await;
        gone.store(true, Ordering::SeqCst);
        let left = tokio::time::Instant::now();
        two.watch().wait_for(|leads| *leads).await.unwrap();
        assert!(!one.leads(), "it stepped down by itself, before");
        assert!(left.elapsed() < Duration::from_secs(15), "{:?}", left.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_knows_of_an_outage_before_its_time() {
    let mock = Mock::default();
    mock.rule(|_, path, _| (!path.contains("/leases")).then(|| (503, failure(503, "ServiceUnavailable"))));
    let witness = Cluster::start(mock.client(), Config::default());
    while witness.outages().last().is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (one, leave) = candidate_with(&mock, "one", witness.outages().clone());
    one.watch().wait_for(|leads| *leads).await.unwrap();
    // The lease was created; it is noted when it is renewed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    leave.cancel();
    one.finished().await;

    let new = Outages::default();
    let (two, _stay) = candidate_with(&mock, "two", new.clone());
    two.watch().wait_for(|leads| *leads).await.unwrap();
    assert!(new.last().is_some() && new.last() <= witness.outages().last());
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_takes_over_at_once_when_it_leaves() {
    let mock = Mock::default();
    let (one, leave) = candidate(&mock, "one");
    one.watch().wait_for(|leads| *leads).await.unwrap();
    let (two, _stay) = candidate(&mock, "two");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        one.leads() && !two.leads(),
        "a lease that is renewed is never taken"
    );
    leave.cancel();
    one.finished().await;
    let left = tokio::time::Instant::now();
    two.watch().wait_for(|leads| *leads).await.unwrap();
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_steps_down_before_another_may_take_over() {
    let mock = Mock::default();
    let (one, _stay) = candidate(&mock, "one");
    one.watch().wait_for(|leads| *leads).await.unwrap();
    let (two, _stay_too) = candidate(&mock, "two");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let cut = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&cut);
    mock.rule(move |method, path, _| {
        let down = flag.load(Ordering::SeqCst) && path.contains("leases");
        (down && *method == Method::PUT).then(|| (503, failure(503, "ServiceUnavailable")))
    });
    one.watch().wait_for(|leads| !*leads).await.unwrap();
    assert!(!two.leads());
    cut.store(false, Ordering::SeqCst);
    let mut first = one.watch();
    let mut second = two.watch();
    tokio::select! {
        taken = first.wait_for(|leads| *leads) => drop(taken.unwrap()),
        taken = second.wait_for(|leads| *leads) => drop(taken.unwrap()),
    }
    assert!(one.leads() != two.leads(), "never both");
}

#[tokio::test(start_paused = true)]
async fn desired_states_leave_the_rest_of_the_status_alone() {
    let (mock, cluster) = with_sleeper(&json!({"phase": "Awake", "wish": "Awake", "lastDecision": {"at": "now", "outcome": "Idle", "inputs": []}})).await;
    cluster
        .desired()
        .request_sleep(&key(), "idle for 15m")
        .await
        .unwrap();
    let stored = mock.get(SLEEPER).unwrap();
    assert_eq!(
        stored["status"]["wish"],
        serde_json::to_value(DesiredState::Asleep).unwrap()
    );
    assert_eq!(stored["status"]["lastDecision"]["outcome"], "Idle");
}
