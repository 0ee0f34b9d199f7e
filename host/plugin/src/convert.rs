//! From what guests answer to what the host works with, checked on the way.
//!
//! Two kinds of wrong: an answer that breaks the contract as a whole is [`Garbage`], and the call has failed. A mistake
//! in the description of one resource, such as a Service name that a user mistyped in an annotation, stays with that
//! resource ([`Resource::problem`]): one bad resource must not stop the others.

mod about;
mod evaluator;
mod scaling;
mod source;
mod trigger;

pub(crate) use about::description;
pub(crate) use evaluator::recommendations;
pub(crate) use trigger::observations;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use dormouse_model::{GroupKind, ObjectRef, Quantity, ScaleEvent, ScaleEventKind};
use jiff::Timestamp;

use crate::bindings::dormouse::plugin::readings as wit_readings;
use crate::bindings::dormouse::plugin::types as wit;
use crate::bindings::exports::dormouse::plugin::{ingress_targets, scaler};
use crate::host::{clip, one_line};
use crate::types::{
    FieldCondition, MultiTargetStrategy, PathBackend, Reading, Resource, ResourceHandle, ResourceId,
    ResourceState, Rule, ScaleOutcome, ServiceTarget, Settings,
};
use crate::validate::{self, Check};
use crate::{GuestError, PluginError};

/// Bytes of an error text.
const ERROR_TEXT: usize = 4 << 10;
/// Rules of one resource.
const RULES: usize = 32;
/// Workloads or Services of one resource.
const MEMBERS: usize = 64;
/// Bytes of a cookie: those of ten thousand resources are kept.
const COOKIE: usize = 4 << 10;
/// Bytes of the reason of a resource.
const REASON: usize = 1 << 10;
/// Values of a field condition.
const VALUES: usize = 64;
/// The longest window and the longest hold that make sense.
const LONGEST_WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

/// An answer that the contract does not allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbage(pub String);

impl From<Garbage> for PluginError {
    fn from(garbage: Garbage) -> PluginError {
        PluginError::Garbage { what: garbage.0 }
    }
}

/// Checks a text that must be right, or the whole answer is garbage.
fn must(what: &str, value: &str, check: Check) -> Result<(), Garbage> {
    check(value).map_err(|wrong| Garbage(format!("{what} {:?} is {wrong}", clip(value.to_owned(), 100))))
}

/// An error of the guest, with its text bounded.
pub(crate) fn guest_error(error: wit::PluginError) -> GuestError {
    let text = |text| one_line(&clip(text, ERROR_TEXT));
    match error {
        wit::PluginError::InvalidConfiguration(why) => GuestError::InvalidConfiguration(text(why)),
        wit::PluginError::UnknownResource(id) => GuestError::UnknownResource(ResourceId {
            namespace: clip(id.namespace, 63),
            name: clip(id.name, 253),
        }),
        wit::PluginError::Transient(why) => GuestError::Transient(text(why)),
        wit::PluginError::Other(why) => GuestError::Other(text(why)),
    }
}

impl From<wit::ResourceId> for ResourceId {
    fn from(id: wit::ResourceId) -> ResourceId {
        ResourceId {
            namespace: id.namespace,
            name: id.name,
        }
    }
}

impl From<ResourceId> for wit::ResourceId {
    fn from(id: ResourceId) -> wit::ResourceId {
        wit::ResourceId {
            namespace: id.namespace,
            name: id.name,
        }
    }
}

impl From<ResourceHandle> for wit::ResourceHandle {
    fn from(handle: ResourceHandle) -> wit::ResourceHandle {
        wit::ResourceHandle {
            id: handle.id.into(),
            cookie: handle.cookie,
        }
    }
}

fn resource_id(id: wit::ResourceId) -> Result<ResourceId, Garbage> {
    must("the namespace", &id.namespace, validate::dns_label)?;
    must("the resource name", &id.name, validate::dns_subdomain)?;
    Ok(id.into())
}

