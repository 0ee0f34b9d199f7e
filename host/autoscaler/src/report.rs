//! What became of a target, for its source; and how it is written on a Sleeper: only what is news.

use dormouse_model::{Target, TargetKey};
use dormouse_scaling::{Decision, Input, Sample, ScaleDecision};
use dormouse_sleepers::api::{LastDecision, condition};
use dormouse_sleepers::{ConditionUpdate, Sleeper, StatusUpdate};
use jiff::{SignedDuration, Timestamp};

use crate::Sleepers;
use crate::error::SourceError;
use crate::key::sleeper_key;

/// What became of a target.
#[derive(Clone, Debug)]
pub struct Report {
    /// When.
    pub at: Timestamp,
    /// What was decided and what holds for it.
    pub update: StatusUpdate,
    /// What was decided about the number of replicas, for a source that remembers it.
    pub scaled: Option<NumberDecided>,
    /// When the number of replicas was last written by this process, if it was. Such a source may have missed it.
    pub last_scale: Option<Timestamp>,
}

/// A number of replicas that was decided.
#[derive(Clone, Debug)]
pub struct NumberDecided {
    /// How many, and why.
    pub decision: ScaleDecision,
    /// When it was written, if it was just now.
    pub written: Option<Timestamp>,
}

impl Report {
    /// A report without a number of replicas.
    pub fn of(update: impl Into<StatusUpdate>, at: Timestamp) -> Self {
        Self {
            at,
            update: update.into(),
            scaled: None,
            last_scale: None,
        }
    }
}

/// Writes a report on the Sleeper of its target, if there is one and it says something new there.
pub(crate) async fn write(sleepers: &dyn Sleepers, key: &TargetKey, report: &Report) {
    let key = sleeper_key(key);
    let Some(sleeper) = sleepers.get(&key) else { return };
    let Report { at, update, .. } = report;
    if is_worth_writing(&sleeper, update, *at)
        && let Err(error) = sleepers.record(&key, update).await
    {
        tracing::warn!(owner = %key.owner, resource = %key, "what was decided was not recorded: {error}");
    }
}

/// What a failed call of a source says about its targets.
pub(crate) fn of_source_failure(error: &SourceError) -> ConditionUpdate {
    ConditionUpdate::bad(condition::PLUGIN, camel(error.code), error.to_string())
}

/// Whether its source describes a target in a way that can be used.
pub(crate) fn described(target: &Target) -> ConditionUpdate {
    match &target.problem {
        Some(problem) => ConditionUpdate::bad(condition::PLUGIN, "InvalidDescription", problem),
        None => ConditionUpdate::good(condition::PLUGIN),
    }
}

/// A text that changes while all else stays the same is written again after this time, not sooner: error texts may differ
/// in every round.
const REFRESH: SignedDuration = SignedDuration::from_mins(5);

/// The decision as it stands in a Sleeper.
pub(crate) fn last_decision(
    decision: &Decision,
    inputs: &[Input],
    target: &Target,
    now: Timestamp,
) -> LastDecision {
    let reason = target.reason.iter().cloned();
    LastDecision {
        at: now.to_string(),
        outcome: decision.outcome().to_owned(),
        inputs: inputs.iter().map(ToString::to_string).chain(reason).collect(),
    }
}

/// Whether all readings are there. That nobody has looked at the traffic yet is as it should be.
pub(crate) fn readings(inputs: &[Input]) -> ConditionUpdate {
    let troubles = inputs.iter().filter_map(|input| match &input.sample {
        Sample::Error(error) => Some(("ReadingFailed", format!("{}: {error}", input.rule))),
        Sample::NoData(missing) if !input.observed => Some(("NoData", format!("{}: {missing}", input.rule))),
        Sample::NoData(_) | Sample::Value(_) => None,
    });
    // A failure says more than a gap.
    match troubles.min_by_key(|(reason, _)| *reason != "ReadingFailed") {
        Some((reason, message)) => ConditionUpdate::bad(condition::READINGS, reason, message),
        None => ConditionUpdate::good(condition::READINGS),
    }
}

/// A code such as `wall_timeout` as the reason of a condition: `WallTimeout`.
pub(crate) fn camel(code: &str) -> String {
    let words = code.split(['_', '-']).map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    });
    words.collect()
}

/// Whether a condition says something new.
pub(crate) fn is_news(sleeper: &Sleeper, update: &ConditionUpdate, now: Timestamp) -> bool {
    let status = sleeper.status.as_ref();
    let known = status.and_then(|status| status.conditions.iter().find(|known| known.type_ == update.kind));
    match known {
        None => !update.status,
        Some(known) if (known.status == "True") != update.status => true,
        Some(known) if known.reason != update.reason => true,
        Some(known) if known.message == update.message => false,
        Some(known)
            if update.kind == condition::READINGS && rule_in(&known.message) != rule_in(&update.message) =>
        {
            true
        }
        Some(known) => {
            // Since when a text stands is not recorded; the last decision and the transition are no later.
            let decided = status.and_then(|status| status.last_decision.as_ref());
            let scaled = status.and_then(|status| status.scaling.as_ref());
            let texts = [
                decided.map(|decided| &decided.at),
                scaled.map(|scaled| &scaled.at),
            ];
            let moments = texts.into_iter().flatten().filter_map(|at| at.parse().ok());
            let written = moments.fold(known.last_transition_time.0, Timestamp::max);
            now.duration_since(written) >= REFRESH
        }
    }
}

/// What the message of a reading is about. Who changes a rule wants to hear about the new one at once.
fn rule_in(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(rule, _)| rule)
}

/// Whether an update is worth a write: a decision or a condition changed.
pub(crate) fn is_worth_writing(sleeper: &Sleeper, update: &StatusUpdate, now: Timestamp) -> bool {
    let decided = match &sleeper.status {
        Some(status) => update.is_news(status),
        None => update.decision.is_some() || update.scaling.is_some(),
    };
    decided
        || update
            .conditions
            .iter()
            .any(|condition| is_news(sleeper, condition, now))
}
