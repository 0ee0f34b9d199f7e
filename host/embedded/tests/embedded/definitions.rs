use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{SOON, refusal, start};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: functions.example.com }
spec:
  group: example.com
  scope: Namespaced
  names: { plural: functions, singular: function, kind: Function, shortNames: [fn] }
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: { specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector }
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [image]
            properties:
              image: { type: string, minLength: 1 }
              replicas: { type: integer, minimum: 0, default: 1 }
              state: { type: string, enum: [ready, scaledToZero] }
              extra: { type: object, x-kubernetes-preserve-unknown-fields: true }
              ports: { type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: { type: object, required: [name], properties: { name: { type: string }, port: { type: integer } } } }
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"#;

fn functions(client: Client) -> (Api<DynamicObject>, ApiResource) {
    let ar = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Function"));
    (Api::default_namespaced_with(client, &ar), ar)
}

fn function(ar: &ApiResource, name: &str, spec: &Value) -> DynamicObject {
    DynamicObject::new(name, ar).data(json!({ "spec": spec }))
}

#[tokio::test]
async fn a_definition_is_served_validated_pruned_and_defaulted() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(DEFINITION).unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let established = await_condition(crds, "functions.example.com", conditions::is_crd_established());
    timeout(SOON, established).await.unwrap().unwrap();
    let (api, ar) = functions(client);
    let p = PostParams::default();
    for wrong in [
        json!({}),
        json!({ "image": 3 }),
        json!({ "image": "x", "state": "flying" }),
        json!({ "image": "x", "replicas": -1 }),
        json!({ "image": "" }),
    ] {
        let refused = api.create(&p, &function(&ar, "f", &wrong)).await.unwrap_err();
        assert_eq!(refusal(&refused), (422, "Invalid".into()), "{wrong}");
    }
    let f = function(
        &ar,
        "f",
        &json!({ "image": "x", "unknown": 1, "extra": { "any": "thing" } }),
    );
    let made = api.create(&p, &f).await.unwrap();
    assert_eq!(
        made.data["spec"],
        json!({ "image": "x", "replicas": 1, "extra": { "any": "thing" } })
    );
    assert_eq!(made.types.as_ref().unwrap().kind, "Function");
    cluster.shutdown().await;
}

#[tokio::test]
async fn custom_resources_have_status_scale_and_generation() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(DEFINITION).unwrap();
    let (api, ar) = functions(client);
    api.create(
        &PostParams::default(),
        &function(&ar, "f", &json!({ "image": "x" })),
    )
    .await
    .unwrap();
    let p = PatchParams::default();
    let status = json!({ "status": { "state": "ready", "replicas": 1, "selector": "app=f" }, "spec": { "image": "y" } });
    let f = api.patch_status("f", &p, &Patch::Merge(status)).await.unwrap();
    assert_eq!(f.data["spec"]["image"], "x");
    assert_eq!(f.metadata.generation, Some(1));
    let s = api.get_scale("f").await.unwrap();
    assert_eq!(s.status.unwrap().selector.as_deref(), Some("app=f"));
    api.patch_scale("f", &p, &Patch::Merge(json!({ "spec": { "replicas": 0 } })))
        .await
        .unwrap();
    let f = api.get("f").await.unwrap();
    assert_eq!(
        (f.data["spec"]["replicas"].as_i64(), f.metadata.generation),
        (Some(0), Some(2))
    );
    assert_eq!(f.data["status"]["state"], "ready");
    let mut unversioned = f.clone();
    unversioned.metadata.resource_version = None;
    assert_eq!(
        refusal(
            &api.replace("f", &PostParams::default(), &unversioned)
                .await
                .unwrap_err()
        )
        .0,
        422
    );
    assert_eq!(
        refusal(
            &api.patch("f", &p, &Patch::Strategic(json!({})))
                .await
                .unwrap_err()
        )
        .0,
        415
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn keyed_lists_of_custom_resources_are_applied_item_by_item() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(DEFINITION).unwrap();
    let (api, _) = functions(client);
    let apply = |ports: Value| {
        Patch::Apply(
            json!({ "apiVersion": "example.com/v1", "kind": "Function", "metadata": { "name": "f" },
            "spec": { "image": "x", "ports": ports } }),
        )
    };
    api.patch(
        "f",
        &PatchParams::apply("one"),
        &apply(json!([{ "name": "a", "port": 1 }])),
    )
    .await
    .unwrap();
    api.patch(
        "f",
        &PatchParams::apply("two"),
        &apply(json!([{ "name": "b", "port": 2 }])),
    )
    .await
    .unwrap();
    let f = api
        .patch("f", &PatchParams::apply("one"), &apply(json!([])))
        .await
        .unwrap();
    assert_eq!(f.data["spec"]["ports"], json!([{ "name": "b", "port": 2 }]));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_definition_takes_its_instances_with_it() {
    let (cluster, client) = start().await;
    cluster.apply_yaml(DEFINITION).unwrap();
    let (api, ar) = functions(client.clone());
    api.create(
        &PostParams::default(),
        &function(&ar, "f", &json!({ "image": "x" })),
    )
    .await
    .unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    crds.delete("functions.example.com", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .wait_for(
            "customresourcedefinitions.apiextensions.k8s.io",
            "",
            SOON,
            <[Value]>::is_empty,
        )
        .await
        .unwrap();
    assert_eq!(refusal(&api.get("f").await.unwrap_err()).0, 404);
    assert_eq!(api.get_opt("f").await.unwrap().map(|f| f.name_any()), None);
    cluster.shutdown().await;
}
