//! What the plugin host counts. Labels are plugin names, function names and codes: bounded by what is installed.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::host::Import;
use crate::plugin::Call;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    plugin: String,
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    plugin: String,
    call: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ImportLabels {
    plugin: String,
    import: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    plugin: String,
    capability: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    plugin: String,
    result: &'static str,
}

/// What the plugin host counts. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    errors: Family<CodeLabels, Counter>,
    duration: Family<CallLabels, Histogram, fn() -> Histogram>,
    cpu: Family<PluginLabel, Counter<f64, AtomicU64>>,
    host_calls: Family<ImportLabels, Counter>,
    denials: Family<DenialLabels, Counter>,
    log_lines_dropped: Family<PluginLabel, Counter>,
    resources_dropped: Family<PluginLabel, Gauge>,
    in_use: Family<PluginLabel, Gauge>,
    limit: Family<PluginLabel, Gauge>,
    host_in_use: Gauge,
    host_limit: Gauge,
    breaker: Family<CallLabels, Gauge>,
    loads: Family<ResultLabels, Counter>,
    ready: Family<PluginLabel, Gauge>,
}

/// From 25 microseconds, a fresh instance and a small answer, to beyond the default wall limit.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(25e-6, 4.0, 11))
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            calls: Family::default(),
            errors: Family::default(),
            duration: Family::new_with_constructor(duration_histogram),
            cpu: Family::default(),
            host_calls: Family::default(),
            denials: Family::default(),
            log_lines_dropped: Family::default(),
            resources_dropped: Family::default(),
            in_use: Family::default(),
            limit: Family::default(),
            host_in_use: Gauge::default(),
            host_limit: Gauge::default(),
            breaker: Family::default(),
            loads: Family::default(),
            ready: Family::default(),
        }
    }
}

impl Metrics {
    /// Fresh metrics, registered as `dormouse_plugin_*` in `registry`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let Metrics {
            calls,
            errors,
            duration,
            cpu,
            host_calls,
            denials,
            log_lines_dropped,
            resources_dropped,
            in_use,
            limit,
            host_in_use,
            host_limit,
            breaker,
            loads,
            ready,
        } = &metrics;
        let name = |name: &str| format!("dormouse_plugin_{name}");
        registry.register(
            name("calls"),
            "Calls of plugins, whatever came of them",
            calls.clone(),
        );
        registry.register(
            name("errors"),
            "Calls of plugins that failed, by code",
            errors.clone(),
        );
        registry.register_with_unit(
            name("call_duration"),
            "How long calls of plugins take, waiting for a place not included",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register_with_unit(
            name("cpu"),
            "CPU time of plugins' calls",
            Unit::Seconds,
            cpu.clone(),
        );
        registry.register(
            name("host_calls"),
            "Host functions that plugins called",
            host_calls.clone(),
        );
        registry.register(
            name("denials"),
            "What plugins asked for without grant",
            denials.clone(),
        );
        registry.register(
            name("resources_left_out"),
            "Resources of a plugin's last list that cannot be used, such as one with an impossible name",
            resources_dropped.clone(),
        );
        registry.register(
            name("log_lines_dropped"),
            "Log lines of plugins beyond the limit of a call",
            log_lines_dropped.clone(),
        );
        registry.register(
            name("instances_in_use"),
            "Calls that are running, by plugin",
            in_use.clone(),
        );
        registry.register(
            name("instances_limit"),
            "Calls that may run at once, by plugin",
            limit.clone(),
        );
        registry.register(
            name("host_instances_in_use"),
            "Calls that are running",
            host_in_use.clone(),
        );
        registry.register(
            name("host_instances_limit"),
            "Calls that may run at once",
            host_limit.clone(),
        );
        registry.register(
            name("breaker_state"),
            "0 closed, 1 half open, 2 open",
            breaker.clone(),
        );
        registry.register(
            name("loads"),
            "Attempts to load plugins, by result",
            loads.clone(),
        );
        registry.register(name("ready"), "1 when the plugin is loaded", ready.clone());
        metrics
    }

    pub(crate) fn host_limit(&self, limit: usize) {
        self.host_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    pub(crate) fn loaded(&self, plugin: &str, result: &'static str) {
        self.loads
            .get_or_create(&ResultLabels {
                plugin: plugin.to_owned(),
                result,
            })
            .inc();
        self.ready
            .get_or_create(&PluginLabel {
                plugin: plugin.to_owned(),
            })
            .set(i64::from(result == "ready"));
    }
}

