//! Flags over the source's settings over defaults, each field by itself.

use std::time::Duration;

use dormouse_model::GroupKind;
use dormouse_plugin::types::Settings;

/// How often idleness is decided if nobody says otherwise.
const SCALE_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest interval: a source that asks for less would only keep the API server busy.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What flags, environment and configuration file say. None: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--scale-interval`
    pub scale_interval: Option<Duration>,
    /// `--metrics-resource-kind`
    pub metrics_resource_kind: Option<String>,
    /// `--metrics-resource-group`
    pub metrics_resource_group: Option<String>,
}

/// What holds for a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// How often idleness is decided.
    pub scale_interval: Duration,
    /// The kind that custom metrics describe. None: the kind of each resource's own object.
    pub metrics_resource: Option<GroupKind>,
}

impl Overrides {
    /// Merges field by field. (v3io's scaler throws all flags away when a plugin has settings.)
    pub fn over(&self, settings: &Settings) -> Effective {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let theirs = settings.metrics_resource.as_ref();
        let kind = said(&self.metrics_resource_kind).or_else(|| theirs.map(|resource| resource.kind.clone()));
        let group = self
            .metrics_resource_group
            .clone()
            .or_else(|| theirs.map(|resource| resource.group.clone()));
        let interval = self
            .scale_interval
            .or(settings.scale_interval)
            .filter(|span| !span.is_zero());
        Effective {
            scale_interval: interval.unwrap_or(SCALE_INTERVAL).max(SHORTEST_INTERVAL),
            metrics_resource: kind.map(|kind| GroupKind {
                group: group.unwrap_or_default(),
                kind,
            }),
        }
    }
}