/// The objects of a resource are in its namespace, whatever it says: its Sleeper is, and so is what the plugin may name.
fn object_in(namespace: &str, object: wit::ObjectRef) -> Result<ObjectRef, Garbage> {
    match &object.namespace {
        Some(other) if other != namespace => Err(Garbage(format!(
            "{} is in namespace {:?}, and not in that of its resource",
            clip(object.name, 100),
            clip(other.clone(), 100)
        ))),
        _ => object_ref(object),
    }
}

fn object_ref(object: wit::ObjectRef) -> Result<ObjectRef, Garbage> {
    must("the apiVersion", &object.api_version, validate::api_version)?;
    must("the kind", &object.kind, validate::kind)?;
    must("the object name", &object.name, validate::path_segment)?;
    let wit::ObjectRef {
        api_version,
        kind,
        name,
        namespace: _,
    } = object;
    Ok(ObjectRef {
        api_version,
        kind,
        name,
    })
}

/// What a plugin lists, as far as it can be used.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub resources: Vec<Resource>,
    /// Why others are left out.
    pub dropped: Vec<String>,
    /// How many are left out.
    pub left_out: usize,
}

/// All resources of an answer. One that has no possible name is left out, and spoils no other: names often are what somebody
/// typed, and a typing error in one must not keep the others from sleeping. Beyond the limit the last ones by namespace and name are left
/// out, the same in each answer.
pub(crate) fn resources(mut list: Vec<wit::Resource>, limit: usize) -> Listed {
    let mut listed = Listed::default();
    if list.len() > limit {
        list.sort_by(|one, other| {
            let (one, other) = (&one.id, &other.id);
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        let surplus = list.len() - limit;
        list.truncate(limit);
        listed.left_out = surplus;
        listed.dropped.push(format!(
            "{surplus} resources beyond the {limit} that are allowed (limits.resources)"
        ));
    }
    let mut places = HashMap::new();
    for entry in list {
        match resource(entry) {
            Ok(resource) => match places.entry(resource.id.clone()) {
                Entry::Vacant(free) => {
                    free.insert(listed.resources.len());
                    listed.resources.push(resource);
                }
                Entry::Occupied(taken) => {
                    let twice = "the plugin lists it twice";
                    // Nobody can tell which of the two is meant, so it stays awake.
                    if let Some(first) = listed.resources.get_mut(*taken.get()) {
                        first.rules.clear();
                        first.scaling = None;
                        first.problem.get_or_insert_with(|| twice.to_owned());
                    }
                    listed.left_out += 1;
                    listed.dropped.push(format!("{}: {twice}", resource.id));
                }
            },
            Err(Garbage(why)) => {
                listed.left_out += 1;
                listed.dropped.push(why);
            }
        }
    }
    listed
}

/// Collects what is wrong with one resource.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, problem: String) {
        // A few say enough, and the text ends up in a condition.
        if self.0.len() < 4 {
            self.0.push(problem);
        }
    }

    /// Keeps what `convert` accepts.
    fn keep<T, U>(&mut self, list: Vec<T>, max: usize, convert: impl Fn(T) -> Result<U, Garbage>) -> Vec<U> {
        if list.len() > max {
            self.note(format!(
                "a list of {} entries, at most {max} are allowed",
                list.len()
            ));
        }
        let mut kept = Vec::with_capacity(list.len().min(max));
        for entry in list.into_iter().take(max) {
            match convert(entry) {
                Ok(entry) => kept.push(entry),
                Err(Garbage(what)) => self.note(what),
            }
        }
        kept
    }

    fn maybe<T>(&mut self, result: Result<Option<T>, Garbage>) -> Option<T> {
        result.unwrap_or_else(|Garbage(what)| {
            self.note(what);
            None
        })
    }
}

