//! What the status of a MemHpa says of the sleep of its workload.

use dormouse_autoscaler::Report;
use dormouse_model::Phase;
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, Sleeper};
use kube::ResourceExt;

use super::api::{MemHpa, MemHpaStatus};
use crate::sleep::asked;

/// False when its workload cannot be put to sleep or woken; the message says why. Only of those that ask for sleep.
pub(super) const ABLE_TO_SLEEP: &str = "AbleToSleep";
/// Why `ScalingActive` is False of one whose workload sleeps.
const ASLEEP: &str = "Asleep";
/// The same of one whose workload is on its way back.
const WAKING: &str = "Waking";

/// Conditions of a Sleeper that say whether it can sleep and wake, what keeps it from sleeping first.
const OF_SLEEP: [&str; 4] = [
    condition::PLUGIN,
    condition::DIVERTIBLE,
    condition::WAKEABLE,
    condition::READINGS,
];

/// Whether it can sleep as it asks for. None: it does not ask, or there is no Sleeper yet.
pub(super) fn able_to_sleep(
    object: &MemHpa,
    report: &Report,
    sleeper: Option<&Sleeper>,
) -> Option<ConditionUpdate> {
    match asked(object.annotations()) {
        Ok(None) => return None,
        Ok(Some(_)) => {}
        Err(why) => {
            let message = format!("{why}. It is left awake.");
            return Some(ConditionUpdate::bad(ABLE_TO_SLEEP, "InvalidAnnotation", message));
        }
    }
    let sleeper = sleeper.filter(|sleeper| sleeper.metadata.deletion_timestamp.is_none())?;
    let trouble = OF_SLEEP
        .into_iter()
        .find_map(|kind| trouble(kind, report, sleeper));
    Some(trouble.map_or_else(
        || ConditionUpdate::good(ABLE_TO_SLEEP),
        |(reason, message)| ConditionUpdate::bad(ABLE_TO_SLEEP, reason, message),
    ))
}

/// Reason and message of a condition that does not hold: as it was just decided, else as it stands on the Sleeper.
fn trouble(kind: &str, report: &Report, sleeper: &Sleeper) -> Option<(String, String)> {
    let mut updates = report.update.conditions.iter().rev();
    if let Some(update) = updates.find(|update| update.kind == kind) {
        return (!update.status).then(|| (update.reason.clone(), update.message.clone()));
    }
    let mut known = sleeper.status.iter().flat_map(|status| &status.conditions);
    let known = known.find(|known| known.type_ == kind && known.status == "False")?;
    Some((known.reason.clone(), known.message.clone()))
}

/// What holds for its number of replicas while its workload sleeps or wakes.
pub(super) fn resting(sleeper: Option<&Sleeper>) -> Option<ConditionUpdate> {
    let state = &sleeper?.status.as_ref()?.state;
    let (reason, message) = match state.phase {
        Phase::Asleep => (ASLEEP, format!("it sleeps: {}", state.reason)),
        Phase::Waking | Phase::Ready => (WAKING, format!("it wakes: {}", state.reason)),
        Phase::Awake | Phase::Diverting | Phase::Observing | Phase::Draining => return None,
    };
    Some(ConditionUpdate {
        kind: condition::SCALING_ACTIVE,
        status: false,
        reason: reason.to_owned(),
        message,
    })
}

/// Whether a condition says that the workload sleeps or wakes: nothing is wrong then.
pub fn is_resting(kind: &str, reason: &str) -> bool {
    kind == condition::SCALING_ACTIVE && [ASLEEP, WAKING].contains(&reason)
}

