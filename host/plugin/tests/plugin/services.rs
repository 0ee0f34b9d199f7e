//! What guests ask of the cluster: granted, denied, slow.

use crate::support::{Both, House, config, granted, id};

#[tokio::test]
async fn granted_calls_reach_the_services_with_the_plugins_name() {
    let both = Both::new().await;
    assert_eq!(both.told("get").await, r#"Ok("{\"kind\":\"Deployment\"}")"#);
    both.good
        .set_scale(&[id("a").into(), id("b").into()], 0, "idle for 15m")
        .await
        .unwrap();
    both.good
        .set_scale(&[id("a").into()], 1, "a request")
        .await
        .unwrap();
    let expected = [
        "evil get Deployment web spec",
        "good sleep shop/a idle for 15m",
        "good sleep shop/b idle for 15m",
        "good wake shop/a a request",
    ];
    assert_eq!(both.house.services.asked(), expected);
}

#[tokio::test]
async fn a_denial_is_a_typed_error_that_names_the_missing_grant_and_is_counted() {
    let both = Both::new().await;
    let said = both.told("secret").await;
    assert!(
        said.contains("KubernetesError::Denied") && said.contains("plugins.evil.grants"),
        "{said}"
    );
    assert!(
        said.contains("{apiVersion: v1, kind: Secret, verbs: [get]}"),
        "{said}"
    );
    assert!(both.told("patch-status").await.contains("verbs: [patch-status]"));
    assert!(both.told("list-everywhere").await.contains("in every namespace"));
    assert!(both.told("event").await.contains("events: true"));
    assert!(
        both.house.services.asked().is_empty(),
        "{:?}",
        both.house.services.asked()
    );
    for capability in ["get", "patch-status", "list", "event"] {
        let sample = format!(r#"dormouse_plugin_denials_total{{plugin="evil",capability="{capability}"}}"#);
        assert_eq!(both.house.metric(&sample), 1.0, "{capability}");
    }
}

#[tokio::test]
async fn what_is_granted_beyond_is_passed_on() {
    let evil = config(
        "grants: {lifecycle: true, events: true,
                  kubernetes: [{apiVersion: '*', kind: '*', verbs: [get, list, create, patch-status]}]}",
    );
    let both = Both::with(House::new(), evil).await;
    assert!(both.told("secret").await.starts_with("Ok("));
    assert!(both.told("patch-status").await.starts_with("Ok("));
    assert!(both.told("list-everywhere").await.starts_with("Ok("));
    assert_eq!(both.told("event").await, "Ok(())");
    let expected = [
        "evil get Secret web ",
        "evil patch web Status {}",
        "evil list Deployment",
        "evil event web Warning Bad annotation",
    ];
    assert_eq!(both.house.services.asked(), expected);
}

#[tokio::test]
async fn objects_that_are_none_never_reach_the_services() {
    let both = Both::new().await;
    assert!(both.told("create-garbage").await.contains("Invalid"));
    assert!(both.house.services.asked().is_empty());
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_a_timeout_in_the_guest() {
    let both = Both::with(House::new(), granted("limits: {wall: 2s}")).await;
    let said = both.told("slow").await;
    assert!(said.contains("KubernetesError::Timeout"), "{said}");
}

#[tokio::test]
async fn errors_of_the_lifecycle_keep_their_type() {
    let both = Both::new().await;
    let said = both.told("unknown-resource").await;
    assert!(
        said.contains("UnknownResource") && said.contains("nobody"),
        "{said}"
    );
}