fn resource(resource: wit::Resource) -> Result<Resource, Garbage> {
    let id = resource_id(resource.id)?;
    let mut problems = Problems::default();
    // The resource stays in the list: what is not listed any more is retired. Without an object nothing is written for it.
    let object = object_in(&id.namespace, resource.object).unwrap_or_else(|Garbage(what)| {
        problems.note(what);
        ObjectRef {
            api_version: String::new(),
            kind: String::new(),
            name: String::new(),
        }
    });
    let rules = problems.keep(resource.rules, RULES, rule);
    let scaling = problems.maybe(resource.scaling.map(scaling::scaling).transpose());
    let workloads = problems.keep(resource.workloads, MEMBERS, |object| {
        object_in(&id.namespace, object)
    });
    let services = problems.keep(resource.services, MEMBERS, |name| {
        must("the Service name", &name, validate::dns_label).map(|()| name)
    });
    let last_event = problems.maybe(resource.last_event.map(scale_event).transpose());
    let readiness_timeout = problems.maybe(hold("the readiness timeout", resource.readiness_timeout));
    let restore_replicas = problems.maybe(match resource.restore_replicas {
        Some(replicas) if replicas == 0 || i32::try_from(replicas).is_err() => {
            Err(Garbage(format!("{replicas} replicas to restore")))
        }
        other => Ok(other),
    });
    let wake_at = problems.maybe(resource.wake_at.map(moment).transpose());
    let cookie = problems.maybe(cookie(resource.cookie));
    let problem = (!problems.0.is_empty()).then(|| problems.0.join("; "));
    Ok(Resource {
        id,
        object,
        state: match resource.state {
            wit::ResourceState::Awake => ResourceState::Awake,
            wit::ResourceState::Asleep => ResourceState::Asleep,
            // One that is not known is left alone, too.
            wit::ResourceState::Changing | wit::ResourceState::Other(_) => ResourceState::Changing,
        },
        rules: if problem.is_some() { Vec::new() } else { rules },
        scaling: scaling.filter(|_| problem.is_none()),
        last_event,
        workloads,
        services,
        readiness_timeout,
        restore_replicas,
        wake_at,
        reason: resource.reason.map(|reason| one_line(&clip(reason, REASON))),
        cookie,
        problem,
    })
}

/// A resource from the contract's record in JSON, for who has it without a component. It is checked as one that a component lists.
///
/// # Errors
/// [`PluginError::Garbage`] for what is no such record, or has no possible name.
pub fn resource_of_record(record: serde_json::Value) -> Result<Resource, PluginError> {
    let record = serde_json::from_value(record)
        .map_err(|error| Garbage(format!("a record that is no resource: {error}")))?;
    Ok(resource(record)?)
}

fn rule(rule: wit::Rule) -> Result<Rule, Garbage> {
    let source = source::source(rule.source)?;
    let window = window(rule.window)?;
    must("the threshold", &rule.threshold, |threshold| {
        validate::text(threshold, 64)
    })?;
    Ok(Rule {
        source,
        window,
        threshold: rule.threshold,
    })
}

fn window(millis: u64) -> Result<Duration, Garbage> {
    let window = Duration::from_millis(millis);
    if window.is_zero() || window > LONGEST_WINDOW {
        return Err(Garbage(format!("a window of {window:?}")));
    }
    Ok(window)
}

fn moment(millis: u64) -> Result<Timestamp, Garbage> {
    let at = i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    at.ok_or_else(|| Garbage(format!("{millis} ms is no time of a calendar")))
}

fn cookie(cookie: Option<String>) -> Result<Option<String>, Garbage> {
    match &cookie {
        Some(text) if text.len() > COOKIE => Err(Garbage(format!("a cookie of more than {COOKIE} bytes"))),
        _ => Ok(cookie),
    }
}

