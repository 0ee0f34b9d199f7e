//! `dormouse autoscaler`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dormouse_autoscaler::{Autoscaler, Config, Metrics, Overrides, Source};
use dormouse_kubernetes::{LeadershipConfig, Sharding};
use dormouse_model::Shards;
use dormouse_sleepers::Role;
use dormouse_sources::memhpa::MemHpaSource;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{AutoscalerOptions, Common, DlxOptions, Settings};
use crate::host::{Host, pending};
use crate::{admin, memhpa, process};

/// From SIGTERM to the end: the step under way, and giving the Lease back. Less than the 30 s that Kubernetes gives a pod.
const ENDING: Duration = Duration::from_secs(15);

/// Runs the autoscaler until SIGTERM.
pub async fn run(
    config: Option<&Path>,
    common: Common,
    options: AutoscalerOptions,
    shutdown: CancellationToken,
) -> Result<()> {
    let settings = Settings::read(config, &common, &options, &DlxOptions::default())?;
    // Only this process reads them, and only its pods may have them mounted.
    settings.check_files()?;
    let Settings {
        file,
        common,
        autoscaler: options,
        ..
    } = settings;
    let Some(mut host) = Host::start("autoscaler", common, &file, false, shutdown).await? else {
        return Ok(());
    };
    let metrics = Metrics::register(&mut host.registry);
    let reading_metrics = dormouse_readings::Metrics::register(&mut host.registry);

    let (caches, plugins) = (Arc::clone(host.cluster.caches()), Arc::clone(&host.plugins));
    let ready: admin::Readiness = Arc::new(move || {
        if caches.synced() {
            Ok(pending(&plugins))
        } else {
            Err("the reflectors have not caught up".to_owned())
        }
    });
    let registry = std::mem::take(&mut host.registry);
    let admin = admin::serve(
        host.admin_address(),
        registry,
        ready,
        host.plugins_page(),
        host.shutdown.clone(),
    )
    .await?;

    // Without a Lease this process looks after everything; the sender lives as long as the process, so nothing ever changes.
    let (_always, always) = watch::channel(Shards::all(1));
    let sharding = sharding(&host, &options);
    let shards = sharding.as_ref().map_or(always, Sharding::watch);
    let mut sources_of_metrics = file.metrics.clone();
    let mut built_in: Vec<Arc<dyn Source>> = Vec::new();
    if let Some(config) = memhpa::configured(&options, &mut sources_of_metrics) {
        let source = MemHpaSource::start(&host.cluster, config, host.shutdown.clone());
        built_in.push(source);
    }
    let line = Autoscaler::of_plugins(
        Config {
            overrides: Overrides {
                scale_interval: options.scale_interval.map(|span| span.0),
                metrics_resource_kind: options.metrics_resource_kind.clone(),
                metrics_resource_group: options.metrics_resource_group.clone(),
            },
            settle: host.cluster.config().timings.traffic_check.settle,
            ..Config::default()
        },
        &host.plugins,
        built_in,
        &host.cluster,
        &sources_of_metrics,
        metrics,
        reading_metrics,
    )?;
    process::may_take(ENDING);
    tracing::info!("the autoscaler is up");
    tokio::join!(
        line.run(shards.clone(), host.shutdown.clone()),
        reconcile_while_holding(&host, shards)
    );

    if let Some(sharding) = sharding {
        // Gives the Leases back, so that the next leader need not wait for them to run out.
        sharding.finished().await;
    }
    let _ = admin.await;
    host.cluster.shutdown();
    tracing::info!("the autoscaler has ended");
    Ok(())
}

fn sharding(host: &Host, options: &AutoscalerOptions) -> Option<Sharding> {
    let lease = options.leader_lease.as_ref()?;
    let count = options.shards.unwrap_or(1);
    let config = LeadershipConfig::new(&lease.namespace, &lease.name, &host.identity);
    Some(Sharding::start(
        host.cluster.client(),
        &config,
        count,
        host.cluster.kubernetes_metrics().clone(),
        host.cluster.outages(),
        &host.shutdown,
    ))
}

/// Carries sleep and wake steps out, for what this process looks after: sleeping needs a leader, waking does not.
async fn reconcile_while_holding(host: &Host, mut shards: watch::Receiver<Shards>) {
    while !host.shutdown.is_cancelled() {
        tokio::select! {
            () = host.shutdown.cancelled() => return,
            held = shards.wait_for(|shards| !shards.is_empty()) => if held.is_err() { return },
        }
        let term = host.shutdown.child_token();
        let controller = host
            .cluster
            .controller(Role::Leader)
            .with_shards(shards.clone())
            .run(term.clone());
        tokio::pin!(controller);
        tokio::select! {
            () = &mut controller => {}
            _ = shards.wait_for(Shards::is_empty) => {
                term.cancel();
                controller.await;
            }
        }
    }
}
