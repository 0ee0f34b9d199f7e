//! `dormouse check`: whether an installation is well, asked from inside the cluster. `helm test` runs it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use dormouse_kubernetes::Scope;
use dormouse_sleepers::Sleeper;
use kube::api::{Api, ListParams};
use tokio::time::Instant;

use crate::config::Span;
use crate::config::ranges::check_flag;
use crate::output::tell;
use crate::requests::fetch;

/// Longest single request.
const REQUEST: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it may take until all is well: a new installation pulls images first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `dormouse check`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Admin address of the autoscaler, such as http://dormouse-autoscaler.dormouse:9090
    #[arg(long, value_name = "URL")]
    autoscaler: Option<String>,
    /// Admin address of the DLX
    #[arg(long, value_name = "URL")]
    dlx: Option<String>,
    /// Namespace whose Sleepers are to be listed; `*` means all [default: the pod's own, else `default`]
    #[arg(long, env = "DORMOUSE_NAMESPACE")]
    namespace: Option<String>,
    /// kubeconfig file [default: in-cluster configuration, else the usual kubeconfig]
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig_path: Option<PathBuf>,
    /// How long it may take until all is well [default: 1m]
    #[arg(long, value_name = "DURATION")]
    patience: Option<Span>,
}

/// Asks everything; an error names what is not well.
pub async fn run(options: Options) -> Result<()> {
    check_flag("patience", options.patience)?;
    let deadline = Instant::now() + options.patience.map_or(PATIENCE, |span| span.0);
    for (part, address) in [("autoscaler", &options.autoscaler), ("DLX", &options.dlx)] {
        let Some(address) = address else { continue };
        let base = address.trim_end_matches('/');
        until(deadline, || ask(format!("{base}/readyz")))
            .await
            .with_context(|| format!("the {part} is not ready"))?;
        tell!("the {part} is ready");
        // Plugins are loaded while the process serves already, and a call may fail once.
        let line = until(deadline, || async move {
            plugins_line(part, &ask(format!("{base}/plugins")).await?)
        });
        tell!(
            "{}",
            line.await.with_context(|| format!("plugins of the {part}"))?
        );
    }
    let client = dormouse_kubernetes::client(options.kubeconfig_path.as_deref()).await?;
    let environment = std::env::var("SCALER_NAMESPACE").ok();
    let scope = Scope::resolve(options.namespace.as_deref(), environment.as_deref());
    let api: Api<Sleeper> = match scope.namespace() {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let listed = until(deadline, || {
        let api = api.clone();
        async move {
            let listed = tokio::time::timeout(REQUEST, api.list(&ListParams::default())).await;
            Ok(listed.with_context(|| format!("no answer within {REQUEST:?}"))??)
        }
    });
    let sleepers = listed.await.context("Sleepers cannot be listed")?;
    tell!("{} Sleepers", sleepers.items.len());
    Ok(())
}

/// Fails when a plugin that is there does not run.
fn plugins_line(part: &str, page: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Plugin {
        name: String,
        #[serde(default)]
        state: String,
        error: Option<String>,
        #[serde(default)]
        failing: Vec<Failing>,
    }
    #[derive(serde::Deserialize)]
    struct Failing {
        call: String,
        times: u64,
        error: String,
    }
    let plugins: Vec<Plugin> = serde_json::from_str(page)
        .with_context(|| format!("what the {part} tells of its plugins is not as expected"))?;
    let broken: Vec<String> = plugins
        .iter()
        .filter_map(|plugin| Some(format!("{}: {}", plugin.name, plugin.error.as_ref()?)))
        .collect();
    let loading = plugins.iter().filter(|plugin| plugin.state == "loading");
    let loading: Vec<&str> = loading.map(|plugin| plugin.name.as_str()).collect();
    if !loading.is_empty() {
        bail!("still being loaded: {}", loading.join(", "));
    }
    let failing = plugins.iter().flat_map(|plugin| {
        let each = plugin.failing.iter();
        each.map(move |one| {
            format!(
                "{}: {} failed {} times in a row: {}",
                plugin.name, one.call, one.times, one.error
            )
        })
    });
    let failing: Vec<String> = failing.collect();
    if !failing.is_empty() {
        bail!("they fail: {}", failing.join("; "));
    }
    if !broken.is_empty() {
        bail!("they do not run: {}", broken.join("; "));
    }
    let names: Vec<_> = plugins.into_iter().map(|plugin| plugin.name).collect();
    Ok(format!("plugins of the {part}: {}", names.join(", ")))
}

async fn ask(url: String) -> Result<String> {
    tokio::time::timeout(REQUEST, fetch(&url))
        .await
        .with_context(|| format!("{url}: no answer within {REQUEST:?}"))?
}

/// Tries until it works or time is up; the last error counts.
async fn until<T, F: Future<Output = Result<T>>>(deadline: Instant, attempt: impl Fn() -> F) -> Result<T> {
    loop {
        match attempt().await {
            Err(_) if Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_does_not_run_is_named() {
        let fine = r#"[{"name": "workloads", "generation": 1, "digest": "ab", "error": null}]"#;
        assert_eq!(
            plugins_line("DLX", fine).unwrap(),
            "plugins of the DLX: workloads"
        );
        let broken = r#"[{"name": "mine", "generation": null, "digest": null, "error": "not granted"}]"#;
        let error = plugins_line("DLX", broken).unwrap_err().to_string();
        assert!(error.contains("mine: not granted"), "{error}");
        assert!(plugins_line("DLX", "<html>").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_yet_well_is_asked_again_until_time_is_up() {
        let asked = std::cell::Cell::new(0);
        let attempt = || {
            asked.set(asked.get() + 1);
            let now = asked.get();
            async move { if now < 3 { bail!("attempt {now}") } else { Ok(now) } }
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        assert_eq!(until(deadline, attempt).await.unwrap(), 3);
        let never = until(Instant::now() + Duration::from_secs(3), || async {
            bail!("never") as Result<()>
        });
        assert_eq!(never.await.unwrap_err().to_string(), "never");
    }
}
