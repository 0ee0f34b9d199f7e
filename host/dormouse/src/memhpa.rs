//! How the memory of the pods of MemHpas is asked for, by the options.

use dormouse_autoscaler::Overrides;
use dormouse_plugin::types::Settings as PluginSettings;
use dormouse_readings::config::{Config, Server};
use dormouse_sources::memhpa::{MemHpaConfig, USAGE};

use crate::config::AutoscalerOptions;

/// Name of the server, where no other is said.
const SERVER: &str = "memhpa";
/// Largest answer, in bytes: a line for each container of a namespace.
const ANSWER: usize = 16 << 20;

/// What the source of MemHpas needs, where they are looked after. The server that the `--prom-*` flags tell joins those that are configured,
/// unless one is configured for this.
pub fn configured(options: &AutoscalerOptions, metrics: &mut Config) -> Option<MemHpaConfig> {
    options.memhpa.filter(|on| *on)?;
    let interval = Overrides {
        scale_interval: options.scale_interval.map(|span| span.0),
        ..Overrides::default()
    };
    let name = options.memhpa_prometheus.as_deref().unwrap_or(SERVER);
    metrics
        .prometheus
        .entry(name.to_owned())
        .or_insert_with(|| found_by_service(options));
    Some(MemHpaConfig {
        server: name.to_owned(),
        query: options.memhpa_query.clone().unwrap_or_else(|| USAGE.to_owned()),
        scale_interval: interval.over(&PluginSettings::default()).scale_interval,
    })
}

fn found_by_service(options: &AutoscalerOptions) -> Server {
    let scheme = options.prom_scheme.as_deref().unwrap_or("http");
    let namespace = options.prom_namespace.as_deref().unwrap_or("kube-system");
    let name = options.prom_name.as_deref().unwrap_or("prometheus");
    let port = options.prom_port.unwrap_or(9090);
    Server {
        max_response_bytes: ANSWER,
        // The operator has not opened it to anybody.
        own_queries_only: true,
        ..Server::at(format!("{scheme}://{name}.{namespace}.svc:{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> AutoscalerOptions {
        AutoscalerOptions {
            memhpa: Some(true),
            ..AutoscalerOptions::default()
        }
    }

    fn url(options: &AutoscalerOptions) -> String {
        let mut metrics = Config::default();
        let config = configured(options, &mut metrics).unwrap();
        metrics.prometheus[&config.server].url.clone()
    }

    #[test]
    fn without_the_flag_nobody_looks_after_them() {
        let mut metrics = Config::default();
        let off = AutoscalerOptions::default();
        assert_eq!(configured(&off, &mut metrics), None);
        assert!(metrics.prometheus.is_empty());
    }

    #[test]
    fn prometheus_is_found_by_the_flags_that_memhpa_has() {
        assert_eq!(url(&options()), "http://prometheus.kube-system.svc:9090");
        let told = AutoscalerOptions {
            prom_scheme: Some("https".to_owned()),
            prom_namespace: Some("monitoring".to_owned()),
            prom_name: Some("prom".to_owned()),
            prom_port: Some(443),
            ..options()
        };
        assert_eq!(url(&told), "https://prom.monitoring.svc:443");
    }

    #[test]
    fn no_rule_may_ask_the_server_that_nobody_configured() {
        let mut metrics = Config::default();
        let config = configured(&options(), &mut metrics).unwrap();
        assert!(metrics.prometheus[&config.server].own_queries_only);
    }

    #[test]
    fn a_server_that_is_configured_for_it_is_asked() {
        let mut metrics = Config::default();
        let known = Server::at("http://elsewhere:9090");
        metrics.prometheus.insert(SERVER.to_owned(), known.clone());
        assert_eq!(configured(&options(), &mut metrics).unwrap().server, SERVER);
        assert_eq!(metrics.prometheus[SERVER], known);
    }
}
