//! What the pods use, as the metrics APIs report it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use dormouse_model::Quantity;
use jiff::Timestamp;

/// Amounts of resources by name.
pub type Resources = BTreeMap<String, Quantity>;

/// What one pod uses: an item of the resource metrics API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSample {
    /// Name of the pod.
    pub pod: String,
    /// The end of the window.
    pub timestamp: Timestamp,
    /// How long it was measured.
    pub window: Duration,
    /// What each container uses.
    pub containers: Vec<ContainerUsage>,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Name of the container.
    pub name: String,
    /// How much of each resource.
    pub usage: Resources,
}

/// The value of a metric for one pod: an item of the custom metrics API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodValue {
    /// Name of the pod.
    pub pod: String,
    /// The value, in milli-units.
    pub value: i64,
}

/// One number for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// In milli-units.
    pub value: i64,
    /// The end of its window.
    pub timestamp: Timestamp,
    /// How long it was measured.
    pub window: Duration,
}

impl PodSample {
    /// How much the pod uses of a resource, or one container of it, in milli-units. None if the sample does not tell: then the
    /// pod counts as one without a sample.
    fn of_resource(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        let amount = |container: &ContainerUsage| Some(container.usage.get(resource)?.saturating_millis());
        match container {
            Some(name) => amount(self.containers.iter().find(|container| container.name == name)?),
            None if self.containers.is_empty() => None,
            None => self.containers.iter().try_fold(0_i64, |sum, container| {
                Some(sum.saturating_add(amount(container)?))
            }),
        }
    }
}

/// What each pod uses of a resource.
pub(super) fn of_resource<'a>(
    samples: &'a [PodSample],
    resource: &str,
    container: Option<&str>,
) -> HashMap<&'a str, Usage> {
    let known = samples.iter().filter_map(|sample| {
        let usage = Usage {
            value: sample.of_resource(resource, container)?,
            timestamp: sample.timestamp,
            window: sample.window,
        };
        Some((sample.pod.as_str(), usage))
    });
    known.collect()
}

/// What each pod reports. `now` stands in for a time that does not matter.
pub(super) fn of_values(values: &[PodValue], now: Timestamp) -> HashMap<&str, Usage> {
    let known = values.iter().map(|value| {
        let usage = Usage {
            value: value.value,
            timestamp: now,
            window: Duration::ZERO,
        };
        (value.pod.as_str(), usage)
    });
    known.collect()
}
