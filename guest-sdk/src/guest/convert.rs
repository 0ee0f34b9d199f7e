//! Between the types of this crate and those of the contract.

use std::time::Duration;

use jiff::Timestamp;

use super::bindings::ingress::exports::dormouse::plugin::ingress_targets as wit_ingress;
use super::bindings::scaler::dormouse::plugin::{
    kubernetes as wit_k8s, lifecycle as wit_life, logging, types as wit,
};
use super::bindings::scaler::exports::dormouse::plugin::scaler as wit_scaler;
use crate::kubernetes::{Error as KubernetesError, EventType, List, ObjectKey, PatchType, Subresource};
use crate::lifecycle::{Error as LifecycleError, Phase, Sleeper};
use crate::log::Level;
use crate::{
    Error, FieldCondition, Goal, GoalTarget, MetricSource, MultiTargetStrategy, ObjectRef, Outcome,
    PathBackend, Resource, ResourceHandle, ResourceId, Rule, ScaleEvent, ScaleEventKind, Scaling,
    ServiceTarget, Settings, State,
};

/// Whole milliseconds. What is shorter than one becomes one, so that a short time does not become none.
pub(crate) fn millis(duration: Duration) -> u64 {
    let whole = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if whole == 0 && !duration.is_zero() {
        1
    } else {
        whole
    }
}

/// A moment before 1970 becomes 1970.
pub(crate) fn unix_millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// A moment that no calendar knows becomes 1970.
pub(crate) fn timestamp(millis: u64) -> Timestamp {
    i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or_default()
}

impl From<ResourceId> for wit::ResourceId {
    fn from(id: ResourceId) -> Self {
        Self {
            namespace: id.namespace,
            name: id.name,
        }
    }
}

impl From<&ResourceId> for wit::ResourceId {
    fn from(id: &ResourceId) -> Self {
        id.clone().into()
    }
}

impl From<wit::ResourceId> for ResourceId {
    fn from(id: wit::ResourceId) -> Self {
        Self {
            namespace: id.namespace,
            name: id.name,
        }
    }
}

impl From<ObjectRef> for wit::ObjectRef {
    fn from(object: ObjectRef) -> Self {
        Self {
            api_version: object.api_version,
            kind: object.kind,
            namespace: None,
            name: object.name,
        }
    }
}

impl From<wit::ResourceHandle> for ResourceHandle {
    fn from(handle: wit::ResourceHandle) -> Self {
        Self {
            id: handle.id.into(),
            cookie: handle.cookie,
        }
    }
}

impl From<State> for wit::ResourceState {
    fn from(state: State) -> Self {
        match state {
            State::Awake => Self::Awake,
            State::Asleep => Self::Asleep,
            State::Changing => Self::Changing,
        }
    }
}

impl From<ScaleEvent> for wit::ScaleEvent {
    fn from(event: ScaleEvent) -> Self {
        let kind = match event.kind {
            ScaleEventKind::ResourceUpdated => wit::ScaleEventKind::ResourceUpdated,
            ScaleEventKind::ScaleFromZeroStarted => wit::ScaleEventKind::ScaleFromZeroStarted,
            ScaleEventKind::ScaleFromZeroCompleted => wit::ScaleEventKind::ScaleFromZeroCompleted,
            ScaleEventKind::ScaleToZeroStarted => wit::ScaleEventKind::ScaleToZeroStarted,
            ScaleEventKind::ScaleToZeroCompleted => wit::ScaleEventKind::ScaleToZeroCompleted,
        };
        Self {
            kind,
            at: unix_millis(event.at),
        }
    }
}

impl From<MetricSource> for wit::MetricSource {
    fn from(source: MetricSource) -> Self {
        match source {
            MetricSource::ObservedTraffic => Self::ObservedTraffic,
            MetricSource::DlxConcurrency => Self::DlxConcurrency,
            MetricSource::DlxRate => Self::DlxRate,
            MetricSource::Given { name, value } => Self::Given(wit::GivenReading {
                name,
                value: value.to_string(),
            }),
            MetricSource::Custom { name, selector } => Self::Custom(wit::CustomMetric { name, selector }),
            MetricSource::External { name, selector } => {
                Self::External(wit::ExternalMetric { name, selector })
            }
            MetricSource::Resource(name) => Self::Resource(name),
            MetricSource::Prometheus { server, query } => {
                Self::Prometheus(wit::PrometheusQuery { server, query })
            }
            MetricSource::Pods(scrape) => Self::Pods(wit::PodScrape {
                port: scrape.port,
                path: scrape.path,
                metric: scrape.metric,
                labels: scrape.labels,
            }),
            MetricSource::Other { kind, parameters } => Self::Other(wit::OtherSource {
                kind,
                parameters: parameters.to_string(),
            }),
        }
    }
}

impl From<Rule> for wit::Rule {
    fn from(rule: Rule) -> Self {
        Self {
            source: rule.source.into(),
            window: millis(rule.window),
            threshold: rule.threshold.to_string(),
            extra: Vec::new(),
        }
    }
}

