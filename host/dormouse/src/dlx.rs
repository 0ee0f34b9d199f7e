//! `dormouse dlx`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use dormouse_dlx::cluster::RouteController;
use dormouse_dlx::{Dlx, DlxConfig, Forwarding, NameHeaders, Preferences, TcpLimits};
use dormouse_plugin::types::{MultiTargetStrategy, Settings};
use dormouse_sleepers::Role;
use http::HeaderName;
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::config::{
    AutoscalerOptions, Common, DlxOptions, ForwardedHeaders, Listen, Settings as Configured, Span, Strategy,
};
use crate::host::{Host, pending};
use crate::{admin, process};

/// How long endpoints may take to lose a DLX that is about to end.
const SHUTDOWN_DELAY: Duration = Duration::from_secs(2);
/// What ending may take beyond the delay and the drain: tasks, the admin endpoint.
const ENDING_RESERVE: Duration = Duration::from_secs(5);

/// Runs the DLX until SIGTERM.
pub async fn run(
    config: Option<&Path>,
    common: Common,
    options: DlxOptions,
    shutdown: CancellationToken,
) -> Result<()> {
    let Configured {
        file,
        common,
        dlx: options,
        ..
    } = Configured::read(config, &common, &AutoscalerOptions::default(), &options)?;
    let Some(mut host) = Host::start("dlx", common, &file, true, shutdown).await? else {
        return Ok(());
    };
    let descriptors = dormouse_dlx::descriptors::raise();
    // The leader reads on its Lease what was before its start. A DLX reads no Lease, so it may have started right after an
    // outage for all it knows: for a while it does not leave a Service after a wake, unless the leader says so.
    host.cluster.outages().assume_one_until(Timestamp::now());

    let metrics = dormouse_dlx::Metrics::default();
    metrics.register(&mut host.registry);
    let routes = RouteController::new(&host.cluster, Arc::clone(&host.plugins), options.target_port);
    let dlx = Dlx::new(
        dlx_config(&host, &options, descriptors)?,
        routes.routes(),
        routes.waker(),
        metrics,
    );
    let server = dlx.bind().context("the DLX cannot listen")?;
    let delay = Span::or(options.shutdown_delay, SHUTDOWN_DELAY);
    let drain = Span::or(options.drain_limit, DlxConfig::default().drain_limit);
    process::may_take(delay + drain + ENDING_RESERVE);

    // Three lives: the wake path and the admin endpoint outlast the data plane, which outlasts readiness.
    let background = CancellationToken::new();
    let routing = tokio::spawn(routes.run(dlx.demand_counters().clone(), background.clone()));
    let prefer = follow_settings(dlx.clone(), &host, &options)?;
    let preferring = tokio::spawn(background.clone().run_until_cancelled_owned(prefer));
    let controller = host.cluster.controller(Role::Waker);
    let reconciling = tokio::spawn(controller.run(background.clone()));

    let leaving = Arc::new(AtomicBool::new(false));
    let (caches, plugins) = (Arc::clone(host.cluster.caches()), Arc::clone(&host.plugins));
    let ends = Arc::clone(&leaving);
    let ready: admin::Readiness = Arc::new(move || {
        if ends.load(Ordering::Relaxed) {
            Err("shutting down".to_owned())
        } else if !caches.synced() {
            Err("the reflectors have not caught up".to_owned())
        } else {
            Ok(pending(&plugins))
        }
    });
    let extra = host.plugins_page().merge(demand_page(&dlx));
    let registry = std::mem::take(&mut host.registry);
    let admin = admin::serve(host.admin_address(), registry, ready, extra, background.clone()).await?;

    let stop_accepting = CancellationToken::new();
    let (shutdown, stop) = (host.shutdown.clone(), stop_accepting.clone());
    tokio::spawn(async move {
        shutdown.cancelled().await;
        leaving.store(true, Ordering::Relaxed);
        // Go on serving while the cluster takes this address out of its endpoints.
        tokio::time::sleep(delay).await;
        stop.cancel();
    });
    tracing::info!(address = %server.local_addr(), "the DLX is up");
    server.run(stop_accepting).await;

    background.cancel();
    let _ = tokio::join!(routing, preferring, reconciling, admin);
    host.cluster.shutdown();
    tracing::info!("the DLX has ended");
    Ok(())
}

/// Of which Sleeper demand is asked; without a name, of all.
#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    namespace: String,
    sleeper: Option<String>,
}

fn demand_page(dlx: &Dlx) -> Router {
    let dlx = dlx.clone();
    let answer = move |Query(asked): Query<Asked>| async move {
        Json(match asked.sleeper {
            Some(sleeper) => dlx.demand_of(&asked.namespace, &sleeper),
            None => dlx.demand(),
        })
    };
    Router::new().route(dormouse_sleepers::wire::DEMAND_PATH, get(answer))
}

