//! A client from a kubeconfig or from within a pod.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::ClusterError;

/// A client for the cluster of this kubeconfig; without one, of the environment (`KUBECONFIG`, `~/.kube/config`) or, in a
/// pod, of the pod.
///
/// # Errors
/// [`ClusterError::Configuration`] when there is no usable configuration.
pub async fn client(kubeconfig: Option<&Path>) -> Result<kube::Client, ClusterError> {
    let config = match kubeconfig {
        None => kube::Config::infer()
            .await
            .map_err(|error| ClusterError::Configuration(error.to_string()))?,
        Some(path) => {
            let told = |error: &dyn std::fmt::Display| {
                ClusterError::Configuration(format!("kubeconfig {}: {error}", path.display()))
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| told(&error))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| told(&error))?
        }
    };
    kube::Client::try_from(config).map_err(|error| ClusterError::Configuration(error.to_string()))
}

/// A client for the cluster of a kubeconfig given as text.
///
/// # Errors
/// [`ClusterError::Configuration`] when the text is no usable kubeconfig.
pub async fn client_from_kubeconfig(yaml: &str) -> Result<kube::Client, ClusterError> {
    let told = |error: &dyn std::fmt::Display| ClusterError::Configuration(error.to_string());
    let kubeconfig = Kubeconfig::from_yaml(yaml).map_err(|error| told(&error))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| told(&error))?;
    kube::Client::try_from(config).map_err(|error| told(&error))
}