impl From<Goal> for wit::Goal {
    fn from(goal: Goal) -> Self {
        Self {
            source: goal.source.into(),
            window: goal.window.map(millis),
            target: match goal.target {
                GoalTarget::Value(value) => wit::GoalTarget::Value(value.to_string()),
                GoalTarget::Average(average) => wit::GoalTarget::Average(average.to_string()),
                GoalTarget::Utilization(percent) => wit::GoalTarget::Utilization(percent),
            },
            extra: Vec::new(),
        }
    }
}

impl From<Scaling> for wit::Scaling {
    fn from(scaling: Scaling) -> Self {
        Self {
            min_replicas: scaling.min_replicas,
            max_replicas: scaling.max_replicas,
            goals: scaling.goals.into_iter().map(Into::into).collect(),
            behavior: scaling.behavior,
            extra: Vec::new(),
        }
    }
}

impl TryFrom<Resource> for wit::Resource {
    type Error = Error;

    /// Fails for a resource that is no object at all.
    fn try_from(resource: Resource) -> Result<Self, Error> {
        let object = resource.object.or_else(|| resource.workloads.first().cloned());
        let object = object.ok_or_else(|| {
            Error::Other(format!(
                "resource {} names neither an object nor a workload",
                resource.id
            ))
        })?;
        Ok(Self {
            id: resource.id.into(),
            object: object.into(),
            state: resource.state.into(),
            rules: resource.rules.into_iter().map(Into::into).collect(),
            scaling: resource.scaling.map(Into::into),
            last_event: resource.last_event.map(Into::into),
            workloads: resource.workloads.into_iter().map(Into::into).collect(),
            services: resource.services,
            readiness_timeout: resource.readiness_timeout.map(millis),
            restore_replicas: resource.restore_replicas,
            wake_at: resource.wake_at.map(unix_millis),
            reason: resource.reason,
            cookie: resource.cookie,
            extra: Vec::new(),
        })
    }
}

impl From<Error> for wit::PluginError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidConfiguration(text) => Self::InvalidConfiguration(text),
            Error::UnknownResource(id) => Self::UnknownResource(id.into()),
            Error::Transient(text) => Self::Transient(text),
            Error::Other(text) => Self::Other(text),
        }
    }
}

impl From<Settings> for wit_scaler::ScalerSettings {
    fn from(settings: Settings) -> Self {
        Self {
            scale_interval: settings.scale_interval.map(millis),
            metrics_resource: settings.metrics_resource.map(|kind| wit_scaler::GroupKind {
                group: kind.group,
                kind: kind.kind,
            }),
            target_name_header: settings.target_name_header,
            target_path_header: settings.target_path_header,
            target_port: settings.target_port,
            readiness_timeout: settings.readiness_timeout.map(millis),
            multi_target_strategy: settings.multi_target_strategy.map(|strategy| match strategy {
                MultiTargetStrategy::Random => wit_scaler::MultiTargetStrategy::Random,
                MultiTargetStrategy::Primary => wit_scaler::MultiTargetStrategy::Primary,
                MultiTargetStrategy::Canary => wit_scaler::MultiTargetStrategy::Canary,
            }),
            extra: Vec::new(),
        }
    }
}

impl From<FieldCondition> for wit_scaler::FieldCondition {
    fn from(condition: FieldCondition) -> Self {
        Self {
            object: condition.object.into(),
            path: condition.path,
            ready_values: condition.ready_values,
            failed_values: condition.failed_values,
            extra: Vec::new(),
        }
    }
}

impl From<Outcome> for wit_scaler::ScaleOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Accepted => Self::Accepted,
            Outcome::Watch(condition) => Self::Watch(condition.into()),
            Outcome::Failed(error) => Self::Failed(error.into()),
            Outcome::Other(text) => Self::Other(text),
        }
    }
}

impl From<ServiceTarget> for wit_scaler::ServiceTarget {
    fn from(target: ServiceTarget) -> Self {
        Self {
            name: target.name,
            port: target.port,
            extra: Vec::new(),
        }
    }
}

impl From<wit_ingress::PathBackend> for PathBackend {
    fn from(backend: wit_ingress::PathBackend) -> Self {
        Self {
            namespace: backend.namespace,
            ingress: backend.ingress,
            annotations: backend.annotations,
            host: backend.host,
            path: backend.path,
            service: backend.service,
        }
    }
}

impl From<Level> for logging::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

