//! Metrics of this crate. All labels are bounded.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Label = [(&'static str, &'static str); 1];

/// What a process sees of the API server. Clones count into the same numbers.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    watch_errors: Family<Label, Counter>,
    events_dropped: Counter,
    leader: Gauge,
    shards: Gauge,
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dormouse");
        let m = &self.inner;
        registry.register(
            "watch_errors",
            "Watches that failed and are retried, by kind",
            m.watch_errors.clone(),
        );
        registry.register(
            "events_dropped",
            "Events dropped because too many were waiting",
            m.events_dropped.clone(),
        );
        registry.register(
            "leader",
            "1 while this process leads, or holds a shard",
            m.leader.clone(),
        );
        registry.register(
            "shards_held",
            "Shards of namespaces that this process looks after (--shards)",
            m.shards.clone(),
        );
    }

    pub(crate) fn watch_error(&self, plural: &'static str) {
        self.inner
            .watch_errors
            .get_or_create(&[("resource", plural)])
            .inc();
    }

    pub(crate) fn event_dropped(&self) {
        self.inner.events_dropped.inc();
    }

    pub(crate) fn holds(&self, shards: usize) {
        self.inner.leader.set(i64::from(shards > 0));
        self.inner.shards.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }
}