/// Takes into the status that the workload sleeps or wakes, or that it does not any more.
pub(super) fn note(status: &mut MemHpaStatus, report: &Report, resting: Option<&ConditionUpdate>) {
    let mut known = status.conditions.iter();
    let rested = known.any(|known| is_resting(&known.type_, &known.reason));
    match resting {
        Some(resting) => {
            (status.current_replicas, status.desired_replicas) = (0, 0);
            status.current_utilization = Some(0);
            status.decision = Some(resting.message.clone());
        }
        // What was decided before the sleep is nothing to what woke.
        None if rested => {
            let counted = report.scaled.as_ref().map(|scaled| scaled.decision.current);
            status.desired_replicas = counted.unwrap_or_default();
            status.decision = None;
            status
                .conditions
                .retain(|known| !is_resting(&known.type_, &known.reason));
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use dormouse_autoscaler::NumberDecided;
    use dormouse_scaling::{Activity, ScaleDecision};
    use dormouse_sleepers::StatusUpdate;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::status::outcome;
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn memhpa(annotations: &Value, status: &MemHpaStatus) -> MemHpa {
        serde_json::from_value(json!({
            "apiVersion": "xinhuang.com/v1",
            "kind": "MemHpa",
            "metadata": {
                "namespace": "shop", "name": "web", "generation": 3, "annotations": annotations,
                "creationTimestamp": "2026-02-01T12:00:00Z",
            },
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 0, "maxReplicas": 5, "targetUtilizationPercentage": 50},
            "status": status,
        }))
        .unwrap()
    }

    /// One that asks for sleep.
    fn asking(status: &MemHpaStatus) -> MemHpa {
        memhpa(&json!({"dormouse.dev/sleep-after": "15m"}), status)
    }

    fn sleeper(status: &Value) -> Sleeper {
        let mut sleeper = Sleeper::new("web.memhpa", Default::default());
        sleeper.status = Some(serde_json::from_value(status.clone()).unwrap());
        sleeper
    }

    fn asleep() -> Sleeper {
        sleeper(&json!({"phase": "Asleep", "wish": "Asleep", "reason": "nobody needs it"}))
    }

    fn awake() -> Sleeper {
        sleeper(&json!({"phase": "Awake", "wish": "Awake", "wakeCompleted": "2026-03-01T11:59:30Z"}))
    }

    fn report(conditions: Vec<ConditionUpdate>) -> Report {
        let update = StatusUpdate {
            conditions,
            ..StatusUpdate::default()
        };
        Report::of(update, now())
    }

    fn counted(replicas: i32, conditions: Vec<ConditionUpdate>) -> Report {
        let decision = ScaleDecision {
            current: replicas,
            replicas: None,
            activity: Activity::Unknown,
            inputs: Vec::new(),
            limits: Vec::new(),
        };
        Report {
            scaled: Some(NumberDecided {
                decision,
                written: None,
            }),
            ..report(conditions)
        }
    }

    fn condition<'a>(status: &'a MemHpaStatus, kind: &str) -> Option<(&'a str, &'a str)> {
        let found = status.conditions.iter().find(|known| known.type_ == kind)?;
        Some((&found.status, &found.reason))
    }

    fn up() -> MemHpaStatus {
        let status = json!({
            "observedGeneration": 3, "currentReplicas": 3, "desiredReplicas": 3, "decision": "keep 3",
            "currentCPUUtilizationPercentage": 50, "lastScaleTime": "2026-03-01T11:00:00Z",
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn one_whose_workload_sleeps_says_so_and_nobody_is_warned() {
        let (status, told) = outcome(&asking(&up()), &report(vec![]), Some(&asleep()));
        assert_eq!((status.current_replicas, status.desired_replicas), (0, 0));
        assert_eq!(status.decision.as_deref(), Some("it sleeps: nobody needs it"));
        assert_eq!(condition(&status, "ScalingActive"), Some(("False", "Asleep")));
        assert_eq!(condition(&status, "AbleToSleep"), Some(("True", "Ok")));
        assert_eq!(status.last_scale_time, up().last_scale_time, "it is remembered");
        assert_eq!(told, []);
        let again = outcome(&asking(&status), &report(vec![]), Some(&asleep()));
        assert_eq!(again, (status, vec![]), "the same again is no news");
    }

    #[test]
    fn what_was_said_of_its_sleep_goes_when_it_is_up() {
        let (asleep, _) = outcome(&asking(&up()), &report(vec![]), Some(&asleep()));
        let waking = sleeper(&json!({"phase": "Waking", "wish": "Awake", "reason": "a request"}));
        let (waking, _) = outcome(&asking(&asleep), &report(vec![]), Some(&waking));
        assert_eq!(condition(&waking, "ScalingActive"), Some(("False", "Waking")));
        assert_eq!(waking.decision.as_deref(), Some("it wakes: a request"));

        let missing = ConditionUpdate::bad(condition::SCALING_ACTIVE, "FailedGetMetrics", "none");
        let (up, told) = outcome(&asking(&waking), &counted(2, vec![missing]), Some(&awake()));
        assert_eq!((up.current_replicas, up.desired_replicas), (2, 2));
        assert_eq!(up.decision, None);
        assert_eq!(
            condition(&up, "ScalingActive"),
            Some(("False", "MetricsNotAvailableYet")),
            "it woke half a minute ago"
        );
        assert!(told.iter().all(|told| !told.warning), "{told:?}");

        let (up, _) = outcome(&asking(&waking), &counted(2, vec![]), Some(&awake()));
        assert_eq!(condition(&up, "ScalingActive"), None);
    }

    #[test]
    fn what_keeps_it_from_sleeping_is_its_condition() {
        let of = |report: &Report, sleeper: &Sleeper| {
            let (status, told) = outcome(&asking(&up()), report, Some(sleeper));
            assert_eq!(told, [], "the line tells it");
            condition(&status, "AbleToSleep").map(|(status, reason)| (status.to_owned(), reason.to_owned()))
        };
        let bad = |reason: &str| Some(("False".to_owned(), reason.to_owned()));
        let stands = sleeper(&json!({
            "phase": "Awake", "wish": "Awake",
            "conditions": [{
                "type": "Divertible", "status": "False", "reason": "Undivertible", "message": "it is headless",
                "lastTransitionTime": "2026-03-01T11:00:00Z",
            }],
        }));
        assert_eq!(of(&report(vec![]), &stands), bad("Undivertible"));
        let mended = ConditionUpdate::good(condition::DIVERTIBLE);
        let failed = ConditionUpdate::bad(condition::READINGS, "ReadingFailed", "requests: down");
        assert_eq!(of(&report(vec![mended, failed]), &stands), bad("ReadingFailed"));
    }

    #[test]
    fn an_annotation_that_is_wrong_is_told_once_and_it_stays_awake() {
        let wrong = |status: &MemHpaStatus| memhpa(&json!({"dormouse.dev/sleep-after": "soon"}), status);
        let (status, told) = outcome(&wrong(&up()), &counted(2, vec![]), None);
        assert_eq!(
            condition(&status, "AbleToSleep"),
            Some(("False", "InvalidAnnotation"))
        );
        let reasons: Vec<_> = told.iter().map(|told| (told.reason, told.warning)).collect();
        assert_eq!(reasons, [("InvalidAnnotation", true)]);
        assert!(told[0].message.contains("`soon`"), "{}", told[0].message);
        assert_eq!(
            outcome(&wrong(&status), &counted(2, vec![]), None),
            (status, vec![])
        );
    }

    #[test]
    fn zero_is_wrong_again_when_it_does_not_ask_for_sleep_any_more() {
        let (asked, _) = outcome(&asking(&up()), &report(vec![]), Some(&awake()));
        let (status, told) = outcome(&memhpa(&json!({}), &asked), &counted(1, vec![]), None);
        assert_eq!(condition(&status, "AbleToSleep"), None);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].message.contains("minReplicas is taken for 1")
                && told[0].message.contains("dormouse.dev/sleep-after"),
            "{}",
            told[0].message
        );
        assert_eq!(
            outcome(&memhpa(&json!({}), &status), &counted(1, vec![]), None).1,
            []
        );
    }
}
