//! What a plugin may put to sleep, and what nobody may.

use dormouse_model::{ObjectRef, Phase};
use dormouse_sleepers::{
    Cluster, Config, Declared, DesiredStateError, Role, SleepGrant, SleeperKey, SleeperSpec,
};

use crate::step_until;
use dormouse_testing::{Dlx, World, config, workload};

/// A grant for Deployments with a label in one namespace.
fn granted() -> SleepGrant {
    SleepGrant {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespaces: Some(vec!["shop".into()]),
        match_labels: [("tier".to_owned(), "web".to_owned())].into(),
    }
}

fn everything() -> SleepGrant {
    SleepGrant {
        api_version: "*".into(),
        kind: "*".into(),
        namespaces: None,
        match_labels: Default::default(),
    }
}

async fn with(world: &World, grants: Vec<SleepGrant>) -> Cluster {
    let config = Config {
        sleep_grants: Some([("workloads".to_owned(), grants)].into()),
        ..config()
    };
    Cluster::connect(world.cluster.client().clone(), config)
        .await
        .unwrap()
}

async fn label(world: &World, tier: Option<&str>) {
    let api = kube::Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(
        world.cluster.client().clone(),
        "shop",
    );
    let patch = serde_json::json!({"metadata": {"labels": {"tier": tier}}});
    api.patch("web", &Default::default(), &kube::api::Patch::Merge(&patch))
        .await
        .unwrap();
}

fn refused(requested: Result<dormouse_sleepers::Requested, DesiredStateError>) -> String {
    match requested {
        Err(DesiredStateError::Denied(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn author_02_only_what_its_grant_names_goes_to_sleep_and_stays_there() {
    let world = World::new().await;
    let _dlx = Dlx::start(&world).await;
    let cluster = with(&world, vec![granted()]).await;
    let why = refused(cluster.desired().request_sleep(&world.key, "idle").await);
    assert!(why.contains("plugins.workloads.grants.lifecycle"), "{why}");
    refused(cluster.desired().request_observation(&world.key, "a look").await);
    let nothing = with(&world, Vec::new()).await;
    refused(nothing.desired().request_sleep(&world.key, "idle").await);

    label(&world, Some("web")).await;
    cluster.desired().request_sleep(&world.key, "idle").await.unwrap();
    step_until(&world, &[&cluster], Role::Leader, Phase::Asleep, |_| {}).await;

    // It leaves the grant: it is woken, and says why.
    label(&world, None).await;
    step_until(&world, &[&cluster], Role::Leader, Phase::Waking, |_| {}).await;
    let sleeper = world
        .api
        .get("sleepers.dormouse.dev", "shop", &world.key.object_name())
        .unwrap();
    assert!(
        sleeper["status"]["reason"]
            .as_str()
            .unwrap()
            .contains("is not granted"),
        "{sleeper:#}"
    );
    refused(cluster.desired().request_sleep(&world.key, "idle").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn author_02_dormouse_and_kubernetes_are_refused_whatever_is_granted() {
    let world = World::new().await;
    let manifest = "
apiVersion: v1
kind: Namespace
metadata: {name: kube-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: SPACE}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      containers: [{name: web, image: none, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: SPACE}
spec:
  selector: {app: NAME}
  ports: [{name: http, port: 8080, targetPort: http}]
";
    let cluster = with(&world, vec![everything()]).await;
    for (namespace, name, said) in [
        ("dormouse", "dlx", "its pods are the DLX"),
        ("kube-system", "coredns", "belongs to Kubernetes itself"),
    ] {
        world
            .api
            .apply_yaml(&manifest.replace("NAME", name).replace("SPACE", namespace))
            .unwrap();
        let key = SleeperKey::of_plugin("workloads", namespace, name);
        let object = ObjectRef {
            name: name.into(),
            ..workload()
        };
        // The Service of somebody else's name does not help either.
        let spec = SleeperSpec {
            owner: Some(dormouse_model::Owner::plugin("workloads")),
            resource: name.into(),
            object: object.clone(),
            workloads: vec![object],
            services: vec![name.into()],
            ..SleeperSpec::default()
        };
        let declared = Declared {
            key: key.clone(),
            spec,
        };
        cluster.declarations().declare(&declared).await.unwrap();
        let why = refused(cluster.desired().request_sleep(&key, "idle").await);
        assert!(why.contains(said), "{why}");
        let why = refused(cluster.desired().request_observation(&key, "a look").await);
        assert!(why.contains(said), "{why}");
    }
    let service = dormouse_model::ObjectKey {
        api_version: "v1".into(),
        kind: "Service".into(),
        namespace: Some("dormouse".into()),
        name: "dlx".into(),
    };
    let why = cluster
        .permission()
        .why_protected(&service)
        .await
        .unwrap()
        .unwrap();
    assert!(why.contains("the DLX's own Service"), "{why}");
}
