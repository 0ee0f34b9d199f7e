//! Conditions on Sleepers.

use dormouse_kubernetes::shortened;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// One of [`crate::api::condition`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl ConditionUpdate {
    /// The condition holds again.
    pub fn good(kind: &'static str) -> Self {
        Self {
            kind,
            status: true,
            reason: "Ok".to_owned(),
            message: String::new(),
        }
    }

    /// The condition does not hold.
    pub fn bad(kind: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: false,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Longest message that the API server accepts in a condition.
const LONGEST_MESSAGE: usize = 32_768;

/// Applies updates. A condition that holds is not added where it never failed. Returns whether anything changed.
pub(crate) fn apply(
    conditions: &mut Vec<Condition>,
    updates: &[ConditionUpdate],
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let mut changed = false;
    for update in updates {
        let status = if update.status { "True" } else { "False" };
        let message = shortened(&update.message, LONGEST_MESSAGE);
        match conditions
            .iter_mut()
            .find(|condition| condition.type_ == update.kind)
        {
            None if update.status => {}
            None => {
                changed = true;
                conditions.push(Condition {
                    type_: update.kind.to_owned(),
                    status: status.to_owned(),
                    reason: update.reason.clone(),
                    message,
                    observed_generation: generation,
                    last_transition_time: Time(now),
                });
            }
            Some(condition) => {
                if condition.status == status
                    && condition.reason == update.reason
                    && condition.message == message
                {
                    continue;
                }
                changed = true;
                if condition.status != status {
                    condition.last_transition_time = Time(now);
                }
                status.clone_into(&mut condition.status);
                condition.reason.clone_from(&update.reason);
                condition.message = message;
                condition.observed_generation = generation;
            }
        }
    }
    changed
}
