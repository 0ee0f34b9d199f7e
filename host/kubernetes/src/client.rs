//! A client from a kubeconfig or from within a pod.

use std::path::Path;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::client::retry::RetryPolicy;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use crate::ClusterError;

/// Answers 429, 503 and 504 are tried again this often, with these pauses.
const RETRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Requests that may wait to be sent.
const WAITING: usize = 1024;

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
    from_config(config)
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
    from_config(config)
}

/// A moment in which the API server, or who stands behind it, is overloaded or restarts is bridged. What lasts longer is told as
/// it is: whoever asked has a deadline of their own, and would see nothing but that otherwise.
fn from_config(mut config: kube::Config) -> Result<kube::Client, ClusterError> {
    let told = |error: &dyn std::fmt::Display| ClusterError::Configuration(error.to_string());
    config.default_retry = false;
    let policy =
        RetryPolicy::new(FIRST_PAUSE, LONGEST_PAUSE, RETRIES, false).map_err(|error| told(&error))?;
    let builder = ClientBuilder::try_from(config).map_err(|error| told(&error))?;
    // Whoever tries again needs a service that can be shared.
    let builder = builder.with_layer(&BufferLayer::new(WAITING));
    Ok(builder.with_layer(&RetryLayer::new(policy)).build())
}

/// Carries a request out within a deadline, and names its error.
///
/// # Errors
/// What the API server says, or [`ClusterError::Timeout`].
pub async fn limited<T>(
    after: Duration,
    what: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(after, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ClusterError::of(what(), error)),
        Err(_) => Err(ClusterError::Timeout { what: what(), after }),
    }
}

/// `None` instead of an error for what does not exist.
///
/// # Errors
/// Every other error.
pub fn optional<T>(result: Result<T, ClusterError>) -> Result<Option<T>, ClusterError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ClusterError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
