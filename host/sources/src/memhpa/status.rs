//! What became of a MemHpa: its status, and what people are told of it.

use std::time::Duration;

use dormouse_autoscaler::Report;
use dormouse_scaling::memory::Correction;
use dormouse_scaling::{LimitKind, Sample};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, Sleeper};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::api::{MemHpa, MemHpaStatus};
use super::sleep::{self, ABLE_TO_SLEEP, able_to_sleep, is_resting, resting};
use super::translate::corrections;
use crate::sleep::asked;

/// So long after it was created or scaled nobody wonders that pods have no samples.
const NOT_YET: Duration = Duration::from_secs(3 * 60);

/// Something that people are told by an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Told {
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason,
            message: message.into(),
        }
    }

    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            ..Self::warning(reason, message)
        }
    }
}

/// What its status is to say, and what is news. `sleeper` is that of its workload, if it has one.
pub(super) fn outcome(
    object: &MemHpa,
    report: &Report,
    sleeper: Option<&Sleeper>,
) -> (MemHpaStatus, Vec<Told>) {
    let mut known = object.status.clone().unwrap_or_default();
    let (able, resting) = (able_to_sleep(object, report, sleeper), resting(sleeper));
    let mut told = Vec::new();
    // It may be that its fields are wrong because it does not ask for sleep any more.
    let asked_before = known.conditions.iter().any(|known| known.type_ == ABLE_TO_SLEEP);
    let asks = asked(object.annotations()) != Ok(None);
    if known.observed_generation != object.metadata.generation || (asked_before && !asks) {
        told.extend(corrections(object).iter().map(|one| corrected(object, one)));
    }
    let mut updates: Vec<_> = report
        .update
        .conditions
        .iter()
        .map(|update| by_age(object, update, sleeper, report.at))
        .collect();
    updates.extend(resting.clone());
    updates.extend(able);
    let news = updates
        .iter()
        .filter(|update| !update.status && is_news(&known, update));
    told.extend(news.filter_map(trouble));
    sleep::note(&mut known, report, resting.as_ref());
    let mut status = MemHpaStatus {
        observed_generation: object.metadata.generation,
        conditions: conditions(object, &known, &updates, report.at),
        ..known
    };
    if let Some(scaled) = &report.scaled {
        let decision = &scaled.decision;
        status.current_replicas = decision.current;
        // What cannot be decided stays as it was.
        if let Some(desired) = decision.replicas {
            status.desired_replicas = desired;
            status.decision = Some(decision.to_string());
            status.current_utilization = Some(match decision.inputs.first().map(|input| &input.sample) {
                Some(Sample::Value(percent)) => i32::try_from(percent.units()).unwrap_or(i32::MAX),
                Some(Sample::NoData(_) | Sample::Error(_)) | None => 0,
            });
        }
        let waits = decision
            .limits
            .iter()
            .any(|limit| limit.kind == LimitKind::RescaleInterval);
        if scaled.written.is_some() || waits {
            told.push(Told::normal("DesiredReplicasComputed", decision.to_string()));
        }
    }
    // It never goes back: what is known here may be older than what stands there, or than what this process has done.
    let last_scale = report.last_scale.map(time);
    if last_scale.as_ref().map(|time| time.0) > status.last_scale_time.as_ref().map(|time| time.0) {
        status.last_scale_time = last_scale;
    }
    (status, told)
}

/// A status as a merge patch, which takes away what is not said any more.
pub(super) fn as_patch(status: &MemHpaStatus) -> Value {
    let mut patch = json!(status);
    for field in ["decision", "conditions"] {
        if patch.get(field).is_none() {
            patch[field] = Value::Null;
        }
    }
    patch
}

/// What is wrong with a field, and how it would be right.
fn corrected(object: &MemHpa, correction: &Correction) -> Told {
    let how = match correction {
        Correction::MinReplicas(_) if object.spec.min_replicas == Some(0) => {
            "; to let it sleep, annotate the MemHpa with dormouse.dev/sleep-after, such as 15m"
        }
        _ => "",
    };
    Told::warning("ValidationPolicy", format!("{correction}{how}"))
}