fn scale_event(event: wit::ScaleEvent) -> Result<ScaleEvent, Garbage> {
    let at = moment(event.at)?;
    let kind = match event.kind {
        wit::ScaleEventKind::ResourceUpdated => ScaleEventKind::ResourceUpdated,
        wit::ScaleEventKind::ScaleFromZeroStarted => ScaleEventKind::ScaleFromZeroStarted,
        wit::ScaleEventKind::ScaleFromZeroCompleted => ScaleEventKind::ScaleFromZeroCompleted,
        wit::ScaleEventKind::ScaleToZeroStarted => ScaleEventKind::ScaleToZeroStarted,
        wit::ScaleEventKind::ScaleToZeroCompleted => ScaleEventKind::ScaleToZeroCompleted,
    };
    Ok(ScaleEvent { kind, at: Some(at) })
}

fn hold(what: &str, millis: Option<u64>) -> Result<Option<Duration>, Garbage> {
    let Some(span) = millis.map(Duration::from_millis) else {
        return Ok(None);
    };
    if span.is_zero() || span > LONGEST_HOLD {
        return Err(Garbage(format!("{what} is {span:?}")));
    }
    Ok(Some(span))
}

fn port(port: Option<u16>) -> Result<Option<u16>, Garbage> {
    if port == Some(0) {
        Err(Garbage("a port of 0".into()))
    } else {
        Ok(port)
    }
}

/// The settings of a plugin.
pub(crate) fn settings(settings: scaler::ScalerSettings) -> Result<Settings, Garbage> {
    if let Some(metrics) = &settings.metrics_resource {
        must(
            "the group of the metrics resource",
            &metrics.group,
            validate::group,
        )?;
        must("the kind of the metrics resource", &metrics.kind, validate::kind)?;
    }
    for (what, header) in [
        ("the name header", &settings.target_name_header),
        ("the path header", &settings.target_path_header),
    ] {
        if let Some(header) = header {
            must(what, header, validate::header_name)?;
        }
    }
    Ok(Settings {
        scale_interval: hold("the scale interval", settings.scale_interval)?,
        metrics_resource: settings.metrics_resource.map(|kind| GroupKind {
            group: kind.group,
            kind: kind.kind,
        }),
        target_name_header: settings.target_name_header,
        target_path_header: settings.target_path_header,
        target_port: port(settings.target_port)?,
        readiness_timeout: hold("the readiness timeout", settings.readiness_timeout)?,
        multi_target_strategy: settings.multi_target_strategy.map(|strategy| match strategy {
            scaler::MultiTargetStrategy::Random => MultiTargetStrategy::Random,
            scaler::MultiTargetStrategy::Primary => MultiTargetStrategy::Primary,
            scaler::MultiTargetStrategy::Canary => MultiTargetStrategy::Canary,
        }),
    })
}

/// One outcome for each of `asked` resources.
pub(crate) fn outcomes(list: Vec<scaler::ScaleOutcome>, asked: usize) -> Result<Vec<ScaleOutcome>, Garbage> {
    if list.len() != asked {
        return Err(Garbage(format!("{} outcomes for {asked} resources", list.len())));
    }
    list.into_iter()
        .map(|outcome| {
            Ok(match outcome {
                scaler::ScaleOutcome::Done => ScaleOutcome::Done,
                scaler::ScaleOutcome::Accepted => ScaleOutcome::Accepted,
                scaler::ScaleOutcome::Watch(condition) => ScaleOutcome::Watch(field_condition(condition)?),
                scaler::ScaleOutcome::Failed(error) => ScaleOutcome::Failed(guest_error(error)),
                scaler::ScaleOutcome::Other(text) => ScaleOutcome::Other(one_line(&clip(text, ERROR_TEXT))),
            })
        })
        .collect()
}

