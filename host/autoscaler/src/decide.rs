//! From readings to what is to be done.

use std::time::Duration;

use dormouse_model::Phase;
use dormouse_plugin::types::MetricSource;
use dormouse_scaling::{Decision, Input, KeepReason, Verdict, decide};
use dormouse_sleepers::lifecycle::Wish;
use jiff::{SignedDuration, Timestamp};

use crate::target::{Target, scales_itself};

/// What follows from a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Everything stays as it is.
    Nothing,
    /// Put it to sleep.
    Sleep,
    /// Nobody knows whether it is idle, and the other rules do not object: let the DLX step into its traffic.
    Look,
    /// Somebody needs it after all: let the DLX step out again.
    StepOut,
}

/// Decides about one target at `now`. `settle` is how long a resource that was just declared or updated is left alone before
/// its traffic is looked at.
pub(crate) fn choose(
    target: &Target,
    inputs: &[Input],
    now: Timestamp,
    settle: Duration,
) -> (Decision, Action) {
    let decision = decide(inputs, &target.events(), now);
    let state = target.state();
    let in_use = matches!(decision, Decision::Keep(KeepReason::InUse { .. }));
    if scales_itself(&target.resource) {
        let action = if decision.is_idle() {
            Action::Sleep
        } else {
            Action::Nothing
        };
        return (decision, action);
    }
    let action = match (state.wish, state.phase) {
        _ if decision.is_idle() && state.wish != Wish::Asleep => Action::Sleep,
        (Wish::Awake, Phase::Awake) if may_look(target, inputs, now, settle) => Action::Look,
        (Wish::Awake, _) | (_, Phase::Awake) => Action::Nothing,
        // On its way to sleep, or looked at: demand anywhere turns it round.
        _ if in_use => Action::StepOut,
        // Nothing asks for a look any more.
        (Wish::Observed, _) if !target.is_observed() => Action::StepOut,
        _ => Action::Nothing,
    };
    (decision, action)
}

/// Whether to look at the traffic of a resource that is awake.
fn may_look(target: &Target, inputs: &[Input], now: Timestamp, settle: Duration) -> bool {
    let state = target.state();
    let rules = target.resource.rules.iter().zip(inputs);
    let (observed, others): (Vec<_>, Vec<_>) =
        rules.partition(|(rule, _)| rule.source == MetricSource::ObservedTraffic);
    // An error in the rule itself would never become a value.
    let wants = !observed.is_empty()
        && observed
            .iter()
            .all(|(_, input)| input.verdict() == Verdict::NoData);
    let objects = others.iter().any(|(_, input)| input.verdict() != Verdict::Idle);
    let due = state.look.not_before.is_none_or(|moment| now >= moment);
    let settle = SignedDuration::try_from(settle).unwrap_or(SignedDuration::MAX);
    let updated = target
        .resource
        .last_event
        .filter(|event| event.kind == dormouse_model::ScaleEventKind::ResourceUpdated);
    let settled = [state.since, updated.and_then(|event| event.at)]
        .into_iter()
        .flatten()
        .all(|moment| now.duration_since(moment) >= settle);
    wants && !objects && due && settled
}

/// Why it is put to sleep, for people. The same for all resources with the same rules, so that they go in one batch.
pub(crate) fn reason(inputs: &[Input]) -> String {
    let rules: Vec<_> = inputs
        .iter()
        .map(|input| format!("{} at most {}", input.rule, input.rule.threshold))
        .collect();
    format!("idle: {}", rules.join(", "))
}