/// Samples that are not there yet have a name of their own for a while, and only then are missed.
fn by_age(
    object: &MemHpa,
    update: &ConditionUpdate,
    sleeper: Option<&Sleeper>,
    now: Timestamp,
) -> ConditionUpdate {
    let status = object.status.as_ref();
    let scaled = status.and_then(|status| status.last_scale_time.as_ref());
    let created = object.creation_timestamp();
    let woken = sleeper.and_then(|sleeper| sleeper.status.as_ref()?.state.wake_completed);
    let since = scaled.map(|time| time.0).or(created.map(|time| time.0));
    let since = since.max(woken);
    let not_yet = SignedDuration::try_from(NOT_YET).unwrap_or_default();
    let is_young = since.is_some_and(|since| now.duration_since(since) < not_yet);
    let mut update = update.clone();
    if is_young && update.reason == "FailedGetMetrics" {
        update.reason = "MetricsNotAvailableYet".to_owned();
    }
    update
}

/// In whole seconds, as Kubernetes keeps moments.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// As an event, by the words that MemHpa has. None: it is none, or the line has told it, and the protocol tells of sleep and wake.
fn trouble(update: &ConditionUpdate) -> Option<Told> {
    let message = update.message.clone();
    let is_of_line = ![condition::ABLE_TO_SCALE, condition::SCALING_ACTIVE].contains(&update.kind);
    if update.reason == "InvalidAnnotation" {
        return Some(Told::warning("InvalidAnnotation", message));
    }
    if is_of_line || is_resting(update.kind, &update.reason) {
        return None;
    }
    Some(match &*update.reason {
        "MetricsNotAvailableYet" => Told::normal("MetricsNotAvailableYet", message),
        "FailedGetMetrics" => Told::warning("FailedGetMetrics", message),
        "FailedUpdateScale" => Told::warning("FailedRescale", message),
        "SelectorRequired" => Told::warning("SelectorRequired", message),
        "FailedGetScale" => Told::warning("FailedGetScale", message),
        "OtherScaler" => Told::warning("OtherScaler", message),
        "Denied" => Told::warning("Denied", message),
        _ => Told::warning("InvalidDescription", message),
    })
}

fn find<'a>(status: &'a MemHpaStatus, update: &ConditionUpdate) -> Option<&'a Condition> {
    status.conditions.iter().find(|known| known.type_ == update.kind)
}

/// Whether it says the same, whatever numbers it has: those of errors, such as times and ports, differ every time.
fn is_same(known: &Condition, update: &ConditionUpdate) -> bool {
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    (known.status == "True") == update.status
        && known.reason == update.reason
        && words(&known.message) == words(&update.message)
}

fn is_news(status: &MemHpaStatus, update: &ConditionUpdate) -> bool {
    !find(status, update).is_some_and(|known| is_same(known, update))
}

/// The conditions that a MemHpa has.
fn conditions(
    object: &MemHpa,
    known: &MemHpaStatus,
    updates: &[ConditionUpdate],
    now: Timestamp,
) -> Vec<Condition> {
    let kinds = [condition::ABLE_TO_SCALE, condition::SCALING_ACTIVE, ABLE_TO_SLEEP];
    let conditions = kinds.iter().filter_map(|kind| {
        let update = updates.iter().rev().find(|update| update.kind == *kind);
        let before = known.conditions.iter().find(|known| known.type_ == *kind);
        match (update, before) {
            // It does not ask for sleep any more.
            (None, _) if *kind == ABLE_TO_SLEEP => None,
            (None, before) => before.cloned(),
            (Some(update), Some(before)) if is_same(before, update) => Some(before.clone()),
            (Some(update), before) => {
                let status = if update.status { "True" } else { "False" };
                let since = before.filter(|before| before.status == status);
                Some(Condition {
                    type_: update.kind.to_owned(),
                    status: status.to_owned(),
                    reason: update.reason.to_string(),
                    message: update.message.clone(),
                    observed_generation: object.metadata.generation,
                    last_transition_time: since
                        .map_or(time(now), |before| before.last_transition_time.clone()),
                })
            }
        }
    });
    conditions.collect()
}