impl From<&ObjectKey> for wit_k8s::ObjectKey {
    fn from(key: &ObjectKey) -> Self {
        Self {
            api_version: key.api_version.clone(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl From<List> for wit_k8s::ListQuery {
    fn from(list: List) -> Self {
        Self {
            api_version: list.api_version,
            kind: list.kind,
            namespace: list.namespace,
            label_selector: list.label_selector,
            annotation_prefix: list.annotation_prefix,
            fields: list.fields,
        }
    }
}

impl From<Subresource> for wit_k8s::Subresource {
    fn from(subresource: Subresource) -> Self {
        match subresource {
            Subresource::None => Self::None,
            Subresource::Status => Self::Status,
            Subresource::Scale => Self::Scale,
        }
    }
}

impl From<PatchType> for wit_k8s::PatchType {
    fn from(kind: PatchType) -> Self {
        match kind {
            PatchType::Merge => Self::Merge,
            PatchType::Json => Self::Json,
            PatchType::StrategicMerge => Self::StrategicMerge,
        }
    }
}

impl From<EventType> for wit_k8s::EventType {
    fn from(kind: EventType) -> Self {
        match kind {
            EventType::Normal => Self::Normal,
            EventType::Warning => Self::Warning,
        }
    }
}

impl From<wit_k8s::KubernetesError> for KubernetesError {
    fn from(error: wit_k8s::KubernetesError) -> Self {
        use wit_k8s::KubernetesError as Wit;
        match error {
            Wit::Denied(text) => Self::Denied(text),
            Wit::NotFound(text) => Self::NotFound(text),
            Wit::Conflict(text) => Self::Conflict(text),
            Wit::Invalid(text) => Self::Invalid(text),
            Wit::Timeout(text) => Self::Timeout(text),
            Wit::Unavailable(text) => Self::Unavailable(text),
            Wit::Other(text) => Self::Other(text),
        }
    }
}

impl From<wit_life::LifecycleError> for LifecycleError {
    fn from(error: wit_life::LifecycleError) -> Self {
        use wit_life::LifecycleError as Wit;
        match error {
            Wit::UnknownResource(id) => Self::UnknownResource(id.into()),
            Wit::Unsupported(text) => Self::Unsupported(text),
            Wit::Superseded(text) => Self::Superseded(text),
            Wit::Timeout(text) => Self::Timeout(text),
            Wit::Unavailable(text) => Self::Unavailable(text),
            Wit::Other(text) => Self::Other(text),
        }
    }
}

impl From<wit_life::Sleeper> for Sleeper {
    fn from(sleeper: wit_life::Sleeper) -> Self {
        let phase = match sleeper.phase {
            wit_life::Phase::Awake => Phase::Awake,
            wit_life::Phase::GoingToSleep => Phase::GoingToSleep,
            wit_life::Phase::Asleep => Phase::Asleep,
            wit_life::Phase::Waking => Phase::Waking,
        };
        Self {
            phase,
            phase_text: sleeper.phase_text,
            epoch: sleeper.epoch,
            since: timestamp(sleeper.since),
            reason: sleeper.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duration::{minutes, seconds};

    #[test]
    fn times_cross_the_border_in_milliseconds() {
        assert_eq!(millis(seconds(90)), 90_000);
        assert_eq!(millis(Duration::from_micros(10)), 1);
        assert_eq!(millis(Duration::ZERO), 0);
        let at: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a moment");
        assert_eq!(timestamp(unix_millis(at)), at);
        assert_eq!(unix_millis("1969-01-01T00:00:00Z".parse().expect("a moment")), 0);
        assert_eq!(timestamp(u64::MAX), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_resource_crosses_whole() {
        let resource = Resource::new("shop", "web")
            .workload(ObjectRef::new("apps/v1", "Deployment", "web"))
            .service("web")
            .rule(Rule::observed_traffic(minutes(15)))
            .rule(Rule::custom("requests", minutes(10), 2))
            .readiness_timeout(seconds(30))
            .restore_replicas(3)
            .last_event(ScaleEventKind::ResourceUpdated, timestamp(7));
        let wit = wit::Resource::try_from(resource).expect("has a workload");
        assert_eq!(
            wit.id,
            wit::ResourceId {
                namespace: "shop".into(),
                name: "web".into()
            }
        );
        assert_eq!(wit.object, wit.workloads[0]);
        assert_eq!(wit.rules[0].source, wit::MetricSource::ObservedTraffic);
        assert_eq!(
            (wit.rules[0].window, wit.rules[0].threshold.as_str()),
            (900_000, "0")
        );
        assert!(
            matches!(&wit.rules[1].source, wit::MetricSource::Custom(custom) if custom.name == "requests" && custom.selector.is_none())
        );
        assert_eq!(
            (wit.rules[1].window, wit.rules[1].threshold.as_str()),
            (600_000, "2")
        );
        assert_eq!(
            wit.last_event,
            Some(wit::ScaleEvent {
                kind: wit::ScaleEventKind::ResourceUpdated,
                at: 7
            })
        );
        assert_eq!(
            (wit.readiness_timeout, wit.restore_replicas),
            (Some(30_000), Some(3))
        );
    }

    #[test]
    fn a_resource_that_is_no_object_is_named() {
        let error = wit::Resource::try_from(Resource::new("shop", "ghost")).expect_err("no object");
        assert!(error.to_string().contains("shop/ghost"), "{error}");
    }
}
