//! What is remembered of earlier numbers of replicas: on the Sleeper, and with exact times by this process.

use dormouse_scaling::{Scaled, ScalingHistory};
use dormouse_sleepers::Sleeper;
use dormouse_sleepers::api::ScalingStatus;
use jiff::{SignedDuration, Timestamp};

use crate::sleepers::state;

/// How long after it was last said what is to stand on a Sleeper it is said again, if it does not stand there.
const SAY_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// What this process knows of a history beside what stands on the Sleeper: exact times. It counts as long as nobody else has written. Losing
/// it costs an interval at most.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    /// The Sleeper's uid: one that is created anew knows nothing.
    uid: Option<String>,
    exact: ScalingHistory,
    /// What stood there when it was last said what is to stand there. It may do so for a moment longer; or for ever, where the definition
    /// of Sleepers is of an older version.
    before: ScalingHistory,
    /// What was last said.
    said: ScalingHistory,
    said_at: Timestamp,
}

/// What was recommended before, by whoever decided. After a sleep everything begins anew.
pub(super) fn history(
    sleeper: &Sleeper,
    remembered: Option<&Remembered>,
    current: i32,
    now: Timestamp,
) -> ScalingHistory {
    let written = written(sleeper).map(|scaling| scaling.history.clone());
    let written = written.unwrap_or_default();
    let remembered = remembered.filter(|remembered| {
        remembered.uid == sleeper.metadata.uid
            && (written.is_same(&remembered.before) || written.is_same(&remembered.said))
    });
    let known = remembered.map_or(&written, |remembered| &remembered.exact);
    let last = known.recommendations.last().map(|last| last.at);
    let slept = state(sleeper).slept.filter(|slept| *slept <= now);
    if slept.is_some() && slept > last {
        return ScalingHistory::default();
    }
    match remembered {
        Some(remembered) => remembered.exact.clone().until(now),
        None => written.resumed(current, now),
    }
}

/// What is to stand on the Sleeper of a target whose number of replicas was decided; None: nothing new. `resized` is when the number was
/// changed, if it was just now.
pub(crate) fn status(
    sleeper: &Sleeper,
    scaled: &Scaled,
    resized: Option<Timestamp>,
    remembered: &mut Option<Remembered>,
    now: Timestamp,
) -> Option<ScalingStatus> {
    let is_said = |remembered: &Remembered| {
        remembered.uid == sleeper.metadata.uid
            && remembered.said.is_same(&scaled.history)
            && now.duration_since(remembered.said_at) < SAY_AGAIN
    };
    if resized.is_none()
        && let Some(remembered) = remembered.as_mut().filter(|remembered| is_said(remembered))
    {
        remembered.exact = scaled.history.clone();
        return None;
    }
    let known = written(sleeper);
    *remembered = Some(Remembered {
        uid: sleeper.metadata.uid.clone(),
        exact: scaled.history.clone(),
        before: known.map(|known| known.history.clone()).unwrap_or_default(),
        said: scaled.history.clone(),
        said_at: now,
    });
    let before = || known.and_then(|known| known.last_scale_time.clone());
    Some(ScalingStatus {
        at: now.to_string(),
        desired_replicas: Some(scaled.decision.replicas.unwrap_or(scaled.decision.current)),
        last_scale_time: resized.map(|at| at.to_string()).or_else(before),
        decision: scaled.decision.to_string(),
        history: scaled.history.clone(),
    })
}

/// What stands there, looked at now: so that a trouble whose text changes is written now and then, and not every time.
pub(crate) fn looked_at(sleeper: &Sleeper, now: Timestamp) -> ScalingStatus {
    ScalingStatus {
        at: now.to_string(),
        ..written(sleeper).cloned().unwrap_or_default()
    }
}

fn written(sleeper: &Sleeper) -> Option<&ScalingStatus> {
    let status = sleeper.status.as_ref();
    status.and_then(|status| status.scaling.as_ref())
}