#[cfg(test)]
mod tests {
    use dormouse_autoscaler::NumberDecided;
    use dormouse_model::Quantity;
    use dormouse_scaling::{Activity, Comparison, DecisionInput, Limit, Proposed, ScaleDecision};
    use dormouse_sleepers::StatusUpdate;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00.5Z".parse().unwrap()
    }

    fn memhpa(status: &serde_json::Value) -> MemHpa {
        serde_json::from_value(json!({
            "apiVersion": "xinhuang.com/v1",
            "kind": "MemHpa",
            "metadata": {"namespace": "shop", "name": "web", "generation": 3, "creationTimestamp": "2026-02-01T12:00:00Z"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5, "targetUtilizationPercentage": 50},
            "status": status,
        }))
        .unwrap()
    }

    fn decided(from: i32, to: Option<i32>, sample: Sample) -> ScaleDecision {
        ScaleDecision {
            current: from,
            replicas: to,
            activity: Activity::Active,
            inputs: vec![DecisionInput {
                name: "memory".to_owned(),
                sample,
                compared_with: Comparison::UtilizationOfLimits(50),
                proposes: Proposed::Unknown,
            }],
            limits: Vec::new(),
        }
    }

    fn report(decision: ScaleDecision, written: bool, conditions: Vec<ConditionUpdate>) -> Report {
        Report {
            at: now(),
            update: StatusUpdate {
                conditions,
                ..StatusUpdate::default()
            },
            scaled: Some(NumberDecided {
                decision,
                written: written.then(now),
            }),
            last_scale: written.then(now),
        }
    }

    fn reasons(told: &[Told]) -> Vec<&str> {
        told.iter().map(|told| told.reason).collect()
    }

    #[test]
    fn a_rescale_is_written_in_the_fields_that_memhpa_has() {
        let decision = decided(1, Some(2), Sample::Value(Quantity::from(100)));
        let conditions = vec![ConditionUpdate::good(condition::ABLE_TO_SCALE)];
        let (status, told) = outcome(&memhpa(&json!({})), &report(decision, true, conditions), None);
        let mut written = serde_json::to_value(&status).unwrap();
        let conditions = written.as_object_mut().unwrap().remove("conditions").unwrap();
        assert_eq!(
            written,
            json!({
                "observedGeneration": 3,
                "lastScaleTime": "2026-03-01T12:00:00Z",
                "currentReplicas": 1,
                "desiredReplicas": 2,
                "currentCPUUtilizationPercentage": 100,
                "decision": "scale from 1 to 2: memory is 100%, target 50% of limits",
            })
        );
        assert_eq!(conditions[0]["type"], "AbleToScale");
        assert_eq!(reasons(&told), ["DesiredReplicasComputed"]);
    }

    #[test]
    fn what_is_not_said_any_more_is_taken_away() {
        let patch = as_patch(&MemHpaStatus::default());
        assert_eq!(
            (&patch["decision"], &patch["conditions"]),
            (&Value::Null, &Value::Null)
        );
        let decided = MemHpaStatus {
            decision: Some("keep 2".to_owned()),
            ..MemHpaStatus::default()
        };
        assert_eq!(as_patch(&decided)["decision"], "keep 2");
    }

    #[test]
    fn the_same_again_is_no_news() {
        let again = || {
            report(
                decided(2, Some(2), Sample::Value(Quantity::from(50))),
                false,
                vec![],
            )
        };
        let (status, _) = outcome(&memhpa(&json!({})), &again(), None);
        let known = memhpa(&serde_json::to_value(&status).unwrap());
        assert_eq!(outcome(&known, &again(), None), (status, vec![]));
    }

    #[test]
    fn what_cannot_be_decided_keeps_what_was_decided_before() {
        let before = json!({
            "observedGeneration": 3, "currentReplicas": 2, "desiredReplicas": 4,
            "currentCPUUtilizationPercentage": 90, "lastScaleTime": "2026-03-01T11:00:00Z",
        });
        let trouble = |text: &str| ConditionUpdate::bad(condition::SCALING_ACTIVE, "FailedGetMetrics", text);
        let failed = |text: &str| {
            report(
                decided(3, None, Sample::Error(text.to_owned())),
                false,
                vec![trouble(text)],
            )
        };
        let (status, told) = outcome(&memhpa(&before), &failed("down"), None);
        assert_eq!((status.current_replicas, status.desired_replicas), (3, 4));
        assert_eq!(status.current_utilization, Some(90));
        assert_eq!(reasons(&told), ["FailedGetMetrics"]);
        // Another number is no news, and is not written. Another text is.
        let known = memhpa(&serde_json::to_value(&status).unwrap());
        assert_eq!(outcome(&known, &failed("down for 30 s"), None).1.len(), 1);
        let (status, _) = outcome(&known, &failed("down for 30 s"), None);
        let known = memhpa(&serde_json::to_value(&status).unwrap());
        assert_eq!(outcome(&known, &failed("down for 60 s"), None), (status, vec![]));
    }

    #[test]
    fn right_after_a_rescale_samples_are_not_missed_yet() {
        let before = json!({"observedGeneration": 3, "lastScaleTime": "2026-03-01T11:58:00Z"});
        let trouble = ConditionUpdate::bad(condition::SCALING_ACTIVE, "FailedGetMetrics", "none");
        let failed = report(
            decided(3, None, Sample::Error("none".to_owned())),
            false,
            vec![trouble],
        );
        let (_, told) = outcome(&memhpa(&before), &failed, None);
        assert_eq!(
            (told[0].reason, told[0].warning),
            ("MetricsNotAvailableYet", false)
        );
    }

    #[test]
    fn the_moment_of_a_rescale_never_goes_back_and_is_said_until_it_stands_there() {
        let steady = || {
            report(
                decided(2, Some(2), Sample::Value(Quantity::from(50))),
                false,
                vec![],
            )
        };
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let known = memhpa(&json!({"lastScaleTime": "2026-03-01T11:00:00Z"}));
        for (written, expected) in [
            (None, "2026-03-01T11:00:00Z"),
            (at("2026-03-01T10:00:00Z"), "2026-03-01T11:00:00Z"),
            (at("2026-03-01T11:30:00Z"), "2026-03-01T11:30:00Z"),
        ] {
            let again = Report {
                last_scale: written,
                ..steady()
            };
            let (status, _) = outcome(&known, &again, None);
            assert_eq!(status.last_scale_time.map(|time| time.0), at(expected));
        }
    }

    #[test]
    fn corrections_are_told_once_for_each_generation() {
        let mut object = memhpa(&json!({}));
        object.spec.min_replicas = Some(0);
        object.spec.target_utilization_percentage = None;
        let decision = || {
            report(
                decided(1, Some(1), Sample::Value(Quantity::from(40))),
                false,
                vec![],
            )
        };
        let (status, told) = outcome(&object, &decision(), None);
        assert_eq!(reasons(&told), ["ValidationPolicy", "ValidationPolicy"]);
        object.status = Some(status);
        assert_eq!(outcome(&object, &decision(), None).1, []);
    }

    #[test]
    fn one_that_waits_for_the_interval_says_what_it_computed() {
        let mut decision = decided(2, Some(2), Sample::Value(Quantity::from(90)));
        decision.limits.push(Limit {
            kind: LimitKind::RescaleInterval,
            from: 4,
            to: 2,
        });
        let known = json!({"observedGeneration": 3});
        let (_, told) = outcome(&memhpa(&known), &report(decision, false, vec![]), None);
        assert_eq!(reasons(&told), ["DesiredReplicasComputed"]);
    }
}
