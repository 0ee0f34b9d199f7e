//! The API server, untyped: the bench must not depend on the types of what it measures.

use std::path::Path;

use anyhow::Context as _;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

/// A kind, with the plural that its path has.
#[derive(Clone, Copy, Debug)]
pub struct Kind(&'static str, &'static str, &'static str, &'static str);

pub const NAMESPACE: Kind = Kind("", "v1", "Namespace", "namespaces");
pub const ACCOUNT: Kind = Kind("", "v1", "ServiceAccount", "serviceaccounts");
pub const SERVICE: Kind = Kind("", "v1", "Service", "services");
pub const POD: Kind = Kind("", "v1", "Pod", "pods");
pub const DEPLOYMENT: Kind = Kind("apps", "v1", "Deployment", "deployments");
pub const SLICE: Kind = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
pub const LEASE: Kind = Kind("coordination.k8s.io", "v1", "Lease", "leases");
pub const SLEEPER: Kind = Kind("dormouse.dev", "v1alpha1", "Sleeper", "sleepers");

impl Kind {
    fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.0, self.1, self.2), self.3)
    }

    /// All of them.
    pub fn all(self, client: &Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.resource())
    }

    /// Those of a namespace.
    pub fn of(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.resource())
    }
}

/// A client from a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The same kubeconfig in the name of somebody else, so that the audit log tells the processes apart.
pub fn kubeconfig_as(user: &str, from: &Path, to: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(from)?;
    let as_user = format!("  user:\n    as: {user}\n    as-groups: [\"system:masters\"]\n");
    std::fs::write(to, text.replacen("  user:\n", &as_user, 1))
        .with_context(|| format!("cannot write {}", to.display()))
}

/// Creates an object of a namespace.
pub async fn create(
    client: &Client,
    kind: Kind,
    namespace: &str,
    object: Value,
) -> kube::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    kind.of(client, namespace)
        .create(&PostParams::default(), &object)
        .await
}

/// Creates a namespace with the account that pods in it have.
pub async fn create_namespace(client: &Client, name: &str) -> kube::Result<()> {
    let object: DynamicObject =
        serde_json::from_value(json!({"metadata": {"name": name}})).map_err(kube::Error::SerdeError)?;
    NAMESPACE
        .all(client)
        .create(&PostParams::default(), &object)
        .await?;
    create(client, ACCOUNT, name, json!({"metadata": {"name": "default"}})).await?;
    Ok(())
}

/// Merges into an object's status.
pub async fn patch_status(
    client: &Client,
    kind: Kind,
    namespace: &str,
    name: &str,
    status: Value,
) -> kube::Result<DynamicObject> {
    let patch = Patch::Merge(json!({ "status": status }));
    kind.of(client, namespace)
        .patch_status(name, &PatchParams::default(), &patch)
        .await
}

/// Merges into an object.
pub async fn patch(
    client: &Client,
    kind: Kind,
    namespace: &str,
    name: &str,
    patch: Value,
) -> kube::Result<DynamicObject> {
    kind.of(client, namespace)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}
