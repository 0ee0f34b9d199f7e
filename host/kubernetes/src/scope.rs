//! Which namespaces are looked after, and which pod this process is.

use std::path::Path;

use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};

/// Where the namespace of the pod is found in a pod.
const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Which namespaces are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// One.
    Namespace(String),
}

/// Namespace and name of the pod that this process runs in, as the downward API (`POD_NAME`, `POD_NAMESPACE`) and the service
/// account say.
pub fn own_pod() -> Option<(String, String)> {
    let said = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let namespace = said("POD_NAMESPACE").or_else(|| {
        let text = std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE).ok()?;
        Some(text.trim().to_owned())
    });
    Some((namespace?, said("POD_NAME")?))
}

impl Scope {
    /// The rules of v3io's scaler: the flag, else the environment (`SCALER_NAMESPACE`), else the namespace of the
    /// service account, else `default`. `*` means all namespaces.
    pub fn resolve(flag: Option<&str>, environment: Option<&str>) -> Self {
        Self::resolve_with(flag, environment, Path::new(SERVICE_ACCOUNT_NAMESPACE))
    }

    fn resolve_with(flag: Option<&str>, environment: Option<&str>, file: &Path) -> Self {
        let said = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let namespace = flag
            .and_then(said)
            .or_else(|| environment.and_then(said))
            .or_else(|| std::fs::read_to_string(file).ok().and_then(|text| said(&text)));
        match namespace.as_deref() {
            Some("*") => Self::All,
            Some(name) => Self::Namespace(name.to_owned()),
            None => Self::Namespace("default".to_owned()),
        }
    }

    /// Whether a namespace is looked after.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
        }
    }

    /// The API of a kind in the namespaces that are looked after.
    pub fn api<K>(&self, client: &kube::Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    /// The namespace, if it is one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(name) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some("a"), Some("b"), Scope::Namespace("a".into()))]
    #[case(Some(""), Some("b"), Scope::Namespace("b".into()))]
    #[case(None, Some("*"), Scope::All)]
    #[case(Some(" * "), None, Scope::All)]
    #[case(None, None, Scope::Namespace("default".into()))]
    fn scope_follows_flag_environment_default(
        #[case] flag: Option<&str>,
        #[case] environment: Option<&str>,
        #[case] expected: Scope,
    ) {
        assert_eq!(
            Scope::resolve_with(flag, environment, Path::new("/nonexistent/namespace")),
            expected
        );
    }
}
