//! One vocabulary for all crates: what things are called, how they are written and read. No behaviour beyond that, no I/O, no clock.

mod behavior;
mod bytes;
mod duration;
mod event;
mod hash;
mod metric;
mod names;
mod object;
mod owner;
mod path;
mod phase;
mod quantity;
mod query;
mod selector;
mod shards;
mod target;
mod zone;

pub use behavior::{Behavior, BehaviorError, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};
pub use bytes::{BytesError, parse_bytes};
pub use duration::{DurationError, GoDuration, format_duration, metric_name, parse_duration, window_name};
pub use event::{ScaleEvent, ScaleEventKind, UnknownScaleEvent};
pub use hash::fnv1a;
pub use metric::{
    ContainerResourceMetric, DescribedObject, ExternalMetric, MetricIdentifier, MetricSelector, MetricSpec,
    MetricTarget, MetricTargetError, ObjectMetric, PodsMetric, ResourceMetric, SelectorRequirement,
};
pub use names::{is_dns_label, is_dns_subdomain};
pub use object::{GroupKind, ObjectKey, ObjectRef};
pub use owner::{Owner, OwnerKind, UnknownOwnerKind};
pub use path::FieldPath;
pub use phase::Phase;
pub use quantity::{Quantity, QuantityError};
pub use query::{PodScrape, Query, QuerySource};
pub use selector::{LabelSelector, SelectorError};
pub use shards::Shards;
pub use target::{
    MemoryPolicy, Metric, MetricsPolicy, Policy, Routing, Scale, Target, TargetKey, TargetState, Trigger,
};
pub use zone::time_zone;
