//! What is read for a target.

use std::sync::Arc;

use dormouse_model::{Phase, Query, QuerySource, Target, Trigger};
use dormouse_readings::Meter;
use dormouse_scaling::{Input, Rule, Sample};
use dormouse_sleepers::lifecycle::SleeperState;
use jiff::{SignedDuration, Timestamp};

use crate::metrics::Metrics;

/// The part of a target's interval that an answer may be old.
const AGE: u32 = 2;

/// What is read for each trigger of a target.
pub(crate) async fn gather(
    target: &Target,
    state: &SleeperState,
    meter: &dyn Meter,
    metrics: &Metrics,
    now: Timestamp,
) -> Vec<Input> {
    let planned: Vec<_> = target
        .triggers
        .iter()
        .map(|trigger| plan(trigger, state))
        .collect();
    let asked: Vec<_> = planned.iter().filter_map(|query| query.clone().ok()).collect();
    let answers = meter.read(&asked, target.every / AGE, now).await;
    let mut answers = answers.into_iter();
    let mut inputs = Vec::with_capacity(planned.len());
    for (trigger, query) in target.triggers.iter().zip(planned) {
        let sample = match query {
            Ok(_) => answers
                .next()
                .unwrap_or_else(|| Sample::Error("it was not asked for".to_owned())),
            Err(sample) => sample,
        };
        metrics.reading(&target.key.owner, trigger.source.as_str(), result(&sample));
        inputs.push(Input {
            rule: Rule {
                metric: trigger.name.clone(),
                window: trigger.window,
                threshold: trigger.threshold,
            },
            observed: trigger.source == QuerySource::ObservedTraffic,
            changes_at: changes_at(trigger, state, &sample),
            sample,
        });
    }
    inputs
}

/// What to ask for a trigger, or what is known without asking.
fn plan(trigger: &Trigger, state: &SleeperState) -> Result<Arc<Query>, Sample> {
    let query = trigger.query.as_ref().map_err(|why| Sample::Error(why.clone()))?;
    let Query::Traffic {
        namespace,
        sleeper,
        window,
        ..
    } = &**query
    else {
        return Ok(Arc::clone(query));
    };
    if !matches!(state.phase, Phase::Diverting | Phase::Observing | Phase::Draining) {
        return Err(Sample::NoData("not observed yet".into()));
    }
    Ok(Arc::new(Query::Traffic {
        namespace: namespace.clone(),
        sleeper: sleeper.clone(),
        window: *window,
        since: observed_since(state),
    }))
}

/// Since when all traffic goes through the DLX.
fn observed_since(state: &SleeperState) -> Option<Timestamp> {
    state.since.filter(|_| state.phase == Phase::Observing)
}

/// Traffic that has been quiet so far will have been so for its window.
fn changes_at(trigger: &Trigger, state: &SleeperState, sample: &Sample) -> Option<Timestamp> {
    if trigger.source != QuerySource::ObservedTraffic || !matches!(sample, Sample::NoData(_)) {
        return None;
    }
    let window = SignedDuration::try_from(trigger.window).unwrap_or(SignedDuration::MAX);
    observed_since(state)?.saturating_add(window).ok()
}

/// As a metric label.
fn result(sample: &Sample) -> &'static str {
    match sample {
        Sample::Value(_) => "value",
        Sample::NoData(_) => "no-data",
        Sample::Error(_) => "error",
    }
}