fn field_condition(condition: scaler::FieldCondition) -> Result<FieldCondition, Garbage> {
    must("the field", &condition.path, validate::field_path)?;
    if condition.ready_values.is_empty() {
        return Err(Garbage("a field condition that no value fulfils".into()));
    }
    for values in [&condition.ready_values, &condition.failed_values] {
        if values.len() > VALUES || values.iter().any(|value| value.len() > 253) {
            return Err(Garbage(
                "a field condition with too many or too long values".into(),
            ));
        }
    }
    let object = object_ref(condition.object)?;
    let scaler::FieldCondition {
        path,
        ready_values,
        failed_values,
        ..
    } = condition;
    Ok(FieldCondition {
        object,
        path,
        ready_values,
        failed_values,
    })
}

/// Where requests go.
pub(crate) fn service_target(target: scaler::ServiceTarget) -> Result<ServiceTarget, Garbage> {
    // An empty name leaves it to the host: the first Service that the resource lists.
    if !target.name.is_empty() {
        must("the Service name", &target.name, validate::dns_label)?;
    }
    Ok(ServiceTarget {
        name: target.name,
        port: port(target.port)?,
    })
}

/// What a list of questions was answered with.
struct Answered<T> {
    list: Vec<Result<T, wit::PluginError>>,
    asked: usize,
}

/// One answer for each question. One that the contract does not allow is an error of its own question only.
fn answers<T, U>(
    answered: Answered<T>,
    convert: impl Fn(T) -> Result<U, Garbage>,
) -> Result<Vec<Result<U, GuestError>>, Garbage> {
    let Answered { list, asked } = answered;
    if list.len() != asked {
        return Err(Garbage(format!("{} answers to {asked} questions", list.len())));
    }
    let answers = list.into_iter().map(|answer| {
        let answer = answer.map_err(guest_error)?;
        convert(answer)
            .map_err(|Garbage(what)| GuestError::Other(format!("the plugin answered garbage: {what}")))
    });
    Ok(answers.collect())
}

/// Text for people, of one line and not without end.
fn one_text(text: String) -> String {
    one_line(&clip(text, REASON))
}

fn quantity(what: &str, text: &str) -> Result<Quantity, Garbage> {
    text.parse()
        .map_err(|error| Garbage(format!("{what} {:?}: {error}", clip(text.to_owned(), 64))))
}

impl From<Reading> for wit_readings::Reading {
    fn from(reading: Reading) -> wit_readings::Reading {
        match reading {
            Reading::Value(value) => wit_readings::Reading::Value(value.to_string()),
            Reading::NoData(why) => wit_readings::Reading::NoData(why),
            Reading::Error(why) => wit_readings::Reading::Error(why),
        }
    }
}

fn reading(said: wit_readings::Reading) -> Result<Reading, Garbage> {
    Ok(match said {
        wit_readings::Reading::Value(value) => Reading::Value(quantity("a reading of", &value)?),
        wit_readings::Reading::NoData(why) => Reading::NoData(one_text(why)),
        wit_readings::Reading::Error(why) | wit_readings::Reading::Other(why) => {
            Reading::Error(one_text(why))
        }
    })
}