/// Follows what plugins say in their settings while they are loaded: the DLX serves before that. A flag always wins.
///
/// # Errors
/// A flag that is no name of a header.
fn follow_settings(
    dlx: Dlx,
    host: &Host,
    options: &DlxOptions,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let (plugins, options) = (Arc::clone(&host.plugins), options.clone());
    let usual = host.cluster.config().readiness_timeout;
    let flag = host.common.resource_readiness_timeout.map(|span| span.0);
    preferences(&options, &Settings::default(), flag, usual)?;
    Ok(async move {
        let mut changes = plugins.changes();
        loop {
            let complete = plugins.is_settled();
            match preferences(&options, &plugins.defaults(), flag, usual) {
                Ok(preferred) => dlx.prefer(Preferences {
                    complete,
                    ..preferred
                }),
                Err(error) => tracing::error!("settings of a plugin are not used: {error:#}"),
            }
            if complete || changes.changed().await.is_err() {
                return;
            }
        }
    })
}

fn preferences(
    options: &DlxOptions,
    settings: &Settings,
    readiness_flag: Option<Duration>,
    usual: Duration,
) -> Result<Preferences> {
    let header = |flag: &Option<String>, setting: &Option<String>| {
        flag.as_ref()
            .or(setting.as_ref())
            .map(|name| {
                name.parse::<HeaderName>()
                    .map_err(|_| anyhow!("`{name}` is not a header name"))
            })
            .transpose()
    };
    let name = header(&options.target_name_header, &settings.target_name_header)?;
    let path = header(&options.target_path_header, &settings.target_path_header)?;
    let strategy = match (options.multi_target_strategy, settings.multi_target_strategy) {
        (Some(Strategy::Random), _) | (None, Some(MultiTargetStrategy::Random) | None) => {
            dormouse_dlx::Strategy::Random
        }
        (Some(Strategy::Primary), _) | (None, Some(MultiTargetStrategy::Primary)) => {
            dormouse_dlx::Strategy::Primary
        }
        (Some(Strategy::Canary), _) | (None, Some(MultiTargetStrategy::Canary)) => {
            dormouse_dlx::Strategy::Canary
        }
    };
    Ok(Preferences {
        readiness_timeout: readiness_flag.or(settings.readiness_timeout).unwrap_or(usual),
        names: name.map(|name| NameHeaders { name, path }),
        strategy,
        complete: false,
    })
}

fn dlx_config(host: &Host, options: &DlxOptions, descriptors: u64) -> Result<DlxConfig> {
    let defaults = DlxConfig::default();
    let mut limits = defaults.limits;
    limits.held_per_resource = options.max_held_per_resource.unwrap_or(limits.held_per_resource);
    limits.held = options.max_held.unwrap_or(limits.held);
    limits.headers = options.max_header_fields.unwrap_or(limits.headers);
    limits.header_bytes = options.max_header_bytes.unwrap_or(limits.header_bytes);
    // Clients: places, and what they may take their time for.
    limits.descriptors = Some(descriptors);
    limits.connections = options.max_connections.unwrap_or(limits.connections);
    limits.connections_per_client = options.max_connections_per_client;
    limits.held_per_client = options.max_held_per_client;
    Ok(DlxConfig {
        listen_address: options
            .listen_address
            .unwrap_or(Listen::port(8080))
            .on(host.bind_address()),
        bind_address: host.bind_address(),
        limits,
        forwarding: forwarding(options, defaults.forwarding)?,
        response_timeout: Span::limit(options.response_timeout, defaults.response_timeout),
        send_timeout: Span::or(options.send_timeout, defaults.send_timeout),
        body_timeout: Span::or(options.body_timeout, defaults.body_timeout),
        half_closed_timeout: Span::or(options.half_closed_timeout, defaults.half_closed_timeout),
        tcp: tcp_limits(options, defaults.tcp),
        drain_limit: Span::or(options.drain_limit, defaults.drain_limit),
        ..defaults
    })
}

fn tcp_limits(options: &DlxOptions, defaults: TcpLimits) -> TcpLimits {
    TcpLimits {
        silence: Span::or(options.tcp_silence, defaults.silence),
        connection_idle: Span::or(options.connection_idle, defaults.connection_idle),
        idle_limit: Span::limit(options.tcp_idle_limit, defaults.idle_limit),
        half_open_limit: Span::limit(options.tcp_half_open_limit, defaults.half_open_limit),
    }
}

fn forwarding(options: &DlxOptions, defaults: Forwarding) -> Result<Forwarding> {
    use dormouse_dlx::ForwardedHeaders as Policy;
    let trusted = options.trusted_proxies.as_deref().map(str::parse).transpose();
    Ok(Forwarding {
        headers: options
            .forwarded_headers
            .map_or(defaults.headers, |policy| match policy {
                ForwardedHeaders::Preserve => Policy::Preserve,
                ForwardedHeaders::Append => Policy::Append,
                ForwardedHeaders::Replace => Policy::Replace,
                ForwardedHeaders::Off => Policy::Off,
            }),
        trusted: trusted
            .map_err(|error: String| anyhow!("dlx.trustedProxies: {error}"))?
            .unwrap_or(defaults.trusted),
        via: options.via.unwrap_or(defaults.via),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_is_asked_of_one_sleeper_or_of_all() {
        let asked = |query: &str| {
            let uri = format!("{}{query}", dormouse_sleepers::wire::DEMAND_PATH);
            let Query(asked) = Query::<Asked>::try_from_uri(&uri.parse().unwrap()).unwrap();
            (asked.namespace, asked.sleeper)
        };
        let one = asked("?namespace=shop&sleeper=workloads.web");
        assert_eq!(one, ("shop".to_owned(), Some("workloads.web".to_owned())));
        assert_eq!(asked("").1, None);
    }
}