/// The metrics of one plugin, looked up once: a call takes microseconds, and so would looking up its labels.
#[derive(Clone, Debug)]
pub(crate) struct PluginMetrics {
    plugin: String,
    all: Metrics,
    calls: [PerCall; Call::COUNT],
    imports: [Counter; Import::COUNT],
    cpu: Counter<f64, AtomicU64>,
    in_use: Gauge,
}

#[derive(Clone, Debug)]
struct PerCall {
    total: Counter,
    duration: Histogram,
    breaker: Gauge,
}

impl PluginMetrics {
    pub(crate) fn new(all: &Metrics, plugin: &str, limit: usize) -> PluginMetrics {
        let label = PluginLabel {
            plugin: plugin.to_owned(),
        };
        all.limit
            .get_or_create(&label)
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
        PluginMetrics {
            plugin: plugin.to_owned(),
            calls: Call::ALL.map(|call| {
                let labels = CallLabels {
                    plugin: plugin.to_owned(),
                    call: call.as_str(),
                };
                PerCall {
                    total: all.calls.get_or_create_owned(&labels),
                    duration: all.duration.get_or_create_owned(&labels),
                    breaker: all.breaker.get_or_create_owned(&labels),
                }
            }),
            imports: Import::ALL.map(|import| {
                all.host_calls.get_or_create_owned(&ImportLabels {
                    plugin: plugin.to_owned(),
                    import: import.as_str(),
                })
            }),
            cpu: all.cpu.get_or_create_owned(&label),
            in_use: all.in_use.get_or_create_owned(&label),
            all: all.clone(),
        }
    }

    pub(crate) fn called(&self, call: Call) {
        self.calls[call as usize].total.inc();
    }

    pub(crate) fn took(&self, call: Call, seconds: f64, cpu_seconds: f64) {
        self.calls[call as usize].duration.observe(seconds);
        self.cpu.inc_by(cpu_seconds);
    }

    pub(crate) fn failed(&self, call: Call, code: &'static str) {
        let labels = CodeLabels {
            plugin: self.plugin.clone(),
            call: call.as_str(),
            code,
        };
        self.all.errors.get_or_create(&labels).inc();
    }

    pub(crate) fn breaker(&self, call: Call, state: crate::BreakerState) {
        self.calls[call as usize].breaker.set(state as i64);
    }

    pub(crate) fn host_call(&self, import: Import) {
        self.imports[import as usize].inc();
    }

    pub(crate) fn denied(&self, capability: &'static str) {
        self.all
            .denials
            .get_or_create(&DenialLabels {
                plugin: self.plugin.clone(),
                capability,
            })
            .inc();
    }

    pub(crate) fn dropped(&self, resources: usize) {
        let label = PluginLabel {
            plugin: self.plugin.clone(),
        };
        self.all
            .resources_dropped
            .get_or_create(&label)
            .set(i64::try_from(resources).unwrap_or(i64::MAX));
    }

    pub(crate) fn log_lines_dropped(&self, lines: u32) {
        let label = PluginLabel {
            plugin: self.plugin.clone(),
        };
        self.all
            .log_lines_dropped
            .get_or_create(&label)
            .inc_by(u64::from(lines));
    }

    /// One more instance until the guard goes.
    pub(crate) fn instance(&self) -> InstanceGuard {
        self.in_use.inc();
        self.all.host_in_use.inc();
        InstanceGuard {
            plugin: self.in_use.clone(),
            host: self.all.host_in_use.clone(),
        }
    }
}

pub(crate) struct InstanceGuard {
    plugin: Gauge,
    host: Gauge,
}

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.plugin.dec();
        self.host.dec();
    }
}
