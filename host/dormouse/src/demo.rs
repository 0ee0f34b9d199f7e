//! `dormouse demo`: the whole system on an embedded Kubernetes, told as a story.
//!
//! The autoscaler and the DLX are the real processes with the real plugin; only the cluster is small. Each chapter
//! checks what it tells, and with `--ci` a chapter that is not true ends the demo with an error.

mod chapters;
mod screen;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::local::{self, Local};
use crate::process;
use chapters::Tale;
use screen::Screen;

/// From an interrupt to the end: both processes and the cluster are stopped in order.
const ENDING: Duration = Duration::from_secs(60);

/// Options of `dormouse demo`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Tell the story, check every step, print a summary and exit; non-zero if any request was lost
    #[arg(long)]
    pub ci: bool,
    /// Use this resource-scaler instead of the bundled one
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// Directory with the bundled resource-scalers
    #[arg(
        long,
        value_name = "DIR",
        env = "DORMOUSE_PLUGINS_DIR",
        required_unless_present = "plugin"
    )]
    pub plugins_dir: Option<PathBuf>,
    /// A key of the plugin's configuration, as `plugins.<name>.config` has it; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub plugin_config: Vec<(String, String)>,
    /// What the plugin may do with a kind of object besides what the demo grants, such as `v1/ConfigMap=list,get`; may be given
    /// several times
    #[arg(long, value_name = "APIVERSION/KIND=VERBS", value_parser = grant)]
    pub plugin_grant: Vec<(String, String, Vec<String>)>,
    /// Manifests to apply first, such as the CustomResourceDefinitions that the plugin reads
    #[arg(long, value_name = "FILE")]
    pub manifests: Option<PathBuf>,
    /// Tell no story: start everything, then print every change of phase
    #[arg(long, conflicts_with = "ci")]
    pub no_story: bool,
    /// Keep the logs of both processes in this directory
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
    /// Requests in the burst on a sleeping workload
    #[arg(long, default_value_t = 200)]
    pub burst: usize,
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `apps/v1/Deployment=get,list`: what stands before the last slash is the apiVersion.
fn grant(text: &str) -> Result<(String, String, Vec<String>), String> {
    let wrong = || format!("`{text}` is not APIVERSION/KIND=VERBS, such as v1/ConfigMap=list,get");
    let (object, verbs) = text.split_once('=').ok_or_else(wrong)?;
    let (version, kind) = object.rsplit_once('/').ok_or_else(wrong)?;
    let verbs: Vec<String> = verbs.split(',').map(str::to_owned).collect();
    if version.is_empty() || kind.is_empty() || verbs.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok((version.to_owned(), kind.to_owned(), verbs))
}

/// Runs the demo.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<()> {
    process::may_take(ENDING);
    let screen = Screen::new();
    let component = match (&options.plugin, &options.plugins_dir) {
        (Some(file), _) => file.clone(),
        (None, Some(directory)) => directory.join("workloads.wasm"),
        (None, None) => bail!("either --plugin or --plugins-dir is needed"),
    };
    if !component.is_file() {
        bail!(
            "there is no component at {}; `cargo xtask build-guests` builds the bundled ones",
            component.display()
        );
    }
    let name = component
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let manifests = match &options.manifests {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        None => String::new(),
    };
    screen.title("Dormouse demo");
    let started = screen.step("Starting an embedded Kubernetes, the autoscaler and two DLX replicas");
    let starting = Local::start(local::Options {
        plugins: vec![component],
        plugin_config: BTreeMap::from([(name, options.plugin_config.iter().cloned().collect())]),
        more_grants: options.plugin_grant.clone(),
        manifests,
        logs: options.keep_logs.clone(),
        ..local::Options::default()
    });
    let Some(local) = process::unless_asked_to_end(&shutdown, starting).await? else {
        return Ok(());
    };
    screen.done(started);

    let story = tell(&screen, &local, &options);
    let outcome = tokio::select! {
        outcome = story => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_err() {
        screen.note(&format!(
            "the logs of both processes are in {}",
            local.logs().display()
        ));
        local.keep_logs();
    }
    screen.step("Stopping everything");
    local.stop().await;
    outcome
}

async fn tell(screen: &Screen, local: &Local, options: &Options) -> Result<()> {
    let mut tale = Tale::new(screen, local, options.burst).await?;
    if !options.no_story {
        tale.tell().await?;
        tale.summary()?;
    }
    if options.ci {
        return Ok(());
    }
    tale.invitation().await?;
    tale.follow().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn author_08_what_a_plugin_needs_is_said_in_flags() {
        assert_eq!(
            key_value("url=http://a?b=c"),
            Ok(("url".into(), "http://a?b=c".into()))
        );
        assert!(key_value("url").is_err() && key_value("=x").is_err());
        let verbs = vec!["get".to_owned(), "list".to_owned()];
        assert_eq!(
            grant("v1/ConfigMap=get,list"),
            Ok(("v1".into(), "ConfigMap".into(), verbs.clone()))
        );
        assert_eq!(
            grant("apps/v1/Deployment=get,list"),
            Ok(("apps/v1".into(), "Deployment".into(), verbs))
        );
        for wrong in [
            "ConfigMap=get",
            "v1/ConfigMap",
            "v1/ConfigMap=",
            "v1/=get",
            "/ConfigMap=get",
            "v1/ConfigMap=get,,list",
        ] {
            assert!(
                grant(wrong).unwrap_err().contains("APIVERSION/KIND=VERBS"),
                "{wrong}"
            );
        }
    }
}