fn ask_again(said: Option<u64>) -> Result<Option<Duration>, Garbage> {
    hold("ask-again", said)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A moment before 1970 becomes 1970.
fn unix_millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

/// One or two targets of a path, or none.
pub(crate) fn targets(list: Vec<wit::ResourceId>) -> Result<Vec<ResourceId>, Garbage> {
    if list.len() > 2 {
        return Err(Garbage(format!(
            "{} targets for one path, at most two are allowed",
            list.len()
        )));
    }
    list.into_iter().map(resource_id).collect()
}

impl From<PathBackend> for ingress_targets::PathBackend {
    fn from(backend: PathBackend) -> ingress_targets::PathBackend {
        let PathBackend {
            namespace,
            ingress,
            annotations,
            host,
            path,
            service,
        } = backend;
        ingress_targets::PathBackend {
            namespace,
            ingress,
            annotations,
            host,
            path,
            service,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(name: &str) -> wit::Resource {
        wit::Resource {
            id: wit::ResourceId {
                namespace: "shop".into(),
                name: name.into(),
            },
            object: wit::ObjectRef {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                namespace: None,
                name: name.into(),
            },
            state: wit::ResourceState::Awake,
            rules: vec![wit::Rule {
                source: wit::MetricSource::ObservedTraffic,
                window: 60_000,
                threshold: "0".into(),
                extra: Vec::new(),
            }],
            scaling: None,
            last_event: None,
            workloads: Vec::new(),
            services: vec![name.into()],
            readiness_timeout: None,
            restore_replicas: None,
            wake_at: None,
            reason: None,
            cookie: None,
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_good_answer_passes() {
        let list = resources(vec![good("a"), good("b")], 2);
        assert_eq!((list.resources.len(), list.dropped.len()), (2, 0));
        assert!(
            list.resources
                .iter()
                .all(|resource| resource.problem.is_none() && resource.rules.len() == 1)
        );
    }

    #[test]
    fn more_than_the_limit_costs_the_surplus_only_and_always_the_same() {
        for names in [["a", "b", "c"], ["c", "b", "a"]] {
            let listed = resources(names.map(good).into(), 2);
            let mut kept: Vec<_> = listed.resources.iter().map(|one| &*one.id.name).collect();
            kept.sort_unstable();
            assert_eq!(kept, ["a", "b"]);
            assert_eq!((listed.left_out, listed.dropped.len()), (1, 1));
            assert!(
                listed.dropped[0].contains("limits.resources"),
                "{:?}",
                listed.dropped
            );
        }
    }

    #[test]
    fn author_evil_one_bad_name_does_not_fail_the_whole_list() {
        let with = |bad: wit::Resource| {
            let listed = resources(vec![good("a"), bad, good("z")], 10);
            let names: Vec<_> = listed.resources.iter().map(|one| one.id.name.clone()).collect();
            assert_eq!(names, ["a", "z"], "the others are there");
            assert!(listed.resources.iter().all(|one| one.problem.is_none()));
            assert_eq!(listed.dropped.len(), 1);
            listed.dropped[0].clone()
        };
        assert!(with(good("Not-A-Name")).contains("DNS subdomain"));
        assert!(
            with(good(&"x".repeat(1 << 20))).len() < 400,
            "the message must not repeat a megabyte"
        );
        let mut bad = good("b");
        bad.id.namespace = "../kube-system".into();
        assert!(with(bad).contains("DNS label"));

        let mut bad = good("b");
        bad.object.name = "a/../b".into();
        let listed = resources(vec![good("a"), bad], 10);
        let kept = &listed.resources[1];
        assert!(kept.problem.as_ref().unwrap().contains("URL path"), "{kept:?}");
        assert!(kept.rules.is_empty() && kept.object.name.is_empty(), "{kept:?}");

        let listed = resources(vec![good("a"), good("a")], 10);
        assert_eq!((listed.resources.len(), listed.dropped.len()), (1, 1));
        assert!(listed.resources[0].rules.is_empty() && listed.dropped[0].contains("twice"));
    }

    #[test]
    fn a_mistake_in_one_resource_keeps_that_one_awake_and_the_others_as_they_are() {
        type Spoil = fn(&mut wit::Resource);
        let spoils: [Spoil; 8] = [
            |resource| resource.services.push("Not A Service".into()),
            |resource| resource.rules[0].window = 0,
            |resource| resource.rules[0].threshold = "\n".into(),
            |resource| resource.restore_replicas = Some(0),
            |resource| resource.readiness_timeout = Some(0),
            |resource| resource.readiness_timeout = Some(u64::MAX),
            |resource| resource.services = vec!["s".into(); 1000],
            |resource| {
                resource.last_event = Some(wit::ScaleEvent {
                    kind: wit::ScaleEventKind::ResourceUpdated,
                    at: u64::MAX,
                });
            },
        ];
        for (index, spoil) in spoils.into_iter().enumerate() {
            let mut bad = good("bad");
            spoil(&mut bad);
            let list = resources(vec![bad, good("fine")], 10).resources;
            assert!(list[0].problem.is_some(), "case {index}");
            assert!(list[0].rules.is_empty(), "case {index}: it could be put to sleep");
            assert!(list[0].services.len() <= MEMBERS);
            assert!(
                list[1].problem.is_none() && list[1].rules.len() == 1,
                "case {index}"
            );
        }
    }

    #[test]
    fn what_a_later_contract_may_say_leaves_a_resource_alone() {
        let mut later = good("a");
        later.state = wit::ResourceState::Other("hibernated".into());
        later.extra = vec![("colour".into(), "blue".into())];
        let read = resource(later).unwrap();
        assert_eq!((read.state, read.problem), (ResourceState::Changing, None));
        assert_eq!(
            outcomes(vec![scaler::ScaleOutcome::Other("queued\nup".into())], 1).unwrap(),
            [ScaleOutcome::Other("queued\\nup".into())]
        );
    }

    #[test]
    fn a_resource_names_objects_of_its_own_namespace_only() {
        let mut own = good("a");
        own.object.namespace = Some("shop".into());
        assert_eq!(resource(own).unwrap().problem, None);
        let mut others = good("a");
        others.workloads = vec![wit::ObjectRef {
            namespace: Some("bank".into()),
            ..others.object.clone()
        }];
        let read = resource(others).unwrap();
        assert!(read.workloads.is_empty() && read.rules.is_empty());
        assert!(read.problem.unwrap().contains("bank"));
    }

    #[test]
    fn cookies_and_reasons_are_bounded() {
        let mut good = good("a");
        good.cookie = Some("c".repeat(COOKIE));
        good.reason = Some(format!("because\n{}", "r".repeat(REASON)));
        good.wake_at = Some(1_000);
        let read = resource(good.clone()).unwrap();
        assert_eq!(read.problem, None);
        assert!(
            read.reason
                .is_some_and(|reason| reason.len() < 2 * REASON && !reason.contains('\n'))
        );
        assert_eq!(read.wake_at.map(Timestamp::as_second), Some(1));
        good.cookie = Some("c".repeat(COOKIE + 1));
        good.wake_at = Some(u64::MAX);
        let problem = resource(good).unwrap().problem.unwrap();
        assert!(
            problem.contains("cookie") && problem.contains("no time of a calendar"),
            "{problem}"
        );
    }

    #[test]
    fn outcomes_answer_each_resource() {
        assert_eq!(
            outcomes(vec![scaler::ScaleOutcome::Done], 1).unwrap(),
            [ScaleOutcome::Done]
        );
        assert!(outcomes(vec![scaler::ScaleOutcome::Done], 2).is_err());
        assert!(outcomes(Vec::new(), 1).is_err());
    }

    #[test]
    fn at_most_two_targets() {
        let id = || wit::ResourceId {
            namespace: "a".into(),
            name: "b".into(),
        };
        assert_eq!(targets(vec![id(), id()]).unwrap().len(), 2);
        assert!(targets(vec![id(), id(), id()]).is_err());
    }

    #[test]
    fn settings_with_a_header_that_is_none_are_garbage() {
        let empty = || scaler::ScalerSettings {
            scale_interval: None,
            metrics_resource: None,
            target_name_header: None,
            target_path_header: None,
            target_port: None,
            readiness_timeout: None,
            multi_target_strategy: None,
            extra: Vec::new(),
        };
        assert_eq!(settings(empty()).unwrap(), Settings::default());
        assert!(
            settings(scaler::ScalerSettings {
                target_name_header: Some("a\r\nb".into()),
                ..empty()
            })
            .is_err()
        );
        assert!(
            settings(scaler::ScalerSettings {
                target_port: Some(0),
                ..empty()
            })
            .is_err()
        );
    }
}
